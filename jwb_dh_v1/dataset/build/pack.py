"""Clips and their annotation files to Parquet shards: the dataset as users load it.

The order of rows is that of the sha256 of their names: it does not depend on how clips were listed, every shard mixes
people, and the first n rows are a fair sample. A split takes whole persons. What is written does not depend on the
number of workers or on kills: a shard depends on its items alone, takes its name when it is whole, and is remembered in
`.packing/` by what went in (names, sizes and dates of files) and by the sha256 of what came out; `manifest.json` comes
last. `.packing/` is not part of the dataset and may be deleted; with it, the next run makes only what has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.dataset.schema import BadAnnotation
from jwb_dh_v1.dataset.build.index import Index, key_of
from jwb_dh_v1.dataset.build.rows import Item
from jwb_dh_v1.dataset.parquet import MANIFEST, SPLIT, UnpackedClip, Manifest, readme, shard_count, shard_name
from jwb_dh_v1.dataset.parquet import WRITER, Written, record_batch, write_rows
from jwb_dh_v1.dataset.build.rows import items_in as items_in
from jwb_dh_v1.dataset.build.rows import row_of
from jwb_dh_v1.dataset.schema import SCHEMA_VERSION
from jwb_dh_v1.errors import DataNotFound, JwbError, PlanMismatch, SetupError, Unexpected
from jwb_dh_v1.files import locked, sha256_of, write_atomically

if TYPE_CHECKING:
    from jwb_dh_v1.parallel import RayOptions

STATE = ".packing"


@dataclass(frozen=True)
class _Job:
    """One shard to be made: where, and of what."""

    out: Path
    name: str
    items: tuple[Item, ...]

    @property
    def record(self) -> Path:
        return self.out / STATE / f"{Path(self.name).stem}.json"


@dataclass(frozen=True)
class _Done:
    """A finished shard, as its record tells."""

    name: str
    file: Written
    failed: list[UnpackedClip]
    names: list[str] = field(default_factory=list)


def pack(
    items: Iterable[Item],
    out: str | Path,
    *,
    splits: Mapping[str, float | None] | None = None,
    shards: Mapping[str, int] | None = None,
    workers: int | None = None,
    executor: str = "local",
    ray: RayOptions | None = None,
    title: str = "JWB-DH-V1",
    on_item: Callable[[str, UnpackedClip | None], None] | None = None,
) -> Manifest:
    """Write a dataset: shards, `README.md` with the configurations, and `manifest.json` last.

    A pack that was killed goes on when it is run again, and then gives the same bytes. A clip that fails is listed in
    the manifest and not in the dataset; the others do not change.

    Args:
        items: taken one by one.
        out: the folder; files of an older pack in it are replaced where they are planned again.
        splits: split -> how many clips, a share of all below 1, or None for the rest, filled in this order with whole
            persons by the hash of their names; items that name a split keep it, and their person with them. Everything
            goes to `evaluation` by default. The split `teaser` becomes the configuration `teaser` with the split
            `evaluation`.
        shards: split -> number of files; `shard_count` by default.
        workers: shards that are made at a time; the bytes do not depend on it. By default 1, and on Ray as many as the
            cluster has CPUs.
        executor: `local`, processes of this machine; or `ray`, tasks of a cluster whose nodes all see clips and `out`.
        ray: which cluster, and the size of a task.
        title: of the dataset, for the README.
        on_item: called with each name, and its failure or None, when its shard is written or found finished.

    Returns:
        The manifest.

    Raises:
        DataNotFound: there is no item.
        SetupError: a person is in two splits, a split's name or number of shards is none, the disk is full, or
            workers were killed.
        MissingPackage: Ray is not installed.
        PlanMismatch: `out` holds Parquet files that this pack does not make.
        AlreadyRunning: another process packs into `out`.

    """
    place = Path(out)
    counts = shards or {}
    if any(count < 1 for count in counts.values()):
        raise SetupError(f"A split needs one shard at least, not {min(counts.values())}.")
    if executor not in {"local", "ray"}:
        raise SetupError(f"There is no executor {executor!r}; there are local, ray.")
    busy = f"Another process is packing into {place}; wait for it or choose another --out."
    with locked(place / STATE / "lock", busy):
        index = Index(place / STATE / "items.sqlite")
        with closing(index.db):
            failed = index.add(items)
            index.assign(splits or {SPLIT: None})
            plan = {split: (rows, counts.get(split) or shard_count(rows, mean)) for split, rows, mean in index.splits()}
            if not plan:
                raise DataNotFound("There is not one clip to pack.")
            names = {shard_name(split, n, count) for split, (_, count) in plan.items() for n in range(count)}
            _clear(place, names)
            (place / MANIFEST).unlink(missing_ok=True)
            for failure in failed:
                _tell(on_item, failure.sample_id, failure)
            files: dict[str, Written] = {}
            jobs = _jobs(place, index, plan)
            for done in _in_ray(jobs, workers, ray) if executor == "ray" else _run(jobs, workers or 1):
                files[done.name] = done.file
                failed += done.failed
                wrong = {failure.sample_id: failure for failure in done.failed}
                for name in done.names:
                    _tell(on_item, name, wrong.get(name))
        (place / STATE / "items.sqlite").unlink()
        failed.sort(key=lambda failure: (key_of(failure.sample_id), failure.video))
        manifest = Manifest({name: files[name] for name in sorted(files)}, tuple(failed))
        write_atomically(place / "README.md", readme(manifest, title))
        write_atomically(place / MANIFEST, manifest.to_json())
    return manifest


def _tell(on_item: Callable[[str, UnpackedClip | None], None] | None, name: str, failure: UnpackedClip | None) -> None:
    if on_item is not None:
        on_item(name, failure)


def _clear(place: Path, names: set[str]) -> None:
    """Remove what a kill left half written, and refuse a folder with other shards: globs would take them in."""
    for path in sorted(place.rglob("*")):
        if path.suffix in {".part", ".partial"} and path.name.startswith("."):
            path.unlink()
        elif path.suffix == ".parquet" and path.relative_to(place).as_posix() not in names:
            raise PlanMismatch(
                f"{path} is no file of this pack (the clips, splits or --shards are others now); delete it or choose "
                "another --out."
            )
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)


def _jobs(place: Path, index: Index, plan: Mapping[str, tuple[int, int]]) -> Iterator[_Job]:
    for split, (rows, count) in plan.items():
        items = index.items(split)
        for number in range(count):
            size = (number + 1) * rows // count - number * rows // count
            yield _Job(place, shard_name(split, number, count), tuple(next(items) for _ in range(size)))


def _run(jobs: Iterator[_Job], workers: int) -> Iterator[_Done]:
    """The finished shards, in any order; only a few jobs are held at a time."""
    if workers <= 1:
        yield from map(_make, jobs)
        return
    # Started afresh, since forks of a process with threads (FFmpeg, pyarrow) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_die_with_parent) as pool:
        running: set[Future[_Done]] = set()
        try:
            for job in jobs:
                running.add(pool.submit(_make, job))
                if len(running) >= 2 * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in running)
        except BrokenProcessPool:
            raise SetupError(
                "A worker was killed while packing (too little memory?); run it again, perhaps with fewer workers."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _in_ray(jobs: Iterator[_Job], workers: int | None, options: RayOptions | None) -> Iterator[_Done]:
    """The finished shards, in any order, made by tasks of a Ray cluster."""
    from jwb_dh_v1.parallel import RayOptions, connected, ray_map

    options = options or RayOptions()
    with connected(options) as ray:
        for name, done in ray_map(ray, _make, ((job.name, (job,)) for job in jobs), options, most=workers):
            if isinstance(done, Exception):
                raise SetupError(
                    f"Each time a worker made {name} it was lost ({str(done).strip().splitlines()[0]}); more --shards "
                    "make smaller ones."
                ) from done
            yield done


def _die_with_parent() -> None:
    """A pool's workers do not notice that their parent was killed, and would go on writing."""
    import threading
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make(job: _Job) -> _Done:
    """Make a shard, or find it made."""
    names = [item.sample_id for item in job.items]
    key = _inputs(job)
    done = _remembered(job, key)
    if done is None:
        failed: list[UnpackedClip] = []
        try:
            file = write_rows(_batches(job.items, failed), job.out / job.name)
        except OSError as error:
            raise SetupError(f"{job.out / job.name} cannot be written: {error.strerror or error}.") from None
        done = _Done(job.name, file, failed)
        record = {"inputs": key, "file": asdict(file), "failed": [asdict(failure) for failure in failed]}
        write_atomically(job.record, json.dumps(record))
    return _Done(done.name, done.file, done.failed, names)


