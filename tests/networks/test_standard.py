"""standard/1 and paper/1 from the command line, on real people, with seeded weights given by --weights.

The numbers of the networks are held in the golden tests; here the way from weight files, videos and a plan to a result
is. Every network is the real architecture; SCRFD's graph is planted with one face in the middle, because its own
architecture is in no package here.
"""

from __future__ import annotations

import functools
import json

import cv2
import numpy as np
import pytest
from goldens import CHECKPOINTS, seeded_file
from media import moving
from test_scrfd import detector_file, planted

from jwb_dh_v1 import Clip, Result, Sample, load_dataset, score
from jwb_dh_v1.cli import main
from jwb_dh_v1.errors import MissingWeights, SetupError, WrongHash
from jwb_dh_v1.files import sha256_of
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.fidelity import fid as fid_file
from jwb_dh_v1.metrics.quality import consistency
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import FILES

pytestmark = pytest.mark.teaser  # large networks on seeded weights: minutes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The seeded checkpoints as files, by name."""
    folder = tmp_path_factory.mktemp("seeded")
    found = {name: seeded_file(name, folder) for name in (*CHECKPOINTS, "deep3d")}
    face = planted([(32, 320, 256, 0.9, (70.0, 80.0, 70.0, 90.0))])  # cells of the 640 square that the frame is put in
    found["scrfd"] = detector_file(folder / "scrfd.onnx", face)
    return found


@pytest.fixture(scope="module")
def folders(teaser_dir, tmp_path_factory):
    """Ten frames of two real people, one with a hand in all of them, and a recompressed twin of each."""
    root = tmp_path_factory.mktemp("clips")
    (root / "real").mkdir()
    (root / "made").mkdir()
    rows = {row["sample_id"]: row for row in load_dataset(str(teaser_dir), split="evaluation")}
    for name, taken, size in (("obama-2", slice(30, 40), (320, 240)), ("pyfeat-1", slice(0, 20, 2), (320, 180))):
        frames = Clip(rows[name]["video"]).frames[taken]
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        write_mp4(root / "real" / f"{name}.mp4", frames, 12)
        write_mp4(root / "made" / f"{name}.mp4", frames, 12, crf=32)
    return root


@functools.cache
def digest(path):
    return sha256_of(path)


def run(folders, files, out, *arguments):
    given = [f"{name}={path}" for name, path in files.items()]
    return main(
        ["score", str(folders / "made"), "--data", str(folders / "real"), "--out", str(out), "--device", "cpu",
         "--boxes", "mediapipe", "--no-report", "--weights", *given, "--other-weights", *arguments]
    )  # fmt: skip


def check(out, files, protocol, metrics, lost):
    result = Result.load(out)
    assert result.protocol == protocol
    table = PROTOCOLS[protocol.partition("/")[0]].metrics
    assert [cell.metric for cell in result.scores] == [m for m in metrics for r in table[m].regions if r != "speech"]
    for cell in result.scores:
        rows = [row for row in result.rows() if (row.metric, row.region) == (cell.metric, cell.region)]
        if cell.region not in lost:
            assert cell.value is not None and np.isfinite(cell.value) and cell.n > 0, rows
        assert cell.failed == 0, rows
        for name in table[cell.metric].weights:
            assert f"{name} {digest(files[name])[:12]}" in cell.networks  # it says that it is not the real one
    used = {name for metric in metrics for name in table[metric].weights}
    weights = json.loads((out / "plan.json").read_text())["weights"]
    for name in used:
        assert weights[name] == digest(files[name]) != FILES[name].sha256
    assert all(weights[name] == FILES[name].sha256 for name in weights if name not in used)  # the detectors are real
    return result


