"""Rates: the share of hits among pairs or clips that come in clusters (identities), with its interval.

How an interval is made (`Estimate.method` says which one it is):

- 50 identities or more, an estimate within [0.1, 0.9], and wins and losses of 10 identities or more each: percentile
  bootstrap over identities, 10,000 resamples. (Where nearly all are ties it covers 0.92, and all ties have no width.)
- else: the Wilson score interval at an *effective* number of pairs. Wilson at the plain number takes p(1-p) for the
  variance of y; ties make it smaller, and with 30 % ties and more the interval covers 98-100 % instead of 95 %.
  The plain number is kept where it is right: verdicts without ties, one pair per identity.

Both are simulated in tests/judge/test_judge_statistics.py: 94-97 % at 30, 100 and 300 pairs with 15-80 % ties.

Sources: E. B. Wilson, JASA 22 (1927) 209; E. L. Korn and B. I. Graubard, Survey Methodology 24 (1998) 193 (effective
number with t quantiles, there for Clopper-Pearson); N. Dean and M. Pagano, J. Surv. Stat. Methodol. 3 (2015) 484
(Wilson in it); T. Tango, Stat. Med. 17 (1998) 891 (score interval with ties); B. Efron and R. Tibshirani, An
Introduction to the Bootstrap (1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.stats.estimate import LEVEL, Estimate

RESAMPLES = 10_000
FEW_IDENTITIES = 50  # below, and outside [0.1, 0.9], the percentile bootstrap covers too little
LEAST_SIDE = 10  # identities with a win, and with a loss, for the bootstrap


def rate_estimate(
    tops: Sequence[float] | np.ndarray,
    identities: Sequence[str],
    bottoms: Sequence[float] | np.ndarray | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Ratio sum(tops) / sum(bottoms) in [0, 1] with its interval over identities; the mean without `bottoms`.

    The module's text says which interval is made when. With T_c, B_c the sums of cluster c of G, p the ratio:
    V = sum_c (T_c - p B_c)**2 / (sum B)**2 * G / (G - 1), n_eff = p (1 - p) / V * (z / t_{G-1})**2, at most
    n**2 / z**2 + 2 n (what Tango's score interval gives for n ties: no finite sample shows a variance of zero; with G
    for n where V is 0), and G where p is 0 or 1.

    Args:
        tops: float [n], 0 <= top <= bottom.
        identities: the identity of each, [n].
        bottoms: float [n], weights such as 1 where a verdict was decisive.
        level: of confidence.
        resamples, seed: of the bootstrap.

    Raises:
        NotApplicable: nothing to divide by.

    """
    top = np.asarray(tops, dtype=np.float64)
    bottom = np.ones_like(top) if bottoms is None else np.asarray(bottoms, dtype=np.float64)
    used = bottom > 0
    if not used.any():
        raise NotApplicable("No judged pair is there to take a rate of.")
    names, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    # Rounded so that equal sums are equal whatever the order they were added in.
    sums = np.stack([np.bincount(place, w, len(names)) for w in (top, bottom)], axis=1).round(12)
    value = float(np.clip(sums[:, 0].sum() / sums[:, 1].sum(), 0, 1))
    filled = int((sums[:, 1] > 0).sum())
    sides = [len(np.unique(place[used & side])) for side in (2 * top > bottom, 2 * top < bottom)]
    if filled >= FEW_IDENTITIES and 0.1 <= value <= 0.9 and min(sides) >= LEAST_SIDE:
        drawn = resampled_sums(sums, resamples, seed)
        drawn = drawn[drawn[:, 1] > 0]
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
        method = f"percentile bootstrap over {filled} identities, {resamples} resamples, seed {seed}"
    else:
        plain = filled == used.sum() and bool(np.isin(top[used], (0, 1)).all() and (bottom[used] == 1).all())
        number = float(filled) if plain else _effective(sums[sums[:, 1] > 0], int(used.sum()), value, level)
        low, high = wilson(value, number, level)
        method = f"Wilson, n = {filled}" if plain else f"Wilson, effective n = {number:.1f} over {filled} identities"
    return Estimate(value, min(float(low), value), max(float(high), value), int(used.sum()), filled, method)


def wilson(rate: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a rate of n (need not be whole): the p with (rate - p)**2 <= z**2 p (1 - p) / n."""
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _effective(sums: np.ndarray, number: int, value: float, level: float) -> float:
    clusters = len(sums)
    if clusters == 1:
        return 1.0  # one identity says nothing about how identities differ
    if value in (0, 1):
        return float(clusters)
    z = stats.norm.ppf((1 + level) / 2)
    # Rounded: values that are all equal have a variance of 0, not of 1e-33.
    variance = (
        ((sums[:, 0] - value * sums[:, 1]).round(9) ** 2).sum() / sums[:, 1].sum() ** 2 * clusters / (clusters - 1)
    )
    count = clusters if variance == 0 else number
    most = count**2 / z**2 + 2 * count
    shrink = (z / stats.t.ppf((1 + level) / 2, clusters - 1)) ** 2
    return float(min(most, value * (1 - value) / variance * shrink)) if variance > 0 else float(most)


def resampled_sums(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Column sums float [resamples, k] of rows [G, k] drawn with replacement.

    Equal rows are drawn as one kind, by a multinomial number: the same distribution, in time that grows with the
    number of kinds (a handful for verdicts) and not with the number of identities.
    """
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // len(kinds))  # 32 MB at a time
    share = counts / counts.sum()
    sizes = [min(step, resamples - at) for at in range(0, resamples, step)]
    return np.concatenate([rng.multinomial(len(sums), share, size=size) @ kinds for size in sizes])
