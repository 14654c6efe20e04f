"""The drawings of one or several results: elements for the report, files for a paper (`write_plots`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jwb_dh_v1.analysis.ranking import rank, with_curves
from jwb_dh_v1.analysis.wording import decimals, find, metrics_of, number, printable, regions_of, title
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.report.charts import Line, bars, distribution, goodness, on_radar, radar, timeline
from jwb_dh_v1.report.plots import Mark
from jwb_dh_v1.report.svg import PAGE, PAPER, Theme, settings, to_file, to_svg
from jwb_dh_v1.report.tables import check_comparable
from jwb_dh_v1.scoring.result import Result, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
