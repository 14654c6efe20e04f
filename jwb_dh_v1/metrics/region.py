"""Body, face and hands: from boxes to the picture a metric sees.

Two rules, one per family of protocols:

* `track` (standard, lite): a square window, 1.5 times the part's size, follows the part's smoothed box and is resized
  to 224 x 224. It lasts for the longest run of frames in which the part is seen, so that time is never compressed.
* `paper`: what the authors' `process_video_hands_videos.py` does (deepreasonings/WholeBodyBenchmark b70702d), from 133
  key points per frame. Its codecs are not repeated: the JPEG (quality 95) of each frame and the mp4v of the result.

The body is the whole frame in both, as in the published table (its files are named `raw`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.media.clip import CHUNK, Clip
from jwb_dh_v1.media.probe import VideoInfo

Region = Literal["body", "face", "hands", "speech"]
REGIONS: tuple[Region, ...] = ("body", "face", "hands")
CropRule = Literal["track", "paper"]
PARTS: dict[str, tuple[str, ...]] = {"face": ("face",), "hands": ("left_hand", "right_hand")}

SIDE = 224  # pixels of a tracked window: the input size of most networks, above the 121 px that RAFT needs
MARGIN = 1.5  # window side per part size
SHORTEST = 0.5  # seconds a part must stay in view


class Crop(Clip):
    """A part of a clip: for frames `start` to `stop` of the whole clip, one window each, resized to one size.

    Args:
        parent: the whole clip.
        frames: int [n], ascending frame numbers in the parent.
        windows: int [n, 4], x1 y1 x2 y2 in pixels; they may reach outside (the border is repeated).
        size: (width, height) of the result.
        part: name for messages, e.g. `face`.
        resize: `area`: averaged when shrinking, linear when growing; `linear`: always linear (the authors').

    """

    def __init__(
        self, parent: Clip, frames: np.ndarray, windows: np.ndarray, size: tuple[int, int], part: str, resize: str
    ) -> None:
        self._given, self.models = None, parent.models
        self.parent, self.indices, self.windows, self.part = parent, frames, windows, part
        self._size, self._resize = size, resize
        self._memo: dict[Any, Any] = {}
        self._frames = None
        self._source = None
        self.start = int(frames[0])

    @property
    def name(self) -> str:
        """The parent's name and the part."""
        return f"{self.parent.name} ({self.part})"

    @property
    def info(self) -> VideoInfo:
        """Facts of the crop; the rate is the parent's."""
        return VideoInfo(*self._size, self.parent.fps, len(self.indices), 0, False, True)

    @property
    def root(self) -> Clip:
        """The whole clip."""
        return self.parent

    @property
    def content_key(self) -> str:
        """The parent's content and the windows."""
        spec = self.indices.tobytes() + self.windows.tobytes() + repr((self._size, self._resize)).encode()
        return self.memo("content_key", lambda: f"{self.parent.content_key}/{hashlib.sha256(spec).hexdigest()}")

    def _stream(self, n: int) -> Iterator[np.ndarray]:
        first, last = int(self.indices[0]), int(self.indices[-1]) + 1
        at, number = 0, first  # position in the crop, frame number in the parent
        kept: list[np.ndarray] = []
        for chunk in self.parent.chunks(CHUNK, first, last):
            for frame in chunk:
                if number == self.indices[at]:
                    kept.append(cut(frame, self.windows[at], self._size, self._resize))
                    at += 1
                    if len(kept) == n:
                        yield np.stack(kept)
                        kept = []
                number += 1
        if kept:
            yield np.stack(kept)


def cut(frame: np.ndarray, window: np.ndarray, size: tuple[int, int], resize: str = "area") -> np.ndarray:
    """One window of a frame, resized; uint8 [H, W, 3] -> [size[1], size[0], 3]. Outside, the border is repeated."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in window)
    inside = frame[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
    pads = (max(-y1, 0), max(y2 - height, 0), max(-x1, 0), max(x2 - width, 0))
    if any(pads):
        inside = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REPLICATE)
    if (inside.shape[1], inside.shape[0]) == size:
        return inside
    shrinks = inside.shape[1] > size[0] and resize == "area"
    resized: np.ndarray = cv2.resize(inside, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def longest_run(seen: np.ndarray) -> tuple[int, int]:
    """Start and stop of the longest run of True in bool [T] (the first of equal ones); (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], seen.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if len(starts) == 0:
        return 0, 0
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])


def track(clip: Clip, boxes: np.ndarray, part: str) -> Crop:
    """The window that follows a part through its longest run.

    Args:
        clip: the whole clip.
        boxes: float [T, 4], x1 y1 x2 y2 in pixels, rows of NaN where not seen.
        part: name for messages.

    Raises:
        NotApplicable: the part is not seen for half a second.

    """
    start, stop = longest_run(np.isfinite(boxes).all(axis=1))
    if stop - start < max(2, round(SHORTEST * clip.fps)):
        seen = "is not seen" if stop == start else f"is seen for {(stop - start) / max(clip.fps, 1e-6):.2f} s only"
        raise NotApplicable(f"no {part.replace('_', ' ')}: it {seen}")
    x1, y1, x2, y2 = boxes[start:stop].astype(np.float64).T
    # One side for the whole run, so that growing and shrinking of the part stays visible to the metrics.
    side = max(2, round(MARGIN * float(np.median(np.maximum(x2 - x1, y2 - y1)))))
    left = np.rint((x1 + x2) / 2 - side / 2).astype(int)
    top = np.rint((y1 + y2) / 2 - side / 2).astype(int)
    left, top = _inside(left, side, clip.size[0]), _inside(top, side, clip.size[1])
    windows = np.stack([left, top, left + side, top + side], axis=1)
    return Crop(clip, np.arange(start, stop), windows, (SIDE, SIDE), part, "area")


