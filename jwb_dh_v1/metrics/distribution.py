"""FID and FVD of whole sets (standard/1), and what the benchmark's authors computed under these names (paper/1).

The networks are the same kind, the rest is not. FID and FVD compare the distribution of all generated frames or clips
with that of all real ones. The authors compare one clip with its reference, on at most 16 frames, and average over the
clips; their E-FID looks at Canny edges (elsewhere the name means expression coefficients). Both stand in this file, so
that the difference can be read. Sources: mseitzer/pytorch-fid b9c1811, GaParmar/clean-fid e88c4d6,
toshas/torch-fidelity 5e211a9, JunyaoHu/common_metrics_on_video_quality 5f75173 and, for the authors,
deepreasonings/WholeBodyBenchmark b70702d FID_calculate.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from jwb_dh_v1.errors import NotApplicable, TooShort
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet, frechet_distance
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH, IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch

Resize = Literal["pytorch", "clean", "tensorflow"]
INCEPTION_SIDE = 299
I3D_SIDE = 224
FVD_FRAMES = 16  # the usual length (StyleGAN-V's fvd2048_16f); one clip gives one sample
FVD_SHORTEST = 10  # the rule of common_metrics_on_video_quality; the network itself runs from 9 on
PAPER_FRAMES = 16
# The authors give the covariance of a single sample as 1e-6 I, and add 1e-6 I again under the root:
# tr(1e-6 + 1e-6 - 2 * 2e-6) over 400 dimensions.
PAPER_FVD_OFFSET = -400 * 2e-6


# Pictures for the 2015 Inception


def pytorch_input(frames: np.ndarray) -> torch.Tensor:
    """pytorch-fid: bilinear without antialiasing on [0, 1], then 2x - 1.

    uint8 [n, H, W, 3] RGB -> float32 [n, 3, 299, 299] in [-1, 1].
    """
    import torch
    from torch.nn import functional

    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return 2 * functional.interpolate(x, (INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear", align_corners=False) - 1


def clean_input(frames: np.ndarray) -> torch.Tensor:
    """clean-fid: Pillow's bicubic with antialiasing, each channel in float32, clipped to 0..255, then (x - 128) / 128.

    uint8 [n, H, W, 3] RGB -> float32 [n, 3, 299, 299] in [-1, 1).
    """
    import torch
    from PIL import Image

    size = (INCEPTION_SIDE, INCEPTION_SIDE)
    channels = [
        Image.fromarray(np.ascontiguousarray(frame[..., c], np.float32)).resize(size, Image.Resampling.BICUBIC)
        for frame in frames
        for c in range(3)
    ]
    x = np.stack([np.asarray(channel) for channel in channels]).reshape(-1, 3, *size)
    return torch.from_numpy((x.clip(0, 255) - np.float32(128)) / np.float32(128))


def tensorflow_input(frames: np.ndarray) -> torch.Tensor:
    """The original graph, as torch-fidelity: TensorFlow 1's bilinear (pixel corners, not centres), (x - 128) / 128.

    uint8 [n, H, W, 3] RGB -> float32 [n, 3, 299, 299] in [-1, 1).
    """
    import torch

    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    for axis in (3, 2):
        size = x.shape[axis]
        at = torch.arange(INCEPTION_SIDE, dtype=torch.float32) * (size / INCEPTION_SIDE)
        low = at.long()
        share = (at - low).view(-1, *[1] * (3 - axis))
        first, second = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp_max(size - 1))
        x = first + (second - first) * share
    return (x - 128) / 128


RESIZE: Mapping[Resize, Callable[[np.ndarray], torch.Tensor]] = {
    "pytorch": pytorch_input,
    "clean": clean_input,
    "tensorflow": tensorflow_input,
}


# Clips for I3D


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


# The authors' pictures for torchvision's Inception


def paper_input(frames: np.ndarray) -> torch.Tensor:
    """torchvision's `Resize((299, 299))`, `ToTensor`, ImageNet normalisation: Pillow's antialiased bilinear.

    Pillow resizes one axis after the other and rounds to uint8 in between. Up to version 12, which the authors had, the
    width goes first; version 13 starts with the height of tall pictures (its pull request 9549), which moves a fifth of
    the pixels by 1 and the FID of a 360 x 640 pair by 4e-3. Each axis has a call of its own here, so that the version
    does not matter.

    uint8 [n, H, W, 3] RGB -> float32 [n, 3, 299, 299], about -2.1 to 2.6 (the network was trained on [-1, 1]).
    """
    import torch
    from PIL import Image

    side, bilinear = INCEPTION_SIDE, Image.Resampling.BILINEAR
    narrow = (Image.fromarray(frame).resize((side, frame.shape[0]), bilinear) for frame in frames)
    small = np.stack([np.asarray(picture.resize((side, side), bilinear)) for picture in narrow])
    return torch.from_numpy(((small / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2))


def canny(frames: np.ndarray) -> np.ndarray:
    """Canny edges (thresholds 100 and 200) of the grey frame at full size, 0 or 255 in three equal channels.

    uint8 [n, H, W, 3] RGB -> uint8 [n, H, W, 3].
    """
    edges = [cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 100, 200) for frame in frames]
    return np.repeat(np.stack(edges)[..., None], 3, axis=3)


# Features: networks over clips


def _run(net: torch.nn.Module, x: torch.Tensor, device: torch.device) -> np.ndarray:
    import torch

    with torch.inference_mode():
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # as the Inceptions' weights lie
        found: np.ndarray = net(x.to(device)).float().cpu().numpy()
    return found


def inception_2015(clip: Clip, resize: Resize = "pytorch") -> np.ndarray:
    """Pooled features of every frame by the 2015 Inception, float32 [T, 2048]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import inception  # here, because it imports torch

        net, device = models_of(clip).get(inception.FID), models_of(clip).device
        return np.concatenate([_run(net, RESIZE[resize](chunk), device) for chunk in clip.chunks(BATCH)])

    return clip.feature(("inception-2015", resize), make)


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

        return _run(models_of(clip).get(i3d.NETWORK), fvd_input(_first(clip, FVD_FRAMES)), models_of(clip).device)

    return clip.feature(("i3d-k400", FVD_FRAMES), make)


