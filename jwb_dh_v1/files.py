"""Where a run's files lie: a local folder, or a place that fsspec knows (`s3://`, `gs://`, `hf://`, `memory://` ...).

Object stores write whole objects or nothing, as a local folder does by temporary file, fsync and rename. On places
without that (`sftp://`, `ftp://`), a kill may leave half a file: shards carry checksums and are then scored again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, TypeVar

from jwb_dh_v1.errors import AlreadyRunning, MissingPackage, NotWritable, SetupError

CHUNK = 2**20  # bytes read at a time
PAUSES = (1.0, 3.0, 9.0)  # seconds between the tries of an operation, beside those of the store's own client
T = TypeVar("T")


class LocalFolder:
    """Files by name below a local folder.

    Attributes:
        path: of the folder; None for a `RemoteFolder`.
        place: the folder in words.
        name: its last part.

    """

    def __init__(self, path: Path) -> None:
        self.path, self.place, self.name = path, str(path), path.name

    def open(self, name: str) -> IO[bytes] | None:
        """A file to be read, or None where it is absent; an empty one where it cannot be read."""
        try:
            return (self.path / name).open("rb")
        except FileNotFoundError:
            return None
        except OSError:
            return io.BytesIO()

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that it is either whole or not there.

        Raises:
            NotWritable: the disk is full, read-only or gone, or the folder is.

        """
        write_atomically(self.path / name, content)

    def create(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet (processes of one folder do so one after the other)."""
        self.write(name, content)

    def names(self, folder: str) -> list[str]:
        """The files in a folder; none where there is no such folder."""
        return sorted(path.name for path in (self.path / folder).glob("*"))


class RemoteFolder:
    """Files by name below a place that fsspec knows.

    Args:
        url: `protocol://...`. Keys and endpoints come from the environment or fsspec's configuration.

    Raises:
        MissingPackage: fsspec needs another package for this protocol.
        SetupError: there is no such protocol, or the URL is none.

    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self.path = None
        self.place = url.rstrip("/")
        self.name = self.place.rpartition("/")[2]
        scheme = url.partition("://")[0]
        try:
            self.fs, self.root = url_to_fs(self.place)
        except ImportError as error:
            raise MissingPackage(f"{scheme}:// needs one more package: {error}.") from error
        except Exception as error:
            raise SetupError(f"{url} is no place to write to: {error}.") from error

    def open(self, name: str) -> IO[bytes] | None:
        """A file to be read, or None where it is absent.

        Raises:
            SetupError: the place cannot be read, after some tries.

        """

        def content(path: str) -> bytes:
            self.fs.invalidate_cache()  # others write there, too
            return bytes(self.fs.cat_file(path))

        try:
            return io.BytesIO(self._tried("read", name, content))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in one step where the store can.

        Raises:
            NotWritable: it cannot be written, after some tries.

        """
        self._tried("written", name, lambda path: self._pipe(path, content))

    def create(self, name: str, content: bytes) -> None:
        """Write a file unless there is one: exactly so on S3, memory and others that can; else looked up before."""

        def write(path: str) -> None:
            try:
                self._pipe(path, content, mode="create")
            except (NotImplementedError, TypeError, ValueError):  # of a store that knows no such mode
                self._pipe(path, content)
            except FileExistsError:
                pass

        self._tried("written", name, write)

    def names(self, folder: str) -> list[str]:
        """The files in a folder; none where there is no such folder.

        Raises:
            SetupError: the place cannot be read, after some tries.

        """

        def listed(path: str) -> list[str]:
            self.fs.invalidate_cache()
            return [str(found).rstrip("/").rpartition("/")[2] for found in self.fs.ls(path, detail=False)]

        try:
            return sorted(self._tried("read", folder, listed))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._tried("removed", name, lambda path: self.fs.rm_file(path))
        except FileNotFoundError:
            return

    def _pipe(self, path: str, content: bytes, **how: Any) -> None:
        try:
            self.fs.pipe_file(path, content, **how)
        except FileNotFoundError:  # of a store with true folders; but no bucket is made of a misspelt name
            if not self.fs.exists(path[: path.find("/", 1)]):
                raise
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.fs.pipe_file(path, content, **how)

    def _tried(self, what: str, name: str, action: Callable[[str], T]) -> T:
        path = f"{self.root.rstrip('/')}/{name}"
        for pause in (*PAUSES, None):
            try:
                return action(path)
            except Exception as error:  # each store's client has errors of its own
                if isinstance(error, FileNotFoundError) and what != "written":
                    raise
                if pause is None or isinstance(error, FileNotFoundError | PermissionError | NotImplementedError):
                    text = f"{type(error).__name__}: {error}".strip()
                    kind = SetupError if what == "read" else NotWritable
                    raise kind(f"{self.place}/{name} cannot be {what}: {text}.") from error
                time.sleep(pause)
        raise AssertionError("unreachable")


Folder = LocalFolder | RemoteFolder


def is_url(out: str | Path) -> bool:
    """Whether a place is named by a URL (`s3://bucket/run`), not by a path."""
    return isinstance(out, str) and re.match(r"[a-zA-Z][\w+.:-]+://", out) is not None


def folder_at(out: str | Path) -> Folder:
    """The folder at a path or URL; `file://` is a path.

    Raises:
        MissingPackage, SetupError: see `RemoteFolder`.

    """
    if not is_url(out):
        return LocalFolder(Path(out))
    scheme, _, rest = str(out).partition("://")
    return LocalFolder(Path(rest)) if scheme in {"file", "local"} else RemoteFolder(str(out))


def below(out: str | Path, name: str) -> str | Path:
    """A folder inside a path or URL."""
    return f"{str(out).rstrip('/')}/{name}" if is_url(out) else Path(out) / name


@contextmanager
def written_below(out: str | Path, name: str) -> Iterator[Path]:
    """A path to write a file to that lies in a folder in the end: there itself, or on its way to a URL."""
    folder = folder_at(out)
    if isinstance(folder, LocalFolder):
        yield folder.path / name
        return
    with TemporaryDirectory() as room:
        yield Path(room) / name
        folder.write(name, (Path(room) / name).read_bytes())


@contextmanager
def replaced_when_whole(path: Path, partial: str | None = None) -> Iterator[Path]:
    """A temporary path to write a file to, piece by piece; fsync and rename give it its name when the block succeeds.

    Args:
        path: the file that is replaced. When the block raises, it is as it was and the temporary file is removed.
        partial: name of the temporary file; by default short and unique to the thread, so that `path` may have the
            longest name that the file system takes.

    """
    temporary = path.with_name(partial or f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # half a file is of no use, and fills the disk


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either whole or not there, whatever happens (temp file, fsync, rename).

    Args:
        path: of the file; its folder must exist.
        content: text is written as UTF-8 without changing its line ends.

    Raises:
        NotWritable: the disk is full, read-only or gone; the folder is; something else has this name.

    """
    try:
        with replaced_when_whole(path, f".{path.name}.partial") as partial:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise NotWritable.of(path, error) from error


@contextmanager
def locked(path: Path, busy: str = "", wait: float = 0) -> Iterator[None]:
    """Hold a lock file against other processes of this package, and other threads of this one.

    Args:
        path: the lock file; it and its folder are made if they are missing.
        busy: what the error says when another process holds it.
        wait: seconds to wait for that process; -1: until it is done.

    Raises:
        AlreadyRunning: another process holds it.
        NotWritable: it cannot be made.

    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)  # it may be released by another thread than took it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise AlreadyRunning(busy) from None
    except OSError as error:
        raise NotWritable.of(path.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(facts: Mapping[str, Any]) -> bytes:
    """A JSON object with its own checksum, so that `unseal` knows a flipped bit from another value."""
    return json.dumps({**facts, "check": _check(facts)}, indent=1).encode()


def unseal(content: bytes) -> dict[str, Any] | None:
    """The object that `seal` made; None where it is damaged."""
    try:
        found = json.loads(content)
        return found if found.pop("check") == _check(found) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _check(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


# What spreadsheets take for the start of a formula, full-width forms included (OWASP, "CSV injection").
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def spreadsheet_safe(text: str) -> str:
    """A CSV cell that no spreadsheet runs: with an apostrophe in front where the text could start a formula."""
    return "'" + text if _FORMULA.match(text) else text


def from_spreadsheet(cell: str) -> str:
    """The text that `spreadsheet_safe` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
