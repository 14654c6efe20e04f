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
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, PlanMismatch, SetupError, Stopped
from jwb_dh_v1.executors import (
    Executor,
    MissingShards,
    RayOptions,
    Stop,
    connected,
    in_process,
    in_ray,
    ray_device,
    stoppable,
)
from jwb_dh_v1.models import Models, Precision
from jwb_dh_v1.plan import Cell, Plan, claim_folder, make_plan, with_own, without_missing
from jwb_dh_v1.region import REGIONS, Region
from jwb_dh_v1.results import (
    Result,
    parquet_bytes,
    rows_table,
    write_atomically,
)
from jwb_dh_v1.results.policy import Policy
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.shard import read_shard, score_shard
from jwb_dh_v1.state import State
from jwb_dh_v1.totals import Totals, versions_here
from jwb_dh_v1.weights import resolve_all

SHARD = 64
RANGES = "ranges.json"
GATE = 60  # seconds


Finished = tuple[Any, dict[Cell, State], dict[str, float]]  # rows (pyarrow Table), states, seconds


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
    models: Models | None = None,
    executor: Executor = "local",
    ray: RayOptions | None = None,
    shards: tuple[int, int] | None = None,
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
        models: networks of an earlier call, to share their memory of features (Ray workers have their own).
        executor: `local`, this process; or `ray`, actors of a Ray cluster, with the same bytes as result.
        ray: which cluster, and how many actors of what size.
        shards: score only the shards from the first number to one before the second and write no results: for job
            arrays, whose processes may share `out` while their ranges do not overlap. `merge` then adds up. What is
            returned is the result of these shards alone, and not complete.
        on_sample: called with each sample's id when it is done (also for resumed ones).

    Raises:
        SetupError: the environment is not ready (weights, packages, another plan in `out`); nothing was scored.
        AlreadyRunning: another process writes to `out` (the same shards of it).
        Stopped: SIGTERM or Ctrl-C came; the shards that were begun are written and the same call goes on from there.
        WorkersLost: some shards ended all their workers; the others are written.

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
    folder = None if out is None else Path(out)
    name = name or (folder.name if folder else "generated")
    parts = _Shards(samples, shard_size, range(*shards) if shards else range(2**62))
    with ExitStack() as stack:
        if executor == "local":
            models = models or Models(paths, device, plan.boxes.partition("/")[0], plan.needs_keypoints, precision)
            models.preload(plan.weights, plan.boxes)
        room = folder
        if room is None and executor == "ray":
            room = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if room is not None:
            stack.enter_context(_claimed(room, parts.wanted, plan, shard_size, generated))
        options = ray or RayOptions()
        cluster = stack.enter_context(connected(options)) if executor == "ray" else None
        used = ray_device(cluster, device, options) if cluster is not None else str(models.device)  # type: ignore[union-attr]
        if shards is not None and folder is not None:
            _agree(folder, name, used, parts.count)
        stop = stack.enter_context(stoppable())
        collected = Totals(plan)
        if room is None:
            assert models is not None
            for _, shard in _until(stop, parts):
                fresh = score_shard(shard, plan, models, on_sample)
                collected.take(rows_table(fresh.rows), fresh.states, fresh.seconds)
        else:
            numbers: list[int] = []
            todo = _unfinished(_until(stop, parts), room, numbers, on_sample)
            if cluster is not None:
                work = in_ray(cluster, todo, plan, paths, used, precision, options, stop, on_sample)
            else:
                assert models is not None
                work = in_process(todo, plan, models, on_sample)
            with closing(work):
                for number, content in work:
                    write_atomically(_path(room, number), content)
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
            _agree(folder, name, used, parts.count)  # a stream's end may have told the count
            return replace(result, folder=folder, complete=False)
    return result


def merge(folder: str | Path, allow_failures: int = 0) -> Result:
    """Add up the shards of runs that were given `shards`, and write the results: byte-equal to those of one run.

    Raises:
        DataNotFound: there was no such run in this folder.
        MissingShards: names the shards that are not there yet, or damaged.
        AlreadyRunning: some are being written.

    """
    folder = Path(folder)
    if not (folder / RANGES).is_file():
        raise DataNotFound(
            f"{folder} holds no run in ranges; run `jwb-dh score ... --shards A:B --out {folder}` first."
        )
    facts = json.loads((folder / RANGES).read_text(encoding="utf-8"))
    found = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    plan = Plan(**{field.name: found[field.name] for field in fields(Plan)})
    plan = replace(plan, cells=tuple((metric, region) for metric, region in plan.cells))
    if facts["count"] is None:
        raise MissingShards(f"No run of {folder} has met the end of the samples; run one more with later --shards.")
    numbers = range(facts["count"])
    collected = Totals(plan)
    with _claimed(folder, range(2**62)):
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
    shards: Iterable[tuple[int, Iterator[Sample]]], folder: Path, numbers: list[int], on_sample: Callable[[str], None]
) -> Iterator[tuple[int, Iterator[Sample]]]:
    """The shards without a whole file; `numbers` takes up all of them."""
    for number, shard in shards:
        numbers.append(number)
        done = _finished(_path(folder, number))
        if done is None:
            yield number, shard
        else:
            for sample_id in dict.fromkeys(done[0]["sample_id"].to_pylist()):
                on_sample(sample_id)


