"""`load_dataset`: a local copy of JWB-DH-V1 first, then the Hub, else a sentence that says how to get one.

What is loaded is `datasets`' own: it streams, retries and resumes. Added are the way to the data, a look at the schema
before the first row, and errors that say what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.dataset.schema import MEDIA, SCHEMA_VERSION, check_version, features
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.hub import hub_errors, reason

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict

NAME = "jwb-dh-v1"
# The Hub repository of the data. None: the data are given on request by their authors (arXiv 2507.20987) and no public
# repository is known; JWB_DATASET names another one, or a folder.
REPO_ID: str | None = None
# Bytes that are fetched beyond what Parquet asks for, where columns are chosen without the media. The default of 5 MiB
# after each range that is read would bring the videos that lie between the columns.
READ_AHEAD = 4096
NOT_STREAMED = ("num_proc", "keep_in_memory", "save_infos")  # arguments of `datasets` that streams refuse or ignore


def load_dataset(
    path: str | Path = NAME,
    name: str | None = None,
    data_dir: str | None = None,
    data_files: Any = None,
    split: Any = None,
    *,
    streaming: bool = False,
    columns: Sequence[str] | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Load JWB-DH-V1 (or the teaser, or any dataset) with `datasets.load_dataset`, whose return types these are.

    Args:
        path: a folder with the dataset's layout, or a Hub id with an owner. The bare name `jwb-dh-v1` is such a folder
            where there is one, else `JWB_DATASET` from the environment (a folder or a Hub id), else `REPO_ID`.
        name: the configuration, e.g. `evaluation`.
        data_dir: passed on.
        data_files: passed on.
        split: one split; without it a dictionary of splits.
        streaming: read row by row without copying.
        columns: the columns to read. Without `video` and `audio` their bytes are not fetched, when streaming either.
        revision: tag or commit on the Hub; not used for folders.
        **kwargs: passed on: `token`, `cache_dir`, `num_proc`, `filters`, ... `on_bad_files="warn"` (or `"skip"`) goes
            on after a shard that cannot be read; its rows are then missing.

    Damage that only reading finds raises pyarrow's errors (`ArrowInvalid`, `OSError`) from the iteration of a stream;
    `datasets` logs the shard's name just before.

    Raises:
        DataNotFound: there is no such folder or repository, or it may not be read; the message says what to do.
        SetupError: another schema than this package's (data without a column `schema_version` are not compared), a
            column, configuration or split that is not there, or a damaged shard, by name where it is a local file.

    """
    import datasets
    import pyarrow

    wanted = _place(str(path))
    local = Path(wanted).is_dir()
    # An absolute folder cannot be taken for a Hub id.
    place = str(Path(wanted).resolve()) if local else wanted
    chosen = None if columns is None else [columns] if isinstance(columns, str) else list(columns)
    if streaming and chosen is not None and not set(chosen) & set(MEDIA):
        given = kwargs.pop("storage_options", None) or {}
        kwargs["storage_options"] = {**given, "hf": {"block_size": READ_AHEAD, **given.get("hf", {})}}

    if not local:
        kwargs["revision"] = revision

    def load(split: Any, streaming: bool, columns: list[str] | None, how: dict[str, Any]) -> Any:
        some = {} if columns is None else {"columns": columns}
        return datasets.load_dataset(place, name, data_dir, data_files, split, streaming=streaming, **some, **how)

    def stream(columns: list[str] | None) -> Any:
        how = {key: value for key, value in kwargs.items() if key not in NOT_STREAMED}
        return next(_parts(load(None, True, columns, how)))

    try:
        try:
            data = load(split, streaming, chosen, kwargs)
        except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowInvalid):
            _check_schema(stream(chosen), wanted, chosen, stream)  # wrong more often than a shard is
            raise
        if kwargs.get("features") is None:
            _check_schema(data, wanted, chosen, stream)
    except hub_errors() as error:
        raise DataNotFound(f"{wanted} cannot be loaded: {_reason(error)}. {_advice(local, wanted, error)}") from error
    except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowException, OSError) as error:
        broken = _damaged(Path(place)) if local else None
        what = f"{wanted} cannot be read: {_reason(error)}" if broken is None else broken
        raise SetupError(
            f"{what}. Fetch or make it again; `jwb-dh data check` looks at every shard, and "
            'on_bad_files="warn" leaves out the damaged ones.'
        ) from error
    except ValueError as error:  # what `datasets` says to an unknown configuration or split
        raise SetupError(f"{wanted} cannot be loaded: {_reason(error)}.") from error
    return data


def _place(path: str) -> str:
    """A folder or a Hub id."""
    if Path(path).is_dir() or path != NAME:
        return path
    chosen = os.environ.get("JWB_DATASET") or REPO_ID
    if chosen is None:
        raise DataNotFound(f"There is no folder {NAME} in {Path.cwd()}. {_advice(False, NAME)}")
    return chosen