def paper_inception(clip: Clip, edges: bool = False) -> np.ndarray:
    """Features of the first 16 frames (or of their edges) as the authors compute them, float32 [n <= 16, 2048].

    Raises:
        TooShort: one frame has no covariance (the authors' script gives no number either).

    """
    if len(clip) < 2:
        raise TooShort(f"FID of one pair of clips needs at least 2 frames, {clip.name} has {len(clip)}.")

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import inception

        net, device = models_of(clip).get(inception.V3), models_of(clip).device
        chunks = clip.chunks(BATCH, 0, PAPER_FRAMES)
        pictures = (paper_input(canny(chunk) if edges else chunk) for chunk in chunks)
        return np.concatenate([_run(net, x, device) for x in pictures])

    return clip.feature(("inception-v3-paper", edges), make)


def paper_i3d(clip: Clip) -> np.ndarray:
    """I3D logits of the first 16 frames as the authors compute them, float32 [1, 400]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import i3d

        return _run(
            models_of(clip).get(i3d.NETWORK), paper_fvd_input(_first(clip, PAPER_FRAMES)), models_of(clip).device
        )

    return clip.feature(("i3d-k400-paper",), make)


def _first(clip: Clip, count: int) -> np.ndarray:
    return next(clip.chunks(count, 0, count))


# Metrics


def _reference(sample: Sample) -> Clip:
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    return sample.reference


def frechet_of(sample: Sample, features: Callable[[Clip], np.ndarray]) -> Frechet:
    """The state of one sample: `features` (Clip -> float [n, d]) of the generated clip and of its reference.

    Raises:
        NotApplicable: there is no reference.

    """
    reference = _reference(sample)
    group = sample.person_id or sample.id
    return Frechet(
        FeatureStatistics.of(features(sample.generated), group), FeatureStatistics.of(features(reference), group)
    )


def fid(sample: Sample) -> Frechet:
    """FID as pytorch-fid computes it, all frames of all clips pooled (Heusel et al. 2017)."""
    return frechet_of(sample, inception_2015)


def fid_clean(sample: Sample) -> Frechet:
    """FID with clean-fid's resizing (Parmar et al. 2022), all frames of all clips pooled."""
    return frechet_of(sample, lambda clip: inception_2015(clip, "clean"))


def fid_tensorflow(sample: Sample) -> Frechet:
    """FID with the original graph's resizing, as torch-fidelity (torchmetrics: antialias=False); all frames pooled."""
    return frechet_of(sample, lambda clip: inception_2015(clip, "tensorflow"))


def fvd(sample: Sample) -> Frechet:
    """FVD (Unterthiner et al. 2018) on I3D logits of each clip's first 16 frames, covariance with n - 1.

    Raises:
        TooShort: a clip has fewer than 10 frames.

    """
    return frechet_of(sample, i3d_logits)


def paper_fid(sample: Sample) -> Mean:
    """The authors' FID: distance between the first 16 frames of one clip and those of its reference; mean over clips.

    The exact value, where the script's `sqrtm` of a product of rank 15 or less leaves up to 2e-6.
    """
    return _paper_frechet(sample, edges=False)


def paper_efid(sample: Sample) -> Mean:
    """The authors' E-FID: `paper_fid` of Canny edge pictures."""
    return _paper_frechet(sample, edges=True)


def _paper_frechet(sample: Sample, edges: bool) -> Mean:
    reference = _reference(sample)
    ours, theirs = (FeatureStatistics.of(paper_inception(clip, edges)) for clip in (sample.generated, reference))
    return Mean.of(frechet_distance(ours, theirs))


def paper_fvd(sample: Sample) -> Mean:
    """The authors' FVD: squared distance of the logits of two clips, minus 0.0008; mean over clips.

    The formula's covariance terms are constants for single samples. Equal clips give -0.0008.
    """
    reference = _reference(sample)
    gap = paper_i3d(sample.generated) - paper_i3d(reference)  # float32, as the authors
    return Mean.of(float(np.square(gap).sum()) + PAPER_FVD_OFFSET)
