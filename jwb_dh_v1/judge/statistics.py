"""Win rates of paired judgements with honest intervals: pure functions, numpy and scipy only.

A judge hears a clip of the system and one of the baseline, and says which is better. The unit is the *pair* (one sample
of one system against one baseline): its y in [0, 1] is the mean of its verdicts (win 1, tie 1/2, loss 0) over orders
and repeats. Pairs of one identity (person) stand or fall together, so intervals resample identities, not pairs
(see `intervals`).

Two fitted models of judgements: Bradley-Terry ratings, and the win rate with covariates held at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import optimize, special, stats
from scipy.sparse import csgraph

from jwb_dh_v1.errors import NotApplicable, SampleError
from jwb_dh_v1.stats.estimate import LEVEL, Estimate
from jwb_dh_v1.stats.rates import rate_estimate
from jwb_dh_v1.stats.significance import sign_flip_test

Outcome = Literal["win", "tie", "loss"]
Order = Literal["system_first", "baseline_first"]
Failures = Literal["drop", "tie", "loss", "win"]

VALUE = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True)
class Judgement:
    """One answer of the judge about one pair.

    Attributes:
        system, baseline: what is compared.
        sample_id, identity_id: the item and the person in it; intervals resample persons.
        outcome: of the system; None when the judge gave no valid answer (blocked, cut off, unreadable ...).
        order: which clip the judge heard first.
        repeat: 0, 1 ... when the same question was asked again.
        score_system, score_baseline: the judge's scores, None if it gave none.
        covariates: system minus baseline of what should not matter, e.g. duration in s, loudness in LU.

    Raises:
        SampleError: unknown outcome or order, or a system against itself.

    """

    system: str
    baseline: str
    sample_id: str
    identity_id: str
    outcome: Outcome | None
    order: Order
    repeat: int = 0
    score_system: float | None = None
    score_baseline: float | None = None
    covariates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in (None, *VALUE):
            raise SampleError(f"The outcome is {self.outcome!r}; give win, tie, loss or None.")
        if self.order not in ("system_first", "baseline_first"):
            raise SampleError(f"The order is {self.order!r}; give system_first or baseline_first.")
        if self.system == self.baseline:
            raise SampleError(f"{self.system!r} is compared with itself, which is 1/2 without a judge.")

    @property
    def first(self) -> int | None:
        """1 if the clip heard first won, -1 if the second, 0 for a tie, None for no answer."""
        if self.outcome is None or self.outcome == "tie":
            return None if self.outcome is None else 0
        return 1 if (self.outcome == "win") == (self.order == "system_first") else -1


@dataclass(frozen=True)
class Pair:
    """One sample of one system against one baseline: shares of its verdicts that are wins and losses."""

    system: str
    baseline: str
    sample_id: str
    identity_id: str
    win: float
    loss: float
    covariates: Mapping[str, float]
    lean: float  # mean over its verdicts of +1/2 (system first) and -1/2 (baseline first); 0 with both orders

    @property
    def y(self) -> float:
        """Ties one half: win + (1 - win - loss) / 2."""
        return 0.5 + (self.win - self.loss) / 2


def pairs_of(judgements: Iterable[Judgement], failures: Failures = "drop") -> list[Pair]:
    """Judgements, averaged per pair; sorted, so that no result depends on the order of the log.

    Args:
        judgements: of one or of several systems.
        failures: what an answer that failed counts as; "drop" leaves it out, and the pair too if it has no other.

    """
    grouped: dict[tuple[str, str, str, str], list[Judgement]] = {}
    for one in judgements:
        grouped.setdefault((one.system, one.baseline, one.sample_id, one.identity_id), []).append(one)
    result = []
    for key, group in sorted(grouped.items()):
        judged = [one for one in group if one.outcome or failures != "drop"]
        if not judged:
            continue
        outcomes = [one.outcome or failures for one in judged]
        result.append(
            Pair(
                *key,
                win=outcomes.count("win") / len(judged),
                loss=outcomes.count("loss") / len(judged),
                covariates=judged[0].covariates,
                lean=sum(0.5 if one.order == "system_first" else -0.5 for one in judged) / len(judged),
            )
        )
    return result


@dataclass(frozen=True)
class WinRate:
    """The win rate of one system against one baseline, and what it stands on.

    Attributes:
        rate: mean of y over pairs, ties one half, in [0, 1]; 1/2 is on a par.
        net: P(win) - P(loss) = 2 rate - 1, in [-1, 1].
        decisive: wins / (wins + losses), None if there are only ties.
        wins, ties, losses, failed: counts of judgements.
        as_losses, as_wins: the rate if every failed judgement had been a loss, or a win.
        failures: what failed judgements count as in the three rates above.

    """

    system: str
    baseline: str
    rate: Estimate
    net: Estimate
    decisive: Estimate | None
    wins: int
    ties: int
    losses: int
    failed: int
    as_losses: Estimate
    as_wins: Estimate
    failures: Failures


def win_rate(judgements: Sequence[Judgement], failures: Failures = "drop", **options: float) -> WinRate:
    """Win rate, net and decisive win rate, and the bounds that failed judgements leave.

    With both orders the *shift* by position cancels within each pair; what a position-bound judge also does, pull the
    rate towards 1/2, stays (see diagnosis.position_bias).

    Args:
        judgements: all of one system against one baseline.
        failures: "drop" (as EmergentTTS-Eval), or what a failed judgement counts as.
        options: level, resamples, seed of `estimate`.

    Raises:
        NotApplicable: no judged pair.
        SampleError: several systems or baselines.

    """
    system, baseline = one_match(judgements)

    def rate(counted: Failures) -> Estimate:
        pairs = pairs_of(judgements, counted)
        return rate_estimate([p.y for p in pairs], [p.identity_id for p in pairs], **options)  # type: ignore[arg-type]

    pairs = pairs_of(judgements, failures)
    headline = rate(failures)
    wins, losses = np.array([p.win for p in pairs]), np.array([p.loss for p in pairs])
    decisive = None
    if (wins + losses).any():
        decisive = rate_estimate(wins, [p.identity_id for p in pairs], wins + losses, **options)  # type: ignore[arg-type]
    outcomes = [one.outcome for one in judgements]
    return WinRate(
        system,
        baseline,
        headline,
        headline.scaled(2, -1),
        decisive,
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
        failed=outcomes.count(None),
        as_losses=rate("loss"),
        as_wins=rate("win"),
        failures=failures,
    )


def one_match(judgements: Sequence[Judgement]) -> tuple[str, str]:
    """System and baseline of judgements that are all about these two.

    Raises:
        NotApplicable: there are none.
        SampleError: there are several.

    """
    found = sorted({(one.system, one.baseline) for one in judgements})
    if not found:
        raise NotApplicable("There are no judgements.")
    if len(found) > 1:
        raise SampleError(f"The judgements are about {len(found)} matches ({found[0]}, {found[1]} ...); give one.")
    return found[0]


@dataclass(frozen=True)
class RateComparison:
    """Win rate of a minus that of b on shared samples, with a two-sided sign-flip p value."""

    a: str
    b: str
    difference: Estimate
    p_value: float
    only_a: int
    only_b: int


def compare(
    judgements: Sequence[Judgement], a: str, b: str, failures: Failures = "drop", **options: float
) -> RateComparison:
    """Two systems, judged against the same baseline, on the samples that both have.

    d = y_a - y_b per sample; its mean with the interval of `estimate` (of (d + 1) / 2, which lies in [0, 1]). The test
    flips the sign of all d of an identity together: under the null hypothesis both signs are equally likely.

    Raises:
        NotApplicable: no shared sample.

    """
    sides: list[dict[tuple[str, str, str], Pair]] = [
        {(p.baseline, p.sample_id, p.identity_id): p for p in pairs_of(judgements, failures) if p.system == name}
        for name in (a, b)
    ]
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        raise NotApplicable(f"{a!r} and {b!r} share no judged sample of one baseline.")
    differences = np.array([sides[0][key].y - sides[1][key].y for key in shared])
    identities = [key[2] for key in shared]
    interval = rate_estimate((differences + 1) / 2, identities, **options)  # type: ignore[arg-type]
    return RateComparison(
        a,
        b,
        interval.scaled(2, -1),
        sign_flip_test(differences, identities, int(options.get("seed", 0))),
        only_a=len(sides[0]) - len(shared),
        only_b=len(sides[1]) - len(shared),
    )


SCALE = 400 / np.log(10)  # points per unit of log odds: 400 points are odds of ten to one, as in chess


@dataclass(frozen=True)
class BradleyTerry:
    """Ratings on the 400 log10 scale, the anchor's fixed.

    Attributes:
        ratings: by system, the best first.
        regularised: a draw was added to each meeting, as some systems never (half) won against the rest.
        resamples_regularised: the share of bootstrap resamples where that was needed.

    """

    ratings: dict[str, Estimate]
    anchor: str
    regularised: bool
    resamples_regularised: float


def bradley_terry(
    judgements: Sequence[Judgement],
    anchor: str,
    *,
    anchor_rating: float = 1000.0,
    level: float = LEVEL,
    resamples: int = 1000,
    seed: int = 0,
) -> BradleyTerry:
    """Maximum likelihood ratings of systems that were judged against each other.

    P(i beats j) = 1 / (1 + 10**((r_j - r_i) / 400)); a pair with y counts as y wins and 1 - y losses (a tie is half of
    each). Interval: percentile bootstrap over identities. The maximum is finite only if every system can be reached
    from every other over wins and ties (L. R. Ford, Am. Math. Mon. 64 (1957) 28); where it cannot, one drawn pair is
    added to each two systems that met. Source of the model: R. A. Bradley and M. E. Terry, Biometrika 39 (1952) 324.

    Args:
        judgements: of all systems; `baseline` is just the other system.
        anchor: the system whose rating is `anchor_rating`.
        anchor_rating, level, resamples, seed: as named.

    Raises:
        NotApplicable: all systems meet one common opponent only (ratings would be a monotone map of the win rates),
            systems without a chain of meetings between them, or an unknown anchor.

    """
    pairs = pairs_of(judgements)
    names = sorted({p.system for p in pairs} | {p.baseline for p in pairs})
    if anchor not in names:
        raise NotApplicable(f"The anchor {anchor!r} is in no judged pair.")
    matches = {frozenset((p.system, p.baseline)) for p in pairs}
    if frozenset.intersection(*matches):
        raise NotApplicable("All systems met one opponent only; ratings say no more than the win rates do.")
    index = {name: i for i, name in enumerate(names)}
    k = len(names)
    identities, place = np.unique([p.identity_id for p in pairs], return_inverse=True)
    wins = np.zeros((len(identities), k, k))
    for p, c in zip(pairs, place, strict=True):
        i, j = index[p.system], index[p.baseline]
        wins[c, i, j] += p.y
        wins[c, j, i] += 1 - p.y
    total = wins.sum(axis=0)
    met = (total + total.T) > 0
    if csgraph.connected_components(met, directed=False)[0] > 1:
        raise NotApplicable("The systems fall into groups that never met; rate each group for itself.")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(identities), np.full(len(identities), 1 / len(identities)), size=resamples)
    sampled = (drawn.astype(np.float64) @ wins.reshape(len(identities), k * k)).reshape(-1, k, k)
    every, added = _fit(np.concatenate([total[None], sampled]), met, index[anchor])
    points = every * SCALE + anchor_rating
    low, high = np.quantile(points[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    method = f"percentile bootstrap over {len(identities)} identities, {resamples} resamples, seed {seed}"
    games = (total + total.T).sum(axis=1).round().astype(int)
    ratings = {
        names[i]: Estimate(float(points[0, i]), float(low[i]), float(high[i]), int(games[i]), len(identities), method)
        for i in np.argsort(-points[0], kind="stable")
    }
    return BradleyTerry(ratings, anchor, bool(added[0]), float(added[1:].mean()))


def _fit(wins: np.ndarray, met: np.ndarray, anchor: int) -> tuple[np.ndarray, np.ndarray]:
    """Log odds float [B, k] with the anchor at 0, and bool [B] where a draw per meeting was added; wins [B, k, k]."""
    k = wins.shape[1]
    reach = (wins > 1e-12) | np.eye(k, dtype=bool)
    for _ in range(int(np.ceil(np.log2(k))) + 1):
        reach = reach.astype(np.float32) @ reach.astype(np.float32) > 0
    added = np.asarray(~reach.all(axis=(1, 2)))
    wins = wins + 0.5 * (added[:, None, None] & met)
    games = wins + wins.transpose(0, 2, 1)
    scores = wins.sum(axis=2)
    free = np.arange(k) != anchor
    theta = np.zeros((len(wins), k))
    for _ in range(200):  # Newton, steps held to 1: the likelihood is concave, so that this cannot run away
        chance = special.expit(theta[:, :, None] - theta[:, None, :])
        gradient = scores - (games * chance).sum(axis=2)
        weight = games * chance * (1 - chance)
        hessian = np.eye(k) * weight.sum(axis=2)[:, :, None] - weight
        step = np.linalg.solve(hessian[:, free][:, :, free], gradient[:, free, None])[..., 0]
        step /= np.maximum(1, np.abs(step).max(axis=1, keepdims=True))
        theta[:, free] += step
        if np.abs(step).max() < 1e-10:
            break
    return theta, added


@dataclass(frozen=True)
class AdjustedRate:
    """The win rate that the fit expects where system and baseline are alike in every covariate.

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