@pytest.mark.teaser
def test_standard_runs_from_files_to_results(folders, files, tmp_path):
    metrics = [name for name in PROTOCOLS["standard"].metrics if name not in {"aesthetic_quality", "wer"}]
    assert run(folders, files, tmp_path / "run", "--metrics", *metrics) == 0
    result = check(tmp_path / "run", files, "standard/1", metrics, lost={"hands"})
    # A hand is seen in one of the two clips, or by a hair in none; then that is said.
    for cell in result.scores:
        assert cell.region != "hands" or cell.n + cell.skipped == 2
    # The same functions on the same networks, added by hand: only the order of rounding could differ.
    models, by_hand, subject = NetworkPool(files, "cpu"), None, []
    for name in ("obama-2", "pyfeat-1"):
        made, real = (Clip(folders / kind / f"{name}.mp4", models=models) for kind in ("made", "real"))
        sample = Sample(name, made, real)
        by_hand = fid_file.fid(sample) if by_hand is None else by_hand + fid_file.fid(sample)
        subject.append(consistency.SUBJECT.score(sample).value())
    assert result["fid", "body"].value == pytest.approx(by_hand.value(), rel=1e-9)
    assert result["subject_consistency", "body"].value == pytest.approx(np.mean(subject), rel=1e-12)
    assert result["fid", "body"].value != result["fid_clean", "body"].value
    assert "few features (20 and 20 in 2048 dimensions)" in result["fid", "body"].note


@pytest.mark.teaser
def test_aesthetic_quality_runs_from_files_to_results(folders, files, tmp_path):
    """Apart, and on faces only: ViT-L/14 takes over a second a frame."""
    assert run(folders, files, tmp_path / "run", "--metrics", "aesthetic_quality", "--regions", "face") == 0
    result = Result.load(tmp_path / "run")
    assert [row.status for row in result.rows()] == ["ok", "ok"]
    assert 0 < result["aesthetic_quality", "face"].value < 1  # the seeded head lies about 5 of 10


@pytest.mark.teaser
def test_paper_runs_from_files_to_results(folders, files, tmp_path):
    metrics = [name for name in PROTOCOLS["paper"].metrics if name not in {"aesthetic_quality", "wer"}]
    assert run(folders, files, tmp_path / "run", "--protocol", "paper", "--metrics", *metrics) == 0
    result = Result.load(tmp_path / "run")
    for cell in result.scores:
        if cell.region == "body":
            assert cell.value is not None and np.isfinite(cell.value) and (cell.n, cell.failed) == (2, 0)
    assert {cell.failures for cell in result.scores if cell.metric in {"fid", "ssim", "csim"}} == {"strict"}
    assert result["motion_smoothness", "body"].failures == "zero"
    # The authors' crops may be smaller than RAFT and AMT can take: then those cells are skipped, and count as 0.
    assert {row.status for row in result.rows()} <= {"ok", "skipped"}
    for cell in result.scores:
        if cell.metric in {"motion_smoothness", "dynamic_degree"} and cell.skipped and cell.n:
            values = [row.value for row in result.rows() if (row.metric, row.region) == (cell.metric, cell.region)]
            assert cell.value == pytest.approx(sum(v or 0 for v in values) / len(values), rel=1e-12)


def samples():
    real = [moving(16, 160, 128, seed=n) for n in range(2)]
    made = [np.roll(255 - clip, 5, axis=2) for clip in real]
    return [Sample(f"{n}", Clip(made[n]), Clip(real[n]), person_id=f"p{n}") for n in range(2)]


def test_missing_weights_stop_or_are_left_out(files, monkeypatch, tmp_path):
    monkeypatch.setenv("JWB_CACHE", str(tmp_path))
    monkeypatch.delenv("JWB_WEIGHTS", raising=False)
    some = {"weights": {"inception-2015": files["inception-2015"]}, "other_weights": True, "device": "cpu"}
    with pytest.raises(MissingWeights) as error:
        score(samples(), regions=["body"], **some)
    for name in ("dino-vitb16", "amt-s", "raft", "musiq-spaq", "arcface", "deep3d", "i3d"):
        assert f"{name} (" in str(error.value) and f"--weights {name}=PATH" in str(error.value)
    assert "--accept deep3d insightface musiq-spaq" in str(error.value) and "--allow-missing" in str(error.value)
    assert "fetch amt-s" not in str(error.value)  # it is not ours to fetch
    result = score(samples(), regions=["body"], allow_missing=True, **some)
    assert [cell.metric for cell in result.scores] == ["fid", "fid_clean", "ssim", "psnr"]
    assert set(result.plan["weights"]) == {"inception-2015"}
    with pytest.raises(MissingWeights, match="i3d"):
        score(samples(), ["fvd"], ["body"], allow_missing=True, **some)
    with pytest.raises(WrongHash, match="--other-weights"):
        score(samples(), ["fid"], ["body"], weights=some["weights"], device="cpu")
    with pytest.raises(SetupError, match="aesthetic_quality: no small network"):
        score(samples(), ["aesthetic_quality"], ["body"], protocol="lite")
