"""`load_dataset`: a local copy of JWB-DH-V1 first, then the Hub, else a sentence that says how to get one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.errors import DataNotFound

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

NAME = "jwb-dh-v1"
# The Hub repository of the data. None: the data are given on request by their authors (arXiv 2507.20987) and no public
# repository is known; JWB_DATASET names another one, or a folder.
REPO_ID: str | None = None


def load_dataset(
    path: str | Path = NAME,
    name: str | None = None,
    *,
    split: str | None = None,
    streaming: bool = False,
    columns: Sequence[str] | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Load JWB-DH-V1 (or the teaser) with `datasets.load_dataset`, whose return types these are.

    Args:
        path: a folder with the dataset's layout, or a Hub id with an owner. The bare name `jwb-dh-v1` is such a folder
            where there is one, else `JWB_DATASET` from the environment, else the configured repository.
        name: the configuration, e.g. `evaluation`.
        split: one split; without it a dictionary of splits.
        streaming: read row by row without copying.
        columns: the columns to read; leaving out `video` and `audio` makes it quick.
        revision: tag or commit on the Hub; not used for folders.
        **kwargs: passed on.

    Raises:
        DataNotFound: there is no such folder or repository, or it may not be read; the message says what to do.

    """
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    wanted = _place(str(path))
    local = Path(wanted).is_dir()
    if columns is not None:
        kwargs["columns"] = list(columns)
    try:
        # An absolute folder cannot be taken for a Hub id.
        place = str(Path(wanted).resolve()) if local else wanted
        return datasets.load_dataset(
            place, name, split=split, streaming=streaming, revision=None if local else revision, **kwargs
        )
    # DatasetNotFoundError (missing, private, gated) and EmptyDatasetError are FileNotFoundError; no network at all is
    # a ConnectionError.
    except (FileNotFoundError, ConnectionError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataNotFound(f"{wanted} cannot be loaded: {reason}. {_advice(local)}") from error


def _place(path: str) -> str:
    """A folder or a Hub id."""
    if Path(path).is_dir() or path != NAME:
        return path
    chosen = os.environ.get("JWB_DATASET") or REPO_ID
    if chosen is None:
        raise DataNotFound(f"There is no folder {NAME} in {Path.cwd()}. {_advice(False)}")
    return chosen


def _advice(local: bool) -> str:
    if local:
        return f"Is it whole? `jwb-dh teaser` makes a small dataset of the same layout in ./{NAME}."
    return (
        f"Run `jwb-dh teaser` to make a small dataset of the same layout in ./{NAME}, or ask the authors for the full "
        "data (arXiv 2507.20987) and give its folder as path or in JWB_DATASET; for a gated Hub repository, accept its "
        "terms there and log in with `hf auth login`."
    )
