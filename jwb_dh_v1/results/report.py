"""The report: one HTML file with everything in it, for a browser, a printer or a screen reader.

It loads nothing from anywhere and holds no date, so that the same result gives the same bytes. Names and messages come
from files that may be hostile: the template escapes everything, and only the drawings of `plots.py` (which escape their
own text) pass as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jwb_dh_v1.results import Result, Row, Score, write_atomically
from jwb_dh_v1.results.plots import Mark, interval_plot, printable
from jwb_dh_v1.results.tables import (
    STAND_INS,
    best,
    check_comparable,
    decimals,
    find,
    interval,
    metrics_of,
    number,
    regions_of,
    remarks,
    title,
)
from jwb_dh_v1.results.worst import draw, worst_cells
from jwb_dh_v1.sample import Sample

LISTED = 200  # messages of one type, and transcripts; the rest is in samples.parquet
NAMED = 20  # samples beside one message


@dataclass
class _Troubles:
    """Skips or failures of one type: (sample, message) -> the cells (metric, region) they struck."""

    status: str
    error: str
    found: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(map(len, self.found.values()))

    @property
    def samples(self) -> int:
        return len({sample for sample, _ in self.found})

    def listed(self, scores: Sequence[Score]) -> list[tuple[str, list[str], str]]:
        """Message, samples, and what they lack of all scores; what is the same is said once."""
        alike: dict[tuple[str, str], list[str]] = {}
        for (sample, message), struck in self.found.items():
            alike.setdefault((message, _lacks(struck, scores)), []).append(sample)
        return [(message, names, lacks) for (message, lacks), names in alike.items()]


def _lacks(struck: Sequence[tuple[str, str]], scores: Sequence[Score]) -> str:
    """Cells in words: `every score`, `all of hands`, or `body: SSIM, PSNR`."""
    if len(struck) == len(scores):
        return "every score"
    said = []
    for region in dict.fromkeys(region for _, region in struck):
        metrics = [title(m) for m, r in struck if r == region]
        whole = len(metrics) == sum(score.region == region for score in scores)
        said.append(f"all of {region}" if whole else f"{region}: {', '.join(metrics)}")
    return "; ".join(said)


@dataclass
class _Summary:
    """What one pass over the rows collects."""

    samples: set[str] = field(default_factory=set)
    points: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    troubles: dict[tuple[str, str], _Troubles] = field(default_factory=dict)
    heard: list[tuple[Row, dict[str, Any]]] = field(default_factory=list)

    @classmethod
    def of(cls, result: Result) -> _Summary:
        summary = cls()
        for row in result.rows() if result.samples is not None else ():
            summary.samples.add(row.sample_id)
            if row.status == "ok":
                if row.value is not None:
                    summary.points.setdefault((row.metric, row.region), []).append(row.value)
                facts = json.loads(row.facts) if row.facts else {}
                if "hypothesis" in facts:
                    summary.heard.append((row, facts))
                continue
            group = summary.troubles.setdefault((row.status, row.error), _Troubles(row.status, row.error))
            group.found.setdefault((row.sample_id, row.message), []).append((row.metric, row.region))
        return summary

    def of_status(self, status: str) -> list[_Troubles]:
        return sorted((t for t in self.troubles.values() if t.status == status), key=lambda t: (-t.rows, t.error))


@dataclass(frozen=True)
class _Line:
    """One metric of the table: its cells in the order of the columns, None where it does not apply."""

    name: str
    score: Score
    cells: tuple[Score | None, ...]
    digits: int
    region: str = ""
    best: frozenset[int] = frozenset()


def write_report(result: Result, samples: Iterable[Sample] | None, path: Path) -> None:
    """Write one system's report.

    Args:
        result: with its rows.
        samples: the samples that were scored, for frames of the worst ones (a few are decoded again). Without them,
            or where their clips have no models to find boxes with, the pictures or boxes are left out and the report
            says so.
        path: of the HTML file; written whole or not at all.

    """
    summary = _Summary.of(result)
    regions = regions_of(result.scores)
    lines = []
    for metric in metrics_of(result.scores):
        cells = tuple(find(result, metric, region) for region in regions)
        some = [score for score in cells if score]
        lines.append(_Line(title(metric), some[0], cells, decimals(some)))
    worst = worst_cells(result)
    draw(worst, samples, result)
    heard = sorted(summary.heard, key=lambda pair: (-(pair[0].value or 0.0), pair[0].sample_id))
    _write(
        path,
        single=True,
        results=[result],
        heading=printable(result.name, 120),
        columns=regions,
        lines=lines,
        plots=[_drawn(line.name, line.score, _marks(line, summary)) for line in lines],
        worst=worst,
        heard=[(row, facts, *_aligned(facts["reference"], facts["hypothesis"])) for row, facts in heard[:LISTED]],
        heard_more=max(0, len(heard) - LISTED),
        summaries=[summary],
        reports=[None],
        differences=[],
    )


def write_comparison(results: Sequence[Result], path: Path) -> None:
    """Write several systems' scores side by side; each system's own report is linked where it lies beside its results.

    Raises:
        SetupError: the results are of several protocols.

    """
    differences = check_comparable(results)
    scores = [score for result in results for score in result.scores]
    summaries = [_Summary.of(result) for result in results]
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
        plots.append(_drawn(title(metric), next(s for s in scores if s.metric == metric), marks))
    _write(
        path,
        single=False,
        results=results,
        heading=f"{len(results)} systems compared",
        columns=[printable(result.name) for result in results],
        lines=lines,
        plots=plots,
        worst=[],
        heard=[],
        heard_more=0,
        summaries=summaries,
        reports=[_own_report(result, path) for result in results],
        differences=differences,
    )


def _own_report(result: Result, path: Path) -> str | None:
    """Where a system's own report lies, seen from this one."""
    if result.folder is None or not (result.folder / "report.html").is_file():
        return None
    relative = os.path.relpath((result.folder / "report.html").resolve(), path.parent.resolve())
    return quote(Path(relative).as_posix())


