"""What everything that writes a folder of files named by samples shares: safe names, a lock, failures with a type."""

from __future__ import annotations

import re
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jwb_dh_v1 import files
from jwb_dh_v1.errors import JwbError, SampleError, SetupError, Unexpected

LONGEST = 200  # bytes of an id: most file systems take 255, endings and temporary names need some
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself


class UnsafeName(SampleError):
    """A sample's id cannot be a file's name, or another sample has the same."""


@dataclass(frozen=True)
class Failure:
    """A sample that was not done: `error` is the type's name, `traceback` the end of it where a function raised."""

    sample_id: str
    error: str
    message: str
    traceback: str = ""


def failure(sample_id: str, error: Exception) -> Failure:
    """An exception as a `Failure`; what is none of ours becomes `Unexpected`, with its place.

    Raises:
        SetupError: the error itself, where it is one: it concerns all samples.

    """
    if isinstance(error, SetupError):
        raise error
    if not isinstance(error, JwbError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        error = Unexpected(f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
    return Failure(sample_id, type(error).__name__, str(error))


def safe_name(sample_id: Any) -> str:
    r"""The id itself, if it is a file name on Linux, macOS and Windows alike; scripts other than Latin are welcome.

    Raises:
        UnsafeName: no text, empty, over 200 bytes, one of `/ \ : * ? " < > |` or a control character in it, a dot in
            front (hidden, `..`), a dot or space at the end, or a name of a Windows device (`con`, `nul.x`, `com1`).

    """
    try:
        size = len(sample_id.encode())
    except (AttributeError, UnicodeEncodeError):  # no string, or half a surrogate pair
        size = 0
    good = 0 < size <= LONGEST and not FORBIDDEN.search(sample_id) and not DEVICES.fullmatch(sample_id)
    if not good or sample_id[0] == "." or sample_id[-1] in ". ":
        raise UnsafeName(f"{sample_id!r:.80} cannot name a file on every system; rename the sample.")
    return str(sample_id)


def locked(folder: Path) -> AbstractContextManager[None]:
    """Make a folder and keep other processes of this package from writing to it; errors as `files.locked`."""
    return files.locked(folder / ".lock", f"Another process is writing to {folder}; wait for it or choose another one.")
