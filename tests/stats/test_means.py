"""Means over identities: which interval is made when, and the engine against closed forms."""

import numpy as np
import pytest
from scipy import stats

from jwb_dh_v1.stats.means import MOST_RESAMPLED, mean_estimate

PEOPLE = [f"p{i}" for i in range(400)]


def test_the_interval_of_many_is_about_the_normal_one():
    values = np.random.default_rng(2).normal(5, 2, 400)
    found = mean_estimate(values, PEOPLE)
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    # Normal 98 % ends of bootstrap-t; 4,000 draws know such a quantile to 0.06 standard errors, the t to 0.05.
    assert found.ends == pytest.approx((values.mean() - 2.33 * error, values.mean() + 2.33 * error), abs=0.2 * error)
    assert (found.n, found.clusters) == (400, 400)
    assert found.method.startswith("the wider of Student's t over 400 identities and bootstrap-t at 98%")


def test_few_identities_of_a_bounded_number_get_students_t_at_99_percent():
    values = np.array([0.2, 0.3, 0.45, 0.5])
    found = mean_estimate(values, list("abcd"), bounds=(0, 1))
    half = stats.t.ppf(0.995, 3) * values.std(ddof=1) / 2
    assert found.ends == (0.0, pytest.approx(values.mean() + half, rel=1e-12))  # cut at the range
    assert found.method == "Student's t at 99% over 4 identities"


def test_clips_of_one_person_are_not_independent():
    """By the cluster-robust formula: all of a person's clips alike are one clip of each person."""
    values = np.array([0.2, 0.3, 0.45, 0.5])
    thrice = mean_estimate(np.repeat(values, 3), np.repeat(list("abcd"), 3), bounds=(0, 1))
    assert thrice.ends == pytest.approx(mean_estimate(values, list("abcd"), bounds=(0, 1)).ends, rel=1e-12)


def test_hits_and_misses_never_have_an_interval_without_width():
    """Eight of eight: Wilson's interval is [n / (n + z**2), 1]."""
    found = mean_estimate(np.ones(8), PEOPLE[:8], bounds=(0, 1))
    assert found.ends == pytest.approx((8 / (8 + stats.norm.ppf(0.975) ** 2), 1), rel=1e-12)
    scaled = mean_estimate(np.full(8, 100.0), PEOPLE[:8], bounds=(0, 100))
    assert scaled.ends == pytest.approx([100 * end for end in found.ends], rel=1e-12)


def test_two_hands_are_one_clip():
    """A clip of one hand that moves and one that does not is half a hit of two."""
    found = mean_estimate([0.5, 1, 0, 1], list("abcd"), [2, 2, 2, 1], (0, 1))
    assert found.value == pytest.approx((1 + 2 + 0 + 1) / 7)
    assert found.method.startswith("Wilson, effective n")


@pytest.mark.parametrize(
    ("values", "people", "bounds", "reason"),
    [
        ([1, 2], "aa", (None, None), "fewer than two identities"),
        ([1, np.inf], "ab", (None, None), "infinite values"),
        ([0.2, 0.3], "ab", (0, 1), "2 identities are too few for an interval that covers"),
        ([0.2, 0.3, 0.4, 0.5], "abcd", (0, None), "4 identities are too few for an interval that covers"),
        ([0.25] * 8, "abcdefgh", (0, 1), "the identities do not differ"),
        ([0.2] + [0.0] * 7, "abcdefgh", (0, None), "too few of the 8 identities differ to bound it"),
    ],
)
def test_where_there_is_none_the_reason_is_given(values, people, bounds, reason):
    found = mean_estimate(values, list(people), bounds=bounds)
    assert (found.interval, found.method) == (None, f"none: {reason}")
    with pytest.raises(ValueError, match="There is no interval"):
        _ = found.ends


def test_many_identities_are_not_drawn():
    """At the limit Student's t is within 30 % of the wider of both."""
    values = np.random.default_rng(1).normal(size=MOST_RESAMPLED + 1)
    alone = mean_estimate(values, [str(i) for i in range(len(values))])
    assert alone.method == f"Student's t over {len(values)} identities"
    wider = mean_estimate(values[1:], [str(i) for i in range(MOST_RESAMPLED)])
    ratio = (wider.ends[1] - wider.ends[0]) / (alone.ends[1] - alone.ends[0])
    assert 1 < ratio < 1.3  # 2.33 / 1.96 is 1.19: bootstrap-t at 98 %, known to 0.06 standard errors
