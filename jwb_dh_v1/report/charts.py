"""Drawings of scores for a page or a paper: the radar, distributions, bars of several systems, curves of one clip.

Each function makes a figure inside `rc_context(settings(theme))` of its caller, who writes it (`drawing.to_svg`,
`drawing.to_file`) there as well. Colours are Okabe and Ito's; series also differ by marker and dash.

From results they are made as elements for the report, or as files for a paper (`write_plots`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.analysis.wording import decimals, find, metrics_of, number, printable, regions_of, title
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.report.drawing import (
    DASHES,
    MARKERS,
    PAGE,
    PAPER,
    WIDTH,
    Mark,
    Theme,
    figure,
    margin,
    settings,
    span,
    to_file,
    to_svg,
)
from jwb_dh_v1.report.summary import rank, with_curves
from jwb_dh_v1.report.tables import check_comparable
from jwb_dh_v1.scoring.result import Result, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


RIGHT = 92  # pixels for the words beside a distribution
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COLUMNS = 4  # of a legend
HISTOGRAM = 20  # values from which a histogram says more than the values themselves


def on_radar(score: Score) -> bool:
    """Whether a metric is on the radar: its best value is 1 and it has no unit, so that 0 to 1 is a scale it shares.

    SSIM and CSIM may be negative; they are then drawn at the centre.
    """
    low, high = score.range
    return not score.unit and (high == 1 if score.higher_is_better else (low, high) == (0, 1))


def goodness(score: Score | None) -> float:
    """A radar value: 0 at the centre, 1, the best there is, at the rim; NaN where there is no score."""
    if score is None or score.value is None:
        return math.nan
    value = score.value if score.higher_is_better else 1 - score.value
    return min(1.0, max(0.0, value))


def radar(
    axes: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], *, title: str = "", theme: Theme = PAGE
) -> Figure:
    """Several series on axes that all run from 0 (centre) to 1 (rim), outwards being better.

    Args:
        axes: names, at least three, with their direction in words.
        series: name and one value in 0..1 per axis; where one is NaN the line has a gap.
        title: above the drawing.
        theme: colours.

    """
    width, top = WIDTH, 26 if title else 4
    legend = 20 * math.ceil(len(series) / COLUMNS)
    height = 306 + top + legend
    drawn = figure(width, height)
    side = 230
    plot: Any = drawn.add_axes(
        ((width - side) / 2 / width, (legend + 40) / height, side / width, side / height), projection="polar"
    )
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    plot.set_theta_offset(np.pi / 2)
    plot.set_theta_direction(-1)
    plot.set_ylim(0, 1)
    plot.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=9)
    plot.set_rlabel_position(np.degrees(angles[1]) / 2)
    plot.set_xticks(angles, [""] * len(axes))
    plot.grid(color=theme.faint, alpha=0.35, linewidth=0.6)
    plot.spines["polar"].set_color(theme.faint)
    plot.spines["polar"].set_alpha(0.6)
    for angle, name in zip(angles, axes, strict=True):
        across = math.sin(angle)
        side_of = "center" if abs(across) < 0.2 else "left" if across > 0 else "right"
        plot.text(angle, 1.12, name, ha=side_of, va="center", fontsize=10.5)
    for place, (name, values) in enumerate(series):
        closed = np.append(np.asarray(values, float), values[0])
        colour = theme.colour(place)
        plot.plot(np.append(angles, angles[0]), closed, linestyle=DASHES[place % len(DASHES)], color=colour,
                  marker=MARKERS[place % len(MARKERS)], markersize=5, linewidth=1.8, label=printable(name, 28) or " ",
                  clip_on=False)  # fmt: skip
    drawn.legend(loc="lower center", ncols=COLUMNS, frameon=False, fontsize=10.5, handlelength=2.6)
    if title:
        drawn.text(0.5, 1 - 14 / height, title, ha="center", va="center", fontweight="bold")
    return drawn


def distribution(
    marks: Sequence[Mark],
    *,
    higher_is_better: bool,
    label: str = "",
    limits: tuple[float | None, float | None] = (None, None),
    theme: Theme = PAGE,
    width: float = WIDTH,
) -> Figure:
    """How a metric's clips are spread: a row per mark, its points as dots or histogram over their quantiles.

    The thin line runs from the 5 % to the 95 % quantile, the thick one from 25 % to 75 %, the tick is the median.

    Args:
        marks: one per row; those without points have none, but their scores and intervals have room on the axis.
        higher_is_better: direction, written at the axis.
        label: of the axis, with its unit.
        limits: what the metric can be.
        theme: colours.
        width: in CSS pixels.

    """
    names = [printable(f"{m.label} {m.group}".strip() if m.label else m.group, 24) for m in marks]
    rows = [
        (m, name, np.sort([p for p in m.points if math.isfinite(p)]))
        for m, name in zip(marks, names, strict=True)
        if len(m.points)
    ]
    step, top, bottom = 52, 8, 40
    left, right = margin(names), RIGHT
    height = top + bottom + step * len(rows)
    drawn = figure(width, height)
    plot = drawn.add_axes((left / width, bottom / height, (width - left - right) / width, step * len(rows) / height))
    bounds = span(marks, limits)
    plot.set_xlim(*bounds)
    plot.set_ylim(len(rows), 0)
    plot.set_yticks([])
    plot.spines["left"].set_visible(False)
    plot.locator_params(axis="x", nbins=5)
    beside = plot.get_yaxis_transform()
    gap = 8 / (width - left - right)
    for y, (mark, name, values) in enumerate(rows):
        colour = theme.colour(mark.series)
        plot.text(-gap, y + 0.5, name, transform=beside, ha="right", va="center")
        plot.text(1 + gap, y + 0.5, _said(values, len(mark.points)), transform=beside, ha="left", va="center",
                  fontsize=9.5)  # fmt: skip
        if not len(values):
            continue
        _spread(plot, values, y, colour, bounds)
        q = np.quantile(values, QUANTILES)
        plot.plot(q[[0, 4]], (y + 0.8, y + 0.8), "-", color=colour, linewidth=1.2)
        plot.plot(q[[1, 3]], (y + 0.8, y + 0.8), "-", color=colour, linewidth=5, solid_capstyle="butt")
        plot.plot(q[2], y + 0.8, "|", color=theme.ink, markersize=13, markeredgewidth=2)
    _direction(plot, label, higher_is_better)
    return drawn


def _said(values: np.ndarray, n: int) -> str:
    """What stands beside a row of a distribution."""
    if not len(values):
        return f"n {n}" + (", none finite" if n else "")
    middle = float(np.median(values))
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(middle))))) if middle else 2
    text = f"median {number(middle, digits)}\nn {n}"
    return text + (f" ({n - len(values)} infinite)" if n > len(values) else "")


def _spread(plot: Any, values: np.ndarray, y: int, colour: str, bounds: tuple[float, float]) -> None:
    """Values in the upper part of a row: dots, side by side where they would cover each other; or a histogram."""
    if len(values) >= HISTOGRAM:
        counts, edges = np.histogram(values, bins=np.linspace(*bounds, 31))
        tall = 0.55 * counts / counts.max()
        plot.bar(edges[:-1], -tall, np.diff(edges), bottom=y + 0.66, align="edge", color=colour, alpha=0.55)
        return
    levels: list[float] = []  # the last value at each height
    near = (bounds[1] - bounds[0]) / 45
    heights = []
    for value in values:
        free = next((i for i, last in enumerate(levels) if value - last >= near), len(levels))
        levels[free : free + 1] = [value]
        heights.append(free)
    lift = min(0.13, 0.5 / max(1, len(levels) - 1))
    plot.plot(values, y + 0.6 - lift * np.array(heights), "o", color=colour, markersize=4.5, alpha=0.75)


def _direction(plot: Any, label: str, higher_is_better: bool) -> None:
    better = "better →" if higher_is_better else "← better"
    text = [label, better] if higher_is_better else [better, label]
    plot.set_xlabel(" · ".join(filter(None, text)), loc="right" if higher_is_better else "left")


def bars(marks: Sequence[Mark], *, label: str, higher_is_better: bool, theme: Theme = PAGE) -> Figure:
    """Systems side by side: a bar from 0 per mark, grouped by region, with its 95 % interval.

    Args:
        marks: label is the system, group the region; the series decides colour and place. A mark without finite value
            gets its text in place of a bar.
        label: of the axis, with unit.
        higher_is_better: direction, an arrow at the label.
        theme: colours.

    """
    groups = list(dict.fromkeys(m.group for m in marks))
    systems = {m.series: m.label for m in sorted(marks, key=lambda m: m.series)}
    legend = 20 * math.ceil(len(systems) / COLUMNS)
    width, height = 96 + max(330, 26 * len(systems) * len(groups)), 250 + legend
    drawn = figure(width, height)
    plot = drawn.add_axes((72 / width, (legend + 34) / height, (width - 84) / width, (height - legend - 48) / height))
    thick = 0.8 / len(systems)
    places = {number: place for place, number in enumerate(systems)}
    named = set()
    for mark in marks:
        x = groups.index(mark.group) + (places[mark.series] - (len(systems) - 1) / 2) * thick
        colour = theme.colour(mark.series)
        if mark.value is None or not math.isfinite(mark.value):
            plot.text(x, 0, mark.text, ha="center", va="bottom", color=theme.ink)
            continue
        name = printable(mark.label, 28) if mark.series not in named else None
        named.add(mark.series)
        hatch = ("", "//", "..", "xx", "\\\\", "++", "--")[mark.series % 7]
        plot.bar(x, mark.value, 0.9 * thick, color=colour, label=name, hatch=hatch, edgecolor="white", linewidth=0)
        if mark.interval is not None and all(map(math.isfinite, mark.interval)):
            plot.plot((x, x), mark.interval, "-", color=theme.ink, linewidth=1.3)
    plot.axhline(0, color=theme.faint, linewidth=0.8)
    plot.set_xticks(range(len(groups)), groups)
    plot.tick_params(axis="x", length=0)
    plot.set_xlim(-0.5, len(groups) - 0.5)
    plot.set_ylabel(f"{label} {'↑' if higher_is_better else '↓'}")
    if named:
        drawn.legend(loc="lower center", ncols=COLUMNS, frameon=False, fontsize=10.5)
    return drawn


@dataclass(frozen=True)
class Line:
    """One curve of a panel: float [n] each, time and value; its name and the number of its colour."""

    name: str
    times: Sequence[float]
    values: Sequence[float]
    series: int = 0


def timeline(
    panels: Sequence[tuple[str, bool, Sequence[Line]]], *, title: str, axis: str, theme: Theme = PAGE
) -> Figure:
    """The curves of one clip, one panel per metric over a common time.

    Args:
        panels: label with unit, whether higher is better, and the curves.
        title: which clip.
        axis: what the time is, with its unit.
        theme: colours.

    """
    lines = {line.series: line.name for _, _, found in panels for line in found if line.name}
    legend = 20 * math.ceil(len(lines) / COLUMNS)
    each, width = 110, 560
    height = 34 + each * len(panels) + 44 + legend
    drawn = figure(width, height)
    first: Any = None
    for place, (label, higher, found) in enumerate(panels):
        low = (legend + 44 + each * (len(panels) - 1 - place)) / height
        plot: Any = drawn.add_axes((64 / width, low, (width - 78) / width, (each - 34) / height), sharex=first)
        first = first or plot
        for line in found:
            plot.plot(line.times, line.values, color=theme.colour(line.series), linewidth=1.5,
                      linestyle=DASHES[line.series % len(DASHES)])  # fmt: skip
        plot.locator_params(axis="y", nbins=4)
        plot.set_title(f"{label} {'↑' if higher else '↓'}", loc="left", fontsize=10.5, pad=4)
        plot.tick_params(labelbottom=place == len(panels) - 1)
        if place == len(panels) - 1:
            plot.set_xlabel(axis)
    drawn.text(0.5, 1 - 14 / height, title, ha="center", va="center", fontweight="bold")
    if lines:
        handles = [
            first.plot([], [], color=theme.colour(n), linestyle=DASHES[n % len(DASHES)], label=printable(name, 28))[0]
            for n, name in sorted(lines.items())
        ]
        drawn.legend(handles=handles, loc="lower center", ncols=COLUMNS, frameon=False, fontsize=10.5)
    return drawn


FORMATS = ("png", "svg", "pdf")
PANELS = 4  # metrics of one timeline
AXES = 3  # fewer make no radar
Points = Mapping[tuple[str, str], Sequence[float]]


def named(score: Score) -> str:
    """A metric with its unit: `PSNR (dB)`."""
    return title(score.metric) + (f" ({score.unit})" if score.unit else "")


def radar_axes(scores: Sequence[Score]) -> tuple[list[str], list[str]]:
    """The metrics that share the radar's scale, and those that do not; speech is no part of a picture."""
    seen = [m for m in metrics_of(scores) if any(s.metric == m and s.region != "speech" for s in scores)]
    chosen = [m for m in seen if on_radar(next(s for s in scores if s.metric == m))]
    return chosen, [m for m in metrics_of(scores) if m not in chosen]


