"""Fréchet distances between the generated and the reference set, on MobileNetV2 (lite/1)."""

from __future__ import annotations

import numpy as np

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.distribution import FVD_FRAMES, check_fvd_length, frechet_of
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks import mobilenet


def lite_fid(sample: Sample) -> Frechet:
    """FID's formula on pooled MobileNetV2 features of all frames of all clips (in FID: the 2015 Inception)."""
    return frechet_of(sample, mobilenet.features)


def lite_fvd(sample: Sample) -> Frechet:
    """FVD's formula on how MobileNetV2's features lie and move over each clip's first 16 frames (in FVD: I3D).

    A clip gives one vector: the mean over the frames, and the mean absolute step from frame to frame.

    Raises:
        TooShort: a clip has fewer than 10 frames.

    """
    return frechet_of(sample, clip_vector)


def clip_vector(clip: Clip) -> np.ndarray:
    """Mean and mean absolute step of the first 16 frames' features, float64 [1, 2560]."""
    check_fvd_length(clip)
    found = mobilenet.features(clip)[:FVD_FRAMES].astype(np.float64)
    return np.concatenate([found.mean(axis=0), np.abs(np.diff(found, axis=0)).mean(axis=0)])[None]
