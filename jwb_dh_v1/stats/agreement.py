"""How well a judge agrees with people, and people with each other: pure functions on arrays, numpy and scipy only.

Verdicts are codes: 0 loss, 1 tie, 2 win (of the system). Everything at the level of items is a function of a 3 x 3
table that adds over items, so that intervals need only the tables of the identities (persons):

- raw and decisive agreement are rates: `rates.rate_estimate`.
- kappa and alpha are 1 - D, D the ratio of observed to expected disagreement. log D is close to normal; its variance is
  the jackknife's over identities, with t quantiles, and at least that of a count of k disagreeing identities
  (no finite sample shows a variance of zero). Half an average identity, spread evenly, is added for the interval only.
  Coverage of nominal 95 % in tests/judge/test_judge_agreement.py; the percentile bootstrap misses it.

Systems are compared by their win rates; the interval of a correlation is the percentile bootstrap over identities.

Sources: J. Cohen, Educ. Psychol. Meas. 20 (1960) 37 and Psychol. Bull. 70 (1968) 213 (weights); K. Krippendorff,
Content Analysis (4th ed., 2018) ch. 12; M. G. Kendall, Rank Correlation Methods (4th ed., 1970) (W and tau with ties).

Alpha is our own lines and not the package `krippendorff`: the interval needs it as a function of summed tables, which
the package does not offer. The package is its test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.stats.estimate import LEVEL, Estimate
from jwb_dh_v1.stats.rates import RESAMPLES, rate_estimate, resampled_sums

CODES = {"loss": 0, "tie": 1, "win": 2}
FEW_SYSTEMS = 8
Kind = Literal["spearman", "kendall", "pearson"]
KINDS: tuple[Kind, ...] = ("spearman", "kendall", "pearson")

_STEPS = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))


def kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of tables [..., 3, 3] (rows and columns: two raters); NaN where both know one class only."""
    return _kappa(tables, (_STEPS > 0).astype(float))


def quadratic_kappa(tables: np.ndarray) -> np.ndarray:
    """Kappa where loss against win counts four times loss against tie; NaN as there."""
    return _kappa(tables, _STEPS**2 / 4)


def _kappa(tables: np.ndarray, weights: np.ndarray) -> np.ndarray:
    shares = tables / tables.sum(axis=(-2, -1), keepdims=True)
    expected = shares.sum(axis=-1, keepdims=True) * shares.sum(axis=-2, keepdims=True)
    return _one_minus((weights * shares).sum(axis=(-2, -1)), (weights * expected).sum(axis=(-2, -1)))


def _one_minus(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(expected > 1e-12, 1 - observed / expected, np.nan))


def alpha(tables: np.ndarray) -> np.ndarray:
    """Krippendorff's ordinal alpha of summed `coincidences` [..., 3, 3]; NaN where only one class occurs."""
    counts = tables.sum(axis=-1)
    total = counts.sum(axis=-1)[..., None, None]
    middle = np.cumsum(counts, axis=-1) - counts / 2  # an ordinal step is as far as its values are frequent
    distance = (middle[..., :, None] - middle[..., None, :]) ** 2 / total**2
    expected = counts[..., :, None] * counts[..., None, :] / (total - 1)  # the diagonal has distance 0
    return _one_minus((tables * distance).sum(axis=(-2, -1)), (expected * distance).sum(axis=(-2, -1)))


def coincidences(votes: np.ndarray) -> np.ndarray:
    """Tables [n, 3, 3] of `alpha` from how often an item got each code, int [n, 3]; zeros below two votes."""
    votes = np.asarray(votes, dtype=np.float64)
    number = votes.sum(axis=1)
    pairs = votes[:, :, None] * votes[:, None, :] - votes[:, :, None] * np.eye(3)
    return np.asarray(pairs / np.maximum(number - 1, 1)[:, None, None])


def plurality(votes: np.ndarray) -> np.ndarray:
    """The code with most votes, int [n], of votes [n, 3]; a tie where two or three codes share the most."""
    votes = np.asarray(votes)
    most = votes == votes.max(axis=1, keepdims=True)
    return np.where(most.sum(axis=1) == 1, votes.argmax(axis=1), CODES["tie"])


