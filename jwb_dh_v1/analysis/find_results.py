"""Where results are looked for: folders, files, and datasets on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.hub import hub_errors, reason
from jwb_dh_v1.scoring.result import Result, parse_result
from jwb_dh_v1.version import __version__

HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
PATTERNS = ["results.json", "*/results.json"]  # `*` also stands for `/` here


def result_files(sources: Iterable[str | Path]) -> Iterable[tuple[str, Path]]:
    """Files `results.json` with the name to call each by.

    Args:
        sources: folders (looked through at any depth), files, or Hub datasets as `OWNER/NAME` or `OWNER/NAME@REVISION`.

    Raises:
        DataNotFound: a source is none of these, or cannot be reached.

    """
    for source in sources:
        place, prefix = Path(source), ""
        if not place.exists():
            place, prefix = from_hub(str(source)), f"{source}: "
        if place.is_file():
            yield str(place), place
        for path in sorted(place.rglob("results.json")) if place.is_dir() else ():
            inside = path.relative_to(place)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield (f"{prefix}{inside.as_posix()}" if prefix else str(path)), path


def from_hub(name: str) -> Path:
    """A Hub dataset's `results.json` files, fetched into the Hub's own cache."""
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise DataNotFound(f"{name} is no folder, no file, and no Hub dataset as OWNER/NAME.")
    from huggingface_hub import snapshot_download

    try:
        place = snapshot_download(
            match["repo"], repo_type="dataset", revision=match["revision"], allow_patterns=PATTERNS,
            library_name="jwb-dh-v1", library_version=__version__,
        )  # fmt: skip
    except hub_errors(OSError, ValueError) as error:
        raise DataNotFound(f"{name} is no folder here, and cannot be had from the Hub: {reason(error)}.") from error
    return Path(place)


MOST_BYTES = 10_000_000  # a results.json has some 30 kB


def read_result(path: str | Path) -> Result:
    """Read a `results.json`; its `samples` are None, as the rows lie in another file.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        DataNotFound: there is no such file.
        SetupError: it is damaged, of another schema, or contradicts itself; the message says how.

    """
    file = Path(path)
    if file.is_dir():
        file = file / "results.json"
    if not file.is_file():
        raise DataNotFound(f"{file} is not there; `jwb-dh score ... --out {file.parent}` makes it.")
    if file.stat().st_size > MOST_BYTES:
        raise SetupError(f"{file} has {file.stat().st_size / 1e6:.0f} MB; results have at most {MOST_BYTES / 1e6:.0f}.")
    try:
        return parse_result(file.read_bytes(), file.parent)
    except (OSError, ValueError) as error:
        raise SetupError(f"{file} is not a results file of this version: {error}.") from None
