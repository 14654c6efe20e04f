"""The Ray executor gives the local one's bytes: on two nodes, with one lost, and without any set-up."""

import os
import pickle
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from media import moving, write_mp4

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="Ray is not installed (extra `scale`)")

from jwb_dh_v1 import Clip, Sample, score  # noqa: E402
from jwb_dh_v1.dataset.build.pack import items_in, pack  # noqa: E402
from jwb_dh_v1.errors import MissingWeights, SetupError, WrongHash  # noqa: E402
from jwb_dh_v1.parallel import RayOptions, ray_map  # noqa: E402
from jwb_dh_v1.scoring import ray_pool  # noqa: E402
from jwb_dh_v1.scoring.executors import Execution, WorkersLost  # noqa: E402
from jwb_dh_v1.scoring.ray_pool import bare  # noqa: E402
from jwb_dh_v1.scoring.run import merge  # noqa: E402

COUNT, SIZE = 16, 2
SHARDS = COUNT // SIZE
FILES = ("results.json", "samples.parquet")
CALL = {
    "metrics": ("ssim", "psnr"),
    "regions": ("body",),
    "protocol": "paper",
    "execution": Execution(shard_size=SIZE),
    "allow_failures": 1,
}
BOTH = RayOptions(workers=(2, 2), num_cpus=1)
RUN = """
import sys
from jwb_dh_v1.dataset.pairs import pair
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.run import score
from jwb_dh_v1.errors import Stopped
samples = pair(sys.argv[1], sys.argv[2])
try:
    score(samples, ["ssim", "psnr"], ["body"], protocol="paper", allow_failures=1, data=samples.data,
          generated=samples.fingerprint, out=sys.argv[3], execution=Execution(sys.argv[4], shard_size=2),
          on_sample=lambda name: print(name, flush=True))
except Stopped as stop:
    print(stop, flush=True)
    sys.exit(128 + stop.signal)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Generated and real clips; one generated file is broken."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(COUNT):
        frames = moving(16, 160, 120, seed=number)
        for side in ("real", "generated"):
            (root / side).mkdir(exist_ok=True)
        write_mp4(root / "real" / f"{number:02d}.mp4", frames, 8)
        write_mp4(root / "generated" / f"{number:02d}.mp4", frames, 8, crf=20 + number)
    (root / "generated" / "03.mp4").write_bytes(b"broken")
    return root / "generated", root / "real"


def samples(folders):
    generated, real = folders
    return [Sample(f"{n:02d}", Clip(generated / f"{n:02d}.mp4"), Clip((real / f"{n:02d}.mp4").read_bytes()),
                   person_id=f"p{n % 5}") for n in range(COUNT)]  # fmt: skip


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """The bytes of a local run, in a folder named `run`."""
    out = tmp_path_factory.mktemp("whole") / "run"
    score(samples(folders), out=out, **CALL)
    return outputs(out)


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two simulated nodes with a CPU each, and its second node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        before = signal.getsignal(signal.SIGTERM)
        ray.init(cluster.address, log_to_driver=False, logging_level="error")
        signal.signal(signal.SIGTERM, before)
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def watched(monkeypatch):
    """What the pool did: (number of a shard, whether its result came) in order, and all actors that got one."""
    seen, actors = [], set()
    finished, give = ray_pool._Actors.finished, ray_pool._Actors.give

    def spy(self):
        for task, content in finished(self):
            seen.append((task.number, content is not None))
            yield task, content

    def note(self, task):
        if not actors:  # or the first one could do all the work
            ray.wait(list(self.starting), num_returns=len(self.starting), timeout=60)
        actors.add(self.idle[-1]._actor_id)
        give(self, task)

    monkeypatch.setattr(ray_pool._Actors, "finished", spy)
    monkeypatch.setattr(ray_pool._Actors, "give", note)
    return seen, actors


def test_a_sample_travels_without_what_was_decoded(folders):
    for sample in samples(folders)[:2]:
        light = len(pickle.dumps(bare(sample)))
        assert sample.generated.frames.nbytes + sample.reference.frames.nbytes > 10 * light
        sample.generated.memo("feature", lambda: np.zeros(10**6))
        sample.generated.models = object()
        assert len(pickle.dumps(bare(sample))) < light + 1000  # facts and a hash may travel
        assert sample.generated._frames is not None and sample.generated.models is not None  # the caller's stays
    with pytest.raises(SetupError, match="'a' is an array; Ray workers take files"):
        bare(Sample("a", Clip(np.zeros((2, 32, 32, 3), np.uint8))))


@pytest.mark.slow
def test_two_nodes_give_the_local_bytes(folders, whole, nodes, watched, tmp_path):
    seen = []
    out = tmp_path / "run"
    result = score(
        samples(folders),
        out=out,
        on_sample=seen.append,
        **{**CALL, "execution": Execution(executor="ray", ray=BOTH, shard_size=SIZE)},
    )
    assert outputs(out) == whole
    assert sorted(seen) == [f"{n:02d}" for n in range(COUNT)]
    assert sorted(watched[0]) == [(number, True) for number in range(SHARDS)]
    assert (result["psnr", "body"].n, result["psnr", "body"].failed) == (COUNT - 1, 1)


@pytest.mark.slow
def test_ranges_and_a_stream_and_no_folder(folders, whole, nodes, tmp_path):
    import json

    ids, out = json.loads(whole["results.json"])["plan"]["data"], tmp_path / "run"
    one = RayOptions(num_cpus=0.5, workers=(1, 1))
    score(
        iter(samples(folders)),
        out=out,
        data=ids,
        **{**CALL, "execution": Execution(executor="ray", ray=one, shards=(2, 99), shard_size=SIZE)},
    )
    score(samples(folders), out=out, **{**CALL, "execution": Execution(shards=(0, 2), shard_size=SIZE)})
    merge(out, allow_failures=1)
    assert outputs(out) == whole
    result = score(
        samples(folders), name="run", **{**CALL, "execution": Execution(executor="ray", ray=one, shard_size=SIZE)}
    )
    assert result.to_json().encode() == whole["results.json"]


@pytest.mark.teaser
def test_workers_say_what_their_node_lacks(folders, nodes, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    file = weights / "other.bin"
    file.write_bytes(b"something")
    with pytest.raises(WrongHash, match="is not the raft of the plan"):
        ray_pool._on_this_node("raft", file, "0" * 64, "here")
    monkeypatch.setenv("JWB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(MissingWeights, match="here has no raft: put it at"):
        ray_pool._on_this_node("raft", tmp_path / "nothing.pth", "0" * 64, "here")
    # From inside an actor, errors keep their type: here of a file that only this process claims to see.
    monkeypatch.setattr(ray_pool, "_files", lambda samples: [tmp_path / "elsewhere.mp4"])
    with pytest.raises(SetupError, match=r"does not see .*elsewhere\.mp4; put the clips where all nodes see them"):
        score(samples(folders), **{**CALL, "execution": Execution(executor="ray", ray=BOTH, shard_size=SIZE)})


def test_a_worker_that_cannot_start_is_told(folders, nodes):
    with pytest.raises(SetupError, match=r"No Ray worker started in 2 s; each asks for .*'CPU': 64"):
        score(
            samples(folders),
            **{
                **CALL,
                "execution": Execution(executor="ray", ray=RayOptions(num_cpus=64, patience=2), shard_size=SIZE),
            },
        )


def half(number):
    """A call that ends its process (3), has an error of ours (7) or another one (8)."""
    if number == 3:
        os._exit(1)
    if number == 7:
        raise SetupError("no room")
    return 1 / (8 - number) if number == 8 else (number / 2, os.environ.get("GIVEN"))


@pytest.mark.teaser
def test_calls_are_spread_as_tasks(nodes):
    calls, taken = ((n, (n,)) for n in range(9)), []
    spreading = ray_map(ray, half, calls, RayOptions(retries=0), most=2, ordered=True, env={"GIVEN": "x"})
    for number, result in spreading:
        taken.append(number)
        assert isinstance(result, ray.exceptions.WorkerCrashedError) if number == 3 else result == (number / 2, "x")
        if number == 6:
            break
    assert taken == list(range(7)) and next(calls)[0] == 8  # two waited: the one that came, and one more
    spreading.close()
    for number, told in ((7, "no room"), (8, r"cannot work: ZeroDivisionError: .*Is the same software on all nodes")):
        with pytest.raises(SetupError, match=told):
            list(ray_map(ray, half, [(number, (number,))], RayOptions(retries=0), env={"GIVEN": "x"}))


def test_packed_shards_are_the_local_ones(folders, nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths are this process's
    (tmp_path / "clips").symlink_to(folders[0])

    def packed(out, **how):
        told = {}
        manifest = pack(items_in("clips"), out, shards={"evaluation": 4}, on_item=told.__setitem__, **how)
        names = [*manifest.files, "manifest.json", "README.md"]
        return manifest, told, {name: (tmp_path / out / name).read_bytes() for name in names}

    here, there = packed("here"), packed("there", executor="ray")
    assert here == there
    assert [failure.sample_id for failure in there[0].failed] == ["03"] and there[0].rows == COUNT - 1
    shard = sorted(there[0].files)[1]
    (tmp_path / "there" / shard).unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*.parquet")}
    assert packed("there", executor="ray") == here
    assert {path: path.stat().st_mtime_ns for path in before} == before  # only what was missing is made again
    with pytest.raises(SetupError, match="no executor 'slurm'"):
        packed("there", executor="slurm")


@pytest.mark.slow
@pytest.mark.teaser
def test_annotations_are_the_local_ones(nodes, teaser_dir, tmp_path):
    from jwb_dh_v1.dataset.build.annotate import annotate
    from jwb_dh_v1.dataset.load import load_dataset

    clips = tmp_path / "clips"
    clips.mkdir()
    for row in load_dataset(teaser_dir, split="evaluation", streaming=True):
        if row["sample_id"] in {"carphone-1", "carphone-2", "obama-1"}:
            (clips / f"{row['sample_id']}.mp4").write_bytes(row["video"]["bytes"])
    (clips / "text.mp4").write_text("I am no video.")
    here = annotate(clips, tmp_path / "here")
    there = annotate(clips, tmp_path / "there", executor="ray")
    assert here.clips == there.clips
    assert [(clip.name, clip.error) for clip in there.clips if clip.state == "failed"] == [("text", "NotAVideo")]
    files = sorted(path.name for path in (tmp_path / "here").iterdir() if path.suffix == ".json")
    assert len(files) == 4
    for name in files:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    again = annotate(clips, tmp_path / "there", executor="ray")
    assert [clip.state for clip in again.clips] == ["kept", "kept", "kept", "failed"]


@pytest.mark.slow
def test_a_clip_that_ends_its_workers_ends_no_other_shard(folders, whole, nodes, tmp_path):
    def poisoned():
        bad = samples(folders)[:6]
        bad[2].reference._given = partial(os._exit, 1)  # as annotations: what a crash in a library does
        return bad

    call = {**CALL, "regions": ("face",), "boxes": "annotations"}
    with pytest.raises(WorkersLost, match=r"Each time .* lost: 1 \(02 \.\.\. 03\)\. Last reason: \w+"):
        options = RayOptions(workers=(2, 2), num_cpus=1, retries=1)
        score(poisoned(), out=tmp_path, execution=Execution(executor="ray", ray=options, shard_size=SIZE), **call)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["000000.npz", "000002.npz"]


@pytest.mark.slow
def test_a_node_is_lost_in_the_middle(folders, whole, nodes, watched, tmp_path):
    """It takes the cluster's second node away: tests that need two nodes come before."""
    cluster, second = nodes
    seen, out, removed = [], tmp_path / "run", []

    def done(name):
        seen.append(name)
        if len(watched[1]) == 2 and not removed:  # both nodes are at work
            removed.append(len(seen))
            cluster.remove_node(second, allow_graceful=False)

    score(
        samples(folders),
        out=out,
        on_sample=done,
        **{**CALL, "execution": Execution(executor="ray", ray=BOTH, shard_size=SIZE)},
    )
    assert removed and removed[0] < COUNT
    assert sum(not came for _, came in watched[0]) >= 1  # a shard was lost with the node ...
    assert sorted(number for number, came in watched[0] if came) == list(range(SHARDS))  # ... and none came twice
    assert sorted(seen) == [f"{n:02d}" for n in range(COUNT)]
    assert outputs(out) == whole
    # With what is left, a damaged shard alone is scored again.
    path = out / "shards" / "000003.npz"
    path.write_bytes(path.read_bytes()[:50])
    watched[0].clear()
    score(
        samples(folders),
        out=out,
        **{**CALL, "execution": Execution(executor="ray", ray=RayOptions(num_cpus=0.5), shard_size=SIZE)},
    )
    assert watched[0] == [(3, True)]
    assert outputs(out) == whole


