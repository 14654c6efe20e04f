"""Matplotlib figures as SVG for a page, and as files for a paper.

In the page a drawing stands alone, carries its description as text, and takes its ink from the page around it, so that
it reads on light, dark and printed ground. In a file its colours are fixed and its letters are shapes.

Drawings of a report as SVG: scores by region, a curve over frames, a frame with its boxes.

Scores are dots with intervals, one panel per metric: metrics share neither range nor direction. Those that do are on
the radar of `charts.py`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from jwb_dh_v1.analysis.wording import printable as printable  # also imported from here

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart by people who are colour-blind; each system has a marker of its own as well.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (5, 2)), (0, (1.5, 1.5)))
# What is drawn in these colours takes the page's: matplotlib knows no `currentColor` and no CSS variables.
INK, FAINT = "#010203", "#040506"
PLACES = tuple(f"#00{number:02x}fe" for number in range(len(SERIES)))
REPLACED = {INK: "currentColor", FAINT: "var(--faint, #888)"} | {
    place: f"var(--series-{number}, {colour})"
    for number, (place, colour) in enumerate(zip(PLACES, SERIES, strict=True))
}
FONT = "system-ui, sans-serif"
PER_INCH = 72  # points: one unit of the SVG is one CSS pixel
DPI = 300  # of PNG files
DATELESS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Theme:
    """The colours of a drawing: ink, quiet lines, and one per series."""

    ink: str
    faint: str
    series: tuple[str, ...]

    def colour(self, number: int) -> str:
        """The colour of a series; they repeat after seven, as the markers do."""
        return self.series[number % len(self.series)]


PAGE = Theme(INK, FAINT, PLACES)
PAPER = Theme("#000000", "#6b6b6b", SERIES)


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / PER_INCH, height / PER_INCH))


def settings(theme: Theme = PAGE) -> dict[str, Any]:
    """Matplotlib's settings, to be in force (`rc_context`) while a figure is made and while it is written."""
    return {
        "svg.fonttype": "none" if theme == PAGE else "path",  # in a page text stays text: searchable, in its font
        "svg.hashsalt": "jwb-dh-v1",  # the same drawing gives the same bytes
        "pdf.fonttype": 42,
        "axes.formatter.useoffset": False,  # 0.99998, not 8 + 0.9999 beside the axis
        "text.parse_math": False,  # a name with $ is a name
        "font.size": 11,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.linewidth": 0.8,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _write(figure: Figure, target: Any, kind: str, **options: Any) -> None:
    with warnings.catch_warnings():
        # In a page the reader's browser has the font; in a file a box stands for a letter that no font here has.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(target, format=kind, metadata=DATELESS[kind], **options)


def to_svg(figure: Figure, alt: str) -> str:
    """A figure as one `<svg>` element that scales with its place and can stand several times in a page."""
    buffer = io.BytesIO()
    _write(figure, buffer, "svg", transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for ours, theirs in REPLACED.items():
        text = re.sub(ours, theirs, text, flags=re.IGNORECASE)
    text = re.sub(r"(font: (?:\w+ )?[\d.]+px )[^;\"]*", rf"\1{FONT}", text)
    text = re.sub(r'<g id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|\w*Collection)[^"]*">', "<g>", text)
    mark = hashlib.sha256((alt + text).encode()).hexdigest()[:10]
    for name in set(re.findall(r' id="([^"]+)"', text)):
        text = re.sub(rf'(\bid="|href="#|url\(#){re.escape(name)}(?=["\)])', rf"\g<1>{mark}-{name}", text)
    opening = f'<svg role="img" aria-label="{html.escape(alt)}" xmlns="http://www.w3.org/2000/svg" '
    opening += 'xmlns:xlink="http://www.w3.org/1999/xlink" '
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox is not None
    size = f'width="{figure.get_figwidth() * PER_INCH:g}" height="{figure.get_figheight() * PER_INCH:g}" '
    return opening + size + viewbox.group() + text[text.index(">") :].rstrip()


def to_file(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF by the file's ending; the same figure gives the same bytes."""
    _write(figure, path, path.suffix[1:], dpi=DPI, facecolor="white")


BOXES = {"body": "#56B4E9", "face": "#F0E442", "left_hand": "#E69F00", "right_hand": "#CC79A7"}
WIDTH = 430  # of a panel, in pixels: on a telephone its letters are still read
POINTS = 300  # single samples drawn per mark, evenly taken from the sorted values
PICTURE = 480  # longer side of a frame in the report, in pixels


@dataclass(frozen=True)
class Mark:
    """One row of a panel.

    Attributes:
        label: at its left; where it is empty the group's name stands there.
        group: rows of one group stand together (a region).
        value, text: the score, and how it is written at its right.
        interval: 95 %, if there is one.
        points: the samples' own scores.
        series: number of its colour and marker (a system).

    """

    label: str
    group: str
    value: float | None
    text: str
    interval: tuple[float, float] | None = None
    points: Sequence[float] = ()
    series: int = 0


def span(marks: Sequence[Mark], limits: tuple[float | None, float | None]) -> tuple[float, float]:
    """Where the axis begins and ends: all that is drawn with some air, never beyond what the metric can be."""
    shown = [v for m in marks for v in (m.value, *(m.interval or ()), *m.points) if v is not None and math.isfinite(v)]
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    # Equal scores (but for rounding) get an axis of their own size, or it would show digits that mean nothing.
    spread = high - low if high - low > 1e-9 * max(1, abs(low), abs(high)) else 0.0
    air = 0.06 * spread or 0.05 * max(1, abs(low), abs(high))
    left, right = low - air, high + air
    # A score at its limit keeps half the air, or its dot would be cut.
    if limits[0] is not None:
        left = max(left, limits[0] - air / 2)
    if limits[1] is not None:
        right = min(right, limits[1] + air / 2)
    return left, right


def margin(labels: Sequence[str]) -> float:
    """Pixels that labels at the left of an axis take."""
    return 18 + 6.6 * max(map(len, labels), default=0)


def interval_plot(
    marks: Sequence[Mark],
    *,
    title: str,
    higher_is_better: bool,
    limits: tuple[float | None, float | None] = (None, None),
    unit: str = "",
    width: float = WIDTH,
    right: float = 0,
    singles: bool = True,
) -> str:
    """One metric: a row per mark with dot, 95 % interval, single samples, and the value in words.

    Args:
        marks: from top to bottom; groups in a row get a heading when they hold several labels.
        title: the metric, for the description.
        higher_is_better: direction, written under the axis.
        limits: what the metric can be.
        unit: of the value.
        width: in CSS pixels; the height follows from the rows.
        right: least margin at the right, so that the axis ends where that of another drawing does.
        singles: whether single samples are drawn; the axis has room for them in any case.

    Returns:
        An `<svg>` element.

    """
    import matplotlib as mpl

    lines: list[Mark | str] = []
    for mark in marks:
        if mark.label and not any(m.group == mark.group for m in lines if isinstance(m, Mark)):
            lines.append(mark.group)
        lines.append(mark)
    labels = [line if isinstance(line, str) else printable(line.label or line.group, 20) for line in lines]
    step, top, bottom = 20, 6, 36
    left = margin(labels)
    right = max(right, 14 + 6.4 * max((len(mark.text) for mark in marks), default=0))
    height = top + bottom + step * len(lines)
    with mpl.rc_context(settings()):
        drawn = figure(width, height)
        box = (left / width, bottom / height, (width - left - right) / width, step * len(lines) / height)
        axes = drawn.add_axes(box)
        axes.set_xlim(*span(marks, limits))
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", length=3)
        left_end, right_end = axes.get_xlim()
        least, most = (
            limits[0] if limits[0] is not None else left_end,
            limits[1] if limits[1] is not None else right_end,
        )
        ticks = mpl.ticker.MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(left_end, right_end)
        inside = (max(left_end, least), min(right_end, most))  # no tick where the metric cannot be
        axes.set_xticks([tick for tick in ticks if inside[0] <= tick <= inside[1]])
        beside = axes.get_yaxis_transform()
        gap = 8 / (width - left - right)
        for y, (line, label) in enumerate(zip(lines, labels, strict=True)):
            heading = isinstance(line, str)
            start = -left / (width - left - right) if heading else -gap
            axes.text(start, y, label, transform=beside, ha="left" if heading else "right", va="center",
                      fontweight="bold" if heading else "normal")  # fmt: skip
            if isinstance(line, Mark):
                axes.axhline(y, color=FAINT, alpha=0.3, linewidth=0.6, zorder=0)
                axes.text(1 + gap, y, line.text, transform=beside, ha="left", va="center")
                _draw(axes, y, line if singles else replace(line, points=()))
        better = "better →" if higher_is_better else "← better"
        axes.set_xlabel(better + (f"   ({unit})" if unit else ""), loc="right" if higher_is_better else "left")
        alt = f"{title}, {'higher' if higher_is_better else 'lower'} is better. " + "; ".join(
            f"{printable(m.group)} {printable(m.label)}".strip() + f" {m.text}" for m in marks
        )
        return to_svg(drawn, alt)


def _draw(axes: Any, y: float, mark: Mark) -> None:
    colour, marker = PAGE.colour(mark.series), MARKERS[mark.series % len(MARKERS)]
    points = np.sort([p for p in mark.points if math.isfinite(p)])
    if len(points) > POINTS:
        points = points[np.linspace(0, len(points) - 1, POINTS).round().astype(int)]
    if len(points) > 1:
        axes.plot(points, np.full(len(points), y), "|", color=colour, alpha=0.45, markersize=8, zorder=1)
    if mark.interval is not None and all(map(math.isfinite, mark.interval)):
        axes.plot(mark.interval, (y, y), "-", color=colour, linewidth=2.4, solid_capstyle="butt", zorder=2)
    if mark.value is not None and math.isfinite(mark.value):
        axes.plot(mark.value, y, marker, color=colour, markersize=7, zorder=3, clip_on=False)


def curve_plot(
    moments: Sequence[int],
    curve: Sequence[float],
    *,
    title: str,
    higher_is_better: bool,
    marked: Mapping[str, int] | None = None,
    width: float = 1080,
    height: float = 160,
) -> str:
    """A sample's metric over its frames, with its mean and some frames marked by name.

    Args:
        moments: int [n], the frame number of each entry.
        curve: float [n].
        title: what it is, for the description and the axis.
        higher_is_better: direction.
        marked: name -> position in the curve.
        width, height: in CSS pixels.

    Returns:
        An `<svg>` element.

    """
    import matplotlib as mpl

    values = np.asarray(curve, np.float64)
    known = values[np.isfinite(values)]
    with mpl.rc_context(settings()):
        drawn = figure(width, height)
        axes = drawn.add_axes((52 / width, 40 / height, (width - 66) / width, (height - 62) / height))
        axes.plot(moments, values, "-", color=PAGE.colour(0), linewidth=1.4, marker="." if len(values) <= 40 else None)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        axes.set_xlabel("frame", loc="right")
        if len(known):
            axes.axhline(known.mean(), color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.margins(x=0.02, y=0.18)
        for name, at in (marked or {}).items():
            axes.axvline(moments[at], color=PAGE.colour(1), linewidth=0.8, zorder=0)
            axes.plot(moments[at], values[at], "o", color=PAGE.colour(1), markersize=6)
            axes.text(moments[at], 1.03, f"{name} ({moments[at]})", transform=axes.get_xaxis_transform(),
                      ha="center" if 0.1 < _place(axes, moments[at]) < 0.9 else
                      "left" if _place(axes, moments[at]) <= 0.1 else "right")  # fmt: skip
        arrow = "↑" if higher_is_better else "↓"
        axes.text(0, 1.03, f"{arrow} better", transform=axes.transAxes, ha="right", fontsize=10, color=INK)
        alt = f"{title} over {len(values)} frames"
        if len(known):
            alt += f": from {known.min():.4g} to {known.max():.4g}, mean {known.mean():.4g}"
            alt += "".join(f"; {name} at frame {moments[at]}: {values[at]:.4g}" for name, at in (marked or {}).items())
        return to_svg(drawn, alt)


def _place(axes: Any, x: float) -> float:
    """Where a frame lies along the axis, 0..1."""
    low, high = axes.get_xlim()
    return float((x - low) / (high - low))


def jpeg(frame: np.ndarray, longest: int = PICTURE, quality: int = 92) -> tuple[bytes, int, int]:
    """A frame, uint8 [H, W, 3] RGB, as JPEG bytes with its width and height; shrunk to `longest` pixels a side.

    Lossless files would be eight times as large. Quality 92 without chroma subsampling keeps a blur from a block.
    """
    height, width = frame.shape[:2]
    scale = min(1.0, longest / max(height, width))
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"A frame of shape {frame.shape} could not be written as JPEG.")
    return data.tobytes(), width, height


def frame_plot(frame: np.ndarray, boxes: Mapping[str, np.ndarray], alt: str, longest: int = PICTURE) -> str:
    """A frame with the boxes of its parts drawn and named.

    Args:
        frame: uint8 [H, W, 3] RGB.
        boxes: part -> float [4], x1 y1 x2 y2 in the frame's pixels; NaN where not seen.
        alt: what it shows, for readers who do not see it.
        longest: longer side of the picture in pixels.

    Returns:
        An `<svg>` element that holds the picture. The boxes are shapes, so that they stay sharp at any size.

    """
    data, width, height = jpeg(frame, longest)
    scale = width / frame.shape[1]
    text, line = 0.065 * height, 0.011 * height  # in the picture's units: pictures are shown at one height
    drawn = []
    for part, box in boxes.items():
        if not np.isfinite(box).all():
            continue
        x1, y1, x2, y2 = (float(v) * scale for v in box)
        x1, x2 = (min(max(x, 1), width - 1) for x in (x1, x2))
        y1, y2 = (min(max(y, 1), height - 1) for y in (y1, y2))
        name, colour = part.replace("_", " "), BOXES.get(part, "#FFFFFF")
        shape = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" fill="none"'
        drawn.append(
            f'<rect {shape} stroke="#000" stroke-width="{1.9 * line:.2f}"/>'
        )  # dark rim: visible on any background
        drawn.append(f'<rect {shape} stroke="{colour}" stroke-width="{line:.2f}"/>')
        wide = 0.56 * text * len(name) + 4
        label_x = min(x1, width - wide)
        label_y = y1 - 1.25 * text if y1 > 1.25 * text else y1
        drawn.append(f'<rect x="{label_x:.1f}" y="{label_y:.1f}" width="{wide:.1f}" height="{1.25 * text:.1f}" '
                     f'fill="{colour}"/>')  # fmt: skip
        drawn.append(f'<text x="{label_x + 2:.1f}" y="{label_y + 0.95 * text:.1f}" font-family="{FONT}" '
                     f'font-size="{text:.1f}" fill="#000">{html.escape(name)}</text>')  # fmt: skip
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{base64.b64encode(data).decode()}"/>'
        + "".join(drawn)
        + "</svg>"
    )
