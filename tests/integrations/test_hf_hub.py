"""The modules from their folders and from a Hub: the core's numbers to the last bit, of videos on real people.

The Hub is `hub_server`: one Space per module, as they are published. Its client is a process of its own, because
huggingface_hub reads its environment when it is imported; its cache is empty, so that every module comes from there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import hub_server
import numpy as np
import pytest
from goldens import seeded_file
from judge_server import JudgeServer
from test_hf_speech import HEARD, SAID, sound

from jwb_dh_v1 import Clip, Sample, load_dataset, score
from jwb_dh_v1.errors import SampleError
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.region import REGIONS
from jwb_dh_v1.metrics.wer import corpus_of
from jwb_dh_v1.networks.weights import cache_dir

evaluate = pytest.importorskip("evaluate")
pytestmark = pytest.mark.teaser
METRICS = Path(__file__).parents[2] / "metrics"
LITE = tuple(name for name in PROTOCOLS["lite"].metrics if name != "wer")
SEEDED = {"imaging_quality": ("musiq-spaq",), "aesthetic_quality": ("clip-vit-l-14", "laion-aesthetic-l14")}
# Half of the Spaces have the tag that evaluate asks for first, half only the branch `main`.
SPACES = {name: number % 2 == 0 for number, name in enumerate(sorted((*LITE, *SEEDED, "wer", "lalm_win_rate")))}
FACTS = ("n", "skipped", "failed", "ci95", "coverage", "note", "networks", "region", "protocol", "higher_is_better")
# What a user's script does: every module on every region that it knows, with what it says where it has no number.
SCRIPT = """
import json, os, sys
import evaluate
from jwb_dh_v1.errors import SampleError
asked = json.load(open("asked.json"))
found, modules = {}, {}
for name, how in asked["calls"]:
    module = modules[name] = modules.get(name) or evaluate.load(f"ORG/{name}", **asked["load"][name])
    given = {"predictions": asked["made"], "references": asked["real"], **how}
    cell = f"{name}/{how.get('region')}"
    try:
        found[cell] = module.compute(**given)
    except SampleError as error:
        found[cell] = {"error": str(error)}
json.dump({"found": found, "from": sys.modules[type(module).__module__].__file__}, open("found.json", "w"))
"""


@pytest.fixture(scope="module")
def videos(teaser_dir, tmp_path_factory):
    """Sixteen frames of two real people, one with a hand in all of them, and a recompressed twin of each."""
    root = tmp_path_factory.mktemp("clips")
    rows = {row["sample_id"]: row for row in load_dataset(str(teaser_dir), split="evaluation")}
    found = {"made": [], "real": []}
    for name, taken, size in (("obama-2", slice(30, 46), (256, 192)), ("carphone-1", slice(0, 16), (176, 144))):
        frames = Clip(rows[name]["video"]).frames[taken]
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        for kind, crf in (("made", 32), ("real", 16)):
            found[kind].append(str(root / f"{name}-{kind}.mp4"))
            write_mp4(found[kind][-1], frames, 12, crf=crf)
    return found["made"], found["real"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The modules as Spaces."""
    room = tmp_path_factory.mktemp("hub")
    for name, tagged in SPACES.items():
        folder = room / name
        folder.mkdir()
        for file in (METRICS / name).iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        tag = f"v{evaluate.__version__}" if tagged else "first"
        hub_server.commit(room / "served" / "spaces" / "ORG" / name, folder, tag)
    with hub_server.hub(room / "olah", room / "served") as served:
        yield served


def core(made, real, metrics, regions, **how):
    """The core's results by metric and region, on clips and networks of its own."""
    pairs = enumerate(zip(made, real, strict=True))
    samples = [Sample(f"{n:06d}", Clip(ours), Clip(theirs)) for n, (ours, theirs) in pairs]
    result = score(samples, metrics, regions, **how)
    return {f"{cell.metric}/{cell.region}": cell for cell in result.scores}


def lite_calls():
    table = PROTOCOLS["lite"].metrics
    return [(name, {"region": region, "protocol": "lite"}) for name in LITE for region in table[name].regions]


@pytest.fixture(scope="module")
def expected(videos):
    return core(*videos, LITE, REGIONS, protocol="lite")


def check(found, expected):
    """Every number of the core, and every word about it."""
    assert set(found) == set(expected)
    scored = 0
    for cell, ours in found.items():
        theirs = expected[cell]
        if "error" in ours:
            assert theirs.value is None and theirs.n == 0
            assert f"none of {theirs.skipped + theirs.failed} videos" in ours["error"]
            continue
        assert ours[theirs.metric] == theirs.value is not None, cell
        told = {name: tuple(ours[name]) if name == "ci95" and ours[name] else ours[name] for name in FACTS}
        protocol = {"protocol": told.pop("protocol")}
        assert told == {name: getattr(theirs, name) for name in told}, cell
        assert protocol["protocol"] == ("lite/1" if theirs.metric in LITE else "standard/1")
        scored += 1
    return scored