@pytest.mark.slow
def test_workers_placed_on_a_lost_node_do_not_count(folders, whole, nodes, tmp_path, monkeypatch):
    """Ray takes a lost node for alive for some ten seconds and places workers there: "never ran", three at a time."""
    cluster, _ = nodes
    third = cluster.add_node(num_cpus=8)
    failed, end = [], ray_pool._Actors._end
    monkeypatch.setattr(
        ray_pool._Actors, "_end", lambda self, actor: (failed.append(sys.exc_info()[1]), end(self, actor))
    )
    cluster.remove_node(third, allow_graceful=False)
    out = tmp_path / "run"
    score(
        samples(folders),
        out=out,
        **{**CALL, "execution": Execution(executor="ray", ray=RayOptions(workers=(6, 6), num_cpus=0.25, retries=0))},
    )
    assert any("never ran" in str(error) for error in failed)  # one of them would have ended the run, with no retries
    assert outputs(out) == whole


@pytest.mark.slow
def test_without_any_setup_and_sigterm(folders, tmp_path):
    out = tmp_path / "run"
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    env["RAY_ADDRESS"] = "local"  # a new one, where the fixture's cluster would be found
    command = [sys.executable, "-c", RUN, *map(str, folders), str(out)]
    process = subprocess.Popen([*command, "ray"], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = []
    for line in process.stdout:
        said.append(line)
        if line.strip().isdigit():
            break
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, "".join(said) + text
    shards = len(list((out / "shards").iterdir()))
    assert 0 < shards < SHARDS and not (out / "results.json").exists()
    subprocess.run([*command, "local"], env=env, check=True, timeout=300)
    again = tmp_path / "again" / "run"
    subprocess.run([*command[:-1], str(again), "local"], env=env, check=True, timeout=300)
    assert outputs(out) == outputs(again)
