"""One metric and region of two runs, clip by clip: what `compare` and `ablate` are made of.

A clip counts where both runs have a score for it, and counts once: the mean difference can therefore differ from the
difference of two scores, which weigh clips by their parts (two hands) or words, and may count lost clips
(`policy.py`). Distances of sets have no score per clip; they are compared by leaving out identities on both sides.

The unit of interval and test is the identity: what is said holds for other people like these. With the clip as unit it
holds for other clips of the same people, and of other people nothing is said: clips of one person are more alike than
those of two, so that such an interval is too narrow for people (81 % instead of 95 % with three clips of each).

Of FID, FVD and E-FID a run's shards keep features with their identities: all, while a shard holds at most as many of
them as they have dimensions; else sums, and the features of some identities, the same ones in every run of the same
clips (`feature_statistics.Subset`), whose standard error is scaled to all. With D(-g) the difference of the two
distances without identity g (or one of 20 groups of them), identity g contributes a pseudo-value
(`stats/jackknife.py`): their mean, weighted by frames, is D and their standard error the jackknife's. Interval
(Student's t) and sign-flip test are of these.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add as add_states
from typing import Literal

import numpy as np

from jwb_dh_v1.analysis.comparable import labels
from jwb_dh_v1.analysis.wording import find, metrics_of, regions_of
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet, frechet_distance, kept_rows
from jwb_dh_v1.scoring.result import Result
from jwb_dh_v1.scoring.shard import stored_states
from jwb_dh_v1.stats.jackknife import grouped, jackknife_estimate, pseudo_values, standard_error
from jwb_dh_v1.stats.paired import ALPHA, Difference, paired, without_round_off
from jwb_dh_v1.stats.significance import DRAWS, NO_DIFFERENCE, flip, holm, smallest_p

DIMENSIONS = 512  # above, and with more features than dimensions, 21 distances take minutes
SUMS = "the run kept sums, not single features (more features than dimensions in a shard)"
STRANGE = "the shards in the run's folder are not those of its results"
Cell = tuple[str, str]
Sides = tuple[FeatureStatistics, FeatureStatistics]


class Features:
    """The features that a run's folder keeps, by metric, region and identity; distances are computed once."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self._states: dict[Cell, dict[str, Sides] | str] = {}
        self._sums: dict[Cell, Frechet | str] = {}
        self._distances: dict[tuple[Cell, frozenset[str]], tuple[float, np.ndarray, np.ndarray]] = {}

    def of(self, cell: Cell) -> dict[str, Sides] | str:
        """Identity -> moments of generated and reference features; or why they are not to be had."""
        if cell not in self._states:
            self._states[cell] = self._read(cell)
        return self._states[cell]

    def sums(self, cell: Cell) -> Frechet | str:
        """The state of all shards; or why it is not to be had."""
        if cell not in self._sums:
            found = self._shards(cell)
            if not isinstance(found, str):
                state = reduce(add_states, found)
                self._sums[cell] = state if self._is_score(cell, state.value()) else STRANGE
            else:
                self._sums[cell] = found
        return self._sums[cell]

    def distance(self, cell: Cell, identities: frozenset[str]) -> float | None:
        """The distance over some identities; of sums, over all."""
        if isinstance(self.of(cell), str):
            return self.result[cell].value
        return self.without_each(cell, identities)[0]

    def _is_score(self, cell: Cell, value: float) -> bool:
        score = self.result[cell].value
        return score is not None and math.isclose(score, value, rel_tol=1e-6, abs_tol=1e-6)

    def _shards(self, cell: Cell) -> list[Frechet] | str:
        if self.result.folder is None:
            return "the features are in a run's folder, and this run has none"
        paths = sorted((self.result.folder / "shards").glob("*.npz"))
        found: list[Frechet] = []
        for path in paths:
            try:
                found += [state for _, state in stored_states(path, [cell]) if isinstance(state, Frechet)]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                return f"the shard {path.name} cannot be read"
        return found or "the run's folder holds no features (its shards are gone)"

    def _read(self, cell: Cell) -> dict[str, Sides] | str:
        found = self._shards(cell)
        if isinstance(found, str):
            return found
        if any(state.generated.rows is None or state.reference.rows is None for state in found):
            return SUMS
        split: dict[str, Sides] = {}
        for state in found:
            for name, sides in _by_identity(state).items():
                before = split.get(name)
                split[name] = (before[0] + sides[0], before[1] + sides[1]) if before else sides
        dimensions = found[0].generated.mean().shape[0]
        rows = max(sum(state.generated.n for state in found), sum(state.reference.n for state in found))
        if rows > dimensions > DIMENSIONS:
            return SUMS  # the rows would do, but in minutes
        return split if self._is_score(cell, _distance(split.values())) else STRANGE

    def without_each(self, cell: Cell, identities: frozenset[str]) -> tuple[float, np.ndarray, np.ndarray]:
        """The distance over some identities; without each (or each of 20 groups) [k]; rows of each [k]."""
        key = (cell, identities)
        if key not in self._distances:
            split = self.of(cell)
            assert not isinstance(split, str)
            labels = sorted(identities)
            groups = grouped(labels)
            left = [_distance(split[name] for name in labels if name not in group) for group in groups]
            sizes = [sum(split[name][0].n for name in group) for group in groups]
            self._distances[key] = _distance(split[name] for name in labels), np.array(left), np.array(sizes)
        return self._distances[key]


