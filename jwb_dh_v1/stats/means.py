"""Means over clusters (identities) with an interval that covers, and the engine of paired differences.

`mean_estimate` chooses by what the numbers are (`Estimate.method` says which it was), for G identities:

- *Few-valued*: every value is an end of the metric's range or the middle between (hits and misses, one of two hands).
  Wilson's interval at an effective number, see `rates.py`: it is never of width 0.
- *6 to 1,000 identities*: the wider, at each end, of Student's t on the cluster-robust standard error (95 %) and
  bootstrap-t over identities (98 %, since at 95 % it covers 0.88-0.93 where clips differ by orders of magnitude).
- *3 to 5 identities, values within a known range*: Student's t at 99 %.
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
from functools import lru_cache

import numpy as np
from scipy import stats

from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.rates import rate_estimate

RESAMPLES = 4000
LEAST_RESAMPLED = 6  # identities for bootstrap-t
MOST_RESAMPLED = 1000  # beyond, the two agree to 1 % of the width, and the draws would fill the memory
LEAST_BOUNDED = 3  # identities for Student's t on bounded numbers
ROUND_OFF = 1e-9  # relative to the values (at least to 1): differences below are no differences


def mean_estimate(
    values: Sequence[float] | np.ndarray,
    identities: Sequence[str],
    weights: Sequence[float] | np.ndarray | None = None,
    bounds: tuple[float | None, float | None] = (None, None),
) -> Estimate:
    """Weighted mean of numbers that come in clusters, with a 95 % interval for other identities like these.

    Args:
        values: float [n], one per clip.
        identities: the person of each, [n].
        weights: float [n], e.g. the parts of a clip; 1 by default.
        bounds: the range of the values; None or infinite where there is no bound.

    Returns:
        The estimate; its module says which interval is made when.

    """
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    low, high = (-math.inf if bounds[0] is None else bounds[0], math.inf if bounds[1] is None else bounds[1])
    names, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    groups = len(names)
    value = float((x * w).sum() / w.sum()) if len(x) else math.nan

    def without(reason: str) -> Estimate:
        return Estimate(value, None, None, len(x), groups, f"none: {reason}")

    if groups < 2:
        return without("fewer than two identities")
    if not np.isfinite(x).all():
        return without("infinite values")
    if math.isfinite(low) and math.isfinite(high):
        share = (x - low) / (high - low)
        if np.isin(share, (0, 0.5, 1)).all():
            return rate_estimate(share * w, identities, w).scaled(high - low, low)
    bounded = math.isfinite(low) and math.isfinite(high)
    if groups < LEAST_RESAMPLED and not (bounded and groups >= LEAST_BOUNDED):
        return without(f"{groups} identities are too few for an interval that covers")
    sums, counts = np.bincount(place, x * w, groups), np.bincount(place, w, groups)
    first, last, _, method = interval(sums, counts, few=0.01, tails=0.02)
    if first is None or last is None or first == last:
        return without("the identities do not differ" if first == last else method.removeprefix("none: "))
    first, last = max(first, low), min(last, high)
    if not (math.isfinite(first) and math.isfinite(last)):
        return without(f"too few of the {groups} identities differ to bound it")
    return Estimate(value, min(first, value), max(last, value), len(x), groups, method)


def interval(
    sums: np.ndarray,
    counts: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    noun: str = "identities",
    few: float = 0.05,
    tails: float = 0.05,
) -> tuple[float | None, float | None, float | None, str]:
    """Interval of sum(sums) / sum(counts): low, high, spread, method.

    With e_c = S_c - m n_c, the standard error is sqrt(G / (G - 1) * sum e_c**2) / sum n_c; spread is that times
    sqrt(G), the standard deviation of one identity's contribution.

    Args:
        sums, counts: float [G], sum of the numbers and of their weights of each identity.
        resamples, seed: of the bootstrap; without resamples it is Student's t.
        noun: what the groups are.
        few: 1 - level of Student's t below 6 identities; 0.05 from there on.
        tails: 1 - level of bootstrap-t.

    """
    groups = len(sums)
    if groups < 2:
        return None, None, None, f"none: fewer than two {noun}"
    total = counts.sum()
    mean = sums.sum() / total
    error = math.sqrt(groups / (groups - 1) * float(np.square(sums - mean * counts).sum())) / total
    spread = error * math.sqrt(groups)
    if error <= ROUND_OFF * abs(mean):
        return float(mean), float(mean), float(spread), f"no spread over {groups} {noun}"
    alpha = few if groups < LEAST_RESAMPLED else 0.05
    half = float(stats.t.ppf(1 - alpha / 2, groups - 1)) * error
    at = "" if alpha == 0.05 else f" at {1 - alpha:.0%}"
    low, high, method = mean - half, mean + half, f"Student's t{at} over {groups} {noun}"
    if LEAST_RESAMPLED <= groups <= MOST_RESAMPLED and resamples:
        columns = np.stack([sums, counts, sums * sums, sums * counts, counts * counts], axis=1)
        drawn = times_drawn(groups, resamples, seed) @ columns
        means = drawn[:, 0] / drawn[:, 1]
        squares = drawn[:, 2] - 2 * means * drawn[:, 3] + means**2 * drawn[:, 4]
        errors = np.sqrt(np.clip(squares, 0, None) * groups / (groups - 1)) / drawn[:, 1]
        flat = errors <= 1e-6 * error  # identities drawn that do not differ: a studentised mean without bound
        ratio = (means - mean) / np.where(flat, 1, errors)
        if tails < 0.05:
            ratio = np.where(flat, np.copysign(math.inf, means - mean), ratio)
        elif flat.mean() > 0.01:
            return float(low), float(high), float(spread), method
        else:
            ratio = ratio[~flat]
        # The nearest draw, as between infinite ones there is nothing to interpolate.
        below, above = np.sort(ratio)[np.rint(np.array([tails / 2, 1 - tails / 2]) * (len(ratio) - 1)).astype(int)]
        low, high = min(low, mean - above * error), max(high, mean - below * error)
        at = "" if tails == 0.05 else f" at {1 - tails:.0%}"
        method = f"the wider of {method} and bootstrap-t{at}, {resamples} resamples, seed {seed}"
    return float(low), float(high), float(spread), method


@lru_cache(maxsize=2)
def times_drawn(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of some identities is in each resample, float64 [resamples, groups]."""
    rng = np.random.default_rng(seed)
    times = np.zeros((resamples, groups))
    for row in times:
        row += np.bincount(rng.integers(0, groups, groups), minlength=groups)
    return times