def commit_of(path: str, revision: str | None = None) -> str | None:
    """The commit that a revision of a Hub dataset is now, so that a run's plan names what it scored; None of a folder.

    Raises:
        DataNotFound: the Hub cannot be reached, or there is no such repository or revision.

    """
    wanted = _place(path)
    if Path(wanted).is_dir():
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(wanted, revision=revision or "main").sha
    except hub_errors() as error:
        raise DataNotFound(f"{wanted} cannot be loaded: {_reason(error)}. {_advice(False, wanted, error)}") from error


def _reason(error: BaseException) -> str:
    """The error that started it, in its first line; `datasets` wraps it into one that says nothing."""
    while error.__cause__ is not None and type(error).__name__.startswith("DatasetGeneration"):
        error = error.__cause__
    return reason(error)


def _advice(local: bool, wanted: str, error: BaseException | None = None) -> str:
    if local:
        return f"Is it whole? `jwb-dh teaser` makes a small dataset of the same layout in ./{NAME}."
    if "gated" in f"{type(error).__name__} {error}".lower():
        return (
            f"Ask for access and accept the terms on https://huggingface.co/datasets/{wanted}; once it is granted, log "
            "in with `hf auth login`, or give a token with the right to read it in HF_TOKEN or as token=."
        )
    return (
        f"Run `jwb-dh teaser` to make a small dataset of the same layout in ./{NAME}, or ask the authors for the full "
        "data (arXiv 2507.20987) and give its folder as path or in JWB_DATASET; for a gated Hub repository, accept its "
        "terms there and log in with `hf auth login`."
    )


# ---------------------------------------------------------------------------------------------------------- schema


def _parts(data: Any) -> Iterator[Any]:
    """The splits that `datasets.load_dataset` returned, in whatever form."""
    yield from data.values() if isinstance(data, dict) else data if isinstance(data, list) else [data]


def _check_schema(data: Any, wanted: str, columns: list[str] | None, stream: Callable[[list[str] | None], Any]) -> None:
    """Refuse data whose columns are not those of this package's schema; foreign data pass.

    Args:
        data: what was loaded.
        wanted: its name, for messages.
        columns: those that were asked for; None: all.
        stream: loads a split again, for a closer look at what is refused.

    Raises:
        SetupError: names the column, or both versions.

    """
    for part in _parts(data):
        found = part.features
        if found is None:  # of formats whose columns only reading tells
            continue
        absent = [column for column in columns or () if column not in found]
        if absent:
            raise SetupError(f"{wanted} has no column {absent[0]!r}; it has {', '.join(stream(None).features)}.")
        wrong = _difference(found, columns)
        if wrong is None:
            # A stream would have to read from a shard: its rows are looked at one by one (`training.decode`).
            if "schema_version" in found and hasattr(part, "data") and len(part):
                check_version(part.data.column("schema_version")[0].as_py())
        elif "schema_version" in found or (columns and "schema_version" in (stream(None).features or ())):
            for row in stream(["schema_version"]):
                check_version(row["schema_version"])
                break
            raise SetupError(
                f"{wanted}: {wrong} (schema {SCHEMA_VERSION}). Upgrade jwb-dh-v1, or make the data again "
                "(`jwb-dh data pack`)."
            )


def _difference(found: Features, columns: list[str] | None) -> str | None:
    """The first known column that is missing or of another type, in words."""
    known = features()
    for name, feature in known.items():
        if name in found:
            here, there = _storage(found[name]), _storage(feature)
            if here != there:
                return f"column {name!r} is {_short(here)}, expected is {_short(there)}"
        elif columns is None:
            unknown = [column for column in found if column not in known]
            renamed = f"; not known here: {', '.join(unknown)}" if unknown else ""
            return f"column {name!r} is missing{renamed}"
    return None


def _storage(feature: Any) -> Any:
    """What Arrow stores: the same for `Video()` and `Video(decode=False)`, for an array and the lists in it."""
    from datasets import Features

    kind = Features({"column": feature}).arrow_schema.field(0).type
    return getattr(kind, "storage_type", kind)


def _short(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 90 else f"{text[:87]}..."


def _damaged(folder: Path) -> str | None:
    """The first Parquet file under `folder` that cannot be read or has other columns than the first one, in words.

    Only called when a load failed; it reads no more than that did.
    """
    from pyarrow import ArrowException, parquet

    before = None
    for path in sorted(folder.rglob("*.parquet")):
        try:
            with parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                if before is not None and not schema.equals(before):
                    odd = {f.name for f in set(schema) ^ set(before)}
                    return f"{path} differs from the shards before it in column {', '.join(sorted(odd))}"
                before = schema
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
        except (ArrowException, OSError) as error:
            return f"{path} is damaged: {_reason(error)}"
    return None