def _by_identity(state: Frechet) -> dict[str, Sides]:
    sides: list[dict[str, FeatureStatistics]] = []
    for side in (state.generated, state.reference):
        assert side.rows is not None
        groups = np.array(side.groups, dtype=str)
        names = np.unique(groups)
        sides.append({str(n): _moments(side.rows[groups == n], str(n)) for n in names})
    return {name: (sides[0][name], sides[1][name]) for name in sides[0]}


def _moments(rows: np.ndarray, name: str) -> FeatureStatistics:
    return FeatureStatistics(len(rows), rows, (name,) * len(rows))


def _distance(parts: Iterable[Sides]) -> float:
    found = list(parts)
    if not found:
        return math.nan
    ours, theirs = found[0]
    for generated, reference in found[1:]:
        ours, theirs = ours + generated, theirs + reference
    return frechet_distance(ours, theirs)


def paired_sets(
    ours: Features, theirs: Features, cell: Cell, identities: Iterable[str], draws: int = DRAWS
) -> Difference | str:
    """Difference of two distances (ours - theirs) over some identities, or why there is none.

    Args:
        ours, theirs: the two runs.
        cell: metric and region.
        identities: those whose clips have features in both runs.
        draws: random signs of the test beyond 16 identities.

    """
    states = [side.of(cell) for side in (ours, theirs)]
    if SUMS in states:
        return _paired_sums(ours.sums(cell), theirs.sums(cell), frozenset(identities), draws)
    common = frozenset(identities)
    for state in states:
        if isinstance(state, str):
            return state
        common &= frozenset(state)
    if len(common) < 2:
        return "fewer than two identities have features in both"
    (a, a_left, sizes), (b, b_left, _) = (side.without_each(cell, common) for side in (ours, theirs))
    return _jackknifed(a, b, a_left, b_left, sizes, len(common), draws)


