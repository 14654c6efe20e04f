"""`data check`: every rule that a packed dataset must keep, with the shard and the row that breaks it.

What a row must keep is in `rules.py`. Rules about the whole dataset (duplicates, people in two splits) compare 64-bit
hashes: 32 bytes per sample stay in memory, and about 100 while they are sorted, so that 2 million samples need some
200 MB. Beside these, each worker holds one row group (the packer keeps them under 100 MB) and the decoded frames of one
clip (512 MB at most).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jwb_dh_v1.dataset.rules import RULES, Say, content_of, media_problems, row_problems
from jwb_dh_v1.dataset.schema import features
from jwb_dh_v1.errors import DataNotFound
from jwb_dh_v1.files import sha256_of
from jwb_dh_v1.media.annotations import KEYPOINTS

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Attributes:
        rule: a key of `RULES`.
        file: path in the folder, with slashes.
        row: number in the file from 0, or None where the file itself is meant.
        sample_id: of that row, or None where it is not known.
        message: what is wrong, in a sentence without a name.

    """

    rule: str
    file: str
    row: int | None
    sample_id: str | None
    message: str

    def __str__(self) -> str:
        """The problem as one line."""
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{place}{f' ({self.sample_id})' if self.sample_id else ''}: {self.rule}: {self.message}"


@dataclass
class Report:
    """What a check found.

    Attributes:
        folder: what was checked.
        problems: the first 1000 of each rule; `counts` has them all.
        counts: problems per rule.
        files, rows, identities: how many were seen.
        splits: rows per split.
        seconds: of video, as the rows say.
        decoded: clips that were decoded to their end.

    """

    folder: str
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    files: int = 0
    rows: int = 0
    identities: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    decoded: int = 0

    LIMIT = 1000

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.counts

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room for its rule."""
        self.counts[problem.rule] += 1
        if self.counts[problem.rule] <= self.LIMIT:
            self.problems.append(problem)


def print_report(report: Report, console: Console) -> None:
    """Print a table of the broken rules with an example of each, or that there is none."""
    from rich.table import Table

    hours = report.seconds / 3600
    splits = ", ".join(f"{name} {rows:,}" for name, rows in report.splits.items())
    console.print(
        f"{report.rows:,} rows ({splits}) of {report.identities:,} people in {report.files:,} shards, "
        f"{hours:,.2f} h of video, {report.decoded:,} clips decoded to the end",
        highlight=False,
    )
    if report.ok:
        console.print("No rule is broken.")
        return
    table = Table()
    for title in ("rule", "says", "broken", "first"):
        table.add_column(title, overflow="fold")  # a shard's name in full
    for rule, count in report.counts.items():
        example = next(problem for problem in report.problems if problem.rule == rule)
        name = f" ({example.sample_id})" if example.sample_id else ""
        place = example.file if example.row is None else f"{example.file}, row {example.row}{name}"
        table.add_row(rule, RULES[rule], str(count), f"{place}: {example.message}")
    console.print(table)


Decode = Literal["some", "all", "none"]

COPIES = ("teaser",)  # folders that repeat samples of others, and are compared with themselves only
MANIFESTS = ("manifest.json", "teaser.json")
NUMBERED = re.compile(r"(.+)-(\d{5,})-of-(\d{5,})\.parquet")
WHOLE = 20  # `some` decodes one clip in so many to its end
ROWS = 8  # rows in memory at a time
KEY = np.dtype([("id", "u8"), ("video", "u8"), ("identity", "u8"), ("row", "u4")])


@dataclass
class _File:
    """What one shard told: picklable, and small."""

    name: str
    report: Report
    keys: np.ndarray


def shards(folder: Path) -> list[str]:
    """The Parquet files below a folder, as paths in it with slashes, sorted; hidden ones are not counted.

    Raises:
        DataNotFound: no such folder, or none in it.

    """
    found = (path.relative_to(folder) for path in folder.rglob("*.parquet")) if folder.is_dir() else ()
    names = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise DataNotFound(f"{folder} holds no Parquet shard; `jwb-dh data pack` and `jwb-dh teaser` make some.")
    return names


def split_of(name: str) -> str:
    """The split that a shard belongs to: its first folder, or what its name begins with (`data/train-00000-of-...`)."""
    first, _, rest = name.partition("/")
    if rest and first != "data":
        return first
    numbered = NUMBERED.fullmatch(name.rpartition("/")[2])
    return numbered[1] if numbered else Path(name).stem


def read_manifest(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What the folder's manifest says of its shards: path -> `sha256` and, where told, `rows` and `bytes`.

    None where there is no manifest. Files that are no shards are left out: the card is filled in later.

    Raises:
        ValueError: it is not a manifest.

    """
    place = next((folder / name for name in MANIFESTS if (folder / name).is_file()), None)
    if place is None:
        return None
    files = json.loads(place.read_text(encoding="utf-8"))["files"]
    facts = {name: told if isinstance(told, dict) else {"sha256": told} for name, told in files.items()}
    if not all(isinstance(told.get("sha256"), str) for told in facts.values()):
        raise ValueError("a file without its sha256")
    return {name: told for name, told in facts.items() if name.endswith(".parquet")}


