"""States add exactly: the laws that make shards, resume and clusters one operation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from jwb_dh_v1.errors import NotFinite, SampleError
from jwb_dh_v1.metrics.feature_statistics import UNIT, FeatureStatistics, Frechet, frechet_distance
from jwb_dh_v1.metrics.state import Mean, Rate, WordErrorState, add, unpack

numbers = st.floats(-1e6, 1e6, allow_nan=False)
means = st.lists(numbers | st.just(math.inf), min_size=1, max_size=6)
rates = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6)


@st.composite
def features(draw):
    """Clips of 1-6 frames of 4-d features: totals fall on both sides of the 4 rows that are kept."""
    seed, counts = draw(st.integers(0, 2**32 - 1)), draw(st.lists(st.integers(1, 6), min_size=3, max_size=5))
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, 4)) for n in counts]


def frechets(clips):
    return [
        Frechet(FeatureStatistics.of(c, str(i)), FeatureStatistics.of(c[::-1] * 2 + 1, str(i)))
        for i, c in enumerate(clips)
    ]


def packed(state):
    return {key: array.tobytes() for key, array in state.pack().items()}


def total(states):
    out = None
    for state in states:
        out = add(out, state)
    return out


def check_laws(states):
    whole = packed(total(states))
    for cut in range(1, len(states)):
        # every bracketing into two runs gives the same bits as one run: associativity
        assert packed(add(total(states[:cut]), total(states[cut:]))) == whole
    again = unpack(total(states).pack())
    assert packed(again) == whole
    assert again.value() == total(states).value() or math.isnan(again.value())
    saved = unpack(total(states[:1]).pack())  # a state that went through a file adds like one that did not
    assert packed(total([saved, *states[1:]])) == whole


@given(means)
def test_mean_laws(values):
    check_laws([Mean.of(v) for v in values])


@given(rates)
def test_rate_laws(pairs):
    check_laws([Rate.of(*p) for p in pairs])


edits = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
clips_of_words = st.lists(st.tuples(edits, st.none() | numbers), min_size=1, max_size=6)


def words(clip):
    """One clip's state from (S, D, I, hits) and the real clip's rate, if there is one."""
    (s, d, i, hits), floor = clip
    rate = Mean.of((s + d + i) / (s + d + hits))
    return WordErrorState(
        rate.total, 1, 0, Mean() if floor is None else Mean.of(floor), s, d, i, s + d + hits, s % 2, 0, i % 2
    )


@given(clips_of_words)
def test_words_laws(clips):
    check_laws([words(clip) for clip in clips])


@given(clips_of_words, st.randoms())
def test_words_are_a_mean_that_counts(clips, random):
    whole = total([words(clip) for clip in random.sample(clips, len(clips))])
    rates = [(s + d + i) / (s + d + hits) for (s, d, i, hits), _ in clips]
    assert whole.value() == total([Mean.of(rate) for rate in rates]).value()
    s, d, i, hits = (sum(column) for column in zip(*(edits for edits, _ in clips), strict=True))
    assert whole.micro == (s + d + i) / (s + d + hits)
    assert (whole.substitutions, whole.deletions, whole.insertions, whole.units) == (s, d, i, s + d + hits)
    floors = [floor for _, floor in clips if floor is not None]
    assert whole.reference_wer == total([Mean(), *map(Mean.of, floors)])
    # clips of which only a rate is known (those that failed, under another policy) raise the mean and no count
    filled = whole + Mean.of(2.0)
    assert isinstance(filled, WordErrorState) and filled.n == whole.n + 1 and filled.micro == whole.micro
    assert filled.value() == total([Mean.of(rate) for rate in [*rates, 2.0]]).value()


def test_words_of_clips_that_say_something():
    heard, mute = words(((1, 0, 0, 3), None)), WordErrorState(Fraction(1), 1, deletions=4, units=4, unheard=1)
    assert (heard + mute).produced == heard.value() == 0.25
    assert math.isnan(mute.produced) and math.isnan(WordErrorState().micro)


@settings(max_examples=50, deadline=None)
@given(features())
def test_frechet_laws(clips):
    check_laws(frechets(clips))


@given(st.lists(numbers, min_size=1, max_size=40), st.randoms())
def test_mean_is_the_correctly_rounded_mean_in_any_order(values, random):
    shuffled = random.sample(values, len(values))
    expected = float(sum(map(Fraction, values)) / len(values))
    assert total([Mean.of(v) for v in values]).value() == total([Mean.of(v) for v in shuffled]).value() == expected


@settings(max_examples=30, deadline=None)
@given(features(), st.randoms())
def test_moments_are_those_of_the_union(clips, random):
    whole = np.concatenate(clips)
    joined = total(
        [Frechet(FeatureStatistics.of(c), FeatureStatistics.of(c)) for c in random.sample(clips, len(clips))]
    ).generated
    # Features are rounded to 2**-16 (error up to 8e-6 each); |f| < 6, so products move by less than 1e-4.
    assert np.allclose(joined.mean(), whole.mean(axis=0), atol=1e-5, rtol=0)
    assert np.allclose(joined.covariance(), np.cov(whole, rowvar=False), atol=2e-4, rtol=0)


def test_rows_are_kept_up_to_the_dimension_only():
    few, many = FeatureStatistics.of(np.ones((4, 4))), FeatureStatistics.of(np.ones((5, 4)))
    assert few.rows is not None and many.rows is None
    assert (few + few).rows is None
    assert np.array_equal((few + few).second, np.full((4, 4), 8.0 * UNIT**2))


def test_sums_stay_exact_beyond_what_float64_holds():
    """Logits and coefficients in the hundreds: the sums pass 2**53, the largest float64 up to which all are exact."""
    rng = np.random.default_rng(5)
    parts = [rng.normal(0, 400, (7, 3)) for _ in range(4)]
    joined = FeatureStatistics.of(parts[0])
    for part in parts[1:]:
        joined = joined + FeatureStatistics.of(part)
    whole = [[int(v) for v in row] for row in np.rint(np.concatenate(parts) * UNIT)]  # Python's integers have no limit
    exact = [[sum(row[i] * row[j] for row in whole) for j in range(3)] for i in range(3)]
    assert joined.second.tolist() == exact and max(map(max, exact)) > 2**53
    assert joined.first.tolist() == [sum(row[i] for row in whole) for i in range(3)]
    same = FeatureStatistics.of(np.concatenate(parts))
    assert same.second.tolist() == exact
    # float64 keeps 16 digits of numbers of 1e5; numpy's own covariance does no better.
    assert joined.covariance() == pytest.approx(np.cov(np.concatenate(parts), rowvar=False), rel=1e-9, abs=1e-2)


def test_values_that_are_no_numbers_are_refused():
    for bad in (math.nan, -math.inf):
        with pytest.raises(NotFinite):
            Mean.of(bad)
    with pytest.raises(NotFinite):
        FeatureStatistics.of(np.array([[math.nan, 0.0]]))
    with pytest.raises(SampleError, match="too large for exact sums"):
        FeatureStatistics.of(np.full((5, 2), 1e6))
    for other in (Rate.of(1), WordErrorState()):
        with pytest.raises(TypeError, match="different metrics"):
            add(Mean.of(1), other)


def gaussian_rows(mean, cov, n=400):
    """n rows whose sample mean and (n - 1) covariance are exactly the given ones."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(n, len(mean)))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    return z @ np.linalg.cholesky(cov).T + mean


