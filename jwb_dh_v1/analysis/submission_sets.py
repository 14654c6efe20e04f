"""A submission's distances of sets (FID, FVD, E-FID) computed again from the features in its `shards`.

A run keeps, shard by shard, the features of its clips or their sums; added up they give every distance and, while
single features are kept, its interval. Shards are not asked for: without them a note says what was not computed again.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jwb_dh_v1.analysis.problem import Problem, listed
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.state import unpack
from jwb_dh_v1.scoring.result import Result, Score

Cell = tuple[str, str]
MOST_BYTES = 4_000_000_000  # of one shard, unpacked; 64 samples of FID hold 0.3 GB at most
DAMAGED = (OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError,
           MemoryError, zipfile.BadZipFile, zlib.error)  # fmt: skip
NEAR = 1e-6  # relative to the value, and absolute: other processors round otherwise in sums over thousands


def check_sets(
    result: Result, scores: Sequence[Score], rows: Mapping[Cell, Sequence[Mapping[str, object]]]
) -> list[Problem]:
    """Compute distances again.

    Args:
        result: of a folder.
        scores: the distances.
        rows: by metric and region, those of samples with features.

    Returns:
        What differs, and a note on what could not be computed.

    """
    if not scores:
        return []
    place = (result.folder or Path()) / "shards"
    paths = sorted(place.glob("*.npz")) if place.is_dir() else []
    if not paths:
        return [_not_again(scores, "its shards, which hold the features, are not here")]
    wanted = [(score.metric, score.region) for score in scores]
    states: dict[Cell, Frechet] = {}
    try:
        for path in paths:
            for cell, state in _stored(path, wanted):
                states[cell] = states[cell] + state if cell in states else state
        said = [(score, _differing(score, states[cell], rows[cell])) for score in scores
                if (cell := (score.metric, score.region)) in states]  # fmt: skip
    except DAMAGED as error:
        return [Problem("rows", f"its shards cannot be read: {(str(error).splitlines() or [repr(error)])[0]}")]
    found = [Problem("tampered", f"{s.metric} on {s.region}: {text}") for s, texts in said for text in texts]
    without = [score for score in scores if (score.metric, score.region) not in states]
    return found + ([_not_again(without, "its shards hold no features of them")] if without else [])


def _not_again(scores: Sequence[Score], why: str) -> Problem:
    names = listed(f"{score.metric} on {score.region}" for score in scores)
    return Problem("rows", f"not computed again, as they are distances of sets and {why}: {names}", severe=False)


def _stored(path: Path, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Frechet]]:
    """The states of some cells in a shard."""
    with zipfile.ZipFile(path) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > MOST_BYTES:
            raise ValueError(f"{path.name} is larger than any shard")
    with np.load(path, allow_pickle=False) as shard:
        for metric, region in cells:
            begin = f"{metric}/{region}/"
            arrays = {key.removeprefix(begin): shard[key] for key in shard.files if key.startswith(begin)}
            state = unpack(arrays) if arrays else None
            if isinstance(state, Frechet):
                yield (metric, region), state


def _differing(score: Score, state: Frechet, rows: Sequence[Mapping[str, object]]) -> list[str]:
    """How a distance differs from that of the features in the shards."""
    parts = sum(int(str(row["n"])) for row in rows)
    if state.n != parts:
        return [f"its shards hold features of {state.n} parts, its rows count {parts}"]
    people = {str(row["identity_id"]) for row in rows}
    if strangers := {name for side in (state.generated, state.reference) for name in side.strangers(people)}:
        return [f"its shards hold features of people that no row has: {listed(strangers)}"]
    found = []
    value = state.value()
    if score.value is None or not math.isclose(score.value, value, rel_tol=NEAR, abs_tol=NEAR):
        found.append(f"value {score.value}, its shards give {value!r}")
    interval = state.estimate().interval
    same = (interval is None) == (score.ci95 is None) and np.allclose(interval or 0, score.ci95 or 0, 1e-4, 1e-4)
    if not same:
        found.append(f"interval {score.ci95}, its shards give {interval}")
    return found
