"""Which clips are the worst and the best of a run: by the mean of their ranks over all cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from jwb_dh_v1.scoring.result import Result, Row


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
