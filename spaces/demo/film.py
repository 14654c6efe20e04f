"""The frames of a scored clip with their boxes, and the curves over them.

Frames are drawn once, when the clip is scored, and kept as small files until the session ends.
"""

from __future__ import annotations

import html
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from views import digits

from jwb_dh_v1.analysis.wording import number, title
from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.region import CropRule
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report.drawing import frame_plot
from jwb_dh_v1.report.illustrate import curve_frames
from jwb_dh_v1.scoring.result import Result

FILM = 240  # frames kept for the page, evenly taken
FILM_SIDE = 420  # longer side of a kept frame in pixels


def make_film(sample: Sample, result: Result, folder: Path) -> dict[str, Any]:
    """Draw the frames of a sample with their boxes into a folder, one small SVG each.

    Returns:
        `folder`, `frames` (numbers of those kept), `sides` (`generated`, `reference`), `moments` (frame numbers of the
        entries of each curve by `metric/region`), `note` (why there are no boxes, or nothing).

    """
    folder.mkdir(parents=True)
    length = len(sample.generated)
    frames = np.unique(np.linspace(0, length - 1, min(length, FILM)).round().astype(int))
    sides = {"generated": sample.generated} | ({"reference": sample.reference} if sample.reference is not None else {})
    notes = [_draw(sample, clip, frames, folder / side, result) for side, clip in sides.items()]
    return {
        "folder": str(folder),
        "frames": frames.tolist(),
        "sides": list(sides),
        "moments": _all_moments(sample, result),
        "note": next(filter(None, notes), ""),
        "name": sample.id,
    }


def _draw(sample: Sample, clip: Clip, frames: np.ndarray, folder: Path, result: Result) -> str:
    folder.mkdir()
    boxes: Mapping[str, np.ndarray] = {}
    note = "Only whole frames were scored: no boxes."
    if result.plan.get("boxes") != "none":
        try:
            boxes, note = sample.annotations(clip).boxes, ""
        except JwbError as error:
            note = str(error)
    frames = frames[frames < len(clip)]
    for start in range(0, len(frames), 32):
        numbers = frames[start : start + 32]
        for frame, picture in zip(numbers, clip.take(numbers), strict=True):
            here = {part: box[frame] for part, box in boxes.items() if frame < len(box)}
            seen = ", ".join(part.replace("_", " ") for part, box in here.items() if np.isfinite(box).all())
            alt = f"Frame {frame}, {folder.name}" + (f"; boxes: {seen}" if seen else "")
            (folder / f"{frame:05d}.svg").write_text(frame_plot(picture, here, alt, FILM_SIDE), encoding="utf-8")
    clip.release()
    return note


def _all_moments(sample: Sample, result: Result) -> dict[str, list[int]]:
    """Frame numbers of the entries of every curve."""
    rule: CropRule = "paper" if result.protocol.startswith("paper/") else "track"
    table_ = PROTOCOLS[result.protocol.partition("/")[0]].metrics
    found = {}
    for row in result.rows():
        if row.status != "ok" or len(row.curve) < 2:
            continue
        metric = table_[row.metric]
        paired = "reference" in metric.needs
        try:
            moments = curve_frames(sample, row.region, len(row.curve), rule, paired, metric.same_boxes)
        except JwbError:
            continue
        found[f"{row.metric}/{row.region}"] = moments.tolist()
    return found


def curve_names(film: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Labels and keys of the curves that can be shown."""
    return [(f"{title(k.partition('/')[0])}, {k.partition('/')[2]}", k) for k in film["moments"]]


def curve(document: Mapping[str, Any], film: Mapping[str, Any], key: str, at: int) -> str:
    """A curve over the frames with a line at frame `at`; a click or the pointer's way over it picks a frame."""
    metric, _, region = key.partition("/")
    row = next(r for r in document["samples"] if (r["metric"], r["region"]) == (metric, region))
    score = next(s for s in document["scores"] if (s["metric"], s["region"]) == (metric, region))
    moments = film["moments"][key]
    values = np.array([v if isinstance(v, int | float) else np.nan for v in row["curve"]], float)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    pad = 0.08 * (high - low) or 0.05 * max(abs(high), 1)
    low, high = low - pad, high + pad
    width, height, left, bottom = 640, 190, 78, 24
    last = max(film["frames"][-1], 1)

    def x(frame: float) -> float:
        return left + (width - left - 10) * frame / last

    def y(value: float) -> float:
        return 8 + (height - bottom - 8) * (high - value) / (high - low)

    line = " ".join(f"{x(m):.1f},{y(v):.1f}" for m, v in zip(moments, values, strict=True) if math.isfinite(v))
    ticks = "".join(
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{number(v, digits(v))}</text>'
        f'<line x1="{left}" x2="{width - 10}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="currentColor" '
        'stroke-opacity="0.15"/>'
        for v in np.linspace(low + pad, high - pad, 3)
    ) + "".join(
        f'<text x="{x(f):.1f}" y="{height - 6}" text-anchor="middle">{f}</text>'
        for f in sorted({round(last * part / 5) for part in range(6)})
    )
    better = "higher is better" if score["higher_is_better"] else "lower is better"
    alt = html.escape(f"{title(metric)} of {region} over {len(values)} frames, {better}.")
    return (
        f'<svg class="curve" role="img" aria-label="{alt}" viewBox="0 0 {width} {height}" data-left="{left / width}" '
        f'data-right="{1 - 10 / width}" data-last="{last}">{ticks}<polyline points="{line}" class="line"/>'
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="4" y2="{height - bottom}" class="here"/></svg>'
        f'<p class="faint">{html.escape(title(metric))}, {html.escape(region)} ({better}). '
        "Point at the curve or move the slider to see a frame.</p>"
    )


def frame(document: Mapping[str, Any], film: Mapping[str, Any], key: str, at: int) -> str:
    """The frame nearest to `at` with its boxes, generated beside reference, and the curve's value there."""
    kept = np.array(film["frames"])
    near = int(kept[np.argmin(np.abs(kept - at))])
    pictures = []
    for side in film["sides"]:
        path = Path(film["folder"]) / side / f"{near:05d}.svg"
        svg = path.read_text(encoding="utf-8") if path.is_file() else '<p class="faint">This clip ends earlier.</p>'
        pictures.append(f"<figure>{svg}<figcaption>{side}, frame {near}</figcaption></figure>")
    said = ""
    if key in film["moments"]:
        metric, _, region = key.partition("/")
        row = next(r for r in document["samples"] if (r["metric"], r["region"]) == (metric, region))
        moments = np.array(film["moments"][key])
        entry = int(np.argmin(np.abs(moments - near)))
        value = row["curve"][entry]
        if isinstance(value, int | float):
            where = "" if moments[entry] == near else f" (frame {moments[entry]})"
            said = f"{title(metric)}, {region}: {number(value, digits(value))}{where}"
    note = html.escape(" ".join(filter(None, [said + "." if said else "", film["note"]])))
    return f'<div class="frames">{"".join(pictures)}</div><p>{note}</p>'


def forget(folder: Path) -> None:
    """Remove a session's files."""
    shutil.rmtree(folder, ignore_errors=True)
