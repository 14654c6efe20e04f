"""`compare` on the teaser's six systems: what was done to each must be read from its differences alone.

The expectations come from how the systems are made (`data/systems.py`), not from what was seen. The stored runs are of
eight clips of four people, whose sign-flip test cannot go below 0.125: that nothing is significant is one of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import made
from test_compare import shown

from jwb_dh_v1 import Result
from jwb_dh_v1.analysis.compare import KINDS, Changes, Comparison, compare
from jwb_dh_v1.cli import main
from jwb_dh_v1.errors import SetupError

Cell = tuple[str, str]
GOLDEN = Path(__file__).parents[1] / "golden" / "systems"
SYSTEMS = ("copy", "recompressed", "blurred", "frozen", "swapped", "garbled")
WER: Cell = ("wer", "speech")
DYNAMIC = {("dynamic_degree", "body"), ("dynamic_degree", "face")}
STEADY = {(m, r) for m in ("subject_consistency", "background_consistency", "motion_smoothness")
          for r in ("body", "face")}  # fmt: skip
PIXELS = {(m, r) for m in ("ssim", "psnr") for r in ("body", "face", "hands")}
LIKENESS: Cell = ("csim", "face")
# Of each system: what must fall, what must rise, what cannot differ on any clip, and of what nothing may be claimed.
DONE: dict[str, tuple[set[Cell], set[Cell], set[Cell], set[Cell]]] = {
    # Other pixels, the same motion and sound.
    "recompressed": (PIXELS | {LIKENESS}, set(), {WER, *DYNAMIC}, set()),
    # Other pixels; fine texture is gone, so that what is left moves more smoothly, and no less. The sound is the same.
    "blurred": (PIXELS | {LIKENESS}, {("motion_smoothness", "body"), ("motion_smoothness", "face")}, {WER}, DYNAMIC),
    # The first frame throughout: no motion, perfect steadiness, other pixels in every later frame, the same sound.
    "frozen": (PIXELS | DYNAMIC | {LIKENESS}, STEADY, {WER}, set()),
    # Another person's real clip: no likeness, no pixel in place; how steady that person is says nothing.
    "swapped": (PIXELS | {LIKENESS}, set(), {WER}, STEADY | DYNAMIC),
    # The same pictures bit by bit under another speech.
    "garbled": ({WER}, set(), PIXELS | DYNAMIC | STEADY | {LIKENESS}, set()),
}


@pytest.fixture(scope="module")
def runs() -> dict[str, Result]:
    return {system: Result.load(GOLDEN / system) for system in SYSTEMS}


@pytest.fixture(scope="module")
def against_copy(runs: dict[str, Result]) -> Comparison:
    return compare(list(runs.values()), "copy")


def fits(found: Changes, system: str) -> bool:
    """Whether what was found is what was done to a system."""
    down, up, equal, unclaimed = DONE[system]
    return (
        down <= found["down"] and up <= found["up"] and equal <= found["equal"]
        and not (unclaimed | up) & found["down"] and not (unclaimed | down) & found["up"]
    )  # fmt: skip


@pytest.mark.parametrize("system", DONE)
def test_what_was_done_to_each_system_shows_in_its_differences_alone(system: str, against_copy: Comparison) -> None:
    (found,) = (one for one in against_copy.changes if one.run == system)
    down, up, equal, unclaimed = DONE[system]
    assert down <= found["down"]
    assert up <= found["up"]
    assert equal <= found["equal"]
    assert not found["down"] & (up | unclaimed) and not found["up"] & (down | unclaimed)
    assert (found.clips, found.identities) == (8, 4)


def test_no_system_shows_what_was_done_to_another(against_copy: Comparison) -> None:
    """One is a special case: a picture coded again is, in these metrics, a little blurred; the amount tells them."""
    told = {found.run: [system for system in DONE if fits(found, system)] for found in against_copy.changes}
    blurred = told.pop("blurred")
    assert "blurred" in blurred and set(blurred) <= {"blurred", "recompressed"}
    recompressed = told.pop("recompressed")
    assert "recompressed" in recompressed and set(recompressed) <= {"blurred", "recompressed"}
    assert told == {system: [system] for system in told}


def test_blurred_is_beyond_recompressed_and_the_others_beyond_both(runs: dict[str, Result]) -> None:
    """Coding at CRF 35 is the mildest; a blur of 5 pixels costs more; another person or time costs most."""
    found = {c.run: c for c in compare(list(runs.values()), "recompressed").changes}
    for system in ("blurred", "frozen", "swapped"):
        assert {("ssim", "body"), ("psnr", "body"), ("ssim", "face"), ("psnr", "face")} <= found[system]["down"], system
    assert PIXELS | {LIKENESS} <= found["copy"]["up"] & found["garbled"]["up"]
    # Of all, the swapped person's face is least alike: against every other system, on every clip.
    for system, run in runs.items():
        if system != "swapped":
            (one,) = compare([run, runs["swapped"]], metrics=["csim"]).changes
            assert one["worse on every clip"] == {LIKENESS}, system
            cell = compare([run, runs["swapped"]])["swapped", *LIKENESS]
            assert cell.difference is not None and cell.difference.low is not None and cell.difference.above == 0


@pytest.mark.parametrize("system", DONE)
def test_intervals_over_people_exclude_no_difference_where_the_damage_is_even(
    system: str, against_copy: Comparison
) -> None:
    """Intervals are wide with four people (t at 99 %), but damage that hits every picture alike is seen even so."""
    must = {
        "recompressed": [("ssim", "body"), ("ssim", "face"), ("psnr", "body"), ("psnr", "face")],
        "blurred": [("ssim", "body"), ("ssim", "face"), ("psnr", "body"), ("psnr", "face")],
        "frozen": [*DYNAMIC, ("ssim", "body"), ("psnr", "body"), LIKENESS],
        "swapped": [("ssim", "body"), ("ssim", "face"), ("psnr", "body"), LIKENESS],
        "garbled": [],
    }[system]
    if system == "garbled":  # a word error rate of four people has no interval that covers
        gap = against_copy[system, *WER].difference
        assert gap is not None and gap.low is None and gap.method.startswith("none: 4 identities are too few")
    for cell in must:
        d = against_copy[system, *cell].difference
        assert d is not None and d.low is not None and d.high is not None and d.low * d.high > 0, cell


def test_with_four_people_nothing_is_claimed_of_others(against_copy: Comparison) -> None:
    assert {cell.verdict for cell in against_copy.cells} == {"open", "equal", "no test"}
    for found in against_copy.changes:
        assert not found["worse"] and not found["better"]
    notes = " ".join(against_copy.notes)
    assert "With 4 identities p cannot be below 0.125" in notes and "takes 6 identities for one test" in notes
    assert "--unit clip" in notes


# --- the clip as unit ------------------------------------------------------------------------------------------------


def test_of_these_people_the_words_are_significantly_others(runs: dict[str, Result]) -> None:
    """Eight of eight clips: 2 / 2**8. No other metric differs on any clip, so that none has to be corrected for."""
    found = compare([runs["copy"], runs["garbled"]], unit="clip")
    cell = found["garbled", *WER]
    assert cell.verdict == "worse" and cell.holm == cell.difference.p == 2 / 2**8  # type: ignore[union-attr]
    assert found.changes[0]["worse"] == {WER} and found.changes[0]["down"] == {WER}
    assert any("holds for other clips of these people" in note for note in found.notes)
    # As people, they are four: the same numbers say no more than they can.
    assert compare([runs["copy"], runs["garbled"]])["garbled", *WER].verdict == "open"


@pytest.mark.parametrize("system", ["recompressed", "blurred", "frozen", "swapped"])
def test_of_these_people_the_pictures_are_significantly_worse_and_the_words_are_not(
    system: str, runs: dict[str, Result]
) -> None:
    """A family chosen beforehand: with eight clips Holm's correction bears 6 tests (6 * 2 / 2**8 < 0.05)."""
    family = {"metrics": ["ssim", "psnr", "csim", "wer"], "regions": ["body", "face", "speech"]}
    found = compare([runs["copy"], runs[system]], unit="clip", **family)  # type: ignore[arg-type]
    assert found.family == 6
    assert found.changes[0]["worse"] == {(m, r) for m in ("ssim", "psnr") for r in ("body", "face")} | {LIKENESS}
    assert found[system, *WER].verdict == "equal"
    for cell in found.cells:
        d = cell.difference
        assert d is not None
        assert (d.high is not None and d.high < 0) or (cell.metric, cell.region) == WER