def _paired_sums(
    ours: Frechet | str, theirs: Frechet | str, identities: frozenset[str], draws: int
) -> Difference | str:
    """The same where rows are summed up: of the identities whose rows both runs keep (`Subset`)."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return ours if isinstance(ours, str) else str(theirs)
    if any(not state.generated.covers(identities) for state in (ours, theirs)):
        return f"{SUMS}, and some identities have a clip without a partner"
    kept = kept_rows([ours, theirs])
    if kept is None:
        return f"{SUMS} of version 0.1.0"
    (a, b), scale, rest = kept
    groups = grouped(a.generated.groups)
    sizes = np.array([sum(label in group for label in a.generated.groups) for group in groups])
    (a_whole, a_left), (b_whole, b_left) = (
        (state.without(frozenset()).value(), np.array([state.without(group).value() for group in groups]))
        for state in (a, b)
    )
    found = _jackknifed(a_whole, b_whole, a_left, b_left, sizes, len(identities), draws, scale, rest)
    if isinstance(found, str):
        return found
    value = ours.value() - theirs.value()
    moved = value - found.value  # from the distances of the rows that are kept to those of all
    low, high = (None if end is None else end + moved for end in (found.low, found.high))
    return replace(found, value=value, low=low, high=high)


def _jackknifed(
    a: float,
    b: float,
    a_left: np.ndarray,
    b_left: np.ndarray,
    sizes: np.ndarray,
    number: int,
    draws: int,
    scale: float = 1.0,
    rest: str = "",
) -> Difference | str:
    """Distances a - b of `number` identities, with those [k] without each of k groups of them."""
    if not (np.isfinite(a_left).all() and np.isfinite(b_left).all()):
        return "too few features without one identity"
    left, k = a_left - b_left, len(sizes)
    # The distances are sums over thousands of products: what is below 1e-9 of them is rounding.
    value = float(without_round_off(np.array(a - b), a_left, b_left))
    left = without_round_off(left, a_left, b_left)
    found = jackknife_estimate(value, left, sizes, n=number, clusters=number, scale=scale, note=rest)
    p, test = flip(pseudo_values(value, left, sizes) * sizes / sizes.mean(), [str(i) for i in range(k)], draws)
    if k < number:
        test = test.replace("identities", f"groups of the {number} identities")
    spread = standard_error(value, left, sizes) * scale * math.sqrt(number)
    best = smallest_p(k, draws)
    return Difference(value, found.low, found.high, number, number, found.method, p, test, best, None, None, spread)


Unit = Literal["identity", "clip"]
NOUN: Mapping[Unit, str] = {"identity": "identities", "clip": "clips"}


@dataclass(frozen=True)
class Clips:
    """One cell of one run: sample id -> status, identity, and score (None for metrics of sets) of those that are ok."""

    status: dict[str, str]
    identity: dict[str, str]
    value: dict[str, float | None]


class ComparedRun:
    """A result, its name among the others, its clips by cell, and the features in its folder."""

    def __init__(self, result: Result, label: str) -> None:
        self.result, self.label, self.features = result, label, Features(result)

    @cached_property
    def clips(self) -> dict[Cell, Clips]:
        """By metric and region."""
        found: dict[Cell, Clips] = {}
        columns = ["metric", "region", "sample_id", "identity_id", "status", "value"]
        table = self.result.samples.select(columns)
        for metric, region, sample, person, status, value in zip(*(table[c].to_pylist() for c in columns), strict=True):
            cell = found.setdefault((metric, region), Clips({}, {}, {}))
            cell.status[sample], cell.identity[sample] = status, person
            if status == "ok":
                cell.value[sample] = value
        return found


@dataclass(frozen=True)
class MetricComparison:
    """One metric and region of a run against the baseline.

    Attributes:
        run, baseline: names.
        ours, theirs: mean scores over the pairs (of sets: the distances), None without pairs.
        absent: clips that only one run has a row for.
        skipped, failed: clips without a score in one run or both.
        people: identities of the pairs.
        only_ours, only_theirs: of all these, clips with a score in that run alone.
        difference: ours - theirs, None where `why` says that there is no paired test.
        holm: its p, corrected for all tests of the comparison.
        asked: the difference whose numbers are `clips_needed` and `identities_needed`; the observed one by default.
        clips_needed, identities_needed: with which a single test at 0.05 finds that difference with 80 % power, if
            identities have as many clips as here and differ as they do here; None where no number would.
        by_clip: sample id -> difference, for plots.

    """

    run: str
    baseline: str
    metric: str
    region: str
    higher_is_better: bool
    unit: str
    ours: float | None
    theirs: float | None
    absent: int
    skipped: int
    failed: int
    people: int
    only_ours: int
    only_theirs: int
    difference: Difference | None
    why: str = ""
    holm: float | None = None
    asked: float | None = None
    clips_needed: int | None = None
    identities_needed: int | None = None
    by_clip: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def effect(self) -> float | None:
        """Cohen's dz, positive where the run is better than the baseline."""
        if self.difference is None or self.difference.dz is None:
            return None
        return self.sign * self.difference.dz + 0.0  # no negative zero

    @property
    def superiority(self) -> float | None:
        """Share of clips on which the run is better, and half of those on which the two are equal."""
        above = self.difference.above if self.difference else None
        return above if above is None or self.higher_is_better else 1 - above

    @property
    def verdict(self) -> str:
        """`better`, `worse`; `open` where the difference may be chance; `equal` where no clip differs; `no test`."""
        if self.difference is None:
            return "no test"
        if self.difference.test == NO_DIFFERENCE:
            return "equal"
        if self.holm is not None and self.holm <= ALPHA:
            return "better" if self.sign * self.difference.value > 0 else "worse"
        return "open"


def runs_of(results: Sequence[Result]) -> list[ComparedRun]:
    """The runs with a name each."""
    return [ComparedRun(result, label) for result, label in zip(results, labels(results), strict=True)]


