"""Check a run's folder before it is put on a leaderboard.

Whoever wrote it may have made a mistake or may cheat: the rows are asked for, and every score that is a mean or a rate
of clips is computed from them again, and every distance of sets from the run's shards where they are there.

A run keeps, shard by shard, the features of its clips or their sums; added up they give every distance and, while
single features are kept, its interval. Shards are not asked for: without them a note says what was not computed again.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.analysis.comparable import cells, expected_plan
from jwb_dh_v1.analysis.find_results import MOST_BYTES, read_result
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.policy import imputed_value
from jwb_dh_v1.scoring.result import Result, Score
from jwb_dh_v1.scoring.shard import stored_states
from jwb_dh_v1.stats.means import mean_estimate

if TYPE_CHECKING:
    from jwb_dh_v1.scoring.plan import Plan


@dataclass(frozen=True)
class SubmissionProblem:
    """Something about a submission.

    Attributes:
        rule: which check found it: `schema`, `protocol`, `plan`, `weights`, `own weights`, `data`, `n`, `complete`,
            `value`, `rows`, `tampered`, `name`, `duplicate`.
        message: one sentence.
        severe: whether it stands against publishing; else it is something to know.

    """

    rule: str
    message: str
    severe: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}" + ("" if self.severe else " (note)")


def listed(items: Iterable[Any], most: int = 6) -> str:
    """The first few in alphabetical order, and how many more there are."""
    names = sorted(map(str, items))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


Cell = tuple[str, str]
DAMAGED = (OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError,
           MemoryError, zipfile.BadZipFile, zlib.error)  # fmt: skip
NEAR = 1e-6  # relative to the value, and absolute: other processors round otherwise in sums over thousands


def check_sets(
    result: Result, scores: Sequence[Score], rows: Mapping[Cell, Sequence[Mapping[str, object]]]
) -> list[SubmissionProblem]:
    """Compute distances again.

    Args:
        result: of a folder.
        scores: the distances.
        rows: by metric and region, those of samples with features.

    Returns:
        What differs, and a note on what could not be computed.

    """
    if not scores:
        return []
    place = (result.folder or Path()) / "shards"
    paths = sorted(place.glob("*.npz")) if place.is_dir() else []
    if not paths:
        return [_not_again(scores, "its shards, which hold the features, are not here")]
    wanted = [(score.metric, score.region) for score in scores]
    states: dict[Cell, Frechet] = {}
    try:
        for path in paths:
            for cell, state in stored_states(path, wanted):
                if isinstance(state, Frechet):
                    states[cell] = states[cell] + state if cell in states else state
        said = [(score, _differing(score, states[cell], rows[cell])) for score in scores
                if (cell := (score.metric, score.region)) in states]  # fmt: skip
    except DAMAGED as error:
        return [
            SubmissionProblem("rows", f"its shards cannot be read: {(str(error).splitlines() or [repr(error)])[0]}")
        ]
    found = [SubmissionProblem("tampered", f"{s.metric} on {s.region}: {text}") for s, texts in said for text in texts]
    without = [score for score in scores if (score.metric, score.region) not in states]
    return found + ([_not_again(without, "its shards hold no features of them")] if without else [])


def _not_again(scores: Sequence[Score], why: str) -> SubmissionProblem:
    names = listed(f"{score.metric} on {score.region}" for score in scores)
    return SubmissionProblem(
        "rows", f"not computed again, as they are distances of sets and {why}: {names}", severe=False
    )


def _differing(score: Score, state: Frechet, rows: Sequence[Mapping[str, object]]) -> list[str]:
    """How a distance differs from that of the features in the shards."""
    parts = sum(int(str(row["n"])) for row in rows)
    if state.n != parts:
        return [f"its shards hold features of {state.n} parts, its rows count {parts}"]
    people = {str(row["identity_id"]) for row in rows}
    if strangers := {name for side in (state.generated, state.reference) for name in side.strangers(people)}:
        return [f"its shards hold features of people that no row has: {listed(strangers)}"]
    found = []
    value = state.value()
    if score.value is None or not math.isclose(score.value, value, rel_tol=NEAR, abs_tol=NEAR):
        found.append(f"value {score.value}, its shards give {value!r}")
    interval = state.estimate().interval
    same = (interval is None) == (score.ci95 is None) and np.allclose(interval or 0, score.ci95 or 0, 1e-4, 1e-4)
    if not same:
        found.append(f"interval {score.ci95}, its shards give {interval}")
    return found


EQUAL = 1e-12  # relative: a clip of two hands holds the rounded mean of two numbers


def check_rows(result: Result, names: Sequence[str] | None) -> list[SubmissionProblem]:
    """The rows against the scores: each is there once, and what can be computed from them is what stands there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jwb_dh_v1.scoring.result import _schema

    path = (result.folder or Path()) / "samples.parquet"
    if not path.is_file():
        return [SubmissionProblem("rows", "samples.parquet is missing: no score can be computed again")]
    try:
        schema = _schema()
        table = pq.read_table(path, columns=[n for n in schema.names if n not in ("curve", "facts", "message")])
        kept = pa.schema([schema.field(name) for name in table.column_names])
        rows = table.cast(kept).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return [SubmissionProblem("rows", f"samples.parquet cannot be read: {(str(error).splitlines() or [''])[0]}")]
    by_cell: dict[tuple[str, str], dict[str, dict[str, Any]]] = {cell: {} for cell in sorted(cells(result))}
    twice = 0
    for row in rows:
        cell = by_cell.setdefault((row["metric"], row["region"]), {})
        twice += row["sample_id"] in cell
        cell[row["sample_id"]] = row
    found = [SubmissionProblem("rows", f"{twice} rows stand there twice")] if twice else []
    if extra := by_cell.keys() - cells(result):
        found.append(
            SubmissionProblem(
                "rows", f"there are rows of cells without a score: {listed(' on '.join(c) for c in extra)}"
            )
        )
    ids = set(chain.from_iterable(by_cell.values()))
    if names is not None and ids != set(names):
        found.append(
            SubmissionProblem("data", f"{len(ids ^ set(names))} samples are in the rows or the split, not in both")
        )
    if len({(row["sample_id"], row["identity_id"], row["sha256"]) for row in rows}) > len(ids):
        found.append(SubmissionProblem("rows", "a sample has several identities or generated files"))
    files = Counter(sha for _, sha in {(row["sample_id"], row["sha256"]) for row in rows} if sha)
    if same := sum(count for count in files.values() if count > 1):
        found.append(SubmissionProblem("rows", f"{same} samples share their generated file with another", severe=False))
    sets: list[Score] = []
    for score in result.scores:
        cell = by_cell[score.metric, score.region]
        if len(cell) != len(ids):
            found.append(
                SubmissionProblem(
                    "rows", f"{len(ids) - len(cell)} rows of {score.metric} on {score.region} are missing"
                )
            )
            continue
        said, computed = _recomputed(result, score, list(cell.values()))
        found += [SubmissionProblem("tampered", f"{score.metric} on {score.region}: {text}") for text in said]
        if not computed and not said and score.value is not None:
            sets.append(score)
    of = {(s.metric, s.region): [r for r in by_cell[s.metric, s.region].values() if r["status"] == "ok"] for s in sets}
    return found + check_sets(result, sets, of)


