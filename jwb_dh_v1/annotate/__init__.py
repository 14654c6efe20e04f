"""What is known about the person in a clip, frame by frame, and the detectors that find it in a bare video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from jwb_dh_v1.errors import BadBox, SetupError

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


class Detector(Protocol):
    """Finds the main person's parts in a video. Implementations: `mediapipe` and `dwpose`.

    `name` carries a number that moves whenever a box can move (it is part of the plan).
    """

    name: str

    def detect(self, chunks: Iterable[np.ndarray], fps: float, *, full: bool = False) -> Annotations:
        """Annotate a clip given as consecutive chunks of frames, uint8 [n, H, W, 3] RGB.

        With `full`, key points and masks are found as well; otherwise only the boxes that regions need.
        """
        ...


DETECTOR_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "mediapipe": ("face-short-range", "face-full-range", "palm", "hand-landmark"),
    "dwpose": ("yolox-l", "dwpose-l-384"),
}
ANNOTATE_WEIGHTS = ("face-mesh", "pose-detection", "pose-landmark", "selfie-segmentation")  # mediapipe with full=True


def detector(name: str, weights: Mapping[str, Path]) -> Detector:
    """The detector of that name on verified weight files (`weights.resolve_all`)."""
    if name == "mediapipe":
        from jwb_dh_v1.annotate.mediapipe import MediaPipe

        return MediaPipe(weights)
    if name == "dwpose":
        from jwb_dh_v1.annotate.dwpose import DWPose

        return DWPose(weights)
    raise SetupError(f"No detector is named {name!r}; there are {', '.join(DETECTOR_WEIGHTS)}.")
