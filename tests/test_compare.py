"""Comparisons of runs: what is refused, paired statistics against closed forms, others' code and simulation."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from jwb_dh_v1 import Result, score
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.plan import make_plan
from jwb_dh_v1.results import Row, rows_table
from jwb_dh_v1.results.comparable import comparable, differing, labels, require_comparable
from jwb_dh_v1.results.compare import compare, identities_for
from jwb_dh_v1.results.compare_table import print_compared
from jwb_dh_v1.results.paired import flip, interval, needed, paired, power
from jwb_dh_v1.shard import ShardResult
from jwb_dh_v1.state import Frechet, Mean, Moments
from jwb_dh_v1.totals import Totals

Cell = tuple[str, str]
PLAN = make_plan("standard", ["ssim", "psnr"], boxes="annotations", data="parquet:abc")


def made(
    name: str,
    scores: Mapping[Cell, Sequence[float | str]],
    people: Sequence[str],
    states: Mapping[Cell, Sequence[Frechet]] | None = None,
    out: Path | None = None,
    data: str = "parquet:abc",
    metrics: Sequence[str] = ("ssim", "psnr"),
) -> Result:
    """A run as `score` leaves it; a score is a number, or `skipped`, `failed`, or `absent` for no row at all."""
    plan = make_plan("standard", [*metrics, *({m for m, _ in states or {}})], boxes="annotations", data=data)
    plan = replace(plan, cells=tuple(cell for cell in plan.cells if cell in scores or cell in (states or {})))
    rows, total = [], {}
    for cell in plan.cells:
        for i, person in enumerate(people):
            value = None if states and cell in states else scores[cell][i]
            if value == "absent":
                continue
            row = Row(f"clip-{i:04d}", person, *cell, None, 0, None, str(value))
            state = states[cell][i] if states and cell in states else None
            if state is not None or not isinstance(value, str):
                row = replace(row, value=value, n=1, coverage=1.0, status="ok")
                state = state or Mean.of(value)
                total[cell] = total[cell] + state if cell in total else state
            rows.append(row)
    collected = Totals(plan)
    collected.take(rows_table(rows), total, {})
    result = collected.result(name, "cpu", 0)
    if out is not None:
        (out / "shards").mkdir(parents=True)
        (out / "shards" / "000000.npz").write_bytes(ShardResult(rows, total, {}).to_bytes())
        result = replace(result, folder=out)
    return result


def changed(result: Result, **plan: object) -> Result:
    return replace(result, plan={**result.plan, **plan}, protocol=str(plan.get("protocol", result.protocol)))


BODY, FACE, HANDS = ("ssim", "body"), ("ssim", "face"), ("ssim", "hands")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "ours", "theirs"),
    [
        ("protocol", "standard/1", "paper/1"),
        ("data", "hub x/y@1:abc", "hub x/y@2:abc"),
        ("boxes", "mediapipe/1", "dwpose/1"),
        ("failures", "protocol", "zero"),
        ("precision", "fp32", "bf16"),
        ("weights.net", "aaaaaaaaaaaa", "bbbbbbbbbbbb"),
    ],
)
def test_runs_of_different_plans_are_refused_by_name(key: str, ours: str, theirs: str) -> None:
    run = made("a", {BODY: [0.5, 0.6], FACE: [0.5, 0.6]}, ["p", "q"])
    plans = [{"weights": {"net": v * 5}} if key == "weights.net" else {key: v} for v in (ours, theirs)]
    a, b = (changed(replace(run, name=n), **plan) for n, plan in zip("ab", plans, strict=True))
    assert differing(a, b) == {key: (ours, theirs)} and not comparable(a, b) and comparable(a, a)
    for runs in ([a, b], [a, a, b]):
        with pytest.raises(PlanMismatch, match=f"{key}: '{ours}' and '{theirs}'"):
            require_comparable(runs)
        with pytest.raises(PlanMismatch, match=key):
            compare(runs)


def test_data_that_nobody_recorded_are_refused() -> None:
    run = made("a", {BODY: [0.5, 0.6]}, ["p", "q"], data="")
    with pytest.raises(PlanMismatch, match="data: 'not recorded'"):
        require_comparable([run, run])


def test_other_metrics_and_regions_are_no_difference_but_their_shared_weights_are() -> None:
    people = ["p", "q"]
    whole = changed(made("a", {BODY: [0.1, 0.2], FACE: [0.3, 0.4]}, people), weights={"detector": "1", "net": "2"})
    body = changed(made("b", {BODY: [0.1, 0.2]}, people), boxes="none", weights={"net": "2"})
    assert not differing(whole, body) and not differing(body, whole)
    assert compare([whole, body])["b", "ssim", "body"].verdict == "equal"
    assert set(differing(whole, changed(body, weights={"net": "3"}))) == {"weights.net"}
    # The same cells need the same files, and boxes are needed where something is cut out.
    assert set(differing(whole, changed(whole, weights={"net": "2"}))) == {"weights.detector"}
    assert set(differing(whole, changed(whole, boxes="none"))) == {"boxes"}
    # A detector that the smaller run names and the larger one does not is a difference, too.
    assert set(differing(whole, changed(body, weights={"net": "2", "more": "1"}))) == {"weights.more"}


def test_what_moves_no_number_is_remarked() -> None:
    run = made("a", {BODY: [0.5, 0.6]}, ["p", "q"], data="ids:1")
    other = replace(changed(run, decoder="PyAV 1", version="9"), versions={"numpy": "9"}, device="cuda:0")
    notes = " ".join(require_comparable([run, other]))
    assert all(said in notes for said in ("decoder", "PyAV 1", "0.1.0, 9", "packages", "devices", "only the names"))
    assert labels([run, other]) == ["a #1", "a #2"]
    with pytest.raises(SetupError, match="no run"):
        require_comparable([])
    with pytest.raises(SetupError, match="two runs"):
        compare([run])
    with pytest.raises(SetupError, match="no run 'x'"):
        compare([run, other], "x")


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    people = ["p", "p", "q", "q", "r", "r"]
    a = made("a", {BODY: [0.5, 0.6, 0.7, "failed", "skipped", 0.1]}, people)
    b = made("b", {BODY: [0.6, 0.9, 0.7, 0.1, "skipped", "absent"]}, people)
    got = compare([a, b])["b", "ssim", "body"]
    assert (got.absent, got.skipped, got.failed, got.only_ours, got.only_theirs) == (1, 1, 1, 1, 1)
    assert (got.ours, got.theirs) == (pytest.approx(2.2 / 3), pytest.approx(1.8 / 3))
    d = got.difference
    assert d is not None and (d.n, d.identities) == (3, 2)
    assert d.value == pytest.approx(0.4 / 3) and got.effect == pytest.approx(0.4 / 3 / np.std([0.1, 0.3, 0], ddof=1))
    assert got.superiority == pytest.approx(2.5 / 3) and d.p == 1 and d.smallest_p == 0.5
    # Only p's clips differ; with two identities Student's t has one degree of freedom.
    e = np.array([0.4 - 0.4 / 3 * 2, -0.4 / 3])
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 * np.sum(e**2)) / 3
    assert (d.low, d.high) == (pytest.approx(d.value - half), pytest.approx(d.value + half))
    notes = " ".join(compare([a, b]).notes)
    assert "body 1 in b, 1 in a" in notes and "With 2 identities p cannot be below 0.5" in notes


def test_less_is_better_where_it_is(tmp_path: Path) -> None:
    people = [f"p{i}" for i in range(12)]
    rng = np.random.default_rng(0)
    base = rng.random(12)
    a, b = (replace(made(n, {BODY: list(v)}, people), name=n) for n, v in (("a", base), ("b", base + 0.1 + base / 9)))
    up = compare([a, b])["b", "ssim", "body"]
    down = [replace(run, scores=tuple(replace(s, higher_is_better=False) for s in run.scores)) for run in (a, b)]
    got = compare(down)["b", "ssim", "body"]
    assert (up.verdict, got.verdict) == ("better", "worse")
    assert (up.superiority, got.superiority) == (1.0, 0.0) and got.effect == -up.effect
    assert compare([a, b], "b")["a", "ssim", "body"].verdict == "worse"
    # Exact: both signs of all twelve alike.
    assert up.difference is not None and up.difference.p == 2 / 2**12


def test_equal_constant_and_infinite_differences() -> None:
    people = [f"p{i}" for i in range(12)]
    base = np.linspace(0.2, 0.9, 12)
    runs = [made("a", {BODY: list(base)}, people), made("b", {BODY: list(base + 1e-13)}, people),
            made("c", {BODY: list(base + 0.125)}, people), made("d", {BODY: [math.inf] * 12}, people)]  # fmt: skip
    got = compare(runs)
    same, shifted, lost = (got[n, "ssim", "body"] for n in "bcd")
    assert (same.verdict, same.effect, same.superiority, same.clips_needed) == ("equal", 0.0, 0.5, None)
    assert shifted.verdict == "better" and shifted.effect == math.inf
    assert shifted.difference is not None and shifted.difference.low == shifted.difference.high == 0.125
    assert lost.verdict == "no test" and "infinite" in lost.why and lost.holm is None and got.family == 2
    assert json.loads(got.to_json())["cells"][1]["effect"] == "inf"


# --- statistics ------------------------------------------------------------------------------------------------------


def clustered(rng: np.random.Generator, people: int, each: int, skewed: bool) -> np.ndarray:
    """Differences of mean 0: half of their variance between identities, half within."""
    if skewed:
        return np.repeat(rng.exponential(1, people) - 1, each) + rng.exponential(1, people * each) - 1
    return np.repeat(rng.standard_normal(people), each) + rng.standard_normal(people * each)


@pytest.mark.parametrize(
    ("people", "skewed"), [(6, False), (6, True), (10, False), (10, True), (30, False), (30, True), (100, False)]
)
def test_coverage_and_false_positives(people: int, skewed: bool) -> None:
    """2,000 draws of 3 clips per identity; the standard error of a share is 0.005.

    Seen (coverage, false positives): 30 identities 0.947, 0.054 (exponential 0.952, 0.052), 100: 0.949, 0.047,
    10: 0.952, 0.051 (0.940, 0.073), 6: 0.958, 0.023 (0.922, 0.046). At 6 the exact test reaches 0.031 at best, and
    what Student's t does with exponential identities is why `compare` warns below 10. The plain percentile interval
    covers 0.942 and 0.920 at 30.
    """
    rng = np.random.default_rng(11)
    place = np.repeat(np.arange(people), 3)
    names, counts = place.astype(str), np.full(people, 3.0)
    hits = false = 0
    for k in range(2000):
        d = clustered(rng, people, 3, skewed)
        low, high, _, _ = interval(np.bincount(place, d), counts, resamples=2000)
        assert low is not None and high is not None
        hits += low <= 0 <= high
        false += flip(d, names, 200, k)[0] <= 0.05  # a seed each, so that the errors of few draws are independent
    low, high = (0.93, 0.97) if people >= 10 or not skewed else (0.89, 0.95)
    assert low <= hits / 2000 <= high
    low, high = (0.03, 0.07) if people >= 30 else (0.02, 0.08)
    assert low <= false / 2000 <= high


def test_forgetting_identities_would_not_do() -> None:
    """Clips as if they were people: 3 clips of one person are then three people. Seen: 0.81 instead of 0.95."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high, _, _ = interval(clustered(rng, 30, 3, False), np.ones(90))
        assert low is not None and high is not None
        hits += low <= 0 <= high
    assert hits / 1000 < 0.9