def _radar(
    scores: Sequence[Score], rows: Sequence[tuple[str, Sequence[Score | None]]], heading: str, theme: Theme
) -> Figure | None:
    """A radar of some rows of cells in the order of `radar_axes`; None where fewer than three axes hold a score."""
    chosen, _ = radar_axes(scores)
    held = [i for i in range(len(chosen)) if any(not math.isnan(goodness(cells[i])) for _, cells in rows)]
    if len(held) < AXES:
        return None
    names = []
    for i in held:
        some = next(s for s in scores if s.metric == chosen[i])
        names.append(title(chosen[i]).replace(" ", "\n", 1) + (" ↑" if some.higher_is_better else " (1 − value)"))
    series = [(name, [goodness(cells[i]) for i in held]) for name, cells in rows]
    return radar(names, [s for s in series if not np.isnan(s[1]).all()], title=heading, theme=theme)


def radars(results: Sequence[Result], theme: Theme = PAGE) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and description of: the regions of one system, or per region all systems."""
    scores = [score for result in results for score in result.scores]
    chosen, _ = radar_axes(scores)
    regions = [region for region in regions_of(scores) if region != "speech"]
    if len(results) == 1:
        plots = [("radar", "", [(r, [find(results[0], m, r) for m in chosen]) for r in regions])]
    else:
        plots = [
            (f"radar-{r}", r, [(printable(x.name, 28), [find(x, m, r) for m in chosen]) for x in results])
            for r in regions
        ]
    for name, heading, rows in plots:
        drawn = _radar(scores, rows, heading, theme)
        if drawn is not None:
            yield name, drawn, _radar_alt(rows)


def _radar_alt(rows: Sequence[tuple[str, Sequence[Score | None]]]) -> str:
    said = "; ".join(
        f"{label}: " + ", ".join(f"{title(c.metric)} {number(c.value, 3)}" for c in cells if c and c.value is not None)
        for label, cells in rows
    )
    return f"Radar from 0 at the centre to 1 at the rim, further out is better. {said}"


def radar_svgs(results: Sequence[Result]) -> list[str]:
    """The radars as `<svg>` elements."""
    import matplotlib as mpl

    with mpl.rc_context(settings()):
        return [to_svg(drawn, alt) for _, drawn, alt in radars(results)]


def radar_of(scores: Sequence[Score]) -> str:
    """The radar of one system's regions as an `<svg>` element; empty with fewer than three metrics of its scale."""
    import matplotlib as mpl

    found = {(s.metric, s.region): s for s in scores}
    chosen, _ = radar_axes(scores)
    rows = [(r, [found.get((m, r)) for m in chosen]) for r in regions_of(scores) if r != "speech"]
    with mpl.rc_context(settings()):
        drawn = _radar(scores, rows, "", PAGE)
        return to_svg(drawn, _radar_alt(rows)) if drawn is not None else ""


