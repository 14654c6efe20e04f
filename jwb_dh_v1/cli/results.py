"""`jwb-dh report`, `compare`, `ablate`, `reconcile`: what results say. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jwb_dh_v1.cli.data import SHAPE
from jwb_dh_v1.errors import SetupError


def _report(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.files import below, written_below
    from jwb_dh_v1.report.charts import write_plots
    from jwb_dh_v1.report.report import write_comparison, write_report
    from jwb_dh_v1.report.tables import print_comparison, print_table
    from jwb_dh_v1.scoring.result import Result

    console = Console()
    results = [Result.load(run) for run in args.runs]
    if len(results) == 1:
        print_table(results[0], console)
        path = args.out or below(args.runs[0], "report.html")
        with written_below(args.runs[0], "report.html") if not args.out else nullcontext(Path(args.out)) as page:
            write_report(results[0], None, page)
    else:
        print_comparison(results, console)
        path = args.out or "report.html"
        write_comparison(results, Path(path))
    if args.plots:
        write_plots(results[0] if len(results) == 1 else results, args.plots)
    console.print(f"Report: {path}", markup=False)
    return 0


def _reconcile(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from jwb_dh_v1.analysis.reconcile import reconcile

    cells = reconcile(args.folder)
    table = Table(title="published cells that the per-video files do not give" if not args.cells else "all cells")
    for column in ("region", "system", "metric", "published", "recomputed", "rule"):
        table.add_column(column, overflow="fold", no_wrap=column != "rule")
    for cell in cells:
        if args.cells or cell.verdict in {"not reproducible", "last digit"}:
            found = "" if cell.recomputed is None else f"{cell.recomputed:.4f}"
            of = cell.published
            table.add_row(of.region, of.system, of.metric, of.text, found or cell.verdict, cell.rule)
    console = Console()
    console.print(table)
    counts = Counter(cell.verdict for cell in cells)
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in counts) + f", of {len(cells)} cells")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from jwb_dh_v1.analysis.compare import compare
    from jwb_dh_v1.report.tables import print_compared
    from jwb_dh_v1.scoring.result import Result

    runs = [Result.load(run) for run in args.runs]
    found = compare(
        runs,
        args.baseline,
        metrics=args.metrics,
        regions=args.regions,
        difference=_differences(args.difference),
        unit=args.unit,
    )
    print_compared(found)
    if args.json:
        Path(args.json).write_text(found.to_json(), encoding="utf-8")
    return 0


def _differences(pairs: list[str]) -> float | dict[str, float] | None:
    """`0.01` for all metrics, or `ssim=0.01 fid=5`."""
    found: dict[str, float] = {}
    try:
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals and len(pairs) == 1:
                return float(pair)
            found[name] = float(value)
    except ValueError:
        raise SetupError(f"--difference takes a number, or METRIC=NUMBER ..., not {' '.join(pairs)!r}.") from None
    return found or None


def _ablate(args: argparse.Namespace) -> int:
    from jwb_dh_v1.analysis.ablate import ablate, ablate_published
    from jwb_dh_v1.report.tables import print_ablation
    from jwb_dh_v1.scoring.result import Result

    found = ablate([Result.load(run) for run in args.runs]) if args.runs else ablate_published()
    print_ablation(found)
    if args.json:
        Path(args.json).write_text(found.to_json(), encoding="utf-8")
    return 0


def _diagnose(args: argparse.Namespace) -> int:
    from jwb_dh_v1.analysis.diagnosis.diagnose import diagnose, diagnose_published
    from jwb_dh_v1.report.tables import print_diagnosis, print_published
    from jwb_dh_v1.scoring.result import Result

    if not args.runs:
        print_published(diagnose_published())
        return 0
    if args.judge and len(args.runs) > 1:
        raise SetupError("--judge goes with one run: a win rate is one system's.")
    against = Result.load(args.against) if args.against else None
    found = [diagnose(Result.load(run), against, win_rate=_win_rate(args.judge), fps=args.fps) for run in args.runs]
    for one in found:
        print_diagnosis(one)
    if args.json:
        Path(args.json).write_text("[" + ",\n".join(one.to_json() for one in found) + "]\n", encoding="utf-8")
    return 0


def _win_rate(path: str | None) -> Any:
    """The win rate in a `judge.json`, or nothing."""
    from jwb_dh_v1.stats.estimate import Estimate

    if path is None:
        return None
    try:
        rates = json.loads(Path(path).read_text(encoding="utf-8"))["rates"]
        (rate,) = rates
        return Estimate(**rate["rate"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} is no judge.json of one system (`jwb-dh judge run` writes it): {error}.") from None


def _leaderboard(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.analysis.leaderboard import leaderboard, write_leaderboard
    from jwb_dh_v1.analysis.submission import check_submission

    console = Console()
    bad = 0
    if args.check:
        for folder in args.sources:
            for problem in check_submission(folder, data=args.data, split=args.split):
                bad += problem.severe
                said = f"{folder}: {problem.rule}: {problem.message}"
                console.print(said, style="red" if problem.severe else None, highlight=False, markup=False)
        if bad or not args.out:
            console.print(f"{bad} problems in {len(args.sources)} submissions.")
            return 1 if bad else 0
    if not args.out:
        raise SetupError("Give --out FOLDER for the page, or --check to check submissions.")
    board = leaderboard(args.sources)
    for path in write_leaderboard(board, args.out, args.title):
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    for place, reason in board.refused:
        console.print(f"left out: {place}: {reason}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    return 0


def _export(args: argparse.Namespace) -> int:
    from jwb_dh_v1.analysis import export
    from jwb_dh_v1.scoring.result import Result

    if args.format in export.FORMATS:
        text = export.FORMATS[args.format]([Result.load(run) for run in args.runs])
    elif len(args.runs) > 1:
        raise SetupError(f"--format {args.format} takes one run: a model's card holds its own scores.")
    elif args.dataset is None or args.revision is None:
        raise SetupError(f"--format {args.format} needs --dataset OWNER/NAME and --revision, the commit scored.")
    else:
        result = Result.load(args.runs[0])
        make = export.to_eval_results if args.format == "eval-results" else export.to_model_index
        text = make(result, args.dataset, revision=args.revision)
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(text, encoding="utf-8")
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0


def add_commands(commands: Any) -> None:
    """Add the commands on results to those of `jwb-dh`."""
    report = commands.add_parser("report", help="print a run's table and write its report; several runs: compare")
    report.add_argument("runs", nargs="+", metavar="RUN", help="--out of `jwb-dh score`, a URL too")
    report.add_argument("--out", help="the HTML file")
    report.add_argument("--plots", metavar="DIR", help="also write the plots as PNG and SVG")
    report.set_defaults(run=_report)

    compare = commands.add_parser(
        "compare", formatter_class=SHAPE, help="paired differences between runs, with intervals and tests",
        description="Compare runs clip by clip: differences with intervals over persons, a permutation test corrected "
        "for all tests shown (Holm), effect sizes, and how many clips a difference takes to be seen. Runs of another "
        "protocol, data, box source or weights are refused by name.",
        epilog="examples:\n  jwb-dh compare runs/demo/copy runs/demo/blurred\n"
        "  jwb-dh compare runs/v1 runs/v2 runs/v3 --baseline runs/v1 --metrics ssim csim --difference 0.01\n",
    )  # fmt: skip
    compare.add_argument("runs", nargs="+", metavar="RUN", help="--out of `jwb-dh score`, a URL too")
    compare.add_argument("--baseline", help="name or folder of the run to compare with (default: the first)")
    compare.add_argument("--metrics", nargs="+")
    compare.add_argument("--regions", nargs="+")
    compare.add_argument(
        "--unit", choices=["identity", "clip"], default="identity",
        help="what intervals and tests speak about: other people (default), or other clips of the same people",
    )  # fmt: skip
    compare.add_argument("--difference", nargs="+", default=[], metavar="[METRIC=]NUMBER", help="that should be seen")
    compare.add_argument("--json", help="also write everything to this file")
    compare.set_defaults(run=_compare)

    ablate = commands.add_parser(
        "ablate", help="what scoring face and hands adds to scoring the whole body; without runs: the published table"
    )
    ablate.add_argument("runs", nargs="*", metavar="RUN")
    ablate.add_argument("--json", help="also write everything to this file")
    ablate.set_defaults(run=_ablate)

    diagnose = commands.add_parser(
        "diagnose", formatter_class=SHAPE, help="what went wrong with a system, from its scores, with the evidence",
        description="Rules with their evidence: frozen, another person, other words, drift, soft pictures, ... per "
        "system and per clip, with the moment it goes wrong. Without a run: the published systems, by rank.",
        epilog="examples:\n  jwb-dh diagnose runs/demo/frozen\n"
        "  jwb-dh diagnose runs/mine --against runs/baseline --judge runs/judge/judge.json --json diagnosis.json\n",
    )  # fmt: skip
    diagnose.add_argument("runs", nargs="*", metavar="RUN", help="--out of `jwb-dh score`, a URL too")
    diagnose.add_argument("--against", metavar="RUN", help="a run to measure against (default: the teaser's ranges)")
    diagnose.add_argument("--judge", metavar="FILE", help="judge.json of `jwb-dh judge run`, for its win rate")
    diagnose.add_argument("--fps", type=float, help="frames per second, to give moments in seconds")
    diagnose.add_argument("--json", help="also write everything to this file")
    diagnose.set_defaults(run=_diagnose)

    board = commands.add_parser(
        "leaderboard", formatter_class=SHAPE, help="runs as a page of tables, one per protocol and region",
        description="Tables of runs that may stand side by side (others get tables of their own), with ranks, an "
        "aggregate, how the order changes under others, and the published table beside.",
        epilog="examples:\n  jwb-dh leaderboard runs/ --out site/\n  jwb-dh leaderboard ORG/results --out site/\n"
        "  jwb-dh leaderboard runs/mine --check --data jwb-dh-v1\n",
    )  # fmt: skip
    board.add_argument("sources", nargs="+", metavar="SOURCE", help="folder of runs, results.json, or Hub dataset")
    board.add_argument("--out", help="folder for index.html and leaderboard.json")
    board.add_argument("--title", default="JWB-DH-V1 leaderboard")
    board.add_argument("--check", action="store_true", help="check submissions; exit code 1 if one has a problem")
    board.add_argument("--data", help="with --check: the dataset, to count its samples")
    board.add_argument("--split", default="evaluation")
    board.set_defaults(run=_leaderboard)

    export = commands.add_parser("export", help="results as CSV, LaTeX, Markdown, or for a model's card on the Hub")
    export.add_argument("runs", nargs="+", metavar="RUN")
    export.add_argument(
        "--format", choices=["csv", "latex", "markdown", "eval-results", "model-index"], default="markdown"
    )
    export.add_argument("--dataset", metavar="OWNER/NAME", help="for eval-results and model-index")
    export.add_argument("--revision", help="commit of that dataset")
    export.add_argument("--out", help="the file (default: print it)")
    export.set_defaults(run=_export)

    reconcile = commands.add_parser(
        "reconcile", help="recompute the published tables from the authors' own per-video files"
    )
    reconcile.add_argument("folder", metavar="DIR", help="checkout of the authors' repository (with SCres and FIDres)")
    reconcile.add_argument("--cells", action="store_true", help="show all 288 cells, not only those that differ")
    reconcile.set_defaults(run=_reconcile)
