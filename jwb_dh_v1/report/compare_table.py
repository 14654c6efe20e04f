"""Comparisons and ablations for terminals of 100 columns: tables, then what to mind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jwb_dh_v1.analysis.ablate import Ablation, Order
from jwb_dh_v1.analysis.cells import NOUN, MetricComparison, Unit
from jwb_dh_v1.analysis.compare import Comparison
from jwb_dh_v1.analysis.wording import number, printable, title
from jwb_dh_v1.report.tables import _console, _print, _signs, _table

if TYPE_CHECKING:
    from rich.console import Console

LONG = 2000  # characters of a sentence with names in it
STYLES = {"better": "green", "worse": "red"}
LEGEND = (
    "difference: run minus baseline over the clips that both have, with its 95 % interval; dz: mean over standard "
    "deviation of the clips' differences, + is better; won: share of clips on which the run is better (ties half); "
    "p: sign flips of {units}, then corrected (Holm). better, worse: corrected p <= 0.05; open: not told from "
    "chance; equal: no clip differs. clips: with which a single test at p 0.05 finds {asked} with 80 % power{people}."
)


def print_compared(comparison: Comparison, console: Console | None = None) -> None:
    """Print a comparison: difference, interval, effect, p and clips needed by metric and region; then the regions."""
    from rich.text import Text

    console = _console(console)
    base = printable(comparison.baseline, 30)
    runs = list(dict.fromkeys(cell.run for cell in comparison.cells))
    asked = False
    for run in runs:
        cells = [cell for cell in comparison.cells if cell.run == run]
        columns = ["", "n", "baseline", "run", "difference", "dz", "won", "p", "", "clips"]
        table = _table(_signs(console, f"{printable(run, 30)} against {base}"), columns, lines=False, padding=0)
        for place in (4, 8):
            table.columns[place].no_wrap = True
        for metric in dict.fromkeys(cell.metric for cell in cells):
            of = [cell for cell in cells if cell.metric == metric]
            arrow = "↑" if of[0].higher_is_better else "↓"
            unit = f" ({of[0].unit})" if of[0].unit else ""
            table.add_row(Text(_signs(console, f"{title(metric)}{unit} {arrow}"), style="bold"))
            digits = _digits(of)
            for cell in of:
                row = [_signs(console, text) for text in _row(cell, digits, comparison.unit)]
                styles = ["", "", "", "", "", "", "", "", STYLES.get(cell.verdict, "dim"), "dim"]
                table.add_row(*(Text(text, style=style) for text, style in zip(row, styles, strict=True)))
                observed = cell.difference is None or cell.asked == abs(cell.difference.value)
                asked = asked or (cell.asked is not None and not observed)
            table.add_section()
        _print(console, table, [])
    console.print()
    width = min(100, console.width)
    for change in comparison.changes:
        heading, *lines = change.text
        console.print(Text(_signs(console, printable(heading, LONG)), style="bold"), width=width)
        for line in lines:
            kind, _, rest = line.partition(": ")
            console.print(Text.assemble("  ", (kind, _style(kind)), ": ", _signs(console, rest)), width=width)
        console.print()
    for gain in comparison.gains:
        console.print(Text(_signs(console, printable(gain.text, LONG))), width=width)
    legend = LEGEND.format(
        asked="the given difference" if asked else "the difference seen",
        units=NOUN[comparison.unit],
        people=" (identities)" if comparison.unit == "identity" else "",
    )
    _print(console, "", [printable(note, LONG) for note in (legend, *comparison.notes)])


def _digits(cells: list[MetricComparison]) -> int:
    """Two of the intervals' usual half width; where there is none, four digits of the largest score."""
    found = [c.difference for c in cells if c.difference]
    halves = sorted((d.high - d.low) / 2 for d in found if d.low is not None and d.high is not None)
    halves = [half for half in halves if half > 1e-9]
    if halves:
        return min(6, max(0, 1 - math.floor(math.log10(halves[len(halves) // 2]))))
    scores = [abs(v) for c in cells for v in (c.ours, c.theirs) if v is not None and math.isfinite(v)]
    largest = max(scores, default=0.0)
    return 3 - (math.floor(math.log10(largest)) if 1 <= largest < 1000 else 0)


def _signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return text if text.startswith("−") or not text.strip("0.") else f"+{text}"


def _style(kind: str) -> str:
    return next((style for word, style in STYLES.items() if kind.startswith(word)), "dim")


def _row(cell: MetricComparison, digits: int, unit: Unit) -> list[str]:
    d = cell.difference
    lost = "".join(f"\n{sign} {n}" for sign, n in (("s", cell.skipped), ("f", cell.failed), ("–", cell.absent)) if n)
    begin = [f"  {cell.region}", f"{d.n if d else 0}{lost}", number(cell.theirs, digits), number(cell.ours, digits)]
    if d is None:
        return [*begin, "", "", "", "", "no test", ""]
    between = "" if d.low is None or d.high is None else f"\n[{_signed(d.low, digits)}, {_signed(d.high, digits)}]"
    effect = "–" if cell.effect is None else "∞" if math.isinf(cell.effect) else _signed(cell.effect, 2)
    won = "–" if cell.superiority is None else f"{100 * cell.superiority:.0f} %"
    p = _p(d.p) + (f"\n{_p(cell.holm)}" if cell.holm is not None else "")
    clips = "–" if cell.clips_needed is None else str(cell.clips_needed)
    if cell.identities_needed is not None and unit == "identity":
        clips += f"\n({cell.identities_needed})"
    return [*begin, _signed(d.value, digits) + between, effect, won, p, cell.verdict, clips]


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


ABLATION = (
    "Each metric's region against the same metric on the body. tau-b: Kendall's rank correlation of the systems' "
    "scores (1: same order). turned: pairs of systems in opposite order. lost: significant differences between two "
    "systems that the body misses + reverses, of all that are significant in the region. unexplained: share of the "
    "variance between systems on a clip that the body's scores do not explain, with its 95 % interval."
)
MOVES = 3  # systems named per metric, those that move farthest


def print_ablation(ablation: Ablation, console: Console | None = None) -> None:
    """Print what regions add: order of systems, differences lost, variance not explained; then the sentences."""
    from rich.text import Text

    console = _console(console)
    scored = bool(ablation.tests)
    columns = ["", "tau-b", "turned", *(["lost", "unexplained"] if scored else []), "rank: body -> region"]
    heading = f"{len(ablation.systems)} systems: regions against the whole body"
    table = _table(heading, columns, lines=False)
    table.columns[-1].justify = "left"
    lost = {(one.metric, one.region): one for one in ablation.lost}
    rest = {(one.metric, one.region): one for one in ablation.unexplained}
    for metric in dict.fromkeys(order.metric for order in ablation.orders):
        table.add_row(Text(title(metric), style="bold"))
        for order in (one for one in ablation.orders if one.metric == metric):
            row = [f"  {order.region}", "–" if order.tau is None else number(order.tau, 2), str(order.turned)]
            if scored:
                found, left = lost[metric, order.region], rest.get((metric, order.region))
                row.append(f"{found.missed} + {found.reversed} of {found.significant}" if found.tested else "–")
                between = "" if left is None or left.low is None else f" [{_percent(left.low)}, {_percent(left.high)}]"
                row.append("–" if left is None else f"{_percent(left.value)} %{between}")
            table.add_row(*(Text(_signs(console, text)) for text in [*row, _moves(order)]))
        table.add_section()
    _print(console, table, [])
    console.print()
    for line in ablation.text:
        console.print(Text(_signs(console, line)), width=min(100, console.width))
    for flip in ablation.flips:
        line = f"{title(flip.metric)}: {printable(flip.better_on_body)} is better on the body, "
        console.print(
            Text(line + f"{printable(flip.better_in_region)} in {flip.region}."), width=min(100, console.width)
        )
    _print(console, "", [printable(note, LONG) for note in (ABLATION, *ablation.notes)])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"


def _moves(order: Order) -> str:
    """The systems that move farthest, `Wan 2->5`."""
    moved = sorted(order.moved.items(), key=lambda item: -abs(item[1][0] - item[1][1]))
    said = ", ".join(f"{printable(system, 16)} {a:g}->{b:g}" for system, (a, b) in moved[:MOVES])
    return said + (f", {len(moved) - MOVES} more" if len(moved) > MOVES else "")
