"""From what was seen on every k-th frame to smooth boxes of one person on every frame.

Pure functions on arrays. The rules are our own and belong to the detectors' version numbers: looking 8 times a second,
bridging gaps of up to half a second, smoothing in time by a Gaussian, keeping to one person by position and size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

LOOKS_PER_SECOND = 8.0  # gestures move at up to about 3 Hz; 8 Hz follows them at a third of the cost of every frame
LONGEST_GAP = 0.5  # seconds that are bridged between two sightings
SIGMA = 0.15  # seconds; bodies and faces move slowly
SIGMA_HANDS = 0.05  # a wider one would flatten a 2 Hz gesture to a fifth, and the box would leave the hand

Track = list[tuple[int, int]]  # (sample, row in that sample), in time order


def stride(fps: float) -> int:
    """Every how many frames a detector looks: `max(1, round(fps / 8))`."""
    return max(1, round(fps / LOOKS_PER_SECOND))


def sampled(chunks: Iterable[np.ndarray], step: int) -> Iterator[tuple[int, np.ndarray | None]]:
    """The frames of a clip with their numbers, None instead of those between looks.

    Chunks are uint8 [n, H, W, 3] of any n, so that how a clip is cut into chunks cannot change a result.
    """
    number = 0
    for chunk in chunks:
        for frame in chunk:
            yield number, frame if number % step == 0 else None
            number += 1


def centre_size(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [n, 2] and sizes [n] (square root of the area) of boxes [n, 4], in pixels."""
    extent = boxes[:, 2:4] - boxes[:, :2]
    return (boxes[:, :2] + boxes[:, 2:4]) / 2, np.sqrt(np.clip(extent, 0, None).prod(axis=1))


def link(
    seen: Sequence[np.ndarray],
    gap: int,
    reach: float,
    traits: Sequence[np.ndarray] | None = None,
    zoom: float = 3.0,
) -> list[Track]:
    """Join sightings of neighbouring samples into tracks, nearest pairs first.

    Args:
        seen: per sample float [n, 4], boxes x1 y1 x2 y2 in pixels.
        gap: most samples from one sighting to the next of the same track.
        reach: most that a centre may move between two sightings, in sizes (square root of the mean area).
        traits: per sample float [n]; a difference costs as much as a move by that many sizes.
        zoom: most by which the size may change, as a factor.

    """
    tracks: list[Track] = []
    for now, boxes in enumerate(seen):
        open_tracks = [t for t in tracks if now - t[-1][0] <= gap]
        pairs = []
        centres, sizes = centre_size(boxes)
        for number, track in enumerate(open_tracks):
            then, row = track[-1]
            centre, size = centre_size(seen[then][row : row + 1])
            ratio = np.maximum(sizes, size) / np.maximum(np.minimum(sizes, size), 1e-9)
            cost = np.linalg.norm(centres - centre, axis=1) / np.maximum((sizes + size) / 2, 1e-9)
            if traits is not None:
                cost = cost + np.abs(traits[now] - traits[then][row])
            pairs += [(float(cost[i]), number, i) for i in range(len(boxes)) if cost[i] <= reach and ratio[i] <= zoom]
        old, new = set[int](), set[int]()
        for _, number, i in sorted(pairs):
            if number not in old and i not in new:
                open_tracks[number].append((now, i))
                old.add(number)
                new.add(i)
        tracks += [[(now, i)] for i in range(len(boxes)) if i not in new]
    return tracks


def lasting(tracks: list[Track], samples: int) -> list[Track]:
    """The tracks with at least two sightings (one, in a clip with a single sample): a lone one is mostly an error."""
    return [t for t in tracks if len(t) >= min(2, samples)]


def apart(tracks: list[Track]) -> list[Track]:
    """From tracks in order of preference, those that share no time with a preferred one (a person after a cut)."""
    chosen: list[Track] = []
    for track in tracks:
        if all(track[-1][0] < other[0][0] or track[0][0] > other[-1][0] for other in chosen):
            chosen.append(track)
    return chosen