@pytest.mark.parametrize("people", [8, 25])
def test_standard_error_is_statsmodels_cluster_robust(people: int) -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    names = np.repeat(np.arange(people), rng.integers(1, 6, people))
    d = rng.standard_normal(len(names)) + rng.standard_normal(people)[names] + 0.3
    # statsmodels' small-sample factor is G / (G - 1) * (n - 1) / (n - 1) for a constant alone.
    fit = sm.OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds={"groups": names})
    sums, counts = np.bincount(names, d), np.bincount(names).astype(float)
    low, high, spread, method = interval(sums, counts)
    assert spread is not None and spread == pytest.approx(fit.bse[0] * math.sqrt(people), rel=1e-12)
    if people < 10:
        assert "Student" in method
        half = stats.t.ppf(0.975, people - 1) * fit.bse[0]
        assert (low, high) == (pytest.approx(d.mean() - half), pytest.approx(d.mean() + half))


def test_bootstrap_t_is_the_textbooks() -> None:
    """Efron and Tibshirani 12.5 written out, with other random numbers."""
    rng = np.random.default_rng(2)
    d = rng.exponential(1, 25)
    low, high, _, method = interval(d, np.ones(25))
    drawn = d[rng.integers(0, 25, (20_000, 25))]
    t = (drawn.mean(axis=1) - d.mean()) / (drawn.std(axis=1, ddof=1) / 5)
    want = d.mean() - np.quantile(t, [0.975, 0.025]) * d.std(ddof=1) / 5
    assert "bootstrap-t over 25" in method
    # 0.03: Monte Carlo error of both, 0.04 of the quantiles' own scale of 2 to 4 standard errors of 0.2.
    assert (low, high) == (pytest.approx(want[0], abs=0.03), pytest.approx(want[1], abs=0.06))


