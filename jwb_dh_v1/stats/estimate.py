"""A number with its interval: the one type for it in the package."""

from __future__ import annotations

from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the number.
        low, high: ends of the interval; None where no interval is known to cover what it says.
        n: what the number is a mean of (clips, pairs, verdicts).
        clusters: independent groups among them: identities, nearly always.
        method: how the interval was made and what it covers; `none: ` and the reason where there is none.

    """

    value: float
    low: float | None
    high: float | None
    n: int
    clusters: int
    method: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends.

        Raises:
            ValueError: there is no interval.

        """
        found = self.interval
        if found is None:
            raise ValueError(f"There is no interval ({self.method}).")
        return found

    def scaled(self, factor: float, shift: float) -> Estimate:
        """The estimate of factor * x + shift, factor > 0."""
        value = factor * self.value + shift
        low, high = (None if x is None else factor * x + shift for x in (self.low, self.high))
        return Estimate(value, low, high, self.n, self.clusters, self.method)
