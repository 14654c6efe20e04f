"""Shards, resume and SIGKILL: the bytes of the results depend on the samples and the plan alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Result, Sample, score
from jwb_dh_v1.errors import AlreadyRunning, PlanMismatch
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet
from jwb_dh_v1.metrics.state import add
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.plan import make_plan
from jwb_dh_v1.scoring.shard import read_shard, score_shard

COUNT = 20
PIXELS = ("ssim", "psnr", "csim")  # of paper/1, without weights
FILES = ("results.json", "samples.parquet")
RUN = """
import sys
from jwb_dh_v1.cli import main
sys.exit(main(["score", sys.argv[1], "--data", sys.argv[2], "--out", sys.argv[3], "--protocol", "paper",
               "--regions", "body", "--metrics", "ssim", "psnr", "csim", "--shard-size", "2",
               "--no-report", "--allow-failures", "2"]))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Generated and real clips; one generated file is broken and one is missing."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(COUNT):
        frames = moving(8, 160, 120, seed=number)
        for side in ("real", "generated"):
            (root / side).mkdir(exist_ok=True)
        write_mp4(root / "real" / f"{number:02d}.mp4", frames, 8)
        write_mp4(root / "generated" / f"{number:02d}.mp4", frames, 8, crf=20 + number)
    (root / "generated" / "03.mp4").write_bytes(b"broken")
    (root / "generated" / "11.mp4").unlink()
    return root / "generated", root / "real"