@pytest.mark.parametrize("people", [10, 30])
def test_sign_flips_are_scipys(people: int) -> None:
    rng = np.random.default_rng(people)
    names = np.repeat(np.arange(people), 3)
    d = clustered(rng, people, 3, True) * 1e-4 + 4e-5  # small units must not matter
    got = paired(d, np.zeros(len(d)), names.astype(str), draws=50_000)
    want = stats.permutation_test((np.bincount(names, d),), np.sum, permutation_type="samples",
                                  n_resamples=np.inf if people == 10 else 50_000, rng=0).pvalue  # fmt: skip
    assert not isinstance(got, str) and 0.001 < want < 0.9
    assert got.p == pytest.approx(want, abs=1e-12 if people == 10 else 0.008)
    assert ("exact" in got.test) == (people == 10)


def test_holm_is_statsmodels_over_all_tests_shown() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(3)
    people = [f"p{i // 2}" for i in range(24)]
    cells = [(m, r) for m in ("ssim", "psnr") for r in ("body", "face", "hands")]
    runs = [made(n, {c: list(rng.random(24) + shift * k / 8) for k, c in enumerate(cells)}, people)
            for n, shift in (("a", 0), ("b", 0.5), ("c", -0.7))]  # fmt: skip
    got = compare(runs)
    assert got.family == 12 == len(got.cells)
    raw = [c.difference.p for c in got.cells if c.difference]
    assert [c.holm for c in got.cells] == pytest.approx(list(multitest.multipletests(raw, method="holm")[1]))
    assert {c.verdict for c in got.cells} == {"better", "worse", "open"}
    assert compare(runs, metrics=["ssim"], regions=["face"]).family == 2


