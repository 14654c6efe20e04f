"""Scores as text: how a number is written everywhere, and tables for terminals of 100 columns, coloured or not."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
from jwb_dh_v1.scoring.result import Result, Score

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDTH = 100
SYSTEMS = 6  # per table; more go into further tables

POLICY_NOTES = {
    "zero": "Samples without a score (s, f) count as 0 where higher is better.",
    "worst": "Samples without a score (s, f) count as 0 where higher is better, as the worst one where lower is.",
}


def counts(score: Score) -> str:
    """How many samples the score is of, and how many it is not: `n 5 s 1 f 2`."""
    skipped = f" s {score.skipped}" if score.skipped else ""
    return f"n {score.n}{skipped}" + (f" f {score.failed}" if score.failed else "")


def check_comparable(results: Sequence[Result]) -> list[str]:
    """What differs between the plans of some results without moving a number, one sentence each.

    Raises:
        PlanMismatch: they cannot stand side by side (protocol, data, boxes, weights ...), or there are none.

    """
    from jwb_dh_v1.analysis.comparable import require_comparable

    return require_comparable(results)


def _signs(console: Console, text: str) -> str:
    """Text that the terminal can write."""
    if console.encoding.lower().startswith("utf"):
        return text
    for sign, plain in (("↑", "(higher)"), ("↓", "(lower)"), ("±", "+-"), ("–", "-"), ("−", "-"), ("∞", "inf")):
        text = text.replace(sign, plain)
    return text


def _console(console: Console | None) -> Console:
    from rich.console import Console

    found = console or Console()
    # Without a terminal rich takes 80 columns, in which names of metrics break.
    return found if console or found.is_terminal or "COLUMNS" in os.environ else Console(width=WIDTH)


def _table(heading: str, columns: Sequence[str], lines: bool, padding: int = 1) -> Any:
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(heading, style="bold"), title_justify="left", box=HORIZONTALS, show_lines=lines, padding=(0, padding)
    )
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if place else "left", overflow="fold")
    return table


def _heading(result: Result, what: str) -> str:
    return f"{what} · {result.protocol}" + ("" if result.complete else " · INCOMPLETE")


def _print(console: Console, table: Any, notes: Sequence[str]) -> None:
    from rich.text import Text

    width = min(WIDTH, console.width)
    console.print(table, width=width)
    for note in notes:
        console.print(Text(_signs(console, note), style="dim"), width=width)


def print_table(result: Result, console: Console | None = None) -> None:
    """Print one system's scores: metrics by regions; each with its 95 % interval and numbers of samples."""
    from rich.text import Text

    console = _console(console)
    regions = regions_of(result.scores)
    heading = _signs(console, _heading(result, printable(result.name)).replace(" · ", " - "))
    table = _table(heading, ["metric", *regions], lines=True)
    for metric in metrics_of(result.scores):
        scores = [find(result, metric, region) for region in regions]
        digits = decimals(s for s in scores if s)
        some = next(s for s in scores if s)
        arrow = "↑" if some.higher_is_better else "↓"
        unit = f" ({some.unit})" if some.unit else ""
        cells = []
        for score in scores:
            cell = Text()
            if score is not None:
                cell.append(_signs(console, number(score.value, digits)), style="bold")
                for line in filter(None, (interval(score, digits), counts(score))):
                    cell.append("\n" + _signs(console, line), style="red" if score.failed else "dim")
            cells.append(cell)
        table.add_row(Text(_signs(console, f"{title(metric)}{unit} {arrow}")), *cells)
    _print(console, table, _notes([result]))


def _notes(results: Sequence[Result]) -> list[str]:
    notes = [
        "[low, high] and ± (half of it): 95 % interval. n samples scored, s skipped, f failed. ↑ up, ↓ down is better."
    ]
    if results[0].protocol.startswith("lite/"):
        notes.append(STAND_INS)
    notes += remarks(results)
    for result in results:
        if not result.complete:
            notes.append(f"{printable(result.name)} is incomplete: more samples failed than were allowed.")
    return notes


