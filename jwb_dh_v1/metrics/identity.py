"""CSIM: whether the face is the same person's."""

from __future__ import annotations

import numpy as np

from jwb_dh_v1 import features
from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.state import Mean

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


def lite_csim_curve(sample: Sample) -> np.ndarray:
    """Similarity of up to 16 frames to the same moments of the reference."""
    start, stop = sample.common()
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    moments = np.unique(np.linspace(start, stop - 1, FRAMES).round().astype(int))
    ours = features.dlib_identity(sample.generated, moments - sample.generated.start)
    theirs = features.dlib_identity(sample.reference, moments - sample.reference.start)
    return rescaled_cosine(ours, theirs)


def lite_csim(sample: Sample) -> Mean:
    """Mean rescaled similarity of dlib's face descriptors, frame to frame against the reference."""
    return Mean.of(float(lite_csim_curve(sample).mean()))