@pytest.mark.parametrize("effect", [0.02, 0.05, 0.2, 0.33, 0.5, 0.8, 1.2, -0.5])
def test_power_is_statsmodels(effect: float) -> None:
    test_power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    n = test_power.solve_power(effect_size=abs(effect), alpha=0.05, power=0.8)
    assert needed(effect) == math.ceil(n)
    for size in (5, 17, 200):
        assert power(effect, size) == pytest.approx(test_power.power(abs(effect), size, 0.05), abs=1e-6)


def test_numbers_needed_are_enough() -> None:
    """As many people as said give the sign-flip test the power said. Seen: 0.80."""
    rng = np.random.default_rng(4)
    people, each, gain = 40, 3, 0.5
    base = rng.random(people * each)
    names = [f"p{i // each}" for i in range(people * each)]
    runs = [
        made("a", {BODY: list(base)}, names),
        made("b", {BODY: list(base + clustered(rng, people, each, False))}, names),
    ]
    got = compare(runs, difference={"ssim": gain})["b", "ssim", "body"]
    assert got.asked == gain and got.identities_needed is not None and got.clips_needed == 3 * got.identities_needed
    true = needed(gain / math.sqrt(1 + 1 / each))  # variance of an identity's mean
    assert true is not None and got.identities_needed == pytest.approx(true, rel=0.5)  # from 40 people: +- 22 %
    found = 0
    for k in range(1000):
        d = clustered(rng, true, each, False) + gain
        found += flip(d, np.repeat(np.arange(true), each).astype(str), 400, k)[0] <= 0.05
    assert 0.76 <= found / 1000 <= 0.84
    assert needed(10) == 6 == identities_for(1) and needed(0) is None  # 2 / 2**6 < 0.05 < 2 / 2**5


