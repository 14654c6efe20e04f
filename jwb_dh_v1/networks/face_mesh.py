"""MediaPipe's face mesh: 468 points of a face in space, for the E-FID of `lite/1`."""

from __future__ import annotations

import math

import numpy as np

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.detectors.litert import Square, TfliteModel, sigmoid
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of

# Looks at a frame: two to find the face's square, one to read it. Turning the picture by 15 degrees changes the numbers
# by up to 0.3 with one look (root mean square over a clip), by 0.12 with two, by 0.07 with three or four.
LOOKS = 3
CROP = 1.5  # of the mesh's size (mediapipe `face_landmark_landmarks_to_roi.pbtxt`)
PRESENT = 0.5  # the mesh's own certainty that there is a face (`face_landmark_cpu.pbtxt`)
RIGHT_EYE, LEFT_EYE = 33, 263  # outer corners, the person's own right and left

NETWORK = Network("face-mesh", lambda weights, _: TfliteModel(weights["face-mesh"]))


def meshes(clip: Clip, indices: np.ndarray) -> list[np.ndarray | None]:
    """`read_mesh` of some frames of a face part."""
    model = models_of(clip).get(NETWORK)
    return [read_mesh(model, frame) for frame in clip.take(indices)]


def read_mesh(model: TfliteModel, frame: np.ndarray) -> np.ndarray | None:
    """The face mesh of the face that fills a frame: float64 [468, 3] in pixels, upright, or None where there is none.

    The network sees a square about the face with the eyes level, so it looks more than once: first at the whole frame,
    then about the mesh it found, as MediaPipe does from frame to frame.

    Args:
        model: MediaPipe's `face_landmark.tflite`.
        frame: uint8 [H, W, 3] RGB.

    """
    square = Square.around(0, 0, frame.shape[1], frame.shape[0])
    for _ in range(LOOKS):
        points, logit = model(square.cut(frame, model.size))
        if sigmoid(logit).item() < PRESENT:
            return None
        raw = points.reshape(468, 3).astype(np.float64) / model.size
        flat = square.to_picture(raw[:, :2])
        x, y = flat[LEFT_EYE] - flat[RIGHT_EYE]
        angle = math.atan2(y, x)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        level = flat @ turn
        mesh = np.column_stack([level, raw[:, 2] * square.side])
        low, high = level.min(axis=0), level.max(axis=0)
        centre = turn @ (low + high) / 2
        square = Square(float(centre[0]), float(centre[1]), CROP * float((high - low).max()), angle)
    return mesh
