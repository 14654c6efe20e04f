"""VBench's subject and background consistency, aesthetic and imaging quality on its own networks.

Definitions: Vchitect/VBench 45e79ec, `subject_consistency.py`, `background_consistency.py`, `aesthetic_quality.py`,
`imaging_quality.py`. A clip's number is VBench's `video_results` (imaging quality: a hundredth of it). A set's number
is the mean over clips for all four; VBench weights the two consistencies by frames, subject consistency only when it
runs in one process. Despite the names neither consistency masks anything: one looks at the whole frame, the other at
its centre square.
"""

from __future__ import annotations

import numpy as np

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.consistency import pair_scores
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks.features import models_of


def dino(clip: Clip) -> np.ndarray:
    """DINO ViT-B/16 features of every frame, float32 [T, 768]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import features_vbench  # here, because it imports torch

        return features_vbench.dino(models_of(clip).dino, clip.chunks(features_vbench.BATCH))

    return clip.feature("dino-vitb16", make)


def clip_b32(clip: Clip) -> np.ndarray:
    """CLIP ViT-B/32 embeddings of every frame's centre square, float32 [T, 512]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import features_vbench

        return features_vbench.clip_image(models_of(clip).clip_b32, clip.chunks(features_vbench.BATCH))

    return clip.feature("clip-vit-b-32", make)


def clip_l14(clip: Clip) -> np.ndarray:
    """CLIP ViT-L/14 embeddings of every frame's centre square, float32 [T, 768]."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import features_vbench

        return features_vbench.clip_image(models_of(clip).clip_l14, clip.chunks(features_vbench.BATCH))

    return clip.feature("clip-vit-l-14", make)


def subject_curve(sample: Sample) -> np.ndarray:
    """Pair scores of DINO features, float64 [T - 1], in [0, 1].

    Raises:
        TooShort: a single frame (VBench divides by zero there).

    """
    return pair_scores(dino(sample.generated))


def subject(sample: Sample) -> Mean:
    """VBench's subject consistency: the mean over the frames after the first, in [0, 1]."""
    return Mean.of(float(subject_curve(sample).mean()))


def background_curve(sample: Sample) -> np.ndarray:
    """Pair scores of CLIP ViT-B/32 embeddings, float64 [T - 1], in [0, 1].

    VBench computes the cosines in float32 (float16 on CUDA), where equal frames can give 1.0000002; here they are 1.

    Raises:
        TooShort: a single frame.

    """
    return pair_scores(clip_b32(sample.generated))


def background(sample: Sample) -> Mean:
    """VBench's background consistency: the mean over the frames after the first, in [0, 1]."""
    return Mean.of(float(background_curve(sample).mean()))


def aesthetic_curve(sample: Sample) -> np.ndarray:
    """LAION's aesthetic score of every frame divided by 10, float64 [T], usually 0.3 to 0.7, bounded by nothing."""
    import torch

    embeddings = clip_l14(sample.generated)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    head = models_of(sample.generated).laion
    with torch.inference_mode():
        scores: np.ndarray = head(torch.from_numpy(unit).to(head.weight.device))[:, 0].cpu().numpy()
    return scores.astype(np.float64) / 10


def aesthetic(sample: Sample) -> Mean:
    """VBench's aesthetic quality: the mean over all frames."""
    return Mean.of(float(aesthetic_curve(sample).mean()))


def musiq(clip: Clip) -> np.ndarray:
    """MUSIQ scores (trained on SPAQ) of every frame, float32 [T], on the network's own scale of 0..100."""

    def make() -> np.ndarray:
        from jwb_dh_v1.networks import features_vbench

        return features_vbench.musiq(models_of(clip).musiq, clip.chunks(features_vbench.BATCH))

    return clip.feature("musiq-spaq", make)


def imaging_curve(sample: Sample) -> np.ndarray:
    """MUSIQ's score of every frame divided by 100, float64 [T], usually 0.3 to 0.8, bounded by nothing.

    The paper's tables and VBench's `video_results` print the score before the division, VBench's aggregate the one
    after it; here there is one scale, the aggregate's.

    Raises:
        TooSmall: frames so thin (one side more than 256 times the other) that MUSIQ's smallest scale would be empty.
            Any other size is scored, down to a single pixel: the scales are enlarged and patches filled up.

    """
    return musiq(sample.generated).astype(np.float64) / 100


def imaging(sample: Sample) -> Mean:
    """VBench's imaging quality: the mean over all frames."""
    return Mean.of(float(imaging_curve(sample).mean()))
