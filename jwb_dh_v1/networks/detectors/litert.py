"""The parts that MediaPipe's small networks share: square crops, SSD anchors, decoding, weighted suppression.

The layouts and numbers are those of the graph files in https://github.com/google-ai-edge/mediapipe, folder
`mediapipe/modules` (v0.10.21): `face_detection/face_detection_{short_range,full_range}.pbtxt`,
`palm_detection/palm_detection_cpu.pbtxt`, `pose_detection/pose_detection_cpu.pbtxt`. The code is our own; it needs
only the TensorFlow Lite interpreter (`ai-edge-litert`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage

OVERLAP = 0.3  # min_suppression_threshold of all four detectors
LOGIT_LIMIT = 100.0  # score_clipping_thresh


@dataclass(frozen=True)
class Square:
    """A square of the picture, maybe turned, maybe reaching over its edges: what every network looks at.

    Attributes:
        x, y: its centre in pixels (the top left corner of the picture is 0, 0; pixel centres lie at halves).
        side: its length in pixels, > 0.
        angle: by how much it is turned clockwise as seen on the screen, in radians.

    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def around(cls, x1: float, y1: float, x2: float, y2: float) -> Square:
        """The smallest upright square about a box; for the box of the whole picture it is the letterbox."""
        return cls((x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, y2 - y1))

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] in the square's own coordinates (0..1, right and down) as pixels of the picture, float64."""
        local = (np.asarray(points, np.float64) - 0.5) * self.side
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = local[..., 0], local[..., 1]
        return np.stack([self.x + cos * x - sin * y, self.y + sin * x + cos * y], -1)

    def cut(self, frame: np.ndarray, size: int, *, black: bool = False) -> np.ndarray:
        """The square's content, uint8 [size, size, 3] from uint8 [H, W, 3].

        Outside the picture it is black (as the detectors expect), or else its edge goes on (as the landmark networks
        do: `ImageToTensorCalculator` without a `border_mode`).

        Bilinear, with pixel i of the result at i / size of the square, not half a pixel on: MediaPipe does so, and its
        networks' points are only then in their place (in a large crop they would lie 5 pixels off). Averaging first
        where the picture is shrunk a lot found no more small faces (tried from 35 to 120 pixels in 1280x720).
        """
        import cv2

        ends = self.to_picture(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) / size)
        matrix = np.column_stack([ends[1] - ends[0], ends[2] - ends[0], ends[0]])
        flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
        cut: np.ndarray = cv2.warpAffine(frame, matrix, (size, size), flags=flags, borderMode=border)
        return cut


class TfliteModel:
    """One tflite file, ready to run; the outputs are copied, so that they stay valid.

    Raises:
        MissingPackage: `ai-edge-litert` is not installed.

    """

    def __init__(self, path: Path, threads: int = 2) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingPackage(
                'The detector `mediapipe` needs the package ai-edge-litert: pip install "jwb-dh-v1[lite]"'
            ) from None
        self._run: Any = Interpreter(model_path=str(path), num_threads=threads)
        self._run.allocate_tensors()
        self._input = self._run.get_input_details()[0]["index"]
        self._outputs = [d["index"] for d in self._run.get_output_details()]
        self.size = int(self._run.get_input_details()[0]["shape"][1])

    def __call__(self, picture: np.ndarray, low: float = 0.0) -> list[np.ndarray]:
        """Run on uint8 [size, size, 3] RGB, scaled to [low, 1]; float32 outputs in the file's order."""
        tensor = picture[None].astype(np.float32) * ((1.0 - low) / 255.0) + low
        self._run.set_tensor(self._input, tensor.astype(np.float32, copy=False))
        self._run.invoke()
        return [self._run.get_tensor(index) for index in self._outputs]


