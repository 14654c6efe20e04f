"""SCRFD: where faces are, and five points of each, by insightface's `det_10g.onnx` on ONNX Runtime.

What goes in and how the nine outputs are read follows deepinsight/insightface 7fadd42,
`python-package/insightface/model_zoo/scrfd.py`, with the size it takes pinned to 640 x 640 (the package itself now
tries two sizes, which finds other faces). The same file is called `scrfd_10g_bnkps.onnx` in the pack `antelopev2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage, SetupError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.detectors.litert import greedy
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of

SIZE = 640
STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell, both at its corner
SCORE, OVERLAP = 0.5, 0.4  # least score; what overlaps a better face by more is the same face
POINTS = 5


class OnnxGraph:
    """An ONNX graph of one input, on ONNX Runtime.

    Args:
        path: the verified file.
        device: `cpu`, or `cuda[:n]` for the GPU where ONNX Runtime has one.

    Raises:
        MissingPackage: `onnxruntime` is not installed (extra `dwpose`).
        SetupError: the file is not an ONNX graph.

    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingPackage(
                f'{path.name} needs the package onnxruntime: pip install "jwb-dh-v1[dwpose]"'
            ) from None
        self.name = path.name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # w600k_r50 promises the shape of one picture's output and warns at each batch
        providers: list[Any] = ["CPUExecutionProvider"]
        kind, _, index = device.partition(":")
        if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            # float32 as on the CPU: TF32, which keeps 10 bits of a number, is on unless told otherwise.
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0), "use_tf32": 0}))
        with self._trouble():
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """All outputs for an input, in the file's order.

        Raises:
            SetupError: the graph takes no such input.

        """
        with self._trouble():
            outputs: list[np.ndarray] = self._session.run(None, {self._input: picture})
        return outputs

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no other base class
            raise SetupError(f"{self.name} cannot be run: {str(error).strip().splitlines()[0]}") from None


class Scrfd:
    """Face detector on `det_10g.onnx`.

    Args:
        path: the verified file.
        device: as `OnnxGraph`.

    Raises:
        MissingPackage, SetupError: as `OnnxGraph`; also if the graph has other outputs than SCRFD's nine.

    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._graph = OnnxGraph(path, device)
        found = [out.shape for out in self._run(np.zeros((1, 3, SIZE, SIZE), np.float32))]
        expected = [(len(centres(s)), width) for width in (1, 4, 2 * POINTS) for s in STRIDES]
        if found != expected:
            raise SetupError(f"{path.name} is no SCRFD with five points: outputs {found} instead of {expected}.")

    def _run(self, picture: np.ndarray) -> list[np.ndarray]:
        # Some exports have a batch axis, which insightface also drops.
        return [out[0] if out.ndim == 3 else out for out in self._graph(picture)]

    def faces(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The faces in a picture, best first.

        Args:
            frame: uint8 [H, W, 3] RGB.

        Returns:
            Boxes float32 [n, 5]: x1, y1, x2, y2 in pixels of the frame (they may reach outside) and score 0.5..1.
            Points float32 [n, 5, 2]: x, y in pixels of the left eye, right eye, nose, left and right corner of the
            mouth, left and right as seen in the picture.

        """
        picture, ratio = letterbox(frame)
        return decode(self._run(picture), ratio)


def letterbox(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """A frame uint8 [H, W, 3] RGB in the top left of a black square, and its scale.

    Returns:
        float32 [1, 3, 640, 640], RGB planes, (x - 127.5) / 128; the ratio of heights, which insightface takes for both
        axes.

    """
    import cv2

    height, width = frame.shape[:2]
    if height > width:
        high, wide = SIZE, int(SIZE / (height / width))
    else:
        high, wide = int(SIZE * (height / width)), SIZE
    high, wide = max(high, 1), max(wide, 1)
    square = np.zeros((SIZE, SIZE, 3), np.uint8)
    square[:high, :wide] = cv2.resize(frame, (wide, high), interpolation=cv2.INTER_LINEAR)
    planes = np.ascontiguousarray(square.transpose(2, 0, 1)[None], np.float32)
    return (planes - np.float32(127.5)) / np.float32(128), high / height


def centres(stride: int) -> np.ndarray:
    """The points that distances are measured from: float32 [n, 2], x, y in pixels of the square, row by row."""
    cells = SIZE // stride
    y, x = np.mgrid[:cells, :cells] * stride
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), ANCHORS, axis=0).astype(np.float32)


def decode(outputs: list[np.ndarray], ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Faces from the nine outputs: three strides of scores [n, 1], of box distances [n, 4], of point offsets [n, 10].

    A box is given by its distances from the centre to the left, top, right and bottom, a point by its offset, both in
    strides. Result as `Scrfd.faces`.
    """
    rows, points = [], []
    for level, stride in enumerate(STRIDES):
        score, distance, offset = (outputs[level + kind * len(STRIDES)] for kind in range(3))
        good = np.flatnonzero(score[:, 0] >= SCORE)
        centre = centres(stride)[good]
        near, far = distance[good, :2] * stride, distance[good, 2:] * stride
        rows.append(np.concatenate([(centre - near) / ratio, (centre + far) / ratio, score[good]], axis=1))
        points.append((centre[:, None] + offset[good].reshape(-1, POINTS, 2) * stride) / ratio)
    boxes, marks = np.concatenate(rows).astype(np.float32), np.concatenate(points).astype(np.float32)
    kept = greedy(boxes, OVERLAP)
    return boxes[kept], marks[kept]


NETWORK = Network("scrfd", lambda weights, device: Scrfd(weights["scrfd"], device))


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
    """Five points of the person's face (`main_face`) in every frame,.

    Returns:
        float32 [T, 5, 2], x, y in pixels of the clip's frames: left eye, right eye, nose, left and right corner of the
        mouth, left and right as seen in the picture. Rows of NaN where no face is found.

    """

    def make() -> np.ndarray:
        detector = models_of(clip).get(NETWORK)
        found = np.full((len(clip), POINTS, 2), np.nan, np.float32)
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
