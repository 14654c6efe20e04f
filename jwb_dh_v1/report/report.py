"""The report: one HTML file with everything in it, for a browser, a printer or a screen reader.

It loads nothing from anywhere (a policy in the page forbids it) and holds no date, so that the same result gives the
same bytes. Names and messages come from files that may be hostile: the template escapes everything, and only our own
drawings (which escape their own text) pass as they are. The one script is ours and is named by its hash in the policy;
without it the page can be read and its clips play.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jwb_dh_v1.analysis.diagnosis.diagnose import diagnose
from jwb_dh_v1.analysis.wording import (
    STAND_INS,
    best,
    decimals,
    find,
    interval,
    metrics_of,
    number,
    printable,
    regions_of,
    title,
)
from jwb_dh_v1.files import write_atomically
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report import timeline
from jwb_dh_v1.report.charts import RIGHT, distribution_svg, radar_axes, radar_svgs
from jwb_dh_v1.report.drawing import Mark, interval_plot
from jwb_dh_v1.report.illustrate import Cell, Strip, draw_curves, illustrate, sheet_tasks, worst_cells, worst_tasks
from jwb_dh_v1.report.summary import RunSummary, aligned, rank
from jwb_dh_v1.report.tables import check_comparable, remarks
from jwb_dh_v1.report.timeline import Player, Word
from jwb_dh_v1.scoring.result import Result, Score

_Cut = tuple[str, Callable[[], None]]
LIMIT = 20_000_000  # bytes of a report
LISTED = 200  # messages of one type, and transcripts; the rest is in samples.parquet
NAMED = 20  # samples beside one message
PLAYED, SHOWN = 2, 6  # worst clips, and as many best ones: with a video, on the contact sheets


@dataclass(frozen=True)
class _Line:
    """One metric of the table: its cells in the order of the columns, None where it does not apply."""

    name: str
    score: Score
    cells: tuple[Score | None, ...]
    digits: int
    region: str = ""
    best: frozenset[int] = frozenset()


def write_report(
    result: Result,
    samples: Iterable[Sample] | None,
    path: Path,
    words: Mapping[str, Sequence[Word]] | None = None,
) -> None:
    """Write one system's report.

    Args:
        result: with its rows.
        samples: the samples that were scored, for videos and frames of the worst and best ones (a few are decoded
            again). Without them, or where their clips have no models to find boxes with, the pictures or boxes are
            left out and the report says so.
        path: of the HTML file; written whole or not at all. It stays below 20 MB: what would be too much is made
            smaller or left out, and the report says so.
        words: by sample, the words of the real clip with their times (`timeline.words_of`).

    """
    summary = RunSummary.of(result)
    regions = regions_of(result.scores)
    lines = []
    for metric in metrics_of(result.scores):
        cells = tuple(find(result, metric, region) for region in regions)
        some = [score for score in cells if score]
        lines.append(_Line(title(metric), some[0], cells, decimals(some)))
    low, high = rank(result, SHOWN)
    ends = (("worst", low), ("best", high))
    players = [Player(place, kind) for kind, places in ends for place in places[:PLAYED]]
    strips = [Strip(place, kind) for kind, places in ends for place in places]
    worst = worst_cells(result)
    tasks = timeline.tasks(players, result, words) + sheet_tasks(strips, result) + worst_tasks(worst, result)
    illustrate(tasks, samples)
    draw_curves(worst)
    heard = sorted(summary.heard, key=lambda pair: (-(pair[0].value or 0.0), pair[0].sample_id))
    _write(
        path,
        _cuts(players, strips, worst),
        single=True,
        results=[result],
        heading=printable(result.name, 120),
        columns=regions,
        lines=lines,
        plots=[_drawn(line, summary) for line in lines],
        players=players,
        strips=strips,
        worst=worst,
        heard=[(row, facts, *aligned(facts["reference"], facts["hypothesis"])) for row, facts in heard],
        summaries=[summary],
        reports=[None],
        differences=[],
        diagnosis=diagnose(result) if result.samples is not None else None,
    )


def write_comparison(results: Sequence[Result], path: Path) -> None:
    """Write several systems' scores side by side; each system's own report is linked where it lies beside its results.

    Raises:
        SetupError: the results are of several protocols.

    """
    differences = check_comparable(results)
    scores = [score for result in results for score in result.scores]
    summaries = [RunSummary.of(result) for result in results]
    lines, plots = [], []
    for metric in metrics_of(scores):
        marks: list[Mark] = []
        for region in regions_of(scores):
            cells = tuple(find(result, metric, region) for result in results)
            some = [score for score in cells if score]
            if not some:
                continue
            line = _Line(title(metric), some[0], cells, decimals(some), region, frozenset(best(cells)))
            lines.append(line)
            for place, (result, score) in enumerate(zip(results, cells, strict=True)):
                if score is not None:
                    text = number(score.value, line.digits)
                    marks.append(Mark(printable(result.name) or " ", region, score.value, text, score.ci95, (), place))
        plots.append(_panel(title(metric), next(s for s in scores if s.metric == metric), marks))
    _write(
        path,
        [],
        single=False,
        results=results,
        heading=f"{len(results)} systems compared",
        columns=[printable(result.name) for result in results],
        lines=lines,
        plots=plots,
        players=[],
        strips=[],
        worst=[],
        heard=[],
        summaries=summaries,
        reports=[_own_report(result, path) for result in results],
        differences=differences,
        diagnosis=None,
    )


def _own_report(result: Result, path: Path) -> str | None:
    """Where a system's own report lies, seen from this one."""
    if result.folder is None or not (result.folder / "report.html").is_file():
        return None
    relative = os.path.relpath((result.folder / "report.html").resolve(), path.parent.resolve())
    return quote(Path(relative).as_posix())


