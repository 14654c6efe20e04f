"""Annotating bare clips of real people: the teaser's own boxes come out again, words are heard, damage has a type."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import moving, tone, write_mp4

from jwb_dh_v1.dataset.build.annotate import COVERAGE, LOG, NOT_ASKED, Coverage, annotate, print_coverage
from jwb_dh_v1.dataset.build.teaser import WHISPER
from jwb_dh_v1.dataset.load import load_dataset
from jwb_dh_v1.dataset.schema import annotations_of
from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, SetupError
from jwb_dh_v1.media.annotations import PARTS
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.video import replace_audio
from jwb_dh_v1.networks import whisper
from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, DETECTOR_WEIGHTS
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve_all

pytestmark = pytest.mark.teaser
CHOSEN = ("obama-1", "carphone-2")


@pytest.fixture(scope="module")
def rows(teaser_dir: Path) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in load_dataset(teaser_dir, split="evaluation", streaming=True)}


@pytest.fixture(scope="module")
def models() -> NetworkPool:
    names = [*DETECTOR_WEIGHTS["mediapipe"], *ANNOTATE_WEIGHTS, *WHISPER]
    return NetworkPool(resolve_all(names), "cpu", keypoints=True)


@pytest.fixture(scope="module")
def clips(rows: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, the same one silent and without sound, no one, and a text."""
    folder = tmp_path_factory.mktemp("bare")
    for name in CHOSEN:
        (folder / name).with_suffix(".mp4").write_bytes(rows[name]["video"]["bytes"])
    (folder / "deeper").mkdir()
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.mp4").write_bytes(b"not looked at")
    replace_audio(folder / "carphone-2.mp4", folder / "deeper" / "silent.mp4", Audio(np.zeros((1, 16000)), 16000))
    write_mp4(folder / "nobody.mp4", moving(20, 160, 120), 25)
    write_mp4(folder / "tone.mp4", moving(21, 160, 120), 25, tone(0.8))
    (folder / "text.mp4").write_text("I am no video.")
    shutil.copy(folder / "nobody.mp4", folder / "nobody.webm")
    return folder


@pytest.fixture(scope="module")
def done(clips: Path, models: NetworkPool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Coverage]:
    out = tmp_path_factory.mktemp("annotations")
    return out, annotate(clips, out, models=models)


