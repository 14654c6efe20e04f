"""What a metric knows after some samples. States add, so one sample, a resumed run and a cluster are one operation.

Addition is exact, therefore associative to the last bit: `Mean` and `Rate` add fractions, `FeatureStatistics` adds
whole numbers (features in units of 2**-16). The cut of a dataset into shards can change no number.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import linalg

from jwb_dh_v1.errors import NotFinite, SampleError

# Features are rounded to multiples of 2**-16 = 1.5e-5 (a uniform error of variance 2e-11 per dimension: 2e-8 in a
# FID of 1280 dimensions), so that their products are multiples of 2**-32 and sums of them are exact in int64 up to
# 2**62: 200 million frames of features that reach 2, a million of features that reach 30.
UNIT = 2**16

# Dimensions from which on a faster form of the Fréchet distance pays (`frechet_distance`).
WIDE = 1024


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
        floor: the rates of the real clips, heard in the same way.
        substitutions, deletions, insertions, units: sums; units are the words (characters) of the transcripts.
        by_character: clips whose units are characters.
        unheard: clips in which no word was heard; they count as all deletions, a rate of 1.
        hallucinations: clips whose recogniser seems to have looped.

    """

    floor: Mean = Mean()
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
        return WordErrorState(rates.total, rates.n, rates.infinite, self.floor + theirs.floor, *counts)

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
        return packed | {f"floor.{key}": array for key, array in self.floor.pack().items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> WordErrorState:
        """The inverse of `pack`."""
        rates = Mean.from_arrays(arrays)
        floor = Mean.from_arrays({k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("floor.")})
        return cls(rates.total, rates.n, rates.infinite, floor, *(int(c) for c in arrays["words"]))


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


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """First and second moments of d-dimensional features, summed exactly.

    While there are at most d rows the rows themselves are kept (smaller than d x d, and enough for an exact
    small-sample distance and a jackknife); above that the sums. Which of the two depends on the total alone.

    Attributes:
        rows: int64 [n, d] in units of 2**-16, or None once n > d.
        groups: one label per row (identity), for the jackknife; empty once n > d.
        first, second: int64 [d], [d, d], sums in units of 2**-16 and 2**-32; None while rows are kept.

    """

    n: int
    rows: np.ndarray | None = None
    groups: tuple[str, ...] = ()
    first: np.ndarray | None = None
    second: np.ndarray | None = None

    @classmethod
    def of(cls, features: np.ndarray, group: str = "") -> FeatureStatistics:
        """The state of one clip part's features, float [n, d].

        Raises:
            NotFinite: a feature is NaN or infinite.

        """
        if not np.isfinite(features).all():
            raise NotFinite("A feature is NaN or infinite.")
        rows = np.rint(np.asarray(features, np.float64) * UNIT)
        return cls._shaped(len(rows), rows, (group,) * len(rows))

    @classmethod
    def _shaped(cls, n: int, rows: np.ndarray, groups: tuple[str, ...]) -> FeatureStatistics:
        if n <= rows.shape[1]:
            return cls(n, rows.astype(np.int64, copy=False), groups)
        return cls(n, None, (), *_sums(rows))

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """Merge; exact, so that order and grouping do not matter."""
        n = self.n + other.n
        if self.rows is not None and other.rows is not None:
            return self._shaped(n, np.concatenate([self.rows, other.rows]), self.groups + other.groups)
        (f1, s1), (f2, s2) = self.sums(), other.sums()
        return FeatureStatistics(n, None, (), f1 + f2, _exact(s1 + s2))

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and sum of outer products in units of 2**-16 and 2**-32."""
        if self.rows is not None:
            return _sums(self.rows)
        assert self.first is not None and self.second is not None
        return self.first, self.second

    def mean(self) -> np.ndarray:
        """float64 [d]."""
        first = self.first if self.rows is None else self.rows.sum(axis=0)
        assert first is not None
        return first / self.n / UNIT

    def covariance(self) -> np.ndarray:
        """float64 [d, d], unbiased (n - 1), as numpy.cov."""
        first, second = self.sums()
        mean = first / self.n
        return (second - self.n * np.outer(mean, mean)) / (self.n - 1) / UNIT**2

    def pack(self) -> dict[str, np.ndarray]:
        """Arrays of the state."""
        if self.rows is not None:
            return {"rows": self.rows, "groups": np.array(self.groups, dtype=str)}
        first, second = self.sums()
        return {"n": np.array(self.n), "first": first, "second": second}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> FeatureStatistics:
        """The inverse of `pack`."""
        if "rows" in arrays:
            return cls(len(arrays["rows"]), arrays["rows"], tuple(arrays["groups"].tolist()))
        return cls(int(arrays["n"]), None, (), arrays["first"], arrays["second"])


def _sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and sum of outer products of rows of whole numbers (int64 or float64), exactly, as int64.

    Products go through float64, whose matrix product is fast, in runs of rows whose sums stay below 2**53: whole
    numbers there, so that every order of summation gives the same bits. The runs are added as int64.
    """
    peaks = np.maximum(-rows.min(axis=1, initial=0), rows.max(axis=1, initial=0))
    if peaks.max(initial=0) >= 2**26.5:
        raise SampleError(f"A feature is beyond {2**26.5 / UNIT:.0f}, too large for exact sums.")
    largest = np.square(peaks.astype(np.float64))  # bounds every product of its row
    first = np.zeros(rows.shape[1], np.int64)
    second = np.zeros((rows.shape[1], rows.shape[1]), np.int64)
    at = 0
    while at < len(rows):
        fitting = int(np.searchsorted(np.cumsum(largest[at:]), 2**53))
        part = rows[at : at + max(1, fitting)].astype(np.float64, copy=False)
        first += part.sum(axis=0).astype(np.int64)  # a whole number is at most its square: below 2**53, too
        second += (part.T @ part).astype(np.int64)
        at += len(part)
    return first, _exact(second)


def _exact(second: np.ndarray) -> np.ndarray:
    # The diagonal bounds every entry (Cauchy-Schwarz). Two sums below 2**62 do not wrap around.
    if second.diagonal().max(initial=0) >= 2**62:
        raise SampleError("The features are too many for exact sums; score the set in parts.")
    return second


@dataclass(frozen=True)
class Frechet:
    """Statistics of generated and of reference features; the value is the Fréchet distance of their Gaussians."""

    generated: FeatureStatistics
    reference: FeatureStatistics
    n: int = 1

    def __add__(self, other: Frechet) -> Frechet:
        """Merge both sides."""
        return Frechet(self.generated + other.generated, self.reference + other.reference, self.n + other.n)

    def value(self) -> float:
        """The squared Fréchet distance; `nan` with fewer than two features on a side."""
        return frechet_distance(self.generated, self.reference)

    def without(self, groups: frozenset[str]) -> Frechet:
        """The state without some groups (identities); only while rows are kept on both sides."""
        sides = []
        for side in (self.generated, self.reference):
            if side.rows is None:
                raise ValueError("rows are no longer kept")
            keep = np.array([group not in groups for group in side.groups], dtype=bool)
            sides.append(
                FeatureStatistics(int(keep.sum()), side.rows[keep], tuple(g for g in side.groups if g not in groups))
            )
        return Frechet(sides[0], sides[1])

    def pack(self) -> dict[str, np.ndarray]:
        """Arrays of the state."""
        packed = {"frechet": np.array(self.n)}
        for name, side in (("generated", self.generated), ("reference", self.reference)):
            packed |= {f"{name}.{key}": array for key, array in side.pack().items()}
        return packed


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), covariances with n - 1 (Heusel et al. 2017).

    With rows on both sides the trace of the root is the nuclear norm of the n_a x n_b Gram matrix of centred rows,
    which is exact for few samples; else it is the sum of the roots of the eigenvalues of C_a C_b. These come from a
    symmetric matrix of the same eigenvalues: below 1024 dimensions by the root of C_a, from there on by the Cholesky
    factor of C_b, three times faster. (Both are right to about 1e-12 of the traces where the covariances have full
    rank, but not to the same bits; so each width keeps to one form. A C_b without a factor takes the root of C_a.)
    """
    if a.n < 2 or b.n < 2:
        return math.nan
    gap = a.mean() - b.mean()
    if a.rows is not None and b.rows is not None:
        x, y = (_centred(side.rows) for side in (a, b) if side.rows is not None)
        gram = x @ y.T
        traces = float((x * x).sum() + (y * y).sum())
        # Equal rows leave round-off of 1e-14 relative; a distance is not negative.
        return max(0.0, float(gap @ gap) + traces - 2 * float(linalg.svdvals(gram).sum()))
    cov_a, cov_b = a.covariance(), b.covariance()
    traces = np.trace(cov_a) + np.trace(cov_b)
    products = _product_by_factor(cov_a, cov_b) if len(cov_a) >= WIDE else None
    if products is None:
        products = _product_by_root(cov_a, cov_b)
    return max(0.0, float(gap @ gap + traces - 2 * np.sqrt(np.clip(products, 0, None)).sum()))


def _product_by_root(cov_a: np.ndarray, cov_b: np.ndarray) -> np.ndarray:
    """Eigenvalues of C_a C_b as those of R C_b R with R R = C_a, float64 [d]."""
    values, vectors = linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    found: np.ndarray = linalg.eigvalsh(root @ cov_b @ root)
    return found


def _product_by_factor(cov_a: np.ndarray, cov_b: np.ndarray) -> np.ndarray | None:
    """Eigenvalues of C_a C_b as those of L^T C_a L with L L^T = C_b, float64 [d]; None where C_b has no factor."""
    # LAPACK wants columns in a row; the transpose of a symmetric matrix is that without a copy.
    factor, failed = linalg.lapack.dpotrf(cov_b.T, lower=1)
    if failed:
        return None
    inner, _ = linalg.lapack.dsygst(cov_a.T, factor, itype=2, lower=1)
    # The driver "ev" goes from tridiagonal to eigenvalues by QR, which needs half the time of the default here.
    found: np.ndarray = linalg.eigvalsh(inner, lower=True, overwrite_a=True, check_finite=False, driver="ev")
    return found


def _centred(rows: np.ndarray) -> np.ndarray:
    centred = rows / UNIT
    return (centred - centred.mean(axis=0)) / math.sqrt(len(rows) - 1)  # type: ignore[no-any-return]


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