# --- distances of sets -----------------------------------------------------------------------------------------------


def feature_states(rng: np.random.Generator, people: Sequence[str], shift: float, width: int = 400) -> list[Frechet]:
    """Two frames per clip; the reference is the same for every run."""
    real = np.random.default_rng(99)
    found = []
    for person in people:
        reference = real.standard_normal((2, width))
        found.append(
            Frechet(Moments.of(reference + rng.normal(shift, 0.5, (2, width)), person), Moments.of(reference, person))
        )
    return found


FVD: Cell = ("fvd", "body")


def test_distances_leave_out_identities_on_both_sides(tmp_path: Path) -> None:
    people = [f"p{i % 7}" for i in range(14)]
    rng = np.random.default_rng(5)
    states = {n: feature_states(rng, people, shift) for n, shift in (("a", 0.0), ("b", 0.2))}
    runs = [made(n, {}, people, {FVD: s}, tmp_path / n, metrics=()) for n, s in states.items()]
    got = compare(runs)["b", "fvd", "body"]
    total = {n: sum(s[1:], s[0]) for n, s in states.items()}
    left = np.array([total["b"].without(frozenset([p])).value() - total["a"].without(frozenset([p])).value()
                     for p in sorted(set(people))])  # fmt: skip
    d = got.difference
    assert d is not None and (d.n, d.identities) == (14, 7) and got.verdict == "worse"
    assert d.value == pytest.approx(total["b"].value() - total["a"].value(), rel=1e-9)
    half = stats.t.ppf(0.975, 6) * math.sqrt(6 / 7 * np.sum((left - left.mean()) ** 2))
    assert (d.low, d.high) == (pytest.approx(d.value - half, rel=1e-6), pytest.approx(d.value + half, rel=1e-6))
    assert d.p == 2 / 2**7 and got.effect is None and got.identities_needed is not None
    alone = [r.scores[0].ci95 for r in runs]
    assert all(ci and d.high is not None and d.low is not None and ci[1] - ci[0] > 0 for ci in alone)
    assert compare(runs[:1] * 2)["a #2", "fvd", "body"].verdict == "equal"


def test_why_distances_have_no_test(tmp_path: Path) -> None:
    people = ["p", "q", "r", "s"]
    rng = np.random.default_rng(6)
    states = feature_states(rng, people, 0.0)
    base = made("a", {}, people, {FVD: states}, tmp_path / "a", metrics=())
    other = made("b", {}, people, {FVD: feature_states(rng, people, 1.0)}, tmp_path / "b", metrics=())
    assert "has none" in compare([base, replace(other, folder=None)])["b", "fvd", "body"].why
    assert "are not those of its results" in compare([base, replace(other, folder=base.folder)]).cells[0].why
    few = made("c", {}, people, {FVD: feature_states(rng, people, 0.0, width=5)}, tmp_path / "c", metrics=())
    got = compare([few, few]).cells[0]
    assert "more features than dimensions" in got.why and got.verdict == "no test"
    assert any("No paired test for FVD" in note for note in compare([few, few]).notes)
    (tmp_path / "b" / "shards" / "000000.npz").write_bytes(b"PK broken")
    assert "cannot be read" in compare([base, other]).cells[0].why
    (tmp_path / "b" / "shards" / "000000.npz").unlink()
    assert "shards are gone" in compare([base, other]).cells[0].why


