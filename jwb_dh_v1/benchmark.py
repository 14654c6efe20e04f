"""From samples to a result: shards, resume, and the final addition.

A run's folder holds `plan.json`, one file per finished shard, and at the end `results.json`, `samples.parquet`,
`timings.json`. A run that was killed at any moment goes on where it was, and its results are byte-equal to those of a
run that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jwb_dh_v1 import __version__
from jwb_dh_v1.errors import AlreadyRunning, SetupError
from jwb_dh_v1.metrics import Metric
from jwb_dh_v1.models import Models, Precision
from jwb_dh_v1.plan import Cell, Plan, claim_folder, make_plan, with_own, without_missing
from jwb_dh_v1.region import REGIONS, Region
from jwb_dh_v1.results import (
    Result,
    Score,
    bootstrap_interval,
    jackknife_interval,
    parquet_bytes,
    rows_table,
    write_atomically,
)
from jwb_dh_v1.results.policy import Policy, fill, stand_in
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.shard import read_shard, score_shard
from jwb_dh_v1.state import Frechet, Mean, Rate, State, Words, add
from jwb_dh_v1.weights import FILES, resolve_all

SHARD = 64
PACKAGES = ("numpy", "scipy", "torch", "torchvision", "opencv-python-headless", "decord", "av", "transformers",
            "jiwer", "whisper-normalizer", "dlib-bin", "ai-edge-litert", "onnxruntime")  # fmt: skip


def _shards(samples: Iterable[Sample], size: int) -> Iterator[Iterator[Sample]]:
    """Consecutive runs of `size` samples; each is read only when it is wanted, one sample at a time."""
    if isinstance(samples, Sequence):
        for at in range(0, len(samples), size):
            yield (samples[i] for i in range(at, min(at + size, len(samples))))
        return
    # groupby reads one sample at a time, and what is left of a shard when the next one is asked for.
    for _, shard in groupby(enumerate(samples), key=lambda pair: pair[0] // size):
        yield (sample for _, sample in shard)


def score(
    samples: Iterable[Sample],
    metrics: Sequence[str] | None = None,
    regions: Sequence[Region] = REGIONS,
    *,
    protocol: str = "standard",
    out: str | Path | None = None,
    device: str = "auto",
    allow_failures: int = 0,
    allow_missing: bool = False,
    boxes: str | None = None,
    failures: Policy | Literal["protocol"] = "protocol",
    precision: Precision = "fp32",
    weights: Mapping[str, Path] | None = None,
    other_weights: bool = False,
    data: str = "",
    generated: str = "",
    name: str | None = None,
    shard_size: int = SHARD,
    models: Models | None = None,
    on_sample: Callable[[str], None] = lambda name: None,
) -> Result:
    """Score a set of samples.

    Args:
        samples: a sequence (finished shards are then not even read), or any iterable in a fixed order.
        metrics, regions, protocol, boxes, failures, precision: what to compute, see `make_plan`.
        out: folder for results; the same call on the same folder resumes. Without it nothing is written.
        device: `auto`, `cpu`, `cuda`, ...
        allow_failures: the result counts as complete with up to so many failed samples.
        allow_missing: leave out metrics whose weights are not here, instead of stopping.
        weights: the user's own files by name.
        other_weights: take them even if their sha256 is not the table's; plan and scores then say so.
        data: fingerprint of the samples, part of the plan.
        generated: fingerprint of the generated files; a folder begun with others is refused, not resumed.
        name: of the system; the folder's name by default.
        shard_size: samples per shard; changes no number.
        models: networks of an earlier call, to share their memory of features.
        on_sample: called with each sample's id when it is done (also for resumed ones).

    Raises:
        SetupError: the environment is not ready (weights, packages, another plan in `out`); nothing was scored.

    """
    if not data and isinstance(samples, Sequence):
        data = "ids:" + hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()
    plan = make_plan(protocol, metrics, regions, boxes, data, failures, precision)
    if allow_missing:
        plan, _ = without_missing(plan, weights, other_weights)
    paths = resolve_all(plan.weights, weights, other_weights)
    plan = with_own(plan, weights)
    if models is None:
        models = Models(paths, device, plan.boxes.partition("/")[0], plan.needs_keypoints, precision)
    elif models.precision != precision:
        raise SetupError(f"These models are {models.precision}, the run asks for {precision}.")
    models.preload(plan.weights, plan.boxes)
    folder = None if out is None else Path(out)
    with _locked(folder):
        if folder is not None:
            claim_folder(folder, plan, shard_size, generated)
        collected = _Collected(plan)
        for number, shard in enumerate(_shards(samples, shard_size)):
            path = None if folder is None else folder / "shards" / f"{number:06d}.npz"
            done = read_shard(path) if path is not None else None
            if done is None:
                fresh = score_shard(shard, plan, models, on_sample)
                if path is not None:
                    write_atomically(path, fresh.to_bytes())
                done = rows_table(fresh.rows), fresh.states, fresh.seconds
            else:
                for sample_id in dict.fromkeys(done[0]["sample_id"].to_pylist()):
                    on_sample(sample_id)
            collected.take(*done)
        result = collected.result(name or (folder.name if folder else "generated"), str(models.device), allow_failures)
        if folder is not None:
            result = replace(result, folder=folder)
            write_atomically(folder / "samples.parquet", parquet_bytes(result.samples))
            times = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": collected.seconds}
            write_atomically(folder / "timings.json", json.dumps(times, indent=1).encode())
            write_atomically(folder / "results.json", result.to_json().encode())
    return result


def _locked(folder: Path | None) -> Any:
    if folder is None:
        return nullcontext()
    from filelock import FileLock, Timeout

    (folder / "shards").mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyRunning(f"Another process is writing to {folder}; wait for it or choose another --out.") from None


class _Collected:
    """Shards added up in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tables: list[Any] = []
        self.states: dict[Cell, State] = {}
        self.seconds: dict[str, float] = {}

    def take(self, table: Any, states: Mapping[Cell, State], seconds: Mapping[str, float]) -> None:
        self.tables.append(table)
        for cell, state in states.items():
            self.states[cell] = add(self.states.get(cell), state)
        for key, spent in seconds.items():
            self.seconds[key] = self.seconds.get(key, 0.0) + spent

    def result(self, name: str, device: str, allow_failures: int) -> Result:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.tables:
            raise SetupError("There are no samples to score.")
        table = pa.concat_tables(self.tables).combine_chunks()
        failed = table.filter(pc.field("status") == "failed")["sample_id"].unique()
        complete = len(failed) <= allow_failures
        scores = tuple(self._score(table, metric, region) for metric, region in self.plan.cells)
        return Result(name, self.plan.protocol, complete, scores, asdict(self.plan), _versions(), device, table)

    def _score(self, table: Any, name: str, region: str) -> Score:
        import pyarrow.compute as pc

        metric = self.plan.table.metrics[name]
        rows = table.filter((pc.field("metric") == name) & (pc.field("region") == region))
        status = np.array(rows["status"].to_pylist(), dtype=object)
        ok, lost = (rows.filter(e) for e in (pc.field("status") == "ok", pc.field("status") != "ok"))
        state = self.states.get((name, region))
        policy = metric.failures if self.plan.failures == "protocol" else self.plan.failures
        filler = None
        # Distances of sets and rates of errors have no clip's value to fill in.
        if isinstance(state, Mean) or (isinstance(state, Rate) and metric.higher_is_better):
            worst = (min if metric.higher_is_better else max)(ok["value"].to_pylist())
            filler = stand_in(policy, metric.higher_is_better, worst)
            state = fill(state, lost.num_rows, filler)
        value = state.value() if state is not None else math.nan
        if state is None:
            interval: tuple[tuple[float, float] | None, str] = None, "none: no sample"
        elif isinstance(state, Frechet):
            interval = jackknife_interval(state)
        else:
            values, weights = (ok[c].to_numpy(zero_copy_only=False).astype(np.float64) for c in ("value", "n"))
            identities = ok["identity_id"].to_pylist()
            if filler is not None:
                values, weights = (np.append(v, np.full(lost.num_rows, f)) for v, f in ((values, filler), (weights, 1)))
                identities += lost["identity_id"].to_pylist()
            interval = bootstrap_interval(values, weights, identities)
        coverage = ok["coverage"].to_pylist()
        low, high = metric.range
        return Score(
            metric=name,
            region=region,
            value=None if math.isnan(value) else value,
            n=ok.num_rows,
            skipped=int((status == "skipped").sum()),
            failed=int((status == "failed").sum()),
            ci95=interval[0],
            ci_method=interval[1],
            higher_is_better=metric.higher_is_better,
            range=(None if math.isinf(low) else low, None if math.isinf(high) else high),
            unit=metric.unit,
            coverage=math.fsum(coverage) / len(coverage) if coverage else None,
            networks=metric.networks + self._own(metric),
            failures="strict" if filler is None else policy,
            note=_note(state),
        )

    def _own(self, metric: Metric) -> str:
        """Which of a metric's weights are not the table's."""
        own = [name for name in metric.weights if self.plan.weights.get(name) != FILES[name].sha256]
        hashes = ", ".join(f"{name} {self.plan.weights[name][:12]}" for name in own)
        return f"; own weights: {hashes}" if own else ""


