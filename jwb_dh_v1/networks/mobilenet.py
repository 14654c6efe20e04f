"""MobileNetV2 (torchvision's IMAGENET1K_V1): the picture feature of `lite/1`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH, IMAGENET_MEAN, IMAGENET_STD, SIDE

if TYPE_CHECKING:
    import torch

View = Literal["whole", "centre"]


def load(weights: Mapping[str, Path], device: str) -> torch.nn.Module:
    """The network up to the maps that are pooled to 1280 features, eval."""
    from torchvision.models import mobilenet_v2

    from jwb_dh_v1.networks.checkpoint import load_torch

    net = mobilenet_v2(weights=None)
    net.load_state_dict(load_torch(weights["mobilenet-v2"]))
    features: torch.nn.Module = net.features.eval()
    return features


NETWORK = Network("mobilenet-v2", load, fold_norms=True, channels_last=True, half=True)


def features(clip: Clip, view: View = "whole") -> np.ndarray:
    """Pooled MobileNetV2 features of every frame, float32 [T, 1280].

    Args:
        clip: the clip part.
        view: `whole`: the frame squeezed to 224 x 224; `centre`: shorter side to 224, then the centre square.
            The same picture for a square clip, and then computed once.

    """
    width, height = clip.size
    if width == height:
        view = "whole"
    return clip.feature(("mobilenet-v2", view), lambda: _features(clip, view))


def _features(clip: Clip, view: View) -> np.ndarray:
    import torch

    models = models_of(clip)
    net, device = models.get(NETWORK), models.device
    found = []
    with torch.inference_mode():
        for chunk in clip.chunks(BATCH):
            pictures = np.stack([_picture(frame, view) for frame in chunk])
            batch = torch.from_numpy((pictures / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD).to(device)
            # [n, H, W, C] seen as [n, C, H, W] is already channels-last in memory.
            found.append(net(batch.permute(0, 3, 1, 2)).mean(dim=(2, 3)).float().cpu().numpy())
    return np.concatenate(found)


def _picture(frame: np.ndarray, view: View) -> np.ndarray:
    height, width = frame.shape[:2]
    if view == "centre":
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        frame = frame[top : top + short, left : left + short]
    if frame.shape[:2] == (SIDE, SIDE):
        return frame
    how = cv2.INTER_AREA if frame.shape[0] > SIDE else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(frame, (SIDE, SIDE), interpolation=how)
    return resized
