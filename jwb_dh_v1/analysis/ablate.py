"""What scoring regions adds: how systems' order changes, and what is lost when only the whole body is scored.

Three numbers for each metric and region (face, hands) against the same metric on the body:

- tau-b: Kendall's rank correlation of the systems' scores, with the systems whose rank differs.
- lost: of the pairs of systems whose difference in the region is significant, those whose body scores do not differ
  significantly (missed) or significantly the other way round (reversed). Tests as in `compare`, Holm's correction over
  all pairs of systems, metrics and regions, the body's included.
- unexplained: 1 - R**2, the share of variance between systems on the same clip in the region that a straight line of
  the body's scores does not explain. Both scores are taken minus their mean over systems of that clip, so that easy
  and hard clips neither help nor harm. 95 % interval: percentile bootstrap over identities (10 or more).

Published tables have no scores per clip: they give the first alone.
Sources: M. G. Kendall, Biometrika 33 (1945) 239 (tau-b); A. C. Cameron et al., Rev. Econ. Stat. 90 (2008) 414.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from jwb_dh_v1.analysis.comparable import CROPPED, require_comparable
from jwb_dh_v1.analysis.compare import family, few_identities
from jwb_dh_v1.analysis.metric_comparison import (
    ComparedRun,
    MetricComparison,
    compare_cell,
    corrected,
    draws_for,
    runs_of,
    shared,
)
from jwb_dh_v1.analysis.reconcile import LOWER, published
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.scoring.result import Result, _plain
from jwb_dh_v1.stats.means import times_drawn
from jwb_dh_v1.stats.paired import FEW_IDENTITIES

SCHEMA = "jwb-dh-v1/ablation/1"
WHOLE = "body"
RESAMPLES = 2000


@dataclass(frozen=True)
class Order:
    """The systems' order in a region against that in the body, for one metric.

    Attributes:
        scores: system -> (score on the body, score in the region).
        ranks: system -> (rank on the body, rank in the region); 1 is best, ties share the mean of their ranks.
        tau: Kendall's tau-b, -1..1; None with fewer than two systems or where all are equal in one of the two.

    """

    metric: str
    region: str
    higher_is_better: bool
    scores: Mapping[str, tuple[float, float]]
    ranks: Mapping[str, tuple[float, float]]
    tau: float | None

    @property
    def moved(self) -> dict[str, tuple[float, float]]:
        """The systems whose rank changes."""
        return {system: ranks for system, ranks in self.ranks.items() if ranks[0] != ranks[1]}

    @property
    def turned(self) -> int:
        """Pairs of systems in opposite order, significant or not."""
        signs = [math.prod(_sign(u - v) for u, v in zip(a, b, strict=True)) for a, b in combinations(
            self.scores.values(), 2)]  # fmt: skip
        return signs.count(-1)


@dataclass(frozen=True)
class Lost:
    """What the body's test says where a region's is significant, for one metric: counts of pairs of systems."""

    metric: str
    region: str
    significant: int
    missed: int
    reversed: int
    tested: int

    @property
    def share(self) -> float | None:
        """Missed or reversed of significant, None where nothing is significant."""
        return (self.missed + self.reversed) / self.significant if self.significant else None


@dataclass(frozen=True)
class Flip:
    """Two systems whose order in a region is, significantly, the opposite of that on the body."""

    metric: str
    region: str
    better_on_body: str
    better_in_region: str


@dataclass(frozen=True)
class Unexplained:
    """1 - R**2 of a region's clip scores on the body's, with its interval (None where `method` says why)."""

    metric: str
    region: str
    value: float
    low: float | None
    high: float | None
    clips: int
    identities: int
    method: str


@dataclass(frozen=True)
class Ablation:
    """What regions add for some systems.

    Attributes:
        orders: by metric and region.
        lost, flips, unexplained: empty where there are no scores per clip.
        tests: size of the family that Holm's correction is over.
        notes: what to mind, one sentence each.

    """

    systems: tuple[str, ...]
    orders: tuple[Order, ...]
    lost: tuple[Lost, ...] = ()
    flips: tuple[Flip, ...] = ()
    unexplained: tuple[Unexplained, ...] = ()
    tests: int = 0
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> list[str]:
        """The result in a few sentences."""
        said = []
        taus = [order.tau for order in self.orders if order.tau is not None]
        if taus:
            moved = sum(bool(order.moved) for order in self.orders)
            said.append(
                f"The order of systems in a region differs from that on the body in {moved} of {len(self.orders)} "
                f"metrics and regions; mean Kendall tau-b {np.mean(taus):.2f}, lowest {min(taus):.2f}."
            )
        if self.tests:
            found = sum(one.significant for one in self.lost)
            missed, turned = (sum(getattr(one, key) for one in self.lost) for key in ("missed", "reversed"))
            share = f" ({100 * (missed + turned) / found:.0f} % lost)" if found else ""
            said.append(
                f"Of {found} significant differences in face and hands the body alone misses {missed} and reverses "
                f"{turned}{share}."
            )
        if self.unexplained:
            middle = float(np.median([one.value for one in self.unexplained]))
            said.append(
                f"Of the variance between systems on a clip, {100 * middle:.0f} % (median over metrics) is not in the "
                "body's scores."
            )
        return said

    def to_json(self) -> str:
        """Everything, with the sentences."""
        document = {"schema": SCHEMA, **asdict(self), "text": self.text}
        return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def ablate(runs: Sequence[Result]) -> Ablation:
    """What region-specific scores add to whole-body ones.

    Args:
        runs: results of `score` or `Result.load`, one per system, with a body and a face or hands; two or more.

    Raises:
        PlanMismatch: two runs differ in what moves scores, see `comparable.py`.
        SetupError: fewer than two runs, or no metric with a body and another region.

    """
    notes = require_comparable(runs)
    if len(runs) < 2:
        raise SetupError("An ablation takes two runs or more.")
    named = runs_of(runs)
    values = {(s.metric, s.region, run.label): s.value for run in named for s in run.result.scores}
    higher = {s.metric: s.higher_is_better for run in named for s in run.result.scores}
    orders = rank_changes({key: v for key, v in values.items() if v is not None}, higher)
    if not orders:
        raise SetupError("These runs have no metric that two of them score both on the body and in a region.")
    wanted = {(o.metric, region) for o in orders for region in (WHOLE, o.region)}
    pairs = [(a, b, cell) for a, b in combinations(named, 2) for cell in shared(a, b) if cell in wanted]
    draws = draws_for(len(pairs))
    cells = corrected([compare_cell(a, b, cell, draws) for a, b, cell in pairs])
    lost, flips = _lost(orders, cells)
    found = [_unexplained(named, order) for order in orders]
    return Ablation(
        tuple(run.label for run in named),
        tuple(orders),
        tuple(lost),
        tuple(flips),
        tuple(one for one in found if one is not None),
        family(cells),
        (*few_identities(cells, draws), *notes),
    )


def ablate_published() -> Ablation:
    """The rank changes of the benchmark's published tables: eight systems, twelve metrics."""
    cells = list(published())
    values = {(cell.metric, cell.region, cell.system): cell.number for cell in cells}
    orders = rank_changes(values, {cell.metric: cell.metric not in LOWER for cell in cells})
    note = "Published tables hold no scores of single clips: what of these changes is chance cannot be said."
    return Ablation(tuple(dict.fromkeys(cell.system for cell in cells)), tuple(orders), notes=(note,))