def check(
    folder: str | Path,
    *,
    decode: Decode = "some",
    workers: int = 1,
    say: Say | None = None,
    on_file: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Check a packed dataset, with or without a manifest.

    Args:
        folder: with Parquet shards in folders named as their splits.
        decode: `all` decodes every frame and all sound; `some` counts the packets of every video, decodes its first
            frame and its `audio`, and decodes to the end the first clip of each shard and one in 20 others, chosen by
            name; `none` leaves media alone but for their hashes.
        workers: processes; each holds one row group and one clip.
        say: takes a line about what is being done.
        on_file: called after each shard, in order, with its name, its rows and its problems.

    Raises:
        DataNotFound: there is no shard.

    """
    place = Path(folder)
    told = say or (lambda _: None)
    report = Report(str(folder))
    names = shards(place)
    told(f"{place}: {len(names)} shards; media: {decode}")
    try:
        manifest = read_manifest(place)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        manifest = None
        report.add(Problem("manifest", "manifest.json", None, None, f"cannot be read: {error!r}"))
    _compare_lists(names, manifest, report)
    keys: list[np.ndarray] = []
    for done in _each(place, names, manifest or {}, decode, workers):
        keys.append(done.keys)
        report.files += 1
        report.rows += done.report.rows
        report.seconds += done.report.seconds
        report.decoded += done.report.decoded
        split = split_of(done.name)
        report.splits[split] = report.splits.get(split, 0) + done.report.rows
        for problem in done.report.problems:
            report.add(problem)
        report.counts += done.report.counts - Counter(p.rule for p in done.report.problems)  # what was not kept
        if on_file:
            on_file(done.name, done.report.rows, sum(done.report.counts.values()))
    _compare_rows(place, names, keys, report)
    return report


def _compare_lists(names: Sequence[str], manifest: Mapping[str, Any] | None, report: Report) -> None:
    if manifest is not None:
        for name in sorted(set(manifest) - set(names)):
            report.add(Problem("missing-shard", name, None, None, "the manifest names it, and it is not there"))
        for name in sorted(set(names) - set(manifest)):
            report.add(Problem("extra-shard", name, None, None, "the manifest does not name it"))
        return
    there: dict[tuple[str, str, int], set[int]] = {}
    for name in names:
        if numbered := NUMBERED.fullmatch(name.rpartition("/")[2]):
            there.setdefault((split_of(name), numbered[1], int(numbered[3])), set()).add(int(numbered[2]))
    for (split, prefix, total), numbers in there.items():
        for n in sorted(set(range(total)) - numbers):
            name = f"{split}/{prefix}-{n:05d}-of-{total:05d}.parquet"
            report.add(Problem("missing-shard", name, None, None, f"shard {n} of {total} is not there"))


def _each(
    place: Path, names: Sequence[str], manifest: Mapping[str, Any], decode: Decode, workers: int
) -> Iterator[_File]:
    """The shards' facts in order."""
    tasks = [(place, name, manifest.get(name), decode) for name in names]
    if workers <= 1 or len(tasks) == 1:
        yield from map(_check_file, tasks)
        return
    # Fresh processes: a forked one would inherit the locks of Arrow's threads.
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_check_file, tasks)