def _recomputed(result: Result, score: Score, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """How a score differs from what its rows give, and whether its value could be computed."""
    counts = Counter(row["status"] for row in rows)
    if counts != +Counter(ok=score.n, skipped=score.skipped, failed=score.failed):
        return [f"the rows are {dict(counts)}, the score counts {score.n} ok"], False
    ok = [row for row in rows if row["status"] == "ok"]
    if not ok:
        return ([] if score.value is None else ["a value without a row"]), score.value is None
    if any(not row["n"] or row["n"] < 1 or row["coverage"] is None for row in ok):
        return ["a row without parts"], False
    said = []
    coverage = math.fsum(row["coverage"] for row in ok) / len(ok)
    if score.coverage is None or not math.isclose(score.coverage, coverage, rel_tol=EQUAL):
        said.append(f"coverage {score.coverage}, its rows give {coverage}")
    values = [row["value"] for row in ok]
    if all(value is None for value in values):
        from jwb_dh_v1.metrics import protocol

        metric = _try(lambda: protocol(result.protocol).metrics[score.metric])
        curved = metric is not None and metric.curve is not None  # only metrics of single clips have curves
        return ([*said, "its rows have no values"] if curved or score.region == "speech" else said), False
    if any(value is None or math.isnan(value) or value == -math.inf for value in values):
        return [*said, "some of its rows have no value"], False
    return said + _mean(score, ok, [row for row in rows if row["status"] != "ok"]), True


def _try(action: Any) -> Any:
    try:
        return action()
    except (SetupError, KeyError):
        return None


def _mean(score: Score, ok: Sequence[Mapping[str, Any]], lost: Sequence[Mapping[str, Any]]) -> list[str]:
    """The mean over parts (a rate is one of zeros and ones), with what lost clips count as, and its interval."""
    values, weights = [row["value"] for row in ok], [row["n"] for row in ok]
    identities = [row["identity_id"] for row in ok]
    worst = (min if score.higher_is_better else max)(values)
    if score.failures not in ("strict", "zero", "worst"):
        return [f"no policy is named {score.failures!r}"]
    filler = imputed_value(score.failures, score.higher_is_better, worst)  # type: ignore[arg-type]
    if filler is not None:
        values += [filler] * len(lost)
        weights += [1] * len(lost)
        identities += [row["identity_id"] for row in lost]
    if math.inf in values:
        mean = math.inf
    else:
        total = sum((Fraction(v) * w for v, w in zip(values, weights, strict=True)), Fraction())
        mean = float(total / sum(weights))
    found = []
    if score.value is None or not math.isclose(score.value, mean, rel_tol=EQUAL, abs_tol=EQUAL):
        found.append(f"value {score.value}, its rows give {mean!r}")
    interval = mean_estimate(values, identities, weights, score.range).interval
    same = (interval is None) == (score.ci95 is None) and np.allclose(interval or 0, score.ci95 or 0, 1e-9, 1e-12)
    if not same:
        found.append(f"interval {score.ci95}, its rows give {interval}")
    return found


PLAN = ("protocol", "cells", "boxes", "weights", "data", "decoder", "failures", "precision", "version")
SHA256 = re.compile(r"[0-9a-f]{64}")
PINNED = re.compile(r"@([0-9a-f]{40}|v\d[\w.]*):")  # a commit, or a tag like v1.0.0; other names are branches that move
UNSAFE = re.compile(r"[<>&\"'`|\\/*\[\]{}$%#~^]")
MOST_NAME = 80


def unsafe_name(name: str) -> str:
    """What is wrong with a system's name, in words; nothing where it can stand in any table, page, shell or sheet."""
    if not name.strip():
        return "it is empty"
    if len(name) > MOST_NAME:
        return f"it has more than {MOST_NAME} characters"
    if name != name.strip() or not name.isprintable():
        return "it holds control or direction characters, or begins or ends with a space"
    if found := UNSAFE.search(name):
        return f"it holds {found.group()!r}, which means something in HTML, LaTeX, Markdown or a path"
    return f"it begins with {name[0]!r}, as formulas and options do" if name[0] in "=+-@." else ""


def same_name(a: str, b: str) -> bool:
    """Whether two names differ in nothing but case, width or invisible characters."""
    a, b = ("".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold())) or name for name in (a, b))
    return a == b