def rank_changes(values: Mapping[tuple[str, str, str], float], higher: Mapping[str, bool]) -> list[Order]:
    """The order of systems by metric and region against the body's.

    Args:
        values: (metric, region, system) -> score.
        higher: metric -> whether more is better.

    """
    orders = []
    for metric in dict.fromkeys(metric for metric, _, _ in values):
        for region in dict.fromkeys(r for m, r, _ in values if m == metric and r in CROPPED):
            both = [s for m, r, s in values if (m, r) == (metric, region) and (metric, WHOLE, s) in values]
            if len(both) < 2:
                continue
            scores = {s: (values[metric, WHOLE, s], values[metric, region, s]) for s in both}
            body, part = (_without_noise(np.array(column)) for column in zip(*scores.values(), strict=True))
            sign = -1 if higher[metric] else 1
            ranks = zip(stats.rankdata(sign * body), stats.rankdata(sign * part), strict=True)
            tau = float(stats.kendalltau(body, part).statistic)
            found = {s: (float(a), float(b)) for s, (a, b) in zip(both, ranks, strict=True)}
            orders.append(Order(metric, region, higher[metric], scores, found, None if math.isnan(tau) else tau))
    return orders


def _without_noise(scores: np.ndarray) -> np.ndarray:
    """Scores rounded to 9 digits of the largest, so that equal runs tie in spite of rounding."""
    finite = scores[np.isfinite(scores)]
    largest = float(np.abs(finite).max(initial=0)) or 1.0
    return np.round(scores / largest, 9)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _significance(cell: MetricComparison) -> int:
    """1 where the first system is significantly better, -1 where worse, else 0."""
    return {"better": 1, "worse": -1}.get(cell.verdict, 0)


