"""Ranks with what is unsure about them, and six ways to make one order of several metrics.

A rank by metric is 1 + the number of systems with a better value; equal values share it. Its range says what the 95 %
intervals leave open: from 1 + the systems whose whole interval is better, to the number of systems less those whose
whole interval is worse. A missing interval overlaps with every other.

The aggregates are over a table's core: the metrics that more than half of its ranked systems have a value for. A system
that lacks one of them has no aggregate (a missing value is never 0, and never the last rank), but keeps its ranks by
metric. `fid_clean` is left out where `fid` is there: it looks at the same frames with the same network.
Source of tau-b: M. G. Kendall, Biometrika 33 (1945) 239.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jwb_dh_v1.scoring.result import Score

TWINS = {"fid_clean": "fid"}
HEADLINE = "mean_rank"


@dataclass(frozen=True)
class Standing:
    """A system's rank by one metric; `low` and `high` are its best and worst rank, None without an interval."""

    rank: int
    low: int | None
    high: int | None

    @property
    def text(self) -> str:
        """`2`, or `2 (1–4)` where the intervals leave it open."""
        if self.low is None or self.high is None:
            return f"{self.rank} (?)"
        return str(self.rank) if self.low == self.high else f"{self.rank} ({self.low}–{self.high})"


@dataclass(frozen=True)
class Column:
    """One metric and region of the systems of a table.

    Attributes:
        scores: one per system; None where the run does not have the metric.
        standings: one per system; None without a value or where the run is not ranked.
        note: what to mind when reading the column, or nothing.

    """

    metric: str
    region: str
    higher_is_better: bool
    unit: str
    digits: int
    scores: tuple[Score | None, ...]
    standings: tuple[Standing | None, ...]
    note: str = ""

    @property
    def contested(self) -> bool:
        """Whether somebody is not first."""
        return any(standing.rank > 1 for standing in self.standings if standing)


@dataclass(frozen=True)
class Aggregate:
    """One way to make an order of several metrics.

    Attributes:
        name, title: for programs and for people.
        says: how it is computed, one sentence.
        higher_is_better: direction of `values`.
        values, ranks: one per system, None where it has none; equal values share a rank.
        moves: places won against the headline's order, among the systems that have both.
        tau: Kendall's tau-b with the headline's order; None for fewer than two systems or if all are equal in one.
        why: why nobody has a value, or nothing.

    """

    name: str
    title: str
    says: str
    higher_is_better: bool
    values: tuple[float | None, ...]
    ranks: tuple[int | None, ...]
    moves: tuple[int | None, ...]
    tau: float | None
    why: str = ""

    @property
    def contested(self) -> bool:
        """Whether somebody is not first."""
        return any(rank > 1 for rank in self.ranks if rank)


@dataclass(frozen=True)
class Aggregates:
    """The aggregates of some columns; the first is the headline.

    Attributes:
        core: metrics (with their region) that count.
        left_out: the others, with the reason.
        lacking: per system what it lacks of the core.

    """

    core: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[tuple[str, str], str], ...]
    lacking: tuple[tuple[tuple[str, str], ...], ...]
    aggregates: tuple[Aggregate, ...]

    @property
    def headline(self) -> Aggregate:
        """The one that orders the table."""
        return self.aggregates[0]


def clean(values: Sequence[float | None], higher_is_better: bool) -> np.ndarray:
    """Values so that more is better, NaN where missing, rounded to 9 digits of the largest: equal runs tie."""
    found = np.array([math.nan if v is None else v for v in values], np.float64)
    finite = np.abs(found[np.isfinite(found)])
    scale = float(finite.max(initial=0)) or 1.0
    return np.asarray((1 if higher_is_better else -1) * np.round(found / scale, 9))


def ranks(values: Sequence[float | None], higher_is_better: bool) -> list[int | None]:
    """1 + the number of better values; None where missing."""
    found = clean(values, higher_is_better)
    return [None if np.isnan(v) else 1 + int((found > v).sum()) for v in found]


def standings(scores: Sequence[Score | None], ranked: Sequence[bool]) -> tuple[Standing | None, ...]:
    """The rank of each system's score among those of ranked systems, with its range."""
    shown = [s if s and ok and s.value is not None else None for s, ok in zip(scores, ranked, strict=True)]
    some = next((s for s in shown if s), None)
    if some is None:
        return (None,) * len(shown)
    places = ranks([s.value if s else None for s in shown], some.higher_is_better)
    low, high = _ends(shown)
    found: list[Standing | None] = []
    for i, rank in enumerate(places):
        if rank is None:
            found.append(None)
        elif np.isnan(low[i]):
            found.append(Standing(rank, None, None))
        else:
            present = sum(place is not None for place in places)
            best, last = 1 + int((low > high[i]).sum()), present - int((high < low[i]).sum())
            found.append(Standing(rank, min(best, rank), max(last, rank)))
    return tuple(found)