def _batches(items: Sequence[Item], failed: list[UnpackedClip]) -> Iterator[Any]:
    for item in items:
        try:
            row = row_of(item)
            try:
                batch = record_batch(row)
            except ValueError as error:
                raise BadAnnotation(f"{item.sample_id}: {error}.") from None
        except SetupError:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where a clip's trouble is kept from the others
            typed = error if isinstance(error, JwbError) else Unexpected(f"{type(error).__name__}: {error}")
            failed.append(UnpackedClip(item.sample_id, item.video.name, type(typed).__name__, str(typed)))
            continue
        yield batch


def _remembered(job: _Job, key: str) -> _Done | None:
    """The shard if it was made of the same files in the same way and is unaltered."""
    try:
        told = json.loads(job.record.read_text(encoding="utf-8"))
        file = Written(**told["file"])
        if told["inputs"] == key and sha256_of(job.out / job.name) == file.sha256:
            return _Done(job.name, file, [UnpackedClip(**failure) for failure in told["failed"]])
    except (OSError, ValueError, KeyError, TypeError):  # not made yet, or half of a record
        pass
    return None


def _inputs(job: _Job) -> str:
    """A hash of all that a shard's bytes come from, the files by name, size and date."""
    digest = hashlib.sha256(repr((_maker(), job.name)).encode())
    for item in job.items:
        files = [path for path in (item.video, item.audio, *item.annotations) if path is not None]
        told = sorted((key, repr(value)) for key, value in item.columns.items())
        digest.update(repr((item.sample_id, item.identity_id, told, [_facts(path) for path in files])).encode())
    return digest.hexdigest()


def _facts(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return path.name, -1, -1
    return path.name, stat.st_size, stat.st_mtime_ns


@cache
def _maker() -> tuple[object, ...]:
    """What makes the bytes, besides the clips."""
    from importlib.metadata import version

    from jwb_dh_v1.version import __version__

    return __version__, SCHEMA_VERSION, WRITER, version("pyarrow"), version("av")
