"""Prompts as files and as values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from media import faststart, moving, rotated, tone, write_mp4

from jwb_dh_v1 import Clip
from jwb_dh_v1.dataset.load import load_dataset
from jwb_dh_v1.dataset.prompts import FAILURES, MANIFEST, UnsafeName, read_prompt, safe_name, write_prompts
from jwb_dh_v1.dataset.schema import SCHEMA_VERSION
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.media.audio import Audio, decode_audio

Row = dict[str, Any]


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made_row(folder: Path, name: str = "a", **columns: Any) -> Row:
    """A row with a small video that has sound, and only what a prompt needs."""
    path = folder / "made.mp4"
    if not path.exists():
        write_mp4(path, moving(10, 96, 64), 25, tone(0.4))
    return {"sample_id": name, "video": {"bytes": path.read_bytes(), "path": None}} | columns


@pytest.fixture(name="rows", scope="module")
def rows_fixture(teaser_dir: Path) -> list[Row]:
    return list(load_dataset(teaser_dir, split="evaluation", streaming=True))


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["obama-1", "a.b", "视频-1", "é", "con1", "com10", "a b", "-x", "x" * 200])
def test_names_that_are_file_names(name: str):
    assert safe_name(name) == name


BAD = ["", ".", "..", "../a", "a/b", "a\\b", "/a", ".a", "a.", "a ", "a\0b", "a\nb", "a:b", "a*", "CON", "nul.x",
       "com1", "x" * 201, "视" * 67, "\ud800", None, 7]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_none(name: Any):
    with pytest.raises(UnsafeName, match="rename"):
        safe_name(name)


# -------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.teaser
def test_prompts_hold_what_the_rows_hold(rows: list[Row], tmp_path: Path):
    said: list[str] = []
    manifest = write_prompts(rows, tmp_path / "p", say=said.append)
    assert manifest == tmp_path / "p" / MANIFEST and lines(tmp_path / "p" / FAILURES) == []
    entries = lines(manifest)
    assert [entry["sample_id"] for entry in entries] == [row["sample_id"] for row in rows]
    for row, entry in zip(rows, entries, strict=True):
        picture = cv2.imread(str(manifest.parent / entry["image"]), cv2.IMREAD_UNCHANGED)
        assert picture is not None and np.array_equal(picture[..., ::-1], Clip(row["video"]).frames[0])
        assert (manifest.parent / entry["audio"]).read_bytes() == row["audio"]["bytes"]
        assert entry["audio"] == f"speech/{row['sample_id']}.wav"
        for key in ("identity_id", "motion_text", "fps", "num_frames", "width", "height", "pose"):
            assert entry[key] == row[key], key
        assert (entry["transcript"], entry["language"]) == (row["transcript"]["text"], "en")
        assert entry["seconds"] == pytest.approx(row["num_frames"] / row["fps"])
        name = row["sample_id"]
        assert (manifest.parent / f"motion/{name}.txt").read_text().strip() == row["motion_text"]
        assert (manifest.parent / f"speech/{name}.txt").read_text().strip() == row["transcript"]["text"]
    assert said[-1].endswith("(0 were there), 0 failed")


def test_a_frame_is_upright_and_only_one_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_mp4(tmp_path / "a.mp4", moving(30, 96, 64), 25, lossless=True)
    path = rotated(tmp_path / "r.mp4", tmp_path / "a.mp4")
    wanted = Clip(path).frames[0]
    monkeypatch.setattr(Clip, "_stream", lambda *_: pytest.fail("the whole clip is decoded"))
    prompt = read_prompt({"sample_id": "r", "video": path, "fps": 25.0, "num_frames": 30, "width": 64, "height": 96})
    assert prompt.first_frame.shape == (96, 64, 3) and np.array_equal(prompt.first_frame, wanted)
    assert not np.array_equal(wanted, np.rot90(wanted, 2))
    # What follows the first frame is not even looked at: the file may end there.
    cut = faststart(tmp_path / "f.mp4")
    whole = Clip(cut).info
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    told = {"fps": whole.fps, "num_frames": whole.frames, "width": whole.width, "height": whole.height}
    assert read_prompt({"sample_id": "f", "video": cut, **told}).first_frame.shape == (240, 320, 3)


def test_what_a_row_lacks_comes_from_its_video(tmp_path: Path):
    prompt = read_prompt(made_row(tmp_path, motion_text=" ", transcript={"text": None, "language": None}))
    assert (prompt.fps, prompt.num_frames, prompt.width, prompt.height) == (25, 10, 96, 64)
    assert (prompt.motion_text, prompt.transcript, prompt.language) == (None, None, None)
    assert prompt.audio is not None and prompt.audio.duration == pytest.approx(0.4, abs=0.07)  # AAC frames of 64 ms
    manifest = write_prompts([made_row(tmp_path, pose={"posture": "sits", "leg_stance": "crossed"})], tmp_path / "p")
    (entry,) = lines(manifest)
    assert entry["audio"] == "speech/a.wav" and (tmp_path / "p/speech/a.wav").read_bytes() == prompt.audio.wav()
    assert (tmp_path / "p/motion/a.txt").read_text() == "sits\ncrossed\n"
    assert entry["pose"] == {"posture": "sits", "hand_gesture": None, "leg_stance": "crossed"}
    assert not (tmp_path / "p/speech/a.txt").exists()


@pytest.mark.parametrize("start", [0.25, -0.25])
def test_the_sound_begins_with_the_first_frame(start: float):
    from jwb_dh_v1.dataset.prompts import from_first_frame

    sound = from_first_frame(Audio(np.ones((1, 16000), np.float32), 16000, start + 1.4), 1.4)
    assert sound.start == 0 and sound.samples.shape == (1, 16000 + round(start * 16000))
    assert sound.samples[0, 0] == (0 if start > 0 else 1) and sound.samples[0, -1] == 1


def test_a_container_whose_clock_does_not_begin_at_0(tmp_path: Path):
    """As transport streams often do, this file begins at 1.4 s: neither its pictures nor its sound are late."""
    import av

    row, path = made_row(tmp_path), tmp_path / "a.mkv"
    with av.open(str(tmp_path / "made.mp4")) as source, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                shift = round(1.4 / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + shift,
                    packet.dts + shift,
                    streams[packet.stream_index],
                )
                out.mux(packet)
    sound = decode_audio(path)
    assert sound is not None and sound.start > 1
    late, there = read_prompt({"sample_id": "a", "video": path}).audio, read_prompt(row).audio
    assert late is not None and there is not None
    assert late.duration == pytest.approx(there.duration, abs=0.1)  # the encoder's priming of 64 ms may be forgotten


@pytest.mark.parametrize(("format_", "ending"), [("flac", ".flac"), ("ogg", ".ogg"), ("mp3", ".mp3"), ("mp4", ".m4a")])
def test_audio_keeps_its_bytes_and_gets_its_ending(format_: str, ending: str, tmp_path: Path):
    import av

    path = tmp_path / "x"
    with av.open(str(path), "w", format=format_) as out:
        codec = {"flac": "flac", "ogg": "libopus", "mp3": "libmp3lame", "mp4": "aac"}[format_]
        stream = out.add_stream(codec, rate=16000, layout="mono")
        plane = {"flac": "s16", "ogg": "flt", "mp3": "s16p", "mp4": "fltp"}[format_]
        samples = (tone(0.5).samples * 32767).astype(np.int16) if plane[0] == "s" else tone(0.5).samples
        for at in range(0, 8000, 1000):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1000]), plane, layout="mono")
            frame.sample_rate = 16000
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    row = made_row(tmp_path, audio={"bytes": path.read_bytes(), "path": "wrong.wav"})
    (entry,) = lines(write_prompts([row], tmp_path / "p"))
    assert entry["audio"] == f"speech/a{ending}"
    assert (tmp_path / "p" / entry["audio"]).read_bytes() == path.read_bytes()


def bad_rows(folder: Path) -> dict[str, Row]:
    """Rows that cannot be prompts, by the type that says why."""
    good = made_row(folder)
    return {
        "UnsafeName": good | {"sample_id": "../up"},
        "NotAVideo": good | {"sample_id": "text", "video": {"bytes": b"I am no video.", "path": None}},
        "Unreadable": good | {"sample_id": "gone", "video": {"bytes": None, "path": str(folder / "gone.mp4")}},
        "SizeMismatch": good | {"sample_id": "size", "fps": 25.0, "num_frames": 10, "width": 64, "height": 96},
        "BadAudio": good | {"sample_id": "sound", "audio": {"bytes": b"RIFFxxxx", "path": None}},
    }


def test_failed_rows_are_listed_and_the_others_written(tmp_path: Path):
    bad = bad_rows(tmp_path)
    rows = [made_row(tmp_path), *bad.values(), made_row(tmp_path, "A"), made_row(tmp_path, "b")]
    entries = lines(write_prompts(rows, tmp_path / "p"))
    assert [entry["sample_id"] for entry in entries] == ["a", "b"]
    failed = lines(tmp_path / "p" / FAILURES)
    assert [one["error"] for one in failed] == [*bad, "UnsafeName"]  # "A" is "a" on some file systems
    assert failed[-1]["sample_id"] == "A" and all(one["message"].endswith(".") for one in failed)
    assert sorted(p.name for p in (tmp_path / "p" / "images").iterdir()) == ["a.png", "b.png"]
    assert not (tmp_path / "up.png").exists() and not (tmp_path / "p" / "up.png").exists()
    with pytest.raises(SetupError, match="schema"):
        write_prompts([made_row(tmp_path, schema_version=SCHEMA_VERSION + 1)], tmp_path / "q")
    with pytest.raises(DataNotFound):
        write_prompts([], tmp_path / "q")


def test_prompts_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import jwb_dh_v1.dataset.prompts as module

    rows = [made_row(tmp_path, name, motion_text="nods") for name in "abcd"]
    manifest = write_prompts(rows, tmp_path / "whole")

    def dying() -> Any:
        yield from rows[:2]
        raise KeyboardInterrupt

    out = tmp_path / "p"
    with pytest.raises(KeyboardInterrupt):
        write_prompts(dying(), out)
    assert not (out / MANIFEST).exists()
    log = out / module.LOG
    log.write_text(log.read_text()[:-5])  # as a kill in the middle of writing "b" leaves it
    read: list[str] = []
    once = module.read_prompt
    monkeypatch.setattr(module, "read_prompt", lambda row: read.append(row["sample_id"]) or once(row))
    assert write_prompts(rows, out).read_bytes() == manifest.read_bytes()
    assert read == ["b", "c", "d"] and not log.exists()
    read.clear()
    (out / "images" / "c.png").unlink()
    rows[3]["motion_text"] = "waves"
    write_prompts(rows, out)
    assert read == ["c", "d"] and (out / "motion" / "d.txt").read_text() == "waves\n"
