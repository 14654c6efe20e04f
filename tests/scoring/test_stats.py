"""Features kept beside a dataset: the same bytes with and without, and what does not fit is left alone with a word."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from media import moving

from jwb_dh_v1.cli import main
from jwb_dh_v1.dataset.pairs import pair
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.networks import mobilenet
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve_all
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.plan import make_plan
from jwb_dh_v1.scoring.reference_features import ABOUT, open_stats, path_of, write_stats
from jwb_dh_v1.scoring.run import score

METRICS = ["fid", "fvd"]
ARGS = ["--protocol", "lite", "--metrics", *METRICS, "--regions", "body"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Three real clips with their features, and three generated ones, of which the third is no video."""
    folder = tmp_path_factory.mktemp("kept")
    for side, speed in (("real", 3), ("made", 5)):
        (folder / side).mkdir()
        for seed in range(3):
            frames = moving(10 + seed, 96, 64, seed, speed)
            write_mp4(folder / side / f"c{seed}.mp4", frames, 25)
    (folder / "made" / "c2.mp4").write_bytes(b"no video")
    assert main(["data", "stats", str(folder / "real"), *ARGS]) == 0
    return folder


@pytest.fixture
def copied(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def models():
    return NetworkPool(resolve_all(["mobilenet-v2"]), "cpu")


def plan_of(metrics=METRICS):
    return make_plan("lite", metrics, ["body"])


def run(folder, models, stored, out):
    """Bytes of the result, and how often the network looked at frames of how many clips."""
    fresh = NetworkPool(models.weights, "cpu")
    fresh.put(mobilenet.NETWORK, models.get(mobilenet.NETWORK))  # loaded once for all tests
    fresh.stored = stored
    seen = []
    hook = models.get(mobilenet.NETWORK).register_forward_hook(lambda net, given, _: seen.append(len(given[0])))
    samples = pair(folder / "made", folder / "real")
    score(samples, METRICS, ["body"], protocol="lite", out=out, data=samples.data, models=fresh,
          execution=Execution(isolate=False), name="made")  # fmt: skip
    hook.remove()
    return [(out / name).read_bytes() for name in ("results.json", "samples.parquet")], sum(seen)


@pytest.fixture(scope="module")
def without(kept, models, tmp_path_factory):
    return run(kept, models, None, tmp_path_factory.mktemp("without") / "run")


def test_the_bytes_are_the_same_and_the_network_sees_half(kept, models, without, tmp_path):
    """Also where a generated clip fails: its reference counts in neither run."""
    said = []
    stored = open_stats(kept / "real", plan_of(), models, said.append)
    assert said == [f"3 features of real clips come from {kept / 'real' / 'stats'}."] and len(stored) == 3
    with_, few = run(kept, models, stored, tmp_path / "with")
    bytes_without, many = without
    assert with_ == bytes_without
    # frames of c0 and c1: 10 + 11 generated, as many real
    assert (few, many) == (21, 42)
    assert stored.served == 2
    scores = {s["metric"]: s for s in json.loads(with_[0])["scores"]}
    assert (scores["fid"]["n"], scores["fid"]["failed"]) == (2, 1) and scores["fid"]["value"] > 0


def test_what_is_kept_is_what_the_network_gives(kept, models):
    from jwb_dh_v1.media.clip import Clip

    with zipfile.ZipFile(path_of(kept / "real", "lite/1", "body")) as archive:
        about = json.loads(archive.read(ABOUT))
    assert sorted(about["metrics"]) == METRICS
    facts = about["metrics"]["fid"]["facts"]
    assert facts["weights"] == {"mobilenet-v2": plan_of().weights["mobilenet-v2"]} and facts["boxes"] == "none"
    stored = open_stats(kept / "real", plan_of(), models)
    clip = Clip(kept / "real" / "c1.mp4", models=models)
    found = stored.get(_key(clip))
    assert found.dtype == np.float32 and np.array_equal(found, mobilenet.features(clip))


def _key(clip):
    """What the clip asks its models for."""
    asked = []

    class Asked(NetworkPool):
        def remember(self, key, make):
            asked.append(key)
            return super().remember(key, make)

    clip.models, before = Asked(clip.models.weights, "cpu"), clip.models
    mobilenet.features(clip)
    clip.models = before
    return asked[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weights": {"mobilenet-v2": "0" * 64}}, "made with weights"),
        ({"decoder": "another"}, "made with decoder"),
        ({"precision": "bf16"}, "made with precision"),
    ],
)
def test_another_plan_is_refused(kept, models, change, word):
    said = []
    found = open_stats(kept / "real", replace(plan_of(), **change), models, said.append)
    assert found is None
    assert len(said) == 2 and all(word in text for text in said)


def test_one_metrics_other_weights_do_not_spoil_the_other(copied, models):
    """And a hash that is not that of the facts is refused."""
    path = path_of(copied / "real", "lite/1", "body")
    change(path, lambda about: about["metrics"]["fid"].update(plan_hash="0" * 64))
    said = []
    assert len(open_stats(copied / "real", plan_of(), models, said.append)) == 3  # fvd reads the same features
    assert "not used for fid: its plan hash is not that of what it says." in said[0]
    assert open_stats(copied / "real", plan_of(["fid"]), models) is None


def change(path, edit):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(members[ABOUT])
    edit(about)
    members[ABOUT] = json.dumps(about).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped features", "no facts", "no json"])
def test_a_damaged_file_changes_nothing(kept, copied, models, without, tmp_path, damage):
    path = path_of(copied / "real", "lite/1", "body")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped features":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename != ABOUT:
                    data[info.header_offset + 1000] ^= 1
        path.write_bytes(data)
    elif damage == "no facts":
        change(path, lambda about: about["metrics"]["fid"].pop("facts"))
    else:
        change(path, lambda about: about.update(metrics=[]))
    said = []
    stored = open_stats(copied / "real", plan_of(), models, said.append)
    if damage == "flipped features":  # seen when they are read
        assert run(kept, models, stored, tmp_path / "run") == without
    else:
        assert stored is None
    assert sum("is damaged and" in text for text in said) == 1


def test_where_there_is_nothing(kept, models, tmp_path):
    said = []
    assert open_stats(tmp_path, plan_of(), models, said.append) is None
    assert open_stats("owner/name", plan_of(), models, said.append) is None
    assert open_stats(kept / "real", plan_of(["psnr"]), models, said.append) is None
    assert said == []
    with pytest.raises(DataNotFound, match="no folder"):
        write_stats(tmp_path / "none", "lite", METRICS, ["body"], device="cpu")
    with pytest.raises(SetupError, match="psnr compares no sets"):
        write_stats(tmp_path, "lite", ["psnr"])


def test_another_version_of_a_package_is_refused(kept, models, monkeypatch):
    monkeypatch.setattr("jwb_dh_v1.scoring.aggregator.versions_here", lambda: {"jwb-dh-v1": "9.9"})
    said = []
    assert open_stats(kept / "real", plan_of(["fid"]), models, said.append) is None
    assert "made with versions" in said[0] and "9.9" in said[0]
