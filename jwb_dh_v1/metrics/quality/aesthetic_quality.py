"""Aesthetic quality: would people find the frames beautiful? VBench's, on CLIP and LAION's head.

Definition: Vchitect/VBench 45e79ec, `aesthetic_quality.py`. A set's number is the mean over clips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jwb_dh_v1.metrics.metric import INF, Metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks import clip_image


def aesthetic_curve(sample: Sample) -> np.ndarray:
    """LAION's aesthetic score of every frame divided by 10, float64 [T], usually 0.3 to 0.7, bounded by nothing."""
    return clip_image.aesthetic_scores(sample.generated).astype(np.float64) / 10


AESTHETIC = Metric(
    "aesthetic_quality",
    curve=aesthetic_curve,
    higher_is_better=True,
    range=(-INF, INF),
    weights=("clip-vit-l-14", "laion-aesthetic-l14"),
    networks="CLIP ViT-L/14, LAION aesthetic head",
)
METRICS = {"standard": (AESTHETIC,), "paper": (replace(AESTHETIC, failures="zero"),)}  # as the authors count failures
