"""Preprocessing and features of VBench's DINO, CLIP and MUSIQ dimensions, to the letter (Vchitect/VBench 45e79ec).

VBench decodes to float32 0..255 and resizes that. So bicubic overshoot stays (a black to white edge reaches -20 and
275), nothing is antialiased, and nothing is rounded back to whole grey levels; a resize by PIL or on uint8 gives other
numbers (`vbench/utils.py`: `dino_transform`, `clip_transform`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jwb_dh_v1.networks.musiq import SCALES, multiscale_patches, scaled_shape

SIDE = 224
LONGER = 512  # imaging quality looks at nothing larger
BATCH = 8  # frames per forward pass
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Cpu = torch.device("cpu")
Prepare = Callable[[np.ndarray, torch.device], torch.Tensor]


def resized_shape(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """(height, width) after torchvision's `Resize(side)`: the shorter edge is `side`, the longer truncated."""
    if width <= height:
        return int(side * height / width), side
    return side, int(side * width / height)


def resize(
    frames: np.ndarray, mode: Literal["bilinear", "bicubic"], device: torch.device = Cpu, side: int = SIDE
) -> torch.Tensor:
    """`resize_to` the size whose shorter side is `side` (torchvision's `Resize(side, antialias=False)`)."""
    return resize_to(frames, resized_shape(frames.shape[1], frames.shape[2], side), mode, device)


def resize_to(
    frames: np.ndarray, size: tuple[int, int], mode: Literal["bilinear", "bicubic"], device: torch.device = Cpu
) -> torch.Tensor:
    """Frames at their new size, neither antialiased nor clamped nor rounded.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        size: (h, w) of the result.
        mode: the kernel, with half-pixel centres (as torchvision does on float tensors).
        device: where to resize.

    Returns:
        float32 [n, 3, h, w] in grey levels, beyond 0..255 where the cubic kernel overshoots.

    """
    # One frame at a time: a batch of 4K frames would be 0.8 GB as float32.
    small = []
    for frame in frames:
        picture = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float()
        small.append(functional.interpolate(picture, size, mode=mode, align_corners=False, antialias=False))
    return torch.cat(small)


def _normalise(pictures: torch.Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> torch.Tensor:
    mean, std = (torch.tensor(values, device=pictures.device).view(1, 3, 1, 1) for values in statistics)
    return (pictures / 255 - mean) / std


def dino_pictures(frames: np.ndarray, device: torch.device = Cpu) -> torch.Tensor:
    """What DINO sees: shorter side to 224 bilinearly, no crop, ImageNet statistics.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        device: where to resize.

    Returns:
        float32 [n, 3, h, w], about -2.2..2.7; h and w as `resized_shape`.

    """
    return _normalise(resize(frames, "bilinear", device), IMAGENET)


def clip_pictures(frames: np.ndarray, device: torch.device = Cpu) -> torch.Tensor:
    """What CLIP sees: shorter side to 224 bicubically without clamping, the centre square, CLIP's statistics.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        device: where to resize.

    Returns:
        float32 [n, 3, 224, 224], about -2.2..2.7 where nothing overshoots.

    """
    pictures = resize(frames, "bicubic", device)
    height, width = pictures.shape[2:]
    # torchvision's CenterCrop rounds as Python does, half to even.
    top, left = round((height - SIDE) / 2), round((width - SIDE) / 2)
    return _normalise(pictures[:, :, top : top + SIDE, left : left + SIDE], CLIP)


def _features(net: nn.Module, chunks: Iterable[np.ndarray], prepare: Prepare) -> np.ndarray:
    weight = next(net.parameters())
    found = []
    with torch.inference_mode():
        for chunk in chunks:
            pictures = prepare(chunk, weight.device).to(weight.dtype)
            found.append(net(pictures).float().cpu().numpy())
    return np.concatenate(found)


def dino(net: nn.Module, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """DINO features of every frame, float32 [T, 768], not normalised.

    Args:
        net: `nets.dino.Dino`, on the device and in the type to compute in.
        chunks: the clip's frames as uint8 [n, H, W, 3] RGB, a batch each (`clip.chunks(BATCH)`).

    """
    return _features(net, chunks, dino_pictures)


def clip_image(net: nn.Module, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """CLIP image embeddings of every frame, float32 [T, 512] (ViT-B/32) or [T, 768] (ViT-L/14), not normalised.

    Args:
        net: a tower of `nets.clip_image`, on the device and in the type to compute in.
        chunks: the clip's frames as uint8 [n, H, W, 3] RGB, a batch each (`clip.chunks(BATCH)`).

    """
    return _features(net, chunks, clip_pictures)


def longer_shape(height: int, width: int) -> tuple[int, int]:
    """(height, width) that VBench shows to MUSIQ: a longer side above 512 becomes 512, both sides are truncated.

    Raises:
        TooSmall: nothing is left of the shorter side in MUSIQ's smallest scale, as the longer one is at least 448 times
            as long (or more than 256 times, if it exceeds 512 px and the first resize truncates).

    """
    scale = min(1.0, LONGER / max(height, width))
    shape = int(scale * height), int(scale * width)
    scaled_shape(*shape, min(SCALES))
    return shape


def musiq_pictures(frames: np.ndarray, device: torch.device = Cpu) -> torch.Tensor:
    """What MUSIQ sees: longer side to 512 at most, bilinearly (VBench's mode `longer`).

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        device: where to resize.

    Returns:
        float32 [n, 3, h, w] in 0..1; h and w as `longer_shape`.

    """
    return resize_to(frames, longer_shape(*frames.shape[1:3]), "bilinear", device) / 255


def musiq(net: nn.Module, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """MUSIQ scores of every frame, float32 [T], trained to be in 0..100.

    Args:
        net: `nets.musiq.Musiq`, on the device to compute on.
        chunks: the clip's frames as uint8 [n, H, W, 3] RGB, a batch each (`clip.chunks(BATCH)`).

    Raises:
        TooSmall: as `longer_shape`.

    """
    device = next(net.parameters()).device
    with torch.inference_mode():
        found = [net(*multiscale_patches(musiq_pictures(chunk, device))).cpu().numpy() for chunk in chunks]
    return np.concatenate(found)
