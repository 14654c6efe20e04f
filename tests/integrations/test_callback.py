"""Scores in a training loop: they say what the model does, and leave the training as it was."""

from __future__ import annotations

import importlib.util
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jwb_dh_v1 import Clip, load_dataset, score
from jwb_dh_v1.dataset.generate import generate
from jwb_dh_v1.dataset.prompts import Prompt
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.integrations.callback import CHEAP, FixedSet, fixed_set, score_generated
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics.sample import Sample

FRAMES = 20


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small real-looking clips whose shapes move."""
    folder = tmp_path_factory.mktemp("real")
    found = {}
    for seed in range(2):
        rng = np.random.default_rng(seed)
        still = np.kron(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        found[f"clip-{seed}"] = folder / f"clip-{seed}.mp4"
        write_mp4(found[f"clip-{seed}"], [np.roll(still, 2 * t, axis=1) for t in range(FRAMES)], 25, crf=10)
    return found


@pytest.fixture(scope="module")
def chosen(real: dict[str, Path]) -> FixedSet:
    return fixed_set(next(iter(real.values())).parent)


def noisy(real: dict[str, Path], strength: Callable[[], float]) -> Callable[[Prompt], np.ndarray]:
    """A 'model' that gives the real frames with noise."""
    frames = {name: Clip(path).frames.astype(np.float32) for name, path in real.items()}

    def model(prompt: Prompt) -> np.ndarray:
        noise = torch.randn(frames[prompt.sample_id].shape).numpy()
        out = frames[prompt.sample_id] + strength() * noise
        return np.clip(out, 0, 255).astype(np.uint8)

    return model


def test_scores_are_those_of_the_benchmark(real: dict[str, Path], chosen: FixedSet, tmp_path: Path) -> None:
    logged: list[tuple[dict[str, float], int | None]] = []
    model = noisy(real, lambda: 20.0)
    scores = score_generated(model, chosen, step=7, log=lambda found, step: logged.append((found, step)))
    assert logged == [(scores, 7)]
    assert scores["jwb/failed"] == scores["jwb/skipped"] == 0
    torch.manual_seed(0)
    generate(model, chosen.rows, tmp_path)
    samples = [Sample(name, Clip(tmp_path / f"{name}.mp4"), Clip(path)) for name, path in real.items()]
    whole = score(samples, CHEAP, ("body",), protocol="lite", device="cpu")
    assert {f"jwb/{s.metric}_{s.region}": s.value for s in whole.scores} == {
        key: value for key, value in scores.items() if key.endswith("_body")
    }
    worse = score_generated(noisy(real, lambda: 80.0), chosen)
    assert worse["jwb/psnr_body"] < scores["jwb/psnr_body"] - 6 and worse["jwb/ssim_body"] < scores["jwb/ssim_body"]


def test_samples_of_arrays_and_rows_are_taken_too(real: dict[str, Path]) -> None:
    clips = {name: Clip(path).frames for name, path in real.items()}
    samples = [Sample(name, Clip(frames), Clip(frames)) for name, frames in clips.items()]
    rows = [{"sample_id": name, "video": path} for name, path in real.items()]
    found = [
        score_generated(lambda p: (clips[p.sample_id], 25.0), data, metrics=["psnr"], limit=1)
        for data in (samples, rows, next(iter(real.values())).parent)
    ]
    assert len({one["jwb/psnr_body"] for one in found}) == 1 and found[0]["jwb/psnr_body"] > 30
    with pytest.raises(DataNotFound, match="clip-0 has no reference"):
        fixed_set([Sample("clip-0", Clip(clips["clip-0"]))])
    with pytest.raises(DataNotFound, match="no samples"):
        fixed_set([])


class Toy(torch.nn.Module):
    """A model whose one number is the noise that its clips have; training takes it to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.nn.Parameter(torch.tensor(60.0))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return {"loss": (self.noise - self.drop(x).mean() * 0) ** 2, "logits": x}


@pytest.mark.parametrize("fails", [False, True])
def test_the_training_is_left_as_it_was(real: dict[str, Path], chosen: FixedSet, fails: bool) -> None:
    toy = Toy()
    toy.drop.eval()  # one part was put in evaluation mode by the user
    seen: list[tuple[bool, bool]] = []

    def model(prompt: Prompt) -> np.ndarray:
        seen.append((toy.training, torch.is_grad_enabled()))
        random.random(), np.random.rand(), torch.rand(1)
        if fails:
            raise RuntimeError("out of memory")
        return Clip(real[prompt.sample_id]).frames

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    if fails:
        with pytest.warns(UserWarning, match="2 of 2 clips were not made; clip-0: RuntimeError: out of memory"):
            scores = score_generated(model, chosen, model=toy)
        assert scores["jwb/failed"] == 2 and "jwb/ssim_body" not in scores
    else:
        scores = score_generated(model, chosen, model=toy)
        assert scores["jwb/failed"] == 0
        with pytest.raises(SetupError, match="no metric 'nonsense'"):
            score_generated(model, chosen, model=toy, metrics=["nonsense"])
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert toy.training and not toy.drop.training and torch.is_grad_enabled()
    assert seen == [(False, False)] * 2


