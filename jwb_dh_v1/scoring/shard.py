"""A shard: some samples scored together. The unit of work, of distribution and of resume.

A finished shard is one file, written whole or not at all.
"""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from jwb_dh_v1.errors import JwbError, NotApplicable, SetupError, TooShort, TooSmall, typed
from jwb_dh_v1.media.worker import Decoder
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.metric import Metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import State, add, unpack
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.scoring.change_guard import ChangeGuard
from jwb_dh_v1.scoring.plan import Cell, Plan
from jwb_dh_v1.scoring.result import Row, parquet_bytes, rows_table

MOST_BYTES = 4_000_000_000  # of one shard, unpacked; 64 samples of FID hold 0.3 GB at most


@dataclass(frozen=True)
class ShardResult:
    """What one shard gave: rows in order, one state per cell, and seconds per cell (never part of a result)."""

    rows: list[Row]
    states: dict[Cell, State]
    seconds: dict[str, float]

    def to_bytes(self) -> bytes:
        """One zip file; its checksums show damage."""
        arrays = {"rows": np.frombuffer(parquet_bytes(rows_table(self.rows)), np.uint8)}
        arrays["seconds"] = np.array(json.dumps(self.seconds))
        for (metric, region), state in self.states.items():
            arrays |= {f"{metric}/{region}/{key}": array for key, array in state.pack().items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()


def read_shard(file: Path | IO[bytes]) -> tuple[Any, dict[Cell, State], dict[str, float]] | None:
    """Rows (pyarrow Table), states and seconds of a finished shard; None where it is absent or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent, or damaged by something else than a kill: the shard is computed again
    table = pq.read_table(pa.BufferReader(arrays.pop("rows").tobytes()))
    seconds = json.loads(str(arrays.pop("seconds")))
    grouped: dict[Cell, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        metric, region, key = name.split("/", 2)
        grouped.setdefault((metric, region), {})[key] = array
    return table, {cell: unpack(packed) for cell, packed in grouped.items()}, seconds


def stored_states(path: Path, cells: Iterable[Cell]) -> Iterator[tuple[Cell, State]]:
    """The states of some cells in a shard, without reading the others; cells without a state are left out.

    Raises:
        ValueError: the shard is larger than any of ours, or a state is damaged (other errors of reading, too).

    """
    with zipfile.ZipFile(path) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > MOST_BYTES:
            raise ValueError(f"{path.name} is larger than any shard")
    with np.load(path, allow_pickle=False) as shard:
        for metric, region in cells:
            begin = f"{metric}/{region}/"
            arrays = {key.removeprefix(begin): shard[key] for key in shard.files if key.startswith(begin)}
            if arrays:
                yield (metric, region), unpack(arrays)


def score_shard(
    shard: Iterable[Sample],
    plan: Plan,
    models: NetworkPool,
    on_sample: Callable[[str], None] = lambda name: None,
    decoder: Decoder | None = None,
) -> ShardResult:
    """Score some samples. Every executor calls this; it depends on nothing but its arguments.

    Args:
        shard: the samples; with a decoder one more of them is read while one is scored.
        plan: what to compute.
        models: the networks.
        on_sample: called with each sample's id when it is done.
        decoder: the process that opens the files and decodes ahead; without it, this process does, one at a time.

    """
    rows: list[Row] = []
    states: dict[Cell, State] = {}
    seconds: dict[str, float] = {}
    drawn = ChangeGuard(shard)
    with closing(decoder.ahead(drawn) if decoder is not None else iter(drawn)) as samples:
        for sample in samples:
            for clip in (sample.generated, sample.reference):
                if clip is not None and clip.models is None:
                    clip.models = models
            for row, state, spent in drawn.checked(sample, _score_sample(sample, plan)):
                rows.append(row)
                cell = (row.metric, row.region)
                if state is not None:
                    states[cell] = add(states.get(cell), state)
                seconds[f"{row.metric}/{row.region}"] = seconds.get(f"{row.metric}/{row.region}", 0.0) + spent
            for clip in (sample.generated, sample.reference):
                if clip is not None:
                    clip.release()
            on_sample(sample.id)
    return ShardResult(rows, states, seconds)


def _attempt(action: Callable[[], Any]) -> Any:
    """The result of `action`, or the `SampleError`/`NotApplicable` it ended in; setup errors stop the run."""
    try:
        return action()
    except SetupError:
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a sample's trouble is kept from the others
        return typed(error)


def _score_sample(sample: Sample, plan: Plan) -> Iterator[tuple[Row, State | None, float]]:
    """One row (with its state and seconds) per cell of the plan."""
    opened = _attempt(lambda: (sample.generated.info, sample.generated.sha256))
    blank = Row(sample.id, sample.person_id or sample.id, "", "", None, 0, None, "failed")
    broken = opened if isinstance(opened, JwbError) else None
    if broken is None:
        blank = replace(blank, sha256=opened[1])
    lost_reference: JwbError | None = None
    if sample.reference is not None:
        reference = sample.reference
        opened = _attempt(lambda: reference.info)
        if isinstance(opened, JwbError):
            lost_reference, sample = opened, replace(sample, reference=None)
    parts: dict[tuple[str, bool], list[Sample] | JwbError] = {}
    for name, region in plan.cells:
        metric = plan.table.metrics[name]
        row = replace(blank, metric=name, region=region)
        begun = time.perf_counter()
        key = (region, metric.same_boxes)
        if broken is None and key not in parts:
            parts[key] = _attempt(lambda key=key: sample.crop(key[0], plan.table.rule, key[1]))  # type: ignore[misc]
        problem = broken
        if problem is None and lost_reference is not None and "reference" in metric.needs:
            problem = type(lost_reference)(f"the reference: {lost_reference}")
        cut = problem or parts[key]
        found = cut if isinstance(cut, JwbError) else _measure(metric, cut, row)
        if isinstance(found, JwbError):
            status = "skipped" if isinstance(found, NotApplicable) else "failed"
            failed = replace(row, status=status, error=type(found).__name__, message=str(found))
            yield failed, None, time.perf_counter() - begun
        else:
            yield found[0], found[1], time.perf_counter() - begun


def _measure(metric: Metric, parts: list[Sample], row: Row) -> tuple[Row, State] | JwbError:
    """The metric on the parts of one region. A part without the thing to measure does not spoil the other part."""
    state: State | None = None
    used: list[Sample] = []
    skipped: JwbError | None = None
    for part in parts:
        found = _attempt(lambda part=part: metric.score(part))  # type: ignore[misc]
        if isinstance(found, TooShort | TooSmall) and part.generated is not part.generated.root:
            # A part that is in view too briefly, or too small, says nothing against the clip.
            found = NotApplicable(f"{type(found).__name__}: {found}")
        if isinstance(found, NotApplicable):
            skipped = found
        elif isinstance(found, JwbError):
            return found
        else:
            state, used = add(state, found), [*used, part]
    if state is None:
        return skipped or NotApplicable("no part to measure")
    details = _attempt(lambda: _details(metric, used[0]))
    if isinstance(details, JwbError):
        return details
    curve, facts = details
    coverage = math.fsum(len(p.generated) / len(p.generated.root) for p in used) / len(used)
    value = None if isinstance(state, Frechet) else state.value()
    return replace(row, value=value, n=len(used), coverage=coverage, status="ok", curve=curve, facts=facts), state


def _details(metric: Metric, part: Sample) -> tuple[tuple[float, ...], str]:
    curve = tuple(float(v) for v in metric.curve(part)) if metric.curve else ()
    return curve, json.dumps(metric.facts(part), ensure_ascii=False) if metric.facts else ""
