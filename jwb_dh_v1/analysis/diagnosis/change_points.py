"""When a clip goes wrong, read from its curves; frames are numbered from 0 in the clip that was scored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from jwb_dh_v1.analysis.diagnosis.clip_statistics import STILL, Rows, curve


@dataclass(frozen=True)
class Moment:
    """Where in a clip it goes wrong.

    Attributes:
        kind: `throughout`, `from here on` or `worst here`.
        metric, region: whose curve it was read from.
        share: position in the clip, 0..1.
        frame: number of the frame, None where the clip's length is not known from any curve.
        seconds: None unless the frame rate was given.

    """

    kind: str
    metric: str
    region: str
    share: float
    frame: int | None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """For people: `from frame 31 on (65 %)`."""
        if self.kind == "throughout":
            return "throughout"
        at = f"frame {self.frame}" if self.frame is not None else f"{100 * self.share:.0f} % of its length"
        at += f" ({self.seconds:.2f} s)" if self.seconds is not None else ""
        return f"from {at} on" if self.kind == "from here on" else f"worst at {at}"


def moment(rows: Rows, metric: str, region: str, higher_is_better: bool, bound: float | None = None) -> Moment | None:
    """Read a moment from a curve; None where the clip has none.

    Throughout: nine tenths of the curve lie beyond the bound, if there is one. Else the split into two parts whose
    means differ most in units of the spread inside them (CUSUM), if the later part is worse and by more than twice
    that spread; neighbouring frames are alike, so that no p value could be given. Else the worst entry.
    """
    values = curve(rows, metric, region)
    if not len(values):
        return None
    bad = -values if higher_is_better else values
    at, kind = int(np.argmax(bad)), "worst here"
    split = change_point(bad)
    if bound is not None and np.mean(bad > (-bound if higher_is_better else bound)) >= 0.9:
        kind = "throughout"
    elif split is not None:
        at, kind = split, "from here on"
    frames = frames_of(rows)
    share = at / max(1, len(values) - 1)
    if frames is None:
        return Moment(kind, metric, region, share, None)
    # An entry per pair of frames, sampled or not, belongs to its later frame.
    points = len(values) + (metric in {"dynamic_degree", "subject_consistency", "background_consistency"})
    frame = round((at + points - len(values)) * (frames - 1) / max(1, points - 1))
    return Moment(kind, metric, region, frame / max(1, frames - 1), frame)


def frames_of(rows: Rows) -> int | None:
    """Number of frames that both clips have: the points of SSIM or PSNR of the whole frame."""
    return max((len(curve(rows, m, "body")) for m in ("ssim", "psnr")), default=0) or None


def change_point(values: np.ndarray) -> int | None:
    """Where values rise for good, the first index of the later part; None where they do not. See `moment`."""
    n = len(values)
    if n < 6:
        return None
    k = np.arange(2, n - 1)  # two entries at least on either side
    sums = np.cumsum(values)
    rise = (sums[-1] - sums[k - 1]) / (n - k) - sums[k - 1] / k
    best = int(k[np.argmax(rise * np.sqrt(k * (n - k) / n))])
    before, after = values[:best], values[best:]
    spread = math.sqrt((before.var() * len(before) + after.var() * len(after)) / n)
    return best if after.mean() - before.mean() > 2 * spread + 1e-9 else None


def first_still(rows: Rows, region: str) -> Moment | None:
    """From where on nothing moves until the end of the clip."""
    flow = curve(rows, "dynamic_degree", region)
    moving = np.flatnonzero(flow >= STILL)
    if not len(flow) or (len(moving) and moving[-1] == len(flow) - 1):
        return None
    if not len(moving):
        return Moment("throughout", "dynamic_degree", region, 0.0, 0)
    at, frames = int(moving[-1]) + 1, frames_of(rows)
    frame = round(at * (frames - 1) / len(flow)) if frames else None
    return Moment("from here on", "dynamic_degree", region, at / len(flow), frame)
