"""Comparisons of runs: pairs by hand, which region improved most, and what people see."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_runs import (
    changed,
    made,
)
from rich.console import Console

from jwb_dh_v1 import Result, score
from jwb_dh_v1.analysis.comparable import comparable, differing, labels, require_comparable
from jwb_dh_v1.analysis.compare import compare
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.networks.detectors import DETECTOR_WEIGHTS
from jwb_dh_v1.networks.weights import FILES
from jwb_dh_v1.report.tables import print_compared

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
    detectors = {name: FILES[name].sha256 for of in DETECTOR_WEIGHTS.values() for name in of}
    plans = [{"weights": {"net": v * 5}} if key == "weights.net" else {key: v, "weights": detectors}
             for v in (ours, theirs)]  # fmt: skip
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
    assert "boxes" in differing(whole, changed(whole, boxes="none"))
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
    assert d is not None and (d.n, d.clusters) == (3, 2)
    assert d.value == pytest.approx(0.4 / 3) and got.effect == pytest.approx(0.4 / 3 / np.std([0.1, 0.3, 0], ddof=1))
    assert got.superiority == pytest.approx(2.5 / 3) and d.p == 1 == d.smallest_p
    # Only p's clips differ: there is no second sign to flip.
    e = np.array([0.4 - 0.4 / 3 * 2, -0.4 / 3])
    assert d.spread == pytest.approx(math.sqrt(2) * math.sqrt(2 * np.sum(e**2)) / 3)
    assert (d.low, d.high, d.method) == (None, None, "none: 2 identities are too few for an interval that covers")
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
    assert shifted.difference is not None and shifted.difference.method == "none: the identities do not differ"
    assert lost.verdict == "no test" and "infinite" in lost.why and lost.holm is None and got.family == 2
    assert json.loads(got.to_json())["cells"][1]["effect"] == "inf"


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
    from jwb_dh_v1.dataset.pairs import pair

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
    assert (cell.difference.clusters, cell.difference.p, cell.verdict) == (4, 0.125, "open")
    assert any("With 4 identities p cannot be below 0.125" in note for note in got.notes)
    assert asdict(cell)["metric"] == "ssim" and Fraction(1, 8) == cell.difference.p
    with pytest.raises(PlanMismatch, match="data"):
        compare([runs[0], changed(runs[1], data="parquet:other")])
