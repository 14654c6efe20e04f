"""Statistics of paired differences that come in clusters (identities); numpy and scipy only.

How an interval is made (`Difference.method` says which one it is), for G identities:

- 6 and more: the wider of Student's t with G - 1 degrees of freedom on the cluster-robust standard error, and
  bootstrap-t over identities, at each end. For the latter whole identities are drawn with replacement, and the
  studentised mean (m* - m) / se* is read at 2.5 % and 97.5 %. Where more than 1 % of the draws have no spread (few
  distinct values) t stands alone.
- 2 to 5: Student's t. It covers only if the mean differences of identities are roughly normal; no method can do
  without an assumption on so few.
- 1: none.

Coverage in simulation (2,000 draws of three clips per identity, half of the variance between identities; differences
normal, exponential, Student's t with 3 degrees of freedom, or a mixture of a normal and an exponential), 95 % stated:

| identities | t alone | bootstrap-t alone | the wider of both | its width against t's |
|---|---|---|---|---|
| 4 | 0.915-0.962 | 0.931-0.952 | not used | 1.7-2.1 |
| 6 | 0.919-0.957 | 0.935-0.939 | 0.950-0.971 | 1.2-1.3 |
| 10 | 0.927-0.954 | 0.924-0.942 | 0.950-0.968 | 1.1-1.2 |
| 30 | 0.934-0.957 | 0.931-0.953 | 0.950-0.963 | 1.03-1.09 |
| 100 | 0.945-0.964 | 0.933-0.953 | 0.941-0.956 | 1.01-1.05 |

The lowest are those of skewed differences; the plain percentile interval has 79 % at 4 identities and 91 % at 10.
Hall's correction for skewness does what bootstrap-t does; the inverted sign-flip test does no better than t.

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
from jwb_dh_v1.stats.means import RESAMPLES, ROUND_OFF, interval
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
    value = float(d.mean())
    low, high, spread, method = interval(sums, counts, resamples=resamples, seed=seed, noun=noun)
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
    return Difference(value, low, high, len(d), len(names), method, p, test, best, dz, above, spread)


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
