"""`jwb-dh judge ...`: speech before a judge that hears. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.cli.data import SHAPE
from jwb_dh_v1.cli.progress import counting
from jwb_dh_v1.cli.wer import text_arguments
from jwb_dh_v1.errors import DataNotFound, SetupError

if TYPE_CHECKING:
    from jwb_dh_v1.judge.question import Orders
    from jwb_dh_v1.judge.request import Backend
    from jwb_dh_v1.judge.run import JudgeOutcome


def _items(args: argparse.Namespace) -> Any:
    from jwb_dh_v1.judge.items import Items

    return Items(
        args.generated, args.baseline, args.data, split=args.split, revision=args.revision,
        loudness=None if args.profile == "emergent" else args.loudness, system=args.name,
    )  # fmt: skip


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`temperature=0.5` -> a number; what is no JSON is a string."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SetupError(f"--set takes NAME=VALUE, not {pair!r}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _orders(args: argparse.Namespace) -> Orders:
    return "emergent" if args.profile == "emergent" else "both"


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.judge import cost
    from jwb_dh_v1.judge.backends import backend
    from jwb_dh_v1.judge.log import Log
    from jwb_dh_v1.judge.question import JudgeSettings
    from jwb_dh_v1.judge.run import dry_run, judge

    console = Console()
    items = _items(args)
    settings = _settings(args.set)
    if args.base_url:
        settings["base_url"] = args.base_url
    if args.dry_run and args.judge != "local":
        settings.setdefault("api_key", "a-dry-run-needs-none")
    whom = backend(args.judge, args.model, **settings)
    price = cost.parse_price(args.price) if args.price else None
    log = Path(args.log or Path(args.out) / "log.jsonl")
    orders = _orders(args)
    if args.dry_run:
        with Log(log, write=False) as known:
            plan = dry_run(
                items, JudgeSettings.of(whom), known, orders=orders, repeats=args.repeats, price=price,
            )  # fmt: skip
        dollars = "unknown: give --price IN,OUT" if plan.dollars is None else f"about ${plan.dollars:.2f}"
        console.print(
            f"{plan.calls} calls to {whom.model}, {plan.usage.audio_in + plan.usage.text_in} tokens in and "
            f"{plan.usage.out + plan.usage.thoughts} out, {dollars}; {plan.reused} answers are in the log, "
            f"{plan.by_rule} need no judge, {plan.skipped} pairs cannot be judged, {len(items.failures)} recordings "
            "cannot be read.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        return 0
    served = None if args.serve_check == "any" else args.serve_check
    with Log(log) as opened, counting(items.system, len(items), "pairs", console) as done:
        found = judge(
            items, whom, opened, orders=orders, repeats=args.repeats, concurrency=args.concurrency,
            retries=args.retries, max_cost=args.max_cost, price=price, serve_check=served,
            on_pair=lambda ones: done(ones[0].sample_id if ones else ""),
        )  # fmt: skip
    return _finish(args, found, items.failures, log, whom, console)


def _replay(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.judge.backends.replay import copied, replay
    from jwb_dh_v1.judge.log import Log
    from jwb_dh_v1.judge.run import judge

    items = _items(args)
    whom = replay(args.log, args.model)
    with copied(args.log) as place, Log(place) as opened:
        found = judge(items, whom, opened, orders=_orders(args), repeats=args.repeats, serve_check=None)
    return _finish(args, found, items.failures, Path(args.log), whom, Console())


def _finish(
    args: argparse.Namespace, found: JudgeOutcome, failures: dict[str, str], log: Path, whom: Backend, console: Any
) -> int:
    """Statistics of the pairs of this run, written and printed."""
    from jwb_dh_v1.errors import NotApplicable
    from jwb_dh_v1.files import write_atomically
    from jwb_dh_v1.judge.question import JudgeSettings
    from jwb_dh_v1.judge.summary import print_summary, summarise

    for reason, count in sorted(found.failed.items()):
        console.print(f"{count} judgements failed: {reason}", style="red", highlight=False, markup=False)
    for name, reason in [*found.skipped, *failures.items()]:
        console.print(f"{name}: not judged: {reason}", style="yellow", highlight=False, markup=False)
    spent = "" if found.dollars is None else f", ${found.dollars:.2f}"
    console.print(
        f"{found.calls} calls in this run{spent}; {found.reused} answers were in the log, "
        f"{sum(found.by_rule.values())} verdicts by rule. Log: {log}", highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    if found.stopped:
        console.print(found.stopped, style="red", highlight=False, markup=False, soft_wrap=True)
    try:
        summary = summarise(JudgeSettings.of(whom).who, found, args.failures)
    except NotApplicable as reason:
        raise SetupError(f"There is nothing to count: {reason}") from None
    lost = len({one.sample_id for one in found.judgements if one.outcome is None}) + len(failures)
    print_summary(summary, console)
    if args.out:
        path = Path(args.out) / "judge.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {**json.loads(summary.to_json()), "log": log.name, "lost_pairs": lost,
                    "skipped_pairs": len(found.skipped), "stopped": found.stopped}  # fmt: skip
        write_atomically(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
        console.print(f"Results: {path}", highlight=False, markup=False)
    return 1 if found.stopped or lost > args.allow_failures else 0


def _summaries(groups: Any, failures: Any) -> list[Any]:
    from jwb_dh_v1.judge.summary import summarise

    return [summarise(who, one, failures) for who, one in sorted(groups.items())]


def _stats(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.judge.summary import print_summary

    console = Console()
    summaries = _summaries(_read_logs(args.logs), args.failures)
    if not summaries:
        raise DataNotFound("The logs hold no judgement.")
    for summary in summaries:
        print_summary(summary, console)
    if args.json:
        Path(args.json).write_text("[" + ",\n".join(s.to_json() for s in summaries) + "]\n", encoding="utf-8")
    return 0


def _read_logs(paths: list[str]) -> Any:
    from jwb_dh_v1.judge.log import records
    from jwb_dh_v1.judge.question import judged

    logs = [Path(p) / "log.jsonl" if Path(p).is_dir() else Path(p) for p in paths]
    for log in logs:
        if not log.is_file():
            raise DataNotFound(f"{log} is no log of a judge; `jwb-dh judge run --out DIR` writes DIR/log.jsonl.")
    return judged(record for log in logs for record in records(log))


def _validate(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from jwb_dh_v1.judge.people.ratings import read_ratings
    from jwb_dh_v1.judge.people.validation import validate

    ratings = read_ratings(args.ratings)
    groups = _read_logs([args.log])
    if not groups:
        raise DataNotFound(f"{args.log} holds no judgement.")
    console = Console()
    documents = []
    for who, found in sorted(groups.items()):
        result = validate(found.judgements, ratings)
        table = Table(title=f"{who[1]} ({who[0]}) and people: {args.ratings}")
        for column in ("what", "value", "of"):
            table.add_column(column, overflow="fold")
        for row in result.rows():
            table.add_row(*row)
        console.print(table)
        documents.append({"backend": who[0], "model": who[1], "rubric": who[2], **json.loads(result.to_json())})
    if args.json:
        Path(args.json).write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _rate(args: argparse.Namespace) -> int:
    from jwb_dh_v1.judge.people.page import launch, rating_page
    from jwb_dh_v1.judge.people.study import RatingItem

    items = [
        RatingItem(one.sample_id, one.text, one.system, one.baseline, one.speech.wav, one.baseline_speech.wav)
        for one in _items(args)
        if one.speech is not None and one.baseline_speech is not None
    ]
    page = rating_page(items, args.ratings, seed=args.seed, per_rater=args.per_rater, raters=args.raters or None)
    address = launch(page, host=args.host, port=args.port, block=False)
    print(f"{len(items)} pairs to rate at {address} ; ratings go to {args.ratings}. Stop with Ctrl-C.", flush=True)
    page.block_thread()
    return 0


def _pair_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generated", help="folder of the system's videos or sounds, <sample_id>.mp4 or .wav")
    parser.add_argument("--baseline", required=True, help="folder of the baseline's, or `real` for the dataset's own")
    text_arguments(parser)
    parser.add_argument("--name", help="of the system (default: the folder's)")
    parser.add_argument(
        "--profile", choices=["jwb", "emergent"], default="jwb",
        help="jwb: both orders, one loudness; emergent: one seeded order, level as it is",
    )  # fmt: skip
    parser.add_argument("--loudness", type=float, default=-23.0, help="LUFS both clips are brought to (default: -23)")


def _failures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--failures", choices=["drop", "tie", "loss", "win"], default="drop",
        help="what a judgement without a verdict counts as (default: left out; bounds are always shown)",
    )  # fmt: skip


def add_commands(commands: Any) -> None:
    """Add `judge` to the commands of `jwb-dh`."""
    judge = commands.add_parser(
        "judge", help="win rate of speech before a judge that hears; is the judge to be trusted?"
    )
    verbs = judge.add_subparsers(required=True, metavar="VERB")

    run = verbs.add_parser(
        "run", formatter_class=SHAPE, help="ask a judge about every pair; an answer is never paid for twice",
        description="Ask an audio language model which of two recordings is the better speech, in both orders. Every "
        "answer goes to OUT/log.jsonl; the same command again asks only what is missing. The key is read from "
        "GEMINI_API_KEY, GOOGLE_API_KEY or OPENAI_API_KEY and is never written anywhere.",
        epilog="examples:\n"
        "  jwb-dh judge run mine/ --baseline theirs/ --data jwb-dh-v1 --out runs/judge --dry-run\n"
        "  jwb-dh judge run mine/ --baseline theirs/ --data jwb-dh-v1 --out runs/judge --max-cost 5\n"
        "  jwb-dh judge run mine/ --baseline real --judge openai --model MODEL --base-url http://localhost:8000/v1 "
        "--out runs/local\n",
    )  # fmt: skip
    _pair_arguments(run)
    run.add_argument("--out", required=True, help="folder for the log and judge.json")
    run.add_argument("--log", help="the log (default: OUT/log.jsonl); runs may share one, one at a time")
    run.add_argument("--judge", default="gemini", help="gemini, openai (any endpoint of that form) or local")
    run.add_argument("--model", help="its id (default: the paper's gemini-2.5-pro, retired on 2026-12-01)")
    run.add_argument("--base-url", help="address of an endpoint")
    run.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings, e.g. temperature=0")
    run.add_argument("--serve-check", default="same", help="model that must answer: same, a pattern, or any")
    run.add_argument("--repeats", type=int, default=1)
    run.add_argument("--concurrency", type=int, default=4, help="calls at once (default: 4)")
    run.add_argument("--retries", type=int, default=5, help="of calls that may work later (default: 5)")
    run.add_argument("--dry-run", action="store_true", help="count calls, tokens and dollars; ask nothing")
    run.add_argument("--max-cost", type=float, metavar="DOLLARS", help="stop before more is spent in this run")
    run.add_argument("--price", metavar="IN,OUT", help="dollars per million tokens, where they are not known")
    run.add_argument("--allow-failures", type=int, default=0, metavar="N", help="exit code 0 in spite of N lost pairs")
    _failures(run)
    run.set_defaults(run=_run)

    replay = verbs.add_parser("replay", help="judge again from a log, without a server or a key")
    replay.add_argument("log", help="the log of an earlier run (it is not changed)")
    _pair_arguments(replay)
    replay.add_argument("--model", help="which judge of the log, where it holds several")
    replay.add_argument("--repeats", type=int, default=1)
    replay.add_argument("--out", help="folder for judge.json")
    replay.add_argument("--allow-failures", type=int, default=0, metavar="N")
    _failures(replay)
    replay.set_defaults(run=_replay)

    stats = verbs.add_parser("stats", help="win rates, comparisons and reliability out of one or more logs")
    stats.add_argument("logs", nargs="+", metavar="LOG", help="log.jsonl, or the folder of a run")
    stats.add_argument("--json", help="also write them to this file")
    _failures(stats)
    stats.set_defaults(run=_stats)

    validate = verbs.add_parser("validate", help="compare a judge with people: agreement, ceiling, calibrated win rate")
    validate.add_argument("log", metavar="LOG", help="log.jsonl, or the folder of a run")
    validate.add_argument("ratings", metavar="RATINGS.csv", help="as `jwb-dh judge rate` writes it")
    validate.add_argument("--json", help="also write everything to this file")
    validate.set_defaults(run=_validate)

    rate = verbs.add_parser("rate", help="serve a page on which people rate the same pairs, blind")
    _pair_arguments(rate)
    rate.add_argument("--ratings", required=True, metavar="CSV", help="where ratings are added")
    rate.add_argument("--raters", nargs="+", default=[], help="codes that may rate (default: anyone)")
    rate.add_argument("--per-rater", type=int, help="pairs per rater (default: all)")
    rate.add_argument("--seed", type=int, default=0)
    rate.add_argument("--host", default="127.0.0.1")
    rate.add_argument("--port", type=int)
    rate.set_defaults(run=_rate)
