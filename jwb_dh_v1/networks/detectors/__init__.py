"""Detectors: a person's body, face and hands in a bare video, by MediaPipe's networks or by DWPose.

Example:
    >>> from jwb_dh_v1.media import Clip
    >>> from jwb_dh_v1.networks.weights import resolve_all
    >>> clip = Clip("generated/a.mp4")
    >>> found = detector("mediapipe", resolve_all(DETECTOR_WEIGHTS["mediapipe"]))  # doctest: +SKIP
    >>> found.detect(clip.chunks(), clip.fps).boxes["face"]  # float32 [T, 4], x1 y1 x2 y2  # doctest: +SKIP

"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.media.annotations import Annotations


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
        from jwb_dh_v1.networks.detectors.mediapipe import MediaPipe

        return MediaPipe(weights)
    if name == "dwpose":
        from jwb_dh_v1.networks.detectors.dwpose import DWPose

        return DWPose(weights)
    raise SetupError(f"No detector is named {name!r}; there are {', '.join(DETECTOR_WEIGHTS)}.")