def adjusted_win_rate(
    judgements: Sequence[Judgement], covariates: Sequence[str] = ("duration", "loudness"), *, level: float = LEVEL
) -> AdjustedRate:
    """Win rate at covariate differences of zero, by logistic regression.

    E[y] = expit(b_0 + sum_k b_k x_k), x_k system minus baseline, as in AlpacaEval's length control and the Arena's
    style control; y in [0, 1] (fractional logit: L. E. Papke and J. M. Wooldridge, J. Appl. Econom. 11 (1996) 619).
    Where pairs were heard in one order, position (+1/2 system first, -1/2 baseline first) joins the covariates.
    Interval: the sandwich variance over identities, times G / (G - 1), with t_{G-1} quantiles, on the log odds. It is
    as good as a normal approximation: G of 30 and more. A covariate that never varies is left out; if wins and losses
    can be told apart without error, no finite fit exists, and a penalty of 1/2 b**2 on each standardised coefficient is
    added (said in `method`).

    Raises:
        NotApplicable: too few pairs or identities (fewer than twice the number of coefficients).
        SampleError: several systems or baselines.

    """
    one_match(judgements)
    pairs = pairs_of(judgements)
    known = [p for p in pairs if all(np.isfinite(p.covariates.get(name, np.nan)) for name in covariates)]
    names, design = _design(known, covariates)
    clusters, place = np.unique([p.identity_id for p in known], return_inverse=True)
    if len(clusters) < 2 * design.shape[1]:
        raise NotApplicable(f"{len(clusters)} identities are too few to adjust for {len(names)} covariates.")
    y = np.array([p.y for p in known])
    scale = np.concatenate([[1.0], np.sqrt((design[:, 1:] ** 2).mean(axis=0))])  # not centred: 0 stays 0
    beta, variance, penalised = _logistic(design / scale, y, place, len(clusters))
    half = stats.t.ppf((1 + level) / 2, len(clusters) - 1) * np.sqrt(np.diag(variance))
    method = f"logistic regression, robust over {len(clusters)} identities, t quantile"
    method += ", penalised (separated)" if penalised else ""

    def made(value: float, low: float, high: float) -> Estimate:
        return Estimate(float(value), float(low), float(high), len(known), len(clusters), method)

    rate = made(*special.expit([beta[0], beta[0] - half[0], beta[0] + half[0]]))
    slopes = {
        name: made(*(np.array([beta[k], beta[k] - half[k], beta[k] + half[k]]) / scale[k]))
        for k, name in enumerate(names, 1)
    }
    return AdjustedRate(rate, float(y.mean()), slopes, len(pairs) - len(known), rate.value - float(y.mean()))


def _design(pairs: Sequence[Pair], covariates: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names and columns [n, 1 + k]: ones, then every covariate (and position) that varies."""
    columns = {name: np.array([float(p.covariates[name]) for p in pairs]) for name in covariates}
    columns["position"] = np.array([p.lean for p in pairs])
    varying = {name: column for name, column in columns.items() if len(column) and np.ptp(column) > 1e-12}
    return list(varying), np.stack([np.ones(len(pairs)), *varying.values()], axis=1)


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