def test_of_these_people_a_frozen_picture_moves_significantly_less(runs: dict[str, Result]) -> None:
    """Two of eight clips stand still in the original, so that six signs are left: 2 / 2**6, enough for one test."""
    found = compare([runs["copy"], runs["frozen"]], unit="clip", metrics=["dynamic_degree"], regions=["body"])
    cell = found["frozen", "dynamic_degree", "body"]
    assert (cell.verdict, cell.holm, cell.ours) == ("worse", 2 / 2**6, 0.0)
    swapped = compare([runs["copy"], runs["swapped"]], unit="clip", metrics=["dynamic_degree", "subject_consistency"])
    assert {c.verdict for c in swapped.cells} == {"open", "no test"}


def test_a_smaller_unit_gives_no_wider_interval_where_people_differ(runs: dict[str, Result]) -> None:
    """Obama's clips lose far more likeness by blur than others': of other people that says little."""
    pair = [runs["copy"], runs["blurred"]]
    person, clip = (compare(pair, unit=unit)["blurred", *LIKENESS].difference for unit in ("identity", "clip"))  # type: ignore[arg-type]
    assert person is not None and clip is not None and person.value == clip.value
    assert None not in (person.low, person.high, clip.low, clip.high)
    assert clip.high - clip.low < person.high - person.low  # type: ignore[operator]
    assert (person.clusters, clip.clusters) == (4, 8) and "clips" in clip.method and "clips" in clip.test