def check_submission(
    folder: str | Path,
    *,
    samples: int | None = None,
    data: str | Path | None = None,
    split: str = "evaluation",
    revision: str | None = None,
    others: Iterable[Result] = (),
) -> list[SubmissionProblem]:
    """Check a run's folder (`results.json`, `samples.parquet`) as others see it.

    Distances of sets (FID, FVD, E-FID) cannot be computed from rows: they are from the features in the run's `shards`,
    where these were handed in, else a note names them.

    Args:
        folder: of the run.
        samples: how many samples the split has; from `data` where that is given.
        data: a dataset's folder or Hub id, whose sample names and fingerprint the run must have.
        split, revision: of `data`.
        others: results that are on the board already.

    Returns:
        What is wrong (`severe`) and what is worth knowing; empty where nothing is.

    Raises:
        DataNotFound, SetupError: `data` cannot be loaded.

    """
    try:
        result = read_result(folder)
    except SetupError as error:
        return [SubmissionProblem("schema", str(error))]
    names = None
    if data is not None:
        from jwb_dh_v1.dataset.load import load_dataset
        from jwb_dh_v1.dataset.pairs import _fingerprint

        rows = load_dataset(data, split=split, streaming=True, columns=["sample_id"], revision=revision)
        names = [row["sample_id"] for row in rows]
        samples = len(names)
        expected = _fingerprint(str(data), split, revision, names)
    found = [*_check_plan(result), *_check_scores(result, samples), *_check_name(result, others)]
    if data is not None and result.plan.get("data") != expected:
        found.append(SubmissionProblem("data", f"it was scored on {result.plan.get('data')}, not on {expected}"))
    found += _check_plan_file(result)
    return found + check_rows(result, names)


