"""Check a run's folder before it is put on a leaderboard.

Whoever wrote it may have made a mistake or may cheat: the rows are asked for, and every score that is a mean or a rate
of clips is computed from them again, and every distance of sets from the run's shards where they are there.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jwb_dh_v1.analysis.comparable import expected_plan
from jwb_dh_v1.analysis.problem import Problem, listed
from jwb_dh_v1.analysis.reading import MOST_BYTES, read_result
from jwb_dh_v1.analysis.submission_rows import check_rows
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.scoring.result import Result, Score

if TYPE_CHECKING:
    from jwb_dh_v1.scoring.plan import Plan

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
) -> list[Problem]:
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
        return [Problem("schema", str(error))]
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
        found.append(Problem("data", f"it was scored on {result.plan.get('data')}, not on {expected}"))
    found += _check_plan_file(result)
    return found + check_rows(result, names)


def _check_plan(result: Result) -> list[Problem]:
    found = []
    plan, data = result.plan, str(result.plan.get("data") or "")
    if missing := [key for key in PLAN if key not in plan]:
        found.append(Problem("plan", f"its plan lacks {', '.join(missing)}"))
    if [tuple(cell) for cell in plan.get("cells") or ()] != [(s.metric, s.region) for s in result.scores]:
        found.append(Problem("plan", "the cells of its plan are not those of its scores"))
    if not data or data.startswith("ids:"):
        found.append(Problem("data", "it records the names of the samples at most, not what they hold; use --data"))
    elif data.startswith("hub ") and not PINNED.search(data):
        found.append(Problem("data", f"{data.partition(':')[0]} is a branch that moves; use --revision with a commit"))
    try:
        expected = expected_plan(result)
    except SetupError as error:
        return [*found, Problem("protocol", str(error).rstrip("."))]
    if plan.get("boxes") != expected.boxes:
        found.append(Problem("plan", f"its boxes are {plan.get('boxes')!r}, {expected.boxes!r} go with these cells"))
    return found + _check_weights(result, expected) + _check_metrics(result, expected)


def _check_weights(result: Result, expected: Plan) -> list[Problem]:
    found = []
    weights: Mapping[str, str] = result.plan.get("weights") or {}
    for name, sha in expected.weights.items():
        given = weights.get(name, "")
        if not SHA256.fullmatch(given):
            found.append(Problem("weights", f"the sha256 of {name} is missing"))
        elif given != sha:
            users = [m.name for m in expected.table.metrics.values() if name in m.weights]
            silent = [s for s in result.scores if s.metric in users and f"{name} {given[:12]}" not in s.networks]
            if silent:
                found.append(Problem("weights", f"{name} is another file than the table's, and the scores hide it"))
            found.append(Problem("own weights", f"{name} is the submitter's own ({given[:12]})", severe=False))
    if unknown := sorted(set(weights) - set(expected.weights)):
        found.append(Problem("weights", f"its scores do not need {', '.join(unknown)}", severe=False))
    return found


def _check_metrics(result: Result, expected: Plan) -> list[Problem]:
    found = []
    for score in result.scores:
        metric, where = expected.table.metrics[score.metric], f"{score.metric} on {score.region}"
        if (score.metric, score.region) not in expected.cells:
            found.append(Problem("protocol", f"{expected.protocol} has no {where}"))
        ends = tuple(None if math.isinf(end) else float(end) for end in metric.range)
        facts = (score.higher_is_better, score.range, score.unit)
        if facts != (metric.higher_is_better, ends, metric.unit):
            found.append(Problem("protocol", f"direction, range or unit of {where} are not the protocol's"))
        if not score.networks.startswith(metric.networks):
            found.append(Problem("protocol", f"the networks of {where} are not the protocol's"))
    return found


def _check_scores(result: Result, samples: int | None) -> list[Problem]:
    found = []
    totals = {score.n + score.skipped + score.failed for score in result.scores}
    if not result.scores:
        found.append(Problem("n", "it holds no score"))
    elif samples is not None and totals != {samples}:
        found.append(Problem("n", f"the split has {samples} samples, the scores are of {listed(totals)}"))
    elif len(totals) > 1:
        found.append(Problem("n", f"its scores are of different numbers of samples: {listed(totals)}"))
    if not result.complete:
        found.append(Problem("complete", "more samples failed than were allowed"))
    if failed := max((score.failed for score in result.scores), default=0):
        found.append(Problem("complete", f"up to {failed} samples failed", severe=False))
    for score in result.scores:
        found += [Problem("value", f"{score.metric} on {score.region}: {said}") for said in _wrong(score)]
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


def _check_name(result: Result, others: Iterable[Result]) -> list[Problem]:
    found = []
    if said := unsafe_name(result.name):
        found.append(Problem("name", f"{result.name[:MOST_NAME]!r} is no safe name: {said}"))
    for other in others:
        if _where(other) == _where(result):
            continue
        if same_name(other.name, result.name) and other.protocol == result.protocol:
            found.append(Problem("duplicate", f"there is {other.name!r} in {other.protocol} already"))
        if other.scores == result.scores and other.plan.get("data") == result.plan.get("data"):
            found.append(Problem("duplicate", f"its scores are those of {other.name!r}"))
    return found


def _where(result: Result) -> Path | int:
    return result.folder.resolve() if result.folder else id(result)


def _check_plan_file(result: Result) -> list[Problem]:
    path = (result.folder or Path()) / "plan.json"
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in PLAN if found.get(key) != result.plan.get(key)]
    except (OSError, ValueError, AttributeError, RecursionError):
        return [Problem("plan", "plan.json cannot be read")]
    return [Problem("tampered", f"plan.json and results.json differ in {', '.join(differing)}")] if differing else []
