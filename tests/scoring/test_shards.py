"""Ranges of shards in several processes, merging them, damaged shards, and the orderly end."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, PlanMismatch, SetupError, Stopped
from jwb_dh_v1.files import LocalFolder
from jwb_dh_v1.scoring.executors import Execution, MissingShards, stoppable
from jwb_dh_v1.scoring.run import merge
from jwb_dh_v1.scoring.run_folder import finished

COUNT, SIZE = 10, 2
FILES = ("results.json", "samples.parquet")
CALL = {
    "metrics": ("ssim", "psnr"),
    "regions": ("body",),
    "protocol": "paper",
    "execution": Execution(shard_size=SIZE),
    "allow_failures": 1,
}
RUN = """
import sys
from pathlib import Path
from jwb_dh_v1.dataset.pairs import pair
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.run import score
from jwb_dh_v1.errors import Stopped
generated, real, out, *numbers = sys.argv[1:]
samples = pair(generated, real)
shards = (int(numbers[0]), int(numbers[1])) if numbers else None
def done(name):
    print(name, flush=True)
    if not numbers:
        sys.stdin.readline()  # goes on when it is told to
try:
    score(samples, ["ssim", "psnr"], ["body"], protocol="paper", allow_failures=1, data=samples.data,
          generated=samples.fingerprint, out=out, execution=Execution(shards=shards, shard_size=2), on_sample=done)
except Stopped as stop:
    print(stop, flush=True)
    sys.exit(128 + stop.signal)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Generated and real clips; one generated file is broken."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(COUNT):
        frames = moving(8, 160, 120, seed=number)
        for side in ("real", "generated"):
            (root / side).mkdir(exist_ok=True)
        write_mp4(root / "real" / f"{number:02d}.mp4", frames, 8)
        write_mp4(root / "generated" / f"{number:02d}.mp4", frames, 8, crf=20 + number)
    (root / "generated" / "03.mp4").write_bytes(b"broken")
    return root / "generated", root / "real"


def samples(folders):
    generated, real = folders
    return [Sample(f"{n:02d}", Clip(generated / f"{n:02d}.mp4"), Clip(real / f"{n:02d}.mp4"), person_id=f"p{n % 5}")
            for n in range(COUNT)]  # fmt: skip


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """The bytes of one run, in a folder named `run`."""
    out = tmp_path_factory.mktemp("whole") / "run"
    score(samples(folders), out=out, **CALL)
    return outputs(out)


def start(folders, out, *numbers):
    command = [sys.executable, "-c", RUN, *map(str, folders), str(out), *map(str, numbers)]
    return subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip


