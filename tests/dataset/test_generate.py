"""A toy model over the teaser: what it writes scores, resumes and fails by name."""

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

import numpy as np
import pytest
from media import faststart, float_audio, moving, tone, variable_rate, write_mp4
from test_prompts import Row, bad_rows, made_row, rows_fixture  # noqa: F401 - a fixture

from jwb_dh_v1 import Clip, score
from jwb_dh_v1.dataset.generate import SUMMARY, generate
from jwb_dh_v1.dataset.pairs import pair, videos_in
from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, MissingPackage, SetupError
from jwb_dh_v1.media.audio import Audio, decode_audio

TOY = """
import sys, time
import numpy as np
from jwb_dh_v1.dataset.generate import generate

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


@pytest.mark.teaser
def test_ray_gives_the_same_files(real: Path, tmp_path: Path):
    ray = pytest.importorskip("ray")
    here = generate(frames_of, real, tmp_path / "here")
    there = generate(frames_of, real, tmp_path / "there", executor="ray", workers=2)
    assert not ray.is_initialized()  # what was started for the calls is ended with them
    assert (there.made, there.complete) == (here.made, True)
    assert (tmp_path / "there" / "a.mp4").read_bytes() == (tmp_path / "here" / "a.mp4").read_bytes()