def run(asked, room, environment=None):
    room.mkdir(parents=True, exist_ok=True)
    (room / "asked.json").write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=room, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((room / "found.json").read_text())


def by_folder(calls, videos):
    """What the script does, in this process."""
    found, modules = {}, {name: evaluate.load(str(METRICS / name)) for name, _ in calls}
    for name, how in calls:
        try:
            found[f"{name}/{how['region']}"] = modules[name].compute(predictions=videos[0], references=videos[1], **how)
        except SampleError as error:
            found[f"{name}/{how['region']}"] = {"error": str(error)}
    return found


def by_hub(calls, videos, served, room):
    numeric = {name: value for name, value in os.environ.items() if name.startswith(("OPENBLAS_", "OMP_", "MKL_"))}
    client = {**numeric, **served.environment(room), "JWB_CACHE": str(cache_dir())}
    load = {name: {} if tagged else {"revision": "main"} for name, tagged in SPACES.items()}
    with served.watched() as log:
        answer = run({"load": load, "calls": calls, "made": videos[0], "real": videos[1]}, room, client)
    assert str(room / "hf") in answer["from"]
    fetched = {request.path.rpartition("/")[2] for request in log if request.status == 200}
    assert {f"{name}.py" for name, _ in calls} <= fetched
    return answer["found"]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")


def test_modules_from_their_folders(videos, expected, offline):
    found = by_folder(lite_calls(), videos)
    assert check(found, expected) >= 20
    assert found["ssim/hands"]["n"] == 1  # one of the two shows a hand


def test_modules_from_a_hub(videos, expected, served, tmp_path, offline):
    wavs = [sound(tmp_path / f"{hertz}.wav", hertz) for hertz in (3000, 2800, 310, 300)]
    pairs = {"predictions": wavs[:2], "references": wavs[2:], "texts": SAID[:2], "log": str(tmp_path / "log.jsonl")}
    with JudgeServer() as judge:
        how = {"judge": "openai", "model": "m", "settings": {"base_url": judge.openai_url}}
        by_judge = evaluate.load(str(METRICS / "lalm_win_rate")).compute(**pairs, **how)
    speech = [("wer", {"predictions": HEARD, "references": SAID}), ("lalm_win_rate", pairs)]
    found = by_hub([*lite_calls(), *speech], videos, served, tmp_path / "client")
    assert found.pop("wer/None")["wer"] == corpus_of(SAID, HEARD).value
    rate = found.pop("lalm_win_rate/None")
    assert (rate["lalm_win_rate"], rate["reused"], rate["ci95"]) == (1.0, 4, list(by_judge["ci95"]))
    assert check(found, expected) >= 20


@pytest.mark.parametrize("name", ["imaging_quality", pytest.param("aesthetic_quality", marks=pytest.mark.slow)])
def test_metrics_that_lite_lacks_with_seeded_weights(name, videos, served, tmp_path, offline):
    """The real architectures on seeded weights that the user names; three frames, because ViT-L/14 takes its time."""
    weights = {weight: str(seeded_file(weight, tmp_path)) for weight in SEEDED[name]}
    short = []
    for side in videos:
        short.append([str(tmp_path / f"short-{Path(side[0]).name}")])
        write_mp4(short[-1][0], Clip(side[0]).frames[:3], 12)
    how = {"region": "body", "weights": weights, "other_weights": True, "device": "cpu"}
    paths = {weight: Path(path) for weight, path in weights.items()}
    expected = core(*short, [name], ["body"], device="cpu", weights=paths, other_weights=True)
    assert check(by_folder([(name, how)], short), expected) == 1
    found = by_hub([(name, how)], short, served, tmp_path / "client")
    assert check(found, expected) == 1
    assert "own weights" in found[f"{name}/body"]["networks"]


@pytest.mark.slow
def test_modules_from_their_folders_on_the_whole_teaser(teaser_dir, systems_dir, tmp_path, offline):
    """Eight clips in full length, in the rows of the dataset."""
    rows = list(load_dataset(str(teaser_dir), split="evaluation"))
    made = [str(systems_dir / "recompressed" / f"{row['sample_id']}.mp4") for row in rows]
    real = [row["video"] for row in rows]
    found = by_folder(lite_calls(), (made, real))
    assert check(found, core(made, real, LITE, REGIONS, protocol="lite")) == len(lite_calls())
