"""What the golden tests share: the reference clips, the seeded weights and the tables under `tests/golden`."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.networks.network import network_of
from jwb_dh_v1.networks.pool import NetworkPool

HERE = Path(__file__).parent / "golden"
NAMES = ("still", "pan", "zoom_noise", "flicker", "person_like", "pan_fast", "odd_size")


def some(names: Iterable[str], *kept: str) -> list[Any]:
    """The cases for a test that takes long: those that are not kept run with --run-slow."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in names]


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


# name in the package's table of weights -> name of the checkpoint's description, the part of it that is used, what the
# official file wraps it in
CHECKPOINTS = {
    "dino-vitb16": ("dino_vitbase16", None, None),
    "clip-vit-b-32": ("clip_vit_b32", ("visual.",), None),
    "clip-vit-l-14": ("clip_vit_l14", ("visual.",), None),
    "laion-aesthetic-l14": ("laion_aesthetic_l14_linear", None, None),
    "raft": ("raft_things", None, None),
    "amt-s": ("amt_s", None, "state_dict"),
    "musiq-spaq": ("musiq_spaq", None, None),
    "inception-2015": ("inception_fid_2015", None, None),
    "inception-v3": ("inception_v3_torchvision", None, None),
    "i3d": ("i3d_k400", None, None),
    "arcface": ("arcface_iresnet50", None, None),
}
DEEP3D_HEADS = (80, 64, 80, 3, 27, 2, 1)


def deep3d_state() -> dict[str, Any]:
    """Seeded tensors with the names and shapes of `net_recon` in Deep3DFaceRecon's checkpoint; no JSON describes it."""
    from torchvision.models import resnet50

    shapes = {f"backbone.{k}": v for k, v in resnet50(weights=None).state_dict().items() if not k.startswith("fc.")}
    entries = [{"key": k, "shape": list(v.shape), "dtype": str(v.dtype).split(".")[1]} for k, v in shapes.items()]
    for i, size in enumerate(DEEP3D_HEADS):
        entries.append({"key": f"final_layers.{i}.weight", "shape": [size, 2048, 1, 1], "dtype": "float32"})
        entries.append({"key": f"final_layers.{i}.bias", "shape": [size], "dtype": "float32"})
    return seeded.seeded_state_dict(entries)


def seeded_file(name: str, folder: Path) -> Path:
    """A seeded checkpoint in its official layout, as a file; `name` as in the package's table of weights."""
    import torch

    path = folder / f"{name}.pth"
    if name == "deep3d":
        torch.save({"net_recon": deep3d_state()}, path)
    else:
        spec, only, wrap = CHECKPOINTS[name]
        state = seeded_state(spec, only=only)
        torch.save({wrap: state} if wrap else state, path)
    return path


@functools.cache
def made(name: str) -> tuple[np.ndarray, float]:
    """A reference clip's frames, uint8 [T, H, W, 3] RGB, and its rate."""
    return clips.make(name)


def frames_of(name: str, expected: dict[str, Any]) -> np.ndarray:
    """A reference clip's frames, after a check that they are the golden table's."""
    frames = made(name)[0]
    assert clips.sha256(frames) == expected["clip_sha256"]
    return frames


# the weight file of each network that `sample_of` takes
FILE_OF = {
    "amt": "amt-s",
    "raft": "raft",
    "musiq": "musiq-spaq",
    "dino": "dino-vitb16",
    "clip_b32": "clip-vit-b-32",
    "clip_l14": "clip-vit-l-14",
    "laion": "laion-aesthetic-l14",
    "face_mesh": "face-mesh",
}


def sample_of(frames: np.ndarray, fps: float = 25.0, **nets: Any) -> Sample:
    """A sample of an array, with networks put where `NetworkPool` would load them."""
    models = NetworkPool(device="cpu")
    for name, net in nets.items():
        models.put(network_of(FILE_OF[name]), net)
    return Sample("a", Clip(frames, models=models, fps=fps))
