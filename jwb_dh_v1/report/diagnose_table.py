"""A diagnosis for terminals of 100 columns: the findings with their evidence, then what could not be judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jwb_dh_v1.analysis.diagnosis.diagnose import ClipFinding, Diagnosis, Finding
from jwb_dh_v1.analysis.wording import number, printable
from jwb_dh_v1.report.tables import WIDTH, _console, _print, _signs, _table

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 3  # clips of a finding
STYLES = {"failure": "bold red", "note": "bold"}
LEGEND = (
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
        line(_heading(finding), STYLES[finding.kind] if not finding.explained_by else "dim")
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
    for note in (LEGEND, *diagnosis.notes):
        line(printable(note, 2000), "dim")


def _heading(finding: Finding) -> str:
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
