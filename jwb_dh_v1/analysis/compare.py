"""Runs side by side: is a difference real, how large is it, and how many clips would show it?

Each run is compared with a baseline, metric by metric and region by region (`cells.py`), with interval and test of
`paired.py`. The family of Holm's correction is all tests of one comparison. `changes.py` says in words what differs.
`comparable.py` says which runs are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from jwb_dh_v1.analysis.cells import (
    NOUN,
    MetricComparison,
    Run,
    Unit,
    compare_cell,
    corrected,
    draws_for,
    runs_of,
    shared,
)
from jwb_dh_v1.analysis.changes import Changes, changes
from jwb_dh_v1.analysis.comparable import require_comparable
from jwb_dh_v1.analysis.gains import Gains, gains
from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.scoring.result import Result, _plain
from jwb_dh_v1.stats.means import LEAST_RESAMPLED
from jwb_dh_v1.stats.paired import ALPHA, NOTHING_SHARED, needed
from jwb_dh_v1.stats.significance import smallest_p

SCHEMA = "jwb-dh-v1/comparison/1"


@dataclass(frozen=True)
class Comparison:
    """All cells of some runs against one baseline.

    Attributes:
        unit: what intervals and tests are over.
        family: number of tests that Holm's correction is over.
        changes: what differs in words, one per run other than the baseline.
        gains: which region improved most, one per run other than the baseline.
        notes: what to mind, one sentence each.

    """

    baseline: str
    cells: tuple[MetricComparison, ...]
    unit: Unit
    family: int
    changes: tuple[Changes, ...]
    gains: tuple[Gains, ...]
    notes: tuple[str, ...]

    def __getitem__(self, key: tuple[str, str, str]) -> MetricComparison:
        """Return the cell of (run, metric, region)."""
        for cell in self.cells:
            if (cell.run, cell.metric, cell.region) == key:
                return cell
        raise KeyError(f"no comparison of {key[0]!r} in metric {key[1]!r} on region {key[2]!r}")

    def to_json(self) -> str:
        """Everything but single clips; infinite values are the string `inf` or `-inf`."""
        cells = []
        for cell in self.cells:
            found = asdict(replace(cell, by_clip={}))
            del found["by_clip"]
            if found["difference"]:
                found["difference"]["identities"] = found["difference"].pop("clusters")
            cells.append(found | {"effect": cell.effect, "superiority": cell.superiority, "verdict": cell.verdict})
        document = {"schema": SCHEMA, **asdict(replace(self, cells=())), "cells": cells}
        document["changes"] = [asdict(one) | {"text": one.text} for one in self.changes]
        document["gains"] = [asdict(one) | {"text": one.text} for one in self.gains]
        return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def compare(
    runs: Sequence[Result],
    baseline: str | None = None,
    *,
    metrics: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    difference: float | Mapping[str, float] | None = None,
    unit: Unit = "identity",
) -> Comparison:
    """Compare runs with one of them.

    Args:
        runs: results of `score` or `Result.load`; two or more.
        baseline: name (or folder) of the one to compare with; the first by default.
        metrics, regions: only these; by default all that both of a pair have.
        difference: for which the numbers of clips needed are given, in the metric's unit (one for all metrics, or by
            metric); by default the observed one.
        unit: `identity`: intervals and tests speak about other people like these. `clip`: about other clips of the
            same people, which says nothing about others but can be said with few people.

    Raises:
        PlanMismatch: two runs differ in what moves scores, see `comparable.py`.
        SetupError: fewer than two runs, no run of the baseline's name, nothing in common, or no such unit.

    """
    notes = require_comparable(runs)
    if len(runs) < 2:
        raise SetupError("A comparison takes two runs or more.")
    if unit not in NOUN:
        raise SetupError(f"There is no unit {unit!r}; there are {', '.join(NOUN)}.")
    named = runs_of(runs)
    base = _baseline(named, baseline)
    pairs = [(run, base, cell) for run in named if run is not base for cell in shared(run, base, metrics, regions)]
    if not pairs:
        raise SetupError("These runs have no metric and region in common.")
    draws = draws_for(len(pairs))
    cells = corrected([compare_cell(run, base, cell, draws, unit) for run, base, cell in pairs])
    cells = [_with_needed(cell, difference) for cell in cells]
    others = [(run, [c for c in cells if c.run == run.label]) for run in named if run is not base]
    return Comparison(
        base.label,
        tuple(cells),
        unit,
        family(cells),
        tuple(changes(run.label, base.label, of) for run, of in others),
        tuple(gains(run, base, of, unit) for run, of in others),
        (*_notes(cells, named, draws, unit), *notes),
    )


def _baseline(runs: Sequence[Run], name: str | None) -> Run:
    if name is None:
        return runs[0]
    for run in runs:
        if name in {run.label, run.result.name, str(run.result.folder)}:
            return run
    raise SetupError(f"There is no run {name!r} to compare with; there are {', '.join(run.label for run in runs)}.")


def family(cells: Sequence[MetricComparison]) -> int:
    """Number of tests that the correction is over."""
    return sum(cell.holm is not None for cell in cells)


def _with_needed(cell: MetricComparison, difference: float | Mapping[str, float] | None) -> MetricComparison:
    found = cell.difference
    if found is None or not found.spread:
        return cell
    asked = difference.get(cell.metric) if isinstance(difference, Mapping) else difference
    asked = abs(found.value if asked is None else asked)
    number = needed(asked / found.spread)
    if number is None:
        return replace(cell, asked=asked)
    return replace(
        cell, asked=asked, identities_needed=number, clips_needed=math.ceil(number * found.n / found.clusters)
    )


def _notes(cells: Sequence[MetricComparison], runs: Sequence[Run], draws: int, unit: Unit) -> list[str]:
    """What to mind: the family, few identities, clips that only one run could be scored on, metrics without a test."""
    notes = few_identities(cells, draws, unit)
    if unit == "identity" and all(smallest_p(c.difference.clusters) > ALPHA for c in cells if c.difference):
        notes.append("What holds for other clips of the same people may be asked instead (--unit clip).")
    sided: dict[tuple[str, str, str, int, int], None] = {}
    for c in cells:
        if c.only_ours or c.only_theirs:
            sided[c.run, c.baseline, c.region, c.only_ours, c.only_theirs] = None
    for run, base in dict.fromkeys(key[:2] for key in sided):
        said = "; ".join(f"{r} {a} in {run}, {b} in {base}" for x, y, r, a, b in sided if (x, y) == (run, base))
        notes.append(f"Clips with a score in one run alone are in no difference: {said}.")
    if any(s.failures != "strict" and s.skipped + s.failed for run in runs for s in run.result.scores):
        notes.append("Scores count clips that have none (see `failures` in the plan); differences do not.")
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.why and cell.why != NOTHING_SHARED:
            reasons.setdefault(cell.why, []).append(title(cell.metric))
    return notes + [f"No paired test for {', '.join(dict.fromkeys(of))}: {why}." for why, of in reasons.items()]


def few_identities(cells: Sequence[MetricComparison], draws: int, unit: Unit = "identity") -> list[str]:
    """The family of the correction, and what so many identities (or clips) can and cannot show."""
    tests, noun = family(cells), NOUN[unit]
    notes = [
        f"Holm's correction is over the {tests} tests shown: every run, metric and region. A test that could not have "
        "given so small a p (no clip differs, or few) does not count."
    ]
    bests = [c.difference.smallest_p for c in cells if c.difference and c.holm is not None]
    most = max((c.difference.clusters for c in cells if c.difference), default=0)
    best = smallest_p(most, draws) if most else 0.0
    able = sum(one <= best for one in bests)
    if best > ALPHA:
        notes.append(
            f"With {most} {noun} p cannot be below {best:.3g}: no difference, however large, can be told from "
            f"chance. It takes {identities_for(1)} {noun} for one test, {identities_for(tests)} for all {tests}."
        )
    elif best * able > ALPHA:
        notes.append(
            f"With {most} {noun} no difference stands after the correction for {able} tests; that takes "
            f"{identities_for(able)}, or fewer metrics and regions."
        )
    if 1 < most < LEAST_RESAMPLED:
        notes.append(
            f"Intervals over fewer than {LEAST_RESAMPLED} {noun} hold only if these differ about normally (92 % "
            "instead of 95 % where they differ as exponentials do)."
        )
    if unit == "clip":
        notes.append(
            "The unit is the clip: what is said holds for other clips of these people. Of other people it says nothing."
        )
    return notes


def identities_for(tests: int, alpha: float = ALPHA) -> int:
    """The least number of identities with which one of so many exact tests can be significant after the correction."""
    return math.ceil(1 + math.log2(max(1, tests) / alpha))
