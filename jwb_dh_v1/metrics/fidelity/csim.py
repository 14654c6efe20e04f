"""CSIM: whether the face is the same person's.

The field's CSIM is the mean cosine of ArcFace embeddings; `lite` has the same on dlib's small network. Both compare
each frame with the reference's at the same moment, so that the pose is alike and only identity is left to differ. What
the benchmark's authors call CSIM is a cosine of raw pixels (`paper_csim_curve`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.metrics.fidelity.pixel import paper_curve
from jwb_dh_v1.metrics.metric import INF, REFERENCE, Metric
from jwb_dh_v1.metrics.region import MARGIN
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.networks import dlib_face

FRAMES = 16  # per clip part, evenly spaced: dlib's network takes 65 ms a face on two cores
SAME_PERSON = 0.6  # dlib's own decision threshold for the distance of two descriptors


def rescaled_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """dlib's distance as a cosine: 1 - (d / 0.6)^2 / 2, float64 [n] from float [n, 128] twice.

    dlib's descriptors are compared by distance; their raw cosine is above 0.78 for any two people. Unit vectors have
    d^2 = 2 - 2 cos; with d measured in units of dlib's threshold, the same picture gives 1, the threshold 0.5, and
    different people (d = 0.76 to 0.97 in specs of the weights) 0.2 down to -0.3, the range ArcFace's cosine has.
    """
    distance = np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1)
    cosine: np.ndarray = 1 - np.square(distance / SAME_PERSON) / 2
    return cosine


def csim_curve(sample: Sample) -> np.ndarray:
    """Cosine of ArcFace embeddings at the same moments, one entry a frame of `sample.frame_overlap()`.

    Returns:
        float64 [n], in [-1, 1]; NaN where SCRFD finds no face in one of the two frames, so that an entry's place stays
        its moment (plots leave a gap there).

    Raises:
        NotApplicable: no reference, or no moment at which both clips show a face.
        SizeMismatch, LengthMismatch: as `sample.frame_overlap`.

    """
    cosines, ours, theirs = _csim(sample)
    if not (ours & theirs).any():
        raise NotApplicable(
            f"no face to compare: found in {ours.sum()} of {len(ours)} generated frames and in {theirs.sum()} of "
            "the reference's, never at the same moment"
        )
    return cosines


def csim(sample: Sample) -> Mean:
    """CSIM: the mean of `csim_curve` over the moments at which both clips show a face.

    The policy for undetected faces is to leave the moment out and to report how many there were (`csim_facts`).
    """
    curve = csim_curve(sample)
    _, ours, theirs = _csim(sample)
    return Mean.of(float(curve[ours & theirs].mean()))


def csim_facts(sample: Sample) -> dict[str, Any]:
    """How much of the sample `csim` rests on: shares of frames with a face in either clip, moments used and in all."""
    _, ours, theirs = _csim(sample)
    return {
        "detected_generated": float(ours.mean()),
        "detected_reference": float(theirs.mean()),
        "pairs": int((ours & theirs).sum()),
        "of": len(ours),
    }


def _csim(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines float64 [n], and where the generated and the reference frames show a face, bool [n] each."""
    from jwb_dh_v1.networks import arcface  # here, because it imports torch

    start, stop = sample.frame_overlap()
    assert sample.reference is not None
    clips = sample.generated, sample.reference
    a, b = (arcface.embeddings(c)[start - c.start : stop - c.start].astype(np.float64) for c in clips)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.clip((a * b).sum(axis=1) / lengths, -1, 1)  # rounding may leave the range by 2e-16
    return cosines, *(np.isfinite(features).all(axis=1) for features in (a, b))


def pixel_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two pictures as vectors of raw pixel values, in [0, 1]; 0 if one is black all over.

    Not an identity measure: any two evenly grey pictures give 1.
    """
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else 0.0


def paper_csim_curve(sample: Sample) -> np.ndarray:
    """The authors' CSIM of each of at most 16 frames: cosine of raw pixels, despite the name."""
    return paper_curve(sample, pixel_cosine)


def lite_csim_curve(sample: Sample) -> np.ndarray:
    """Similarity of dlib's face descriptors in up to 16 frames to those of the reference at the same moments."""
    start, stop = sample.frame_overlap()
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    moments = np.unique(np.linspace(start, stop - 1, FRAMES).round().astype(int))
    ours = dlib_face.descriptors(sample.generated, moments - sample.generated.start, MARGIN)
    theirs = dlib_face.descriptors(sample.reference, moments - sample.reference.start, MARGIN)
    return rescaled_cosine(ours, theirs)


METRICS = {
    "standard": (
        Metric(
            "csim",
            csim,
            curve=csim_curve,
            facts=csim_facts,
            higher_is_better=True,
            range=(-1, 1),
            needs=REFERENCE,
            weights=("scrfd", "arcface"),
            networks="SCRFD-10G, ArcFace ResNet-50 (WebFace600K)",
            regions=("body", "face"),
        ),
    ),
    "paper": (Metric("csim", curve=paper_csim_curve, higher_is_better=True, range=(0, 1), needs=REFERENCE),),
    "lite": (
        Metric(
            "csim",
            curve=lite_csim_curve,
            higher_is_better=True,
            range=(-INF, 1),
            needs=REFERENCE,
            weights=("dlib-face", "dlib-5-points"),
            networks="dlib face ResNet, distance rescaled to a cosine",
            regions=("face",),
        ),
    ),
}