def columns(out: Path, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    return told


def by_name(coverage: Coverage) -> dict[str, Any]:
    return {clip.name: clip for clip in coverage.clips}


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.json")) if p.name != COVERAGE}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_teasers_own_annotations_come_out(name: str, done: tuple[Path, Coverage], rows: dict[str, Any]):
    told = columns(done[0], name)
    found, wanted = annotations_of(told), annotations_of(rows[name])  # the file reads as a row does
    assert found is not None and wanted is not None
    for part in PARTS:
        assert np.array_equal(found.boxes[part], wanted.boxes[part], equal_nan=True), part
        assert np.array_equal(found.scores[part], wanted.scores[part]), part
    assert found.keypoints is not None and wanted.keypoints is not None
    assert found.keypoints.shape == wanted.keypoints.shape
    # Rounded to 0.01: half of that, and a float32 step of a coordinate of some hundred pixels.
    assert 0.001 < np.abs(found.keypoints - wanted.keypoints).max() <= 0.005 + 2**-15
    assert wanted.masks is not None
    assert [mask["counts"].encode() for mask in told["mask_rle"]] == [mask["counts"] for mask in wanted.masks]
    assert found.source == wanted.source == "mediapipe/1"
    for key in ("schema_version", "num_frames", "height", "width"):
        assert told[key] == rows[name][key], key
    clip = by_name(done[1])[name]
    assert clip.video_sha256 == rows[name]["video_sha256"]
    assert (clip.face, clip.body) == (wanted.coverage("face"), wanted.coverage("body"))
    either = np.isfinite(wanted.boxes["left_hand"][:, 0]) | np.isfinite(wanted.boxes["right_hand"][:, 0])
    assert clip.hands == either.mean()


@pytest.mark.parametrize("name", CHOSEN)
def test_words_are_heard_where_the_teaser_has_them(name: str, done: tuple[Path, Coverage], rows: dict[str, Any]):
    from jwb_dh_v1.metrics.speech import word_errors

    heard, given = columns(done[0], name)["transcript"], rows[name]["transcript"]
    assert word_errors(given["text"], heard["text"])["wer"] == 0
    assert heard["text"] == " ".join(word["word"] for word in heard["words"])
    assert heard["language"] == "en" and {word["source"] for word in heard["words"]} == {WHISPER[0]}
    # The teaser aligned the text it knew to the sound before AAC; here the text is heard, after AAC.
    for a, b in zip(heard["words"], given["words"], strict=True):
        assert abs(a["start"] - b["start"]) < 0.1 and abs(a["end"] - b["end"]) < 0.1, (a, b)
    assert by_name(done[1])[name].words == len(given["words"])


def test_what_is_not_there_is_said(done: tuple[Path, Coverage]):
    out, coverage = done
    found = by_name(coverage)
    names = [*CHOSEN, "deeper/silent", "nobody", "nobody", "text", "tone"]  # nothing hidden
    assert [clip.name for clip in coverage.clips] == sorted(names)
    assert found["deeper/silent"].speech == "silent" and found["deeper/silent"].face > 0.9
    assert columns(out, "deeper/silent")["transcript"] is None
    assert found["text"].state == "failed" and found["text"].error == "NotAVideo"
    assert not (out / "text.json").exists()
    twins = [clip for clip in coverage.clips if clip.name == "nobody"]  # nobody.mp4 and nobody.webm
    assert sorted(clip.state for clip in twins) == ["failed", "made"]
    (nobody,) = [clip for clip in twins if clip.state == "made"]
    assert (nobody.frames, nobody.body, nobody.face, nobody.hands, nobody.speech) == (20, 0, 0, 0, "no audio track")
    told = columns(out, "nobody")
    assert told["boxes"] == {part: [None] * 20 for part in PARTS}
    assert np.asarray(told["keypoints"]).shape == (20, 133, 3) and not np.asarray(told["keypoints"]).any()


def test_the_report_sums_up(done: tuple[Path, Coverage]):
    from rich.console import Console

    out, coverage = done
    whole = coverage.totals()
    assert whole["clips"] == 7 and whole["annotated"] == 5
    assert whole["failed"] == {"NotAVideo": 1, "UnsafeName": 1}
    assert whole["languages"] == {"en": 2}
    assert whole["speech"] == {"found": 2, "silent": 1, "no audio track": 1, "no sure words": 1}
    frames = {clip.name: clip.frames for clip in coverage.clips if clip.state == "made"}
    assert whole["frames"] == sum(frames.values())
    seen = sum(clip.face * clip.frames for clip in coverage.clips)
    assert whole["face"] == pytest.approx(seen / whole["frames"])
    written = json.loads((out / COVERAGE).read_text(encoding="utf-8"))
    assert written["totals"] == whole and [clip["name"] for clip in written["clips"]] == [
        c.name for c in coverage.clips
    ]
    text = io.StringIO()
    print_coverage(coverage, Console(file=text, width=120))
    for word in ("obama-1", "NotAVideo", "no audio track", "5 of 7 clips", "mediapipe/1"):
        assert word in text.getvalue()


def test_a_second_call_keeps_what_is_whole(
    done: tuple[Path, Coverage], clips: Path, models: NetworkPool, tmp_path: Path
):
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    before = contents(out)
    (out / "obama-1.json").write_bytes(before["obama-1.json"][:-1])  # cut short
    table = (out / COVERAGE).read_text().replace(hashlib.sha256(before["tone.json"]).hexdigest(), "0" * 64)
    (out / COVERAGE).write_text(table)
    told: list[Any] = []
    again = annotate(clips, out, models=models, on_clip=told.append)
    assert {clip.name for clip in again.clips if clip.state == "made"} == {"obama-1", "tone"}
    assert sorted(told, key=lambda c: (c.name, c.state)) == sorted(again.clips, key=lambda c: (c.name, c.state))
    assert contents(out) == before
    assert again.totals() == done[1].totals()


def test_other_bytes_under_a_name_are_annotated_again(clips: Path, models: NetworkPool, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clips / "nobody.mp4", folder / "a.mp4")
    first = annotate(folder, models=models, speech=False)  # beside the video
    assert first.clips[0].speech == NOT_ASKED and columns(folder, "a")["transcript"] is None
    assert annotate(folder, models=models, speech=False).clips[0].state == "kept"
    # Listening is asked for now; then it is another video.
    (heard,) = annotate(folder, models=models).clips
    assert (heard.state, heard.speech) == ("made", "no audio track")
    assert annotate(folder, models=models, speech=False).clips[0].state == "kept"
    write_mp4(folder / "a.mp4", moving(10, 160, 120), 25)
    assert annotate(folder, models=models).clips[0].frames == 10


RUN = """
import sys
from jwb_dh_v1.dataset.build.annotate import annotate
if __name__ == "__main__":
    annotate(sys.argv[1], sys.argv[2], speech=False, workers=int(sys.argv[3]))
"""


def test_killed_and_resumed_in_two_processes_is_the_same(clips: Path, models: NetworkPool, tmp_path: Path):
    folder, whole, out, script = (tmp_path / name for name in ("in", "whole", "out", "run.py"))
    folder.mkdir()
    for number in range(8):  # without words, for loading Whisper three times takes longer than all else
        shutil.copy(clips / ("carphone-2.mp4" if number % 2 else "nobody.mp4"), folder / f"{number}.mp4")
    annotate(folder, whole, models=models, speech=False)
    script.write_text(RUN)
    command = [sys.executable, str(script), str(folder), str(out)]
    run = subprocess.Popen([*command, "1"])
    end = time.monotonic() + 60
    while len(contents(out)) < 2 and time.monotonic() < end:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    half = [name.removesuffix(".json") for name in contents(out)]
    assert 2 <= len(half) < 8 and not (out / COVERAGE).exists()
    noted = [json.loads(line)["name"] for line in (out / LOG).read_text().splitlines() if line.endswith("}")]
    assert noted in (half, half[:-1])  # one clip at a time, its file before its line: the kill may fall between them
    subprocess.run([*command, "2"], check=True)
    assert contents(out) == contents(whole)
    kept = [clip["name"] for clip in json.loads((out / COVERAGE).read_text())["clips"] if clip["state"] == "kept"]
    assert kept == noted  # a file without its line is made again


def test_long_clips_are_read_in_chunks(
    rows: dict[str, Any], models: NetworkPool, clips: Path, tmp_path: Path, monkeypatch
):
    """A clip beyond the frame budget gives the same file, and its frames are never held as a whole."""
    import jwb_dh_v1.media.clip as module

    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clips / "carphone-2.mp4", folder)
    monkeypatch.setattr(module, "FRAME_BUDGET", 1)
    monkeypatch.setattr(module.Clip, "frames", property(lambda self: pytest.fail("all frames at once")))
    annotate(folder, models=models, speech=False)
    found, wanted = annotations_of(columns(folder, "carphone-2")), annotations_of(rows["carphone-2"])
    assert found is not None and wanted is not None
    assert np.array_equal(found.boxes["face"], wanted.boxes["face"], equal_nan=True)


