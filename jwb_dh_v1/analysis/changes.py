"""What differs between a run and its baseline, in words: metrics and regions by direction and by how sure it is.

The first kinds are inference, the others facts of the clips that were scored: that all of them are worse, or that none
differs, needs no test and says nothing about others. With few identities only facts can be had, and they are much: a
metric that is equal on every clip was not touched, and what was done to a system shows in those that were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jwb_dh_v1.analysis.cells import MetricComparison
from jwb_dh_v1.analysis.paired_sets import Cell
from jwb_dh_v1.analysis.wording import title

KINDS: Mapping[str, str] = {
    "worse": "worse, corrected p <= 0.05",
    "better": "better, corrected p <= 0.05",
    "worse on every clip": "worse on every clip",
    "better on every clip": "better on every clip",
    "worse on average": "worse on average, 0 outside the interval",
    "better on average": "better on average, 0 outside the interval",
    "open": "not told from chance",
    "equal": "equal on every clip",
    "untested": "no paired test",
}


@dataclass(frozen=True)
class Changes:
    """What differs between a run and its baseline.

    Attributes:
        clips, identities: the most that a metric and region has.
        kinds: kind of `KINDS` -> its (metric, region); every cell of the comparison is in one. A cell whose
            corrected test is significant is `worse` or `better`, even if every clip is.

    """

    run: str
    baseline: str
    clips: int
    identities: int
    kinds: Mapping[str, tuple[Cell, ...]]

    def __getitem__(self, kind: str) -> frozenset[Cell]:
        """Return the cells of a kind; `down` and `up` are those of three kinds, from test, clips and interval."""
        names = {"down": "worse", "up": "better"}
        if kind in names:
            found = [cells for name, cells in self.kinds.items() if name.partition(" ")[0] == names[kind]]
            return frozenset(cell for cells in found for cell in cells)
        return frozenset(self.kinds[kind])

    @property
    def text(self) -> list[str]:
        """For people: a heading, then a line for each kind that has a cell."""
        lines = [f"{self.run} against {self.baseline}, {self.clips} clips of {self.identities} identities:"]
        for kind, words in KINDS.items():
            if cells := self.kinds[kind]:
                lines.append(f"{words}: {_listed(cells)}")
        return lines


def changes(run: str, baseline: str, cells: Sequence[MetricComparison]) -> Changes:
    """Sort the cells of a run against its baseline by kind."""
    found: dict[str, list[Cell]] = {kind: [] for kind in KINDS}
    for cell in cells:
        found[kind_of(cell)].append((cell.metric, cell.region))
    clips = max((c.difference.n for c in cells if c.difference), default=0)
    people = max((c.people for c in cells), default=0)
    return Changes(run, baseline, clips, people, {kind: tuple(of) for kind, of in found.items()})


def kind_of(cell: MetricComparison) -> str:
    """Which of `KINDS` a cell is."""
    verdict, d = cell.verdict, cell.difference
    if d is None:
        return "untested"
    if verdict != "open":
        return verdict
    side = "better" if cell.sign * d.value > 0 else "worse"
    if d.n > 1 and cell.superiority in (0, 1):
        return f"{side} on every clip"
    if d.low is not None and d.high is not None and (d.low > 0 or d.high < 0):
        return f"{side} on average"
    return "open"


def _listed(cells: Sequence[Cell]) -> str:
    """`SSIM, PSNR (body, face), CSIM (face)`: metrics of the same regions together."""
    regions: dict[str, list[str]] = {}
    for metric, region in cells:
        regions.setdefault(metric, []).append(region)
    together: dict[tuple[str, ...], list[str]] = {}
    for metric, of in regions.items():
        together.setdefault(tuple(of), []).append(title(metric))
    return "; ".join(f"{', '.join(metrics)} ({', '.join(of)})" for of, metrics in together.items())
