"""What one pass over the rows of a result collects for its report (points, failures and skips, words heard), and which
clips are its worst and best: by the mean of their ranks over all cells.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.scoring.result import Result, Row, Score


@dataclass(frozen=True)
class Place:
    """Where a clip stands.

    Attributes:
        sample_id: its name.
        standing: mean over its cells of its rank among the clips that have a score there, 0 (worst) to 1 (best).
        cells: how many those are.

    """

    sample_id: str
    standing: float
    cells: int


def rank(result: Result, most: int) -> tuple[list[Place], list[Place]]:
    """The worst clips, worst first, and the best, best first: at most so many each, none in both.

    Clips without any score of their own have no rank: they stand among the failures. A cell in which all clips are
    equal says nothing and does not count.
    """
    import pyarrow.compute as pc
    from scipy.stats import rankdata

    if result.samples is None:
        return [], []
    directions = {(s.metric, s.region): s.higher_is_better for s in result.scores}
    table = result.samples.filter((pc.field("status") == "ok") & pc.field("value").is_valid())
    columns = [table[name].to_pylist() for name in ("sample_id", "metric", "region", "value")]
    cells: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for sample, metric, region, value in zip(*columns, strict=True):
        cells.setdefault((metric, region), []).append((sample, value))
    ranks: dict[str, list[float]] = {sample: [] for sample in dict.fromkeys(columns[0])}
    for cell, found in cells.items():
        values = np.array([value for _, value in found])
        if len(found) < 2 or (values == values[0]).all():
            continue
        order = (rankdata(values if directions.get(cell, True) else -values) - 1) / (len(found) - 1)
        for (sample, _), place in zip(found, order, strict=True):
            ranks[sample].append(float(place))
    places = [Place(sample, float(np.mean(r)) if r else 0.5, len(r)) for sample, r in ranks.items()]
    places.sort(key=lambda place: (place.standing, place.sample_id))
    n = min(most, len(places) // 2) if len(places) > 1 else len(places)
    return places[:n], places[len(places) - min(n, len(places) - n) :][::-1]


def with_curves(result: Result, samples: Collection[str]) -> Iterator[Row]:
    """The rows of some clips that have a curve; other clips' curves are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = pc.is_in(result.samples["sample_id"], value_set=pa.array(sorted(samples), pa.string()))
    for row in replace(result, samples=result.samples.filter(chosen)).rows():
        if row.status == "ok" and len(row.curve) > 1:
            yield row


@dataclass
class Troubles:
    """Skips or failures of one type: (sample, message) -> the cells (metric, region) they struck."""

    status: str
    error: str
    found: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many scores are missing."""
        return sum(map(len, self.found.values()))

    @property
    def samples(self) -> int:
        """How many samples lack some."""
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
class RunSummary:
    """What one pass over the rows collects."""

    samples: set[str] = field(default_factory=set)
    points: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    troubles: dict[tuple[str, str], Troubles] = field(default_factory=dict)
    heard: list[tuple[Row, dict[str, Any]]] = field(default_factory=list)

    @classmethod
    def of(cls, result: Result) -> RunSummary:
        """Go over the rows of a result."""
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
            group = summary.troubles.setdefault((row.status, row.error), Troubles(row.status, row.error))
            group.found.setdefault((row.sample_id, row.message), []).append((row.metric, row.region))
        return summary

    def of_status(self, status: str) -> list[Troubles]:
        """Those of `failed` or `skipped`, most scores first."""
        return sorted((t for t in self.troubles.values() if t.status == status), key=lambda t: (-t.rows, t.error))


Segments = list[tuple[str, str]]


def aligned(reference: str, hypothesis: str) -> tuple[Segments, Segments]:
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
