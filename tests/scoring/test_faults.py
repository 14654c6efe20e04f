"""Survival: faults against real runs, and the parts that make them end typed or in the right bytes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Result, Sample, score
from jwb_dh_v1.dataset.pairs import pair
from jwb_dh_v1.errors import NotWritable, PlanMismatch, SetupError
from jwb_dh_v1.files import seal, unseal, write_atomically
from jwb_dh_v1.scoring.change_guard import ChangeGuard
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.result import Row

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COUNT = 6
# Decoding in this process: starting another one is what takes the time, and makes no difference here.
CALL = {
    "metrics": ("psnr",),
    "regions": ("body",),
    "protocol": "paper",
    "execution": Execution(shard_size=2, isolate=False),
}
FILES = ("results.json", "samples.parquet")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the campaign's limits and mounts are Linux's")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for number in range(COUNT):
        for side, crf in (("real", 16), ("generated", 20 + number)):
            (tmp_path / side).mkdir(exist_ok=True)
            write_mp4(tmp_path / side / f"{number}.mp4", moving(4, 64, 48, seed=number), 8, crf=crf, preset="ultrafast")
    return tmp_path / "generated", tmp_path / "real"


def run(folders: tuple[Path, Path], out: Path, after: str = "", act=None):
    """Score as the command line does; `act` is called when the sample `after` is done."""
    pairs = pair(*folders)
    done = lambda name: act() if name == after and act else None  # noqa: E731
    return score(pairs, out=out, data=pairs.data, generated=pairs.fingerprint, name="x", on_sample=done, **CALL)


def outputs(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def campaign(*arguments: str, timeout: float) -> str:
    command = [sys.executable, str(BENCHMARKS / "faults.py"), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.teaser
@linux
def test_some_faults() -> None:
    kinds = ("killed", "damaged", "file_too_large", "clip_replaced")
    text = campaign("--faults", "4", "--seed", "5", "--jobs", "1", "--kinds", *kinds, timeout=500)
    assert "\n4 faults, 0 violations" in text
    assert all(f"\n{kind} " in text for kind in kinds)


@linux
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_faults() -> None:
    assert "\n100 faults, 0 violations" in campaign("--faults", "100", "--seed", "7", timeout=3500)


@linux
def test_the_campaign_sees_a_wrong_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from fault_world import Violation, World

    world = object.__new__(World)
    world.expected = {name: name.encode() for name in FILES}
    for name in FILES:
        (tmp_path / name).write_bytes(name.encode())
    world.whole(tmp_path)
    (tmp_path / "results.json").write_bytes(b"results.jso_")
    with pytest.raises(Violation, match=r"another results\.json"):
        world.right(tmp_path)
    (tmp_path / "results.json").unlink()
    world.right(tmp_path)
    with pytest.raises(Violation, match="exit 0 without"):
        world.whole(tmp_path)


def test_no_flipped_bit_of_a_sealed_file_passes() -> None:
    facts = {"count": 5, "device": "cpu", "versions": {"numpy": "2.3.1"}, "name": None}
    content = seal(facts)
    assert unseal(content) == facts
    passed = 0
    for at in range(8 * len(content)):
        broken = bytearray(content)
        broken[at // 8] ^= 1 << at % 8
        found = unseal(bytes(broken))
        assert found in (None, facts)
        passed += found is not None
    # Space and tab, say, mean the same between two JSON values; no value may move.
    assert passed < len(content)
    assert unseal(b"") is unseal(b"[]") is unseal(b"3") is unseal(content[:-1]) is unseal(b"\xff" + content) is None


@linux
def test_what_cannot_be_written_is_one_sentence_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(NotWritable, match=r"file cannot be written: File too large; make room there\."):
            write_atomically(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(NotWritable, match="the folder was removed"):
        write_atomically(tmp_path / "nowhere" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotWritable, match="something else lies in its place"):
        write_atomically(tmp_path / "folder", b"")
    # Who expects either of the two gets it.
    assert issubclass(NotWritable, SetupError) and issubclass(NotWritable, OSError)


def test_shards_without_their_plan_are_not_taken(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(folders, out)
    first, plan = outputs(out), (out / "plan.json").read_bytes()
    (out / "plan.json").unlink()
    with pytest.raises(PlanMismatch, match=r"plan\.json is missing, and nothing else tells"):
        run(folders, out)
    (out / "plan.json").write_bytes(plan[:-30])
    with pytest.raises(PlanMismatch, match=r"plan\.json is damaged, and nothing else tells"):
        run(folders, out)
    (out / "plan.json").write_bytes(plan)
    run(folders, out)
    assert outputs(out) == first


def test_damaged_results_are_told_and_made_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(folders, out)
    first = outputs(out)
    for name in FILES:
        (out / name).write_bytes(first[name][:-40])
        with pytest.raises(SetupError, match=r"The results in .* are damaged \(.+\); the `jwb-dh score`"):
            Result.load(out)
        run(folders, out)
        assert outputs(out) == first
    assert Result.load(out)["psnr", "body"].n == COUNT


@pytest.mark.parametrize("fault", ["replaced", "removed", "reference"])
def test_a_clip_that_changes_under_a_run_does_not_count(folders: tuple[Path, Path], tmp_path: Path, fault: str) -> None:
    calm, out = tmp_path / "calm", tmp_path / "run"
    run(folders, calm)
    clip = folders[fault == "reference"] / "4.mp4"
    whole = clip.read_bytes()
    spoil = clip.unlink if fault == "removed" else lambda: shutil.copyfile(clip.with_name("2.mp4"), clip)
    result = run(folders, out, "1", spoil)
    assert not result.complete
    found = {row.sample_id: row for row in result.rows()}
    assert {name for name, row in found.items() if row.status != "ok"} == {"4"}
    assert found["4"].error == "Disturbed" and found["4"].message.startswith("4.mp4 had ")
    if fault != "reference":  # the files are not those that the run began with
        with pytest.raises(PlanMismatch, match="generated"):
            run(folders, out)
    clip.write_bytes(whole)
    done: list[str] = []
    before = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert run(folders, out, "5", lambda: done.append("5")).complete
    assert outputs(out) == outputs(calm)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"000002.npz"}  # of samples 4 and 5


def row(sample: str, error: str = "") -> Row:
    state = "failed" if error else "ok"
    return Row(sample, sample, "psnr", "body", None if error else 30.0, 0 if error else 1, None, state, error, "x")


def test_what_changes_while_it_is_scored_does_not_count(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path in paths:
        path.write_bytes(b"same size")
    samples = [Sample(path.stem, Clip(path)) for path in paths]
    watch = ChangeGuard(samples)
    drawn = list(watch)  # as a decoder that reads ahead does
    assert [s.id for s in drawn] == ["a", "b", "c"]
    paths[1].write_bytes(b"ame sizes")
    stamp = paths[1].stat()
    os.utime(paths[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))  # clocks of file systems may be coarse
    found = [next(iter(watch.checked(sample, [(row(sample.id), None, 0.5)]))) for sample in drawn]
    assert [(r.status, r.error, r.value, spent) for r, _, spent in found] == [
        ("ok", "", 30.0, 0.5), ("failed", "Disturbed", None, 0.5), ("ok", "", 30.0, 0.5)]  # fmt: skip
    assert found[1][0] == replace(row("b", "Disturbed"), message="b.mp4 was removed or changed while it was scored.")


@linux
def test_a_failure_of_the_storage_is_not_the_clips(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    whole.write_bytes(b"no video")
    broken.symlink_to("/proc/self/mem")  # can be opened, and gives EIO
    samples = [Sample(path.stem, Clip(path)) for path in (whole, broken)]
    watch = ChangeGuard(samples)
    errors = []
    for sample in watch:
        ((found, _, _),) = watch.checked(sample, [(row(sample.id, "NotAVideo"), None, 0.0)])
        errors.append((found.error, found.message))
    assert errors[0] == ("NotAVideo", "x")
    assert errors[1] == ("Disturbed", "broken.mp4 cannot be read to its end: Input/output error.")
