"""Pictures for a report: what needs the clips themselves, made in one pass over the samples, within limits of bytes.

Two kinds: the worst samples of a few metrics, with their curves and the frames that say why; and contact sheets of the
worst and the best clips of a run, a strip of moments each.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from jwb_dh_v1.analysis.wording import decimals, metrics_of, number, printable, title
from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.protocols import known
from jwb_dh_v1.metrics.region import Crop, CropRule, Region
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report.drawing import curve_plot, frame_plot, jpeg
from jwb_dh_v1.report.summary import Place
from jwb_dh_v1.scoring.result import Result, Row, Score


class Noted(Protocol):
    """Something on the page that can say why it has no pictures."""

    note: str


class NotShown(Exception):
    """A picture that would not be of what was scored; the text says why."""


@dataclass
class ByteBudget:
    """Bytes that pictures of one kind may still take in the page."""

    left: int


@dataclass(frozen=True)
class Task:
    """Pictures of one sample: where the reason goes if there are none, how they are made, and from which room.

    `make` gets a sample whose clips may be decoded without being kept, and returns the bytes that it adds to the page.
    """

    sample_id: str
    holder: Noted
    make: Callable[[Sample], int]
    room: ByteBudget


def illustrate(tasks: Sequence[Task], samples: Iterable[Sample] | None) -> None:
    """Make all pictures. Samples are gone through once; only those shown are decoded.

    A picture that cannot be made (no samples given, a file that is gone, no detector) leaves a note instead.
    """
    wanted: dict[str, list[Task]] = {}
    for task in tasks:
        wanted.setdefault(task.sample_id, []).append(task)
        task.holder.note = "No pictures: the samples were not given to the report."
    for sample in samples or ():
        if not wanted:
            break
        for task in wanted.pop(sample.id, ()):
            task.holder.note = ""
            if task.room.left <= 0:
                task.holder.note = "No pictures: the report would become too large."
                continue
            try:
                task.room.left -= task.make(_passing(sample))
            except (JwbError, OSError, NotShown) as error:
                task.holder.note = f"No pictures: {error}"
    if samples is not None:
        for left in wanted.values():
            for task in left:
                task.holder.note = "No pictures: the samples given to the report do not hold this one."


def require_same(sample: Sample, sha256: str) -> None:
    """Refuse a file that is not the one that was scored.

    Raises:
        NotShown: it is another.

    """
    if sha256 and sample.generated.sha256 != sha256:
        raise NotShown("the file is not the one that was scored.")


def _passing(sample: Sample) -> Sample:
    """The sample with twins of its clips: frames that they decode go away with them."""
    sample = replace(sample, generated=sample.generated.uncached_copy())
    if sample.reference is not None:
        reference = sample.reference.uncached_copy()
        reference.models = reference.models or sample.generated.models
        sample = replace(sample, reference=reference)
    return sample


SHEETS_BUDGET = 2_500_000  # bytes of all strips in the page
TILES = 6  # moments of a strip
WIDTH, HEIGHT = 1080, 150  # largest strip of one clip in pixels
QUALITY = 80


@dataclass
class Strip:
    """One clip: its place, a JPEG as data: URI with its size, what the rows show, and why there is none."""

    place: Place
    kind: str
    image: str = ""
    width: int = 0
    height: int = 0
    sides: str = "generated"
    note: str = ""


def sheet_tasks(strips: Sequence[Strip], result: Result) -> list[Task]:
    """The pictures that the strips need."""
    room, hashes = ByteBudget(SHEETS_BUDGET), _hashes(result, {strip.place.sample_id for strip in strips})
    return [
        Task(strip.place.sample_id, strip, partial(_fill, strip, hashes.get(strip.place.sample_id, "")), room)
        for strip in strips
    ]


def _hashes(result: Result, samples: set[str]) -> dict[str, str]:
    """The sha256 of the files that were scored."""
    if result.samples is None:
        return {}
    names, hashes = (result.samples[key].to_pylist() for key in ("sample_id", "sha256"))
    return {name: sha for name, sha in zip(names, hashes, strict=True) if name in samples}


def _fill(strip: Strip, sha256: str, sample: Sample) -> int:
    """Evenly spaced frames of the generated clip, those of the reference at the same share of its length below."""
    require_same(sample, sha256)
    rows = [_tiles(sample.generated)]
    if sample.reference is not None:
        try:
            rows.append(_tiles(sample.reference))
            strip.sides = "above generated, below the reference"
        except JwbError:
            strip.sides = "generated; the reference cannot be read"
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0)), constant_values=128) for row in rows]
    data, strip.width, strip.height = jpeg(np.vstack(rows)[:-4], WIDTH, QUALITY)
    strip.image = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return len(strip.image)


def _tiles(clip: Clip) -> np.ndarray:
    """The frames of one row side by side, uint8 [h, w, 3]."""
    at = np.unique(np.linspace(0, len(clip) - 1, TILES).round().astype(int))
    height = min(HEIGHT, round(WIDTH / TILES * clip.size[1] / clip.size[0]))
    width = max(1, round(height * clip.size[0] / clip.size[1]))
    tiles = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in clip.take(at)]
    return np.hstack([np.pad(tile, ((0, 0), (0, 4), (0, 0)), constant_values=128) for tile in tiles])[:, :-4]


CELLS, SAMPLES = 3, 3  # metrics shown, and samples of each
FIRST = ("csim", "ssim", "subject_consistency", "lpips", "psnr")  # the metrics whose curves tell most about a frame
BUDGET = 6 * 2**20  # characters of pictures in one report
CROP = 224  # pixels of a part's picture: what the networks see


@dataclass
class Look:
    """One sample on the page: its value and curve, pictures with captions, and what is to be said about them.

    `moments` are the frame numbers of the curve's entries, int [n], where they are known.

    A picture is one moment of the generated clip and, if there is one, the same moment of the reference.
    """

    row: Row
    text: str
    curve: str = ""
    moments: np.ndarray | None = None
    pictures: list[tuple[str, list[str]]] = field(default_factory=list)
    note: str = ""


@dataclass
class Cell:
    """The worst samples of one metric on one region, worst first."""

    score: Score
    looks: list[Look]
    paired: bool  # the metric compares with the reference
    same_boxes: bool  # and cuts both clips by the reference's boxes


def worst_cells(result: Result) -> list[Cell]:
    """A few metrics with curves, their regions taken in turn, each with its worst samples.

    A perfect sample is no worst one; a metric that is perfect for every sample is left out.
    """
    protocol = known(result.protocol)
    table = protocol.metrics if protocol is not None else {}  # results of another version can still be read
    found: dict[tuple[str, str], list[Row]] = {}
    for row in result.rows() if result.samples is not None else ():
        if row.status == "ok" and row.value is not None and len(row.curve) > 1:
            score = result[row.metric, row.region]
            if _perfect(row, score):
                continue
            kept = found.setdefault((row.metric, row.region), [])
            kept.append(row)
            kept.sort(key=lambda r: _badness(r, score), reverse=True)
            del kept[SAMPLES:]  # rows hold curves, and there may be thousands
    cells: list[Cell] = []
    used: list[str] = []
    names = metrics_of(result.scores)
    for metric in sorted(names, key=lambda m: FIRST.index(m) if m in FIRST else len(FIRST) + names.index(m)):
        possible = [region for region in ("face", "hands", "body") if (metric, region) in found]
        if not possible or len(cells) == CELLS:
            continue
        region = min(possible, key=used.count)
        used.append(region)
        score = result[metric, region]
        digits = decimals([score])
        paired = metric in table and "reference" in table[metric].needs
        same_boxes = metric in table and table[metric].same_boxes
        looks = [Look(row, number(row.value, digits)) for row in found[metric, region]]
        cells.append(Cell(score, looks, paired, same_boxes))
    return cells


def _badness(row: Row, score: Score) -> float:
    assert row.value is not None
    return -row.value if score.higher_is_better else row.value


def _perfect(row: Row, score: Score) -> bool:
    ideal = score.range[1] if score.higher_is_better else score.range[0]
    assert row.value is not None
    return math.isinf(row.value) if ideal is None else abs(row.value - ideal) < 1e-9


def worst_tasks(cells: Sequence[Cell], result: Result) -> list[Task]:
    """The pictures that the looks need."""
    room = ByteBudget(BUDGET)
    return [
        Task(look.row.sample_id, look, partial(_picture, cell, look, result), room)
        for cell in cells
        for look in cell.looks
    ]


def draw_curves(cells: Sequence[Cell]) -> None:
    """Add the curves, over frames where pictures were made, else over their own entries."""
    for cell in cells:
        for look in cell.looks:
            moments = np.arange(len(look.row.curve)) if look.moments is None else look.moments
            look.curve = _curve(cell, look, moments)


def _marked(curve: Sequence[float], higher_is_better: bool) -> dict[str, int]:
    """Positions of the worst entry and of an ordinary one (nearest to the median) that is not right beside it."""
    values = np.asarray(curve, np.float64)
    if not np.isfinite(values).any():
        return {}
    worst = int(np.nanargmin(values if higher_is_better else -values))
    far = np.abs(np.arange(len(values)) - worst) > 0.15 * len(values)
    distance = np.where(far & np.isfinite(values), np.abs(values - np.nanmedian(values)), np.inf)
    typical = int(np.argmin(distance))
    return {"worst": worst, "typical": typical} if np.isfinite(distance[typical]) else {"worst": worst}


def _curve(cell: Cell, look: Look, moments: np.ndarray) -> str:
    score, curve = cell.score, look.row.curve
    name = f"{title(score.metric)} of {printable(look.row.sample_id)}, {score.region}"
    marked = _marked(curve, score.higher_is_better)
    return curve_plot(moments.tolist(), curve, title=name, higher_is_better=score.higher_is_better, marked=marked)


def _picture(cell: Cell, look: Look, result: Result, sample: Sample) -> int:
    require_same(sample, look.row.sha256)
    rule: CropRule = "paper" if result.protocol.startswith("paper/") else "track"
    region: Region = cell.score.region  # type: ignore[assignment]
    part = _part(sample.crop(region, rule, cell.same_boxes), cell.paired)
    if len(look.row.curve) > len(part.generated):
        raise NotShown("the boxes found now are not those of the run.")
    ours, theirs = _moments(part, len(look.row.curve), rule, cell.paired)
    look.moments = ours
    sides = [("generated", sample.generated, part.generated, ours)]
    if sample.reference is not None:
        sides.append(("reference", sample.reference, part.reference or sample.reference, theirs))
    marked = _marked(look.row.curve, cell.score.higher_is_better)
    beside = ": generated, then reference" if sample.reference is not None else ": generated"
    for name, at in marked.items():
        wholes, crops = [], []
        for side, whole, cut, moments in sides:
            frame = min(int(moments[at]), len(whole) - 1)
            where = f"{name.capitalize()} frame {frame} of {printable(look.row.sample_id)}, {side}"
            if region == "body" or name == "worst":
                boxes, why = _boxes(sample, whole, frame, result)
                look.note = look.note or why
                seen = f"; boxes: {', '.join(boxes).replace('_', ' ')}" if boxes else ""
                wholes.append(frame_plot(whole.take(np.array([frame]))[0], boxes, where + seen))
            if isinstance(cut, Crop):
                position = min(int(np.searchsorted(cut.indices, frame)), len(cut) - 1)
                picture = cut.take(np.array([position]))[0]
                crops.append(frame_plot(picture, {}, f"{where}, the {cut.part.replace('_', ' ')} only", CROP))
        if wholes:
            look.pictures.append((f"{name.capitalize()} frame{beside}", wholes))
        if crops:
            look.pictures.append((f"{name.capitalize()} frame, {_name(part)}{beside}", crops))
    return sum(len(svg) for _, pair in look.pictures for svg in pair)


def _name(part: Sample) -> str:
    return part.generated.part.replace("_", " ") if isinstance(part.generated, Crop) else "whole frame"


def _part(parts: Sequence[Sample], paired: bool) -> Sample:
    """The part whose curve was kept: the first that could be measured."""
    for part in parts:
        if not paired:
            return part
        try:
            part.frame_overlap()
        except JwbError:
            continue
        return part
    return parts[0]


def _moments(part: Sample, n: int, rule: CropRule, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers in the whole generated and reference clips of each entry of a curve, int [n] each."""
    if rule == "paper" and paired:  # the first n frames of both crops, each with its own frames left out
        clips = part.generated, part.reference or part.generated
        ours, theirs = ((c.indices if isinstance(c, Crop) else np.arange(len(c)))[:n] for c in clips)
        return ours, theirs
    start, stop = part.frame_overlap() if paired else (part.generated.start, part.generated.stop)
    if n == stop - start - 1:  # one entry per pair: it belongs to the later frame
        start += 1
    moments = np.linspace(start, stop - 1, n).round().astype(int)  # sampled curves are evenly spaced
    return moments, moments


def curve_frames(sample: Sample, region: Region, n: int, rule: CropRule, paired: bool, same_boxes: bool) -> np.ndarray:
    """Frame numbers in the whole generated clip of each entry of a curve with `n` values on `region`, int [n].

    Raises:
        JwbError: the region is not shown, or the two clips have no part in common.

    """
    part = _part(sample.crop(region, rule, same_boxes), paired)
    return _moments(part, n, rule, paired)[0]


def _boxes(sample: Sample, clip: Clip, frame: int, result: Result) -> tuple[dict[str, np.ndarray], str]:
    """The boxes of one frame by part, and why there are none."""
    if result.plan.get("boxes") == "none" and clip.provided_annotations is None:
        return {}, "No boxes: only whole frames were scored."
    try:
        annotations = clip.provided_annotations if result.plan.get("boxes") == "none" else sample.annotations(clip)
    except JwbError as error:
        return {}, f"No boxes: {error}"
    assert annotations is not None
    found = {part: boxes[frame] for part, boxes in annotations.boxes.items() if frame < len(boxes)}
    return {part: box for part, box in found.items() if np.isfinite(box).all()}, ""
