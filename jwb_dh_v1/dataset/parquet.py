"""Rows of the dataset to Parquet files and back: one way of writing for the teaser, the packer and the tests.

Media are stored as they are (uncompressed, PLAIN: they are compressed already), floats per frame split into byte
streams, everything else with dictionaries, all of it under zstd. On the teaser this takes the annotations from 758 to
410 KB against snappy, and is quicker. Pages are cut by content where pyarrow can (>= 21), so that the Hub stores and
moves only what changed between two versions of a file; the choices for media and pages are those of `datasets` 5.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.dataset.schema import MEDIA, features
from jwb_dh_v1.files import sha256_of

WRITER = 1  # moves when equal rows give other bytes
# What a reader holds per worker is one row group, uncompressed; the Hub asks for 100 MB at most. 48 MB are about ten
# clips of 5 s; a row that is larger alone is a group of its own. 64 rows keep tiny clips from becoming one huge batch.
GROUP_BYTES = 48 * 10**6
GROUP_ROWS = 64
PAGES = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
SPLIT = ("boxes.", "box_scores.", "keypoints.")  # columns of floats per frame


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

    partial = path.with_name(f".{os.getpid()}.part")
    count = 0
    try:
        with parquet.ParquetWriter(partial, _schema(), **_options()) as writer:
            for group in _groups(rows):
                table = pa.Table.from_batches(group).combine_chunks()
                writer.write_table(table, row_group_size=len(group))
                count += len(group)
        written = Written(count, partial.stat().st_size, sha256_of(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
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
    split = [leaf for leaf in leaves if leaf.startswith(SPLIT)]
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
