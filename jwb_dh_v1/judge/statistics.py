"""Win rates of paired judgements with honest intervals: pure functions, numpy and scipy only.

A judge hears a clip of the system and one of the baseline, and says which is better. The unit is the *pair* (one sample
of one system against one baseline): its y in [0, 1] is the mean of its verdicts (win 1, tie 1/2, loss 0) over orders
and repeats. Pairs of one identity (person) stand or fall together, so intervals resample identities, not pairs
(see `stats.rates`).

Two fitted models of them are in `stats.rating_models`; here judgements become its arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from jwb_dh_v1.errors import NotApplicable, SampleError
from jwb_dh_v1.stats import rating_models
from jwb_dh_v1.stats.estimate import LEVEL, Estimate
from jwb_dh_v1.stats.rates import rate_estimate
from jwb_dh_v1.stats.rating_models import AdjustedRate, BradleyTerry
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


def bradley_terry(judgements: Sequence[Judgement], anchor: str, **options: float) -> BradleyTerry:
    """Ratings of systems that were judged against each other, see `rating_models.bradley_terry`.

    Args:
        judgements: of all systems; `baseline` is just the other system.
        anchor: the system whose rating is fixed.
        options: anchor_rating, level.

    Raises:
        NotApplicable: as there.

    """
    pairs = pairs_of(judgements)
    first, second = [p.system for p in pairs], [p.baseline for p in pairs]
    return rating_models.bradley_terry(first, second, [p.y for p in pairs], [p.identity_id for p in pairs], anchor,
                                       **options)  # fmt: skip


def adjusted_win_rate(
    judgements: Sequence[Judgement], covariates: Sequence[str] = ("duration", "loudness"), *, level: float = LEVEL
) -> AdjustedRate:
    """Win rate where system and baseline are alike in every covariate, see `rating_models.adjusted_rate`.

    Where pairs were heard in one order, position (+1/2 system first, -1/2 baseline first) joins the covariates.

    Raises:
        NotApplicable: too few pairs or identities (fewer than twice the number of coefficients).
        SampleError: several systems or baselines.

    """
    one_match(judgements)
    pairs = pairs_of(judgements)
    columns = {name: [p.covariates.get(name, np.nan) for p in pairs] for name in covariates}
    columns["position"] = [p.lean for p in pairs]
    return rating_models.adjusted_rate([p.y for p in pairs], columns, [p.identity_id for p in pairs], level=level)
