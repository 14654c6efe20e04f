"""Rows of the dataset to Parquet files and back: one way of writing for the teaser, the packer and the tests.

Media are stored as they are (uncompressed, PLAIN: they are compressed already), floats per frame split into byte
streams, everything else with dictionaries, all of it under zstd. On the teaser this takes the annotations from 758 to
410 KB against snappy, and is quicker. Pages are cut by content where pyarrow can (>= 21), so that the Hub stores and
moves only what changed between two versions of a file; the choices for media and pages are those of `datasets` 5.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.dataset.schema import MEDIA, SCHEMA_VERSION, features
from jwb_dh_v1.files import replaced_when_whole, sha256_of

WRITER = 1  # moves when equal rows give other bytes
# What a reader holds per worker is one row group, uncompressed; the Hub asks for 100 MB at most. 48 MB are about ten
# clips of 5 s; a row that is larger alone is a group of its own. 64 rows keep tiny clips from becoming one huge batch.
GROUP_BYTES = 48 * 10**6
GROUP_ROWS = 64
PAGES = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
BYTE_SPLIT = ("boxes.", "box_scores.", "keypoints.")  # columns of floats per frame


@dataclass(frozen=True)
class Written:
    """A finished file: number of rows, size in bytes, and the sha256 of its bytes."""

    rows: int
    bytes: int
    sha256: str


@cache
def _schema() -> Any:
    """The Arrow schema with the metadata that tell `datasets` the features; made anew it takes 2 ms."""
    return features().arrow_schema


def record_batch(row: Mapping[str, Any]) -> Any:
    """One row as a `pyarrow.RecordBatch` of `schema.features()`.

    Args:
        row: every column of the schema; `keypoints` float32 [T, 133, 3], nested lists or None.

    Raises:
        ValueError: a column is missing or does not fit; the message names it.

    """
    import pyarrow as pa

    schema = _schema()
    columns = []
    for field in schema:
        try:
            value = row[field.name]
            if isinstance(field.type, pa.ExtensionType):
                columns.append(pa.ExtensionArray.from_storage(field.type, _points(value, field.type.storage_type)))
            else:
                columns.append(pa.array([value], field.type))
        except KeyError:
            raise ValueError(f"the row has no column {field.name!r}") from None
        # AttributeError: a number where a struct should be
        except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"{field.name} does not fit {str(field.type)[:60]}: {error}") from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _points(value: Any, kind: Any) -> Any:
    """Key points as one list<list<list<float>>>; nested Python lists would take 20 times as long."""
    import pyarrow as pa

    if value is None:
        return pa.array([None], kind)
    points = np.ascontiguousarray(value, np.float32)
    if points.ndim != 3:
        raise ValueError(f"shape {points.shape}, expected three axes")
    inner: Any = pa.array(points.ravel())
    for length, count in ((points.shape[2], points.shape[0] * points.shape[1]), (points.shape[1], points.shape[0])):
        inner = pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * length, pa.int32()), inner)
    return pa.ListArray.from_arrays(pa.array([0, points.shape[0]], pa.int32()), inner).cast(kind)


def write_rows(rows: Iterable[Mapping[str, Any] | Any], path: Path) -> Written:
    """Write rows to one Parquet file, in one step; equal rows give equal bytes with the same pyarrow.

    Args:
        rows: taken one by one, as `schema.features()` says (see `record_batch`) or as record batches of one row; no
            more than one row group of them is held. None at all is fine.
        path: replaced when the file is complete; its folder must be there.

    Raises:
        ValueError: a column does not fit.
        OSError: the disk is full or not writable.

    """
    import pyarrow as pa
    from pyarrow import parquet

    count = 0
    with replaced_when_whole(path) as partial:
        with parquet.ParquetWriter(partial, _schema(), **_options()) as writer:
            for group in _groups(rows):
                table = pa.Table.from_batches(group).combine_chunks()
                writer.write_table(table, row_group_size=len(group))
                count += len(group)
        written = Written(count, partial.stat().st_size, sha256_of(partial))
    return written


def _groups(rows: Iterable[Mapping[str, Any] | Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for row in rows:
        batch = record_batch(row) if isinstance(row, Mapping) else row
        if group and (size + batch.nbytes > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group
            group, size = [], 0
        group.append(batch)
        size += batch.nbytes
    if group:
        yield group


def _options() -> dict[str, Any]:
    from pyarrow import parquet

    leaves = [leaf for field in _schema() for leaf in _leaves(field)]
    media = {f"{column}.bytes" for column in MEDIA}
    split = [leaf for leaf in leaves if leaf.startswith(BYTE_SPLIT)]
    options = {
        "compression": {leaf: "none" if leaf in media else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in leaves if leaf not in media and leaf not in split],
        "column_encoding": dict.fromkeys(media, "PLAIN") | dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "write_page_index": True,
    }
    if "use_content_defined_chunking" in inspect.signature(parquet.ParquetWriter.__init__).parameters:
        options["use_content_defined_chunking"] = PAGES
    return options


def _leaves(field: Any, above: str = "") -> Iterator[str]:
    """The paths of a field's leaves as Parquet names them, e.g. `transcript.words.list.element.start`."""
    import pyarrow as pa

    kind = field.type.storage_type if isinstance(field.type, pa.ExtensionType) else field.type
    if pa.types.is_struct(kind):
        for child in kind:
            yield from _leaves(child, f"{above}{field.name}.")
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(pa.field("element", kind.value_type), f"{above}{field.name}.list.")
    else:
        yield above + field.name


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file in order, one row group in memory at a time.

    Args:
        path: the file.
        columns: those to read; leaving out `video` and `audio` makes it quick.

    Yields:
        Dicts with the columns; `keypoints` as float32 [T, 133, 3] or None.

    Raises:
        OSError, pyarrow.ArrowException: no such file, or no Parquet file.

    """
    import pyarrow as pa
    from pyarrow import parquet

    _schema()  # makes the type of the key points known to pyarrow
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=None if columns is None else list(columns))
            names = table.column_names
            for number in range(len(table)):
                one = table.slice(number, 1)
                row = {}
                for name in names:
                    chunk = one.column(name).chunk(0)
                    plain = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
                    value = plain.to_pylist()[0]
                    row[name] = np.asarray(value, np.float32) if name == "keypoints" and value is not None else value
                yield row


MANIFEST = "manifest.json"
SPLIT = "evaluation"
PER_FOLDER = 1024  # files; the Hub refuses 10,000


@dataclass(frozen=True)
class UnpackedClip:
    """A clip that is not in the dataset, and why: the type of the error and its message."""

    sample_id: str
    video: str
    error: str
    message: str


@dataclass(frozen=True)
class Manifest:
    """What a packed folder holds: facts of each file by its path, and the clips that failed."""

    files: Mapping[str, Written]
    failed: tuple[UnpackedClip, ...] = ()
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


def readme(manifest: Manifest, title: str) -> str:
    """The text of `README.md`: one configuration per split in its header, and a table of their sizes."""
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
