"""Scores as text: how a number is written everywhere, and tables for terminals of 100 columns, coloured or not.

Tables come first, then what to mind; of a diagnosis the findings with their evidence, then what could not be judged.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.analysis.ablate import Ablation, Order
from jwb_dh_v1.analysis.compare import Comparison
from jwb_dh_v1.analysis.diagnosis.diagnose import ClipFinding, Diagnosis, Finding
from jwb_dh_v1.analysis.metric_comparison import NOUN, MetricComparison, Unit
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
        found += _without_interval(result, of)
    found += [f"{title(name)} is not in {results[0].protocol}: {why}." for name, why in absent.items()]
    return found


def _without_interval(result: Result, of: str) -> list[str]:
    """Which scores have no interval, by the reason."""
    reasons: dict[str, list[str]] = {}
    for score in result.scores:
        if score.value is not None and score.ci95 is None and score.ci_method.startswith("none: "):
            where = title(score.metric) + ("" if score.region == "speech" else f" ({score.region})")
            reasons.setdefault(score.ci_method.removeprefix("none: "), []).append(where)
    return [f"No interval{of} for {', '.join(names)}: {reason}." for reason, names in reasons.items()]


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


SHOWN = 3  # clips of a finding
FINDING_STYLES = {"failure": "bold red", "note": "bold"}
FINDING_LEGEND = (
    "[low, high]: 95 % interval over identities. Strength: distance of the mean from its bound in halves of that "
    "interval, the smallest of all conditions; clear above 1, else possible. The bounds and where they come from are "
    "in the JSON file."
)


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print the findings, worst clips with their moments, the rules not judged, and what to mind."""
    from rich.padding import Padding
    from rich.text import Text

    console = _console(console)
    width = min(WIDTH, console.width)

    def line(text: str, style: str = "", indent: int = 0) -> None:
        console.print(Padding(Text(_signs(console, text), style=style), (0, 0, 0, indent)), width=width)

    line(f"{printable(diagnosis.name, 60)} - {diagnosis.protocol}", "bold")
    line(f"Usual is what is usual for {printable(diagnosis.relative_to, 200)}.", "dim")
    if not diagnosis.failures:
        line("No failure found." if diagnosis.clips else "No failure found by rank.")
    for finding in diagnosis.findings:
        console.print()
        line(_finding_heading(finding), FINDING_STYLES[finding.kind] if not finding.explained_by else "dim")
        line(finding.sentence, indent=2)
        for evidence in finding.evidence:
            line("- " + evidence.text, indent=2)
        for clip in finding.clips[:SHOWN] if finding.kind == "failure" else ():
            line(_clip(clip), "dim", 4)
        if finding.kind == "failure" and len(finding.clips) > SHOWN:
            line(f"and {len(finding.clips) - SHOWN} more clips", "dim", 4)
        if finding.missing:
            line("not looked at: " + "; ".join(finding.missing), "dim", 2)
        line("Next: " + finding.look, indent=2)
    console.print()
    for rule, needs in diagnosis.not_judged.items():
        line(f"not judged: {rule} - {printable(needs, 300)}", "dim")
    for note in (FINDING_LEGEND, *diagnosis.notes):
        line(printable(note, 2000), "dim")


def _finding_heading(finding: Finding) -> str:
    strength = finding.strength
    grade: str = finding.grade
    if strength is not None and math.isfinite(strength):
        grade = f"{finding.grade}, strength {number(strength, 1)}"
    where = f"{len(finding.clips)} of {finding.of} clips" if finding.of else ""
    told = ", ".join(filter(None, ("whole run" if finding.scope == "run" else "clips only", where, grade)))
    because = f"; follows from: {finding.explained_by}" if finding.explained_by else ""
    kind = "" if finding.kind == "failure" else " (note)"
    return f"{finding.rule}{kind}: {told}{because}"


def _clip(clip: ClipFinding) -> str:
    first = next(iter(clip.values.values()), None)
    when = f", {clip.moment.text}" if clip.moment else ""
    return f"{printable(clip.sample_id, 40)} {number(first, 3)}{when}"


def print_published(diagnoses: Mapping[str, Diagnosis], console: Console | None = None) -> None:
    """Print what ranks say about the published systems, one row for each."""
    from rich.text import Text

    console = _console(console)
    table = _table("The eight published systems, by rank", ["system", "findings"], lines=False)
    table.columns[1].justify = "left"
    for name, diagnosis in diagnoses.items():
        said = "\n".join(
            f"{f.rule}{' (follows from the zeros)' if f.explained_by else ''}: {'; '.join(e.text for e in f.evidence)}"
            for f in diagnosis.findings
        )
        table.add_row(Text(name), Text(_signs(console, said or "none")))
    judged = next(iter(diagnoses.values()))
    notes = [*judged.notes, f"Not judged by ranks: {', '.join(judged.not_judged)}."]
    _print(console, table, notes)
