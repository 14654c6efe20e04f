"""What one pass over the rows of a result collects for its report: points, failures and skips, words heard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.scoring.result import Result, Row, Score


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
class Summary:
    """What one pass over the rows collects."""

    samples: set[str] = field(default_factory=set)
    points: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    troubles: dict[tuple[str, str], Troubles] = field(default_factory=dict)
    heard: list[tuple[Row, dict[str, Any]]] = field(default_factory=list)

    @classmethod
    def of(cls, result: Result) -> Summary:
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
