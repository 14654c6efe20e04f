"""The two forms of the Fréchet distance for more rows than dimensions, against closed forms and 50 digits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from jwb_dh_v1.errors import SampleError
from jwb_dh_v1.metrics import feature_statistics as state
from jwb_dh_v1.metrics.feature_statistics import UNIT, FeatureStatistics, frechet_distance


def summed(rows):
    """The state of float rows with the sums in it, as those of many rows are."""
    kept = FeatureStatistics.of(rows)
    return FeatureStatistics(kept.n, None, (), *kept.sums())


def with_sums(second, n=2001):
    """A state of n rows of mean 0 whose sum of products is this, int64 [d, d] in units of 2**-32."""
    return FeatureStatistics(n, None, (), np.zeros(len(second), np.int64), second)


D = 96


@pytest.fixture
def forms(monkeypatch):
    """Names of the forms that were taken, in order; 96 dimensions are wide here."""
    taken = []
    monkeypatch.setattr(state, "WIDE", D)
    for name in ("_product_by_root", "_product_by_factor"):
        real = getattr(state, name)

        def watched(*covariances, name=name, real=real):
            taken.append(name)
            return real(*covariances)

        monkeypatch.setattr(state, name, watched)
    return taken


def exact(a, b):
    """The distance from the whole numbers of two states, in 50 digits."""
    with mpmath.workdps(50):
        sides = []
        for side in (a, b):
            first, second = side.sums()
            mean = mpmath.matrix([mpmath.mpf(int(v)) / (side.n * UNIT) for v in first])
            moment = mpmath.matrix([[mpmath.mpf(int(v)) for v in row] for row in second]) / UNIT**2
            sides.append((mean, (moment - side.n * mean * mean.T) / (side.n - 1)))
        (mean_a, cov_a), (mean_b, cov_b) = sides
        roots = sum(mpmath.sqrt(mpmath.re(v)) for v in mpmath.eig(cov_a * cov_b, left=False, right=False))
        trace = sum(cov_a[i, i] + cov_b[i, i] for i in range(cov_a.rows))
        return float(mpmath.norm(mean_a - mean_b) ** 2 + trace - 2 * roots)


def kinds(kind, rng, n, d):
    """Rows of a kind of covariance."""
    rows = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    if kind == "near-singular":
        rows[:, 1:] = rows[:, :1] + 1e-3 * rows[:, 1:]
    if kind == "badly scaled":
        rows = rng.normal(size=(n, d)) * np.logspace(-2, 2, d)
    return rows


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["plain", "near-singular", "badly scaled"]),
    st.integers(2, 5),
    st.sampled_from([2, 3, 40]),
    st.integers(0, 2**32 - 1),
)
def test_both_forms_equal_fifty_digits(kind, d, more, seed):
    """From n = d + 2 rows on, one more than a covariance of full rank needs."""
    rng = np.random.default_rng(seed)
    a, b = (summed(kinds(kind, rng, d + more, d) + shift) for shift in (0, 0.5))
    expected = exact(a, b)
    cov_a, cov_b = a.covariance(), b.covariance()
    gap = a.mean() - b.mean()
    # Eigenvalues are good to some 10 eps of the product's norm; the root of one that is far smaller is good to the
    # root of that, the others far better.
    size = np.sqrt(np.linalg.norm(cov_a, 2) * np.linalg.norm(cov_b, 2))
    bound = (1e-11 if kind == "plain" and more == 40 else d * 1e-7) * size + 1e-12 * gap @ gap
    for form in (state._product_by_root, state._product_by_factor):
        products = form(cov_a, cov_b)
        assert products is not None
        roots = np.sqrt(np.clip(products, 0, None)).sum()
        assert gap @ gap + np.trace(cov_a + cov_b) - 2 * roots == pytest.approx(expected, abs=bound)


def test_wide_diagonal_covariances(monkeypatch, forms):
    """At the real width. The sum of (sqrt(a) - sqrt(b))^2, from the very numbers that stand on the diagonals."""
    monkeypatch.setattr(state, "WIDE", 1024)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(2**33, 2**43, 1024) for _ in range(2))  # variances of 0.001 to 1
    expected = np.square(np.sqrt(a / 2000) - np.sqrt(b / 2000)).sum() / UNIT**2
    assert frechet_distance(with_sums(np.diag(a)), with_sums(np.diag(b))) == pytest.approx(expected, rel=1e-12)
    assert forms == ["_product_by_factor"]


@pytest.mark.parametrize("more", [2, 1000])
def test_wide_covariances_of_which_one_is_four_times_the_other(more, forms):
    """tr C (1 - 2)^2, also where the rows are two more than the dimensions and C's condition is beyond 1e4."""
    rows = np.random.default_rng(1).normal(size=(D + more, D))
    side = FeatureStatistics.of(rows)
    centred = side.second - np.rint(np.outer(side.first, side.first) / side.n).astype(np.int64)
    found = frechet_distance(with_sums(centred, side.n), with_sums(4 * centred, side.n))
    expected = np.trace(centred) / (side.n - 1) / UNIT**2
    # As above: 1e-16 of the largest eigenvalue (16 times 4) under the root for the few smallest.
    assert found == pytest.approx(expected, rel=1e-10)
    assert forms == ["_product_by_factor"]