def _note(state: State | None) -> str:
    """What to mind about a distance between few features; what stands beside a word error rate."""
    if isinstance(state, Words):
        return _word_note(state)
    if not isinstance(state, Frechet) or state.generated.rows is None or state.reference.rows is None:
        return ""
    ours, theirs, width = state.generated.n, state.reference.n, state.generated.rows.shape[1]
    return (
        f"biased upwards by its few features ({ours} and {theirs} in {width} dimensions); compare it only with sets of "
        "the same size"
    )


def _word_note(state: Words) -> str:
    """Micro rate with its counts, the real clips' rate, and clips that were not understood at all."""
    unit = {0: "words", state.n: "characters"}.get(state.by_character, "words and characters")
    counts = f"{state.substitutions} substituted, {state.deletions} deleted, {state.insertions} inserted"
    said = [f"mean of clips; over all {state.units} {unit} {state.micro:.3f} ({counts})"]
    if state.floor.n:
        said.append(f"the real clips have {state.floor.value():.3f} (n {state.floor.n})")
    if state.unheard:
        without = f", without them {state.produced:.3f}" if state.unheard < state.n else ""
        said.append(f"clips in which no word was heard: {state.unheard}{without}")
    if state.hallucinations:
        said.append(f"clips in which the recogniser seems to loop: {state.hallucinations}")
    return "; ".join(said)


def _versions() -> dict[str, str]:
    found = {"jwb-dh-v1": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # optional: the plan did not need it, or it would have stopped earlier
    return found