def _inside(low: np.ndarray, side: int, length: int) -> np.ndarray:
    """Shift windows into the picture; those longer than the picture are centred on it."""
    return np.clip(low, 0, length - side) if side <= length else np.full_like(low, (length - side) // 2)


def paper_window(
    points: np.ndarray, scores: np.ndarray, part: Literal["face", "hands"], width: int, height: int
) -> tuple[int, int, int, int] | None:
    """One frame's box by the authors' rule (specs: rules 3 and 4 of `process_video_hands_videos.py`), or None.

    Args:
        points: float [n, 2] x, y in pixels of the part's key points (for hands: both hands together).
        scores: float [n]; points above 0.3 count.
        part: `face`: grown by half its size on each side, then at least 50 px (else the 50 px square about its
            centre); `hands`: grown by half, or by its longer side when a side is under 20 px.
        width, height: of the picture; boxes are clamped to it.

    """
    valid = points[scores > 0.3]
    if len(valid) == 0:
        return None
    x1, y1 = (max(0, int(v)) for v in valid.min(axis=0))
    x2, y2 = min(width, int(valid[:, 0].max())), min(height, int(valid[:, 1].max()))
    w, h = x2 - x1, y2 - y1
    if part == "face":
        x1, y1, x2, y2 = _grow(x1, y1, x2, y2, int(w * 0.5), int(h * 0.5), width, height)
        if x2 - x1 < 50 or y2 - y1 < 50:
            x, y = (x1 + x2) // 2, (y1 + y2) // 2
            x1, y1, x2, y2 = max(0, x - 25), max(0, y - 25), min(width, x + 25), min(height, y + 25)
    elif w < 20 or h < 20:
        x1, y1, x2, y2 = _grow(x1, y1, x2, y2, max(w, h), max(w, h), width, height)
    else:
        x1, y1, x2, y2 = _grow(x1, y1, x2, y2, int(w * 0.5), int(h * 0.5), width, height)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _grow(x1: int, y1: int, x2: int, y2: int, dx: int, dy: int, width: int, height: int) -> tuple[int, int, int, int]:
    return max(0, x1 - dx), max(0, y1 - dy), min(width, x2 + dx), min(height, y2 + dy)


# The authors slice the 133 points as if a neck had been inserted (off by one): "face" has the left hand's root and
# lacks its first point, and so on. Kept, because their numbers depend on it.
PAPER_SLICES = {"face": (slice(24, 92),), "hands": (slice(92, 113), slice(113, 134))}
PAPER_AREAS = {"face": (2000, 10000), "hands": (2000, 15000)}  # px^2, inclusive


def paper(clip: Clip, keypoints: np.ndarray, part: Literal["face", "hands"]) -> Crop:
    """The authors' crop of a clip: frames outside the area bounds are dropped, the first kept crop gives the size.

    Args:
        clip: the whole clip.
        keypoints: float [T, 133, 3] x, y, score.
        part: `face`, or `hands` (both hands in one box).

    Raises:
        NotApplicable: the part was found in no frame.

    """
    found: list[tuple[int, tuple[int, int, int, int]]] = []
    for number, frame in enumerate(keypoints):
        chosen = np.concatenate([frame[s] for s in PAPER_SLICES[part]])
        chosen = chosen[np.isfinite(chosen).all(axis=1)]
        window = paper_window(chosen[:, :2], chosen[:, 2], part, *clip.size)
        if window is not None:
            found.append((number, window))
    if not found:
        raise NotApplicable(f"no {part}: no key point in any frame")
    low, high = PAPER_AREAS[part]
    kept = [(i, b) for i, b in found if low <= (b[2] - b[0]) * (b[3] - b[1]) <= high] or found
    indices, windows = np.array([i for i, _ in kept]), np.array([b for _, b in kept])
    first = windows[0]
    return Crop(clip, indices, windows, (int(first[2] - first[0]), int(first[3] - first[1])), part, "linear")


def crop(clip: Clip, annotations: Annotations, part: str, rule: CropRule) -> Crop:
    """Cut one part out of a clip by the protocol's rule.

    Raises:
        NotApplicable: the part is not in the clip.
        BadBox: a given box is no box.

    """
    if rule == "paper":
        if annotations.keypoints is None:
            raise NotApplicable("the authors' crops need key points, and the annotations hold none")
        return paper(clip, annotations.keypoints, "face" if part == "face" else "hands")
    boxes = annotations.boxes.get(part)
    if boxes is None:
        raise NotApplicable(f"no {part.replace('_', ' ')}: the annotations hold no such box")
    annotations.check(len(clip), *clip.size)
    return track(clip, boxes, part)