def _drawn(line: _Line, summary: RunSummary) -> tuple[str, Score, str]:
    """The panels of one metric: its scores, and below how its clips are spread."""
    marks = [
        Mark("", s.region, s.value, number(s.value, line.digits), s.ci95, summary.points.get((s.metric, s.region), ()))
        for s in line.cells
        if s is not None
    ]
    single = distribution_svg(marks, line.score)
    name, score, svg = _panel(line.name, line.score, marks, RIGHT if single else 0)
    return name, score, svg + single


def _panel(name: str, score: Score, marks: Sequence[Mark], right: float = 0) -> tuple[str, Score, str]:
    """A panel; without any finite value an empty one would mislead, so there is none."""
    svg = ""
    if any(mark.value is not None for mark in marks):
        better = score.higher_is_better
        svg = interval_plot(
            marks,
            title=name,
            higher_is_better=better,
            limits=score.range,
            unit=score.unit,
            right=right,
            singles=not right,
        )
    return name, score, svg


def _seen(score: Score) -> str:
    """Share of frames in which the part was seen, where it is not all of them."""
    return (
        f"seen in {100 * score.coverage:.0f} % of frames" if score.coverage is not None and score.coverage < 1 else ""
    )


def _cuts(players: Sequence[Player], strips: Sequence[Strip], worst: Sequence[Cell]) -> list[_Cut]:
    """What is left out of a report that is too large, one after the other."""

    def videos() -> None:
        for player in players:
            player.video = ""

    def pictures() -> None:
        for strip in strips:
            strip.image = ""
        for cell in worst:
            for look in cell.looks:
                look.pictures = []

    return [("the videos", videos), ("all pictures", pictures)]


def _write(path: Path, cuts: Sequence[_Cut], **content: Any) -> None:
    """Render and write; a page beyond the limit is rendered again without what weighs most, and says so."""
    page, left_out = _page(content, [], LISTED), []
    for what, cut in cuts:
        if len(page) > LIMIT:
            cut()
            left_out.append(what)
            page = _page(content, left_out, LISTED)
    if len(page) > LIMIT:
        page = _page(content, [*left_out, "most messages and transcripts"], 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)


def _page(content: Mapping[str, Any], left_out: Sequence[str], listed: int) -> bytes:
    from importlib.resources import files

    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def source(name: str) -> str:
        return files("jwb_dh_v1.report").joinpath(name).read_text(encoding="utf-8")

    results: Sequence[Result] = content["results"]
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(source),
    )
    environment.globals.update(number=number, interval=interval, seen=_seen, title=title)
    script = source("player.js.j2") if any(player.video for player in content["players"]) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    methods = dict.fromkeys(score.ci_method for result in results for score in result.scores)
    scores = [score for result in results for score in result.scores]
    page = environment.get_template("report.html.j2").render(
        **content,
        protocol=results[0].protocol,
        stand_ins=STAND_INS if results[0].protocol.startswith("lite/") else "",
        remarks=remarks(results),
        methods=[method for method in methods if method],
        listed=listed,
        named=NAMED,
        left_out=left_out,
        radars=radar_svgs(results),
        off_radar=[title(metric) for metric in radar_axes(scores)[1]],
        script=script,
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; script-src "
        + (f"'sha256-{digest}'" if script else "'none'")
        + "; base-uri 'none'; form-action 'none'",
    )
    return page.encode("utf-8", "replace")  # a file's name may hold bytes that are no UTF-8
