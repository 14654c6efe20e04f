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
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal

from jwb_dh_v1.errors import SetupError, Stopped
from jwb_dh_v1.files import Folder, LocalFolder, folder_at
from jwb_dh_v1.media.worker import Decoder
from jwb_dh_v1.metrics.policy import Policy
from jwb_dh_v1.metrics.region import REGIONS, Region
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import NetworkPool, Precision
from jwb_dh_v1.networks.weights import resolve_all
from jwb_dh_v1.parallel import RayOptions, connected
from jwb_dh_v1.scoring.aggregator import Aggregator
from jwb_dh_v1.scoring.executors import Executor, MissingShards, Stop, in_process, stoppable
from jwb_dh_v1.scoring.plan import make_plan, with_own, without_missing
from jwb_dh_v1.scoring.ray_pool import in_ray, ray_device
from jwb_dh_v1.scoring.result import Result, parquet_bytes, rows_table
from jwb_dh_v1.scoring.run_folder import ALL, finished, lock_shards, read_run_facts, shard_file, write_run_facts
from jwb_dh_v1.scoring.shard import score_shard

SHARD = 64
PASSING = {"Disturbed", "DecoderHung", "DecoderCrashed"}  # failures of a clip's storage, or of this machine's load


class _Shards:
    """Consecutive runs of `size` samples that lie in a range; each sample is read only when it is wanted.

    Attributes:
        count: of all shards, once it is known (at the latest at the end of a walk that met the samples' end).

    """

    def __init__(self, samples: Iterable[Sample], size: int, wanted: range) -> None:
        if size < 1:
            raise SetupError(f"A shard has one sample at least, not {size}.")
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
    models: NetworkPool | None = None,
    executor: Executor = "local",
    ray: RayOptions | None = None,
    shards: tuple[int, int] | None = None,
    isolate: bool | None = None,
    on_sample: Callable[[str], None] = lambda name: None,
) -> Result:
    """Score a set of samples.

    Args:
        samples: a sequence (finished shards are then not even read), or any iterable in a fixed order.
        metrics, regions, protocol, boxes, failures, precision: what to compute, see `make_plan`.
        out: folder for results, or a URL that fsspec knows (`s3://bucket/run`, `hf://...`); the same call on the same
            folder resumes. Without it nothing is written.
        device: `auto`, `cpu`, `cuda`, ...
        allow_failures: the result counts as complete with up to so many failed samples.
        allow_missing: leave out metrics whose weights are not here, instead of stopping.
        weights: the user's own files by name.
        other_weights: take them even if their sha256 is not the table's; plan and scores then say so.
        data: fingerprint of the samples, part of the plan.
        generated: fingerprint of the generated files; a folder begun with others is refused, not resumed.
        name: of the system; the folder's name by default.
        shard_size: samples per shard; changes no number.
        models: networks of an earlier call, to share their memory of features (Ray workers have their own).
        executor: `local`, this process; or `ray`, actors of a Ray cluster, with the same bytes as result.
        ray: which cluster, and how many actors of what size.
        shards: score only the shards from the first number to one before the second and write no results: for job
            arrays, whose processes may share `out` while their ranges do not overlap. `merge` then adds up. What is
            returned is the result of these shards alone, and not complete.
        isolate: files are opened in a process of their own, which decodes one sample ahead: a file that makes it hang
            or crash fails its own sample (`DecoderHung`, `DecoderCrashed`). None: where there is a folder. Ray workers
            always do.
        on_sample: called with each sample's id when it is done (also for resumed ones).

    Raises:
        SetupError: the environment is not ready (weights, packages, another plan in `out`); nothing was scored.
        AlreadyRunning: another process writes to `out` (the same shards of it).
        Stopped: SIGTERM or Ctrl-C came; the shards that were begun are written and the same call goes on from there.
        WorkersLost: some shards ended all their workers; the others are written.
        NotWritable: `out` is full, read-only or gone; the shards that were written go on to count.

    """
    if executor not in {"local", "ray"}:
        raise SetupError(f"There is no executor {executor!r}; there are local, ray.")
    if shards is not None and (out is None or not 0 <= shards[0] < shards[1]):
        raise SetupError(f"Shards {shards[0]}:{shards[1]} need a folder, and 0 <= first < last.")
    if not data and isinstance(samples, Sequence):
        data = "ids:" + hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()
    plan = make_plan(protocol, metrics, regions, boxes, data, failures, precision)
    if allow_missing:
        plan, _ = without_missing(plan, weights, other_weights)
    paths = resolve_all(plan.weights, weights, other_weights)
    plan = with_own(plan, weights)
    if models is not None and models.precision != precision:
        raise SetupError(f"These models are {models.precision}, the run asks for {precision}.")
    folder = None if out is None else folder_at(out)
    name = name or (folder.name if folder else "generated")
    parts = _Shards(samples, shard_size, range(*shards) if shards else range(ALL))
    with ExitStack() as stack:
        own = (isolate or (isolate is None and folder is not None)) and executor == "local" and Decoder.here()
        decoder = stack.enter_context(Decoder()) if own else None
        if decoder is not None:
            decoder.start()  # while networks are loaded here
        if executor == "local":
            models = models or NetworkPool(paths, device, plan.boxes.partition("/")[0], plan.needs_keypoints, precision)
            models.preload(plan.weights, plan.boxes)
        room = folder
        if room is None and executor == "ray":
            room = LocalFolder(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        if room is not None:
            stack.enter_context(lock_shards(room, parts.wanted, plan, shard_size, generated))
        options = ray or RayOptions()
        cluster = stack.enter_context(connected(options)) if executor == "ray" else None
        used = ray_device(cluster, device, options) if cluster is not None else str(models.device)  # type: ignore[union-attr]
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
                work = in_ray(cluster, todo, plan, paths, used, precision, options, stop, on_sample)
            else:
                assert models is not None
                work = in_process(todo, plan, models, on_sample, decoder)
            with closing(work):
                for number, content in work:
                    room.write(shard_file(number), content)
            if not stop:
                _collect(collected, room, numbers)
        if stop.signal is not None:
            what = "nothing was written" if folder is None else "the same call goes on from here"
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


def merge(out: str | Path, allow_failures: int = 0) -> Result:
    """Add up the shards of runs that were given `shards`, and write the results: byte-equal to those of one run.

    Args:
        out: the folder, or URL, of those runs.
        allow_failures: the result counts as complete with up to so many failed samples.

    Raises:
        DataNotFound: there was no such run in this folder.
        MissingShards: names the shards that are not there yet, or damaged.
        PlanMismatch: what the runs wrote down about themselves is damaged.
        AlreadyRunning: some are being written.

    """
    folder = folder_at(out)
    plan, facts = read_run_facts(folder)
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
