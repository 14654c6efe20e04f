"""CLIP's image towers (ViT-B/32 and ViT-L/14) and LAION's aesthetic head, from the files that VBench uses.

The architecture is open_clip's `VisionTransformer` with the quick GELU that OpenAI's weights were trained with; key
names are OpenAI's (`visual.*`, openai/CLIP `clip/model.py`). The text tower is never built.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from jwb_dh_v1.errors import MissingPackage, SetupError
from jwb_dh_v1.networks.weights import load_torch

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


def from_state(state: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> nn.Module:
    """An image tower in eval mode on the CPU; its size is read off the tensors' shapes.

    The module takes float [n, 3, 224, 224] (normalised by CLIP's mean and standard deviation) and returns the projected
    class token, not normalised: [n, 512] of ViT-B/32, [n, 768] of ViT-L/14.

    Args:
        state: tensors named `visual.*`; others are ignored.
        dtype: what to compute in. Published matrices are float16; openai/CLIP computes in float32 on the CPU and in
            float16 on CUDA, which moves cosines by about 1e-3. We compute in float32 everywhere.

    Raises:
        SetupError: tensors are missing, or have the shapes of another network.
        MissingPackage: open_clip is not installed.

    """
    try:
        from open_clip.transformer import QuickGELU, VisionTransformer  # type: ignore[import-untyped]
    except ImportError:
        raise MissingPackage('CLIP needs open_clip: pip install "jwb-dh-v1[standard]".') from None

    own = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    try:
        width, _, patch, _ = own["conv1.weight"].shape
        side = patch * round((own["positional_embedding"].shape[0] - 1) ** 0.5)
        # Built without memory and filled by the file's own tensors: no time goes into random numbers.
        with torch.device("meta"):
            net: nn.Module = VisionTransformer(
                image_size=side,
                patch_size=patch,
                width=width,
                layers=sum(key.endswith("attn.in_proj_weight") for key in own),
                heads=width // HEAD_WIDTH,
                mlp_ratio=4.0,
                output_dim=own["proj"].shape[1],
                act_layer=QuickGELU,
            )
        net.load_state_dict({key: value.to(dtype) for key, value in own.items()}, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise SetupError(f"This is no CLIP vision transformer checkpoint: {reason}") from None
    return net.eval().requires_grad_(False)


def load(path: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """`from_state` of a verified file; see `read_state` for what is trusted."""
    return from_state(read_state(path), dtype)


def aesthetic_head(state: Mapping[str, torch.Tensor]) -> nn.Linear:
    """LAION's linear aesthetic predictor: unit CLIP ViT-L/14 features [n, 768] to scores [n, 1] of about 0..10.

    Args:
        state: `weight` [1, 768] and `bias` [1] (LAION-AI/aesthetic-predictor `sa_0_4_vit_l_14_linear.pth`).

    Raises:
        SetupError: other tensors.

    """
    with torch.device("meta"):
        head = nn.Linear(768, 1)
    try:
        head.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SetupError(f"This is no LAION aesthetic head: {reason}") from None
    return head.eval().requires_grad_(False)


def load_aesthetic_head(path: Path) -> nn.Linear:
    """`aesthetic_head` of a verified file; only tensors are unpickled."""
    return aesthetic_head(load_torch(path))
