"""Statistics of paired judgements: closed forms, independent implementations, and simulated coverage."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from jwb_dh_v1.errors import NotApplicable, SampleError
from jwb_dh_v1.judge.diagnosis import position_bias
from jwb_dh_v1.judge.statistics import Judgement, compare, pairs_of, win_rate
from jwb_dh_v1.stats.rates import rate_estimate, resampled_sums, wilson
from jwb_dh_v1.stats.significance import holm, sign_flip_test

OUTCOMES = np.array(["loss", "tie", "win"])


def judged(outcomes, system="S", baseline="B", order="system_first", clusters=None, **more):
    """One judgement per outcome; each sample its own person unless clusters are given."""
    return [
        Judgement(system, baseline, f"{i:04d}", clusters[i] if clusters else f"p{i:04d}", one, order, **more)
        for i, one in enumerate(outcomes)
    ]


def heard(quality, bias, noise, rng, margin=0.5, orders=("system_first", "baseline_first")):
    """A judge that hears quality (system minus baseline) + bias of the first position + noise, and ties in a margin."""
    result = []
    for order in orders:
        sign = 1 if order == "system_first" else -1
        lead = quality + sign * bias + noise * rng.standard_normal(len(quality))
        outcomes = OUTCOMES[(lead > margin).astype(int) - (lead < -margin) + 1]
        result += judged([str(o) for o in outcomes], order=order)
    return result


# --- rates -----------------------------------------------------------------------------------------------------------


def test_rates_by_hand():
    got = win_rate(judged(["win"] * 5 + ["tie"] * 2 + ["loss"] * 3))
    assert got.rate.value == pytest.approx(0.6)
    assert (got.net.value, got.decisive.value) == (pytest.approx(0.2), pytest.approx(5 / 8))
    assert (got.wins, got.ties, got.losses, got.failed) == (5, 2, 3, 0)
    assert got.net.low == pytest.approx(2 * got.rate.low - 1) and got.rate.low < 0.6 < got.rate.high
    assert "Wilson, effective n" in got.rate.method and got.decisive.method == "Wilson, n = 8"


def test_both_orders_that_disagree_are_half_a_win():
    rows = judged(["win", "win"]) + judged(["loss", "win"], order="baseline_first")
    assert [p.y for p in pairs_of(rows)] == [0.5, 1.0]
    assert [p.lean for p in pairs_of(rows)] == [0.0, 0.0]
    assert win_rate(rows).rate.value == 0.75
    assert win_rate(rows).decisive.value == pytest.approx(3 / 4)


def test_the_order_of_the_log_changes_no_bit():
    rng = np.random.default_rng(3)
    rows = heard(rng.standard_normal(120), 0.3, 1.0, rng)
    mixed = random.Random(0).sample(rows, len(rows))
    assert win_rate(rows) == win_rate(mixed)
    assert position_bias(rows) == position_bias(mixed)


def test_failures_bound_the_rate():
    rows = judged(["win"] * 6 + ["loss"] * 2 + [None] * 2)
    got = win_rate(rows)
    assert got.rate.value == 0.75 and got.failed == 2 and got.rate.n == 8
    assert (got.as_losses.value, got.as_wins.value) == (pytest.approx(0.6), pytest.approx(0.8))
    assert win_rate(rows, failures="tie").rate.value == pytest.approx(0.7)
    with pytest.raises(NotApplicable):
        win_rate(judged([None, None]))


def test_half_a_failed_pair_keeps_its_other_order():
    rows = judged(["win", "win"]) + judged([None, "loss"], order="baseline_first")
    assert [p.y for p in pairs_of(rows)] == [1.0, 0.5]
    assert [p.y for p in pairs_of(rows, "loss")] == [0.5, 0.5]


@pytest.mark.parametrize(
    "wrong", [{"outcome": "draw"}, {"order": "AB"}, {"baseline": "S"}], ids=["outcome", "order", "itself"]
)
def test_wrong_judgements_are_named(wrong):
    right = {"system": "S", "baseline": "B", "sample_id": "1", "identity_id": "p", "outcome": "win"}
    with pytest.raises(SampleError):
        Judgement(**{**right, "order": "system_first", **wrong})


def test_one_match_at_a_time():
    with pytest.raises(SampleError, match="2 matches"):
        win_rate(judged(["win"]) + judged(["win"], system="T"))
    with pytest.raises(NotApplicable):
        win_rate([])


# --- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "n"), [(0, 20), (1, 30), (13, 30), (49, 49), (5, 200), (400, 400)])
def test_wilson_is_scipys_without_ties(wins, n):
    got = rate_estimate([1] * wins + [0] * (n - wins), [str(i) for i in range(n)])
    want = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert (got.low, got.high) == (pytest.approx(want.low, abs=1e-12), pytest.approx(want.high, abs=1e-12))
    assert got.method == f"Wilson, n = {n}"


def test_wilson_is_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for wins, n, level in [(3, 40, 0.95), (20, 33, 0.9), (0, 7, 0.99)]:
        want = proportion.proportion_confint(wins, n, alpha=1 - level, method="wilson")
        assert wilson(wins / n, n, level) == pytest.approx(want, abs=1e-12)


def test_bootstrap_is_scipys():
    rng = np.random.default_rng(0)
    y = rng.choice([0, 0.25, 0.5, 0.75, 1], 200)
    got = rate_estimate(y, [str(i) for i in range(200)])
    want = stats.bootstrap((y,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert "percentile bootstrap over 200 identities" in got.method
    # 0.0025: both are Monte Carlo; the error of a 2.5 % quantile of 10,000 resamples is 0.027 of its SD of 0.025.
    assert (got.low, got.high) == (pytest.approx(want.low, abs=0.0025), pytest.approx(want.high, abs=0.0025))


def test_drawing_kinds_is_drawing_rows():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 3, 80), np.full(80, 2)], axis=1).astype(float)
    plain = rows[rng.integers(0, 80, (20_000, 80))].sum(axis=1)
    ours = resampled_sums(rows, 20_000, 0)
    assert stats.ks_2samp(plain[:, 0], ours[:, 0]).pvalue > 0.01
    assert (ours[:, 1] == 160).all()


def test_variance_is_statsmodels_cluster_robust():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(5)
    people = np.repeat(np.arange(25), 4)
    y = rng.choice([0, 0.5, 1], 100)
    fit = sm.OLS(y, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": people})
    z, t, p = stats.norm.ppf(0.975), stats.t.ppf(0.975, 24), y.mean()
    want = wilson(p, p * (1 - p) / fit.bse[0] ** 2 * (z / t) ** 2)
    got = rate_estimate(y, people.astype(str))
    assert (got.low, got.high) == (pytest.approx(want[0], abs=1e-9), pytest.approx(want[1], abs=1e-9))


def test_only_ties_are_as_wide_as_tangos_score_interval():
    n, z2 = 30, stats.norm.ppf(0.975) ** 2
    got = win_rate(judged(["tie"] * n))
    # Tango (1998) with no win and no loss: |net| <= z**2 / (n + z**2).
    assert got.net.high == pytest.approx(z2 / (n + z2), rel=1e-6) and got.net.low == pytest.approx(-got.net.high)
    assert got.decisive is None


def test_one_identity_says_almost_nothing():
    got = win_rate(judged(["win", "loss"] * 50, clusters=["p"] * 100))
    assert got.rate.high - got.rate.low > 0.7


def test_clusters_widen():
    outcomes = ["win"] * 60 + ["loss"] * 60
    alone = win_rate(judged(outcomes)).rate
    bound = win_rate(judged(outcomes, clusters=[f"p{i // 10}" for i in range(120)])).rate
    # Twelve persons of one mind each: the width of 12 verdicts.
    assert (bound.high - bound.low) > 2.5 * (alone.high - alone.low)


COVERED = [(0.35, 0.3), (0.5, 0.3), (0.2, 0.6), (0.1, 0.8), (0.8, 0.15)]  # P(win), P(tie)


@pytest.mark.parametrize("n", [30, 100, 300])
def test_coverage_with_ties(n):
    """Nominal 95 %: 93-97 % over 2,000 simulations each. Seen: 0.951-0.963 (30), 0.943-0.967 (100), 0.944-0.968 (300).

    Standard error of a share of 2,000 is 0.005. Wilson at the plain n, the textbook fallback, covers 0.979-1.000 here.
    """
    rng = np.random.default_rng(7)
    people = np.arange(n).astype(str)
    plain = []
    for win, tie in COVERED:
        truth, hits, plain_hits = win + tie / 2, 0, 0
        drawn = rng.multinomial(n, [win, tie, 1 - win - tie], size=2000)
        for k, (counts, times) in enumerate(zip(*np.unique(drawn, axis=0, return_counts=True), strict=True)):
            # A twentieth of the default resamples, to be fast; a seed each, so that their errors are independent.
            got = rate_estimate(np.repeat([1, 0.5, 0], counts), people, resamples=500, seed=k)
            hits += times * (got.low - 1e-12 <= truth <= got.high + 1e-12)
            low, high = wilson(got.value, n)
            plain_hits += times * (low <= truth <= high)
        assert 0.93 <= hits / 2000 <= 0.97, (n, win, tie, hits / 2000)
        plain.append(plain_hits / 2000)
    assert max(plain) > 0.97  # what the effective number is for


@pytest.mark.parametrize(("people", "each"), [(30, 5), (60, 4)])
def test_coverage_with_clusters(people, each):
    """Persons differ (Beta(2, 2)), 30 % ties. Seen: 0.951 and 0.952."""
    rng = np.random.default_rng(7)
    names = np.repeat(np.arange(people), each).astype(str)
    hits = alone = 0
    for k in range(2000):
        chance = np.repeat(rng.beta(2, 2, people), each)
        y = np.where(rng.random(len(names)) < 0.3, 0.5, rng.random(len(names)) < chance)
        got = rate_estimate(y, names, resamples=500, seed=k)
        hits += got.low <= 0.5 <= got.high
        alone += abs(y.mean() - 0.5) <= 1.96 * y.std() / math.sqrt(len(y))
    assert 0.93 <= hits / 2000 <= 0.97
    assert alone / 2000 < 0.92  # forgetting the persons would not do


# --- comparison ------------------------------------------------------------------------------------------------------


def test_compare_is_paired():
    rng = np.random.default_rng(1)
    base = rng.choice([0, 1, 2], 80)
    better = np.minimum(base + (rng.random(80) < 0.2), 2)
    rows = judged(list(OUTCOMES[better]), system="A") + judged(list(OUTCOMES[base])[:70], system="C")
    got = compare(rows, "A", "C")
    assert got.difference.value == pytest.approx((better[:70] - base[:70]).mean() / 2)
    assert (got.only_a, got.only_b, got.difference.n) == (10, 0, 70)
    assert got.difference.low > 0 and got.p_value < 0.01
    unpaired = win_rate(rows[:70]).rate
    assert got.difference.high - got.difference.low < 0.7 * (unpaired.high - unpaired.low)
    with pytest.raises(NotApplicable):
        compare(rows, "A", "nobody")


@pytest.mark.parametrize("n", [10, 40])
def test_sign_flips_are_scipys(n):
    d = np.random.default_rng(n).choice([-0.5, 0, 0.25, 0.5, 1], n)
    want = stats.permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=np.inf if n == 10 else 50_000, rng=0
    ).pvalue
    got = sign_flip_test(d, [str(i) for i in range(n)])
    assert got == pytest.approx(want, abs=1e-12 if n == 10 else 0.006)


def test_holm_by_hand_and_statsmodels():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = list(np.random.default_rng(0).random(20) ** 3)
    assert holm(p) == pytest.approx(list(multitest.multipletests(p, method="holm")[1]))
