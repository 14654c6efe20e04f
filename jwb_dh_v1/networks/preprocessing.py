"""How the networks of VBench see frames (Vchitect/VBench 45e79ec, `vbench/utils.py`), and what all networks share.

VBench decodes to float32 0..255 and resizes that. So bicubic overshoot stays (a black to white edge reaches -20 and
275), nothing is antialiased, and nothing is rounded back to whole grey levels; a resize by PIL or on uint8 gives other
numbers (`dino_transform`, `clip_transform`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

SIDE = 224
BATCH = 8  # frames per forward pass; on two CPU cores larger batches leave the cache and are slower
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

Prepare = Callable[[np.ndarray, "torch.device"], "torch.Tensor"]


def resized_shape(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """(height, width) after torchvision's `Resize(side)`: the shorter edge is `side`, the longer truncated."""
    if width <= height:
        return int(side * height / width), side
    return side, int(side * width / height)


def resize(
    frames: np.ndarray,
    mode: Literal["bilinear", "bicubic"],
    device: torch.device | str = "cpu",
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Frames at a new size, neither antialiased nor clamped nor rounded.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        mode: the kernel, with half-pixel centres (as torchvision does on float tensors).
        device: where to resize.
        size: (h, w) of the result; by default `resized_shape`, as torchvision's `Resize(224, antialias=False)`.

    Returns:
        float32 [n, 3, h, w] in grey levels, beyond 0..255 where the cubic kernel overshoots.

    """
    import torch

    size = size or resized_shape(*frames.shape[1:3])
    # One frame at a time: a batch of 4K frames would be 0.8 GB as float32.
    small = []
    for frame in frames:
        picture = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float()
        small.append(torch.nn.functional.interpolate(picture, size, mode=mode, align_corners=False, antialias=False))
    return torch.cat(small)


def normalise(pictures: torch.Tensor, mean: np.ndarray, std: np.ndarray) -> torch.Tensor:
    """Grey levels float32 [n, 3, h, w] over 255, less the mean [3], over the deviation [3] of each channel."""
    import torch

    centre, width = (torch.from_numpy(v).to(pictures.device).view(1, 3, 1, 1) for v in (mean, std))
    return (pictures / 255 - centre) / width


def batched(net: torch.nn.Module, chunks: Iterable[np.ndarray], prepare: Prepare) -> np.ndarray:
    """What a network gives for every frame, float32 [T, ...].

    Args:
        net: on the device and in the type to compute in.
        chunks: the clip's frames as uint8 [n, H, W, 3] RGB, a batch each (`clip.chunks(BATCH)`).
        prepare: frames and a device -> what the network sees.

    """
    import torch

    weight = next(net.parameters())
    found = []
    with torch.inference_mode():
        for chunk in chunks:
            pictures = prepare(chunk, weight.device).to(weight.dtype)
            found.append(net(pictures).float().cpu().numpy())
    return np.concatenate(found)
