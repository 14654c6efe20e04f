"""Statistics of features and the Fréchet distance of two sets of them, with an interval over identities.

Sums are exact, therefore associative to the last bit: features are whole numbers in units of 2**-16.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import linalg

from jwb_dh_v1.errors import NotFinite, SampleError
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.jackknife import grouped, jackknife_estimate

# Features are rounded to multiples of 2**-16 = 1.5e-5 (a uniform error of variance 2e-11 per dimension: 2e-8 in a
# FID of 1280 dimensions), so that their products are multiples of 2**-32 and sums of them are exact in int64 up to
# 2**62: 200 million frames of features that reach 2, a million of features that reach 30.
UNIT = 2**16

# For the interval of sets with more rows than dimensions, rows of some identities are kept beside the sums: at most
# 2**21 numbers a side (8 MB: 1,024 rows of FID's 2,048, 32,768 of E-FID's 64), at most 16 rows of a clip part.
SUBSET = 2**21
PER_PART = 16

# Dimensions from which on a faster form of the Fréchet distance pays (`frechet_distance`).
WIDE = 1024


@dataclass(frozen=True, eq=False)
class Subset:
    """Rows of the identities whose names have the smallest hashes, as many identities as fit.

    Whole identities are kept or left out, whatever order and cut the rows come in: merging is exact.

    Attributes:
        rows: int32 [m, d] in units of 2**-16.
        people: uint64 [m], the hash of each row's identity; all are below `limit`.
        limit: the smallest hash of an identity that was left out; 2**64 where none was.
        everyone: uint64 [G], the hashes of all identities, sorted.

    """

    rows: np.ndarray
    people: np.ndarray
    limit: int
    everyone: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, groups: tuple[str, ...] | list[str]) -> Subset:
        """The subset of rows [m, d] with the identity of each."""
        people = np.array([_hash(group) for group in groups], np.uint64)
        return cls(rows.astype(np.int32), people, 2**64, np.unique(people))._fitted()

    def __add__(self, other: Subset) -> Subset:
        """Merge."""
        rows, people = np.concatenate([self.rows, other.rows]), np.concatenate([self.people, other.people])
        return Subset(rows, people, min(self.limit, other.limit), np.union1d(self.everyone, other.everyone))._fitted()

    def _fitted(self) -> Subset:
        """Without the identities from the first on with which the rows are too many."""
        names, counts = np.unique(self.people, return_counts=True)
        beyond = names[np.cumsum(counts) > SUBSET // self.rows.shape[1]]
        limit = min([self.limit, *(int(name) for name in beyond[:1])])
        return self if len(names) == 0 or int(names[-1]) < limit else self.below(limit)

    def below(self, limit: int) -> Subset:
        """Only identities of smaller hashes."""
        keep = np.array([int(person) < limit for person in self.people], bool)
        return Subset(self.rows[keep], self.people[keep], limit, self.everyone)

    def statistics(self) -> FeatureStatistics:
        """The rows' statistics, with hashes for names."""
        return FeatureStatistics(len(self.rows), self.rows.astype(np.int64), tuple(str(p) for p in self.people))


