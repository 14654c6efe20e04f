"""The `evaluate` module of the win rate before a judge that hears, asked now or read from a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import evaluate

from jwb_dh_v1.errors import SampleError
from jwb_dh_v1.integrations.hf import CITATION, Columns, Videos
from jwb_dh_v1.integrations.hf_inputs import InputError, each_of, listed, recording, sound_of
from jwb_dh_v1.judge.backends import backend
from jwb_dh_v1.judge.backends.replay import copied, replay
from jwb_dh_v1.judge.cost import parse_price
from jwb_dh_v1.judge.log import Log
from jwb_dh_v1.judge.question import JudgeItem, JudgeSettings
from jwb_dh_v1.judge.request import prepare
from jwb_dh_v1.judge.run import JudgeOutcome
from jwb_dh_v1.judge.run import judge as ask
from jwb_dh_v1.judge.summary import JudgeSummary, summarise
from jwb_dh_v1.version import __version__

INPUTS = """
Args:
    predictions: generated videos or sounds: paths, bytes, or rows of a dataset.
    references: the baseline's in the same order.
    texts: what should be said, one string per pair.
    log: a JSONL file that keeps every answer that was paid for. Answers that it holds are not asked again; without
        `judge` nothing is asked, and pairs that it does not know count as failed.
    judge: "gemini", "openai" (any endpoint of that form), "local", or an object with `ask`.
    model: of the judge. Without `judge` it chooses among the models of the log.
    settings: of the judge, e.g. {"base_url": ...}. Keys are read from the environment.
    language: ISO 639-1, one for all or one each.
    ids, identities: name of each sample, and the person in it, who is resampled for the interval; by default each pair
        is its own.
    system, baseline: names in the log.
    orders: "both", or "emergent" (one order per sample).
    repeats, concurrency, retries, max_cost, serve_check: see `jwb_dh_v1.judge.run.judge`.
    price: dollars per million tokens, as "IN,OUT", where the judge's is not known.
    failures: what a judgement that failed counts as: "drop", "tie", "loss" or "win".
    return_samples: also return one entry per judgement.

Returns:
    `lalm_win_rate` (ties one half), `ci95`, `ci_method`, `n` (pairs), `skipped`, `failed` (pairs), `wins`, `ties`,
    `losses` (judgements), `net`, `decisive`, `bounds` (failed judgements as losses, as wins), `adjusted` (at equal
    duration and loudness), `picks_first`, `same_after_swap`, `contradictions` (how far the judge can be trusted),
    `judge`, `model`, `served`, `rubric`, `calls`, `reused`, `by_rule`, `dollars`, `remarks`, `higher_is_better`,
    `version`, `problems`.
