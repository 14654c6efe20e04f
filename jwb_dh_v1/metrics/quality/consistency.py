"""Subject and background consistency: how much each frame looks like the previous and the first one (VBench).

Definitions: Vchitect/VBench 45e79ec, `subject_consistency.py`, `background_consistency.py`. A set's number is the mean
over clips; VBench weights both by frames, subject consistency only when it runs in one process. Despite the names
neither masks anything: one looks at the whole frame, the other at its centre square.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jwb_dh_v1.errors import TooShort
from jwb_dh_v1.metrics.metric import Metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks import clip_image, dino, mobilenet


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


def subject_curve(sample: Sample) -> np.ndarray:
    """Pair scores of DINO features, float64 [T - 1], in [0, 1].

    Raises:
        TooShort: a single frame (VBench divides by zero there).

    """
    return pair_scores(dino.features(sample.generated))


def background_curve(sample: Sample) -> np.ndarray:
    """Pair scores of CLIP ViT-B/32 embeddings, float64 [T - 1], in [0, 1].

    VBench computes the cosines in float32 (float16 on CUDA), where equal frames can give 1.0000002; here they are 1.

    Raises:
        TooShort: a single frame.

    """
    return pair_scores(clip_image.features_b32(sample.generated))


def lite_subject_curve(sample: Sample) -> np.ndarray:
    """Pair scores of MobileNetV2 features of the whole frame (in VBench: DINO)."""
    return pair_scores(mobilenet.features(sample.generated, "whole"))


def lite_background_curve(sample: Sample) -> np.ndarray:
    """Pair scores of MobileNetV2 features of the centre square (in VBench: CLIP)."""
    return pair_scores(mobilenet.features(sample.generated, "centre"))


SUBJECT = Metric(
    "subject_consistency",
    curve=subject_curve,
    higher_is_better=True,
    range=(0, 1),
    weights=("dino-vitb16",),
    networks="DINO ViT-B/16",
)
BACKGROUND = Metric(
    "background_consistency",
    curve=background_curve,
    higher_is_better=True,
    range=(0, 1),
    weights=("clip-vit-b-32",),
    networks="CLIP ViT-B/32",
)
MOBILENET = "MobileNetV2 (ImageNet)"
METRICS = {
    "standard": (SUBJECT, BACKGROUND),
    "paper": (replace(SUBJECT, failures="zero"), replace(BACKGROUND, failures="zero")),  # as the authors count failures
    "lite": (
        replace(SUBJECT, curve=lite_subject_curve, weights=("mobilenet-v2",), networks=MOBILENET),
        replace(BACKGROUND, curve=lite_background_curve, weights=("mobilenet-v2",), networks=MOBILENET),
    ),
}
