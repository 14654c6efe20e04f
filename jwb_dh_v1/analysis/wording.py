"""Scores in words: names of metrics, digits, intervals, and which score is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from jwb_dh_v1.scoring.result import Result, Score

ORDER = ("body", "face", "hands", "speech")
STAND_INS = (
    "lite/1 scores come from small stand-in networks: compare them with each other, never with published numbers."
)


def title(metric: str) -> str:
    """A metric's name for people: `ssim` -> SSIM, `subject_consistency` -> Subject consistency."""
    if "fid" in metric:
        return {"e_fid": "E-FID", "fid_clean": "FID (clean)"}.get(metric, metric.upper())
    return metric.upper() if len(metric) <= 5 and "_" not in metric else metric.replace("_", " ").capitalize()


def decimals(scores: Iterable[Score]) -> int:
    """Digits after the point that some scores deserve: two of their intervals' usual width, at most four.

    Without any interval the largest score has four digits in all.
    """
    known = [s for s in scores if s.value is not None and math.isfinite(s.value)]
    halves = [(s.ci95[1] - s.ci95[0]) / 2 for s in known if s.ci95]
    needed = sorted(1 - math.floor(math.log10(half)) for half in halves if half > 1e-9)  # below: nothing but rounding
    if not needed:
        largest = max((abs(s.value or 0.0) for s in known), default=0.0)
        needed = [3 - (math.floor(math.log10(largest)) if largest >= 1 else 0)]
    return min(4, max(0, needed[len(needed) // 2]))


def number(value: float | None, digits: int) -> str:
    """A value with so many digits after the point; `–` where there is none, `∞` where it is infinite."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}".replace("-", "−")


def interval(score: Score, digits: int) -> str:
    """The 95 % interval as `[low, high]`, or nothing."""
    return f"[{number(score.ci95[0], digits)}, {number(score.ci95[1], digits)}]" if score.ci95 else ""


def regions_of(scores: Iterable[Score]) -> list[str]:
    """The regions that occur, in the usual order."""
    found = list(dict.fromkeys(score.region for score in scores))
    return [r for r in ORDER if r in found] + [r for r in found if r not in ORDER]


def metrics_of(scores: Iterable[Score]) -> list[str]:
    """The metrics that occur, in the order of the protocol's table."""
    return list(dict.fromkeys(score.metric for score in scores))


def find(result: Result, metric: str, region: str) -> Score | None:
    """The score of a cell, or None where the metric does not apply."""
    return next((s for s in result.scores if (s.metric, s.region) == (metric, region)), None)


def best(scores: Sequence[Score | None]) -> set[int]:
    """Positions of the best scores (several if equal); none where fewer than two systems have one or all are equal."""
    values = {i: s.value for i, s in enumerate(scores) if s is not None and s.value is not None}
    if len(values) < 2 or len(set(values.values())) < 2:
        return set()
    higher = next(s.higher_is_better for s in scores if s is not None)
    top = max(values.values()) if higher else min(values.values())
    return {i for i, value in values.items() if value == top}


def printable(text: str, most: int = 60) -> str:
    """Text without control characters and halves of characters, cut to `most` characters."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"
