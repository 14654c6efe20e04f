"""Paired differences of distances between whole sets (FID, FVD, E-FID), leaving out the same identities on both sides.

Such a metric has no score per clip. What a run's shards keep of it are features with their identities, while a shard
holds at most as many of them as they have dimensions. With D(-g) the difference of the two distances without identity
g (or one of 20 groups of them), identity g contributes a pseudo-value (`stats/jackknife.py`): their mean, weighted by
frames, is D and their standard error the jackknife's. Interval (Student's t) and sign-flip test are of these.

"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet, frechet_distance
from jwb_dh_v1.metrics.state import unpack
from jwb_dh_v1.scoring.result import Result
from jwb_dh_v1.stats.jackknife import grouped, pseudo_values
from jwb_dh_v1.stats.means import interval
from jwb_dh_v1.stats.paired import Difference, without_round_off
from jwb_dh_v1.stats.significance import DRAWS, flip, smallest_p

DIMENSIONS = 512  # above, and with more features than dimensions, 21 distances take minutes
Cell = tuple[str, str]
Sides = tuple[FeatureStatistics, FeatureStatistics]


class Features:
    """The features that a run's folder keeps, by metric, region and identity; distances are computed once."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self._states: dict[Cell, dict[str, Sides] | str] = {}
        self._distances: dict[tuple[Cell, frozenset[str]], tuple[float, np.ndarray, np.ndarray]] = {}

    def of(self, cell: Cell) -> dict[str, Sides] | str:
        """Identity -> moments of generated and reference features; or why they are not to be had."""
        if cell not in self._states:
            self._states[cell] = self._read(cell)
        return self._states[cell]

    def _read(self, cell: Cell) -> dict[str, Sides] | str:
        if self.result.folder is None:
            return "the features are in a run's folder, and this run has none"
        paths = sorted((self.result.folder / "shards").glob("*.npz"))
        found: list[Frechet] = []
        for path in paths:
            state = _stored(path, cell)
            if isinstance(state, str):
                return state
            found += [state] if state else []
        if not found:
            return "the run's folder holds no features (its shards are gone)"
        split: dict[str, Sides] = {}
        for state in found:
            for name, sides in _by_identity(state).items():
                before = split.get(name)
                split[name] = (before[0] + sides[0], before[1] + sides[1]) if before else sides
        dimensions = found[0].generated.mean().shape[0]
        rows = max(sum(state.generated.n for state in found), sum(state.reference.n for state in found))
        if rows > dimensions > DIMENSIONS:
            return f"it would take minutes ({rows} features of {dimensions} dimensions)"
        score, value = self.result[cell].value, _distance(split.values())
        if score is None or not math.isclose(score, value, rel_tol=1e-6, abs_tol=1e-6):
            return "the shards in the run's folder are not those of its results"
        return split

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


def _stored(path: Path, cell: Cell) -> Frechet | str | None:
    """One cell's state in a shard, without reading the others; None where no clip of the shard has one."""
    begin = f"{cell[0]}/{cell[1]}/"
    try:
        with np.load(path, allow_pickle=False) as shard:
            keys = [key for key in shard.files if key.startswith(begin)]
            if any(key.endswith((".first", ".second")) for key in keys):
                return "the run kept sums, not single features (more features than dimensions in a shard)"
            state = unpack({key.removeprefix(begin): shard[key] for key in keys}) if keys else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return f"the shard {path.name} cannot be read"
    return state if isinstance(state, Frechet) else None


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
    for state in states:
        if isinstance(state, str):
            return state
    common = frozenset(identities)
    for state in states:
        common &= frozenset(state)
    if len(common) < 2:
        return "fewer than two identities have features in both"
    (a, a_left, sizes), (b, b_left, _) = (side.without_each(cell, common) for side in (ours, theirs))
    if not (np.isfinite(a_left).all() and np.isfinite(b_left).all()):
        return "too few features without one identity"
    value, left = a - b, a_left - b_left
    k = len(left)
    # The distances are sums over thousands of products: what is below 1e-9 of them is rounding.
    pseudo = without_round_off(pseudo_values(value, left, sizes), a_left, b_left)
    shares = sizes / sizes.mean()
    low, high, spread, method = interval(pseudo * shares, shares, resamples=0)
    p, test = flip(pseudo * shares, [str(i) for i in range(k)], draws)
    if spread is not None:
        spread *= math.sqrt(len(common) / k)  # of an identity, where groups were left out
    if k < len(common):
        test = test.replace("identities", f"groups of the {len(common)} identities")
    mean, best, number = float((pseudo * shares).mean()), smallest_p(k, draws), len(common)
    return Difference(mean, low, high, number, number, f"jackknife: {method}", p, test, best, None, None, spread)
