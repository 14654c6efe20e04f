"""What a metric knows after some samples. States add, so one sample, a resumed run and a cluster are one operation.

Addition is exact, therefore associative to the last bit: `Mean` and `Rate` add fractions, `Frechet`
(`feature_statistics.py`) whole numbers. The cut of a dataset into shards can change no number.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from jwb_dh_v1.errors import NotFinite
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet


@dataclass(frozen=True)
class Mean:
    """The mean of one number per clip part: exact sum and count. Infinite numbers are counted apart."""

    total: Fraction = Fraction(0)
    n: int = 0
    infinite: int = 0

    @classmethod
    def of(cls, number: float) -> Mean:
        """The state of one number; +inf (the PSNR of equal frames) makes the mean infinite.

        Raises:
            NotFinite: the number is NaN or -inf.

        """
        number = float(number)
        if math.isnan(number) or number == -math.inf:
            raise NotFinite(f"The metric gave {number}.")
        if number == math.inf:
            return cls(Fraction(0), 1, 1)
        return cls(Fraction(number), 1)

    def __add__(self, other: Mean) -> Mean:
        """Merge."""
        return Mean(self.total + other.total, self.n + other.n, self.infinite + other.infinite)

    def value(self) -> float:
        """The mean, correctly rounded; infinite when a number was."""
        if self.n == 0:
            return math.nan
        return math.inf if self.infinite else float(self.total / self.n)

    def pack(self) -> dict[str, np.ndarray]:
        """Arrays of the state."""
        ratio = json.dumps([self.total.numerator, self.total.denominator])
        return {"mean": np.array(ratio), "counts": np.array([self.n, self.infinite])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Mean:
        """The inverse of `pack`."""
        numerator, denominator = json.loads(str(arrays["mean"]))
        return cls(Fraction(numerator, denominator), *(int(c) for c in arrays["counts"]))


WORD_COUNTS = ("substitutions", "deletions", "insertions", "units", "by_character", "unheard", "hallucinations")


@dataclass(frozen=True)
class WordErrorState(Mean):
    """Word errors: the mean of the clips' rates, and beside it what the rates are made of.

    A `Mean` may be added, which stands for clips of which only a rate is known.

    Attributes:
        reference_wer: the rates of the real clips, heard in the same way.
        substitutions, deletions, insertions, units: sums; units are the words (characters) of the transcripts.
        by_character: clips whose units are characters.
        unheard: clips in which no word was heard; they count as all deletions, a rate of 1.
        hallucinations: clips whose recogniser seems to have looped.

    """

    reference_wer: Mean = Mean()
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    units: int = 0
    by_character: int = 0
    unheard: int = 0
    hallucinations: int = 0

    def __add__(self, other: Mean) -> WordErrorState:
        """Merge."""
        rates = super().__add__(other)
        theirs = other if isinstance(other, WordErrorState) else WordErrorState()
        counts = (getattr(self, name) + getattr(theirs, name) for name in WORD_COUNTS)
        return WordErrorState(rates.total, rates.n, rates.infinite, self.reference_wer + theirs.reference_wer, *counts)

    @property
    def micro(self) -> float:
        """All errors over all units: long clips count more. `nan` without a unit."""
        errors = self.substitutions + self.deletions + self.insertions
        return errors / self.units if self.units else math.nan

    @property
    def produced(self) -> float:
        """The mean over the clips in which a word was heard; `nan` where there is none."""
        heard = self.n - self.unheard
        return float((self.total - self.unheard) / heard) if heard else math.nan

    def pack(self) -> dict[str, np.ndarray]:
        """Arrays of the state."""
        packed = super().pack() | {"words": np.array([getattr(self, name) for name in WORD_COUNTS])}
        return packed | {f"floor.{key}": array for key, array in self.reference_wer.pack().items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> WordErrorState:
        """The inverse of `pack`."""
        rates = Mean.from_arrays(arrays)
        reference_wer = Mean.from_arrays({k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("floor.")})
        return cls(rates.total, rates.n, rates.infinite, reference_wer, *(int(c) for c in arrays["words"]))


@dataclass(frozen=True)
class Rate:
    """A share: hits out of total, and the number n of clip parts they come from."""

    hits: int = 0
    total: int = 0
    n: int = 0

    @classmethod
    def of(cls, hits: int, total: int = 1) -> Rate:
        """The state of one clip part."""
        return cls(int(hits), int(total), 1)

    def __add__(self, other: Rate) -> Rate:
        """Merge."""
        return Rate(self.hits + other.hits, self.total + other.total, self.n + other.n)

    def value(self) -> float:
        """Hits per total."""
        return self.hits / self.total if self.total else math.nan

    def pack(self) -> dict[str, np.ndarray]:
        """Arrays of the state."""
        return {"rate": np.array([self.hits, self.total, self.n])}


State = Mean | WordErrorState | Rate | Frechet


def add(a: State | None, b: State) -> State:
    """`a + b`, or `b` where there is nothing yet."""
    if a is None:
        return b
    if type(a) is not type(b):
        raise TypeError(f"{type(a).__name__} and {type(b).__name__} are states of different metrics")
    if isinstance(a, Mean) and isinstance(b, Mean):
        return a + b
    if isinstance(a, Rate) and isinstance(b, Rate):
        return a + b
    assert isinstance(a, Frechet) and isinstance(b, Frechet)
    return a + b


def unpack(arrays: dict[str, np.ndarray]) -> State:
    """The state that `pack` described."""
    if "words" in arrays:
        return WordErrorState.from_arrays(arrays)
    if "mean" in arrays:
        return Mean.from_arrays(arrays)
    if "rate" in arrays:
        return Rate(*(int(c) for c in arrays["rate"]))
    sides = {
        name: FeatureStatistics.from_arrays(
            {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(name + ".")}
        )
        for name in ("generated", "reference")
    }
    return Frechet(sides["generated"], sides["reference"], int(arrays["frechet"]))
