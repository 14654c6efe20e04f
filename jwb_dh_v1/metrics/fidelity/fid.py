"""FID: whether the frames, as a set, look like real ones (standard/1, lite/1), and the authors' FID (paper/1).

The field compares the distribution of all generated frames with that of all real ones. The authors compare one clip
with its reference, on at most 16 frames, and average over the clips; their E-FID is the same on Canny edges
(`e_fid.py`). Sources: mseitzer/pytorch-fid b9c1811, GaParmar/clean-fid e88c4d6, toshas/torch-fidelity 5e211a9 and, for
the authors, deepreasonings/WholeBodyBenchmark b70702d FID_calculate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from jwb_dh_v1.errors import TooShort
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet, frechet_distance
from jwb_dh_v1.metrics.fidelity.set_distance import frechet_of, reference_of, run_network
from jwb_dh_v1.metrics.metric import INF, REFERENCE, Metric, set_metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks import mobilenet
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH, IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch

Resize = Literal["pytorch", "clean", "tensorflow"]

INCEPTION_SIDE = 299

PAPER_FRAMES = 16


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


def inception_2015(clip: Clip, resize: Resize = "pytorch") -> np.ndarray:
    """Pooled features of every frame by the 2015 Inception, float32 [T, 2048]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import inception  # here, because it imports torch

        net, device = models_of(clip).get(inception.FID), models_of(clip).device
        return np.concatenate([run_network(net, RESIZE[resize](chunk), device) for chunk in clip.chunks(BATCH)])

    return clip.feature(("inception-2015", resize), make)


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
        return np.concatenate([run_network(net, x, device) for x in pictures])

    return clip.feature(("inception-v3-paper", edges), make)


def fid(sample: Sample) -> Frechet:
    """FID as pytorch-fid computes it, all frames of all clips pooled (Heusel et al. 2017)."""
    return frechet_of(sample, inception_2015)


def fid_clean(sample: Sample) -> Frechet:
    """FID with clean-fid's resizing (Parmar et al. 2022), all frames of all clips pooled."""
    return frechet_of(sample, lambda clip: inception_2015(clip, "clean"))


def fid_tensorflow(sample: Sample) -> Frechet:
    """FID with the original graph's resizing, as torch-fidelity (torchmetrics: antialias=False); all frames pooled."""
    return frechet_of(sample, lambda clip: inception_2015(clip, "tensorflow"))


def lite_fid(sample: Sample) -> Frechet:
    """FID's formula on pooled MobileNetV2 features of all frames of all clips (in FID: the 2015 Inception)."""
    return frechet_of(sample, mobilenet.features)


def paper_fid(sample: Sample) -> Mean:
    """The authors' FID: distance between the first 16 frames of one clip and those of its reference; mean over clips.

    The exact value, where the script's `sqrtm` of a product of rank 15 or less leaves up to 2e-6.
    """
    return paper_frechet(sample, edges=False)


def paper_frechet(sample: Sample, edges: bool) -> Mean:
    """The authors' distance of one clip's frames (or of their Canny edges) from its reference's."""
    reference = reference_of(sample)
    ours, theirs = (FeatureStatistics.of(paper_inception(clip, edges)) for clip in (sample.generated, reference))
    return Mean.of(frechet_distance(ours, theirs))


METRICS = {
    "standard": (
        set_metric("fid", fid, weights=("inception-2015",), networks="Inception 2015-12-05 (as pytorch-fid)"),
        set_metric(
            "fid_clean",
            fid_clean,
            weights=("inception-2015",),
            networks="Inception 2015-12-05 (as clean-fid)",
            page="fid",
        ),
    ),
    "paper": (
        Metric(
            "fid",
            paper_fid,
            higher_is_better=False,
            range=(0, INF),
            needs=REFERENCE,
            weights=("inception-v3",),
            networks="Inception v3 (torchvision)",
        ),
    ),
    "lite": (set_metric("fid", lite_fid, weights=("mobilenet-v2",), networks="MobileNetV2 (ImageNet)"),),
}