def _check_plan(result: Result) -> list[SubmissionProblem]:
    found = []
    plan, data = result.plan, str(result.plan.get("data") or "")
    if missing := [key for key in PLAN if key not in plan]:
        found.append(SubmissionProblem("plan", f"its plan lacks {', '.join(missing)}"))
    if [tuple(cell) for cell in plan.get("cells") or ()] != [(s.metric, s.region) for s in result.scores]:
        found.append(SubmissionProblem("plan", "the cells of its plan are not those of its scores"))
    if not data or data.startswith("ids:"):
        found.append(
            SubmissionProblem("data", "it records the names of the samples at most, not what they hold; use --data")
        )
    elif data.startswith("hub ") and not PINNED.search(data):
        found.append(
            SubmissionProblem("data", f"{data.partition(':')[0]} is a branch that moves; use --revision with a commit")
        )
    try:
        expected = expected_plan(result)
    except SetupError as error:
        return [*found, SubmissionProblem("protocol", str(error).rstrip("."))]
    if plan.get("boxes") != expected.boxes:
        found.append(
            SubmissionProblem("plan", f"its boxes are {plan.get('boxes')!r}, {expected.boxes!r} go with these cells")
        )
    return found + _check_weights(result, expected) + _check_metrics(result, expected)


def _check_weights(result: Result, expected: Plan) -> list[SubmissionProblem]:
    found = []
    weights: Mapping[str, str] = result.plan.get("weights") or {}
    for name, sha in expected.weights.items():
        given = weights.get(name, "")
        if not SHA256.fullmatch(given):
            found.append(SubmissionProblem("weights", f"the sha256 of {name} is missing"))
        elif given != sha:
            users = [m.name for m in expected.table.metrics.values() if name in m.weights]
            silent = [s for s in result.scores if s.metric in users and f"{name} {given[:12]}" not in s.networks]
            if silent:
                found.append(
                    SubmissionProblem("weights", f"{name} is another file than the table's, and the scores hide it")
                )
            found.append(
                SubmissionProblem("own weights", f"{name} is the submitter's own ({given[:12]})", severe=False)
            )
    if unknown := sorted(set(weights) - set(expected.weights)):
        found.append(SubmissionProblem("weights", f"its scores do not need {', '.join(unknown)}", severe=False))
    return found