def test_identities_with_a_lost_clip_are_left_out_of_distances(tmp_path: Path) -> None:
    people = ["p", "p", "q", "r", "s"]
    rng = np.random.default_rng(7)
    full, other = feature_states(rng, people, 0.0), feature_states(rng, people, 0.3)
    base = made("a", {}, people, {FVD: full}, tmp_path / "a", metrics=())
    rest = [i for i in range(5) if i != 1]
    part = made("b", {}, [people[i] for i in rest], {FVD: [other[i] for i in rest]}, tmp_path / "b", metrics=())
    # Clip 1 of p is not in b at all; `made` counts clips, so their ids are put right.
    ids = [f"clip-{i:04d}" for i in rest]
    table = part.samples.set_column(0, "sample_id", [ids])
    got = compare([base, replace(part, samples=table)])["b", "fvd", "body"]
    want = [sum((s[i] for i in (3, 4)), s[2]).value() for s in (full, other)]
    assert got.difference is not None and (got.difference.n, got.difference.identities, got.absent) == (3, 3, 1)
    assert (got.theirs, got.ours) == (pytest.approx(want[0]), pytest.approx(want[1]))


@pytest.mark.slow
@pytest.mark.parametrize("people", [8, 30])
def test_coverage_of_distances(people: int, tmp_path: Path) -> None:
    """Two equal systems, 400 draws. Seen: coverage 0.957 and 0.970, false positives 0.030 (the jackknife is wide)."""
    from jwb_dh_v1.results.paired_sets import Features, paired_sets

    class Given(Features):
        def __init__(self, states: Sequence[Frechet]) -> None:
            self._distances = {}
            self._states = {FVD: {s.generated.groups[0]: (s.generated, s.reference) for s in states}}

    names = [f"p{i:02d}" for i in range(people)]
    rng = np.random.default_rng(8)
    hits = false = 0
    for _ in range(400):
        a, b = (Given([Frechet(Moments.of(s.generated.rows / 2**16 + rng.standard_normal(100), p), s.reference)
                       for s, p in zip(feature_states(rng, names, 0.0, 100), names, strict=True)])
                for _ in range(2))  # fmt: skip
        got = paired_sets(a, b, FVD, names, draws=400)
        assert not isinstance(got, str) and got.low is not None and got.high is not None and got.p is not None
        hits += got.low <= 0 <= got.high
        false += got.p <= 0.05
    assert 0.93 <= hits / 400 <= 0.995 and false / 400 <= 0.07


# --- regions ---------------------------------------------------------------------------------------------------------


