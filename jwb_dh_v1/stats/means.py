"""Means over clusters (identities) with an interval that covers, and the engine of paired differences.

`mean_estimate` chooses by what the numbers are (`Estimate.method` says which it was), for G identities:

- *Few-valued*: every value is an end of the metric's range or the middle between (hits and misses, one of two hands).
  Wilson's interval at an effective number, see `rates.py`: it is never of width 0.
- *6 to 1,000 identities*: the wider, at each end, of Student's t on the cluster-robust standard error (95 %) and
  bootstrap-t over identities (98 %, since at 95 % it covers 0.88-0.93 where clips differ by orders of magnitude).
- *3 to 5 identities, numbers with an upper bound*: Student's t at 99 %.
- *More than 1,000*: Student's t.
- *None*: fewer; 3 to 5 of a number without an upper bound (word error rates: t covers 0.70); identities that do not
  differ; infinite values; an end that the data do not bound.

Ends are cut at the metric's range, which holds the true value: it loses no coverage.

Coverage of 95 % intervals in simulation, 2,000 draws of 1 to 3 clips per identity, half of the (log) variance between
identities (`pytest tests/stats/test_coverage.py --run-slow -s` prints it); in brackets the share
of draws that have an interval, where not all do; the last three are rates:

| identities | normal | exponential | lognormal (1.2) | half zeros | three values | 0.5 | 0.95 | 0.99 |
|---|---|---|---|---|---|---|---|---|
| 2 | none | none | none | none | 0.999 | 1.000 | 0.984 | 0.998 |
| 4 | 0.985 | 0.967 | none | none | 0.982 | 0.968 | 0.987 | 0.963 |
| 6 | 0.973 | 0.967 | 0.933 | 0.972 (63%) | 0.952 | 0.964 | 0.976 | 0.949 |
| 10 | 0.975 | 0.969 | 0.941 | 0.968 (96%) | 0.952 | 0.963 | 0.973 | 0.976 |
| 30 | 0.987 | 0.984 | 0.960 | 0.968 | 0.966 | 0.967 | 0.970 | 0.966 |
| 100 | 0.978 | 0.981 | 0.971 | 0.975 | 0.942 | 0.944 | 0.940 | 0.961 |

Sources: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 12.5; A. C. Cameron, J. B. Gelbach and
D. L. Miller, Rev. Econ. Stat. 90 (2008) 414 (few clusters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import stats

from jwb_dh_v1.stats.estimate import LEVEL, Estimate
from jwb_dh_v1.stats.rates import RESAMPLES as RATE_RESAMPLES
from jwb_dh_v1.stats.rates import rate_estimate

RESAMPLES = 4000
TAILS = 0.98  # level of bootstrap-t
LEAST_RESAMPLED = 6  # identities for bootstrap-t
MOST_RESAMPLED = 1000  # beyond, the two agree to 1 % of the width, and the draws would fill the memory
LEAST_BOUNDED = 3  # identities for Student's t on numbers with an upper bound
ROUND_OFF = 1e-9  # relative to the values (at least to 1): differences below are no differences


def mean_estimate(
    values: Sequence[float] | np.ndarray,
    identities: Sequence[str],
    weights: Sequence[float] | np.ndarray | None = None,
    bounds: tuple[float | None, float | None] = (None, None),
    *,
    few_valued: bool | None = None,
    open_ended: bool | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    noun: str = "identities",
) -> Estimate:
    """Weighted mean of numbers that come in clusters, with a 95 % interval for other identities like these.

    Args:
        values: float [n], one per clip.
        identities: the person of each, [n].
        weights: float [n], e.g. the parts of a clip; 1 by default.
        bounds: the range of the values; None or infinite where there is no bound.
        few_valued: whether the values can be treated as rates (they need finite bounds); by default, whether each is
            an end of the range or the middle between.
        open_ended: whether the numbers may be large without limit, as word error rates; by default, whether the range
            has no upper end.
        resamples, seed: of the bootstrap.
        noun: what `identities` are, for `method`.

    Returns:
        The estimate; its module says which interval is made when.

    """
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    low, high = (-math.inf if bounds[0] is None else bounds[0], math.inf if bounds[1] is None else bounds[1])
    bounded = math.isfinite(low) and math.isfinite(high)
    names, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    groups = len(names)
    value = float((x * w).sum() / w.sum()) if len(x) else math.nan

    def without(reason: str) -> Estimate:
        return Estimate(value, None, None, len(x), groups, f"none: {reason}")

    if groups < 2:
        return without(f"fewer than two {noun}")
    if not np.isfinite(x).all():
        return without("infinite values")
    if bounded and (at_three_points(x, low, high) if few_valued is None else few_valued):
        found = rate_estimate((x - low) / (high - low) * w, identities, w, resamples=RATE_RESAMPLES, seed=seed)
        return replace(found.scaled(high - low, low), value=value, method=found.method.replace("identities", noun))
    if groups < LEAST_RESAMPLED and (
        groups < LEAST_BOUNDED or (math.isinf(high) if open_ended is None else open_ended)
    ):
        return without(f"{groups} {noun} are too few for an interval that covers")
    sums, counts = np.bincount(place, x * w, groups), np.bincount(place, w, groups)
    error = standard_error(sums, counts)
    if error <= ROUND_OFF * abs(value):
        return without(f"the {noun} do not differ")
    if groups < LEAST_RESAMPLED:
        half, method = students_t(groups, 0.99) * error, f"Student's t at 99% over {groups} {noun}"
        first, last = value - half, value + half
    else:
        half, method = students_t(groups) * error, f"Student's t over {groups} {noun}"
        first, last = value - half, value + half
        if groups <= MOST_RESAMPLED:
            below, above = bootstrap_t(sums, counts, resamples, seed)
            first, last = min(first, below), max(last, above)
            method = f"the wider of {method} and bootstrap-t at {TAILS:.0%}, {resamples} resamples, seed {seed}"
    first, last = max(first, low), min(last, high)
    if not (math.isfinite(first) and math.isfinite(last)):
        return without(f"too few of the {groups} {noun} differ to bound it")
    return Estimate(value, min(first, value), max(last, value), len(x), groups, method)


def at_three_points(values: np.ndarray, low: float, high: float) -> bool:
    """Whether each value is an end of [low, high] or the middle between: hits, misses, and one of two hands."""
    return bool(np.isin((values - low) / (high - low), (0, 0.5, 1)).all())


def standard_error(sums: np.ndarray, counts: np.ndarray) -> float:
    """Cluster-robust standard error of m = sum(sums) / sum(counts), of at least two clusters.

    With e_c = S_c - m n_c it is sqrt(G / (G - 1) * sum e_c**2) / sum n_c.

    Args:
        sums, counts: float [G], sum of the numbers and of their weights of each identity.

    """
    groups, total = len(sums), counts.sum()
    off = sums - sums.sum() / total * counts
    return math.sqrt(groups / (groups - 1) * float(off @ off)) / float(total)


def students_t(groups: int, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t with groups - 1 degrees of freedom."""
    return float(stats.t.ppf((1 + level) / 2, groups - 1))