def samples(folders):
    generated, real = folders
    return [Sample(f"{n:02d}", Clip(generated / f"{n:02d}.mp4"), Clip(real / f"{n:02d}.mp4"), person_id=f"p{n % 5}")
            for n in range(COUNT)]  # fmt: skip


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.teaser
def test_shard_sizes_change_no_byte(folders, tmp_path):
    written = {}
    for size in (1, 7, Execution().shard_size):
        out = tmp_path / f"by{size}"
        score(
            samples(folders),
            metrics=PIXELS,
            regions=["body"],
            protocol="paper",
            out=out,
            name="x",
            execution=Execution(shard_size=size),
        )
        assert len(list((out / "shards").iterdir())) == -(-COUNT // size)
        written[size] = outputs(out)
    assert written[1] == written[7] == written[Execution().shard_size]
    rows = list(Result.load(tmp_path / "by7").rows())
    assert [row.sample_id for row in rows[::3]] == [f"{n:02d}" for n in range(COUNT)]


def test_shard_sizes_change_no_byte_of_a_set_metric():
    clips = [np.random.default_rng(n).standard_normal((3, 16)) for n in range(COUNT)]
    states = [
        Frechet(FeatureStatistics.of(c, str(n % 5)), FeatureStatistics.of(c + 0.5, str(n % 5)))
        for n, c in enumerate(clips)
    ]
    values = set()
    for size in (1, 7, 64):
        whole = None
        for at in range(0, COUNT, size):
            part = None
            for state in states[at : at + size]:
                part = add(part, state)
            whole = add(whole, part)
        values.add(whole.value())
    assert len(values) == 1


def test_a_sequence_is_not_read_where_shards_are_done(folders, tmp_path):
    class Watched(list):
        read = 0

        def __getitem__(self, index):
            Watched.read += 1
            return super().__getitem__(index)

    watched = Watched(samples(folders))
    call = {
        "metrics": PIXELS,
        "regions": ["body"],
        "protocol": "paper",
        "out": tmp_path,
        "execution": Execution(shard_size=4),
        "data": "fixed",
    }
    score(watched, **call)
    first = outputs(tmp_path)
    (tmp_path / "shards" / "000002.npz").unlink()
    Watched.read = 0
    score(watched, **call)
    assert Watched.read == 4
    assert outputs(tmp_path) == first


def test_damaged_shards_are_scored_again(folders, tmp_path):
    call = {
        "metrics": PIXELS,
        "regions": ["body"],
        "protocol": "paper",
        "out": tmp_path,
        "execution": Execution(shard_size=5),
    }
    score(samples(folders), **call)
    first = outputs(tmp_path)
    shards = sorted((tmp_path / "shards").iterdir())
    content = bytearray(shards[0].read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit
    shards[0].write_bytes(content)
    shards[1].write_bytes(shards[1].read_bytes()[:100])
    shards[2].write_bytes(b"")
    assert [read_shard(path) is None for path in shards] == [True, True, True, False]
    score(samples(folders), **call)
    assert outputs(tmp_path) == first


def test_another_plan_is_refused_by_name(folders, tmp_path):
    score(samples(folders), ["psnr"], ["body"], protocol="paper", out=tmp_path)
    with pytest.raises(PlanMismatch, match=r"protocol: 'paper/1' there, 'standard/1' now"):
        score(samples(folders), ["psnr"], ["body"], protocol="standard", out=tmp_path)
    with pytest.raises(PlanMismatch, match="cells"):
        score(samples(folders), ["ssim"], ["body"], protocol="paper", out=tmp_path)
    with pytest.raises(PlanMismatch, match="data"):
        score(samples(folders)[1:], ["psnr"], ["body"], protocol="paper", out=tmp_path)
    with pytest.raises(PlanMismatch, match="shard_size: 64 there, 3 now"):
        score(samples(folders), ["psnr"], ["body"], protocol="paper", out=tmp_path, execution=Execution(shard_size=3))


def test_two_runs_on_one_folder(folders, tmp_path):
    class Nested(list):
        def __getitem__(self, index):
            with pytest.raises(AlreadyRunning, match="Another process"):
                score(samples(folders), metrics=PIXELS, regions=["body"], protocol="paper", out=tmp_path, data="fixed")
            return super().__getitem__(index)

    result = score(
        Nested(samples(folders)[:1]), metrics=PIXELS, regions=["body"], protocol="paper", out=tmp_path, data="fixed"
    )
    assert result["psnr", "body"].n == 1


def test_score_shard_is_pure(folders):
    plan = make_plan("paper", PIXELS, ["body"])
    first, second = (score_shard(samples(folders)[:3], plan, None) for _ in range(2))
    assert replace(first, seconds={}).to_bytes() == replace(second, seconds={}).to_bytes()


def start(folders, out):
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", RUN, *map(str, folders), str(out)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.teaser
@pytest.mark.parametrize("kills", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_lose_nothing(folders, tmp_path, kills):
    calm = tmp_path / "calm"
    process = start(folders, calm)
    begun = time.monotonic()
    text, _ = process.communicate(timeout=120)
    length = time.monotonic() - begun
    assert process.returncode == 0, text.decode()
    expected = outputs(calm)
    ids = json.loads(expected["results.json"])["scores"][0]
    assert (ids["n"], ids["failed"]) == (COUNT - 2, 2)

    rng = random.Random(0)
    killed = during = 0
    out = tmp_path / "killed" / "calm"  # the folder's name is part of the result
    while killed < kills:
        process = start(folders, out)
        if killed % 3 == 0:  # any moment, start-up and the last addition too
            time.sleep(rng.uniform(0.05, 1.0) * length)
        else:  # some moment after one more shard, or after several
            wanted = len(list(out.glob("shards/*.npz"))) + rng.randint(1, 3)
            while process.poll() is None and len(list(out.glob("shards/*.npz"))) < wanted:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
        before = len(list(out.glob("shards/*.npz")))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
        during += 0 < before < COUNT // 2
        if (out / "results.json").exists():  # finished before the signal: begin again, so that kills hit work
            assert outputs(out) == expected
            shutil.rmtree(out)
    process = start(folders, out)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text.decode()
    assert outputs(out) == expected
    assert len(list(out.glob("shards/*.npz"))) == COUNT // 2
    assert during >= kills // 6  # the signals did fall between the first and the last shard


def test_an_iterable_is_read_one_sample_at_a_time(folders, tmp_path):
    alive = []

    def stream():
        for number, sample in enumerate(samples(folders)):
            alive.append(number)
            yield sample

    seen = []
    call = {
        "metrics": PIXELS,
        "regions": ["body"],
        "protocol": "paper",
        "out": tmp_path,
        "execution": Execution(shard_size=6),
        "data": "fixed",
    }
    score(stream(), on_sample=lambda name: seen.append((name, len(alive))), **call)
    # When sample k is done, k + 2 samples have been drawn: one is decoded ahead, and no more are read.
    assert seen == [(f"{k:02d}", min(k + 2, COUNT)) for k in range(COUNT)]
    first = outputs(tmp_path)
    (tmp_path / "shards" / "000001.npz").unlink()
    score(stream(), **call)
    assert outputs(tmp_path) == first


def test_wrong_annotations_in_the_data_fail_their_sample_only(folders):
    from jwb_dh_v1.errors import BadBox
    from jwb_dh_v1.networks.pool import NetworkPool

    def broken():
        raise BadBox("three numbers are no box")

    bad, good = samples(folders)[:2]
    bad = replace(bad, reference=Clip(folders[1] / "00.mp4", annotations=broken))
    result = score(
        [bad, good], ["ssim"], ["body", "face"], boxes="annotations", models=NetworkPool(boxes="annotations")
    )
    found = {(row.sample_id, row.region): (row.status, row.error) for row in result.rows()}
    assert found["00", "face"] == ("failed", "BadBox")
    assert found["00", "body"] == found["01", "body"] == ("ok", "")
    assert found["01", "face"] == ("skipped", "NotApplicable")