def _check_metrics(result: Result, expected: Plan) -> list[SubmissionProblem]:
    found = []
    for score in result.scores:
        metric, where = expected.table.metrics[score.metric], f"{score.metric} on {score.region}"
        if (score.metric, score.region) not in expected.cells:
            found.append(SubmissionProblem("protocol", f"{expected.protocol} has no {where}"))
        ends = tuple(None if math.isinf(end) else float(end) for end in metric.range)
        facts = (score.higher_is_better, score.range, score.unit)
        if facts != (metric.higher_is_better, ends, metric.unit):
            found.append(SubmissionProblem("protocol", f"direction, range or unit of {where} are not the protocol's"))
        if not score.networks.startswith(metric.networks):
            found.append(SubmissionProblem("protocol", f"the networks of {where} are not the protocol's"))
    return found


def _check_scores(result: Result, samples: int | None) -> list[SubmissionProblem]:
    found = []
    totals = {score.n + score.skipped + score.failed for score in result.scores}
    if not result.scores:
        found.append(SubmissionProblem("n", "it holds no score"))
    elif samples is not None and totals != {samples}:
        found.append(SubmissionProblem("n", f"the split has {samples} samples, the scores are of {listed(totals)}"))
    elif len(totals) > 1:
        found.append(SubmissionProblem("n", f"its scores are of different numbers of samples: {listed(totals)}"))
    if not result.complete:
        found.append(SubmissionProblem("complete", "more samples failed than were allowed"))
    if failed := max((score.failed for score in result.scores), default=0):
        found.append(SubmissionProblem("complete", f"up to {failed} samples failed", severe=False))
    for score in result.scores:
        found += [SubmissionProblem("value", f"{score.metric} on {score.region}: {said}") for said in _wrong(score)]
    return found


def _wrong(score: Score) -> list[str]:
    """What cannot be about a score."""
    low, high = (
        default if end is None else end for end, default in zip(score.range, (-math.inf, math.inf), strict=True)
    )
    slack = 1e-9 * max(1.0, abs(score.value or 0.0) if math.isfinite(score.value or 0.0) else 1.0)
    found = []
    if (score.n == 0) != (score.value is None) and not (score.n and score.region != "speech"):
        found.append("a value without samples, or samples without a value")
    if score.value is not None and not low - slack <= score.value <= high + slack:
        found.append(f"{score.value:g} is outside [{low:g}, {high:g}]")
    if score.value == -math.inf:
        found.append("it is minus infinity")
    if score.ci95 and not (low - slack <= score.ci95[0] <= score.ci95[1] <= high + slack):
        found.append(f"the interval [{score.ci95[0]:g}, {score.ci95[1]:g}] is none, or outside [{low:g}, {high:g}]")
    if score.coverage is not None and not 0 <= score.coverage <= 1:
        found.append(f"a coverage of {score.coverage:g}")
    return found


def _check_name(result: Result, others: Iterable[Result]) -> list[SubmissionProblem]:
    found = []
    if said := unsafe_name(result.name):
        found.append(SubmissionProblem("name", f"{result.name[:MOST_NAME]!r} is no safe name: {said}"))
    for other in others:
        if _where(other) == _where(result):
            continue
        if same_name(other.name, result.name) and other.protocol == result.protocol:
            found.append(SubmissionProblem("duplicate", f"there is {other.name!r} in {other.protocol} already"))
        if other.scores == result.scores and other.plan.get("data") == result.plan.get("data"):
            found.append(SubmissionProblem("duplicate", f"its scores are those of {other.name!r}"))
    return found


def _where(result: Result) -> Path | int:
    return result.folder.resolve() if result.folder else id(result)


def _check_plan_file(result: Result) -> list[SubmissionProblem]:
    path = (result.folder or Path()) / "plan.json"
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in PLAN if found.get(key) != result.plan.get(key)]
    except (OSError, ValueError, AttributeError, RecursionError):
        return [SubmissionProblem("plan", "plan.json cannot be read")]
    return (
        [SubmissionProblem("tampered", f"plan.json and results.json differ in {', '.join(differing)}")]
        if differing
        else []
    )