I4 = np.eye(4)
CLOSED_FORMS = [  # specs/metrics.md section 6; the 2x2 case is 8 - 2 sqrt(tr(S1 S2) + 2 sqrt(det(S1 S2)))
    ((np.zeros(4), I4), (np.ones(4), I4), 4.0),
    ((np.zeros(4), I4), (np.zeros(4), 4 * I4), 4.0),
    (([1.0, 2.0], np.diag([1.0, 4.0])), ([3.0, 1.0], np.diag([9.0, 16.0])), 13.0),
    (([0.0, 0.0], np.array([[2.0, 1], [1, 2]])), ([0.0, 0.0], np.array([[3.0, 0], [0, 1]])), 0.5166852264521),
]


@pytest.mark.parametrize(("a", "b", "expected"), CLOSED_FORMS)
def test_frechet_closed_forms(a, b, expected):
    sides = [FeatureStatistics.of(gaussian_rows(np.asarray(mean), cov)) for mean, cov in (a, b)]
    # 400 rows, rounded to 2**-16: the mean moves by at most 8e-6 / sqrt(400), the covariance by about 1e-6.
    assert frechet_distance(*sides) == pytest.approx(expected, abs=2e-5)


def test_frechet_of_few_samples_equals_the_matrix_square_root():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 64)), rng.standard_normal((16, 64)) + 1
    few = frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y))
    # specs/metrics.md section 6: 156.2087846 by Gram and SVD. Rounding to 2**-16 moves 2 (mean gap) (mean error)
    # summed over 64 dimensions by about 2 * 8 * 4e-6 / 4 = 2e-5.
    assert few == pytest.approx(156.2087846, abs=1e-4)
    cov = np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)
    root = linalg.sqrtm(cov.astype(complex))
    gap = x.mean(axis=0) - y.mean(axis=0)
    slow = gap @ gap + np.trace(np.cov(x, rowvar=False) + np.cov(y, rowvar=False)) - 2 * np.trace(root).real
    # sqrtm of a singular product is itself only good to about 1e-5 (specs: 156.2087823 against 156.2087846).
    assert few == pytest.approx(slow, abs=1e-4)


def test_both_forms_of_the_distance_agree():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((40, 40)), rng.standard_normal((40, 40)) * 2
    kept = [FeatureStatistics.of(z) for z in (x, y)]
    summed = [FeatureStatistics(m.n, None, (), *m.sums()) for m in kept]
    # The eigenvalue form takes roots of eigenvalues near 0, where 1e-16 becomes 1e-8 per dimension.
    assert frechet_distance(*kept) == pytest.approx(frechet_distance(*summed), abs=1e-5)


def test_equal_sets_have_distance_zero():
    x = np.random.default_rng(3).standard_normal((16, 64))
    assert (
        frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(x)) < 1e-10
    )  # specs: Gram form of a set with itself


def test_leaving_out_a_group_equals_never_having_had_it():
    clips = [np.random.default_rng(i).standard_normal((3, 32)) for i in range(4)]
    states = frechets(clips)
    assert total(states).without(frozenset({"1", "3"})).value() == total([states[0], states[2]]).value()