def remarks(results: Sequence[Result]) -> list[str]:
    """What to mind about some results of one protocol: failures that count, small sets, metrics that are not there."""
    from jwb_dh_v1.metrics.protocols import known

    table = known(results[0].protocol)  # None: a result of another version, or of a package that is not here
    absent = table.absent if table is not None else {}
    scores = [score for result in results for score in result.scores]
    filled = dict.fromkeys(s.failures for s in scores if s.failures != "strict" and s.skipped + s.failed)
    found = [POLICY_NOTES[policy] for policy in filled]
    few = dict.fromkeys(title(s.metric) for s in scores if s.note.startswith("biased"))
    if few:
        found.append(
            f"{', '.join(few)}: fewer features than dimensions (numbers in results.json), therefore biased upwards; "
            "compare only sets of the same size."
        )
    for result in results:
        of = f" of {printable(result.name)}" if len(results) > 1 else ""
        notes = [score for score in result.scores if score.note and not score.note.startswith("biased")]
        found += [f"{title(score.metric)}{of}: {score.note}." for score in notes]
    found += [f"{title(name)} is not in {results[0].protocol}: {why}." for name, why in absent.items()]
    return found


def print_comparison(results: Sequence[Result], console: Console | None = None) -> None:
    """Print several systems side by side; the best of each row is bold and has a star.

    Raises:
        SetupError: the results are of several protocols.

    """
    notes = check_comparable(results)
    console = _console(console)
    scores = [score for result in results for score in result.scores]
    tables = math.ceil(len(results) / SYSTEMS)
    for part in range(tables):
        shown = range(part * len(results) // tables, (part + 1) * len(results) // tables)
        heading = f"{len(results)} systems - {results[0].protocol}"
        if tables > 1:
            heading += f" - {shown.start + 1} to {shown.stop}"
        names = [printable(results[i].name, 24) for i in shown]
        table = _table(heading, ["", *names], lines=False, padding=0)
        for metric in metrics_of(scores):
            _add_metric(table, console, metric, regions_of(scores), results, shown)
        last = shown.stop == len(results)
        _print(console, table, [*_notes(results), "* best of all systems.", *notes] if last else [])


def _add_metric(
    table: Any, console: Console, metric: str, regions: Sequence[str], results: Sequence[Result], shown: range
) -> None:
    """A heading row with the metric and one row per region; counts that all systems share stand beside the region."""
    from rich.text import Text

    rows = [(region, [find(result, metric, region) for result in results]) for region in regions]
    known = [score for _, row in rows for score in row if score]
    unit = f" ({known[0].unit})" if known[0].unit else ""
    arrow = "↑" if known[0].higher_is_better else "↓"
    table.add_row(Text(_signs(console, f"{title(metric)}{unit} {arrow}"), style="bold"))
    for region, row in rows:
        found = [score for score in row if score]
        if not found:
            continue
        digits, winners = decimals(found), best(row)
        shared = len({counts(score) for score in found}) == 1
        label = f"  {region}" + (f"\n    {counts(found[0])}" if shared else "")
        cells = [_cell(console, row[i], digits, i in winners, not shared) for i in shown]
        table.add_row(Text(label), *cells)
    table.add_section()


def _cell(console: Console, score: Score | None, digits: int, wins: bool, counted: bool) -> Text:
    from rich.text import Text

    cell = Text()
    if score is None:
        return cell
    cell.append(_signs(console, ("*" if wins else "") + number(score.value, digits)), style="bold" if wins else "")
    if score.ci95:
        half = (score.ci95[1] - score.ci95[0]) / 2
        cell.append("\n" + _signs(console, f"±{number(half, digits)}"), style="dim")
    if counted:
        cell.append(f"\n{counts(score)}", style="red" if score.failed else "dim")
    return cell