def corrected(
    tables: np.ndarray, identities: Sequence[str], measure: Callable[[np.ndarray], np.ndarray], level: float = LEVEL
) -> Estimate | None:
    """`kappa`, `quadratic_kappa` or `alpha` of the sum of tables [n, 3, 3], with its interval over identities.

    The module's text says how the interval is made. None where the measure is not defined or there is one identity.
    """
    used = tables.sum(axis=(1, 2)) > 0
    names, place = np.unique(np.asarray(identities, dtype=str)[used], return_inverse=True)
    clusters = len(names)
    sums = np.zeros((clusters, 3, 3))
    np.add.at(sums, place, tables[used])
    value = float(measure(sums.sum(axis=0))) if clusters > 1 else math.nan
    if math.isnan(value):
        return None
    smoothed = sums.sum(axis=0) + 0.5 * sums.sum() / clusters / 9
    left_out = np.log(1 - measure(smoothed - sums))
    jackknife = (clusters - 1) / clusters * float(((left_out - left_out.mean()) ** 2).sum())
    disagreeing = int((np.where(np.eye(3, dtype=bool), 0, sums).sum(axis=(1, 2)) > 0).sum())
    least = (1 - disagreeing / clusters) / (2 * disagreeing + 1)
    half = stats.t.ppf((1 + level) / 2, clusters - 1) * math.sqrt(max(jackknife, least))
    low, high = (1 - (1 - float(measure(smoothed))) * math.exp(sign * half) for sign in (1, -1))
    method = f"jackknife over {clusters} identities, log scale, t quantile"
    return Estimate(value, min(low, value), max(high, value), int(used.sum()), clusters, method)


@dataclass(frozen=True)
class Agreement:
    """Two raters of the same items; n of `raw` is the number of items (or of items x raters where several count).

    Attributes:
        table: counts, rows the first rater (people), columns the second (the judge); loss, tie, win.
        raw: share of equal verdicts.
        decisive: the same among items where neither said tie; None without such items.
        kappa, quadratic: chance-corrected; None where both know one class only.

    """

    table: tuple[tuple[int, int, int], ...]
    raw: Estimate
    decisive: Estimate | None
    kappa: Estimate | None
    quadratic: Estimate | None


def agreement(
    first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray, identities: Sequence[str], **options: float
) -> Agreement:
    """Compare codes [n] of two raters; `options` go to `rates.rate_estimate`.

    Raises:
        NotApplicable: no item.

    """
    a, b = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    tables = np.zeros((len(a), 3, 3))
    tables[np.arange(len(a)), a, b] = 1
    clear = (a != CODES["tie"]) & (b != CODES["tie"])
    level = options.get("level", LEVEL)
    return Agreement(
        tuple((int(row[0]), int(row[1]), int(row[2])) for row in tables.sum(axis=0)),
        rate_estimate(a == b, identities, **options),  # type: ignore[arg-type]
        rate_estimate((a == b) & clear, identities, clear, **options) if clear.any() else None,  # type: ignore[arg-type]
        corrected(tables, identities, kappa, level),
        corrected(tables, identities, quadratic_kappa, level),
    )


def kendall_w(values: np.ndarray) -> float:
    """Kendall's W of values [raters, objects], ranked within each rater, with the correction for ties.

    0: no concordance, 1: all raters rank alike. NaN if no rater tells any two objects apart.
    """
    ranks = stats.rankdata(np.asarray(values, dtype=float).round(12), axis=1)
    raters, objects = ranks.shape
    spread = ((ranks.sum(axis=0) - raters * (objects + 1) / 2) ** 2).sum()
    ties = sum(float((np.unique(row, return_counts=True)[1] ** 3.0).sum()) - objects for row in ranks)
    most = raters**2 * (objects**3 - objects) - raters * ties
    return float(12 * spread / most) if most > 0 else math.nan


