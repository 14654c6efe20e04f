"""Statistics of paired differences that come in clusters (identities); numpy and scipy only.

How an interval is made (`Difference.method` says which one it is), for G identities:

- 10 and more: bootstrap-t over identities. Whole identities are drawn with replacement, and the studentised mean
  (m* - m) / se* is read at 2.5 % and 97.5 %. The plain percentile interval is too narrow here: 79 % at 4 identities,
  91 % at 10, 94 % at 30 instead of 95 %. Where more than 1 % of the draws have no spread (few distinct values) the
  next one takes its place.
- 2 to 9: Student's t with G - 1 degrees of freedom on the cluster-robust standard error. It covers only if the mean
  differences of identities are roughly normal; no method can do without an assumption on so few.
- 1: none.

Simulated in tests/test_compare.py. The test is `judge.intervals.sign_flip_test`, exact up to 16 identities.

Sources: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 12.5; A. C. Cameron, J. B. Gelbach and
D. L. Miller, Rev. Econ. Stat. 90 (2008) 414 (few clusters); J. Cohen, Statistical Power Analysis (1988), 2.3.5 (dz).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from jwb_dh_v1.judge.intervals import sign_flip_test

RESAMPLES = 4000
DRAWS = 20_000  # of random signs
FEW_IDENTITIES = 10
NOTHING_SHARED = "no clip has a score in both"
NO_DIFFERENCE = "no clip differs"
ROUND_OFF = 1e-9  # relative to the values (at least to 1): differences below are no differences
POWER = 0.8
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """A mean paired difference.

    Attributes:
        value: mean over clips, each counted once.
        low, high: 95 % interval, None where `method` says that there is none.
        p, test: two-sided sign-flip test over identities and how it was made; None where there is none.
        smallest_p: what the test could give at best with so many identities (2**(1 - G) where it is exact).
        dz: Cohen's dz, mean / standard deviation (n - 1) of the differences over clips; 0 where no clip differs,
            infinite where all differ by the same amount; None for differences of sets.
        above: share of clips with a positive difference, and half of those with none (probability of superiority);
            None for differences of sets.
        spread: standard error of the value times sqrt(G): standard deviation of one identity's contribution, for the
            number of identities needed. None with one identity.
        n, identities: clips and identities (or groups of them) it is over.

    """

    value: float
    low: float | None
    high: float | None
    method: str
    p: float | None
    test: str
    smallest_p: float
    dz: float | None
    above: float | None
    spread: float | None
    n: int
    identities: int


def paired(
    ours: Sequence[float] | np.ndarray,
    theirs: Sequence[float] | np.ndarray,
    identities: Sequence[str],
    *,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference | str:
    """Mean of ours - theirs with its interval and test; a sentence where there is none to take.

    Args:
        ours, theirs: float [n], one per clip, in the same order.
        identities: the person of each clip, [n].
        draws: random signs of the test beyond 16 identities.
        resamples, seed: of the bootstrap.

    """
    x, y = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if len(x) == 0:
        return NOTHING_SHARED
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return "infinite values have no mean difference"
    d = without_round_off(x - y, x, y)
    names, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    sums, counts = np.bincount(place, d), np.bincount(place).astype(np.float64)
    value = float(d.mean())
    low, high, spread, method = interval(sums, counts, resamples=resamples, seed=seed)
    p, test = flip(d, identities, draws, seed)
    sd = float(d.std(ddof=1)) if len(d) > 1 else math.nan
    dz = None
    if len(d) > 1:
        # A standard deviation of rounding errors is none.
        dz = 0.0 if not d.any() else value / sd if sd > ROUND_OFF * abs(value) else math.copysign(math.inf, value)
    above = float(np.mean((d > 0) + 0.5 * (d == 0)))
    best = smallest_p(len(names), draws)
    return Difference(value, low, high, method, p, test, best, dz, above, spread, len(d), len(names))


def without_round_off(d: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """Differences with those set to 0 that are nothing but rounding of the values."""
    largest = max([1.0, *(float(np.abs(v).max(initial=0)) for v in values)])
    return np.where(np.abs(d) <= ROUND_OFF * largest, 0.0, d)


def interval(
    sums: np.ndarray, counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float | None, float | None, float | None, str]:
    """95 % interval of sum(sums) / sum(counts): low, high, spread (see `Difference`), method.

    With e_c = S_c - m n_c, the standard error is sqrt(G / (G - 1) * sum e_c**2) / sum n_c.

    Args:
        sums, counts: float [G], sum of differences and number of clips of each identity.
        resamples, seed: of the bootstrap; without resamples it is Student's t.

    """
    groups = len(sums)
    if groups < 2:
        return None, None, None, "none: one identity says nothing about others"
    total = counts.sum()
    mean = sums.sum() / total
    error = math.sqrt(groups / (groups - 1) * float(np.square(sums - mean * counts).sum())) / total
    spread = error * math.sqrt(groups)
    if error <= ROUND_OFF * abs(mean):
        return float(mean), float(mean), float(spread), f"no spread over {groups} identities"
    if groups >= FEW_IDENTITIES and resamples:
        columns = np.stack([sums, counts, sums * sums, sums * counts, counts * counts], axis=1)
        drawn = times_drawn(groups, resamples, seed) @ columns
        means = drawn[:, 0] / drawn[:, 1]
        squares = drawn[:, 2] - 2 * means * drawn[:, 3] + means**2 * drawn[:, 4]
        errors = np.sqrt(np.clip(squares, 0, None) * groups / (groups - 1)) / drawn[:, 1]
        spreads = errors > 1e-6 * error
        if spreads.mean() >= 0.99:
            low, high = np.quantile((means[spreads] - mean) / errors[spreads], [0.025, 0.975])
            method = f"bootstrap-t over {groups} identities, {resamples} resamples, seed {seed}"
            return float(mean - high * error), float(mean - low * error), float(spread), method
    half = float(stats.t.ppf(0.975, groups - 1)) * error
    return float(mean - half), float(mean + half), float(spread), f"Student's t over {groups} identities"


@lru_cache(maxsize=2)
def times_drawn(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of some identities is in each resample, float64 [resamples, groups]."""
    rng = np.random.default_rng(seed)
    times = np.zeros((resamples, groups))
    for row in times:
        row += np.bincount(rng.integers(0, groups, groups), minlength=groups)
    return times


