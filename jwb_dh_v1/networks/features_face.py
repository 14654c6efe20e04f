"""Faces for identity and expression: five points in every frame, aligned crops, ArcFace embeddings.

As insightface does it (deepinsight/insightface 7fadd42): SCRFD's five points, the similarity transform onto the
template of `python-package/insightface/utils/face_align.py`, `cv2.warpAffine`, then the embedding of `nets.arcface`.
"""

from __future__ import annotations

import cv2
import numpy as np

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.features import models_of

SIDE = 112
BATCH = 16  # crops per forward pass
# Where the left eye, right eye, nose, left and right corner of the mouth lie in a crop of 112 pixels.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turn, scale and shift (no mirroring) that bring points nearest to a target: Umeyama's least squares solution.

    Args:
        points, target: float [n, 2], x, y; the points must not all coincide.

    Returns:
        float64 [2, 3], to be applied to columns (x, y, 1).

    """
    # In two dimensions a similarity is z -> a z + b over complex numbers, and so linear.
    z, w = (p.astype(np.float64) @ np.array([1, 1j]) for p in (points, target))
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred).real
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(frame: np.ndarray, points: np.ndarray, size: int = SIDE) -> np.ndarray:
    """A face in ArcFace's position.

    Args:
        frame: uint8 [H, W, 3].
        points: float [5, 2], x, y in pixels of the frame, in the order of `five_points`.
        size: side of the crop in pixels.

    Returns:
        uint8 [size, size, 3]: bilinear, black where the frame ends.

    """
    matrix = similarity(points, TEMPLATE * np.float32(size / SIDE))
    crop: np.ndarray = cv2.warpAffine(np.ascontiguousarray(frame), matrix, (size, size), flags=cv2.INTER_LINEAR)
    return crop


def main_face(boxes: np.ndarray, width: int, height: int) -> int | None:
    """Which of a frame's faces is the person's: the largest by area x (1 - distance / half the diagonal).

    The distance is that of the box's centre from the frame's. A tracked face lies in the middle of its window; in a
    whole frame the person is large, and people behind are small. (insightface's own rule, area - 2 x distance^2, gives
    the speaker of a wide shot away to whoever stands nearer to the middle.)

    Args:
        boxes: float [n, 4 or more], x1 y1 x2 y2 in pixels.
        width, height: of the frame.

    Returns:
        The row, or None if there is none.

    """
    if not len(boxes):
        return None
    half = np.array([width, height]) / 2
    away = np.linalg.norm((boxes[:, :2] + boxes[:, 2:4]) / 2 - half, axis=1) / np.linalg.norm(half)
    area = (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1)
    return int(np.argmax(area * np.maximum(1 - away, 0)))


def five_points(clip: Clip) -> np.ndarray:
    """Five points of the person's face (`main_face`) in every frame, by `models_of(clip).scrfd`.

    Returns:
        float32 [T, 5, 2], x, y in pixels of the clip's frames: left eye, right eye, nose, left and right corner of the
        mouth, left and right as seen in the picture. Rows of NaN where no face is found.

    """

    def make() -> np.ndarray:
        detector = models_of(clip).scrfd
        found = np.full((len(clip), len(TEMPLATE), 2), np.nan, np.float32)
        at = 0
        for chunk in clip.chunks():
            for frame in chunk:
                boxes, points = detector.faces(frame)
                chosen = main_face(boxes, *clip.size)
                if chosen is not None:
                    found[at] = points[chosen]
                at += 1
        return found

    return clip.feature("scrfd-5-points", make)


def arcface(clip: Clip) -> np.ndarray:
    """ArcFace embeddings of the person's face in every frame, by `models_of(clip).arcface`.

    Returns:
        float32 [T, 512], not normalised. Rows of NaN where no face is found.

    """

    def make() -> np.ndarray:
        points, net = five_points(clip), models_of(clip).arcface
        found = np.full((len(clip), 512), np.nan, np.float32)
        at = 0
        for chunk in clip.chunks(BATCH):
            here = np.flatnonzero(np.isfinite(points[at : at + len(chunk)]).all(axis=(1, 2)))
            if len(here):
                found[at + here] = net(np.stack([align(chunk[i], points[at + i]) for i in here]))
            at += len(chunk)
        return found

    return clip.feature("arcface", make)