def test_distances_of_sets_have_no_test_by_clip(runs: dict[str, Result]) -> None:
    found = compare([runs["copy"], runs["swapped"]], unit="clip")
    assert "by identities" in found["swapped", "fid", "body"].why
    assert ("fid", "body") in found.changes[0]["untested"]
    with pytest.raises(SetupError, match="no unit 'frame'; there are identity, clip"):
        compare([runs["copy"], runs["swapped"]], unit="frame")  # type: ignore[arg-type]


# --- as people see it ------------------------------------------------------------------------------------------------


def test_the_terminal_says_what_differs(against_copy: Comparison) -> None:
    text = shown(against_copy)
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    assert (
        "garbled against copy, 8 clips of 4 identities: worse on every clip: WER (speech) equal on every clip:" in flat
    )
    assert "worse on average, 0 outside the interval: Dynamic degree (body, face)" in flat  # frozen
    assert flat.count("equal on every clip: WER (speech)") == 2  # frozen, swapped; the motion of others, too
    assert "no region improved; hands lost least, face most" in flat
    for change in against_copy.changes:
        kinds = [cell for kind in KINDS for cell in change.kinds[kind]]
        cells = [(c.metric, c.region) for c in against_copy.cells if c.run == change.run]
        assert sorted(kinds) == sorted(cells)  # each cell is in one line


def test_the_command_takes_the_unit_and_writes_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # the caller's wish would go before ours
    out = tmp_path / "found.json"
    runs = [str(GOLDEN / "copy"), str(GOLDEN / "garbled")]
    assert main(["compare", *runs, "--unit", "clip", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) == 100  # a table that goes into a file breaks no name
    assert "worse, corrected p <= 0.05: WER (speech)" in printed and "p: sign flips of clips" in " ".join(
        printed.split()
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["unit"] == "clip" and found["changes"][0]["kinds"]["worse"] == [["wer", "speech"]]
    assert found["changes"][0]["text"][1] == "worse, corrected p <= 0.05: WER (speech)"


def test_kinds_by_hand() -> None:
    """Twelve people: what the test shows goes before what the clips show, and that before the interval."""
    people = [f"p{i}" for i in range(12)]
    base = np.linspace(0.2, 0.5, 12)
    uneven = np.array([-0.01, -0.02, *np.linspace(0.02, 0.12, 10)])
    ways = {
        ("ssim", "body"): np.full(12, 0.1) + base / 10,  # significant after the correction
        ("ssim", "face"): uneven,  # on average
        ("ssim", "hands"): np.tile([0.1, -0.1], 6),  # nothing
        ("psnr", "body"): np.zeros(12),
        ("psnr", "face"): -uneven,
    }
    scores: dict[Cell, list[float]] = {cell: list(base) for cell in ways}
    moved = {cell: list(base + d) for cell, d in ways.items()}
    (found,) = compare([made("a", scores, people), made("b", moved, people)]).changes
    assert found["better"] >= {("ssim", "body")} and found["equal"] == {("psnr", "body")}
    assert ("ssim", "hands") in found["open"] and ("ssim", "face") in found["up"] and ("psnr", "face") in found["down"]
    few = [{cell: row[:3] for cell, row in of.items()} for of in (scores, moved)]
    (found,) = compare([made("a", few[0], people[:3]), made("b", few[1], people[:3])]).changes
    assert ("ssim", "body") in found["better on every clip"] and not found["better"]
    assert found.text[0] == "b against a, 3 clips of 3 identities:"
