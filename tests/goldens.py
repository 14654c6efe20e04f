"""What the golden tests share: the reference clips, the seeded weights and the tables under `tests/golden`."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.models import Models

HERE = Path(__file__).parent / "golden"
NAMES = ("still", "pan", "zoom_noise", "flicker", "person_like", "pan_fast", "odd_size")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clips, seeded = _module("clips"), _module("seeded_weights")


def golden(metric: str) -> dict[str, Any]:
    """What the official implementation gave."""
    return json.loads((HERE / f"{metric}.json").read_text())


def seeded_state(name: str, table: dict[str, Any] | None = None, only: tuple[str, ...] | None = None) -> dict[str, Any]:
    """A seeded checkpoint's tensors; with a table they must be the tensors its numbers were made with."""
    state = seeded.seeded_state_dict(seeded.load_spec(name), only)
    if table is not None:
        assert seeded.fingerprint(state) == table["checkpoints"][name]
    return state


@functools.cache
def made(name: str) -> tuple[np.ndarray, float]:
    """A reference clip's frames, uint8 [T, H, W, 3] RGB, and its rate."""
    return clips.make(name)


def frames_of(name: str, expected: dict[str, Any]) -> np.ndarray:
    """A reference clip's frames, after a check that they are the golden table's."""
    frames = made(name)[0]
    assert clips.sha256(frames) == expected["clip_sha256"]
    return frames


def sample_of(frames: np.ndarray, fps: float = 25.0, **nets: Any) -> Sample:
    """A sample of an array, with networks put where `Models` would load them."""
    models = Models(device="cpu")
    for name, net in nets.items():
        setattr(models, name, net)
    return Sample("a", Clip(frames, models=models, fps=fps))
