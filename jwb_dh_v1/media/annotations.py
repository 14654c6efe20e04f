"""What is known about the person in a clip, frame by frame, and the detectors that find it in a bare video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jwb_dh_v1.errors import BadBox

PARTS = ("body", "face", "left_hand", "right_hand")
KEYPOINTS = 133  # COCO-WholeBody: body 0-16, feet 17-22, face 23-90, left hand 91-111, right hand 112-132


@dataclass(frozen=True)
class Annotations:
    """Boxes, key points and masks of one person over the T frames of a clip.

    Attributes:
        boxes: part -> float32 [T, 4], x1 y1 x2 y2 in pixels of the displayed picture; a row of NaN where not seen.
        scores: part -> float32 [T] in [0, 1]; 0 where not seen.
        source: who made them, e.g. `mediapipe/1` or `dataset`; part of the plan.
        keypoints: float32 [T, 133, 3] (x, y, score) in COCO-WholeBody order, or None.
        masks: one COCO run-length encoding per frame (`{"size": [h, w], "counts": bytes}`), or None.

    """

    boxes: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    source: str
    keypoints: np.ndarray | None = None
    masks: list[dict[str, object]] | None = field(default=None, repr=False)

    def coverage(self, part: str) -> float:
        """Share of frames in which the part was seen, 0..1."""
        boxes = self.boxes.get(part)
        return 0.0 if boxes is None or len(boxes) == 0 else float(np.isfinite(boxes[:, 0]).mean())

    def check(self, frames: int, width: int, height: int) -> None:
        """Refuse boxes that are no boxes of this clip.

        Raises:
            BadBox: wrong shape or number of frames, partly NaN, infinite, empty, or wholly outside the picture.

        """
        for part, boxes in self.boxes.items():
            if boxes.shape != (frames, 4):
                raise BadBox(f"{part} boxes have shape {boxes.shape}, expected ({frames}, 4): one box per frame.")
            seen = ~np.isnan(boxes).all(axis=1)
            x1, y1, x2, y2 = boxes[seen].T
            with np.errstate(invalid="ignore"):
                good = (x2 > x1) & (y2 > y1) & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
            good &= np.isfinite(boxes[seen]).all(axis=1)
            if not good.all():
                frame = int(np.flatnonzero(seen)[np.argmin(good)])
                raise BadBox(f"{part} box {boxes[frame].tolist()} of frame {frame} is no box in {width}x{height}.")
