"""Clips that play in the report with their curves and words below them.

A clip is encoded again, small, beside its reference, and put into the page as a data: URI. Curves, words and the cursor
share one axis of time, so that a place on a curve is a moment of the video.
"""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jwb_dh_v1.analysis.wording import decimals, metrics_of, number, title
from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics.region import CropRule
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report.illustrate import FIRST, ByteBudget, NotShown, Task, _moments, _part, require_same
from jwb_dh_v1.report.summary import Place, with_curves
from jwb_dh_v1.scoring.result import Result, Row

# Largest height in pixels and libx264's quality, until a clip fits its share.
SIZES = ((320, 28), (240, 31), (160, 34))


@dataclass
class Film:
    """An encoded piece: MP4 bytes, size in pixels, what it shows from left to right, and what is to be said."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    sides: str = "generated"
    notes: list[str] = field(default_factory=list)


def encode(sample: Sample, first: int, last: int, share: int) -> Film:
    """A piece of a sample as MP4, the generated clip left of the reference.

    Args:
        sample: with clips that may be decoded.
        first, last: frames of the generated clip, the last one not included.
        share: characters that the piece may take as base64; it is made smaller until it fits.

    Raises:
        NotShown: even the smallest version is larger.
        SampleError: the generated clip cannot be decoded.

    """
    film, reference, fps = Film(), sample.reference, sample.generated.fps
    if reference is not None:
        try:
            _ = reference.info
            film.sides = "generated, then reference"
        except JwbError as error:
            film.notes.append(f"The reference is not shown: {error}")
            reference = None
    audio = _sound(film, sample.generated, first / fps, last / fps)
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "clip.mp4"
        for largest, quality in SIZES:
            height = max(2, min(largest, sample.generated.size[1]) // 2 * 2)
            frames = _frames(sample.generated, reference, first, last, height)
            head = next(frames)
            write_mp4(path, chain([head], frames), fps, audio, crf=quality, preset="fast")
            if 4 * path.stat().st_size / 3 <= share:
                film.data, (film.height, film.width) = path.read_bytes(), head.shape[:2]
                if quality != SIZES[0][1]:
                    film.notes.append("Shown smaller and coarser than other clips, to keep the report small.")
                return film
    raise NotShown("the video would make the report too large.")


def _frames(generated: Clip, reference: Clip | None, first: int, last: int, height: int) -> Iterator[np.ndarray]:
    """Frames `first` to `last` of both clips side by side at the same moments, uint8 [height, W, 3]; both even."""
    theirs = _at_moments(reference, generated, first, last) if reference is not None else None
    for chunk in generated.chunks(start=first, stop=last):
        for frame in chunk:
            sides = [_shrunk(frame, height)]
            if theirs is not None:
                sides += [np.zeros((height, 4, 3), np.uint8), _shrunk(next(theirs), height)]
            yield np.hstack(sides)


def _at_moments(reference: Clip, generated: Clip, first: int, last: int) -> Iterator[np.ndarray]:
    """The reference's frame at the moment of each of the generated frames; its last one stays when it is over."""
    rate = reference.fps / generated.fps
    same = abs(rate - 1) < 0.01
    moment = [k if same else round(k * rate) for k in range(first, last)]
    wanted, at = 0, min(moment[0], len(reference) - 1)
    frame: np.ndarray | None = None
    for chunk in reference.chunks(start=at):
        for frame in chunk:
            while wanted < len(moment) and moment[wanted] <= at:
                yield frame
                wanted += 1
            at += 1
        if wanted == len(moment):
            return
    while frame is not None:
        yield frame


def _shrunk(frame: np.ndarray, height: int) -> np.ndarray:
    width = max(2, round(frame.shape[1] * height / frame.shape[0] / 2) * 2)
    small: np.ndarray = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return small


def _sound(film: Film, clip: Clip, begin: float, end: float) -> Audio | None:
    """The clip's sound in the piece, in one channel; None, with a note where it is broken."""
    try:
        audio = clip.audio
    except JwbError as error:
        film.notes.append(f"No sound: {error}")
        return None
    if audio is None:
        film.notes.append("The clip has no sound.")
        return None
    low = max(0, round((begin - audio.start) * audio.rate))
    high = max(low, round((end - audio.start) * audio.rate))
    samples = audio.samples[:, low:high].mean(axis=0, keepdims=True)
    return Audio(samples, audio.rate, max(0.0, audio.start - begin)) if samples.size else None


