"""Clips that change while a run goes on: a file that is replaced, removed or on failing storage fails its sample.

What a file was is known from its status (bytes, time of change, inode) when its sample is drawn, before anything of it
is read, and again when the sample is done; and from its size when the run began, where that was noted
(`Clip.expected`). A sample whose files moved in between has rows of one moment or another, or of both: none counts.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from jwb_dh_v1.errors import Disturbed
from jwb_dh_v1.files import sha256_of
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import State
from jwb_dh_v1.scoring.result import Row

Scored = tuple[Row, State | None, float]
Stamp = tuple[int, int, int]  # bytes, nanoseconds, inode
BLOCK = 1 << 20


class ChangeGuard:
    """Samples of an iterable, each file's status noted when its sample is drawn.

    Iterate it once, then ask `checked` for each of its samples, in their order.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples
        self._noted: deque[list[Stamp | None]] = deque()

    def __iter__(self) -> Generator[Sample, None, None]:
        """Yield the samples."""
        for sample in self._samples:
            self._noted.append([_stamp(path) for _, path in _files(sample)])
            yield sample

    def checked(self, sample: Sample, scored: Iterable[Scored]) -> Iterator[Scored]:
        """What was scored; all of it failed (`Disturbed`) where a file of the sample was not what it had been."""
        found = list(scored)
        reason = _disturbance(sample, self._noted.popleft(), [row for row, _, _ in found])
        for row, state, spent in found:
            if reason is None:
                yield row, state, spent
            else:
                blank = Row(row.sample_id, row.identity_id, row.metric, row.region, None, 0, None, "failed")
                yield replace(blank, error=Disturbed.__name__, message=reason), None, spent


def _files(sample: Sample) -> list[tuple[Clip, Path]]:
    clips = [clip for clip in (sample.generated, sample.reference) if clip is not None]
    return [(clip, clip._source) for clip in clips if isinstance(clip._source, Path)]


def _stamp(path: Path) -> Stamp | None:
    """The status of a regular file; None for anything else, and for nothing."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _same_content(clip: Clip, path: Path, before: Stamp | None) -> bool:
    """Whether a file that was touched or written anew still has the size and the hash that its clip was scored by."""
    known, now = clip._memo.get("sha256"), _stamp(path)
    if known is None or before is None or now is None or now[0] != before[0]:
        return False
    try:
        return bool(sha256_of(path) == known)
    except OSError:
        return False


def _disturbance(sample: Sample, noted: list[Stamp | None], rows: list[Row]) -> str | None:
    errors = {row.error for row in rows if row.status == "failed"}
    for (clip, path), before in zip(_files(sample), noted, strict=True):
        if clip.expected is not None and (before is None or before[0] != clip.expected):
            now = "is gone" if before is None else f"has {before[0]} bytes"
            return f"{path.name} had {clip.expected} bytes when the run began, and {now} when its turn came."
        if before != _stamp(path) and not _same_content(clip, path, before):
            return f"{path.name} was removed or changed while it was scored."
        # What the storage does not give looks like a damaged file. A file that hung once is not read again.
        lost = before is not None and errors and not errors & {"DecoderHung", "DecoderCrashed"}
        if lost and (reason := _read_error(path)):
            return f"{path.name} cannot be read to its end: {reason}."
    return None


def _read_error(path: Path) -> str | None:
    """Why a file that can be opened cannot be read; None where it can, or cannot even be opened."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    with file:
        try:
            while file.read(BLOCK):
                pass
        except OSError as error:
            return error.strerror or str(error)
    return None
