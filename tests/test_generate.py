"""Prompts as files and as values; a toy model over the teaser: what it writes scores, resumes and fails by name."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from media import faststart, float_audio, moving, rotated, tone, variable_rate, write_mp4

from jwb_dh_v1 import Clip, score
from jwb_dh_v1.audio import Audio, decode_audio
from jwb_dh_v1.data.generate import SUMMARY, generate
from jwb_dh_v1.data.load import load_dataset
from jwb_dh_v1.data.outputs import UnsafeName, safe_name
from jwb_dh_v1.data.pairs import pair, videos_in
from jwb_dh_v1.data.prompts import FAILURES, MANIFEST, read_prompt, write_prompts
from jwb_dh_v1.data.schema import SCHEMA_VERSION
from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, MissingPackage, SetupError

Row = dict[str, Any]


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made_row(folder: Path, name: str = "a", **columns: Any) -> Row:
    """A row with a small video that has sound, and only what a prompt needs."""
    path = folder / "made.mp4"
    if not path.exists():
        write_mp4(path, moving(10, 96, 64), 25, tone(0.4))
    return {"sample_id": name, "video": {"bytes": path.read_bytes(), "path": None}} | columns


@pytest.fixture(scope="module")
def rows(teaser_dir: Path) -> list[Row]:
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
    from jwb_dh_v1.data.prompts import from_first_frame

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
    import jwb_dh_v1.data.prompts as module

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


# ------------------------------------------------------------------------------------------------------- generate

TOY = """
import sys, time
import numpy as np
from jwb_dh_v1.data.generate import generate

def pan(prompt):
    return np.stack([np.roll(prompt.first_frame, 2 * t, axis=1) for t in range(prompt.num_frames)])

if __name__ == "__main__":
    generate(pan, sys.argv[1], sys.argv[2])
"""


def pan(prompt: Any) -> np.ndarray:
    return np.stack([np.roll(prompt.first_frame, 2 * t, axis=1) for t in range(prompt.num_frames)])


@pytest.mark.teaser
def test_a_toy_model_killed_resumed_and_scored(teaser_dir: Path, rows: list[Row], tmp_path: Path):
    out, script = tmp_path / "toy", tmp_path / "toy.py"
    script.write_text(TOY)
    run = subprocess.Popen([sys.executable, str(script), str(teaser_dir), str(out)])
    end = time.monotonic() + 60
    while len(list(out.glob("*.mp4"))) < 3 and time.monotonic() < end:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    half = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.mp4")}
    assert 3 <= len(half) < len(rows) and not (out / SUMMARY).exists()
    last = rows[-1]["sample_id"]
    (out / f"{last}.mp4").write_bytes((out / next(iter(half))).read_bytes()[:-2000])  # not by us: cut short
    (out / ".unfinished").mkdir(exist_ok=True)
    (out / ".unfinished" / "left.mp4").write_bytes(b"half")

    calls: list[str] = []
    done = generate(lambda prompt: calls.append(prompt.sample_id) or pan(prompt), teaser_dir, out)
    names = [row["sample_id"] for row in rows]
    assert done.complete and not done.failures
    assert sorted(f"{name}.mp4" for name in done.kept) == sorted(half)
    assert list(done.made) == calls == [name for name in names if f"{name}.mp4" not in half]
    assert {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in half} == half
    assert sorted(videos_in(out)) == sorted(names)
    told = json.loads((out / SUMMARY).read_text())
    assert (told["complete"], told["samples"], told["made"], told["kept"]) == (True, 8, calls, list(done.kept))
    assert not (out / ".unfinished").exists()

    for row in rows:
        clip, real = Clip(out / f"{row['sample_id']}.mp4"), Clip(row["video"])
        assert (clip.size, len(clip), clip.fps) == (real.size, len(real), real.fps)
        heard, given = clip.speech.samples[0], decode_audio(row["audio"]["bytes"])
        assert given is not None
        n = min(len(heard), given.samples.shape[1])
        assert np.corrcoef(heard[:n], given.samples[0, :n])[0, 1] > 0.98  # AAC, see test_teaser
    result = score(list(pair(out, teaser_dir)), ["ssim", "psnr"], ["body"], protocol="lite", device="cpu")
    assert result.complete
    values = {one.metric: one for one in result.scores}
    assert values["ssim"].n == values["psnr"].n == 8
    assert 0.1 < values["ssim"].value < 0.9 and 8 < values["psnr"].value < 30


def frames_of(prompt: Any) -> np.ndarray:
    return moving(prompt.num_frames, prompt.width, prompt.height)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of one real clip and its words."""
    folder = tmp_path_factory.mktemp("real")
    write_mp4(folder / "a.mp4", moving(10, 96, 64), 25, tone(0.4))
    (folder / "a.txt").write_text("Hello.\n")
    return folder