def trainer_of(model: torch.nn.Module, folder: Path, **changes: Any) -> Any:
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: pip install accelerate")
    from transformers import Trainer, TrainingArguments

    data = [{"x": torch.zeros(2), "labels": torch.zeros(1)} for _ in range(4)]
    options = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 12.0, **changes}
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", optim="sgd", max_grad_norm=1.0,
        lr_scheduler_type="constant", disable_tqdm=True, per_device_train_batch_size=2, **options,
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data)


@pytest.mark.teaser
def test_a_real_trainer_logs_scores_that_improve(teaser_dir: Path, tmp_path: Path) -> None:
    from jwb_dh_v1.integrations.callback import BenchmarkCallback

    stream = load_dataset(teaser_dir, split="evaluation", streaming=True)
    rows = [row for row in stream if row["sample_id"].startswith("carphone")]
    clips = {row["sample_id"]: Clip(row["video"]).frames[:60].astype(np.float32) for row in rows}
    toy = Toy()

    def model(prompt: Prompt) -> np.ndarray:
        noise = torch.randn(clips[prompt.sample_id].shape).numpy()
        return np.clip(clips[prompt.sample_id] + toy.noise.item() * noise, 0, 255).astype(np.uint8)

    trainer = trainer_of(toy, tmp_path)
    callback = BenchmarkCallback(model, rows)
    callback.attach(trainer)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "jwb/psnr_body" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6] == [entry["step"] for entry in callback.history]
    for key, least in (("jwb/psnr_body", 1.0), ("jwb/ssim_body", 0.03)):
        values = [entry[key] for entry in logged]
        assert all(b - a > least for a, b in pairwise(values)), (key, values)
    assert all(entry["jwb/failed"] == 0 for entry in logged) and callback.errors == 0


def test_every_n_steps_without_a_logger(real: dict[str, Path], chosen: FixedSet, tmp_path: Path) -> None:
    from jwb_dh_v1.integrations.callback import BenchmarkCallback

    trainer = trainer_of(Toy(), tmp_path, eval_strategy="no", max_steps=5)
    callback = BenchmarkCallback(noisy(real, lambda: 9.0), chosen, every=2, metrics=["psnr"])
    trainer.add_callback(callback)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "jwb/psnr_body" in entry] == [2, 4]
    assert callback.history[0]["jwb/psnr_body"] == callback.history[1]["jwb/psnr_body"]  # one seed for all steps


def test_nothing_stops_the_training(real: dict[str, Path], chosen: FixedSet, tmp_path: Path) -> None:
    from jwb_dh_v1.integrations.callback import BenchmarkCallback

    def broken(scores: dict[str, float], step: int | None) -> None:
        raise OSError("disk full")

    metric = BenchmarkCallback(noisy(real, lambda: 9.0), chosen, every=2, metrics=["nonsense"])
    logger = BenchmarkCallback(noisy(real, lambda: 9.0), chosen, every=4, metrics=["psnr"], log=broken)
    trainer = trainer_of(Toy(), tmp_path, eval_strategy="no", max_steps=4)
    trainer.add_callback(metric)
    trainer.add_callback(logger)
    with pytest.warns(UserWarning) as caught:
        trainer.train()
    said = [str(w.message) for w in caught if "JWB-DH-V1" in str(w.message)]
    assert len(said) == 3 and trainer.state.global_step == 4
    assert said[0].startswith("JWB-DH-V1 at step 2: SetupError: lite/1 has no metric 'nonsense'")
    assert "could not log step 4: OSError: disk full (test_callback.py:" in said[2]
    assert metric.errors == 2 and metric.history[-1] == {"jwb/errors": 2.0, "step": 4}
    assert logger.history[0]["jwb/psnr_body"] > 20


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio(real: dict[str, Path], chosen: FixedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own database holds the scores at their step; nothing leaves the machine."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when trackio is imported
    import trackio

    from jwb_dh_v1.integrations.callback import trackio_log

    trackio.init(project="jwb-test")
    given = score_generated(noisy(real, lambda: 9.0), chosen, metrics=["psnr"], step=7, log=trackio_log)
    trackio.finish()
    with closing(sqlite3.connect(tmp_path / "jwb-test.db")) as base:
        rows = base.execute("SELECT step, metrics FROM metrics").fetchall()
    ((step, metrics),) = rows
    assert step == 7 and json.loads(metrics) == pytest.approx(given)


@pytest.mark.skipif(importlib.util.find_spec("trackio") is not None, reason="trackio is installed")
def test_without_trackio_one_is_told(real: dict[str, Path], chosen: FixedSet) -> None:
    from jwb_dh_v1.errors import MissingPackage
    from jwb_dh_v1.integrations.callback import trackio_log

    with pytest.raises(MissingPackage, match="pip install trackio"):
        trackio_log({"jwb/psnr_body": 1.0}, 1)