BUDGET = 8_000_000  # bytes of all videos in the page
SECONDS = 20.0  # longest piece of a clip; of a longer one, the piece around its worst moment
LANES = 8
ENTRIES = 600  # of a curve in the page
ROWS = 3  # rows that words take turns in, so that short ones do not cover each other
Word = Mapping[str, Any]  # `word`, `start`, `end` in seconds after the first frame, as in the dataset


@dataclass
class Lane:
    """One curve: its times in seconds from the beginning of the piece shown, and its values.

    `points` are the polylines of an SVG of 1000 x 100, broken where the curve is not finite; `worst` is the place of
    the worst entry in per cent.
    """

    name: str
    region: str
    higher_is_better: bool
    value: str
    low: str
    high: str
    digits: int
    times: list[float]
    values: list[float | None]
    points: list[str]
    worst: tuple[float, float]


@dataclass
class Player:
    """A clip with its curves.

    Attributes:
        place: which clip, and where it stands.
        kind: `worst` or `best`.
        video: data: URI, or nothing.
        width, height: of the video in pixels.
        begin, length: the piece shown, in seconds of the clip.
        fps: frames per second.
        lanes: curves.
        words: row, begin and width in per cent, text, start and end in seconds of the piece.
        sides: what the video shows, from left to right.
        notes: what is missing, and why.

    """

    place: Place
    kind: str
    video: str = ""
    width: int = 0
    height: int = 0
    begin: float = 0.0
    length: float = 0.0
    fps: float = 25.0
    lanes: list[Lane] = field(default_factory=list)
    words: list[tuple[int, float, float, str, float, float]] = field(default_factory=list)
    sides: str = ""
    notes: list[str] = field(default_factory=list)
    note: str = ""


def tasks(players: Sequence[Player], result: Result, words: Mapping[str, Sequence[Word]] | None) -> list[Task]:
    """The videos that the players need; each may take an equal share of the bytes, and what others left of theirs."""
    rows: dict[str, list[Row]] = {}
    if players:
        for row in with_curves(result, {player.place.sample_id for player in players}):
            rows.setdefault(row.sample_id, []).append(row)
    room, share = ByteBudget(BUDGET), BUDGET // max(1, len(players))
    found = []
    for player in players:
        name = player.place.sample_id
        make = partial(_fill, player, result, rows.get(name, []), (words or {}).get(name), share)
        found.append(Task(name, player, make, room))
    return found


def _fill(
    player: Player, result: Result, rows: Sequence[Row], words: Sequence[Word] | None, share: int, sample: Sample
) -> int:
    """Video, curves and words of one player; returns the bytes of the video in the page."""
    if rows:
        require_same(sample, rows[0].sha256)
    clip = sample.generated
    player.fps = clip.fps
    curves = _curves(player, result, rows, sample)
    middle = int(curves[0][1][_worst(curves[0][0], result)]) if curves else 0
    first, last = _piece(len(clip), clip.fps, middle)
    player.begin, player.length = first / clip.fps, (last - first) / clip.fps
    if last - first < len(clip):
        player.notes.append(f"Shown: {player.begin:.1f} to {last / clip.fps:.1f} s of {len(clip) / clip.fps:.1f} s.")
    for row, frames in curves:
        lane = _lane(row, result, (frames - first + 0.5) / clip.fps, player.length)
        if lane is not None:
            player.lanes.append(lane)
    player.words = _words(words or (), player.begin, player.length)
    if not player.words:
        player.notes.append("No word timeline: the data tell no times of words in this piece.")
    film = encode(sample, first, last, share)
    player.notes += film.notes
    player.width, player.height, player.sides = film.width, film.height, film.sides
    player.video = f"data:video/mp4;base64,{base64.b64encode(film.data).decode()}"
    return len(player.video)


def _curves(player: Player, result: Result, rows: Sequence[Row], sample: Sample) -> list[tuple[Row, np.ndarray]]:
    """The curves to show, each with the frame numbers of its entries."""
    from jwb_dh_v1.metrics.protocols import known

    protocol = known(result.protocol)
    table = protocol.metrics if protocol is not None else {}
    rule: CropRule = "paper" if result.protocol.startswith("paper/") else "track"
    names = metrics_of(result.scores)
    order = {m: FIRST.index(m) if m in FIRST else len(FIRST) + names.index(m) for m in names}
    found: list[tuple[Row, np.ndarray]] = []
    reasons: list[str] = []
    for row in sorted(rows, key=lambda row: order[row.metric]):
        metric = table.get(row.metric)
        if metric is None or len(found) == LANES:
            continue
        paired = "reference" in metric.needs
        try:
            part = _part(sample.crop(row.region, rule, metric.same_boxes), paired)  # type: ignore[arg-type]
            if len(row.curve) <= len(part.generated):
                found.append((row, _moments(part, len(row.curve), rule, paired)[0]))
        except JwbError as error:
            reasons.append(f"No curves of the {row.region}: {error}")
    player.notes += dict.fromkeys(reasons)
    return sorted(found, key=lambda pair: ("body", "face", "hands").index(pair[0].region))