def flip(differences: np.ndarray, identities: Sequence[str], draws: int, seed: int = 0) -> tuple[float, str]:
    """p of `sign_flip_test` in units of the largest difference, and how it was made."""
    largest = float(np.abs(differences).max(initial=0))
    if largest == 0:
        return 1.0, NO_DIFFERENCE
    p = sign_flip_test(differences / largest, identities, seed, draws)
    groups = len(set(identities))
    return p, f"sign flips of {groups} identities, " + ("exact" if groups <= 16 else f"{draws} draws, seed {seed}")


def smallest_p(identities: int, draws: int = DRAWS) -> float:
    """The smallest p that sign flips of so many identities can give: both signs of all differences alike."""
    return 2.0 ** (1 - identities) if identities <= 16 else 1 / (1 + draws)


def power(effect: float, n: float, alpha: float = ALPHA) -> float:
    """Power of a two-sided paired t test: chance of p < alpha with n differences of mean / sd = effect."""
    centre, edge = abs(effect) * math.sqrt(n), float(stats.t.ppf(1 - alpha / 2, n - 1))
    tails = np.array([stats.nct.sf(edge, n - 1, centre), stats.nct.cdf(-edge, n - 1, centre)])
    # scipy gives nan for tails too thin for it: far from the centre the upper one is all there is.
    return float(np.where(np.isnan(tails), (float(centre > edge), 0.0), tails).sum())


def needed(effect: float, alpha: float = ALPHA, wanted: float = POWER) -> int | None:
    """The least number of differences of mean / sd = effect with which the test has the wanted power.

    At least as many as the exact sign-flip test needs for p <= alpha at all (6 for 0.05). None for no effect.
    """
    least = math.ceil(1 - math.log2(alpha))
    if effect == 0 or math.isnan(effect):
        return None
    low, high = 1, least
    while power(effect, high, alpha) < wanted:
        low, high = high, 2 * high
        if high > 10**9:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, middle, alpha) < wanted else (low, middle)
    return max(high, least)