def main_person(tracks: list[Track], seen: Sequence[np.ndarray]) -> list[Track]:
    """The tracks of the main person: the largest summed over time, and those that share no time with it."""

    def area(track: Track) -> float:
        return sum(float(centre_size(seen[s][r : r + 1])[1][0]) ** 2 for s, r in track)

    return apart(sorted(tracks, key=area, reverse=True))


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over time, inside each run of rows without NaN.

    Near a run's ends the window shrinks on both sides alike, so that steady motion passes unchanged everywhere, and a
    run's first and last row stay as they are. Smoothing corners is smoothing centre and size: both are linear.

    Args:
        values: float [T, D]; rows are wholly NaN or wholly finite.
        sigma: standard deviation in frames; 0 changes nothing. Cut off at 3 sigma.

    """
    out = np.array(values, np.float64)
    known = np.isfinite(out).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(int), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        run = np.asarray(values[start:end], np.float64)
        room = np.minimum(np.arange(end - start), np.arange(end - start)[::-1])  # rows free on both sides
        total, weight = run.copy(), np.ones(end - start)
        for d in range(1, min(int(3 * sigma), (end - start - 1) // 2) + 1):
            w = float(np.exp(-0.5 * (d / sigma) ** 2))
            inner = np.flatnonzero(room >= d)
            total[inner] += w * (run[inner - d] + run[inner + d])
            weight[inner] += 2 * w
        out[start:end] = total / weight[:, None]
    return out


def fill(values: np.ndarray, frames: np.ndarray, length: int, fps: float, sigma: float = 0.0) -> np.ndarray:
    """Values on every frame from values on some of them.

    Between two sightings at most 0.5 s apart: linear. Otherwise a sighting stands for the frames nearer to it than to
    the next look, and the last look also for those that follow it to the end; the rest is NaN. Then `smooth`.

    Args:
        values: float [S, D], one row a look; a row of NaN where nothing was seen.
        frames: int [S], rising: the numbers of the frames looked at.
        length: T, the number of frames.
        fps: frames a second.
        sigma: of the smoothing, in seconds.

    Returns:
        float32 [T, D].

    """
    out = np.full((length, values.shape[1]), np.nan)
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    steps = np.diff(frames)
    for k in known:
        before = (steps[k - 1] - 1) // 2 if k else frames[0]
        after = steps[k] // 2 if k < len(steps) else length - 1 - frames[-1]
        out[frames[k] - before : frames[k] + after + 1] = values[k]
    for a, b in pairwise(known):
        span = int(frames[b] - frames[a])
        # A neighbouring pair is always bridged: at less than 2 frames a second the gap says nothing.
        if b == a + 1 or span <= LONGEST_GAP * fps:
            part = np.linspace(0.0, 1.0, span + 1)[:, None]
            out[frames[a] : frames[b] + 1] = values[a] * (1 - part) + values[b] * part
    return smooth(out, sigma * fps).astype(np.float32)


def fill_tracks(
    tracks: list[Track],
    values: Sequence[np.ndarray],
    frames: np.ndarray,
    length: int,
    fps: float,
    width: int,
    sigma: float = 0.0,
) -> np.ndarray:
    """`fill` for each track by itself (no gliding across a cut), earlier tracks going first; float32 [T, width].

    `values` has per sample one row of `width` numbers for each sighting.
    """
    out = np.full((length, width), np.nan, np.float32)
    for track in tracks:
        sparse = np.full((len(frames), width), np.nan)
        for sample, row in track:
            sparse[sample] = values[sample][row]
        dense = fill(sparse, frames, length, fps, sigma)
        free = np.isnan(out).all(axis=1)
        out[free] = dense[free]
    return out


def finish(boxes: np.ndarray, scores: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [T, 4] cut at the picture's edges (NaN when nothing is left), and scores [T], 0 where there is no box."""
    limits = np.array([width, height, width, height], np.float32)
    boxes = np.clip(boxes, 0, limits).astype(np.float32)
    with np.errstate(invalid="ignore"):
        empty = ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    boxes[empty] = np.nan
    return boxes, np.where(empty, 0, np.clip(scores, 0, 1)).astype(np.float32)