def distribution_svg(marks: Sequence[Mark], score: Score) -> str:
    """One metric's clips by region as an `<svg>` element; empty where no clip has a finite score of its own."""
    import matplotlib as mpl

    if not any(math.isfinite(p) for mark in marks for p in mark.points):
        return ""
    with mpl.rc_context(settings()):
        drawn = distribution(marks, higher_is_better=score.higher_is_better, label=score.unit, limits=score.range)
        said = []
        for mark in marks:
            values = [p for p in mark.points if math.isfinite(p)]
            if not values:
                continue
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            said.append(f"{printable(mark.group)} median {middle:.4g}, 5 % {low:.4g}, 95 % {high:.4g}, n {len(values)}")
        return to_svg(drawn, f"{title(score.metric)} of single clips. {'; '.join(said)}")


def points_of(result: Result) -> dict[tuple[str, str], list[float]]:
    """The clips' own values per metric and region, straight from the columns."""
    import pyarrow.compute as pc

    if result.samples is None:
        return {}
    table = result.samples.filter((pc.field("status") == "ok") & pc.field("value").is_valid())
    found: dict[tuple[str, str], list[float]] = {}
    columns = (table[name].to_pylist() for name in ("metric", "region", "value"))
    for metric, region, value in zip(*columns, strict=True):
        found.setdefault((metric, region), []).append(value)
    return found


