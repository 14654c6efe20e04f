"""The report, its drawings and the tables, on real runs: well formed, self-contained, complete, and safe to open."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_pages import BAD_FRAME, HOSTILE, Page, check_sound, jpegs, make_samples, page, picture, run, shown
from rich.console import Console

from jwb_dh_v1 import Clip, Result, score
from jwb_dh_v1.analysis.wording import decimals, number
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.speech import word_errors
from jwb_dh_v1.report.drawing import Mark, curve_plot, frame_plot, interval_plot
from jwb_dh_v1.report.report import write_comparison, write_report
from jwb_dh_v1.report.tables import print_comparison, print_table
from jwb_dh_v1.scoring.result import Row, Score, rows_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def sharp(folder: Path) -> tuple[Result, list[Sample]]:
    return run(folder, "sharp", 0.6)


@pytest.fixture(scope="module")
def blurred(folder: Path) -> tuple[Result, list[Sample]]:
    return run(folder, "blurred", 3)


def test_report_holds_every_score_and_nothing_from_outside(folder: Path, blurred: tuple[Result, list[Sample]]) -> None:
    result, samples = blurred
    assert [s.n for s in result.scores] == [3, 3, 3, 3] and not result.complete
    path = folder / "made" / "here" / "report.html"
    write_report(result, samples, path)
    found = page(path)
    check_sound(found)
    assert shown(found) == Counter(repr(s.value) for s in result.scores)
    cells = found.texts["td"]
    for s in result.scores:
        assert s.ci95 is not None
        digits = decimals(x for x in result.scores if x.metric == s.metric)
        low, high = (number(v, digits) for v in s.ci95)
        assert any(f"[{low}, {high}]" in c and "n 3, 1 skipped, 1 failed" in c for c in cells), s
    facts = " ".join(found.texts["li"])
    assert "standard/1" in facts and "5 samples" in facts and "incomplete" in facts
    assert "stand-in" not in found.source
    assert result.plan["data"] in found.texts["code"] and result.versions["numpy"] in found.texts["code"]
    assert path.stat().st_size < 2_000_000
    again = folder / "again.html"
    write_report(result, make_samples(folder, 3), again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.filterwarnings("error")
def test_hostile_names_and_messages_are_text(folder: Path, blurred: tuple[Result, list[Sample]]) -> None:
    result, samples = blurred
    path = folder / "hostile.html"
    name = f"{HOSTILE} $\\frac{{1}}{{2$ 数字人\u202e\x00"
    write_report(replace(result, name=name), samples, path)
    found = page(path)
    check_sound(found)
    assert HOSTILE in found.texts["h1"][0] and "\x00" not in found.source
    assert HOSTILE in found.texts["code"]
    row = next(row for row in result.rows() if row.status == "failed")
    assert "<b>gone & lost.mp4" in row.message and row.message in found.texts["td"]
    assert any("Failed: Unreadable, 1 sample, 4 scores" in text for text in found.texts["summary"])
    assert any("Skipped: NotApplicable, 1 sample, 4 scores" in text for text in found.texts["summary"])
    write_comparison([replace(result, name=name), replace(result, name="plain")], path)
    check_sound(page(path))


def test_worst_frame_is_shown_beside_the_reference(folder: Path, blurred: tuple[Result, list[Sample]]) -> None:
    result, samples = blurred
    path = folder / "worst.html"
    write_report(result, samples, path)
    found = page(path)
    ours, theirs = (jpegs(found, f"Worst frame {BAD_FRAME} of clip-2, {side}") for side in ("generated", "reference"))
    assert ours and theirs
    assert ours[0].mean() < 10  # the black frame, but for the drawing of the codec
    truth = Clip(folder / "real-2.mp4").frames[BAD_FRAME].astype(float)
    assert np.abs(theirs[0] - truth).mean() < 4
    assert len(jpegs(found, f"Worst frame {BAD_FRAME} of clip-2, reference, the face only")) == 1
    # The face box of the annotations, on a picture of the frame's own size.
    assert re.search(r'<rect x="40.0" y="20.0" width="40.0" height="40.0" fill="none" stroke="#F0E442"', found.source)
    # Clips decode for the pictures without keeping their frames.
    fresh = make_samples(folder, 3)
    write_report(result, fresh, path)
    assert all(sample.generated._frames is None for sample in fresh[:3])


def test_without_samples_or_models_the_report_says_what_it_leaves_out(
    folder: Path, blurred: tuple[Result, list[Sample]]
) -> None:
    result, samples = blurred
    path = folder / "bare.html"
    write_report(Result.load(folder / "blurred"), None, path)
    found = page(path)
    check_sound(found)
    assert found.tags["image"] == 0
    assert "No pictures: the samples were not given to the report." in found.texts["p"]
    assert any(f"worst at frame {BAD_FRAME}" in label for label in found.all("aria-label"))
    write_report(result, samples[:1], path)
    assert "No pictures: the samples given to the report do not hold this one." in page(path).texts["p"]
    gone = [replace(s, generated=Clip(folder / "moved.mp4")) for s in samples]
    write_report(result, gone, path)
    assert any(p.startswith("No pictures: ") and "moved.mp4" in p for p in page(path).texts["p"])
    other = [replace(s, generated=Clip(picture(9))) for s in samples]
    write_report(result, other, path)
    assert "No pictures: the file is not the one that was scored." in page(path).texts["p"]
    bare = [replace(s, reference=s.reference and Clip(folder / "real-0.mp4")) for s in make_samples(folder, 3)]
    write_report(replace(result, plan={**result.plan, "boxes": "none"}), bare, path)
    found = page(path)
    assert found.tags["image"] > 0
    assert "No boxes: only whole frames were scored." in found.texts["p"]


def test_comparison(folder: Path, sharp: tuple[Result, list[Sample]], blurred: tuple[Result, list[Sample]]) -> None:
    results = [Result.load(folder / "sharp"), Result.load(folder / "blurred")]
    write_report(sharp[0], None, folder / "sharp" / "report.html")
    path = folder / "report.html"
    write_comparison(results, path)
    found = page(path)
    check_sound(found)
    assert shown(found) == Counter(repr(s.value) for r in results for s in r.scores)
    # Sharp is better in every row, and marked so in words too.
    assert found.all("class").count("num best") == 4
    best = [text for text in found.texts["td"] if "(best)" in text]
    expected = [number(results[0][m, r].value, 9)[:5] for m in ("ssim", "psnr") for r in ("body", "face")]
    assert [text.strip()[:3] for text in best] == [value[:3] for value in expected]
    assert [h for h in found.all("href") if h.endswith(".html")] == ["sharp/report.html"]
    write_comparison([results[0], replace(results[1], plan={**results[1].plan, "decoder": "other"})], path)
    assert any(p.startswith("The systems were scored with different decoder") for p in page(path).texts["p"])
    paper = run(folder, "paper", 1, "paper")[0]
    for refuse in (lambda: write_comparison([results[0], paper], path), lambda: print_comparison([results[0], paper])):
        with pytest.raises(SetupError, match="one protocol"):
            refuse()


def test_paper_protocol_with_infinite_scores(tmp_path: Path) -> None:
    clip = picture(1)
    samples = [Sample(f"s{i}", Clip(clip), Clip(clip), person_id=str(i)) for i in range(2)]
    samples.append(Sample("other", Clip(picture(2)), Clip(picture(3))))
    result = score(samples, ("ssim", "psnr", "csim"), ("body",), protocol="paper", device="cpu", name="equal")
    assert result["psnr", "body"].value == math.inf
    write_report(result, samples, tmp_path / "r.html")
    found = page(tmp_path / "r.html")
    check_sound(found)
    assert shown(found)["inf"] == 1 and any("∞" in text for text in found.texts["data"])
    assert any(label.startswith("PSNR") and "body ∞" in label for label in found.all("aria-label"))
    assert not any("PSNR of s0" in label for label in found.all("aria-label"))  # a perfect sample is no worst one


HARD = ("the cat sat", "once a cat was sitting down")


def speech_result() -> Result:
    """What a WER run leaves, from the metric's own function."""
    texts = {"easy": ("the cat sat", "the cat sat"), "hard": HARD, "mute": ("hi you", "")}
    facts = {name: word_errors(*pair) for name, pair in texts.items()}
    rows = [Row(n, n, "wer", "speech", f["wer"], 1, 1.0, "ok", facts=json.dumps(f)) for n, f in facts.items()]
    mean = sum(f["wer"] for f in facts.values()) / 3
    cell = Score("wer", "speech", mean, 3, 0, 0, None, "none: made up", False, (0, None), "", 1.0, "Whisper tiny.en")
    plan = {"protocol": "lite/1", "boxes": "none", "weights": {"whisper": "ab" * 32}, "data": "", "cells": []}
    return Result("speaker", "lite/1", True, (cell,), plan, {"numpy": "2"}, "cpu", rows_table(rows))