def shared(
    a: ComparedRun, b: ComparedRun, metrics: Sequence[str] | None = None, regions: Sequence[str] | None = None
) -> list[Cell]:
    """The cells that two runs have in common, metric by metric."""
    scores = [s for s in a.result.scores if find(b.result, s.metric, s.region)]
    wanted = [(m, r) for m in metrics_of(scores) for r in regions_of(scores) if find(a.result, m, r)]
    return [(m, r) for m, r in wanted if (not metrics or m in metrics) and (not regions or r in regions)]


def draws_for(tests: int) -> int:
    """Random signs enough for the smallest p to stay below 0.05 after the correction for so many tests."""
    return max(DRAWS, 100 * tests)


def compare_cell(
    a: ComparedRun, b: ComparedRun, cell: Cell, draws: int = DRAWS, unit: Unit = "identity"
) -> MetricComparison:
    """One metric and region of run a against run b, not yet corrected."""
    ours, theirs = (run.clips.get(cell, Clips({}, {}, {})) for run in (a, b))
    score = a.result[cell]
    both = [sample for sample in ours.status if sample in theirs.status]
    pairs = [sample for sample in both if sample in ours.value and sample in theirs.value]
    lost = [{ours.status[s], theirs.status[s]} for s in both if s not in ours.value or s not in theirs.value]
    failed = sum("failed" in statuses for statuses in lost)
    people = pairs if unit == "clip" else [ours.identity[sample] for sample in pairs]
    x, y = ([clips.value[sample] for sample in pairs] for clips in (ours, theirs))
    found: Difference | str
    means: tuple[float | None, float | None] = (None, None)
    by_clip: dict[str, float] = {}
    if pairs and all(value is None for value in x + y):
        found, means = _sets(a, b, cell, ours, theirs, draws)
        found = "distances of sets are compared by identities, not by clips" if unit == "clip" else found
    else:
        xs, ys = (np.array(values, dtype=np.float64) for values in (x, y))
        found = paired(xs, ys, people, score.range, draws=draws, noun=NOUN[unit])
        if pairs:
            means = float(xs.mean()), float(ys.mean())
        if isinstance(found, Difference):
            by_clip = dict(zip(pairs, (xs - ys).tolist(), strict=True))
    return MetricComparison(
        run=a.label,
        baseline=b.label,
        metric=cell[0],
        region=cell[1],
        higher_is_better=score.higher_is_better,
        unit=score.unit,
        ours=means[0],
        theirs=means[1],
        absent=len({*ours.status, *theirs.status}) - len(both),
        skipped=len(lost) - failed,
        failed=failed,
        people=len({ours.identity[sample] for sample in pairs}),
        only_ours=len(ours.value.keys() - theirs.value),
        only_theirs=len(theirs.value.keys() - ours.value),
        difference=found if isinstance(found, Difference) else None,
        why=found if isinstance(found, str) else "",
        by_clip=by_clip,
    )


def _sets(
    a: ComparedRun, b: ComparedRun, cell: Cell, ours: Clips, theirs: Clips, draws: int
) -> tuple[Difference | str, tuple[float | None, float | None]]:
    """Distances of sets over the identities whose clips all have features in both or in neither run."""
    uneven = ours.value.keys() ^ theirs.value.keys()
    broken = {clips.identity[sample] for sample in uneven for clips in (ours, theirs) if sample in clips.identity}
    whole = {ours.identity[sample] for sample in ours.value} - broken
    found = paired_sets(a.features, b.features, cell, whole, draws)
    if isinstance(found, str):
        return found, ((a.result[cell].value, b.result[cell].value) if not uneven else (None, None))
    common = frozenset(whole)
    means = tuple(run.features.distance(cell, common) for run in (a, b))
    clips = sum(person in whole for sample, person in ours.identity.items() if sample in ours.value)
    return replace(found, n=clips), (means[0], means[1])


def corrected(cells: Sequence[MetricComparison]) -> list[MetricComparison]:
    """The same cells with Holm's correction over all of their tests that could have given so small a p."""
    tests = {i: (d.p, d.smallest_p) for i, c in enumerate(cells) if (d := c.difference) and d.p is not None}
    p_values, smallest = [p for p, _ in tests.values()], [least for _, least in tests.values()]
    adjusted = dict(zip(tests, holm(p_values, smallest), strict=True))
    return [replace(cell, holm=adjusted.get(i)) for i, cell in enumerate(cells)]
