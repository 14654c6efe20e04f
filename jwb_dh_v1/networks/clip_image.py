"""CLIP's image towers (ViT-B/32 and ViT-L/14) and LAION's aesthetic head, from the files that VBench uses.

The architecture is open_clip's `VisionTransformer` with the quick GELU that OpenAI's weights were trained with; key
names are OpenAI's (`visual.*`, openai/CLIP `clip/model.py`). The text tower is never built.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jwb_dh_v1.errors import MissingPackage, SetupError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH, SIDE, batched, normalise, resize

if TYPE_CHECKING:
    import torch

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
PREFIX = "visual."
HEAD_WIDTH = 64  # every CLIP transformer has width / 64 heads


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The `visual.*` tensors of a checkpoint, on the CPU in the file's own types.

    OpenAI publishes TorchScript archives, which hold a program beside the tensors. PyTorch compiles that program while
    it loads and can run parts of it, so what makes the archive safe to open is its sha256: only give this function
    files that `weights.resolve` has verified. The program itself is then thrown away. A plain state dict needs no such
    trust: only tensors are unpickled.

    Args:
        path: `ViT-B-32.pt` or `ViT-L-14.pt` as published, or a state dict written by `torch.save`.

    Raises:
        SetupError: the file holds no image tower.

    """
    import torch

    from jwb_dh_v1.networks.checkpoint import load_torch

    if _is_torchscript(path):
        program = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        state: Mapping[str, torch.Tensor] = program.state_dict()
    else:
        state = load_torch(path)
    visual = {key: value for key, value in state.items() if key.startswith(PREFIX)}
    if not visual:
        raise SetupError(f"{path.name} holds no CLIP image tower: none of its keys starts with {PREFIX!r}.")
    return visual


def _is_torchscript(path: Path) -> bool:
    """As PyTorch tells the two apart: both are zip files, a program's constants are in the archive only."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def from_state(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """An image tower in eval mode on the CPU in float32; its size is read off the tensors' shapes.

    The module takes float32 [n, 3, 224, 224] (normalised by CLIP's mean and standard deviation) and returns the
    projected class token, not normalised: [n, 512] of ViT-B/32, [n, 768] of ViT-L/14. Published matrices are float16;
    openai/CLIP computes in float32 on the CPU and in float16 on CUDA, which moves cosines by about 1e-3.

    Args:
        state: tensors named `visual.*`; others are ignored.

    Raises:
        SetupError: tensors are missing, or have the shapes of another network.
        MissingPackage: open_clip is not installed.

    """
    try:
        from open_clip.transformer import QuickGELU, VisionTransformer  # type: ignore[import-untyped]
    except ImportError:
        raise MissingPackage('CLIP needs open_clip: pip install "jwb-dh-v1[standard]".') from None

    from jwb_dh_v1.networks.checkpoint import filled

    own = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    what = "CLIP vision transformer checkpoint"
    try:
        width, _, patch, _ = own["conv1.weight"].shape
        side = patch * round((own["positional_embedding"].shape[0] - 1) ** 0.5)
        output = own["proj"].shape[1]
    except (KeyError, ValueError) as error:
        raise SetupError(f"This is no {what}: {error}") from None

    def make() -> torch.nn.Module:
        net: torch.nn.Module = VisionTransformer(
            image_size=side,
            patch_size=patch,
            width=width,
            layers=sum(key.endswith("attn.in_proj_weight") for key in own),
            heads=width // HEAD_WIDTH,
            mlp_ratio=4.0,
            output_dim=output,
            act_layer=QuickGELU,
        )
        return net

    return filled(make, own, what)


def load(path: Path) -> torch.nn.Module:
    """`from_state` of a verified file; see `read_state` for what is trusted."""
    return from_state(read_state(path))


def aesthetic_head(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """LAION's linear aesthetic predictor: unit CLIP ViT-L/14 features [n, 768] to scores [n, 1] of about 0..10.

    Args:
        state: `weight` [1, 768] and `bias` [1] (LAION-AI/aesthetic-predictor `sa_0_4_vit_l_14_linear.pth`).

    Raises:
        SetupError: other tensors.

    """
    import torch

    from jwb_dh_v1.networks.checkpoint import filled

    return filled(lambda: torch.nn.Linear(768, 1), state, "LAION aesthetic head")


def load_aesthetic_head(path: Path) -> torch.nn.Module:
    """`aesthetic_head` of a verified file; only tensors are unpickled."""
    from jwb_dh_v1.networks.checkpoint import load_torch

    return aesthetic_head(load_torch(path))


B32 = Network("clip-vit-b-32", lambda weights, _: load(weights["clip-vit-b-32"]), onednn=True, half=True)
L14 = Network("clip-vit-l-14", lambda weights, _: load(weights["clip-vit-l-14"]), onednn=True, half=True)
LAION = Network("laion-aesthetic-l14", lambda weights, _: load_aesthetic_head(weights["laion-aesthetic-l14"]))


def pictures(frames: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """What CLIP sees: shorter side to 224 bicubically without clamping, the centre square, CLIP's statistics.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        device: where to resize.

    Returns:
        float32 [n, 3, 224, 224], about -2.2..2.7 where nothing overshoots.

    """
    whole = resize(frames, "bicubic", device)
    height, width = whole.shape[2:]
    # torchvision's CenterCrop rounds as Python does, half to even.
    top, left = round((height - SIDE) / 2), round((width - SIDE) / 2)
    return normalise(whole[:, :, top : top + SIDE, left : left + SIDE], MEAN, STD)


def features_b32(clip: Clip) -> np.ndarray:
    """CLIP ViT-B/32 embeddings of every frame's centre square, float32 [T, 512], not normalised."""
    make = lambda: batched(models_of(clip).get(B32), clip.chunks(BATCH), pictures)  # noqa: E731
    return clip.feature("clip-vit-b-32", make)


def features_l14(clip: Clip) -> np.ndarray:
    """CLIP ViT-L/14 embeddings of every frame's centre square, float32 [T, 768], not normalised."""
    make = lambda: batched(models_of(clip).get(L14), clip.chunks(BATCH), pictures)  # noqa: E731
    return clip.feature("clip-vit-l-14", make)


def aesthetic_scores(clip: Clip) -> np.ndarray:
    """LAION's scores of every frame's centre square, float32 [T], about 0..10."""
    import torch

    embeddings = features_l14(clip)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    head = models_of(clip).get(LAION)
    with torch.inference_mode():
        scores: np.ndarray = head(torch.from_numpy(unit).to(next(head.parameters()).device))[:, 0].cpu().numpy()
    return scores
