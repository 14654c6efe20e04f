"""The log of the judge: one JSON line per answer that was paid for, kept whatever happens.

Lines are only ever added, each one flushed and synchronised to the disk before the run goes on; threads take turns and
a second process is kept out. What a line holds is listed at `question.facts`. Its `source` says where it comes from:

- `judge`: a call, or two with the re-ask. With status `api_error` no answer came; nothing was paid, and the next run
  asks again.
- `rule`: a verdict that needs no judge (no speech, or the same sound twice).
- `reused`: an answer of the log that also fits another pair, because two systems sound exactly the same.

So the verdicts of a run can be made from its log alone (`question.judged`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.files import locked

FORMAT = 1
Record = dict[str, Any]

SECRET_NAMES = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$|API_?KEY", re.IGNORECASE)
SHORTEST_SECRET = 8  # shorter values ("EMPTY", as local servers take it) are no secrets and occur in texts


def digest(value: Any) -> str:
    """Sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def scrub(value: Any) -> Any:
    """A JSON value in which the value of every environment variable named like a key or token is replaced.

    A second fence: backends already keep their key out of their messages.
    """
    secrets = {
        form
        for name, value_of in os.environ.items()
        if SECRET_NAMES.search(name) and len(secret := value_of.strip()) >= SHORTEST_SECRET
        for form in (secret, quote(secret, safe=""))
    }
    return _scrubbed(value, sorted(secrets, key=len, reverse=True)) if secrets else value


def _scrubbed(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[key]")
        return value
    if isinstance(value, Mapping):
        return {_scrubbed(key, secrets): _scrubbed(one, secrets) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(one, secrets) for one in value]
    return value


def records(path: str | Path) -> Iterator[Record]:
    """All records of a log, in order. A last line that was cut off in the middle of writing is left out.

    Raises:
        SetupError: no such file, or a line that is no record: names file and line.

    """
    try:
        with Path(path).open("rb") as handle:
            for _, _, record in _lines(handle, Path(path)):
                yield record
    except OSError as error:
        raise SetupError(f"The log {path} cannot be read: {error.strerror or error}.") from None


def _lines(handle: Any, path: Path) -> Iterator[tuple[int, int, Record]]:
    """Offset, length and record of each line; an unfinished last line only if it is a whole record all the same."""
    at = 0
    for number, line in enumerate(handle, 1):
        finished = line.endswith(b"\n")
        try:
            yield at, len(line), _parsed(line)
        except ValueError as error:
            if finished:
                raise SetupError(
                    f"Line {number} of {path} is no record of a judge's log ({error}); mend or remove that line. "
                    "Nothing was asked."
                ) from None
        at += len(line)


def _parsed(line: bytes) -> Record:
    record = json.loads(line)
    if not isinstance(record, dict) or not all(isinstance(record.get(k), str) for k in ("key", "status", "source")):
        raise ValueError("key, status or source is missing")
    if record.get("format") != FORMAT:
        raise ValueError(f"format {record.get('format')!r}, not {FORMAT}; another version of this package wrote it")
    return record


class Log:
    """A log, open for looking up and for adding.

    On the disk it is the truth; in memory it is a place per key, so that a long log takes little memory.
    """

    def __init__(self, path: str | Path, *, write: bool = True) -> None:
        """Open or make a log.

        A last line that was cut off is moved to `<path>.torn`.

        Args:
            path: a JSONL file.
            write: False takes no lock, makes and mends nothing, and a missing file is an empty log.

        Raises:
            AlreadyRunning: another process (or another Log) has it open for writing.
            SetupError: it cannot be opened, or holds a line that is no record.

        """
        self.path = Path(path)
        self._threads = Lock()
        self._answers: dict[str, tuple[int, int]] = {}  # key: offset and length
        self._rows: set[str] = set()
        self._file: Any = None
        self._guard = ExitStack()
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock()
                # Unbuffered: a line is on its way to the disk, or it is not; nothing waits in this process.
                self._file = self.path.open("a+b", buffering=0)
                _sync_folder(self.path.parent)
            elif self.path.exists():
                self._file = self.path.open("rb")
            self._read()
            if write:
                self._mend()
        except OSError as error:
            self.close()
            raise SetupError(f"The log {path} cannot be opened: {error.strerror or error}.") from None
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        busy = f"Another process is writing to {self.path}; wait for it or choose another log."
        self._guard.enter_context(locked(self.path.with_name(self.path.name + ".lock"), busy))

    def _read(self) -> None:
        if self._file is None:
            return
        with self.path.open("rb") as handle:  # buffered, unlike ours
            for at, length, record in _lines(handle, self.path):
                self._remember(at, length, record)

    def _mend(self) -> None:
        """Finish a whole last line that lacks its line end, or move a torn one out of the way."""
        size = self._file.seek(0, os.SEEK_END)
        if not size:
            return
        # The last line is short (a few kB), but nothing promises it.
        step, start = 65536, size
        tail = b""
        while start and b"\n" not in tail:
            start = max(0, start - step)
            self._file.seek(start)
            tail = self._file.read(size - start)
        last = tail[tail.rfind(b"\n") + 1 :]
        if not last:
            return
        try:
            _parsed(last)
        except ValueError:
            with self.path.with_name(self.path.name + ".torn").open("ab") as aside:
                aside.write(last + b"\n")
                aside.flush()
                os.fsync(aside.fileno())
            self._file.truncate(size - len(last))
        else:
            self._file.write(b"\n")
        os.fsync(self._file.fileno())

    def _remember(self, at: int, length: int, record: Record) -> None:
        if record["status"] == "api_error":
            return
        if record["source"] != "rule":
            self._answers.setdefault(record["key"], (at, length))
        self._rows.add(row_of(record))

    def __len__(self) -> int:
        """The number of answers, each counted once."""
        return len(self._answers)

    def find(self, key: str) -> Record | None:
        """The paid answer to a question, whatever its status; None if it has to be asked."""
        with self._threads:
            if key not in self._answers:
                return None
            at, length = self._answers[key]
            self._file.seek(at)
            return _parsed(self._file.read(length))

    def holds(self, record: Record) -> bool:
        """Whether this very pair already has its line for this key."""
        with self._threads:
            return row_of(record) in self._rows

    def append(self, record: Record) -> Record:
        """Write a record, with secrets replaced, and return it as written once it is on the disk.

        Raises:
            SetupError: the disk is full or gone; the file is as before.

        """
        written: Record = scrub({"format": FORMAT, **record})
        line = json.dumps(written, allow_nan=False).encode() + b"\n"
        with self._threads:
            at = self._file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                with suppress(OSError):
                    self._file.truncate(at)
                raise SetupError(
                    f"The log {self.path} cannot be written: {error.strerror or error}; the last answer is lost."
                ) from None
            self._remember(at, len(line), written)
        return written

    def close(self) -> None:
        """Let go of the file and of the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._guard.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def row_of(record: Mapping[str, Any]) -> str:
    """What a line is about: the question, and the pair for which it was asked."""
    return digest([record.get(k) for k in ("key", "system", "baseline", "sample_id", "identity_id", "order")])


def _sync_folder(folder: Path) -> None:
    """Make a new file's name last (not on Windows, which cannot open folders)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
