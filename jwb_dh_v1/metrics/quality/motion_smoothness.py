"""Motion smoothness: how well every second frame can be predicted from its neighbours.

Definition: Vchitect/VBench 45e79ec, `motion_smoothness.py`. The frames with even indices are given to an interpolator,
its middle frames are compared with those of odd index, and the value is (255 - mean absolute difference) / 255, without
regard to the frame rate. A last frame of odd index has no second neighbour and is not looked at. A clip that stands
still scores highest; read the number together with dynamic degree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from jwb_dh_v1.errors import TooShort, TooSmall
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.metric import Metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import models_of

AMT_SIDE = 113  # the smallest shorter side in pixels that is 128 when padded to a multiple of 16
LITE_SIDE = 256  # the shorter side is made this small before DIS looks, as for dynamic degree
DIS_SIDE = 16  # OpenCV's DIS fails below 12 px
BATCH = 8  # frames decoded at once


def _triples(clip: Clip) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames 2k, 2k + 1, 2k + 2, uint8 [h, w, 3] each: 1 of 3 frames, 2 of 5, 7 of 16, 60 of 121."""
    if len(clip) < 3:
        raise TooShort(f"Motion smoothness needs 3 frames; {clip.name} has {len(clip)}.")
    held: list[np.ndarray] = []
    for chunk in clip.chunks(BATCH):
        for frame in chunk:
            held.append(frame)
            if len(held) == 3:
                yield held[0], held[1], held[2]
                held = held[2:]


def _score(differences: np.ndarray) -> np.ndarray:
    return 1 - differences / 255


def amt_differences(clip: Clip) -> np.ndarray:
    """Mean |frame - AMT-S's prediction| over pixels and channels for each odd frame, float64 [k], in grey levels.

    Raises:
        TooShort: fewer than 3 frames.
        TooSmall: the shorter side is below 113 px, where AMT-S gives NaN (VBench casts that to black pixels, so that
            the value becomes one of brightness).
        NotFinite: a prediction is NaN all the same.

    """
    return clip.feature("amt-s", lambda: _amt(clip))


def _amt(clip: Clip) -> np.ndarray:
    width, height = clip.size
    if min(width, height) < AMT_SIDE:
        raise TooSmall(
            f"AMT-S needs a shorter side of {AMT_SIDE} px, {clip.name} is {width} x {height}: the coarsest of its "
            "matching levels would be one cell wide and give NaN."
        )
    triples = _triples(clip)
    from jwb_dh_v1.networks import amt  # here, because it imports torch

    models = models_of(clip)
    return np.array(
        [cv2.absdiff(seen, amt.middle(models.get(amt.NETWORK), a, b, models.device)).mean() for a, seen, b in triples],
        np.float64,
    )


def amt_curve(sample: Sample) -> np.ndarray:
    """VBench's motion smoothness at each odd frame, 1 - difference / 255; float64 [k], in [0, 1].

    Its mean is the value; errors as `amt_differences`.
    """
    return _score(amt_differences(sample.generated))


def _shrink(frame: np.ndarray) -> np.ndarray:
    height, width, _ = frame.shape
    scale = LITE_SIDE / min(height, width)
    if scale >= 1:
        return np.ascontiguousarray(frame)
    size = (max(LITE_SIDE, round(width * scale)), max(LITE_SIDE, round(height * scale)))
    small: np.ndarray = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return small


def dis_middle(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The frame half-way between two by DIS optical flow (Kroeger et al. 2016).

    Each frame is read half its flow away, and the two pictures are averaged. The flow is taken at the pixel of the
    middle frame instead of at the one that moves there, so that edges of moving things blur. Swapping the frames gives
    the same picture.

    Args:
        before, after: uint8 [h, w, 3] RGB, both sides at least 16.

    Returns:
        float32 [h, w, 3] in grey levels, not rounded.

    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    down, across = np.indices(greys[0].shape, np.float32)
    found = np.zeros(before.shape, np.float32)
    for frame, own, other in ((before, greys[1], greys[0]), (after, greys[0], greys[1])):
        flow = dis.calc(own, other, None)  # a pixel of own is found in other at this distance
        places = across + flow[..., 0] / 2, down + flow[..., 1] / 2
        found += cv2.remap(frame.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) / 2
    return found


def _lite(clip: Clip) -> np.ndarray:
    width, height = clip.size
    if min(width, height) < DIS_SIDE:
        raise TooSmall(f"DIS flow needs a shorter side of {DIS_SIDE} px; {clip.name} is {width} x {height}.")
    small = (tuple(_shrink(frame) for frame in triple) for triple in _triples(clip))
    return np.array([np.abs(seen - dis_middle(a, b)).mean(dtype=np.float64) for a, seen, b in small])


def lite_smoothness_curve(sample: Sample) -> np.ndarray:
    """A stand-in for VBench's motion smoothness: its formula with DIS flow at a shorter side of at most 256.

    Not comparable with AMT-S's numbers. It orders the same things: what stands still or moves evenly scores near 1,
    frames that jump, repeat or are missing lower it.

    Returns:
        The smoothness at each odd frame, float64 [k], in [0, 1]; its mean is the value.

    Raises:
        TooShort: fewer than 3 frames.
        TooSmall: the shorter side is below 16 px.

    """
    clip = sample.generated
    return _score(clip.feature("dis-middle", lambda: _lite(clip)))


SMOOTHNESS = Metric(
    "motion_smoothness", curve=amt_curve, higher_is_better=True, range=(0, 1), weights=("amt-s",), networks="AMT-S"
)
METRICS = {
    "standard": (SMOOTHNESS,),
    "paper": (replace(SMOOTHNESS, failures="zero"),),  # as the authors count failures
    "lite": (
        replace(
            SMOOTHNESS,
            curve=lite_smoothness_curve,
            weights=(),
            networks="interpolation by DIS optical flow (OpenCV)",
        ),
    ),
}