def test_every_kind_of_output(real: Path, tmp_path: Path):
    def mp4(prompt: Any) -> Path:
        write_mp4(tmp_path / "own.mp4", frames_of(prompt), 30)
        return tmp_path / "own.mp4"

    high = replace(tone(0.4), samples=np.repeat(tone(0.4).samples, 2, axis=0))
    kinds: dict[str, tuple[Any, float, int]] = {
        "frames": (frames_of, 25, 1),
        "frames and fps": (lambda p: (frames_of(p), 12.5), 12.5, 1),
        "frames, fps, audio": (lambda p: (frames_of(p), 25, high), 25, 2),
        "frames, fps, no audio": (lambda p: (frames_of(p), 25, None), 25, 0),
        "path": (mp4, 30, 0),
        "text path": (lambda p: str(mp4(p)), 30, 0),
        "bytes": (lambda p: mp4(p).read_bytes(), 30, 0),
    }
    for kind, (fn, fps, channels) in kinds.items():
        done = generate(fn, real, tmp_path / kind)
        assert (done.made, done.failures) == (("a",), ()), (kind, done.failures)
        clip = Clip(tmp_path / kind / "a.mp4")
        assert (len(clip), clip.size, clip.fps) == (10, (96, 64), fps), kind
        assert (0 if clip.audio is None else len(clip.audio.samples)) == channels, kind
        if fps == 30:
            assert (tmp_path / kind / "a.mp4").read_bytes() == (tmp_path / "own.mp4").read_bytes()
    assert (tmp_path / "own.mp4").exists()  # copied, not moved


def test_the_function_sees_the_prompt(real: Path, tmp_path: Path):
    seen: list[Any] = []
    generate(lambda prompt: seen.append(prompt) or frames_of(prompt), real, tmp_path / "out")
    (prompt,) = seen
    assert (prompt.sample_id, prompt.transcript, prompt.motion_text) == ("a", "Hello.", None)
    assert np.array_equal(prompt.first_frame, Clip(real / "a.mp4").frames[0])
    assert prompt.audio is not None and not prompt.audio.silent


def failing(folder: Path) -> dict[str, tuple[Any, str]]:
    """Outputs that are no video, and the type each one gets."""
    good = moving(5, 96, 64)
    for make, name in ((variable_rate, "vfr.mp4"), (faststart, "cut.mp4")):
        make(folder / name)
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:-3000])
    float_audio(folder / "sound.mp4", np.ones(16000), frames=5)
    (folder / "text.mp4").write_text("I am no video.")
    bad = Audio(np.full((1, 100), np.nan, np.float32), 16000)
    return {
        "none": (None, "BadOutput"),
        "float": (good.astype(np.float32) / 255, "BadOutput"),
        "one frame": (good[0], "BadOutput"),
        "channels": (good[..., :1], "BadOutput"),
        "list": (list(good), "BadOutput"),
        "no frames": (good[:0], "NoFrames"),
        "one value": ((good,), "BadOutput"),
        "no rate": ((good, None), "BadOutput"),
        "rate 0": ((good, 0), "BadOutput"),
        "rate nan": ((good, float("nan")), "BadOutput"),
        "array as audio": ((good, 25, np.zeros(100)), "BadOutput"),
        "nan audio": ((good, 25, bad), "BadAudio"),
        "six channels": ((good, 25, Audio(np.zeros((6, 100), np.float32), 16000)), "BadOutput"),
        "odd rate": ((good, 25, Audio(np.zeros((1, 100), np.float32), 12345)), "BadOutput"),
        "no file": (folder / "gone.mp4", "Unreadable"),
        "a folder": (folder, "Unreadable"),
        "text": (folder / "text.mp4", "BadOutput"),
        "text bytes": (b"I am no video.", "BadOutput"),
        "no bytes": (b"", "NotAVideo"),
        "header only": (b"\0\0\0\x20ftypisom" + bytes(20), "NotAVideo"),
        "cut": (folder / "cut.mp4", "Truncated"),
        "uneven": (folder / "vfr.mp4", "VariableFrameRate"),
    }


