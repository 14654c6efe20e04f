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
import pickle
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jwb_dh_v1.data.folder import write_text
from jwb_dh_v1.data.items import Item
from jwb_dh_v1.data.parquet import WRITER, Written, record_batch, write_rows
from jwb_dh_v1.data.readers import BadAnnotation
from jwb_dh_v1.data.rows import blob, row_of
from jwb_dh_v1.data.rows import items_in as items_in
from jwb_dh_v1.data.schema import SCHEMA_VERSION
from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, JwbError, PlanMismatch, SetupError, Unexpected
from jwb_dh_v1.weights import sha256_of

MANIFEST = "manifest.json"
STATE = ".packing"
SPLIT = "evaluation"
PER_FOLDER = 1024  # files; the Hub refuses 10,000


# ------------------------------------------------------------------------------------------------------------ splits


@dataclass(frozen=True)
class Failure:
    """A clip that is not in the dataset, and why: the type of the error and its message."""

    sample_id: str
    video: str
    error: str
    message: str


@dataclass(frozen=True)
class Manifest:
    """What a packed folder holds: facts of each file by its path, and the clips that failed."""

    files: Mapping[str, Written]
    failed: tuple[Failure, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files.values())

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files.values())

    def splits(self) -> dict[str, dict[str, Written]]:
        """The files of each split (the first folder of their path)."""
        found: dict[str, dict[str, Written]] = {}
        for path, file in self.files.items():
            found.setdefault(path.split("/")[0], {})[path] = file
        return found

    def to_json(self) -> str:
        """The text of `manifest.json`; the same for the same rows."""
        totals = {
            split: {"files": len(files), "rows": sum(f.rows for f in files.values())}
            | {"bytes": sum(f.bytes for f in files.values())}
            for split, files in self.splits().items()
        }
        content = {
            "schema_version": self.schema_version,
            "rows": self.rows,
            "bytes": self.bytes,
            "splits": totals,
            "files": {path: asdict(file) for path, file in self.files.items()},
            "failed": [asdict(failure) for failure in self.failed],
        }
        return json.dumps(content, indent=1) + "\n"