"""


class WinRateModule(Videos):
    """How often a judge that hears finds the generated speech better than a baseline's."""

    metric = "lalm_win_rate"
    missing = "{metric} compares with a baseline's speech: pass references= in the order of predictions=."

    def _info(self) -> Any:
        video = datasets.Video(decode=False)
        return evaluate.MetricInfo(
            description="Share of pairs in which an audio language model prefers the generated speech; ties one half.",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": video, "references": video}),
            reference_urls=["https://arxiv.org/abs/2507.20987"],
        )

    def _encode(self, column: str, item: Any) -> Any:
        return recording(item)

    def _ready(
        self,
        count: int,
        texts: Any = None,
        log: str | Path | None = None,
        judge: Any = None,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        language: Any = "en",
        ids: Any = None,
        identities: Any = None,
        system: str = "predictions",
        baseline: str = "references",
        orders: Any = "both",
        repeats: int = 1,
        concurrency: int = 4,
        retries: int = 5,
        max_cost: float | None = None,
        price: str | None = None,
        serve_check: str | None = "same",
        failures: Any = "drop",
        return_samples: bool = False,
    ) -> Callable[[Columns], dict[str, Any]]:
        if log is None:
            raise InputError(
                "Pass log=, the file that keeps the answers: without judge= they are only looked up in it."
            )
        if texts is None:
            raise InputError("The judge is told what should be said: pass texts= with one string per pair.")
        said, languages = each_of("texts", listed("texts", texts), count), each_of("language", language, count)
        names = [f"{n:06d}" for n in range(count)] if ids is None else each_of("ids", listed("ids", ids), count)
        people = names if identities is None else each_of("identities", listed("identities", identities), count)
        whom = backend(judge, model, **(settings or {})) if isinstance(judge, str) else judge or replay(log, model)

        def answer(columns: Columns) -> dict[str, Any]:
            problems: list[str] = []
            facts = zip(columns["predictions"], columns["references"], said, languages, names, people, strict=True)
            items = _items(facts, (system, baseline), problems)
            with copied(log) if judge is None else nullcontext(Path(log)) as place, Log(place) as opened:
                found = ask(
                    items,
                    whom,
                    opened,
                    orders=orders,
                    repeats=repeats,
                    concurrency=concurrency,
                    retries=retries,
                    max_cost=max_cost,
                    price=parse_price(price) if price else None,
                    serve_check=None if judge is None else serve_check,
                )
            problems += [f"{name}: skipped: {why}" for name, why in found.skipped]
            problems += [f"{times} judgement(s) failed: {why}" for why, times in found.failed.items()]
            problems += [found.stopped] if found.stopped else []
            if all(one.outcome is None for one in found.judgements):
                raise SampleError(f"lalm_win_rate: none of {count} pairs was judged; {' '.join(problems[:1])}")
            told = _told(found, summarise(JudgeSettings.of(whom).who, found, failures))
            told["failed"] = count - len(found.skipped) - told["n"]
            told["problems"] = problems
            if return_samples:
                told["samples"] = [
                    {
                        "id": one.sample_id,
                        "outcome": one.outcome,
                        "order": one.order,
                        "repeat": one.repeat,
                        "scores": [one.score_system, one.score_baseline],
                    }
                    for one in found.judgements
                ]
            return told

        return answer


def _items(facts: Any, names: tuple[str, str], problems: list[str]) -> Iterator[JudgeItem]:
    """The pairs, one decoded at a time; those that cannot be decoded become problems."""
    for ours, theirs, said, language, name, person in facts:
        try:
            two = [None if (audio := sound_of(one)) is None else prepare(audio) for one in (ours, theirs)]
        except SampleError as error:
            problems.append(f"{name}: failed: {type(error).__name__}: {error}")
            continue
        yield JudgeItem(name, person, said, language, "general", *names, *two)


def _told(found: JudgeOutcome, summary: JudgeSummary) -> dict[str, Any]:
    """What a run found, as the module's answer."""
    (rate,) = summary.rates
    (adjusted,) = summary.adjusted.values() or (None,)
    swap, position = summary.swap, summary.position
    return {
        "lalm_win_rate": rate.rate.value,
        "ci95": (rate.rate.low, rate.rate.high),
        "ci_method": rate.rate.method,
        "n": rate.rate.n,
        "skipped": len(found.skipped),
        "wins": rate.wins,
        "ties": rate.ties,
        "losses": rate.losses,
        "net": rate.net.value,
        "decisive": None if rate.decisive is None else rate.decisive.value,
        "bounds": (rate.as_losses.value, rate.as_wins.value),
        "adjusted": None if adjusted is None else adjusted.rate.value,
        "picks_first": None if position is None or position.first_rate is None else position.first_rate.value,
        "same_after_swap": None if swap is None else swap.all.value,
        "contradictions": None if summary.contradictions is None else summary.contradictions.value,
        "judge": summary.backend,
        "model": summary.model,
        "served": summary.served,
        "rubric": summary.rubric,
        "calls": found.calls,
        "reused": found.reused,
        "by_rule": dict(found.by_rule),
        "dollars": found.dollars,
        "region": "speech",
        "higher_is_better": True,
        "remarks": list(summary.remarks),
        "version": __version__,
    }