def test_wide_distance_equals_the_matrix_square_root(forms):
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(D, D)) / np.sqrt(D)
    rows = [rng.normal(size=(300, D)), rng.normal(size=(500, D)) @ mix + 0.1]
    covs = [np.cov(x, rowvar=False) for x in rows]
    gap = rows[0].mean(axis=0) - rows[1].mean(axis=0)
    # tr (AB)^(1/2) = tr (L^T A L)^(1/2), whose root is taken by Denman and Beavers' iteration: no eigenvalues in it.
    factor = np.linalg.cholesky(covs[1])
    expected = gap @ gap + np.trace(covs[0] + covs[1]) - 2 * np.trace(root_by_iteration(factor.T @ covs[0] @ factor))
    # The rows are rounded to 2**-16: an error of 4e-6 per feature, averaged over 300 rows and 96 dimensions.
    assert frechet_distance(*(FeatureStatistics.of(x) for x in rows)) == pytest.approx(expected, rel=1e-6)
    assert forms == ["_product_by_factor"]


def root_by_iteration(matrix):
    """The square root of a positive definite matrix by scaled products of inverses (Denman, Beavers 1976)."""
    root, inverse = matrix, np.eye(len(matrix))
    for _ in range(60):
        scale = np.exp(-(np.linalg.slogdet(root)[1] + np.linalg.slogdet(inverse)[1]) / (2 * len(matrix)))
        step = (scale * root + linalg.inv(scale * inverse)) / 2, (scale * inverse + linalg.inv(scale * root)) / 2
        done = np.linalg.norm(step[0] - root) < 1e-12 * np.linalg.norm(root)
        root, inverse = step
        if done:
            break
    return root


def test_below_the_width_nothing_changed(forms):
    """Sets of 64 expression coefficients and 400 logits keep their last digits."""
    rng = np.random.default_rng(3)
    a, b = (with_sums(np.diag(rng.integers(2**33, 2**43, D - 1))) for _ in range(2))
    frechet_distance(a, b)
    assert forms == ["_product_by_root"]


def test_a_dimension_that_never_moves(monkeypatch, forms):
    """A singular covariance has no factor; the other form gives the number, and the same as without the dimension."""
    monkeypatch.setattr(state, "WIDE", 4)
    rng = np.random.default_rng(4)
    rows = [rng.normal(size=(50, 6)), 2 * rng.normal(size=(60, 6))]
    expected = frechet_distance(*(summed(np.delete(x, 2, axis=1)) for x in rows))
    forms.clear()
    rows[1][:, 2] = rows[0][:, 2] = 0.0
    assert frechet_distance(*(summed(x) for x in rows)) == pytest.approx(expected, rel=1e-12)
    assert forms == ["_product_by_factor", "_product_by_root"]


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_moments_of_many_rows_at_once_are_those_of_single_rows(scale):
    """The sums of whole numbers in float64 are exact whatever the cut: at 300 a run holds 23 rows, at 1 all."""
    rows = np.random.default_rng(5).normal(size=(100, 7)) * scale
    whole = FeatureStatistics.of(rows)
    parts = [FeatureStatistics.of(row[None]) for row in rows]
    joined = sum(parts[1:], parts[0])
    assert whole.rows is None
    assert np.array_equal(whole.first, joined.first) and np.array_equal(whole.second, joined.second)
    expected = np.rint(rows * UNIT).astype(np.int64)
    assert np.array_equal(whole.first, expected.sum(axis=0))  # int64 adds exactly
    assert whole.first.dtype == whole.second.dtype == np.int64
    assert parts[0].rows.dtype == np.int64


def test_a_feature_beyond_every_whole_number_is_refused():
    for bad in (1e6, -1e6, 1e300):
        with pytest.raises(SampleError, match="too large for exact sums"):
            FeatureStatistics.of(np.vstack([np.zeros((5, 2)), [[0.0, bad]]]))
