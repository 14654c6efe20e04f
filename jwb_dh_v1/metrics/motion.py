"""Dynamic degree: whether anything moves much (VBench's rule, on any optical flow)."""

from __future__ import annotations

import cv2
import numpy as np

from jwb_dh_v1.clip import Clip
from jwb_dh_v1.errors import TooShort
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.state import Rate

FLOW_SIDE = 256  # the shorter side that DIS sees; VBench's threshold is 6 px at this size


def interval(fps: float) -> int:
    """Every how many frames VBench looks: about 8 per second, by Python's rounding."""
    return max(1, round(fps / 8))


def top_motion(flow: np.ndarray) -> float:
    """Mean length of the 5 % longest vectors of a flow field, float [H, W, 2], in pixels."""
    length = np.sqrt(np.square(flow[..., 0]) + np.square(flow[..., 1])).ravel()
    k = int(0.05 * length.size)
    if k == 0:
        return 0.0
    return float(np.partition(length, length.size - k)[length.size - k :].mean())


def is_dynamic(scores: np.ndarray, short_side: int) -> bool:
    """VBench's decision: enough pairs above 6 px per 256 px of the shorter side.

    Args:
        scores: `top_motion` of each sampled pair, float [n - 1].
        short_side: shorter side of the picture in pixels.

    With two sampled frames VBench's needed count rounds to 0; here at least one pair must move.

    """
    threshold = 6.0 * short_side / 256
    need = max(1, round(4 * (len(scores) + 1) / 16))
    return int((scores > threshold).sum()) >= need


def dis_curve(sample: Sample) -> np.ndarray:
    """`top_motion` of DIS flow between sampled frames, in pixels at a shorter side of 256; float64 [n - 1]."""
    clip = sample.generated
    return clip.feature("dis-flow", lambda: _dis(clip))


def _dis(clip: Clip) -> np.ndarray:
    step = interval(clip.fps)
    if len(clip) <= step:
        raise TooShort(f"Dynamic degree needs over {step} frames at {clip.fps:.3g} fps; {clip.name} has {len(clip)}.")
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    width, height = clip.size
    scale = FLOW_SIDE / min(width, height)
    size = (max(FLOW_SIDE, round(width * scale)), max(FLOW_SIDE, round(height * scale)))
    scores: list[float] = []
    last, at = None, 0
    for chunk in clip.chunks():
        for frame in chunk[(-at) % step :: step]:
            grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
            if last is not None:
                scores.append(top_motion(flow.calc(last, grey, None)))
            last = grey
        at += len(chunk)
    return np.array(scores)


def lite_dynamic(sample: Sample) -> Rate:
    """1 if the clip is dynamic, by DIS flow (Kroeger et al. 2016; in VBench: RAFT)."""
    return Rate.of(is_dynamic(dis_curve(sample), FLOW_SIDE))
