"""FVD: whether the clips, as a set, move like real ones (standard/1, lite/1), and the authors' FVD (paper/1).

The authors compare one clip with its reference and average over the clips. Sources: JunyaoHu/
common_metrics_on_video_quality 5f75173 and, for the authors, deepreasonings/WholeBodyBenchmark b70702d
FID_calculate.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jwb_dh_v1.errors import TooShort
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.fidelity.set_distance import frechet_of, reference_of, run_network
from jwb_dh_v1.metrics.metric import INF, REFERENCE, Metric, set_metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks import mobilenet
from jwb_dh_v1.networks.pool import models_of

if TYPE_CHECKING:
    import torch

I3D_SIDE = 224

FVD_FRAMES = 16  # the usual length (StyleGAN-V's fvd2048_16f); one clip gives one sample

FVD_SHORTEST = 10  # the rule of common_metrics_on_video_quality; the network itself runs from 9 on

PAPER_FRAMES = 16

# The authors give the covariance of a single sample as 1e-6 I, and add 1e-6 I again under the root:
# tr(1e-6 + 1e-6 - 2 * 2e-6) over 400 dimensions.
PAPER_FVD_OFFSET = -400 * 2e-6


def fvd_input(frames: np.ndarray) -> torch.Tensor:
    """common_metrics_on_video_quality `preprocess_single`: shorter side to 224, centre square, [-1, 1].

    Bilinear without antialiasing; the longer side is rounded up. uint8 [T, H, W, 3] RGB -> float32 [1, 3, T, 224, 224].
    """
    import torch
    from torch.nn import functional

    height, width = frames.shape[1:3]
    scale = I3D_SIDE / min(height, width)
    size = (I3D_SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), I3D_SIDE)
    top, left = (size[0] - I3D_SIDE) // 2, (size[1] - I3D_SIDE) // 2
    squares = []
    for frame in frames:  # one by one: sixteen 720p frames as float32 are 177 MB
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
        squares.append(x[0, :, top : top + I3D_SIDE, left : left + I3D_SIDE])
    return ((torch.stack(squares, 1) - 0.5) * 2)[None]


def paper_fvd_input(frames: np.ndarray) -> torch.Tensor:
    """The authors' clip: black frames up to 16, each squeezed to 224 x 224 by area, in [0, 1] (I3D expects [-1, 1]).

    uint8 [T <= 16, H, W, 3] RGB -> float32 [1, 3, 16, 224, 224].
    """
    import torch

    clip = np.zeros((PAPER_FRAMES, I3D_SIDE, I3D_SIDE, 3), np.uint8)
    for t, frame in enumerate(frames):
        clip[t] = cv2.resize(frame, (I3D_SIDE, I3D_SIDE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 255


def check_fvd_length(clip: Clip) -> None:
    """Refuse clips that are too short for FVD.

    Raises:
        TooShort: fewer than 10 frames.

    """
    if len(clip) < FVD_SHORTEST:
        raise TooShort(f"FVD needs clips of at least {FVD_SHORTEST} frames, {clip.name} has {len(clip)}.")


def i3d_logits(clip: Clip) -> np.ndarray:
    """I3D logits of the first 16 frames (or all of 10 to 15), float32 [1, 400].

    Raises:
        TooShort: fewer than 10 frames.

    """
    check_fvd_length(clip)

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import i3d

        return run_network(
            models_of(clip).get(i3d.NETWORK), fvd_input(_first(clip, FVD_FRAMES)), models_of(clip).device
        )

    return clip.feature(("i3d-k400", FVD_FRAMES), make)


def paper_i3d(clip: Clip) -> np.ndarray:
    """I3D logits of the first 16 frames as the authors compute them, float32 [1, 400]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import i3d

        return run_network(
            models_of(clip).get(i3d.NETWORK), paper_fvd_input(_first(clip, PAPER_FRAMES)), models_of(clip).device
        )

    return clip.feature(("i3d-k400-paper",), make)


def _first(clip: Clip, count: int) -> np.ndarray:
    return next(clip.chunks(count, 0, count))


def fvd(sample: Sample) -> Frechet:
    """FVD (Unterthiner et al. 2018) on I3D logits of each clip's first 16 frames, covariance with n - 1.

    Raises:
        TooShort: a clip has fewer than 10 frames.

    """
    return frechet_of(sample, i3d_logits)


def clip_vector(clip: Clip) -> np.ndarray:
    """Mean and mean absolute step of the first 16 frames' features, float64 [1, 2560]."""
    check_fvd_length(clip)
    found = mobilenet.features(clip)[:FVD_FRAMES].astype(np.float64)
    return np.concatenate([found.mean(axis=0), np.abs(np.diff(found, axis=0)).mean(axis=0)])[None]


def lite_fvd(sample: Sample) -> Frechet:
    """FVD's formula on how MobileNetV2's features lie and move over each clip's first 16 frames (in FVD: I3D).

    A clip gives one vector: the mean over the frames, and the mean absolute step from frame to frame.

    Raises:
        TooShort: a clip has fewer than 10 frames.

    """
    return frechet_of(sample, clip_vector)


def paper_fvd(sample: Sample) -> Mean:
    """The authors' FVD: squared distance of the logits of two clips, minus 0.0008; mean over clips.

    The formula's covariance terms are constants for single samples. Equal clips give -0.0008.
    """
    reference = reference_of(sample)
    gap = paper_i3d(sample.generated) - paper_i3d(reference)  # float32, as the authors
    return Mean.of(float(np.square(gap).sum()) + PAPER_FVD_OFFSET)


METRICS = {
    "standard": (set_metric("fvd", fvd, weights=("i3d",), networks="I3D (Kinetics-400)"),),
    "paper": (
        Metric(
            "fvd",
            paper_fvd,
            higher_is_better=False,
            range=(-0.0008, INF),
            needs=REFERENCE,
            weights=("i3d",),
            networks="I3D (Kinetics-400), inputs in [0, 1]",
        ),
    ),
    "lite": (
        set_metric(
            "fvd",
            lite_fvd,
            weights=("mobilenet-v2",),
            networks="MobileNetV2 (ImageNet), means and steps over 16 frames",
        ),
    ),
}
