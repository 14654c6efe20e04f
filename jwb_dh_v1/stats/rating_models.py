"""Two fitted models of paired verdicts: Bradley-Terry ratings, and the win rate with covariates held at zero.

Both have intervals by the sandwich variance over identities, times G / (G - 1), with Student's t of G - 1 degrees of
freedom on the log odds. Coverage of the ratings' 95 % intervals in simulation (three and four systems in a round robin
of one pair per identity and match, 800 draws): 0.99-1.00 at 4 identities (none in 2 and 10 % of the draws), 0.97-0.98
at 6, 0.97 at 10, 0.96 at 30, 0.96-0.97 at 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special
from scipy.sparse import csgraph

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.stats.estimate import LEVEL, Estimate
from jwb_dh_v1.stats.means import students_t

SCALE = 400 / np.log(10)  # points per unit of log odds: 400 points are odds of ten to one, as in chess
LEAST_IDENTITIES = 4  # for the ratings' intervals


@dataclass(frozen=True)
class BradleyTerry:
    """Ratings on the 400 log10 scale, the anchor's fixed.

    Attributes:
        ratings: by system, the best first.
        regularised: a draw was added to each meeting, as some systems never (half) won against the rest.

    """

    ratings: dict[str, Estimate]
    anchor: str
    regularised: bool


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    y: Sequence[float],
    identities: Sequence[str],
    anchor: str,
    *,
    anchor_rating: float = 1000.0,
    level: float = LEVEL,
) -> BradleyTerry:
    """Maximum likelihood ratings of systems that were compared with each other.

    P(i beats j) = 1 / (1 + 10**((r_j - r_i) / 400)); a pair with y counts as y wins and 1 - y losses (a tie is half of
    each). The maximum is finite only if every system can be reached from every other over wins and ties (L. R. Ford,
    Am. Math. Mon. 64 (1957) 28); where it cannot, one drawn pair is added to each two systems that met, and there is no
    interval. Source of the model: R. A. Bradley and M. E. Terry, Biometrika 39 (1952) 324.

    Args:
        first, second: the two systems of each pair, [n].
        y: share of wins of the first, 0..1, [n].
        identities: the person of each pair, [n].
        anchor: the system whose rating is `anchor_rating`.
        anchor_rating, level: as named.

    Raises:
        NotApplicable: all systems meet one common opponent only (ratings would be a monotone map of the win rates),
            systems without a chain of meetings between them, or an unknown anchor.

    """
    names = sorted({*first, *second})
    if anchor not in names:
        raise NotApplicable(f"The anchor {anchor!r} is in no judged pair.")
    if frozenset.intersection(*(frozenset(pair) for pair in zip(first, second, strict=True))):
        raise NotApplicable("All systems met one opponent only; ratings say no more than the win rates do.")
    index = {name: i for i, name in enumerate(names)}
    k = len(names)
    people, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    groups = len(people)
    wins = np.zeros((groups, k, k))
    i, j = (np.array([index[name] for name in side]) for side in (first, second))
    np.add.at(wins, (place, i, j), np.asarray(y, np.float64))
    np.add.at(wins, (place, j, i), 1 - np.asarray(y, np.float64))
    total = wins.sum(axis=0)
    met = (total + total.T) > 0
    if csgraph.connected_components(met, directed=False)[0] > 1:
        raise NotApplicable("The systems fall into groups that never met; rate each group for itself.")
    reached = csgraph.connected_components(total > 1e-12, directed=True, connection="strong")[0] == 1
    free = np.arange(k) != index[anchor]
    theta, bend = _fit(total if reached else total + 0.5 * met, free)
    points = theta * SCALE + anchor_rating
    reason = ""
    if not reached:
        reason = "none: some systems never won against the rest"
    elif groups < LEAST_IDENTITIES:
        reason = f"none: {groups} identities are too few for an interval that covers"
    half = np.zeros(k)
    if not reason:
        chance = special.expit(theta[:, None] - theta[None, :])
        scores = (wins - (wins + wins.transpose(0, 2, 1)) * chance).sum(axis=2)[:, free]
        bread = np.linalg.inv(bend)
        variance = bread @ (scores.T @ scores) @ bread * groups / (groups - 1)
        variances = np.diag(variance)
        if variances.min() <= 1e-12:
            reason = "none: the identities do not differ"
        half[free] = students_t(groups, level) * np.sqrt(np.maximum(variances, 0)) * SCALE
    method = f"robust over {groups} identities, Student's t"
    games = (total + total.T).sum(axis=1).round().astype(int)
    ratings = {}
    for at in np.argsort(-points, kind="stable"):
        value, n = float(points[at]), int(games[at])
        if not free[at]:
            found = Estimate(value, value, value, n, groups, "fixed: the anchor")
        elif reason:
            found = Estimate(value, None, None, n, groups, reason)
        else:
            found = Estimate(value, value - float(half[at]), value + float(half[at]), n, groups, method)
        ratings[names[at]] = found
    return BradleyTerry(ratings, anchor, not reached)


def _fit(wins: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log odds float [k], 0 where not free, and the Hessian of the free ones, of wins [k, k]."""
    games = wins + wins.T
    scores = wins.sum(axis=1)
    theta = np.zeros(len(wins))
    for _ in range(200):  # Newton, steps held to 1: the likelihood is concave, so that this cannot run away
        chance = special.expit(theta[:, None] - theta[None, :])
        weight = games * chance * (1 - chance)
        bend = (np.diag(weight.sum(axis=1)) - weight)[np.ix_(free, free)]
        step = np.linalg.solve(bend, (scores - (games * chance).sum(axis=1))[free])
        theta[free] += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    return theta, bend