def test_ranges_add_up_to_one_run(folders, whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DataNotFound, match="no run in ranges"):
        merge(out)
    seen = []
    part = score(
        samples(folders),
        out=out,
        on_sample=seen.append,
        **{**CALL, "execution": Execution(shards=(3, 9), shard_size=SIZE)},
    )
    assert (seen, part.complete, part["psnr", "body"].n) == (["06", "07", "08", "09"], False, 4)
    with pytest.raises(MissingShards, match=r"3 shards in .* are missing or damaged: 0:3\."):
        merge(out)
    score(samples(folders), out=out, **{**CALL, "execution": Execution(shards=(0, 2), shard_size=SIZE)})
    assert not (out / "results.json").exists()
    with pytest.raises(MissingShards, match=r": 2:3\."):
        merge(out)
    score(samples(folders), out=out, **{**CALL, "execution": Execution(shards=(2, 3), shard_size=SIZE)})
    assert sorted(path.name for path in (out / "shards").iterdir()) == [f"{n:06d}.npz" for n in range(COUNT // SIZE)]
    result = merge(out, allow_failures=1)
    assert outputs(out) == whole
    assert (result.complete, result["psnr", "body"].n, result["psnr", "body"].failed) == (True, COUNT - 1, 1)
    # The whole run's call takes the same shards, and does not score one again.
    before = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    score(samples(folders), out=out, **CALL)
    assert outputs(out) == whole
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before


def test_a_stream_tells_its_length_at_its_end(folders, whole, tmp_path):
    def stream():
        return iter(samples(folders))

    ids = json.loads(whole["results.json"])["plan"]["data"]
    out = tmp_path / "run"
    score(stream(), out=out, data=ids, **{**CALL, "execution": Execution(shards=(0, 4), shard_size=SIZE)})
    with pytest.raises(MissingShards, match="the end of the samples"):
        merge(out)
    score(stream(), out=out, data=ids, **{**CALL, "execution": Execution(shards=(4, 5), shard_size=SIZE)})
    with pytest.raises(SetupError, match=r"There are no shards 5:7; the samples make 5\."):
        score(stream(), out=out, data=ids, **{**CALL, "execution": Execution(shards=(5, 7), shard_size=SIZE)})
    score(stream(), out=out, data=ids, **{**CALL, "execution": Execution(shards=(4, 9), shard_size=SIZE)})
    merge(out, allow_failures=1)
    assert outputs(out) == whole


@pytest.mark.teaser
def test_two_processes_write_ranges_of_one_folder_at_once(folders, tmp_path):
    out, calm = tmp_path / "at once" / "run", tmp_path / "calm" / "run"
    running = [start(folders, out, 0, 3), start(folders, out, 3, 5)]
    texts = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], texts
    assert [text.split() for text in texts] == [["00", "01", "02", "03", "04", "05"], ["06", "07", "08", "09"]]
    merge(out, allow_failures=1)
    from jwb_dh_v1.dataset.pairs import pair

    pairs = pair(*folders)
    score(pairs, out=calm, data=pairs.data, generated=pairs.fingerprint, **CALL)
    assert outputs(out) == outputs(calm)


def test_overlapping_ranges_are_told(folders, tmp_path):
    class Nested(list):
        def __getitem__(self, index):
            with pytest.raises(AlreadyRunning, match=r"shards 1:3 of"):
                score(
                    samples(folders),
                    out=tmp_path,
                    data="fixed",
                    **{**CALL, "execution": Execution(shards=(2, 4), shard_size=SIZE)},
                )
            with pytest.raises(AlreadyRunning, match=r"shards 1:3 of"):
                score(samples(folders), out=tmp_path, data="fixed", **CALL)
            with pytest.raises(AlreadyRunning, match=r"shards 1:3 of"):
                merge(tmp_path)
            score(
                samples(folders),
                out=tmp_path,
                data="fixed",
                **{**CALL, "execution": Execution(shards=(3, 4), shard_size=SIZE)},
            )  # another one's
            return super().__getitem__(index)

    part = score(
        Nested(samples(folders)),
        out=tmp_path,
        data="fixed",
        **{**CALL, "execution": Execution(shards=(1, 3), shard_size=SIZE)},
    )
    assert part["psnr", "body"].n == 3
    score(
        samples(folders), out=tmp_path, data="fixed", **{**CALL, "execution": Execution(shards=(0, 9), shard_size=SIZE)}
    )  # what is over holds nothing
    assert merge(tmp_path)["psnr", "body"].n == COUNT - 1


def test_ranges_that_do_not_fit_are_refused(folders, tmp_path):
    for wrong in ((-1, 2), (2, 2), (3, 1)):
        with pytest.raises(SetupError, match="0 <= first < last"):
            score(samples(folders), out=tmp_path, **{**CALL, "execution": Execution(shards=wrong, shard_size=SIZE)})
    with pytest.raises(SetupError, match="needs a folder"):
        score(samples(folders), **{**CALL, "execution": Execution(shards=(0, 1), shard_size=SIZE)})
    with pytest.raises(SetupError, match="no shards 5:6; the samples make 5"):
        score(
            samples(folders),
            out=tmp_path,
            name="one",
            **{**CALL, "execution": Execution(shards=(5, 6), shard_size=SIZE)},
        )
    score(
        samples(folders), out=tmp_path, name="one", **{**CALL, "execution": Execution(shards=(0, 1), shard_size=SIZE)}
    )
    with pytest.raises(PlanMismatch, match="begun with name 'one'; here it is 'two'"):
        score(
            samples(folders),
            out=tmp_path,
            name="two",
            **{**CALL, "execution": Execution(shards=(1, 2), shard_size=SIZE)},
        )
    with pytest.raises(SetupError, match="no executor 'slurm'"):
        score(samples(folders), **{**CALL, "execution": Execution(executor="slurm", shard_size=SIZE)})


def test_no_damage_of_a_shard_passes(folders, whole, tmp_path):
    out = tmp_path / "run"
    score(samples(folders)[:2], ["psnr"], ["body"], protocol="paper", out=out)
    path = out / "shards" / "000000.npz"
    content = path.read_bytes()
    folder = LocalFolder(out)
    table, states, seconds = finished(folder, 0)
    packed = {cell: {key: array.tobytes() for key, array in state.pack().items()} for cell, state in states.items()}
    rng = random.Random(0)
    found = 0
    for trial in range(600):
        broken = bytearray(content)
        if trial % 3 == 0:
            del broken[rng.randrange(len(content)) :]
        else:
            broken[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        done = finished(folder, 0)
        if done is None:
            found += 1
            continue
        # Some bytes of a zip file mean nothing, its dates for example; what it holds has to be the same.
        assert done[0].equals(table) and done[2] == seconds
        assert packed == {c: {k: a.tobytes() for k, a in s.pack().items()} for c, s in done[1].items()}
    assert found > 400
    assert finished(folder, 1) is None


def test_a_range_scores_its_damaged_shard_again(folders, whole, tmp_path):
    out = tmp_path / "run"
    score(samples(folders), out=out, **{**CALL, "execution": Execution(shards=(0, 5), shard_size=SIZE)})
    path = out / "shards" / "000001.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingShards, match=r": 1:2\."):
        merge(out)
    score(samples(folders), out=out, **{**CALL, "execution": Execution(shards=(0, 5), shard_size=SIZE)})
    merge(out, allow_failures=1)
    assert outputs(out) == whole


@pytest.mark.teaser
def test_sigterm_finishes_the_shard(folders, tmp_path):
    out = tmp_path / "run"
    process = start(folders, out)
    assert process.stdout.readline() == "00\n"
    process.send_signal(signal.SIGTERM)  # within the first shard
    time.sleep(0.2)
    text, _ = process.communicate("\n" * COUNT, timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert text.split()[-1] == "resume." and "01\n" in text and "02\n" not in text and "SIGTERM; stopping" in text
    assert [path.name for path in (out / "shards").iterdir()] == ["000000.npz"]
    assert not (out / "results.json").exists()
    process = start(folders, out)
    text, _ = process.communicate("\n" * COUNT, timeout=120)
    assert process.returncode == 0, text
    from jwb_dh_v1.dataset.pairs import pair

    pairs, calm = pair(*folders), tmp_path / "calm" / "run"
    score(pairs, out=calm, data=pairs.data, generated=pairs.fingerprint, **CALL)
    assert outputs(out) == outputs(calm)


def test_the_first_ctrl_c_finishes_the_shard_and_the_second_does_not_wait(folders, whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped, match="run the same command again to resume") as caught:
        score(samples(folders), out=out, on_sample=lambda name: os.kill(os.getpid(), signal.SIGINT) if name == "02"
              else None, **CALL)  # fmt: skip
    assert caught.value.signal == signal.SIGINT
    assert len(list((out / "shards").iterdir())) == 2

    def twice(name):
        for _ in range(2 if name == "04" else 0):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        score(samples(folders), out=out, on_sample=twice, **CALL)
    assert len(list((out / "shards").iterdir())) == 2
    score(samples(folders), out=out, **CALL)
    assert outputs(out) == whole


def test_handlers_are_put_back(folders):
    mine = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, mine)
    try:
        with pytest.raises(Stopped, match="all shards of this run are done"), stoppable() as stop:
            assert signal.getsignal(signal.SIGTERM) is not mine
            os.kill(os.getpid(), signal.SIGTERM)
            assert (bool(stop), stop.signal) == (True, signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is mine
        inside = []

        def elsewhere():
            with stoppable() as stop:
                inside.append((bool(stop), signal.getsignal(signal.SIGTERM) is mine))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert inside == [(False, True)]
    finally:
        signal.signal(signal.SIGTERM, before)
