"""Subject and background consistency: how much each frame looks like the previous and the first one (VBench)."""

from __future__ import annotations

import numpy as np

from jwb_dh_v1.errors import TooShort
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks import mobilenet


def pair_scores(vectors: np.ndarray) -> np.ndarray:
    """VBench's score of each frame after the first, float64 [T - 1], in [0, 1].

    s_i = (max(0, cos(f_(i-1), f_i)) + max(0, cos(f_0, f_i))) / 2 (Vchitect/VBench 45e79ec, subject_consistency.py).

    Args:
        vectors: float [T, d], one feature per frame.

    Raises:
        TooShort: a single frame has no pair.

    """
    if len(vectors) < 2:
        raise TooShort("Consistency needs at least two frames.")
    unit = vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    previous = (unit[:-1] * unit[1:]).sum(axis=1)
    first = unit[1:] @ unit[0]
    scores: np.ndarray = (np.clip(previous, 0, 1) + np.clip(first, 0, 1)) / 2
    return scores


def lite_subject_curve(sample: Sample) -> np.ndarray:
    """Pair scores of MobileNetV2 features of the whole frame."""
    return pair_scores(mobilenet.features(sample.generated, "whole"))


def lite_subject(sample: Sample) -> Mean:
    """VBench's formula on MobileNetV2 features of the whole frame (in VBench: DINO)."""
    return Mean.of(float(lite_subject_curve(sample).mean()))


def lite_background_curve(sample: Sample) -> np.ndarray:
    """Pair scores of MobileNetV2 features of the centre square."""
    return pair_scores(mobilenet.features(sample.generated, "centre"))


def lite_background(sample: Sample) -> Mean:
    """VBench's formula on MobileNetV2 features of the centre square (in VBench: CLIP; neither masks the person)."""
    return Mean.of(float(lite_background_curve(sample).mean()))