@lru_cache(maxsize=100_000)
def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """First and second moments of d-dimensional features, summed exactly.

    While there are at most d rows the rows themselves are kept (smaller than d x d, and enough for an exact
    small-sample distance); above that the sums, and some rows for the interval. Which depends on the total alone.

    Attributes:
        rows: int64 [n, d] in units of 2**-16, or None once n > d.
        groups: one label per row (identity), for the jackknife; empty once n > d.
        first, second: int64 [d], [d, d], sums in units of 2**-16 and 2**-32; None while rows are kept.
        thin: bool [n], the (at most 16, evenly spaced) rows of each clip part that a subset takes; None once n > d, and
            in shards of 0.1.0.
        subset: some of the rows once n > d; None in shards of 0.1.0.

    """

    n: int
    rows: np.ndarray | None = None
    groups: tuple[str, ...] = ()
    first: np.ndarray | None = None
    second: np.ndarray | None = None
    thin: np.ndarray | None = None
    subset: Subset | None = None

    @classmethod
    def of(cls, features: np.ndarray, group: str = "") -> FeatureStatistics:
        """The state of one clip part's features, float [n, d].

        Raises:
            NotFinite: a feature is NaN or infinite.

        """
        if not np.isfinite(features).all():
            raise NotFinite("A feature is NaN or infinite.")
        rows = np.rint(np.asarray(features, np.float64) * UNIT)
        thin = np.zeros(len(rows), bool)
        thin[np.linspace(0, len(rows) - 1, min(PER_PART, len(rows))).astype(int)] = True
        return cls._shaped(len(rows), rows, (group,) * len(rows), thin)

    @classmethod
    def _shaped(cls, n: int, rows: np.ndarray, groups: tuple[str, ...], thin: np.ndarray | None) -> FeatureStatistics:
        if n <= rows.shape[1]:
            return cls(n, rows.astype(np.int64, copy=False), groups, thin=thin)
        return cls(n, None, (), *_sums(rows), subset=_subset(rows, groups, thin))

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """Merge; exact, so that order and grouping do not matter."""
        n = self.n + other.n
        if self.rows is not None and other.rows is not None:
            thin = None if self.thin is None or other.thin is None else np.concatenate([self.thin, other.thin])
            return self._shaped(n, np.concatenate([self.rows, other.rows]), self.groups + other.groups, thin)
        (f1, s1), (f2, s2) = self.sums(), other.sums()
        ours, theirs = (s.subset if s.rows is None else _subset(s.rows, s.groups, s.thin) for s in (self, other))
        both = ours + theirs if ours and theirs else None
        return FeatureStatistics(n, None, (), f1 + f2, _exact(s1 + s2), subset=both)

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and sum of outer products in units of 2**-16 and 2**-32."""
        if self.rows is not None:
            return _sums(self.rows)
        assert self.first is not None and self.second is not None
        return self.first, self.second

    def strangers(self, people: Collection[str]) -> list[str]:
        """Identities (or, once rows are summed up, their hashes) that are not among these people."""
        if self.rows is not None:
            return sorted(set(self.groups) - set(people))
        known = {_hash(name) for name in people}
        return [] if self.subset is None else [f"{p:016x}" for p in self.subset.everyone.tolist() if p not in known]

    def covers(self, people: Collection[str]) -> bool:
        """Whether exactly these identities have rows; in shards of 0.1.0, whose sums do not tell, always."""
        if self.rows is not None:
            return set(self.groups) == set(people)
        return self.subset is None or set(self.subset.everyone.tolist()) == {_hash(name) for name in people}

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
            packed = {"rows": self.rows, "groups": np.array(self.groups, dtype=str)}
            return packed if self.thin is None else packed | {"thin": self.thin}
        first, second = self.sums()
        packed = {"n": np.array(self.n), "first": first, "second": second}
        if self.subset:
            packed |= {f"subset.{name}": getattr(self.subset, name) for name in ("rows", "people", "everyone")}
            packed["subset.limit"] = np.array(str(self.subset.limit))
        return packed

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> FeatureStatistics:
        """The inverse of `pack`."""
        if "rows" in arrays:
            return cls(len(arrays["rows"]), arrays["rows"], tuple(arrays["groups"].tolist()), thin=arrays.get("thin"))
        subset = None
        if "subset.rows" in arrays:
            rows, people, everyone = (arrays[f"subset.{name}"] for name in ("rows", "people", "everyone"))
            subset = Subset(rows, people, int(str(arrays["subset.limit"])), everyone)
        return cls(int(arrays["n"]), None, (), arrays["first"], arrays["second"], subset=subset)


def _subset(rows: np.ndarray, groups: tuple[str, ...], thin: np.ndarray | None) -> Subset | None:
    if thin is None or not groups:
        return None
    return Subset.of(rows[thin], [group for group, kept in zip(groups, thin, strict=True) if kept])


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
            left = tuple(g for g in side.groups if g not in groups)
            sides.append(FeatureStatistics._shaped(int(keep.sum()), side.rows[keep], left, None))
        return Frechet(sides[0], sides[1])

    def estimate(self) -> Estimate:
        """The distance with a 95 % interval: Student's t on the jackknife over groups of identities.

        It covers the expected distance between sets of this size, whose bias it does not see. While rows are kept all
        identities are left out in turn. Once they are not, those of the subset are, whose standard error is scaled by
        sqrt(identities in it / all); 16 rows of a clip instead of all make it a little wider.
        """
        value, n = self.value(), self.n
        part, scale, rest = self, 1.0, ""
        if self.generated.rows is None or self.reference.rows is None:
            kept = kept_rows([self])
            if kept is None:
                return Estimate(value, None, None, n, 0, "none: the shards are of version 0.1.0, which kept sums only")
            (part,), scale, rest = kept
        groups = grouped(part.generated.groups)
        left = [part.without(group).value() for group in groups]
        sizes = [sum(label in group for label in part.generated.groups) for group in groups]
        whole = part.without(frozenset()).value()
        people = len(set(part.generated.groups))
        found = jackknife_estimate(whole, left, sizes, n=n, clusters=people, scale=scale, note=rest)
        if found.interval is None:
            return replace(found, value=value)
        half = (found.ends[1] - found.ends[0]) / 2
        return replace(found, value=value, low=max(0.0, value - half), high=value + half)

    def pack(self) -> dict[str, np.ndarray]:
        """Arrays of the state."""
        packed = {"frechet": np.array(self.n)}
        for name, side in (("generated", self.generated), ("reference", self.reference)):
            packed |= {f"{name}.{key}": array for key, array in side.pack().items()}
        return packed


def kept_rows(states: Sequence[Frechet]) -> tuple[list[Frechet], float, str] | None:
    """Of states whose rows are summed up, those of the identities whose rows all of them still keep.

    Returns:
        The states of these rows, with hashes for names; sqrt(these identities / all), by which a standard error over
        them becomes that over all; and words for `Estimate.method`, empty where these are all. None for states of
        version 0.1.0.

    """
    sides = [side for state in states for side in (state.generated, state.reference)]
    subsets = [s.subset if s.rows is None else _subset(s.rows, s.groups, s.thin) for s in sides]
    known = [subset for subset in subsets if subset]
    if len(known) < len(sides):
        return None
    limit = min(subset.limit for subset in known)
    rows = [subset.below(limit).statistics() for subset in known]
    kept, everyone = len(set(rows[0].groups)), len(known[0].everyone)
    parts = [Frechet(rows[i], rows[i + 1], state.n) for i, state in zip(range(0, len(rows), 2), states, strict=True)]
    return parts, math.sqrt(kept / everyone), f", {kept} of {everyone} identities" if kept < everyone else ""


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
