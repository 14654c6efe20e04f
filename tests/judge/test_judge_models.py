"""Systems that meet each other, the judge itself and covariates: by hand, by other packages, by simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats
from test_judge_statistics import OUTCOMES, heard, judged

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.judge.diagnosis import (
    contradictions,
    degraded_control,
    family_of,
    identical_control,
    position_bias,
    repeat_agreement,
    same_family_warning,
    swap_consistency,
)
from jwb_dh_v1.judge.statistics import Judgement, adjusted_win_rate, bradley_terry, pairs_of, win_rate

# --- Bradley-Terry ---------------------------------------------------------------------------------------------------


def league(strength, n, rng):
    """A round robin of n pairs each, 20 % ties."""
    rows = []
    names = list(strength)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            won = rng.random(n) < special.expit(strength[a] - strength[b])
            rows += judged(list(np.where(rng.random(n) < 0.2, "tie", OUTCOMES[2 * won])), a, b)
    return rows


def test_bradley_terry_is_a_plain_fit():
    rows = league({"A": 0.0, "B": 0.5, "C": -1.0, "D": 1.0}, 100, np.random.default_rng(0))
    got = bradley_terry(rows, "A")
    names = ["A", "B", "C", "D"]
    x = np.array([[(p.system == m) - (p.baseline == m) for m in names[1:]] for p in pairs_of(rows)], float)
    y = np.array([p.y for p in pairs_of(rows)])
    fit = optimize.minimize(lambda b: np.logaddexp(0, x @ b).sum() - y @ x @ b, np.zeros(3), tol=1e-10).x
    want = dict(zip(names, 1000 + 400 / math.log(10) * np.array([0, *fit]), strict=True))
    for name in names:
        assert got.ratings[name].value == pytest.approx(want[name], abs=0.01)
        assert got.ratings[name].low <= got.ratings[name].value <= got.ratings[name].high
    assert list(got.ratings) == ["D", "B", "A", "C"] and not got.regularised
    assert got.ratings["A"].low == got.ratings["A"].high == 1000


def test_bradley_terry_is_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rows = league({"A": 0.0, "B": 0.5, "C": -1.0}, 80, np.random.default_rng(2))
    pairs = pairs_of(rows)
    x = np.array([[(p.system == m) - (p.baseline == m) for m in "BC"] for p in pairs], float)
    fit = sm.GLM([p.y for p in pairs], x, family=sm.families.Binomial()).fit()
    got = bradley_terry(rows, "A")
    want = [1000 + 400 / math.log(10) * b for b in fit.params]
    assert [got.ratings["B"].value, got.ratings["C"].value] == pytest.approx(want, abs=1e-3)


def test_bradley_terry_of_a_separated_league_is_finite():
    rows = judged(["win"] * 9, "A", "B") + judged(["win"] * 9, "B", "C") + judged(["win"] * 9, "A", "C")
    got = bradley_terry(rows, "B")
    assert got.regularised and got.ratings["A"].method == "none: some systems never won against the rest"
    assert got.ratings["A"].interval is None
    a, c = got.ratings["A"].value - 1000, got.ratings["C"].value - 1000
    assert a == pytest.approx(-c) and 300 < a < 1000


def test_bradley_terry_covers():
    # Ties take strength away: E[y] = 0.1 + 0.8 expit(d) is no logistic in d, so the systems are equal.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        got = bradley_terry(league({"A": 0.0, "B": 0.0, "C": 0.0}, 60, rng), "A")
        hits += got.ratings["B"].low <= 1000 <= got.ratings["B"].high
    # The standard error of a share of 300 is 0.013.
    assert 0.92 <= hits / 300 <= 0.985


def test_bradley_terry_refuses_what_it_cannot_rate():
    with pytest.raises(NotApplicable, match="one opponent"):
        bradley_terry(judged(["win"], "A", "B") + judged(["win"], "C", "B"), "B")
    apart = judged(["win", "tie"], "A", "B") + judged(["loss"], "C", "D")
    with pytest.raises(NotApplicable, match="never met"):
        bradley_terry(apart, "A")
    with pytest.raises(NotApplicable, match="anchor"):
        bradley_terry(apart, "X")


# --- the judge -------------------------------------------------------------------------------------------------------


def test_position_bias_by_hand():
    rows = judged(["win", "win", "win", "tie"]) + judged(["loss", "loss", "win", "loss"], order="baseline_first")
    got = position_bias(rows)
    # First: 3 + 3 of 7 decisive; pairs 0, 1 and 3 lean to the first position, pair 2 to none.
    assert (got.first, got.second, got.ties) == (6, 1, 1) and got.first_rate.value == pytest.approx(6 / 7)
    assert (got.leaning_first, got.leaning_second) == (3, 0)
    assert got.p_value == pytest.approx(2 * 0.5**3) and "both orders" in got.method
    single = position_bias(rows[:4])
    assert single.p_value == stats.binomtest(3, 3).pvalue and "one order" in single.method


def test_swap_consistency_by_hand():
    rows = judged(["win", "win", "tie", "tie", "loss"])
    rows += judged(["win", "loss", "tie", "win", "win"], order="baseline_first")
    got = swap_consistency(rows)
    assert got.all.value == pytest.approx(2 / 5) and got.decisive.value == pytest.approx(1 / 3)
    assert (got.to_first, got.to_second, got.one_tie) == (1, 1, 1)
    with pytest.raises(NotApplicable):
        swap_consistency(rows[:5])


def test_repeat_agreement_by_hand_and_by_fleiss():
    assert repeat_agreement(judged(["win", "loss"])) is None  # nothing was asked twice
    rows = judged(["win", "tie", "loss", "win"]) + judged(["win", "tie", "win", "win"], repeat=1)
    got = repeat_agreement(rows)
    # 3 of 4 equal; shares 5/8, 2/8, 1/8, so that chance is 30/64: (3/4 - 30/64) / (1 - 30/64)
    assert got.same.value == 3 / 4 and got.questions == 4
    assert got.kappa.value == pytest.approx(18 / 34, abs=1e-12)
    other_order = judged(["win"] * 4, order="baseline_first")
    assert repeat_agreement(rows + other_order) == got  # another order is another question
    assert repeat_agreement(judged(["tie"] * 4) + judged(["tie"] * 4, repeat=1)).kappa is None
    fleiss = pytest.importorskip("statsmodels.stats.inter_rater").fleiss_kappa
    answers = np.random.default_rng(3).choice(OUTCOMES, (50, 3), p=[0.5, 0.3, 0.2])
    answers[:30, 1:] = answers[:30, :1]
    many = [row for number, column in enumerate(answers.T) for row in judged(list(column), repeat=number)]
    counts = np.stack([(answers == outcome).sum(axis=1) for outcome in OUTCOMES], axis=1)
    assert repeat_agreement(many).kappa.value == pytest.approx(fleiss(counts), abs=1e-12)  # float64 sums


def test_a_biased_judge_is_diagnosed():
    rng = np.random.default_rng(11)
    bias, noise, margin = 0.6, 1.0, 0.5
    rows = heard(rng.standard_normal(400), bias, noise, rng, margin)
    got = position_bias(rows)
    # Lead in favour of the first position ~ N(bias, 1 + noise**2), decisive beyond the margin.
    first, second = stats.norm.sf([(margin - bias) / math.sqrt(2), (margin + bias) / math.sqrt(2)])
    assert got.first_rate.low <= first / (first + second) <= got.first_rate.high
    assert got.p_value < 1e-6 and got.first_rate.low > 0.6
    fair = position_bias(heard(rng.standard_normal(400), 0.0, noise, rng, margin))
    assert fair.p_value > 0.05 and fair.first_rate.low <= 0.5 <= fair.first_rate.high
    steady = swap_consistency(heard(rng.standard_normal(400), 0.0, 0.1, rng, margin)).decisive.value
    assert swap_consistency(rows).decisive.value < 0.85 < steady


def test_the_sign_test_holds_its_level_when_the_systems_differ():
    rng = np.random.default_rng(5)
    p = [position_bias(heard(1 + rng.standard_normal(100), 0.0, 1.0, rng)).p_value for _ in range(300)]
    # An exact test is below 5 % by its discreteness; 0.09 is three standard errors above.
    assert np.mean(np.array(p) < 0.05) < 0.09


@pytest.mark.parametrize("better", [0.0, 0.7], ids=["on a par", "better"])
def test_both_orders_undo_the_bias(better):
    """The win rate of the unbiased judge is in the interval of the biased one, as often as 95 % says.

    Seen over 300 simulations of 150 pairs: 0.93 on a par, 0.94 for the better system (the bias of 0.5 also pulls the
    rate to one half, by 0.009). A judge that hears the system first every time: 0.03 and 0.05.
    """
    rng = np.random.default_rng(2)
    margin, bias = 0.5, 0.5
    # Lead ~ N(better, 1 + 1): quality and noise of SD 1 each.
    win, loss = stats.norm.sf([(margin - better) / math.sqrt(2), (margin + better) / math.sqrt(2)])
    truth = 0.5 + (win - loss) / 2
    both = alone = 0
    for k in range(300):
        quality = better + rng.standard_normal(150)
        rows = heard(quality, bias, 1.0, rng, margin)
        got = win_rate(rows, resamples=500, seed=k).rate
        both += got.low <= truth <= got.high
        one = win_rate(rows[:150], resamples=500, seed=k).rate
        alone += one.low <= truth <= one.high
    assert 0.91 <= both / 300 <= 0.98
    assert alone / 300 < 0.5


def test_controls():
    got = identical_control(judged(["tie"] * 18 + ["win", "loss"] + [None], system="copy"))
    assert got.rate.value == pytest.approx(0.9) and (got.first, got.second, got.failed) == (1, 1, 1)
    got = degraded_control(judged(["loss"] * 40, system="noisy"))
    assert got.rate.value == 1 and got.rate.high == 1 and 0.9 < got.rate.low < 0.95
    with pytest.raises(NotApplicable):
        identical_control([])


def test_contradictions():
    rows = judged(["win", "loss", "tie"], score_system=1, score_baseline=2) + judged(["win"], order="baseline_first")
    assert contradictions(rows).value == pytest.approx(1 / 3)
    with pytest.raises(NotApplicable):
        contradictions(judged(["win"]))


@pytest.mark.parametrize(
    ("judge", "system", "family"),
    [
        ("gemini-2.5-pro", "Gemini-2.5-flash-preview-TTS", "Google"),
        ("models/gemini-3.8-flash", "veo-3", "Google"),
        ("gpt-4o-audio-preview", "openai/gpt-4o-mini-tts", "OpenAI"),
        ("Qwen/Qwen2.5-Omni-7B", "Wan2.1-S2V", "Alibaba"),
        ("Qwen3-Omni", "CosyVoice2-0.5B", "Alibaba"),
    ],
)
def test_kin_are_warned_about(judge, system, family):
    assert family in same_family_warning(judge, system)


@pytest.mark.parametrize("system", ["HunyuanVideo-Avatar", "my-own-model", "gpt-4o-mini-tts", "geminiani"])
def test_strangers_are_not(system):
    assert same_family_warning("gemini-2.5-pro", system) is None
    assert same_family_warning("unknown-1", system) is None and family_of("unknown-1") is None


# --- covariates ------------------------------------------------------------------------------------------------------


def longer_is_better(n, rng, effect=1.0, mean=0.8):
    """Two equal systems; the judge likes length, and the system speaks longer; one order, drawn at random."""
    rows = []
    length, loud = rng.normal(mean, 1, n), rng.normal(0, 2, n)
    won = rng.random(n) < special.expit(effect * length)
    for i in range(n):
        order = ("system_first", "baseline_first")[int(rng.integers(2))]
        covariates = {"duration": float(length[i]), "loudness": float(loud[i])}
        outcome = "win" if won[i] else "loss"
        rows.append(Judgement("S", "B", f"{i:04d}", f"p{i // 2:04d}", outcome, order, covariates=covariates))
    return rows


def test_adjusted_rate_is_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rows = longer_is_better(200, np.random.default_rng(0))
    pairs = pairs_of(rows)
    x = sm.add_constant(np.array([[p.covariates["duration"], p.covariates["loudness"], p.lean] for p in pairs]))
    fit = sm.GLM([p.y for p in pairs], x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": np.arange(200) // 2, "use_correction": False}
    )
    got = adjusted_win_rate(rows)
    half = stats.t.ppf(0.975, 99) * fit.bse * math.sqrt(100 / 99)
    assert got.rate.value == pytest.approx(special.expit(fit.params[0]), abs=1e-6)
    assert got.rate.low == pytest.approx(special.expit(fit.params[0] - half[0]), abs=1e-6)
    assert got.slopes["duration"].high == pytest.approx(fit.params[1] + half[1], abs=1e-5)
    assert list(got.slopes) == ["duration", "loudness", "position"]


def test_adjusted_rate_of_equal_systems_is_one_half():
    """Seen over 300 simulations of 200 pairs: the interval covers 1/2 in 0.97; the raw rate is 0.65."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        got = adjusted_win_rate(longer_is_better(200, rng))
        hits += got.rate.low <= 0.5 <= got.rate.high
    assert 0.91 <= hits / 300 <= 0.985
    assert got.raw > 0.58 and got.shift == pytest.approx(got.rate.value - got.raw)


