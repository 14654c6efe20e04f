"""Dynamic degree: whether anything moves much (VBench's rule, on RAFT's optical flow or another).

Definition: Vchitect/VBench 45e79ec, `dynamic_degree.py`. Frames are looked at about 8 times a second; a pair's score
is the mean length of its 5 % longest flow vectors; a clip is dynamic if enough pairs score above 6 px per 256 px of the
shorter side. VBench computes all pairs; here RAFT, the slowest part of most runs, stops at the pair that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from jwb_dh_v1.errors import NotFinite, TooShort, TooSmall
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.metric import Metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Rate
from jwb_dh_v1.networks.pool import models_of

FLOW_SIDE = 256  # the shorter side that DIS sees; VBench's threshold is 6 px at this size
RAFT_SIDE = 121  # pixels; a smaller side pads to 120 or less, where RAFT's coarsest correlations give NaN


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


def pairs_above(scores: np.ndarray, short_side: int) -> int:
    """How many pairs score above 6 px per 256 px of the shorter side (in pixels, without padding); NaN does not."""
    return int((scores > 6.0 * short_side / 256).sum())


def pairs_needed(frames: int) -> int:
    """How many pairs of so many sampled frames VBench wants above the threshold, by Python's rounding: 0 for two."""
    return round(4 * frames / 16)


def is_dynamic(scores: np.ndarray, short_side: int) -> bool:
    """VBench's decision, and at least one pair above 6 px per 256 px of the shorter side.

    Args:
        scores: `top_motion` of each sampled pair, float [n - 1].
        short_side: shorter side of the picture in pixels.

    With two sampled frames VBench's needed count rounds to 0; here at least one pair must move.

    """
    return pairs_above(scores, short_side) >= max(1, pairs_needed(len(scores) + 1))


def sampled(clip: Clip) -> Iterator[np.ndarray]:
    """The first and then every `interval(fps)`-th frame, uint8 [H, W, 3] RGB.

    Raises:
        TooShort: this is one frame only (before any is decoded).

    """
    step = interval(clip.fps)
    if len(clip) <= step:
        raise TooShort(f"Dynamic degree needs over {step} frames at {clip.fps:.3g} fps; {clip.name} has {len(clip)}.")
    at = 0
    for chunk in clip.chunks():
        yield from chunk[(-at) % step :: step]
        at += len(chunk)


def dis_curve(sample: Sample) -> np.ndarray:
    """`top_motion` of DIS flow between sampled frames, in pixels at a shorter side of 256; float64 [n - 1]."""
    clip = sample.generated
    return clip.feature("dis-flow", lambda: _dis(clip))


def _dis(clip: Clip) -> np.ndarray:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    width, height = clip.size
    scale = FLOW_SIDE / min(width, height)
    size = (max(FLOW_SIDE, round(width * scale)), max(FLOW_SIDE, round(height * scale)))
    scores: list[float] = []
    last = None
    for frame in sampled(clip):
        grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        if last is not None:
            scores.append(top_motion(flow.calc(last, grey, None)))
        last = grey
    return np.array(scores)


def lite_dynamic(sample: Sample) -> Rate:
    """1 if the clip is dynamic, by DIS flow (Kroeger et al. 2016; in VBench: RAFT)."""
    return Rate.of(is_dynamic(dis_curve(sample), FLOW_SIDE))


def decided(above: int, seen: int, pairs: int) -> bool:
    """Whether the pairs that are left can no longer change the decision, neither `dynamic`'s nor `paper_dynamic`'s.

    Args:
        above: how many of the pairs looked at score above the threshold.
        seen: how many were looked at.
        pairs: how many there are.

    """
    needed = max(1, pairs_needed(pairs + 1))  # paper/1 needs 0 where this is 1: of a single pair, which is always seen
    return above >= needed or above + pairs - seen < needed


def raft_curve(sample: Sample) -> np.ndarray:
    """`top_motion` of RAFT's flow between sampled frames, in pixels of the clip; float64 [n - 1].

    As in VBench, frames are not resized, and the longest vectors are sought on the padded picture.

    Raises:
        TooShort: fewer than two sampled frames.
        TooSmall: a side below 121 px, where RAFT gives NaN or fails.
        NotFinite: a score is NaN or infinite.

    """
    clip = sample.generated
    return clip.feature("raft-things", lambda: _raft(clip, whole=True))


def raft_seen(sample: Sample) -> np.ndarray:
    """`raft_curve` up to the pair that decides; NaN for the pairs after it, which nobody looked at. Same errors."""
    clip = sample.generated
    return clip.feature("raft-things until decided", lambda: _raft(clip, whole=False))


def _raft(clip: Clip, whole: bool) -> np.ndarray:
    from jwb_dh_v1.networks import raft  # here, because it imports torch

    width, height = clip.size
    if min(width, height) < RAFT_SIDE:
        raise TooSmall(f"{clip.name} is {width} x {height} px; RAFT's flow needs {RAFT_SIDE} px on the shorter side.")
    scores = np.full(max(0, -(-len(clip) // interval(clip.fps)) - 1), np.nan)
    for at, flow in enumerate(raft.flows(models_of(clip).get(raft.NETWORK), sampled(clip))):
        scores[at] = top_motion(flow)
        if not np.isfinite(scores[at]):
            raise NotFinite(f"RAFT's flow of {clip.name} is NaN or infinite.")
        if not whole and decided(pairs_above(scores, min(clip.size)), at + 1, len(scores)):
            break
    return scores


def dynamic(sample: Sample) -> Rate:
    """1 if the clip is dynamic, by RAFT's flow; with two sampled frames the one pair must move (see `is_dynamic`)."""
    return Rate.of(is_dynamic(raft_seen(sample), min(sample.generated.size)))


def paper_raft_seen(sample: Sample) -> np.ndarray:
    """`raft_seen`, and nothing for a single sampled frame; float64 [n - 1]."""
    clip = sample.generated
    return raft_seen(sample) if len(clip) > interval(clip.fps) else np.empty(0)


def paper_dynamic(sample: Sample) -> Rate:
    """1 if VBench's own code says so: a single sampled frame is static, two are dynamic whatever they show.

    Small clips fail here as in `raft_curve`; VBench itself calls them static or ends.
    """
    clip = sample.generated
    scores = paper_raft_seen(sample)
    if len(scores) == 0:
        return Rate.of(False)
    return Rate.of(pairs_above(scores, min(clip.size)) >= pairs_needed(len(scores) + 1))


DYNAMIC = Metric(
    "dynamic_degree",
    dynamic,
    curve=raft_seen,
    higher_is_better=True,
    range=(0, 1),
    weights=("raft",),
    networks="RAFT (things)",
)
METRICS = {
    "standard": (DYNAMIC,),
    "paper": (replace(DYNAMIC, function=paper_dynamic, curve=paper_raft_seen, failures="zero"),),
    "lite": (
        replace(DYNAMIC, function=lite_dynamic, curve=dis_curve, weights=(), networks="DIS optical flow (OpenCV)"),
    ),
}
