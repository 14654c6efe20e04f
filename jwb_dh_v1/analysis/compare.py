"""Runs side by side: is a difference real, how large is it, and how many clips would show it?

Each run is compared with a baseline, metric by metric and region by region (`metric_comparison.py`), with interval
and test of `stats/paired.py`. The family of Holm's correction is all tests of one comparison. `comparable.py` says
which runs are refused.

`Changes` say in words what differs between a run and its baseline: metrics and regions by direction and by how sure
it is. The first kinds are inference, the others facts of the clips that were scored: that all of them are worse, or
that none differs, needs no test and says nothing about others. With few identities only facts can be had, and they are
much: a metric that is equal on every clip was not touched, and what was done to a system shows in those that were.

`Gains` say which region a run gained most in, in a unit that metrics share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from jwb_dh_v1.analysis.comparable import CROPPED, require_comparable
from jwb_dh_v1.analysis.metric_comparison import (
    NOUN,
    Cell,
    ComparedRun,
    MetricComparison,
    Unit,
    compare_cell,
    corrected,
    draws_for,
    runs_of,
    shared,
)
from jwb_dh_v1.analysis.wording import ORDER, title
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.scoring.result import Result, _plain
from jwb_dh_v1.stats.means import LEAST_RESAMPLED
from jwb_dh_v1.stats.paired import ALPHA, NOTHING_SHARED, Difference, needed, paired
from jwb_dh_v1.stats.significance import smallest_p

KINDS: Mapping[str, str] = {
    "worse": "worse, corrected p <= 0.05",
    "better": "better, corrected p <= 0.05",
    "worse on every clip": "worse on every clip",
    "better on every clip": "better on every clip",
    "worse on average": "worse on average, 0 outside the interval",
    "better on average": "better on average, 0 outside the interval",
    "open": "not told from chance",
    "equal": "equal on every clip",
    "untested": "no paired test",
}


@dataclass(frozen=True)
class Changes:
    """What differs between a run and its baseline.

    Attributes:
        clips, identities: the most that a metric and region has.
        kinds: kind of `KINDS` -> its (metric, region); every cell of the comparison is in one. A cell whose
            corrected test is significant is `worse` or `better`, even if every clip is.

    """

    run: str
    baseline: str
    clips: int
    identities: int
    kinds: Mapping[str, tuple[Cell, ...]]

    def __getitem__(self, kind: str) -> frozenset[Cell]:
        """Return the cells of a kind; `down` and `up` are those of three kinds, from test, clips and interval."""
        names = {"down": "worse", "up": "better"}
        if kind in names:
            found = [cells for name, cells in self.kinds.items() if name.partition(" ")[0] == names[kind]]
            return frozenset(cell for cells in found for cell in cells)
        return frozenset(self.kinds[kind])

    @property
    def text(self) -> list[str]:
        """For people: a heading, then a line for each kind that has a cell."""
        lines = [f"{self.run} against {self.baseline}, {self.clips} clips of {self.identities} identities:"]
        for kind, words in KINDS.items():
            if cells := self.kinds[kind]:
                lines.append(f"{words}: {_listed(cells)}")
        return lines


def changes(run: str, baseline: str, cells: Sequence[MetricComparison]) -> Changes:
    """Sort the cells of a run against its baseline by kind."""
    found: dict[str, list[Cell]] = {kind: [] for kind in KINDS}
    for cell in cells:
        found[kind_of(cell)].append((cell.metric, cell.region))
    clips = max((c.difference.n for c in cells if c.difference), default=0)
    people = max((c.people for c in cells), default=0)
    return Changes(run, baseline, clips, people, {kind: tuple(of) for kind, of in found.items()})


def kind_of(cell: MetricComparison) -> str:
    """Which of `KINDS` a cell is."""
    verdict, d = cell.verdict, cell.difference
    if d is None:
        return "untested"
    if verdict != "open":
        return verdict
    side = "better" if cell.sign * d.value > 0 else "worse"
    if d.n > 1 and cell.superiority in (0, 1):
        return f"{side} on every clip"
    if d.low is not None and d.high is not None and (d.low > 0 or d.high < 0):
        return f"{side} on average"
    return "open"


def _listed(cells: Sequence[Cell]) -> str:
    """`SSIM, PSNR (body, face), CSIM (face)`: metrics of the same regions together."""
    regions: dict[str, list[str]] = {}
    for metric, region in cells:
        regions.setdefault(metric, []).append(region)
    together: dict[tuple[str, ...], list[str]] = {}
    for metric, of in regions.items():
        together.setdefault(tuple(of), []).append(title(metric))
    return "; ".join(f"{', '.join(metrics)} ({', '.join(of)})" for of, metrics in together.items())


@dataclass(frozen=True)
class Gains:
    """Where a run gained most against the baseline.

    The unit is the point-biserial correlation r between run and score, -1..1, positive where the run is better: the
    mean difference over twice the standard deviation of both runs' scores taken together. 0: no difference; 0.5: runs
    make a quarter of all variance between the scores; 1: all of it. Bounded, so that no metric outweighs the others.

    Attributes:
        regions: (region, mean of r over `metrics`, clips), best first.
        metrics: those with paired scores in each of these regions; distances of sets have none.
        left_out: regions without any.
        gap: difference of the best two regions' r on the clips that have both, None where they have none.

    """

    run: str
    baseline: str
    regions: tuple[tuple[str, float, int], ...]
    metrics: tuple[str, ...]
    left_out: tuple[str, ...]
    gap: Difference | None

    @property
    def text(self) -> str:
        """One line for people."""
        begin = f"{self.run} against {self.baseline}: "
        if len(self.regions) < 2:
            return begin + "which region improved most cannot be said (fewer than two have metrics in common)."
        (first, most, _), (second, _, _) = self.regions[:2]
        if all(r == 0 for _, r, _ in self.regions):
            return begin + f"no region changed ({', '.join(region for region, _, _ in self.regions)})."
        last = self.regions[-1][0]
        said = f"{first} improved most" if most > 0 else f"no region improved; {first} lost least, {last} most"
        even = len({clips for _, _, clips in self.regions}) == 1
        numbers = ", ".join(f"{region} {r:+.2f}" + ("" if even else f" ({n} clips)") for region, r, n in self.regions)
        tie = ""
        if self.gap is None:
            tie = f"; {first} and {second} have no clip in common"
        elif self.gap.p is not None and self.gap.p > ALPHA:
            tie = f"; {first} and {second} may as well be tied, p {self.gap.p:.2g}"
        out = f"; nothing to compare in {', '.join(self.left_out)}" if self.left_out else ""
        return f"{begin}{said} (mean r of {', '.join(title(m) for m in self.metrics)}: {numbers}{tie}{out})."


def gains(run: ComparedRun, base: ComparedRun, cells: Sequence[MetricComparison], unit: Unit = "identity") -> Gains:
    """Compare the gains of body, face and hands; `cells` are those of the run against the baseline."""
    known = {(c.metric, c.region): c for c in cells if c.by_clip and c.region in CROPPED | {"body"}}
    names = [r for r in ORDER if any(region == r for _, region in known)]
    metrics = [m for m in dict.fromkeys(m for m, _ in known) if all((m, r) in known for r in names)]
    found = []
    by_clip: dict[str, dict[str, float]] = {}
    for region in names if metrics else []:
        each = [_by_clip(run, base, known[metric, region]) for metric in metrics]
        by_clip[region] = {s: float(np.mean([g[s] for g in each])) for s in each[0] if all(s in g for g in each)}
        r = float(np.mean([np.mean(list(g.values())) for g in each]))
        found.append((region, r, len(by_clip[region])))
    found.sort(key=lambda entry: -entry[1])
    gap: Difference | str | None = None
    if len(found) >= 2:
        first, second = (by_clip[region] for region, _, _ in found[:2])
        both = [sample for sample in first if sample in second]
        identity = run.clips[metrics[0], found[0][0]].identity
        people = both if unit == "clip" else [identity[s] for s in both]
        gap = paired([first[s] for s in both], [second[s] for s in both], people, noun=NOUN[unit])
    out = [r for r in dict.fromkeys(c.region for c in cells) if r not in by_clip and r != "speech"]
    return Gains(run.label, base.label, tuple(found), tuple(metrics) if found else (), tuple(out),
                 gap if isinstance(gap, Difference) else None)  # fmt: skip


def _by_clip(run: ComparedRun, base: ComparedRun, cell: MetricComparison) -> dict[str, float]:
    """Sample id -> gain over twice the standard deviation of all scores; their mean is r."""
    scores = [r.clips[cell.metric, cell.region].value[s] for r in (run, base) for s in cell.by_clip]
    spread = float(np.std(np.array(scores, dtype=np.float64)))
    return {s: cell.sign * gain / (2 * spread) if spread > 0 else 0.0 for s, gain in cell.by_clip.items()}


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


def _baseline(runs: Sequence[ComparedRun], name: str | None) -> ComparedRun:
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


def _notes(cells: Sequence[MetricComparison], runs: Sequence[ComparedRun], draws: int, unit: Unit) -> list[str]:
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
            f"Intervals over fewer than {LEAST_RESAMPLED} {noun} are Student's t at 99 %, which covers 95 % or more "
            "even where these differ as exponentials do; word error rates and the like have none."
        )
    if unit == "clip":
        notes.append(
            "The unit is the clip: what is said holds for other clips of these people. Of other people it says nothing."
        )
    return notes


def identities_for(tests: int, alpha: float = ALPHA) -> int:
    """The least number of identities with which one of so many exact tests can be significant after the correction."""
    return math.ceil(1 + math.log2(max(1, tests) / alpha))