def correlation(kind: Kind, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho, Kendall's tau-b or Pearson's r along the last axis; NaN where x or y is constant."""
    x, y = (np.asarray(v, dtype=np.float64).round(12) for v in (x, y))
    if kind == "kendall":
        i, j = np.triu_indices(x.shape[-1], 1)
        a, b = np.sign(x[..., i] - x[..., j]), np.sign(y[..., i] - y[..., j])
    else:
        if kind == "spearman":
            x, y = stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1)
        a, b = (v - v.mean(axis=-1, keepdims=True) for v in (x, y))
    scale = (a**2).sum(axis=-1) * (b**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(scale > 1e-20, (a * b).sum(axis=-1) / np.sqrt(scale), np.nan))


def permutation_p(kind: Kind, x: np.ndarray, y: np.ndarray, seed: int = 0, draws: int = 100_000) -> float:
    """Two-sided p that x and y are unrelated: exact (all orders of y) up to 8 values, else (1 + hits) / (1 + draws)."""
    y = np.asarray(y, dtype=np.float64)
    observed = abs(float(correlation(kind, x, y))) - 1e-9
    if len(y) <= FEW_SYSTEMS:
        drawn = y[np.array(list(itertools.permutations(range(len(y)))))]
        return float(np.mean(np.abs(correlation(kind, np.asarray(x), drawn)) >= observed))
    rng = np.random.default_rng(seed)
    hits, step = 0, 10_000  # a few MB at a time
    for _ in range(draws // step):
        drawn = rng.permuted(np.broadcast_to(y, (step, len(y))), axis=1)
        hits += int(np.sum(np.abs(correlation(kind, np.asarray(x), drawn)) >= observed))
    return (1 + hits) / (1 + draws // step * step)


@dataclass(frozen=True)
class Correlation(Estimate):
    """A coefficient over systems; its interval is about the items (these systems, other items), p about the systems.

    The interval is for the coefficient between rates measured on so many items. Noise of the rates lowers any
    coefficient, and resampling adds noise once more, so that the coefficient of noiseless rates lies above the interval
    more often than 1 time in 40: in simulations with 8 to 12 systems and 50 to 330 persons intervals of nominally 95 %
    held it in 68 to 100 %, and in 12 % with systems in equal steps whose order both sides share (true rank correlation
    of 1). Read a high lower end as good news; a low upper end may be noise.
    """

    p_value: float


@dataclass(frozen=True)
class SystemLevel:
    """Win rates of people and judge, per system on the same items, and how they go together.

    Attributes:
        human, judge: win rate by system ("system vs baseline" if there are several baselines).
        correlations: by kind; empty where one of the two rates all systems alike.
        note: a warning in words, empty with 8 systems or more.

    """

    human: Mapping[str, float]
    judge: Mapping[str, float]
    correlations: Mapping[str, Correlation]
    note: str


def system_level(
    systems: Sequence[str],
    human: Sequence[float],
    judge: Sequence[float],
    identities: Sequence[str],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SystemLevel:
    """Correlate win rates over systems.

    Args:
        systems, identities: of each item, [n].
        human, judge: y in [0, 1] of each item, [n]; ties one half.
        level, resamples, seed: of the percentile bootstrap over identities (each with its items of all systems).

    Raises:
        NotApplicable: fewer than three systems.

    """
    names, system = np.unique(np.asarray(systems, dtype=str), return_inverse=True)
    if len(names) < 3:
        raise NotApplicable(f"A correlation over {len(names)} systems says nothing; rate three or more.")
    people, person = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    sums = np.zeros((len(people), 3, len(names)))
    for row, weights in enumerate((human, judge, np.ones(len(system)))):
        np.add.at(sums[:, row], (person, system), np.asarray(weights, dtype=np.float64))
    total = sums.sum(axis=0)
    x, y = total[0] / total[2], total[1] / total[2]
    drawn = resampled_sums(sums.reshape(len(people), -1).round(12), resamples, seed).reshape(-1, 3, len(names))
    drawn = drawn[(drawn[:, 2] > 0).all(axis=1)]
    found: dict[str, Correlation] = {}
    for kind in KINDS:
        value = float(correlation(kind, x, y))
        if math.isnan(value):
            continue
        every = correlation(kind, drawn[:, 0] / drawn[:, 2], drawn[:, 1] / drawn[:, 2])
        every = every[np.isfinite(every)]
        low, high = np.quantile(every, [(1 - level) / 2, (1 + level) / 2]) if len(every) else (-1.0, 1.0)
        method = (
            f"percentile bootstrap over {len(people)} identities, {len(every)} resamples, seed {seed}; noise of the "
            "rates, which lowers it, is not corrected for"
        )
        p_value = permutation_p(kind, x, y, seed)
        ends = min(float(low), value), max(float(high), value)
        found[kind] = Correlation(value, *ends, len(system), len(people), method, p_value)
    note = ""
    if len(names) < FEW_SYSTEMS:
        best = 2 / math.factorial(len(names))
        note = (
            f"With {len(names)} systems a rank correlation is nearly uninformative: "
            f"the smallest two-sided p that it can reach is {best:.2g}."
        )
    rates = [dict(zip(map(str, names), map(float, v), strict=True)) for v in (x, y)]
    return SystemLevel(rates[0], rates[1], found, note)