def shard_count(rows: int, mean_bytes: float) -> int:
    """How many files a split is cut into: 2^k or 3 * 2^k, so that most numbers of nodes and workers divide it.

    192 for 20,000 clips of 3 MB (312 MB a file), 6144 for 2 million (1 GB a file): files grow with the fourth root of
    the whole, between few files and enough of them for everyone who reads. A file has 64 rows at least.

    Args:
        rows: number of clips.
        mean_bytes: mean size of a clip.

    """
    wanted = 190 * (rows * mean_bytes / 60e9) ** 0.75
    ladder: list[int] = sorted({2**k for k in range(15)} | {3 * 2**k for k in range(13)})
    fitting = [count for count in ladder if count <= max(rows // 64, 1)]
    return next((count for count in fitting if count >= wanted), fitting[-1])


def shard_name(split: str, number: int, count: int) -> str:
    """The path of a shard in the dataset; more than 1,024 files go into sub-folders of so many."""
    folder = split if count <= PER_FOLDER else f"{split}/{number // PER_FOLDER:03d}"
    return f"{folder}/{split}-{number:05d}-of-{count:05d}.parquet"


class _Index:
    """All items of a pack, on disk in the order of their hashes: memory stays flat in their number."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.db = sqlite3.connect(path)
        self.db.execute("pragma journal_mode = off")
        self.db.execute("pragma synchronous = off")
        self.db.execute(
            "create table item (key blob primary key, person blob, split text, size int, item blob) without rowid"
        )

    def add(self, items: Iterable[Item]) -> list[Failure]:
        """Take up the items; those whose name is there already are failures."""
        twice = []
        for item in items:
            person = hashlib.sha256(blob(item.identity_id)).digest()
            try:
                size = item.video.stat().st_size
            except (OSError, ValueError):  # found out when the row is made
                size = 0
            record = (_key(item.sample_id), person, item.split, size, pickle.dumps(item))
            if not self.db.execute("insert or ignore into item values (?, ?, ?, ?, ?)", record).rowcount:
                message = "sample_id is there twice; rename one of the two files"
                twice.append(Failure(item.sample_id, item.video.name, BadAnnotation.__name__, message))
        return twice

    def assign(self, splits: Mapping[str, float | None]) -> None:
        """Give every item without a split that of its person, or the first one that is not full.

        Persons come in the order of their hashes.
        """
        given = {split for (split,) in self.db.execute("select distinct split from item where split is not null")}
        for split in sorted(given | set(splits)):
            if not re.fullmatch(r"[A-Za-z0-9_]+", split):  # a folder's name, and a split's for `datasets`
                raise SetupError(f"A split is named {split!r}; use letters, digits and _ only.")
        self.db.execute("create index by_person on item (person)")
        leak = self.db.execute(
            "select item, group_concat(distinct split) from item where split is not null group by person "
            "having count(distinct split) > 1"
        ).fetchone()
        if leak:
            raise SetupError(
                f"The person {pickle.loads(leak[0]).identity_id!r} is in several splits ({leak[1]}): splits must not "
                "share persons."
            )
        db = self.db
        db.execute("create table person (person blob primary key, split text, clips int) without rowid")
        db.execute("insert into person select person, max(split), count(*) from item group by person")
        db.execute("create table chosen (person blob primary key, split text) without rowid")
        have = dict(db.execute("select split, sum(clips) from person where split is not null group by split"))
        total = db.execute("select count(*) from item").fetchone()[0]
        most = {name: size * total if size is not None and size < 1 else size for name, size in splits.items()}
        for person, clips in db.execute("select person, clips from person where split is null order by person"):
            open_ = (name for name, size in most.items() if size is None or have.get(name, 0) < size)
            name = next(open_, list(splits)[-1])
            have[name] = have.get(name, 0) + clips
            db.execute("insert into chosen values (?, ?)", [person, name])
        db.execute(
            "update item set split = coalesce((select split from person where person = item.person), "
            "(select split from chosen where person = item.person))"
        )

    def splits(self) -> list[tuple[str, int, float]]:
        """(split, number of clips, mean bytes of a clip)."""
        query = "select split, count(*), avg(size) from item group by split order by split"
        return list(self.db.execute(query))

    def items(self, split: str) -> Iterator[Item]:
        """The items of a split in their order."""
        for (item,) in self.db.execute("select item from item where split = ? order by key", [split]):
            yield pickle.loads(item)


def _key(sample_id: str) -> bytes:
    return hashlib.sha256(blob(sample_id)).digest()


# -------------------------------------------------------------------------------------------------------------- pack


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
    failed: list[Failure]
    names: list[str] = field(default_factory=list)


def pack(
    items: Iterable[Item],
    out: str | Path,
    *,
    splits: Mapping[str, float | None] | None = None,
    shards: Mapping[str, int] | None = None,
    workers: int = 1,
    title: str = "JWB-DH-V1",
    on_item: Callable[[str, Failure | None], None] | None = None,
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
        workers: processes. The bytes do not depend on it.
        title: of the dataset, for the README.
        on_item: called with each name, and its failure or None, when its shard is written or found finished.

    Returns:
        The manifest.

    Raises:
        DataNotFound: there is no item.
        SetupError: a person is in two splits, a split's name or number of shards is none, the disk is full, or a
            worker was killed.
        PlanMismatch: `out` holds Parquet files that this pack does not make.
        AlreadyRunning: another process packs into `out`.

    """
    place = Path(out)
    counts = shards or {}
    if any(count < 1 for count in counts.values()):
        raise SetupError(f"A split needs one shard at least, not {min(counts.values())}.")
    with _locked(place):
        index = _Index(place / STATE / "items.sqlite")
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
            for done in _run(_jobs(place, index, plan), workers):
                files[done.name] = done.file
                failed += done.failed
                wrong = {failure.sample_id: failure for failure in done.failed}
                for name in done.names:
                    _tell(on_item, name, wrong.get(name))
        (place / STATE / "items.sqlite").unlink()
        failed.sort(key=lambda failure: (_key(failure.sample_id), failure.video))
        manifest = Manifest({name: files[name] for name in sorted(files)}, tuple(failed))
        write_text(place / "README.md", _card(manifest, title))
        write_text(place / MANIFEST, manifest.to_json())
    return manifest


def _tell(on_item: Callable[[str, Failure | None], None] | None, name: str, failure: Failure | None) -> None:
    if on_item is not None:
        on_item(name, failure)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    (place / STATE).mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / STATE / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyRunning(f"Another process is packing into {place}; wait for it or choose another --out.") from None
    try:
        yield
    finally:
        lock.release()


def _clear(place: Path, names: set[str]) -> None:
    """Remove what a kill left half written, and refuse a folder with other shards: globs would take them in."""
    for path in sorted(place.rglob("*")):
        if path.suffix == ".part" and path.name.startswith("."):
            path.unlink()
        elif path.suffix == ".parquet" and path.relative_to(place).as_posix() not in names:
            raise PlanMismatch(
                f"{path} is no file of this pack (the clips, splits or --shards are others now); delete it or choose "
                "another --out."
            )
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)


def _jobs(place: Path, index: _Index, plan: Mapping[str, tuple[int, int]]) -> Iterator[_Job]:
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
        failed: list[Failure] = []
        try:
            file = write_rows(_batches(job.items, failed), job.out / job.name)
        except OSError as error:
            raise SetupError(f"{job.out / job.name} cannot be written: {error.strerror or error}.") from None
        done = _Done(job.name, file, failed)
        record = {"inputs": key, "file": asdict(file), "failed": [asdict(failure) for failure in failed]}
        write_text(job.record, json.dumps(record))
    return _Done(done.name, done.file, done.failed, names)


def _batches(items: Sequence[Item], failed: list[Failure]) -> Iterator[Any]:
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
            failed.append(Failure(item.sample_id, item.video.name, type(typed).__name__, str(typed)))
            continue
        yield batch


def _remembered(job: _Job, key: str) -> _Done | None:
    """The shard if it was made of the same files in the same way and is unaltered."""
    try:
        told = json.loads(job.record.read_text(encoding="utf-8"))
        file = Written(**told["file"])
        if told["inputs"] == key and sha256_of(job.out / job.name) == file.sha256:
            return _Done(job.name, file, [Failure(**failure) for failure in told["failed"]])
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

    from jwb_dh_v1 import __version__

    return __version__, SCHEMA_VERSION, WRITER, version("pyarrow"), version("av")


# -------------------------------------------------------------------------------------------------------------- card


def config_header(name: str, split: str, path: str, content: str, default: bool = False) -> str:
    """One entry of `configs` in the YAML header that `datasets` reads.

    `datasets` 5 knows a prepared local folder by its name and this header alone: without the content's hash in it, a
    folder made again (or another one of the name) gives the rows of the first.

    Args:
        name: of the configuration.
        split: its only split.
        path: glob of its files.
        content: a sha256 that moves when a file does.
        default: whether it is the one that is loaded without a name.

    """
    return (
        f"- config_name: {name}\n"
        + ("  default: true\n" if default else "")
        + f"  description: content sha256 {content}\n"
        + f'  data_files: [{{split: {split}, path: "{path}"}}]'
    )


def _card(manifest: Manifest, title: str) -> str:
    splits = manifest.splits()
    default = SPLIT if SPLIT in splits else min(splits)
    configs, lines = [], []
    for split, files in splits.items():
        content = hashlib.sha256("".join(f"{path} {file.sha256}\n" for path, file in files.items()).encode())
        glob = f"{split}/*/*.parquet" if len(files) > PER_FOLDER else f"{split}/*.parquet"
        named = SPLIT if split == "teaser" else split
        configs.append(config_header(split, named, glob, content.hexdigest(), split == default))
        size = sum(file.bytes for file in files.values()) / 1e9
        lines.append(f"| `{split}` | {sum(file.rows for file in files.values())} | {len(files)} | {size:.3f} GB |")
    sizes = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
    category = next((name for most, name in sizes if manifest.rows < most), "10M<n<100M")
    return "\n".join(
        [
            *("---", f"pretty_name: {title}", "license: other", f"size_categories: [{category}]"),
            *("tags: [video, audio, digital-human, avatar, benchmark]", "configs:", *configs, "---", ""),
            *(f"# {title}", "", "| configuration | clips | files | size |", "|---|---|---|---|", *lines, ""),
            f"Packed by jwb-dh-v1 (schema {SCHEMA_VERSION}); `manifest.json` holds the sha256 of every file.",
            f"{len(manifest.failed)} clips could not be packed; the manifest says why." if manifest.failed else "",
        ]
    )