def test_late_sound_gives_late_words(rows: dict[str, Any], models: NetworkPool, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    content = rows["carphone-2"]["video"]["bytes"]
    (tmp_path / "whole.mp4").write_bytes(content)
    audio = decode_audio(content)
    assert audio is not None
    replace_audio(tmp_path / "whole.mp4", folder / "late.mp4", Audio(audio.samples, audio.rate, start=0.5))
    annotate(folder, models=models)
    words = columns(folder, "late")["transcript"]["words"]
    first, given = words[0], rows["carphone-2"]["transcript"]["words"][0]
    assert first["start"] == pytest.approx(given["start"] + 0.5, abs=0.1)
    assert words[-1]["end"] <= rows["carphone-2"]["num_frames"] / rows["carphone-2"]["fps"]


@pytest.mark.parametrize("sound", ["noise", "chord"])
def test_what_is_no_speech_gives_no_words(sound: str, models: NetworkPool):
    from jwb_dh_v1.dataset.build.annotate import _sure

    t = np.arange(64000) / 16000
    samples = {
        "noise": 0.1 * np.random.default_rng(0).standard_normal(64000),
        "chord": sum(np.sin(2 * np.pi * f * t) for f in (261.6, 329.6, 392.0)) * 0.1 * (1 + np.sin(4 * np.pi * t)),
    }
    words = models.get(whisper.NETWORK).words(np.asarray(samples[sound], np.float32))
    assert words  # it does hear something
    assert _sure(words) == []


def test_words_in_a_loop_are_not_trusted():
    """A tone of 4 s gave one word a hundred times, each nearly certain; people do repeat themselves."""
    from jwb_dh_v1.dataset.build.annotate import _sure
    from jwb_dh_v1.networks.whisper import Word

    def spoken(text: str, score: float) -> list[Word]:
        return [Word(word, k / 10, (k + 1) / 10, score) for k, word in enumerate(text.split())]

    assert _sure(spoken("Beeping " * 100, 0.9)) == []
    for text in ("no no no no", "It was the age of wisdom, it was the age of foolishness, it was the epoch of belief,"):
        assert _sure(spoken(text, 0.9)) == spoken(text, 0.9)
        assert _sure(spoken(text, 0.3)) == []


def test_the_packer_reads_the_files(done: tuple[Path, Coverage], clips: Path):
    from jwb_dh_v1.dataset.build.readers import read_annotations
    from jwb_dh_v1.media.clip import Clip

    for path in sorted(done[0].rglob("*.json")):
        if path.name != COVERAGE:
            told = columns(done[0], path.relative_to(done[0]).with_suffix("").as_posix())
            read = read_annotations(path, Clip(clips / path.relative_to(done[0]).with_suffix(".mp4")).info)
            assert read["annotation_source"] == "mediapipe/1"
            assert read["boxes"] == told["boxes"] and read["box_scores"] == told["box_scores"]
            assert (read.get("transcript") or {}).get("words") == (told["transcript"] or {}).get("words")
            assert np.array_equal(read["keypoints"], np.asarray(told["keypoints"], np.float32))


def test_what_stops_the_call(clips: Path, models: NetworkPool, tmp_path: Path):
    from filelock import FileLock

    with pytest.raises(DataNotFound, match="no folder"):
        annotate(tmp_path / "nowhere", models=models)
    with pytest.raises(DataNotFound, match="no video"):
        annotate(tmp_path, models=models)
    with pytest.raises(SetupError, match="No detector"):
        annotate(clips, tmp_path / "out", boxes="yolo")
    with pytest.raises(SetupError, match="dwpose"):
        annotate(clips, tmp_path / "out", boxes="dwpose", models=models)
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        annotate(clips, tmp_path / "file", models=models)
    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy" / ".lock"), pytest.raises(AlreadyRunning):
        annotate(clips, tmp_path / "busy", models=models)