@dataclass(frozen=True)
class AdjustedRate:
    """The win rate that the fit expects where all covariates are 0: system and baseline are alike in them.

    Attributes:
        rate: expit(intercept), with a cluster-robust interval.
        raw: mean of y of the same pairs, for comparison.
        slopes: per covariate, log odds per unit of the covariate, with intervals.
        left_out: pairs without all of the covariates.
        shift: rate - raw; beyond 0.1 look at the covariates before the rate.

    """

    rate: Estimate
    raw: float
    slopes: dict[str, Estimate]
    left_out: int
    shift: float


def adjusted_rate(
    y: Sequence[float],
    covariates: Mapping[str, Sequence[float]],
    identities: Sequence[str],
    *,
    level: float = LEVEL,
) -> AdjustedRate:
    """Mean of y at covariates of zero, by logistic regression.

    E[y] = expit(b_0 + sum_k b_k x_k), x_k system minus baseline, as in AlpacaEval's length control and the Arena's
    style control; y in [0, 1] (fractional logit: L. E. Papke and J. M. Wooldridge, J. Appl. Econom. 11 (1996) 619).
    The interval is as good as a normal approximation: G of 30 and more. A covariate that never varies is left out; if
    wins and losses can be told apart without error, no finite fit exists, and a penalty of 1/2 b**2 on each
    standardised coefficient is added (said in `method`).

    Args:
        y: float [n], 0..1.
        covariates: by name, float [n]; pairs with a NaN are left out.
        identities: the person of each pair, [n].
        level: of confidence.

    Raises:
        NotApplicable: too few pairs or identities (fewer than twice the number of coefficients).

    """
    columns = {name: np.asarray(column, np.float64) for name, column in covariates.items()}
    known = np.isfinite(np.stack(list(columns.values()), axis=1)).all(axis=1) if columns else np.ones(len(y), bool)
    used = np.asarray(y, np.float64)[known]
    varying = {n: c[known] for n, c in columns.items() if known.any() and np.ptp(c[known]) > 1e-12}
    design = np.stack([np.ones(len(used)), *varying.values()], axis=1)
    people, place = np.unique(np.asarray(identities, dtype=str)[known], return_inverse=True)
    groups = len(people)
    if groups < 2 * design.shape[1]:
        raise NotApplicable(f"{groups} identities are too few to adjust for {len(varying)} covariates.")
    scale = np.concatenate([[1.0], np.sqrt((design[:, 1:] ** 2).mean(axis=0))])  # not centred: 0 stays 0
    beta, variance, penalised = _logistic(design / scale, used, place, groups)
    half = students_t(groups, level) * np.sqrt(np.diag(variance))
    method = f"logistic regression, robust over {groups} identities, t quantile"
    method += ", penalised (separated)" if penalised else ""

    def made(value: float, low: float, high: float) -> Estimate:
        return Estimate(float(value), float(low), float(high), len(used), groups, method)

    rate = made(*special.expit([beta[0], beta[0] - half[0], beta[0] + half[0]]))
    slopes = {
        name: made(*(np.array([beta[k], beta[k] - half[k], beta[k] + half[k]]) / scale[k]))
        for k, name in enumerate(varying, 1)
    }
    return AdjustedRate(rate, float(used.mean()), slopes, int((~known).sum()), rate.value - float(used.mean()))


def _logistic(x: np.ndarray, y: np.ndarray, place: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Coefficients [k], their cluster-robust covariance [k, k], and whether a penalty was needed."""
    for penalty in (0.0, 1.0):

        def loss(b: np.ndarray, penalty: float = penalty) -> float:
            z = x @ b
            return float(np.logaddexp(0, z).sum() - y @ z + penalty / 2 * b @ b)

        def slope(b: np.ndarray, penalty: float = penalty) -> np.ndarray:
            return np.asarray(x.T @ (special.expit(x @ b) - y) + penalty * b)

        def bend(b: np.ndarray, penalty: float = penalty) -> np.ndarray:
            p = special.expit(x @ b)
            return np.asarray(x.T @ (x * (p * (1 - p))[:, None]) + penalty * np.eye(len(b)))

        start = np.zeros(x.shape[1])
        beta = optimize.minimize(loss, start, jac=slope, hess=bend, method="trust-exact", options={"gtol": 1e-8}).x
        if np.abs(x @ beta).max() < 15 and np.linalg.cond(bend(beta)) < 1e10:
            break
    chance = special.expit(x @ beta)
    bread = np.linalg.inv(bend(beta))
    scores = np.zeros((clusters, x.shape[1]))
    np.add.at(scores, place, x * (y - chance)[:, None])
    variance = bread @ (scores.T @ scores) @ bread * clusters / (clusters - 1)
    return beta, variance, penalty > 0