def bootstrap_t(
    sums: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, level: float = TAILS
) -> tuple[float, float]:
    """Ends of the bootstrap-t interval of sum(sums) / sum(counts); infinite where the data do not bound them.

    Whole identities are drawn with replacement, and (m* - m) / se* is read at both tails. A draw of identities that do
    not differ has a studentised mean without bound.

    Args:
        sums, counts: float [G], as for `standard_error`.
        resamples, seed: of the bootstrap.
        level: of confidence.

    """
    groups, mean, error = len(sums), sums.sum() / counts.sum(), standard_error(sums, counts)
    columns = np.stack([sums, counts, sums * sums, sums * counts, counts * counts], axis=1)
    drawn = times_drawn(groups, resamples, seed) @ columns
    means = drawn[:, 0] / drawn[:, 1]
    squares = drawn[:, 2] - 2 * means * drawn[:, 3] + means**2 * drawn[:, 4]
    errors = np.sqrt(np.clip(squares, 0, None) * groups / (groups - 1)) / drawn[:, 1]
    flat = errors <= 1e-6 * error
    ratio = np.where(flat, np.copysign(math.inf, means - mean), (means - mean) / np.where(flat, 1, errors))
    # The nearest draw, as between infinite ones there is nothing to interpolate.
    at = np.rint(np.array([(1 - level) / 2, (1 + level) / 2]) * (resamples - 1)).astype(int)
    below, above = np.sort(ratio)[at]
    return float(mean - above * error), float(mean - below * error)


@lru_cache(maxsize=2)
def times_drawn(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of some identities is in each resample, float64 [resamples, groups]."""
    rng = np.random.default_rng(seed)
    times = np.zeros((resamples, groups))
    for row in times:
        row += np.bincount(rng.integers(0, groups, groups), minlength=groups)
    return times