def _worst(row: Row, result: Result) -> int:
    """Position of the worst entry of a curve."""
    values = np.asarray(row.curve, np.float64)
    values = values if result[row.metric, row.region].higher_is_better else -values
    return int(np.argmin(np.where(np.isfinite(values), values, np.inf)))


def _piece(n: int, fps: float, middle: int) -> tuple[int, int]:
    """First and one past the last frame shown: all, or so many seconds around a frame."""
    most = max(1, int(SECONDS * fps))
    first = min(max(0, middle - most // 2), max(0, n - most))
    return first, min(n, first + most)


def _lane(row: Row, result: Result, times: np.ndarray, length: float) -> Lane | None:
    """A curve as lines in a box of 1000 x 100; None where nothing of it is in the piece."""
    score = result[row.metric, row.region]
    inside = (times >= 0) & (times <= length)
    times, values = times[inside], np.asarray(row.curve, np.float64)[inside]
    if len(times) > ENTRIES:
        chosen = np.linspace(0, len(times) - 1, ENTRIES).round().astype(int)
        times, values = times[chosen], values[chosen]
    known = np.isfinite(values)
    if not known.any():
        return None
    low, high = float(values[known].min()), float(values[known].max())
    middle, half = (
        (low + high) / 2,
        max((high - low) / 2, 1e-6 * max(1.0, abs(high))),
    )  # a flat line stays in the middle
    x, y = 1000 * times / length, 50 - 42 * (values - middle) / half
    points, line = [], []
    for at in range(len(times) + 1):
        if at < len(times) and known[at]:
            line.append(f"{x[at]:.1f},{y[at]:.1f}")
        elif line:
            points.append(" ".join(line if len(line) > 1 else line * 2))
            line = []
    worst = int(np.argmin(np.where(known, values if score.higher_is_better else -values, np.inf)))
    spread = high - low
    digits = min(5, max(0, 2 - math.floor(math.log10(spread)))) if spread > 1e-9 else 3
    return Lane(
        title(row.metric) + (f" ({score.unit})" if score.unit else ""),
        row.region,
        score.higher_is_better,
        number(row.value, max(2, decimals([score]))),
        number(low, digits),
        number(high, digits),
        digits,
        [round(float(t), 3) for t in times],
        [round(float(v), 6) if ok else None for v, ok in zip(values, known, strict=True)],
        points,
        (float(x[worst]) / 10, float(y[worst])),
    )


def _words(words: Sequence[Word], begin: float, length: float) -> list[tuple[int, float, float, str, float, float]]:
    """The words of the piece with times, in turns over a few rows."""
    found: list[tuple[int, float, float, str, float, float]] = []
    for word in words:
        start, end = word.get("start"), word.get("end")
        if start is None or end is None or not (math.isfinite(start) and math.isfinite(end)):
            continue
        start, end = float(start) - begin, float(end) - begin
        if end <= 0 or start >= length or end < start:
            continue
        start, end = max(0.0, start), min(length, end)
        place = (100 * start / length, 100 * (end - start) / length)
        found.append((len(found) % ROWS, *place, str(word.get("word") or ""), round(start, 3), round(end, 3)))
    return found


def words_of(data: str | Path, split: str | None = None, revision: str | None = None) -> dict[str, list[Word]]:
    """The words with times of a dataset's samples, for `write_report`; empty for a plain folder of videos.

    Args:
        data: as `pair` takes it: a dataset folder, a Hub name, or a plain folder.
        split: `evaluation` by default.
        revision: of a Hub dataset.

    """
    place = Path(data)
    if place.is_dir() and not any(place.rglob("*.parquet")):
        return {}
    from jwb_dh_v1.dataset.load import load_dataset

    columns = ["schema_version", "sample_id", "transcript"]
    rows = load_dataset(str(data), split=split or "evaluation", streaming=True, columns=columns, revision=revision)
    return {row["sample_id"]: list((row["transcript"] or {}).get("words") or ()) for row in rows}