def test_which_region_improved_most() -> None:
    rng = np.random.default_rng(9)
    people = [f"p{i // 2}" for i in range(40)]
    cells = [(m, r) for m in ("ssim", "psnr") for r in ("body", "face", "hands")]
    base = {c: rng.random(40) * (50 if c[0] == "psnr" else 1) for c in cells}

    def moved(name: str, gains: Mapping[str, float]) -> Result:
        scores = {(m, r): list(v + v.std() * (gains[r] + 0.1 * rng.standard_normal(40))) for (m, r), v in base.items()}
        return made(name, scores, people)

    start = made("start", {c: list(v) for c, v in base.items()}, people)
    runs = [
        start,
        moved("face", {"body": 0.2, "face": 1.0, "hands": 0.5}),
        moved("tied", {"body": 0.5, "face": 0.51, "hands": 0}),
        moved("worse", {"body": -0.5, "face": -1, "hands": -0.1}),
        start,
    ]
    face, tied, worse, same = compare(runs, "start #1").gains
    assert [r for r, _, _ in face.regions] == ["face", "hands", "body"] and "face improved most" in face.text
    # A gain of g standard deviations: r = g / sqrt(g**2 + 4).
    assert face.regions[0][1] == pytest.approx(1 / math.sqrt(5), abs=0.02)
    assert face.metrics == ("ssim", "psnr") and face.gap is not None and face.gap.p is not None and face.gap.p < 0.01
    assert "tied" in tied.text and tied.gap is not None and tied.gap.p is not None and tied.gap.p > 0.05
    assert "no region improved; hands lost least" in worse.text and "no region changed" in same.text
    alone = compare(runs[:2], regions=["face"]).gains[0]
    assert "cannot be said" in alone.text
    unseen = {**{c: list(v) for c, v in base.items()}, HANDS: ["skipped"] * 40, ("psnr", "hands"): ["skipped"] * 40}
    assert (
        "nothing to compare in hands" in compare([start, made("b", unseen | {BODY: [1.0] * 40}, people)]).gains[0].text
    )


# --- as people see it ------------------------------------------------------------------------------------------------


def shown(comparison: object, encoding: str = "utf-8") -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_compared(comparison, Console(file=buffer, width=100))  # type: ignore[arg-type]
    buffer.seek(0)
    return buffer.read()


def test_table_fits_a_terminal_and_says_what_it_shows() -> None:
    rng = np.random.default_rng(10)
    people = [f"p{i // 3}" for i in range(36)]
    base = rng.random(36)
    a = made("old", {BODY: list(base), FACE: list(base)}, people)
    b = made("new\x1b[2J", {BODY: list(base + 0.2 + 0.1 * rng.random(36)), FACE: ["failed", *base[1:]]}, people)
    text = shown(compare([a, b], difference=0.01))
    assert max(map(len, text.splitlines())) <= 100 and "\x1b" not in text
    found = compare([a, b])["new\x1b[2J", "ssim", "body"]
    assert found.difference is not None and found.holm is not None and found.difference.p is not None
    row = next(line for line in text.splitlines() if line.strip().startswith("body"))
    assert f"+{found.difference.value:.3f}" in row and "better" in row and "100 %" in row
    assert f"{found.difference.p:.4f}" in row and f"{found.holm:.4f}" in text
    assert (
        "f 1" in text
        and "equal" in text
        and "the given difference" in text
        and "Holm's correction is over the 2" in text
    )
    assert shown(compare([a, replace(b, name="new")]), "ascii").isascii()


def test_two_real_runs(teaser_dir: Path, systems_dir: Path, tmp_path: Path) -> None:
    from jwb_dh_v1.data.pairs import pair

    runs = []
    for name in ("copy", "blurred"):
        samples = pair(systems_dir / name, teaser_dir)
        one_each = [sample for sample in samples if sample.id.endswith("-1")]
        options = {"protocol": "lite", "device": "cpu", "data": samples.data, "out": tmp_path / name}
        runs.append(score(one_each, ["ssim", "psnr"], ["body"], **options))
    got = compare([Result.load(run.folder) for run in runs if run.folder])
    cell = got["blurred", "ssim", "body"]
    assert cell.difference is not None and (cell.theirs, cell.superiority) == (1.0, 0.0)
    assert cell.ours == pytest.approx(runs[1]["ssim", "body"].value)
    # Four people: the exact test cannot go below 1/8, and the comparison says so instead of a verdict.
    assert (cell.difference.identities, cell.difference.p, cell.verdict) == (4, 0.125, "open")
    assert any("With 4 identities p cannot be below 0.125" in note for note in got.notes)
    assert asdict(cell)["metric"] == "ssim" and Fraction(1, 8) == cell.difference.p
    with pytest.raises(PlanMismatch, match="data"):
        compare([runs[0], changed(runs[1], data="parquet:other")])