def test_word_errors_are_marked(tmp_path: Path) -> None:
    write_report(speech_result(), None, tmp_path / "r.html")
    found = page(tmp_path / "r.html")
    check_sound(found)
    table = found.source[found.source.index('id="words"') : found.source.index('id="failures"')]
    names = re.findall(r"<code>(easy|hard|mute)</code>", table)
    assert names == ["hard", "mute", "easy"]  # most errors first
    errors = word_errors(*HARD)
    counts = [str(errors[key]) for key in ("substitutions", "deletions", "insertions", "words")]
    hard = next(text for text in found.texts["tr"] if text.startswith("hard"))
    assert hard.startswith("hard" + number(errors["wer"], 3) + "".join(counts))
    pieces = {tag: " ".join(found.texts[tag]).split() for tag in ("del", "ins", "mark")}
    assert "hi" in pieces["del"] and len(pieces["mark"]) == 2 * errors["substitutions"] + len(["substituted"])
    assert len(pieces["ins"]) == errors["insertions"] + len(["inserted"])
    assert "nothing was heard" in found.texts["td"]
    assert "never with published numbers" in " ".join(found.texts["p"])
    assert "ab" * 32 in found.texts["code"]


def printed(width: int = 100, encoding: str = "utf-8") -> tuple[Console, io.TextIOWrapper]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(file=stream, width=width, color_system=None), stream