def test_failures_have_types_and_the_run_goes_on(tmp_path: Path):
    outputs = failing(tmp_path)
    bad = bad_rows(tmp_path)

    def fn(prompt: Any) -> Any:
        if prompt.sample_id == "raises":
            raise RuntimeError("CUDA out of memory")
        return outputs[prompt.sample_id][0] if prompt.sample_id in outputs else frames_of(prompt)

    rows = [made_row(tmp_path, name) for name in ("raises", *outputs)] + [*bad.values(), made_row(tmp_path, "good")]
    told: list[str] = []
    done = generate(fn, rows, tmp_path / "out", on_sample=told.append)
    assert done.made == ("good",) and not done.complete
    assert told == [row["sample_id"] for row in rows]
    found = {one.sample_id: one for one in done.failures}
    wanted = {name: type_ for name, (_, type_) in outputs.items()} | {bad[t]["sample_id"]: t for t in bad}
    assert {name: one.error for name, one in found.items()} == wanted | {"raises": "FunctionFailed"}
    assert found["raises"].message == "RuntimeError: CUDA out of memory"
    assert 'raise RuntimeError("CUDA out of memory")' in found["raises"].traceback
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert [one["error"] for one in summary["failures"]] == [one.error for one in done.failures]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".lock") == [SUMMARY, "good.mp4"]
    # The next call tries what failed again, and only that.
    again = generate(frames_of, rows, tmp_path / "out", allow_failures=len(bad))
    assert again.complete and again.kept == ("good",) and set(again.made) == {"raises", *outputs}


def test_threads_keep_the_order_and_read_no_further_ahead(tmp_path: Path):
    given: list[str] = []
    done: list[str] = []
    ahead: list[int] = []
    names = [f"{n:02d}" for n in range(12)]
    together = threading.Barrier(3, timeout=20)  # never passed unless three calls run at a time

    def rows() -> Any:
        for name in names:
            given.append(name)
            ahead.append(len(given) - len(done))
            yield made_row(tmp_path, name)

    def fn(prompt: Any) -> np.ndarray:
        together.wait()
        return frames_of(prompt)

    result = generate(fn, rows(), tmp_path / "out", workers=3, on_sample=done.append)
    assert list(result.made) == done == names
    assert max(ahead) <= 3 + 2


def test_two_samples_of_one_name(tmp_path: Path):
    rows = [made_row(tmp_path, "a"), made_row(tmp_path, "b"), made_row(tmp_path, "a")]
    done = generate(frames_of, rows, tmp_path / "out")
    assert (done.made, [f.error for f in done.failures], done.complete) == (("a", "b"), ["UnsafeName"], False)
    assert generate(frames_of, rows, tmp_path / "out", limit=2).complete


def test_what_stops_the_call(real: Path, tmp_path: Path):
    from filelock import FileLock

    with pytest.raises(SetupError, match="executor"):
        generate(frames_of, real, tmp_path / "out", executor="slurm")
    with pytest.raises(SetupError, match="workers"):
        generate(frames_of, real, tmp_path / "out", workers=0)
    with pytest.raises(DataNotFound):
        generate(frames_of, [], tmp_path / "out")
    with pytest.raises(DataNotFound):
        generate(frames_of, tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        generate(frames_of, real, tmp_path / "file")
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(AlreadyRunning):
        generate(frames_of, real, tmp_path / "out")
    stop = KeyboardInterrupt()

    def interrupted(_: Any) -> Any:
        raise stop

    with pytest.raises(KeyboardInterrupt):
        generate(interrupted, real, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")


def test_ray_is_asked_for_by_its_extra(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(MissingPackage, match=r"jwb-dh-v1\[scale\]"):
        generate(frames_of, real, tmp_path / "out", executor="ray")
    assert not (tmp_path / "out").exists()


def test_ray_gives_the_same_files(real: Path, tmp_path: Path):
    pytest.importorskip("ray")
    here = generate(frames_of, real, tmp_path / "here")
    there = generate(frames_of, real, tmp_path / "there", executor="ray", workers=2)
    assert (there.made, there.complete) == (here.made, True)
    assert (tmp_path / "there" / "a.mp4").read_bytes() == (tmp_path / "here" / "a.mp4").read_bytes()
