"""VBench's subject and background consistency, aesthetic and imaging quality on its own networks.

Definitions: Vchitect/VBench 45e79ec, `subject_consistency.py`, `background_consistency.py`, `aesthetic_quality.py`,
`imaging_quality.py`. A clip's number is VBench's `video_results` (imaging quality: a hundredth of it). A set's number
is the mean over clips for all four; VBench weights the two consistencies by frames, subject consistency only when it
runs in one process. Despite the names neither consistency masks anything: one looks at the whole frame, the other at
its centre square.
"""

from __future__ import annotations

import numpy as np

from jwb_dh_v1.metrics.consistency import pair_scores
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks import clip_image, dino


def subject_curve(sample: Sample) -> np.ndarray:
    """Pair scores of DINO features, float64 [T - 1], in [0, 1].

    Raises:
        TooShort: a single frame (VBench divides by zero there).

    """
    return pair_scores(dino.features(sample.generated))


def subject(sample: Sample) -> Mean:
    """VBench's subject consistency: the mean over the frames after the first, in [0, 1]."""
    return Mean.of(float(subject_curve(sample).mean()))


def background_curve(sample: Sample) -> np.ndarray:
    """Pair scores of CLIP ViT-B/32 embeddings, float64 [T - 1], in [0, 1].

    VBench computes the cosines in float32 (float16 on CUDA), where equal frames can give 1.0000002; here they are 1.

    Raises:
        TooShort: a single frame.

    """
    return pair_scores(clip_image.features_b32(sample.generated))


def background(sample: Sample) -> Mean:
    """VBench's background consistency: the mean over the frames after the first, in [0, 1]."""
    return Mean.of(float(background_curve(sample).mean()))


def aesthetic_curve(sample: Sample) -> np.ndarray:
    """LAION's aesthetic score of every frame divided by 10, float64 [T], usually 0.3 to 0.7, bounded by nothing."""
    return clip_image.aesthetic_scores(sample.generated).astype(np.float64) / 10


def aesthetic(sample: Sample) -> Mean:
    """VBench's aesthetic quality: the mean over all frames."""
    return Mean.of(float(aesthetic_curve(sample).mean()))


def imaging_curve(sample: Sample) -> np.ndarray:
    """MUSIQ's score of every frame divided by 100, float64 [T], usually 0.3 to 0.8, bounded by nothing.

    The paper's tables and VBench's `video_results` print the score before the division, VBench's aggregate the one
    after it; here there is one scale, the aggregate's.

    Raises:
        TooSmall: frames so thin (one side more than 256 times the other) that MUSIQ's smallest scale would be empty.
            Any other size is scored, down to a single pixel: the scales are enlarged and patches filled up.

    """
    from jwb_dh_v1.networks import musiq  # here, because it imports torch

    return musiq.scores(sample.generated).astype(np.float64) / 100


def imaging(sample: Sample) -> Mean:
    """VBench's imaging quality: the mean over all frames."""
    return Mean.of(float(imaging_curve(sample).mean()))
