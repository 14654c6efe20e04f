"""From samples to a result: shards, resume, and the final addition.

A run's folder holds `plan.json`, one file per finished shard, and at the end `results.json`, `samples.parquet`,
`timings.json`. A run that was killed at any moment goes on where it was, and its results are byte-equal to those of a
run that was not. The shards may be scored in several processes or machines (`executor`, `shards` and `merge`): the
results are added up from the shards' files in their order, whoever wrote them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

from jwb_dh_v1.errors import SetupError, Stopped
from jwb_dh_v1.files import Folder, LocalFolder, folder_at
from jwb_dh_v1.media.worker import Decoder
from jwb_dh_v1.metrics.metric import Metric
from jwb_dh_v1.metrics.policy import Policy
from jwb_dh_v1.metrics.protocols import Protocol
from jwb_dh_v1.metrics.region import REGIONS, Region
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.network import Precision
from jwb_dh_v1.networks.pool import NetworkPool, device_name
from jwb_dh_v1.networks.weights import resolve_all
from jwb_dh_v1.parallel import connected
from jwb_dh_v1.scoring.aggregator import Aggregator
from jwb_dh_v1.scoring.executors import Execution, MissingShards, Stop, in_process, stoppable
from jwb_dh_v1.scoring.plan import Plan, make_plan, with_own, without_missing
from jwb_dh_v1.scoring.ray_pool import in_ray, ray_device
from jwb_dh_v1.scoring.result import Result, parquet_bytes, rows_table
from jwb_dh_v1.scoring.run_folder import ALL, finished, lock_shards, read_run_facts, shard_file, write_run_facts
from jwb_dh_v1.scoring.shard import score_shard

LOCAL = Execution()
PASSING = {"Disturbed", "DecoderHung", "DecoderCrashed"}  # failures of a clip's storage, or of this machine's load


class _Shards:
    """Consecutive runs of `size` samples that lie in a range; each sample is read only when it is wanted.

    Attributes:
        count: of all shards, once it is known (at the latest at the end of a walk that met the samples' end).

    """

    def __init__(self, samples: Iterable[Sample], size: int, wanted: range) -> None:
        self.samples, self.size, self.wanted = samples, size, wanted
        total = len(samples) if isinstance(samples, Sequence) else getattr(samples, "size", None)
        self.count: int | None = None if total is None else -(-total // size)

    def __iter__(self) -> Iterator[tuple[int, Iterator[Sample]]]:
        size, samples = self.size, self.samples
        if isinstance(samples, Sequence):
            for number in range(self.wanted.start, min(self.wanted.stop, -(-len(samples) // size))):
                at = number * size
                yield number, (samples[i] for i in range(at, min(at + size, len(samples))))
            return
        # groupby reads one sample at a time, and what is left of a shard when the next one is asked for.
        seen = 0
        for number, shard in groupby(enumerate(samples), key=lambda pair: pair[0] // size):
            if number >= self.wanted.stop:
                return
            seen = number + 1
            if number in self.wanted:
                yield number, (sample for _, sample in shard)
        self.count = seen


@dataclass(frozen=True)
class Prepared:
    """A plan whose weights are here.

    Attributes:
        plan: what is computed; `data` is filled in for each run.
        paths: verified weight files by name.
        missing: metrics that were left out, and the weights that each lacks.

    """

    plan: Plan
    paths: Mapping[str, Path]
    missing: Mapping[str, Sequence[str]]


def prepare(
    protocol: str | Protocol = "standard",
    metrics: Sequence[str | Metric] | None = None,
    regions: Sequence[Region] = REGIONS,
    *,
    boxes: str | None = None,
    failures: Policy | Literal["protocol"] = "protocol",
    precision: Precision = "fp32",
    weights: Mapping[str, Path] | None = None,
    other_weights: bool = False,
    allow_missing: bool = False,
) -> Prepared:
    """Make the plan and find and hash every weight file it needs; the arguments are those of `score`.

    Raises:
        SetupError: an unknown name, weights that are not here, or nothing left to score.

    """
    plan = make_plan(protocol, metrics, regions, boxes, failures=failures, precision=precision)
    missing: Mapping[str, Sequence[str]] = {}
    if allow_missing:
        plan, missing = without_missing(plan, weights, other_weights)
    paths = resolve_all(plan.weights, weights, other_weights)
    return Prepared(with_own(plan, weights), paths, missing)


def score(
    samples: Iterable[Sample],
    metrics: Sequence[str | Metric] | None = None,
    regions: Sequence[Region] = REGIONS,
    *,
    protocol: str | Protocol = "standard",
    out: str | Path | None = None,
    device: object = "auto",
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
    models: NetworkPool | None = None,
    execution: Execution = LOCAL,
    on_sample: Callable[[str], None] = lambda name: None,
) -> Result:
    """Score a set of samples.

    Args:
        samples: a sequence (finished shards are then not even read), or any iterable in a fixed order.
        metrics, regions, protocol, boxes, failures, precision: what to compute, see `make_plan`.
        out: folder for results, or a URL that fsspec knows (`s3://bucket/run`, `hf://...`); the same call on the same
            folder resumes. Without it nothing is written.
        device: `auto`, `cpu`, `cuda`, ..., a `torch.device`, or the number of a CUDA device.
        allow_failures: the result counts as complete with up to so many failed samples.
        allow_missing: leave out metrics whose weights are not here, instead of stopping.
        weights: the user's own files by name.
        other_weights: take them even if their sha256 is not the table's; plan and scores then say so.
        data: fingerprint of the samples, part of the plan.
        generated: fingerprint of the generated files; a folder begun with others is refused, not resumed.
        name: of the system; the folder's name by default.
        models: networks of an earlier call, to share their memory of features (Ray workers have their own).
        execution: where and in which pieces the work is done; changes no number.
        on_sample: called with each sample's id when it is done (also for resumed ones).

    Returns:
        The result; with `execution.shards` that of these shards alone, which is not complete.

    Raises:
        SetupError: the environment is not ready (weights, packages, another plan in `out`); nothing was scored.
        AlreadyRunning: another process writes to `out` (the same shards of it).
        Stopped: SIGTERM or Ctrl-C came; finished shards are kept, and the same call resumes.
        WorkersLost: some shards ended all their workers; the others are written.
        NotWritable: `out` is full, read-only or gone; the shards that were written still count.

    """
    prepared = prepare(
        protocol,
        metrics,
        regions,
        boxes=boxes,
        failures=failures,
        precision=precision,
        weights=weights,
        other_weights=other_weights,
        allow_missing=allow_missing,
    )
    return run(
        prepared,
        samples,
        out,
        device=device,
        allow_failures=allow_failures,
        data=data,
        generated=generated,
        name=name,
        models=models,
        execution=execution,
        on_sample=on_sample,
    )


def run(
    prepared: Prepared,
    samples: Iterable[Sample],
    out: str | Path | None = None,
    *,
    device: object = "auto",
    allow_failures: int = 0,
    data: str = "",
    generated: str = "",
    name: str | None = None,
    models: NetworkPool | None = None,
    execution: Execution = LOCAL,
    on_sample: Callable[[str], None] = lambda name: None,
) -> Result:
    """Score samples by a plan that is made; arguments and errors are those of `score`."""
    if execution.shards is not None and out is None:
        raise SetupError("A range of shards needs a folder that the others are written to as well.")
    if not data and isinstance(samples, Sequence):
        data = "ids:" + hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()
    plan, shards, device = replace(prepared.plan, data=data), execution.shards, device_name(device)
    if models is not None and models.precision != plan.precision:
        raise SetupError(f"These models are {models.precision}, the run asks for {plan.precision}.")
    folder = None if out is None else folder_at(out)
    name = name or (folder.name if folder else "generated")
    parts = _Shards(samples, execution.shard_size, range(*shards) if shards else range(ALL))
    local = execution.executor == "local"
    with ExitStack() as stack:
        isolate = folder is not None if execution.isolate is None else execution.isolate
        decoder = stack.enter_context(Decoder()) if isolate and local and Decoder.here() else None
        if decoder is not None:
            decoder.start()  # while networks are loaded here
        if local:
            models = models or plan.pool(prepared.paths, device)
            models.preload(plan.weights, plan.boxes)
        room = folder
        if room is None and not local:
            room = LocalFolder(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        if room is not None:
            stack.enter_context(lock_shards(room, parts.wanted, plan, execution.shard_size, generated))
        cluster = None if local else stack.enter_context(connected(execution.ray))
        used = str(models.device) if cluster is None else ray_device(cluster, device, execution.ray)  # type: ignore[union-attr]
        if shards is not None and folder is not None:
            write_run_facts(folder, name, used, parts.count)
        stop = stack.enter_context(stoppable())
        collected = Aggregator(plan)
        if room is None:
            assert models is not None
            for _, shard in _until(stop, parts):
                fresh = score_shard(shard, plan, models, on_sample, decoder)
                collected.take(rows_table(fresh.rows), fresh.states, fresh.seconds)
        else:
            numbers: list[int] = []
            todo = _unfinished(_until(stop, parts), room, numbers, on_sample)
            if cluster is not None:
                work = in_ray(cluster, todo, plan, prepared.paths, used, execution.ray, stop, on_sample)
            else:
                assert models is not None
                work = in_process(todo, plan, models, on_sample, decoder)
            with closing(work):
                for number, content in work:
                    room.write(shard_file(number), content)
            if not stop:
                _collect(collected, room, numbers)
        if stop.signal is not None:
            what = "nothing was written" if folder is None else "run the same command again to resume"
            raise Stopped(f"stopped after a whole shard; {what}.", stop.signal)
        if shards is not None and not collected.tables:
            raise SetupError(f"There are no shards {shards[0]}:{shards[1]}; the samples make {parts.count}.")
        result = collected.result(name, used, allow_failures)
        if folder is not None and shards is None:
            return _written(result, collected, folder)
        if shards is not None and folder is not None:
            write_run_facts(folder, name, used, parts.count)  # a stream's end may have told the count
            return replace(result, folder=folder.path, complete=False)
    return result


def merge(out: str | Path, allow_failures: int = 0, protocol: str | Protocol | None = None) -> Result:
    """Add up the shards of runs that were given `shards`, and write the results: byte-equal to those of one run.

    Args:
        out: the folder, or URL, of those runs.
        allow_failures: the result counts as complete with up to so many failed samples.
        protocol: of those runs, where it is neither one of ours nor installed.

    Raises:
        SetupError: there is no such protocol here.
        DataNotFound: there was no such run in this folder.
        MissingShards: names the shards that are not there yet, or damaged.
        PlanMismatch: what the runs wrote down about themselves is damaged.
        AlreadyRunning: some are being written.

    """
    folder = folder_at(out)
    plan, facts = read_run_facts(folder, protocol)
    if facts["count"] is None:
        raise MissingShards(
            f"No run of {folder.place} has met the end of the samples; run one more with later --shards."
        )
    numbers = range(facts["count"])
    collected = Aggregator(plan)
    with lock_shards(folder, range(ALL)):
        _collect(collected, folder, numbers)
        return _written(
            replace(collected.result(facts["name"], facts["device"], allow_failures), versions=facts["versions"]),
            collected,
            folder,
        )


def _until(stop: Stop, shards: Iterable[tuple[int, Iterator[Sample]]]) -> Iterator[tuple[int, Iterator[Sample]]]:
    """The shards, until the run is asked to stop."""
    for shard in shards:
        if stop:
            return
        yield shard


def _unfinished(
    shards: Iterable[tuple[int, Iterator[Sample]]], folder: Folder, numbers: list[int], on_sample: Callable[[str], None]
) -> Iterator[tuple[int, Iterator[Sample]]]:
    """The shards without a whole file, or with a failure that may be over; `numbers` takes up all of them."""
    for number, shard in shards:
        numbers.append(number)
        done = finished(folder, number)
        if done is None or not PASSING.isdisjoint(done[0]["error"].to_pylist()):
            yield number, shard
        else:
            for sample_id in dict.fromkeys(done[0]["sample_id"].to_pylist()):
                on_sample(sample_id)


def _collect(collected: Aggregator, folder: Folder, numbers: Iterable[int]) -> None:
    """Add up finished shards.

    Raises:
        MissingShards: some are absent or damaged.

    """
    missing = []
    for number in numbers:
        done = finished(folder, number)
        if done is None:
            missing.append(number)
        elif not missing:
            collected.take(*done)
    if missing:
        named = ", ".join(_runs(missing))
        raise MissingShards(
            f"{len(missing)} shards in {folder.place} are missing or damaged: {named}. Score them (again)."
        )


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Numbers as `A:B`, as `--shards` takes them."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        values = [value for _, value in run]
        yield f"{values[0]}:{values[-1] + 1}"


def _written(result: Result, collected: Aggregator, folder: Folder) -> Result:
    folder.write("samples.parquet", parquet_bytes(result.samples))
    times = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": collected.seconds}
    folder.write("timings.json", json.dumps(times, indent=1).encode())
    folder.write("results.json", result.to_json().encode())
    return replace(result, folder=folder.path)
