"""What clips without a score do to a mean: the three policies that have been used on this benchmark.

`strict`: they are left out, and their number stands beside the score. `zero`: they count as 0 where higher is better
(the authors' rule for the six VBench dimensions: a missing crop, an undetected face and a crash are all 0). `worst`:
they count as 0 where higher is better and as the worst clip where lower is (the authors' rule for Open-Sora 2's other
six metrics). A distance between whole sets has no per-clip values to fill in, and stays `strict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.state import Mean, Rate, State

Policy = Literal["strict", "zero", "worst"]
POLICIES: tuple[Policy, ...] = ("strict", "zero", "worst")


def imputed_value(policy: Policy, higher_is_better: bool, worst: float | None) -> float | None:
    """The value that a clip without a score gets, or None where it is left out.

    Args:
        policy: of the module's three.
        higher_is_better: direction of the metric.
        worst: the worst value there is, for `worst` where lower is better.

    """
    if policy == "strict" or (policy == "zero" and not higher_is_better):
        return None
    return 0.0 if higher_is_better else worst


def impute(state: State, lost: int, value: float | None) -> State:
    """A state with so many more clips of one value (a rate: of no hit). Without a value nothing changes."""
    if value is None or lost == 0 or isinstance(state, Frechet):
        return state
    if isinstance(state, Rate):
        return state + Rate(0, lost, lost)
    return state + Mean(Fraction(value) * lost, lost)


def aggregate(
    values: Sequence[float], lost: int, policy: Policy, higher_is_better: bool, worst: float | None = None
) -> Mean:
    """The mean of some clips' scores and of those that have none.

    Args:
        values: float [n], the scores there are.
        lost: number of clips without one.
        policy: what these count as.
        higher_is_better: direction of the metric.
        worst: the worst value there is; by default that of `values`.

    """
    total = sum((Mean.of(value) for value in values), Mean())
    if worst is None and values:
        worst = min(values) if higher_is_better else max(values)
    filled = impute(total, lost, imputed_value(policy, higher_is_better, worst))
    assert isinstance(filled, Mean)
    return filled
