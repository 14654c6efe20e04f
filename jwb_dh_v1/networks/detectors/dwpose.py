"""The detector `dwpose`: person box by YOLOX-L, 133 whole-body key points by DWPose, on ONNX Runtime.

Pre- and post-processing as in the reference inference of https://github.com/IDEA-Research/DWPose
(`ControlNet-v1-1-nightly/annotator/dwpose/onnxdet.py`, `onnxpose.py`), whose numbers are the constants below. What is
ours, and part of the name `dwpose/1`: looking 8 times a second, keeping to one person, smoothing (`tracks`), and
the slices 23-90, 91-111, 112-132, which the benchmark's authors read one too high.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage
from jwb_dh_v1.media import coco
from jwb_dh_v1.media.annotations import KEYPOINTS, Annotations
from jwb_dh_v1.networks.detectors import tracks
from jwb_dh_v1.networks.detectors.litert import greedy, iou

STRIDES = (8, 16, 32)
GREY = 114  # what fills the letterbox
PROPOSED, PERSON, SUPPRESSED = 0.1, 0.3, 0.45  # least score into the suppression and out of it, overlap
PADDING = 1.25
MEAN = np.array([123.675, 116.28, 103.53])  # of RGB, but the reference applies them to BGR, as the network expects
STD = np.array([58.395, 57.12, 57.375])
SPLIT = 2.0  # SimCC bins a pixel
SEEN = 0.3  # a key point with a higher score counts
HAND_MARGIN = 0.15  # of the longer side, on each side, as for mediapipe: the points lie inside the flesh
SAME = 0.3  # overlap from which a person is the one of the last look


class DWPose:
    """Detector on the files `yolox-l` and `dwpose-l-384`; on the GPU where ONNX Runtime has one.

    Raises:
        MissingPackage: `onnxruntime` is not installed (extra `dwpose`).

    """

    name = "dwpose/1"

    def __init__(self, weights: Mapping[str, Path]) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingPackage(
                'The detector `dwpose` needs the package onnxruntime: pip install "jwb-dh-v1[dwpose]"'
            ) from None
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
        self._yolox: Any = onnxruntime.InferenceSession(str(weights["yolox-l"]), providers=providers)
        self._pose: Any = onnxruntime.InferenceSession(str(weights["dwpose-l-384"]), providers=providers)

    def detect(self, chunks: Iterable[np.ndarray], fps: float, *, full: bool = False) -> Annotations:
        """Annotate the main person of a clip: the largest, followed by overlap.

        Args:
            chunks: consecutive frames, uint8 [n, H, W, 3] RGB, H and W the same throughout.
            fps: frames a second.
            full: also the 133 key points (not smoothed). There are no masks: these networks make none.

        Returns:
            Boxes float32 [T, 4] and scores [T] of `body`, `face`, `left_hand`, `right_hand` (the person's own sides).
            Where YOLOX finds no one the whole picture is given to the pose network, as in the reference; `body` is NaN.

        """
        frames: list[int] = []
        regions: list[np.ndarray] = []
        found: list[np.ndarray] = []
        persons: list[np.ndarray] = []
        last: np.ndarray | None = None
        length = width = height = 0
        for number, frame in tracks.sampled(chunks, tracks.stride(fps)):
            length = number + 1
            if frame is None:
                continue
            height, width = frame.shape[:2]
            bgr = np.ascontiguousarray(frame[..., ::-1])
            person = last = choose(self.people(bgr), last)
            region = person[:4] if person is not None else np.array([0.0, 0, width, height])
            frames.append(number)
            regions.append(region)
            persons.append(person if person is not None else np.full(5, np.nan))
            found.append(self.keypoints(bgr, region))
        return self._assemble(np.array(frames, int), regions, persons, found, length, fps, (width, height), full)

    def people(self, bgr: np.ndarray) -> np.ndarray:
        """Persons in a picture uint8 [H, W, 3] in BGR order: float64 [n, 5], x1 y1 x2 y2 in pixels and score."""
        size = int(self._yolox.get_inputs()[0].shape[2])
        picture, ratio = letterbox(bgr, size)
        (raw,) = self._yolox.run(None, {self._yolox.get_inputs()[0].name: picture})
        rows = decode_grid(raw[0].astype(np.float64), size)
        scores = rows[:, 4] * rows[:, 5]  # class 0 of COCO is person
        half = rows[:, 2:4] / 2
        boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1) / ratio
        good = scores > PROPOSED
        rows = np.concatenate([boxes, scores[:, None]], axis=1)[good]
        kept: np.ndarray = rows[greedy(rows, SUPPRESSED)]
        return kept[kept[:, 4] > PERSON]

    def keypoints(self, bgr: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The 133 key points of the person in a box [4]: float64 [133, 3], x, y in pixels and score; 0 if absent."""
        import cv2

        high, wide = (int(n) for n in self._pose.get_inputs()[0].shape[2:4])
        centre, extent = pose_region(box, wide / high)
        scale = wide / extent[0]
        matrix = np.array(
            [[scale, 0, wide / 2 - scale * centre[0]], [0, scale, high / 2 - scale * centre[1]]], np.float64
        )
        part = cv2.warpAffine(bgr, matrix, (wide, high), flags=cv2.INTER_LINEAR)
        tensor = ((part - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
        x, y = self._pose.run(None, {self._pose.get_inputs()[0].name: tensor})
        points = decode_simcc(x[0], y[0])
        absent = points[:, 2] <= 0
        points[:, :2] = points[:, :2] / [wide, high] * extent + centre - extent / 2
        points[absent] = 0
        return points

    def _assemble(
        self,
        frames: np.ndarray,
        regions: list[np.ndarray],
        persons: list[np.ndarray],
        found: list[np.ndarray],
        length: int,
        fps: float,
        size: tuple[int, int],
        full: bool,
    ) -> Annotations:
        step = int(frames[1] - frames[0]) if len(frames) > 1 else 1
        gap = max(1, int(tracks.LONGEST_GAP * fps / step))
        people = tracks.link([r[None] for r in regions], gap, reach=1.0)
        parts = {
            "body": (persons, tracks.SIGMA),
            "face": ([part_box(p[coco.FACE], 0.0) for p in found], tracks.SIGMA),
            "left_hand": ([part_box(p[coco.LEFT_HAND], HAND_MARGIN) for p in found], tracks.SIGMA_HANDS),
            "right_hand": ([part_box(p[coco.RIGHT_HAND], HAND_MARGIN) for p in found], tracks.SIGMA_HANDS),
        }
        boxes: dict[str, np.ndarray] = {}
        scores: dict[str, np.ndarray] = {}
        for part, (rows, sigma) in parts.items():
            values = [row[None] for row in rows]
            dense = tracks.fill_tracks(people, values, frames, length, fps, 5, sigma)
            boxes[part], scores[part] = tracks.finish(dense[:, :4], dense[:, 4], *size)
        if not full:
            return Annotations(boxes, scores, self.name)
        flat = [p.reshape(1, -1) for p in found]
        points = tracks.fill_tracks(people, flat, frames, length, fps, KEYPOINTS * 3).reshape(length, KEYPOINTS, 3)
        points[~(points[..., 2] > 0)] = 0
        return Annotations(boxes, scores, self.name, points)


def letterbox(picture: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Picture scaled to fit the top left of a grey square: float32 [1, 3, size, size] in 0..255, and the ratio."""
    import cv2

    ratio = min(size / picture.shape[0], size / picture.shape[1])
    wide, high = int(picture.shape[1] * ratio), int(picture.shape[0] * ratio)
    square = np.full((size, size, 3), GREY, np.uint8)
    square[:high, :wide] = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None], np.float32), ratio


def decode_grid(raw: np.ndarray, size: int) -> np.ndarray:
    """YOLOX's rows [N, 5 + classes] with centre and extent in pixels of the square.

    For each stride in 8, 16, 32 one row a cell, row by row: centre = (raw + cell) * stride, extent = exp(raw) * stride.
    """
    out = raw.copy()
    start = 0
    for stride in STRIDES:
        cells = size // stride
        y, x = np.mgrid[:cells, :cells]
        rows = slice(start, start + cells * cells)
        out[rows, :2] = (raw[rows, :2] + np.stack([x, y], -1).reshape(-1, 2)) * stride
        out[rows, 2:4] = np.exp(raw[rows, 2:4]) * stride
        start += cells * cells
    return out


def choose(people: np.ndarray, last: np.ndarray | None) -> np.ndarray | None:
    """One of the persons [n, 5]: who overlaps that of the last look [5] most (by at least 0.3), or else the largest."""
    if not len(people):
        return None
    if last is not None:
        overlap = iou(last[:4], people[:, :4])
        if overlap.max() >= SAME:
            return np.asarray(people[int(np.argmax(overlap))])
    return np.asarray(people[int(np.argmax(tracks.centre_size(people[:, :4])[1]))])


def pose_region(box: np.ndarray, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre [2] and extent [2] of what the pose network sees: the box times 1.25, widened or heightened to fit."""
    centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], np.float64)
    wide, high = (max(1.0, float(n)) * PADDING for n in (box[2] - box[0], box[3] - box[1]))
    return centre, np.array([wide, wide / aspect] if wide > high * aspect else [high * aspect, high])


def decode_simcc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points from SimCC vectors [n, 2 * width] and [n, 2 * height]: float64 [n, 3].

    The place of each maximum, halved; score = the lesser maximum; -1, -1 where that is not positive.
    """
    place = np.stack([x.argmax(axis=1), y.argmax(axis=1)], -1) / SPLIT
    score = np.minimum(x.max(axis=1), y.max(axis=1)).astype(np.float64)
    place[score <= 0] = -1
    return np.column_stack([place, score])


def part_box(points: np.ndarray, margin: float) -> np.ndarray:
    """Box and score [5] of a part's key points [n, 3] with a score above 0.3 (the score is their mean), or NaN."""
    seen = points[points[:, 2] > SEEN]
    if not len(seen):
        return np.full(5, np.nan)
    low, high = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
    wider = margin * float((high - low).max())
    return np.array([*(low - wider), *(high + wider), seen[:, 2].mean()])
