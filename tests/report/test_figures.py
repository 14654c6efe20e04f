"""The report's videos, sheets and limits, the ranking behind them, and the drawings for a paper."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import av
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from report_pages import FRAMES, HEIGHT, WIDTH, check_sound, page, run

from jwb_dh_v1 import Clip, Result
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report import report, timeline
from jwb_dh_v1.report import timeline as film
from jwb_dh_v1.report.charts import bars, distribution, goodness, on_radar, radar, radar_axes, write_plots
from jwb_dh_v1.report.drawing import PAPER, Mark, settings
from jwb_dh_v1.report.summary import rank
from jwb_dh_v1.scoring.result import Row, Score, rows_table

Run = tuple[Result, list[Sample]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def blurred(folder: Path) -> Run:
    return run(folder, "blurred", 3)


def videos(text: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r'src="data:video/mp4;base64,([^"]+)"', text)]


def test_the_videos_show_both_clips_frame_by_frame(folder: Path, blurred: Run) -> None:
    report.write_report(*blurred, folder / "report.html")
    found = page(folder / "report.html")
    check_sound(found)
    films = videos(found.source)
    assert len(films) == 2 and found.tags["video"] == 2
    shown = [text for text in found.texts["code"] if text.startswith("clip-")]
    assert shown[0] == "clip-2"  # the one with the black frame is the worst
    with av.open(io.BytesIO(films[0])) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        assert container.streams.video[0].codec_context.name == "h264"
        assert float(container.streams.video[0].average_rate) == 25
    assert frames.shape == (FRAMES, HEIGHT, 2 * WIDTH + 4, 3)
    ours, theirs = Clip(folder / "clip-2-3.mp4").frames, Clip(folder / "real-2.mp4").frames
    # libx264 at 28 on pictures of saturated noise: 4.7 and 6.1 seen; a frame late is 24.
    sides = (frames[:, :, :WIDTH].astype(float), frames[:, :, WIDTH + 4 :].astype(float))
    apart = [np.abs(side - clip).mean() for side, clip in zip(sides, (ours, theirs), strict=True)]
    late = np.abs(sides[1] - np.roll(theirs, 1, axis=0)).mean()
    assert max(apart) < 8 < late, (apart, late)
    assert all(np.abs((s - c).mean(axis=(0, 1, 2))).max() < 3 for s, c in zip(sides, (ours, theirs), strict=True))
    assert "The clip has no sound." in found.source  # clip-2; clip-1 has some
    assert "No word timeline" in found.source
    sheets = re.findall(r'<img alt="([^"]*)" width="(\d+)" height="(\d+)"', found.source)
    assert len(sheets) == 2 and all("reference" in alt and int(width) <= 1080 for alt, width, _ in sheets)


def test_a_curve_lies_at_its_frames(blurred: Run) -> None:
    result, samples = blurred
    player = timeline.Player(rank(result, 1)[0][0], "worst")
    words = {"clip-2": [{"word": w, "start": a, "end": b} for w, a, b in (("a", 0.1, 0.2), ("late", 5, 6))]}
    task = timeline.tasks([player], result, words)[0]
    task.make(samples[2])
    lane = next(x for x in player.lanes if (x.name, x.region) == ("SSIM", "body"))
    assert lane.times == pytest.approx([(k + 0.5) / 25 for k in range(FRAMES)], abs=1e-3)
    assert lane.worst[0] == pytest.approx(100 * 9.5 / FRAMES)  # the black frame
    assert min(v for v in lane.values if v is not None) == lane.values[9]
    assert player.words == [(0, pytest.approx(100 * 0.1 * 25 / FRAMES), pytest.approx(100 * 0.1 * 25 / FRAMES),
                             "a", 0.1, 0.2)]  # fmt: skip


def test_a_long_clip_is_cut_around_its_worst_moment(blurred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result, samples = blurred
    monkeypatch.setattr(timeline, "SECONDS", 0.4)
    player = timeline.Player(rank(result, 1)[0][0], "worst")
    timeline.tasks([player], result, None)[0].make(samples[2])
    assert player.length == pytest.approx(0.4) and player.begin == pytest.approx(4 / 25)  # 4..13 hold frame 9
    assert "Shown: 0.2 to 0.6 s of 1.0 s." in player.notes
    lane = next(x for x in player.lanes if (x.name, x.region) == ("SSIM", "body"))
    assert len(lane.times) == 10 and lane.worst[0] == pytest.approx(55)


def test_the_report_stays_small(folder: Path, blurred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result, samples = blurred
    sample = samples[1]
    normal = film.encode(sample, 0, FRAMES, 10**6)
    tight = film.encode(sample, 0, FRAMES, 4 * len(normal.data) // 3 - 1)
    assert len(tight.data) < len(normal.data) and "coarser" in tight.notes[0]
    with pytest.raises(film.NotShown, match="too large"):
        film.encode(sample, 0, FRAMES, 1000)
    path = folder / "small.html"
    report.write_report(result, samples, path)
    full = path.stat().st_size
    media = sum(len(m) for m in re.findall(r"data:video/mp4[^\"]+", path.read_text(encoding="utf-8")))
    monkeypatch.setattr(report, "LIMIT", full - media // 2)
    report.write_report(result, samples, path)
    text = path.read_text(encoding="utf-8")
    assert not videos(text) and "larger than 20 MB: the videos." in text and "data:image/jpeg" in text
    assert "<script>" not in text and path.stat().st_size <= report.LIMIT
    monkeypatch.setattr(report, "LIMIT", 1000)
    report.write_report(result, samples, path)
    text = path.read_text(encoding="utf-8")
    assert "the videos, all pictures, most messages and transcripts." in text and "data:image" not in text


def made_up(values: dict[str, dict[str, float]]) -> Result:
    """A result of body scores: metric -> sample -> value."""
    higher = {"ssim": True, "lpips": False, "psnr": True}
    rows = [Row(s, s, m, "body", v, 1, 1.0, "ok") for m, found in values.items() for s, v in found.items()]
    cells = tuple(
        Score(m, "body", float(np.mean([*found.values()])), len(found), 0, 0, None, "none", higher[m],
              (0, None) if m == "psnr" else (0, 1), "dB" if m == "psnr" else "", 1.0, "none")
        for m, found in values.items()
    )  # fmt: skip
    return Result("x", "standard/1", True, cells, {"data": "d", "weights": {}}, {}, "cpu", rows_table(rows))


def test_ranks_are_means_over_cells_that_tell_clips_apart() -> None:
    result = made_up({
        "ssim": {"a": 0.1, "b": 0.5, "c": 0.9}, "lpips": {"a": 0.9, "b": 0.5, "c": 0.1}, "psnr": dict.fromkeys("abc", 7)
    })  # fmt: skip
    worst, best = rank(result, 6)
    assert [(p.sample_id, p.standing, p.cells) for p in (*worst, *best)] == [("a", 0.0, 2), ("c", 1.0, 2)]
    assert rank(replace(result, samples=None), 3) == ([], [])
    alone, none = rank(made_up({"ssim": {"a": 0.1}}), 3)
    assert [p.sample_id for p in alone] == ["a"] and none == []


def test_the_radar_has_only_what_shares_its_scale() -> None:
    result = made_up({"ssim": {"a": 0.25}, "lpips": {"a": 0.25}, "psnr": {"a": 30.0}})
    assert [on_radar(s) for s in result.scores] == [True, True, False]
    assert [goodness(s) for s in result.scores[:2]] == [0.25, 0.75]  # outwards is better
    assert goodness(replace(result.scores[0], value=-0.4)) == 0 and np.isnan(goodness(None))
    assert radar_axes(result.scores) == (["ssim", "lpips"], ["psnr"])
    drawn = radar(["a", "b", "c"], [("body", [0.2, 0.4, 1.0])])
    assert drawn.axes[0].get_ylim() == (0, 1)
    assert drawn.axes[0].lines[0].get_ydata().tolist() == [0.2, 0.4, 1.0, 0.2]


def test_quantiles_and_bars_are_drawn_where_they_are() -> None:
    points = list(np.linspace(0, 1, 101))
    drawn = distribution([Mark("", "body", 0.5, "", None, points)], higher_is_better=True)
    spans = [line.get_xdata() for line in drawn.axes[0].lines]
    assert any(np.allclose(x, (0.05, 0.95)) for x in spans) and any(np.allclose(x, (0.25, 0.75)) for x in spans)
    assert sum(p.get_height() != 0 for p in drawn.axes[0].patches) > 20  # a histogram of that many
    few = distribution([Mark("", "body", 0.5, "", None, [0.1, 0.1, np.inf])], higher_is_better=True)
    assert any("n 3 (1 infinite)" in t.get_text() for t in few.axes[0].texts)
    with mpl.rc_context(settings(PAPER)):
        plot = bars([Mark("a", "body", 2.0, "2", (1, 3), (), 0), Mark("b", "body", None, "–", None, (), 1)],
                    label="PSNR (dB)", higher_is_better=True).axes[0]  # fmt: skip
    assert [p.get_height() for p in plot.patches] == [2.0] and plot.get_ylabel() == "PSNR (dB) ↑"


def test_plots_for_a_paper(folder: Path, blurred: Run) -> None:
    sharp = run(folder, "sharp", 0.6)[0]
    results = [sharp, blurred[0]]
    names = [p.name for p in write_plots(results, folder / "both", ("svg",))]
    assert names == ["distribution-ssim.svg", "distribution-psnr.svg", "bars-ssim.svg", "bars-psnr.svg",
                     "timeline-worst.svg", "timeline-best.svg"]  # fmt: skip
    again = write_plots(results, folder / "again", ("svg",))
    assert [p.read_bytes() for p in again] == [(folder / "both" / p.name).read_bytes() for p in again]
    text = (folder / "both" / "bars-psnr.svg").read_text()
    assert "<text" not in text and "http-equiv" not in text and "<dc:date>" not in text  # letters are shapes
    assert "#0072b2" in text.lower() and "#d55e00" in text.lower()
    files = write_plots(blurred[0], folder / "one", ("png", "pdf"))
    assert {p.name for p in files} >= {"distribution-ssim.png", "timeline-worst.pdf"}
    with Image.open(folder / "one" / "distribution-ssim.png") as picture:
        assert picture.width == round(430 * 300 / 72) or abs(picture.width - 430 * 300 / 72) < 2
    with pytest.raises(SetupError, match="no format 'gif'"):
        write_plots(sharp, folder, ("gif",))
    with pytest.raises(PlanMismatch):
        write_plots([sharp, replace(blurred[0], protocol="lite/1")], folder)