def write_plots(
    result_or_results: Result | Sequence[Result], folder: str | Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write the drawings of a paper: white ground, colours for the colour-blind, letters as shapes, no date.

    `radar` (one system: its regions) or `radar-REGION` (several: the systems), `distribution-METRIC`,
    `bars-METRIC` (several systems), `timeline-worst` and `timeline-best`: the clips of the lowest and the highest mean
    rank (of the first system) with their curves over the whole picture, for all systems. What cannot be drawn (no
    shared scale, no clip with a score or a curve of its own) is left out. The same results give the same bytes.

    Args:
        result_or_results: one run, or several that can be compared.
        folder: made if it is not there; files of these names are replaced.
        formats: of `png` (300 dpi), `svg`, `pdf`.

    Returns:
        The files, in the order of the list above.

    Raises:
        PlanMismatch: the results cannot stand side by side.
        SetupError: no such format.

    """
    import matplotlib as mpl

    results = [result_or_results] if isinstance(result_or_results, Result) else list(result_or_results)
    if wrong := [name for name in formats if name not in FORMATS]:
        raise SetupError(f"There is no format {wrong[0]!r} for plots; there are {', '.join(FORMATS)}.")
    if len(results) != 1:
        check_comparable(results)
    place, written = Path(folder), []
    place.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(settings(PAPER)):
        for name, drawn in _all(results):
            for ending in formats:
                path = place / f"{name}.{ending}"
                to_file(drawn, path)
                written.append(path)
    return written


def _all(results: Sequence[Result]) -> Iterator[tuple[str, Figure]]:
    """Every figure with its name."""
    scores = [score for result in results for score in result.scores]
    for name, drawn, _ in radars(results, PAPER):
        yield name, drawn
    points = [points_of(result) for result in results]
    for metric in metrics_of(scores):
        marks = _marks(results, points, metric)
        some = next(s for s in scores if s.metric == metric)
        if any(map(math.isfinite, (p for mark in marks for p in mark.points))):
            yield (
                f"distribution-{metric}",
                distribution(
                    marks, higher_is_better=some.higher_is_better, label=named(some), limits=some.range, theme=PAPER
                ),
            )
    for metric in metrics_of(scores) if len(results) > 1 else ():
        marks = _marks(results, points, metric)
        some = next(s for s in scores if s.metric == metric)
        if any(mark.value is not None and math.isfinite(mark.value) for mark in marks):
            yield f"bars-{metric}", bars(marks, label=named(some), higher_is_better=some.higher_is_better, theme=PAPER)
    worst, best = rank(results[0], 1)
    for name, found in (("timeline-worst", worst), ("timeline-best", best)):
        clip = _timeline(results, found[0].sample_id) if found else None
        if clip is not None:
            yield name, clip


def _marks(results: Sequence[Result], points: Sequence[Points], metric: str) -> list[Mark]:
    """The cells of one metric, region by region, the systems side by side."""
    found = []
    for region in regions_of(score for result in results for score in result.scores):
        cells = [find(result, metric, region) for result in results]
        digits = decimals(c for c in cells if c)
        for place, (result, cell) in enumerate(zip(results, cells, strict=True)):
            if cell is not None and (cell.value is not None or cell.n):
                name = printable(result.name, 28) or " "
                label = name if len(results) > 1 else ""
                values = points[place].get((metric, region), ())
                found.append(Mark(label, region, cell.value, number(cell.value, digits), cell.ci95, values, place))
    return found


def _timeline(results: Sequence[Result], sample_id: str) -> Figure | None:
    """The whole picture's curves of one clip, a panel per metric; a curve's entries are evenly spread over the clip."""
    curves: dict[str, list[Line]] = {}
    for place, result in enumerate(results):
        name = printable(result.name, 28) if len(results) > 1 else ""
        for row in with_curves(result, {sample_id}):
            if row.region == "body":
                times = np.linspace(0, 100, len(row.curve)).tolist()
                values = [v if math.isfinite(v) else math.nan for v in row.curve]
                curves.setdefault(row.metric, []).append(Line(name, times, values, place))
    some = {s.metric: s for result in results for s in result.scores}
    panels = [(named(some[m]), some[m].higher_is_better, found) for m, found in list(curves.items())[:PANELS]]
    if not panels:
        return None
    return timeline(panels, title=printable(sample_id), axis="position in the clip (%)", theme=PAPER)