def ssd_anchors(size: int, strides: tuple[int, ...], per_layer: int = 2) -> np.ndarray:
    """Centres of the anchors, float64 [N, 2] in 0..1, in the networks' output order.

    Layers of one stride share their grid: strides 8, 16, 16, 16 on 128 pixels give a 16x16 grid with 2 anchors a cell
    and an 8x8 grid with 6, row by row, 896 in all. All boxes are relative to the input size (`fixed_anchor_size`).
    """
    centres = []
    for stride in sorted(set(strides)):
        cells = math.ceil(size / stride)
        y, x = np.mgrid[:cells, :cells]
        grid = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells
        centres.append(np.repeat(grid, per_layer * strides.count(stride), axis=0))
    return np.concatenate(centres)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float64, with |x| limited to 100."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -LOGIT_LIMIT, LOGIT_LIMIT))))


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with boxes [n, 4] (x1 y1 x2 y2): [n] in 0..1; 0 for empty boxes."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    area = (box[2] - box[0]) * (box[3] - box[1])
    union = area + (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1]) - shared
    return np.asarray(shared / np.where(union > 0, union, np.inf))


def greedy(boxes: np.ndarray, overlap: float) -> np.ndarray:
    """Greedy non-maximum suppression: which rows of [n, 5] (x1 y1 x2 y2 score) stay, best first.

    What overlaps a better box by more than `overlap` goes. As insightface and YOLOX do it, a box's far edge counts as a
    pixel of it, so that extents are one larger; of equal scores the first row goes first.
    """
    order = np.argsort(-boxes[:, 4], kind="stable")
    wider = np.concatenate([boxes[:, :2], boxes[:, 2:4] + 1], axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[iou(wider[best], wider[order]) <= overlap]
    return np.array(kept, int)


def suppress(found: np.ndarray) -> np.ndarray:
    """Weighted non-maximum suppression of rows [n, 5 + 2k] (x1 y1 x2 y2 score points), best first.

    Each group of rows that overlap its best one by more than 0.3 becomes one row: the mean of its members weighted by
    score, with the best member's score (`NonMaxSuppressionCalculator`, algorithm WEIGHTED).
    """
    rest = found[np.argsort(-found[:, 4], kind="stable")]
    kept = []
    while len(rest):
        near = iou(rest[0, :4], rest[:, :4]) > OVERLAP
        near[0] = True  # also when the box is empty
        group = rest[near]
        merged = (group * group[:, 4:5]).sum(axis=0) / group[:, 4].sum()
        merged[4] = group[0, 4]
        kept.append(merged)
        rest = rest[~near]
    return np.stack(kept) if kept else found[:0]


@dataclass(frozen=True)
class Ssd:
    """A detector: network, anchors, input range and threshold.

    `low` is the lower end of the input range ([0, 1] or [-1, 1]); `threshold` the least score, 0..1.
    """

    model: TfliteModel
    strides: tuple[int, ...]
    threshold: float
    low: float = 0.0
    per_layer: int = 2

    def __call__(self, frame: np.ndarray, square: Square) -> np.ndarray:
        """Detections in an upright square of the frame, best first.

        Returns:
            float64 [n, 5 + 2k]: x1 y1 x2 y2 in pixels of the frame, score, then the k points' x, y in pixels.

        """
        boxes, logits = self.model(square.cut(frame, self.model.size, black=True), self.low)
        score = sigmoid(logits.reshape(-1))
        keep = score >= self.threshold
        raw = boxes.reshape(len(score), -1)[keep].astype(np.float64) / self.model.size
        anchors = ssd_anchors(self.model.size, self.strides, self.per_layer)[keep]
        centre, half = raw[:, :2] + anchors, raw[:, 2:4] / 2
        points = raw[:, 4:] + np.tile(anchors, (raw.shape[1] - 4) // 2)
        found = suppress(np.concatenate([centre - half, centre + half, score[keep, None], points], axis=1))
        corner = np.array([square.x, square.y]) - square.side / 2
        found[:, :4] = found[:, :4] * square.side + np.tile(corner, 2)
        found[:, 5:] = found[:, 5:] * square.side + np.tile(corner, (found.shape[1] - 5) // 2)
        return found
