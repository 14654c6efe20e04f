"""Paired differences that come in clusters (identities): their mean with its interval, a test, and numbers needed.

The interval is that of `means.mean_estimate` with the differences' range, which says what is made when; differences of
rates (hits, misses, one of two hands) get the interval of a rate with ties, which is never of width 0.

Coverage of 95 % intervals in simulation (2,000 draws of 1 to 3 clips per identity, half of the variance between
identities; two systems whose scores are correlated; `pytest tests/stats/test_coverage.py --run-slow -s` prints it):

| identities | normal | exponential | lognormal (1.2) | rates 0.5, 0.5 | 0.95, 0.9 | 0.99, 0.95 |
|---|---|---|---|---|---|---|
| 2 | none | none | none | 1.000 | 1.000 | 1.000 |
| 4 | 0.992 | 0.960 | none | 0.992 | 1.000 | 1.000 |
| 6 | 0.979 | 0.970 | 0.920 | 0.975 | 1.000 | 1.000 |
| 10 | 0.977 | 0.964 | 0.914 | 0.965 | 0.995 | 0.999 |
| 30 | 0.976 | 0.973 | 0.938 | 0.950 | 0.961 | 0.993 |
| 100 | 0.979 | 0.984 | 0.964 | 0.951 | 0.952 | 0.933 |

Below 0.93 are word error rates of 6 and 10 identities (lognormal) and, with other seeds (0.92), the last of the rates,
which differ in a few clips of a hundred.
(Student's t at 95 % covers 0.87 of exponential and 0.79 of lognormal differences at 4 identities, and 0.34 of rates.)

The test is `significance.sign_flip_test`, exact up to 16 identities if differences are symmetric about 0 where
there is no effect, as they are when two equal systems change places. Of exponential differences of mean 0, which are
not, it calls 0.045 significant at 6 identities, 0.073 at 10, 0.052 at 30 and 0.059 at 100; of the mixture 0.032 to
0.064. tests/stats/test_paired.py holds these figures.

Sources: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 12.5; A. C. Cameron, J. B. Gelbach and
D. L. Miller, Rev. Econ. Stat. 90 (2008) 414 (few clusters); J. Cohen, Statistical Power Analysis (1988), 2.3.5 (dz).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.means import RESAMPLES, ROUND_OFF, at_three_points, mean_estimate, standard_error
from jwb_dh_v1.stats.significance import DRAWS, flip, smallest_p

FEW_IDENTITIES = 10  # for percentile intervals
NOTHING_SHARED = "no clip has a score in both"
POWER = 0.8
ALPHA = 0.05


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference: an estimate over clips, each counted once, with its test.

    Attributes:
        p, test: two-sided sign-flip test over identities and how it was made; None where there is none.
        smallest_p: what the test could give at best with so many identities whose clips differ (2**(1 - G) where it
            is exact; 1 where none does).
        dz: Cohen's dz, mean / standard deviation (n - 1) of the differences over clips; 0 where no clip differs,
            infinite where all differ by the same amount; None for differences of sets.
        above: share of clips with a positive difference, and half of those with none (probability of superiority);
            None for differences of sets.
        spread: standard error of the value times sqrt(G): standard deviation of one identity's contribution, for the
            number of identities needed. None with one identity.

    """

    p: float | None
    test: str
    smallest_p: float
    dz: float | None
    above: float | None
    spread: float | None


def paired(
    ours: Sequence[float] | np.ndarray,
    theirs: Sequence[float] | np.ndarray,
    identities: Sequence[str],
    bounds: tuple[float | None, float | None] = (None, None),
    *,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    noun: str = "identities",
) -> Difference | str:
    """Mean of ours - theirs with its interval and test; a sentence where there is none to take.

    Args:
        ours, theirs: float [n], one per clip, in the same order.
        identities: the person of each clip, [n].
        bounds: the range of `ours` and `theirs`; None or infinite where there is no bound.
        draws: random signs of the test beyond 16 identities.
        resamples, seed: of the bootstrap.
        noun: what `identities` are, for `method` and `test`.

    """
    x, y = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if len(x) == 0:
        return NOTHING_SHARED
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return "infinite values have no mean difference"
    d = without_round_off(x - y, x, y)
    names, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    sums, counts = np.bincount(place, d), np.bincount(place).astype(np.float64)
    low, high = (-math.inf if bounds[0] is None else bounds[0], math.inf if bounds[1] is None else bounds[1])
    reach = high - low if math.isfinite(low) and math.isfinite(high) else math.inf
    rates = math.isfinite(reach) and at_three_points(np.concatenate([x, y]), low, high)
    found = mean_estimate(d, identities, bounds=(-reach, reach), few_valued=rates, open_ended=math.isinf(high),
                          resamples=resamples, seed=seed, noun=noun)  # fmt: skip
    spread = standard_error(sums, counts) * math.sqrt(len(names)) if len(names) > 1 else None
    value = found.value
    p, test = flip(d, identities, draws, seed, noun)
    sd = float(d.std(ddof=1)) if len(d) > 1 else math.nan
    dz = None
    if len(d) > 1:
        # A standard deviation of rounding errors is none.
        dz = 0.0 if not d.any() else value / sd if sd > ROUND_OFF * abs(value) else math.copysign(math.inf, value)
    above = float(np.mean((d > 0) + 0.5 * (d == 0)))
    # Flipping the sign of 0 changes nothing, so that only identities that differ make the test's p small.
    differ = int(np.count_nonzero(np.abs(sums) > 1e-12 * np.abs(d).max(initial=0)))
    best = smallest_p(differ, draws)
    return Difference(value, found.low, found.high, len(d), len(names), found.method, p, test, best, dz, above, spread)


def without_round_off(d: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """Differences with those set to 0 that are nothing but rounding of the values."""
    largest = max([1.0, *(float(np.abs(v).max(initial=0)) for v in values)])
    return np.where(np.abs(d) <= ROUND_OFF * largest, 0.0, d)


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
