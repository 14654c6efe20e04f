"""Metrics from outside: objects, `package.module:TABLE`, and an installed package with an entry point."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.files import unseal
from jwb_dh_v1.metrics import PROTOCOLS, REFERENCE, Mean, Metric, Protocol, protocol
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.plan import Plan, make_plan
from jwb_dh_v1.scoring.run import merge

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "outside"


def gap(sample: Sample) -> Mean:
    """Mean absolute difference of pixels, in [0, 255]."""
    found = [np.abs(a.astype(float) - b.astype(float)).mean() for a, b in sample.pairs()]
    return Mean.of(float(np.mean(found)))


GAP = Metric("gap", gap, higher_is_better=False, range=(0, 255), needs=REFERENCE, same_boxes=True)


def samples() -> list[Sample]:
    """Two pairs whose pixels differ by 1 and by 5 everywhere."""
    made = []
    for name, step in (("a", 1), ("b", 5)):
        frames = np.full((4, 32, 32, 3), 100, np.uint8)
        made.append(Sample(name, Clip(frames + np.uint8(step)), Clip(frames)))
    return made


def test_a_metric_is_an_object(tmp_path):
    result = score(samples(), [GAP], ["body"], protocol="mylab/1", out=tmp_path / "run")
    found = result["gap", "body"]
    assert (found.value, found.n, found.higher_is_better, found.range) == (3.0, 2, False, (0, 255))  # (1 + 5) / 2
    assert result.protocol == "mylab/1"
    plan = unseal((tmp_path / "run" / "plan.json").read_bytes())
    assert (plan["protocol"], plan["declarations"]) == ("mylab/1", Protocol.of("mylab/1", [GAP]).fingerprint)
    again = score(samples(), [GAP], ["body"], protocol="mylab/1", out=tmp_path / "run")
    assert again["gap", "body"] == found


def test_two_tables_of_one_name_do_not_share_a_folder(tmp_path):
    score(samples(), [GAP], ["body"], protocol="mylab/1", out=tmp_path)
    with pytest.raises(PlanMismatch, match="declarations"):
        score(samples(), [replace(GAP, unit="grey levels")], ["body"], protocol="mylab/1", out=tmp_path)


def test_ranges_are_merged_with_the_table_and_only_with_it(tmp_path):
    table = Protocol.of("mylab/1", [GAP])
    whole = score(samples(), regions=["body"], protocol=table)
    for first in (0, 1):
        execution = Execution(shards=(first, first + 1), shard_size=1)
        score(samples(), regions=["body"], protocol=table, out=tmp_path, execution=execution)
    assert merge(tmp_path, protocol=table)["gap", "body"].value == whole["gap", "body"].value
    with pytest.raises(SetupError, match="no protocol 'mylab/1'"):
        merge(tmp_path)
    with pytest.raises(PlanMismatch, match="declares other metrics"):
        merge(tmp_path, protocol=Protocol.of("mylab/1", [replace(GAP, unit="grey levels")]))


@pytest.mark.parametrize(
    ("name", "metrics", "said"),
    [
        ("lite", [GAP], "name of this package's own protocols"),
        ("lite/1", [GAP], "name of this package's own protocols"),
        ("paper/9", [GAP], "name of this package's own protocols"),
        ("mylab", [GAP], "needs a number"),
        ("mylab/1", [GAP, "ssim"], "'ssim' is a name, gap a metric of your own"),
        ("mylab/1", [GAP, GAP], "two metrics of one name"),
        ("no.module:TABLE", None, "cannot be imported"),
        ("jwb_dh_v1.metrics:REGIONS", None, "is a tuple, not a"),
        ("mylab/1", None, "There is no protocol"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(name, metrics, said):
    with pytest.raises(SetupError, match=said):
        make_plan(name, metrics, ["body"])


def test_a_metric_needs_something_to_compute():
    with pytest.raises(SetupError, match="neither a function nor a curve"):
        Metric("nothing", higher_is_better=True, range=(0, 1))
    with pytest.raises(SetupError, match="not a name for a metric"):
        replace(GAP, name="My Gap")


def test_a_plan_travels_to_workers_with_its_table():
    table = Protocol.of("mylab/1", [GAP])
    plan = make_plan(table, regions=["body"])
    there = pickle.loads(pickle.dumps(plan))
    assert there == plan and there.table.fingerprint == table.fingerprint
    assert there.facts() == plan.facts() and "declarations" in plan.facts()
    assert Plan.from_facts(json.loads(json.dumps(plan.facts())), table) == plan
    ours = make_plan("lite", ["ssim"], ["body"])
    assert pickle.loads(pickle.dumps(ours)).table is PROTOCOLS["lite"] and "declarations" not in ours.facts()
    assert protocol(table) is table and protocol(PROTOCOLS["paper"]) is PROTOCOLS["paper"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The example package installed where nothing else is, in front of this environment."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "outside"
    source.mkdir()
    for path in PACKAGE.rglob("*"):  # a copy, as building leaves files behind
        if path.suffix in {".py", ".toml"}:
            there = source / path.relative_to(PACKAGE)
            there.parent.mkdir(exist_ok=True)
            there.write_bytes(path.read_bytes())
    install = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", *install, str(source)], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), *filter(None, sys.path)])}


@pytest.mark.teaser
def test_an_installed_package_is_scored_by_the_command(environment, tmp_path):
    def jwb(*arguments: str) -> str:
        command = [sys.executable, "-m", "jwb_dh_v1.cli", *arguments]
        run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        return run.stdout

    for folder, shift in (("real", 0), ("near", 2), ("far", 40)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            frames = np.clip(moving(6, 64, 48).astype(int) + shift, 0, 255).astype(np.uint8)
            write_mp4(tmp_path / folder / f"{name}.mp4", frames, 25, crf=10)
    shared = ["--data", "real", "--regions", "body", "--no-report"]
    jwb("score", "near", *shared, "--protocol", "mylab/1", "--out", "runs/near")
    jwb("score", "far", *shared, "--protocol", "mylab.brightness:TABLE", "--out", "runs/far", "--shards", "0:")
    jwb("merge", "runs/far")
    near, far = (json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in ("near", "far"))
    assert near["protocol"] == far["protocol"] == "mylab/1"
    cells = {name: {s["metric"]: s for s in run["scores"]} for name, run in (("near", near), ("far", far))}
    assert list(cells["near"]) == ["brightness_gap", "brightness_unrest", "ssim"]
    assert cells["near"]["brightness_gap"]["unit"] == "grey levels"
    clips = [[Clip(tmp_path / folder / "a.mp4") for folder in (name, "real")] for name in ("near", "far")]
    for name, pair in zip(("near", "far"), clips, strict=True):
        levels = [np.concatenate([*clip.chunks()]).mean(axis=(1, 2, 3)) for clip in pair]
        expected = np.abs(levels[0] - levels[1]).mean()
        assert cells[name]["brightness_gap"]["value"] == pytest.approx(expected, rel=1e-12)  # sums in another order
    assert "brightness" in jwb("compare", "runs/near", "runs/far").lower()
    assert "mylab/1" in jwb("report", "runs/near")
    jwb("leaderboard", "runs/near", "runs/far", "--out", "board")