def _marks(line: _Line, summary: _Summary) -> list[Mark]:
    return [
        Mark("", s.region, s.value, number(s.value, line.digits), s.ci95, summary.points.get((s.metric, s.region), ()))
        for s in line.cells
        if s is not None
    ]


def _drawn(name: str, score: Score, marks: Sequence[Mark]) -> tuple[str, Score, str]:
    """A panel; without any finite value an empty one would mislead, so there is none."""
    svg = ""
    if any(mark.value is not None for mark in marks):
        better = score.higher_is_better
        svg = interval_plot(marks, title=name, higher_is_better=better, limits=score.range, unit=score.unit)
    return name, score, svg


Segments = list[tuple[str, str]]


def _aligned(reference: str, hypothesis: str) -> tuple[Segments, Segments]:
    """Both texts in pieces with what happened to each: equal, substitute, delete (reference), insert (hypothesis)."""
    if not reference.split() or not hypothesis.split():
        return [("delete", reference)], [("insert", hypothesis)]
    import jiwer

    out = jiwer.process_words(reference, hypothesis)
    said, heard = out.references[0], out.hypotheses[0]
    ours: Segments = []
    theirs: Segments = []
    for chunk in out.alignments[0]:
        for pieces, words in (
            (ours, said[chunk.ref_start_idx : chunk.ref_end_idx]),
            (theirs, heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        ):
            if words:
                pieces.append((chunk.type, " ".join(words)))
    return ours, theirs


def _seen(score: Score) -> str:
    """Share of frames in which the part was seen, where it is not all of them."""
    return (
        f"seen in {100 * score.coverage:.0f} % of frames" if score.coverage is not None and score.coverage < 1 else ""
    )


def _write(path: Path, **content: Any) -> None:
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    results: Sequence[Result] = content["results"]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(number=number, interval=interval, seen=_seen, title=title)
    template = environment.from_string(
        files("jwb_dh_v1.results").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    methods = dict.fromkeys(score.ci_method for result in results for score in result.scores)
    page = template.render(
        **content,
        protocol=results[0].protocol,
        stand_ins=STAND_INS if results[0].protocol.startswith("lite/") else "",
        remarks=remarks(results),
        methods=[method for method in methods if method],
        listed=LISTED,
        named=NAMED,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode("utf-8", "replace"))  # a file's name may hold bytes that are no UTF-8
