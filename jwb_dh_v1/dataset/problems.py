"""What `data check` found: problems with their places, and their table in the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jwb_dh_v1.dataset.rules import RULES

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Attributes:
        rule: a key of `RULES`.
        file: path in the folder, with slashes.
        row: number in the file from 0, or None where the file itself is meant.
        sample_id: of that row, or None where it is not known.
        message: what is wrong, in a sentence without a name.

    """

    rule: str
    file: str
    row: int | None
    sample_id: str | None
    message: str

    def __str__(self) -> str:
        """The problem as one line."""
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{place}{f' ({self.sample_id})' if self.sample_id else ''}: {self.rule}: {self.message}"


@dataclass
class Report:
    """What a check found.

    Attributes:
        folder: what was checked.
        problems: the first 1000 of each rule; `counts` has them all.
        counts: problems per rule.
        files, rows, identities: how many were seen.
        splits: rows per split.
        seconds: of video, as the rows say.
        decoded: clips that were decoded to their end.

    """

    folder: str
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    files: int = 0
    rows: int = 0
    identities: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    decoded: int = 0

    LIMIT = 1000

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.counts

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room for its rule."""
        self.counts[problem.rule] += 1
        if self.counts[problem.rule] <= self.LIMIT:
            self.problems.append(problem)


def print_report(report: Report, console: Console) -> None:
    """Print a table of the broken rules with an example of each, or that there is none."""
    from rich.table import Table

    hours = report.seconds / 3600
    splits = ", ".join(f"{name} {rows:,}" for name, rows in report.splits.items())
    console.print(
        f"{report.rows:,} rows ({splits}) of {report.identities:,} people in {report.files:,} shards, "
        f"{hours:,.2f} h of video, {report.decoded:,} clips decoded to the end",
        highlight=False,
    )
    if report.ok:
        console.print("No rule is broken.")
        return
    table = Table()
    for title in ("rule", "says", "broken", "first"):
        table.add_column(title, overflow="fold")  # a shard's name in full
    for rule, count in report.counts.items():
        example = next(problem for problem in report.problems if problem.rule == rule)
        name = f" ({example.sample_id})" if example.sample_id else ""
        place = example.file if example.row is None else f"{example.file}, row {example.row}{name}"
        table.add_row(rule, RULES[rule], str(count), f"{place}: {example.message}")
    console.print(table)