def text_of(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode(stream.encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "encoding"), [(100, "utf-8"), (200, "utf-8"), (80, "ascii")])
def test_table_text(blurred: tuple[Result, list[Sample]], width: int, encoding: str) -> None:
    result = replace(blurred[0], name="[bold]name[/nonsense]")
    console, stream = printed(width, encoding)
    print_table(result, console)
    text = text_of(stream)
    assert max(map(len, text.splitlines())) <= min(100, width)
    assert "[bold]name[/nonsense] - standard/1 - INCOMPLETE" in text
    for s in result.scores:
        digits = decimals(x for x in result.scores if x.metric == s.metric)
        assert number(s.value, digits) in text
        assert f"[{number(s.ci95[0], digits)}, {number(s.ci95[1], digits)}]" in text  # type: ignore[index]
    assert text.count("n 3 s 1 f 1") == 4
    assert ("SSIM (higher)" if encoding == "ascii" else "SSIM ↑") in text


def test_comparison_text(sharp: tuple[Result, list[Sample]], blurred: tuple[Result, list[Sample]]) -> None:
    results = [replace(sharp[0], name=f"sharp-{i}-with-a-long-name") if i else blurred[0] for i in range(14)]
    console, stream = printed()
    print_comparison(results, console)
    text = text_of(stream)
    assert max(map(len, text.splitlines())) <= 100
    digits = decimals(r["ssim", "body"] for r in results)
    top = f"*{number(sharp[0]['ssim', 'body'].value, digits)}"
    low = number(blurred[0]["ssim", "body"].value, digits)
    assert text.count(top) >= 13 and f"*{low}" not in text and low in text
    assert text.count("14 systems - standard/1") == 3


def test_numbers() -> None:
    def one(value: float, half: float | None) -> Score:
        ends = None if half is None else (value - half, value + half)
        return Score("m", "body", value, 2, 0, 0, ends, "", True, (None, None), "", 1.0, "")

    assert decimals([one(0.9, 0.011)]) == 3
    assert decimals([one(51.0, 30.0)]) == 0
    assert decimals([one(31.0, 1.4)]) == 1
    assert decimals([one(0.5, 1e-13)]) == 3  # an interval of rounding errors is none
    assert decimals([one(31.4159, None)]) == 2
    assert decimals([one(math.inf, None)]) == 3
    assert decimals([one(0.95, 0.05), one(0.97, 0.02), one(1.0, 0.00003)]) == 3
    assert [number(v, 2) for v in (None, math.nan, math.inf, -1.234, 5)] == ["–", "–", "∞", "−1.23", "5.00"]


def test_drawings_stand_alone() -> None:
    marks = [Mark("a", "body", 0.5, "0.50", (0.4, 0.6), (0.3, 0.7)), Mark("b & <c>", "body", None, "–", series=1)]
    plot = interval_plot(marks, title="SSIM", higher_is_better=True, limits=(-1, 1))
    assert plot == interval_plot(marks, title="SSIM", higher_is_better=True, limits=(-1, 1))
    curve = curve_plot([3, 4, 5], [1.0, math.nan, 0.5], title="x", higher_is_better=False, marked={"worst": 0})
    nowhere = np.full(4, np.nan)
    frame = frame_plot(picture(0)[0], {"face": np.array([5, 5, 50, 60.0]), "left_hand": nowhere}, "a frame")
    for svg in (plot, curve, frame):
        assert Page(svg).tags["svg"] == 1
    assert "b &amp; &lt;c&gt;" in plot and "better →" in plot and "worst (3)" in curve
    assert "left hand" not in frame and frame.count("<rect") == 3
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
