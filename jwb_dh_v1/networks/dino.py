"""DINO v1 ViT-B/16: the picture feature of VBench's subject consistency.

The layers are timm's; `dino_vitbase16_pretrain.pth` loads as it is. What timm and transformers do not follow is how
facebookresearch/dino `vision_transformer.py` resizes the position embedding: the sampling step comes from a scale
factor with 0.1 cells added, not from the output size. That moves the features of every picture that is not 224 x 224.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH, IMAGENET_MEAN, IMAGENET_STD, batched, normalise, resize

if TYPE_CHECKING:
    import torch

PATCH = 16
GRID = 14  # cells per side that the position embedding was trained for: 224 / 16


def positions(table: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The position embedding for pictures of a size in pixels, float32 [1, 1 + H // 16 * (W // 16), 768].

    The trained table [1, 197, 768] where the picture has its 196 cells and is square, else resized with the cubic
    kernel, as facebookresearch/dino `interpolate_pos_encoding` does.
    """
    import torch

    rows, columns = height // PATCH, width // PATCH
    if rows * columns == GRID * GRID and height == width:
        return table
    # 0.1 keeps the number of cells from being rounded down; it also becomes part of the sampling step, because
    # PyTorch takes the step from a scale factor that it was given.
    resized = torch.nn.functional.interpolate(
        table[:, 1:].reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2),
        scale_factor=((rows + 0.1) / GRID, (columns + 0.1) / GRID),
        mode="bicubic",
        align_corners=False,
        recompute_scale_factor=False,
    )
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def from_state(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The network, in eval mode on the CPU in float32, from the official state dict.

    It takes float32 [n, 3, H, W], ImageNet-normalised RGB with both sides at least 16, and gives the class token after
    the last norm, float32 [n, 768] (norms of about 28 for the seeded network). What is left over of a side that is no
    multiple of 16 is not seen.

    Raises:
        MissingPackage: timm is not installed.
        SetupError: keys or shapes are those of another network.

    """
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        raise MissingPackage('DINO needs timm: pip install "jwb-dh-v1[standard]".') from None
    import torch

    from jwb_dh_v1.networks.checkpoint import filled

    base: Any = VisionTransformer  # the signature of its forward differs between versions of timm

    class Dino(base):  # type: ignore[misc]
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            n, _, height, width = pictures.shape
            patches = self.patch_embed.proj(pictures).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls_token.expand(n, -1, -1), patches], dim=1)
            x = self.blocks(x + positions(self.pos_embed, height, width))
            out: torch.Tensor = self.norm(x)[:, 0]  # the norm is per token, so that only one has to be kept
            return out

    make: Callable[[], torch.nn.Module] = partial(Dino, num_classes=0)
    return filled(make, state, "DINO ViT-B/16 checkpoint")


def load(path: Path) -> torch.nn.Module:
    """`from_state` of a verified `dino_vitbase16_pretrain.pth`."""
    from jwb_dh_v1.networks.checkpoint import load_torch

    return from_state(load_torch(path))


NETWORK = Network("dino-vitb16", lambda weights, _: load(weights["dino-vitb16"]), onednn=True, half=True)


def pictures(frames: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """What DINO sees: shorter side to 224 bilinearly, no crop, ImageNet statistics.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        device: where to resize.

    Returns:
        float32 [n, 3, h, w], about -2.2..2.7; h and w as `preprocessing.resized_shape`.

    """
    return normalise(resize(frames, "bilinear", device), IMAGENET_MEAN, IMAGENET_STD)


def features(clip: Clip) -> np.ndarray:
    """DINO features of every frame, float32 [T, 768], not normalised."""
    make = lambda: batched(models_of(clip).get(NETWORK), clip.chunks(BATCH), pictures)  # noqa: E731
    return clip.feature("dino-vitb16", make)