def _path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:06d}.npz"


def _finished(path: Path) -> Finished | None:
    """A shard's file, or None where it is absent or damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            # All of it: what NumPy does not read, because a damaged header promises less, it does not check either.
            return None if file.testzip() else read_shard(path)
    except Exception:  # noqa: BLE001 - a flipped bit may end in any error; the shard is scored again
        return None


def _collect(collected: Totals, folder: Path, numbers: Iterable[int]) -> None:
    """Add up finished shards.

    Raises:
        MissingShards: some are absent or damaged.

    """
    missing = []
    for number in numbers:
        done = _finished(_path(folder, number))
        if done is None:
            missing.append(number)
        elif not missing:
            collected.take(*done)
    if missing:
        named = ", ".join(_runs(missing))
        raise MissingShards(f"{len(missing)} shards in {folder} are missing or damaged: {named}. Score them (again).")


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Numbers as `A:B`, as `--shards` takes them."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        values = [value for _, value in run]
        yield f"{values[0]}:{values[-1] + 1}"


def _written(result: Result, collected: Totals, folder: Path) -> Result:
    write_atomically(folder / "samples.parquet", parquet_bytes(result.samples))
    times = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": collected.seconds}
    write_atomically(folder / "timings.json", json.dumps(times, indent=1).encode())
    write_atomically(folder / "results.json", result.to_json().encode())
    return replace(result, folder=folder)


@contextmanager
def _gate(folder: Path) -> Iterator[None]:
    """One process at a time, for moments; what all of a folder's processes write is written in here."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=GATE):
            yield
    except Timeout:
        raise AlreadyRunning(f"Another process holds {folder / '.lock'} since {GATE} s; is it stuck?") from None


@contextmanager
def _claimed(
    folder: Path, wanted: range, plan: Plan | None = None, shard_size: int = 0, generated: str = ""
) -> Iterator[None]:
    """Hold a range of a folder's shards; processes may hold ranges of one folder that do not overlap.

    Raises:
        AlreadyRunning: another process holds some of them.
        PlanMismatch: the folder is another plan's.

    """
    from filelock import FileLock, Timeout

    (folder / "shards").mkdir(parents=True, exist_ok=True)
    mine = FileLock(folder / f".shards-{wanted.start}-{wanted.stop}.lock")
    with _gate(folder):
        for path in sorted(folder.glob(".shards-*-*.lock")):
            start, stop = map(int, path.stem.split("-")[1:])
            if start >= wanted.stop or stop <= wanted.start:
                continue
            other = FileLock(path)
            try:
                other.acquire(timeout=0)
            except Timeout:
                which = f"to shards {start}:{stop} of" if stop < 2**62 else "to"
                raise AlreadyRunning(
                    f"Another process is writing {which} {folder}; wait for it or choose another --out."
                ) from None
            path.unlink(missing_ok=True)  # left by a run that is over
            other.release()
        if plan is not None:
            claim_folder(folder, plan, shard_size, generated)
        mine.acquire(timeout=0)
    try:
        yield
    finally:
        mine.release()


def _agree(folder: Path, name: str, device: str, count: int | None) -> None:
    """Write down what `merge` needs and the plan does not hold.

    Raises:
        PlanMismatch: other processes of this folder have another name, device or versions of packages.

    """
    path = folder / RANGES
    facts: dict[str, Any] = {"name": name, "device": device, "versions": versions_here(), "count": count}
    with _gate(folder):
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else facts
        for key in ("name", "device", "versions"):
            if known[key] != facts[key]:
                raise PlanMismatch(f"{folder} was begun with {key} {known[key]!r}; here it is {facts[key]!r}.")
        if known is facts or (known["count"] is None and count is not None):
            write_atomically(path, json.dumps(facts, indent=1).encode())