def _ends(scores: Sequence[Score | None]) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the intervals so that more is better; NaN without one, which compares as neither."""
    ends = np.full((2, len(scores)), math.nan)
    for i, score in enumerate(scores):
        if score and score.value is not None and score.ci95:
            low, high = score.ci95
            ends[:, i] = (low, high) if score.higher_is_better else (-high, -low)
    return ends[0], ends[1]


def summary(columns: Sequence[Column], ranked: Sequence[bool]) -> Aggregates:
    """The aggregates of some columns over the same systems; unranked systems have none."""
    systems = sum(ranked)
    core: list[Column] = []
    left_out: list[tuple[tuple[str, str], str]] = []
    there = {(column.metric, column.region) for column in columns}
    for column in columns:
        have = sum(standing is not None for standing in column.standings)
        twin = TWINS.get(column.metric)
        if (twin, column.region) in there:
            left_out.append(((column.metric, column.region), f"it says what {twin} says"))
        elif 2 * have > systems:
            core.append(column)
        else:
            left_out.append(((column.metric, column.region), f"{have} of {systems} systems have a value"))
    lacking = tuple(
        tuple((c.metric, c.region) for c in core if ok and c.standings[i] is None) for i, ok in enumerate(ranked)
    )
    able = [i for i, ok in enumerate(ranked) if ok and core and not lacking[i]]
    good = np.array([clean([_value(c, i) for i in able], c.higher_is_better) for c in core]).reshape(
        len(core), len(able)
    )
    found = []
    for name, title, says, higher, rule in RULES:
        why = "" if able else "no system has all of the core" if core else "no metric is in the core"
        computed: list[float | None] = [None] * len(ranked)
        if able:
            row = rule(good)
            why = "" if row is not None else "a value is infinite"
            for i, value in zip(able, () if row is None else row, strict=row is not None):
                computed[i] = float(value)
        found.append((name, title, says, higher, computed, why))
    for name, title, says, pairs in PAIRWISE:
        found.append((name, title, says, True, _share(columns, ranked, pairs), ""))
    first, before = found[0][4], ranks(found[0][4], found[0][3])
    aggregates = []
    for name, title, says, higher, values, why in found:
        after = ranks([v if f is not None else None for v, f in zip(values, first, strict=True)], higher)
        moves = tuple(b - a if a and b else None for a, b in zip(after, before, strict=True))
        agreed = tau(first, found[0][3], values, higher)
        places = tuple(ranks(values, higher))
        aggregates.append(Aggregate(name, title, says, higher, tuple(values), places, moves, agreed, why))
    return Aggregates(tuple((c.metric, c.region) for c in core), tuple(left_out), lacking, tuple(aggregates))


def _value(column: Column, system: int) -> float | None:
    score = column.scores[system]
    return score.value if score else None


def tau(a: Sequence[float | None], a_higher: bool, b: Sequence[float | None], b_higher: bool) -> float | None:
    """Kendall's tau-b of the systems that have both; None where it is not defined."""
    x, y = clean(a, a_higher), clean(b, b_higher)
    both = ~(np.isnan(x) | np.isnan(y))
    if both.sum() < 2:
        return None
    found = float(stats.kendalltau(x[both], y[both]).statistic)
    return None if math.isnan(found) else round(found, 12)  # 1 is 1


def _places(good: np.ndarray) -> np.ndarray:
    """Ranks by metric, [metrics, systems]; ties share the mean of theirs."""
    return np.asarray(stats.rankdata(-good, axis=1))


def _mean_z(good: np.ndarray) -> np.ndarray | None:
    if not np.isfinite(good).all():
        return None
    spread = good.std(axis=1, keepdims=True)
    return np.asarray(((good - good.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)).mean(axis=0))


Rule = Callable[[np.ndarray], np.ndarray | None]
RULES: tuple[tuple[str, str, str, bool, Rule], ...] = (
    (HEADLINE, "Mean rank", "Mean of the ranks by metric; equal values share the mean of their ranks.", False,
     lambda good: _places(good).mean(axis=0)),
    ("geometric_rank", "Geometric mean rank", "Geometric mean of the same ranks: being first counts more.", False,
     lambda good: np.exp(np.log(_places(good)).mean(axis=0))),
    ("worst_rank", "Worst rank", "The worst of the same ranks: no weakness is made good.", False,
     lambda good: _places(good).max(axis=0)),
    ("mean_z", "Mean z", "Mean over metrics of (value - mean) / standard deviation over systems, sign by direction: "
     "sizes of differences count.", True, _mean_z),
)  # fmt: skip


def _share(
    columns: Sequence[Column], ranked: Sequence[bool], wins: Callable[[Column], np.ndarray]
) -> list[float | None]:
    """The share of duels (a metric, another system that has it too) that a system wins; a draw is half of one."""
    won, fought = np.zeros(len(ranked)), np.zeros(len(ranked))
    there = {(column.metric, column.region) for column in columns}
    for column in columns:
        if (TWINS.get(column.metric), column.region) in there:
            continue
        have = np.array([standing is not None for standing in column.standings])
        duels = np.outer(have, have) & ~np.eye(len(have), dtype=bool)
        won += np.where(duels, wins(column), 0).sum(axis=1)
        fought += duels.sum(axis=1)
    return [float(w / f) if f else None for w, f in zip(won, fought, strict=True)]


def _plain_wins(column: Column) -> np.ndarray:
    good = clean([_value(column, i) for i in range(len(column.scores))], column.higher_is_better)
    return np.asarray((good[:, None] > good[None, :]) + 0.5 * (good[:, None] == good[None, :]))


def _clear_wins(column: Column) -> np.ndarray:
    low, high = _ends(column.scores)
    wins = low[:, None] > high[None, :]
    return np.asarray(wins + 0.5 * ~(wins | wins.T))


PAIRWISE: tuple[tuple[str, str, str, Callable[[Column], np.ndarray]], ...] = (
    ("borda", "Borda share", "Share of duels won over all metrics, a duel being one metric of two systems that both "
     "have it; draws count half. Needs no core.", _plain_wins),
    ("clear", "Clear wins", "The same, but overlapping intervals are a draw.", _clear_wins),
)  # fmt: skip