def test_adjusted_rate_without_effect_is_the_raw_rate():
    rows = [
        Judgement("S", "B", str(i), str(i), ("win", "tie", "loss", "win")[i % 4], order, covariates={"duration": d})
        for i in range(80)
        for order in ("system_first", "baseline_first")
        for d in [1.0 if i % 8 < 4 else -1.0]
    ]
    got = adjusted_win_rate(rows, ["duration"])
    assert got.rate.value == pytest.approx(0.625, abs=1e-6) and got.slopes["duration"].value == pytest.approx(
        0, abs=1e-5
    )
    assert list(got.slopes) == ["duration"]  # both orders: position is balanced


def test_adjusted_rate_of_separated_pairs_is_finite_and_says_so():
    rows = [
        Judgement("S", "B", str(i), str(i), "win" if i % 2 else "loss", "system_first", covariates={"d": i % 2 - 0.5})
        for i in range(40)
    ]
    got = adjusted_win_rate(rows, ["d"])
    assert "penalised" in got.rate.method and got.rate.value == pytest.approx(0.5, abs=1e-6)


def test_pairs_without_covariates_are_counted():
    rows = longer_is_better(100, np.random.default_rng(0))
    bare = [Judgement("S", "B", f"x{i}", f"x{i}", "win", "system_first") for i in range(5)]
    assert adjusted_win_rate(rows + bare).left_out == 5
    with pytest.raises(NotApplicable, match="too few"):
        adjusted_win_rate(bare)
