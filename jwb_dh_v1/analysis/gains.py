"""Which region a run gained most in, in a unit that metrics share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jwb_dh_v1.analysis.cells import NOUN, MetricComparison, Run, Unit
from jwb_dh_v1.analysis.comparable import CROPPED
from jwb_dh_v1.analysis.wording import ORDER, title
from jwb_dh_v1.stats.paired import ALPHA, Difference, paired


@dataclass(frozen=True)
class Gains:
    """Where a run gained most against the baseline.

    The unit is the point-biserial correlation r between run and score, -1..1, positive where the run is better: the
    mean difference over twice the standard deviation of both runs' scores taken together. 0: no difference; 0.5: runs
    make a quarter of all variance between the scores; 1: all of it. Bounded, so that no metric outweighs the others.

    Attributes:
        regions: (region, mean of r over `metrics`, clips), best first.
        metrics: those with paired scores in each of these regions; distances of sets have none.
        left_out: regions without any.
        gap: difference of the best two regions' r on the clips that have both, None where they have none.

    """

    run: str
    baseline: str
    regions: tuple[tuple[str, float, int], ...]
    metrics: tuple[str, ...]
    left_out: tuple[str, ...]
    gap: Difference | None

    @property
    def text(self) -> str:
        """One line for people."""
        begin = f"{self.run} against {self.baseline}: "
        if len(self.regions) < 2:
            return begin + "which region improved most cannot be said (fewer than two have metrics in common)."
        (first, most, _), (second, _, _) = self.regions[:2]
        if all(r == 0 for _, r, _ in self.regions):
            return begin + f"no region changed ({', '.join(region for region, _, _ in self.regions)})."
        last = self.regions[-1][0]
        said = f"{first} improved most" if most > 0 else f"no region improved; {first} lost least, {last} most"
        even = len({clips for _, _, clips in self.regions}) == 1
        numbers = ", ".join(f"{region} {r:+.2f}" + ("" if even else f" ({n} clips)") for region, r, n in self.regions)
        tie = ""
        if self.gap is None:
            tie = f"; {first} and {second} have no clip in common"
        elif self.gap.p is not None and self.gap.p > ALPHA:
            tie = f"; {first} and {second} may as well be tied, p {self.gap.p:.2g}"
        out = f"; nothing to compare in {', '.join(self.left_out)}" if self.left_out else ""
        return f"{begin}{said} (mean r of {', '.join(title(m) for m in self.metrics)}: {numbers}{tie}{out})."


def gains(run: Run, base: Run, cells: Sequence[MetricComparison], unit: Unit = "identity") -> Gains:
    """Compare the gains of body, face and hands; `cells` are those of the run against the baseline."""
    known = {(c.metric, c.region): c for c in cells if c.by_clip and c.region in CROPPED | {"body"}}
    names = [r for r in ORDER if any(region == r for _, region in known)]
    metrics = [m for m in dict.fromkeys(m for m, _ in known) if all((m, r) in known for r in names)]
    found = []
    by_clip: dict[str, dict[str, float]] = {}
    for region in names if metrics else []:
        each = [_by_clip(run, base, known[metric, region]) for metric in metrics]
        by_clip[region] = {s: float(np.mean([g[s] for g in each])) for s in each[0] if all(s in g for g in each)}
        r = float(np.mean([np.mean(list(g.values())) for g in each]))
        found.append((region, r, len(by_clip[region])))
    found.sort(key=lambda entry: -entry[1])
    gap: Difference | str | None = None
    if len(found) >= 2:
        first, second = (by_clip[region] for region, _, _ in found[:2])
        both = [sample for sample in first if sample in second]
        identity = run.clips[metrics[0], found[0][0]].identity
        people = both if unit == "clip" else [identity[s] for s in both]
        gap = paired([first[s] for s in both], [second[s] for s in both], people, noun=NOUN[unit])
    out = [r for r in dict.fromkeys(c.region for c in cells) if r not in by_clip and r != "speech"]
    return Gains(run.label, base.label, tuple(found), tuple(metrics) if found else (), tuple(out),
                 gap if isinstance(gap, Difference) else None)  # fmt: skip


def _by_clip(run: Run, base: Run, cell: MetricComparison) -> dict[str, float]:
    """Sample id -> gain over twice the standard deviation of all scores; their mean is r."""
    scores = [r.clips[cell.metric, cell.region].value[s] for r in (run, base) for s in cell.by_clip]
    spread = float(np.std(np.array(scores, dtype=np.float64)))
    return {s: cell.sign * gain / (2 * spread) if spread > 0 else 0.0 for s, gain in cell.by_clip.items()}