def _check_file(task: tuple[Path, str, Mapping[str, Any] | None, Decode]) -> _File:
    import pyarrow as pa
    from pyarrow import parquet

    place, name, told, decode = task
    wanted_schema = features().arrow_schema  # first: it makes the type of the key points known to pyarrow
    report = Report(name)
    keys: list[tuple[int, int, int, int]] = []

    def wrong(rule: str, message: str, row: int | None = None, sample_id: str | None = None) -> None:
        report.add(Problem(rule, name, row, sample_id, message))

    try:
        with parquet.ParquetFile(place / name) as table:
            if told and sha256_of(place / name) != told["sha256"]:
                wrong("altered-shard", "its sha256 is not that of the manifest")
            count, wanted = table.metadata.num_rows, (told or {}).get("rows")
            if wanted is not None and count != wanted:
                wrong("row-count", f"{count} rows, the manifest says {wanted}")
            differences = _differences(table.schema_arrow, wanted_schema)
            for message in differences:
                wrong("schema", message)
            report.rows = count
            if not differences:
                for row, cells in enumerate(_rows(table)):
                    report.seconds += _seconds(cells)
                    found = row_problems(cells)
                    if decode != "none" and not any(rule == "schema-version" for rule, _ in found):
                        whole = decode == "all" or row == 0 or _hash(cells["sample_id"]) % WHOLE == 0
                        report.decoded += whole
                        found += media_problems(cells, whole)
                    for rule, message in found:
                        wrong(rule, message, row, cells["sample_id"])
                    keys.append(_key(cells, row))
    except (pa.ArrowException, OSError, ValueError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        wrong("unreadable-shard", f"{text} (after {len(keys)} rows)")
    return _File(name, report, np.array(keys, KEY))


def _differences(schema: Any, wanted: Any) -> list[str]:
    found = [f"column {name} is missing" for name in wanted.names if name not in schema.names]
    found += [f"column {name} is not of the schema" for name in schema.names if name not in wanted.names]
    for column in wanted:
        if column.name in schema.names and schema.field(column.name).type != column.type:
            found.append(f"column {column.name} is {schema.field(column.name).type}, expected {column.type}")
    return found


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of an open Parquet file; key points as float32 [T, 133, 3] where they have that shape."""
    for batch in table.iter_batches(ROWS):
        points = batch.column("keypoints").storage
        for number, row in enumerate(batch.drop_columns("keypoints").to_pylist()):
            yield {**row, "keypoints": _points(points[number])}


def _points(cell: Any) -> Any:
    """An Arrow cell of key points as an array, or as nested lists where their numbers differ; None for null."""
    if not cell.is_valid:
        return None
    frames = cell.values
    flat = frames.flatten().flatten()
    regular = set(frames.value_lengths().to_pylist()) <= {KEYPOINTS}
    regular = regular and set(frames.flatten().value_lengths().unique().to_pylist()) <= {3}
    if not regular or frames.null_count or flat.null_count:
        return cell.as_py()
    return flat.to_numpy(zero_copy_only=False).reshape(len(frames), KEYPOINTS, 3)


def _seconds(row: Mapping[str, Any]) -> float:
    return row["num_frames"] / row["fps"] if row["num_frames"] and row["fps"] else 0.0


def _hash(text: str | bytes | None) -> int:
    """64 bits of a hash, never 0; 0 for nothing."""
    if not text:
        return 0
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) | 1


def _key(row: Mapping[str, Any], number: int) -> tuple[int, int, int, int]:
    return _hash(row["sample_id"]), _hash(content_of(row["video"])), _hash(row["identity_id"]), number


def _compare_rows(place: Path, names: Sequence[str], keys: Sequence[np.ndarray], report: Report) -> None:
    """Find what is in two rows, or in two splits, and should not be."""
    every = np.concatenate(list(keys))
    files = np.repeat(np.arange(len(keys), dtype=np.int32), [len(k) for k in keys])
    report.identities = len(set(np.unique(every["identity"]).tolist()) - {0})
    splits = [split_of(name) for name in names]

    @cache
    def column(file: int, what: str) -> list[Any]:
        from pyarrow import parquet

        values: list[Any] = parquet.read_table(place / names[file], columns=[what]).column(what).to_pylist()
        return values

    def cell(at: int, what: str) -> Any:
        return column(int(files[at]), what)[int(every["row"][at])]

    def where(at: int) -> str:
        return f"{names[files[at]]}, row {every['row'][at]}"

    def wrong(rule: str, at: int, message: str) -> None:
        report.add(Problem(rule, names[files[at]], int(every["row"][at]), cell(at, "sample_id"), message))

    apart = [np.array([s not in COPIES for s in splits])] + [np.array([s == c for s in splits]) for c in COPIES]
    for group in apart:
        members = np.flatnonzero(group[files])
        for first, again in _twins(every["id"], members):
            if cell(first, "sample_id") == cell(again, "sample_id"):
                wrong("duplicate-id", again, f"the same sample_id as {where(first)}")
        for first, again in _twins(every["video"], members):
            wrong("duplicate-video", again, f"the same video as {cell(first, 'sample_id')} ({where(first)})")
    _leaks(every["identity"], files, splits, apart[0], cell, where, wrong)


def _twins(values: np.ndarray, members: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, again) of members with the same value, in the order of the rows; 0 is no value."""
    order = members[np.argsort(values[members], kind="stable")]
    chosen = values[order]
    first = 0
    for n in np.flatnonzero((chosen[1:] == chosen[:-1]) & (chosen[1:] != 0)) + 1:
        if chosen[first] != chosen[n]:
            first = int(np.searchsorted(chosen, chosen[n]))
        yield int(order[first]), int(order[n])


def _leaks(
    identities: np.ndarray,
    files: np.ndarray,
    splits: Sequence[str],
    counted: np.ndarray,
    cell: Callable[[int, str], Any],
    where: Callable[[int], str],
    wrong: Callable[[str, int, str], None],
) -> None:
    """Report each person once per further split that shows them."""
    number = {split: n for n, split in enumerate(dict.fromkeys(splits))}
    split_at = np.array([number[split] for split in splits])[files]
    members = np.flatnonzero(counted[files] & (identities != 0))
    pairs = np.stack([identities[members], split_at[members].astype(np.uint64)])
    _, first = np.unique(pairs, axis=1, return_index=True)
    rows = np.sort(members[first])  # the first row of each person in each split
    for one, other in _twins(identities, rows):
        if cell(one, "identity_id") == cell(other, "identity_id"):
            message = f"{cell(other, 'identity_id')} is also in the split {splits[files[one]]} ({where(one)})"
            wrong("split-leak", other, message)