def _lost(orders: Iterable[Order], cells: Sequence[MetricComparison]) -> tuple[list[Lost], list[Flip]]:
    found = {(c.run, c.baseline, c.metric, c.region): c for c in cells}
    lost, flips = [], []
    for order in orders:
        counts = {"significant": 0, "missed": 0, "reversed": 0, "tested": 0}
        for (a, b, metric, region), cell in found.items():
            body = found.get((a, b, metric, WHOLE))
            if (
                (metric, region) != (order.metric, order.region)
                or body is None
                or cell.holm is None
                or body.holm is None
            ):
                continue
            part, whole = _significance(cell), _significance(body)
            counts["tested"] += 1
            counts["significant"] += part != 0
            counts["missed"] += part != 0 and whole == 0
            if part * whole == -1:
                counts["reversed"] += 1
                flips.append(Flip(metric, region, *((a, b) if whole > 0 else (b, a))))
        lost.append(Lost(order.metric, order.region, **counts))
    return lost, flips


def _unexplained(runs: Sequence[ComparedRun], order: Order) -> Unexplained | None:
    """1 - R**2 over the clips that two systems or more have in both; None for distances of sets and equal scores."""
    body, part = ({run.label: run.clips.get((order.metric, r)) for run in runs} for r in (WHOLE, order.region))
    rows: dict[str, list[tuple[float, float]]] = {}
    people: dict[str, str] = {}
    for run in runs:
        whole, cut = body[run.label], part[run.label]
        for sample in cut.value if whole and cut else ():
            x, y = whole.value.get(sample) if whole else None, cut.value[sample] if cut else None
            if x is not None and y is not None and math.isfinite(x) and math.isfinite(y):
                rows.setdefault(sample, []).append((x, y))
                people[sample] = cut.identity[sample] if cut else sample
    rows = {sample: found for sample, found in rows.items() if len(found) > 1}
    if not rows:
        return None
    names, place = np.unique([people[sample] for sample in rows], return_inverse=True)
    sums = np.zeros((len(names), 3))  # xx, xy, yy of each identity
    for at, found in zip(place, rows.values(), strict=True):
        x, y = (np.array(found) - np.mean(found, axis=0)).T
        sums[at] += (x @ x, x @ y, y @ y)
    total = sums.sum(axis=0)
    scale = max(abs(v) for found in rows.values() for pair in found for v in pair)
    if total[2] <= (1e-9 * scale) ** 2 * len(rows):
        return None  # the region's scores do not differ between systems: there is no variance to explain
    low = high = None
    method = f"none: fewer than {FEW_IDENTITIES} identities"
    if len(names) >= FEW_IDENTITIES:
        drawn = times_drawn(len(names), RESAMPLES, 0) @ sums
        low, high = (float(q) for q in np.quantile(_rest(drawn), [0.025, 0.975]))
        method = f"bootstrap over {len(names)} identities, {RESAMPLES} resamples, seed 0"
    value = float(_rest(total[None])[0])
    return Unexplained(order.metric, order.region, value, low, high, len(rows), len(names), method)


def _rest(sums: np.ndarray) -> np.ndarray:
    """1 - R**2 of columns xx, xy, yy, float [n, 3] -> [n]; nothing is explained where x does not vary."""
    xx, xy, yy = sums.T
    known = (xx > 0) & (yy > 0)
    explained = np.where(known, xy**2 / np.where(known, xx * yy, 1), 0)
    rest: np.ndarray = np.clip(1 - explained, 0, 1)
    return rest
