"""Where files of visitors lie, and when they go.

All lie under one folder, `WORK`: gradio's uploads, a run's own copies, and what a session may download. The copies go
when the run ends, a session's files when its page is closed, and everything else after `KEPT` seconds.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KEPT = 1800  # seconds that a file stays after it was last used
# A folder of our own, because all of it is swept: never the one that the variable names itself.
WORK = Path(tempfile.mkdtemp(prefix="jwb-dh-demo-", dir=os.environ.get("GRADIO_TEMP_DIR"))).resolve()


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder that is gone afterwards, whatever happened."""
    (WORK / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=WORK / "runs"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Keeper:
    """Who uses which files, so that they can go when no session needs them any more.

    Gradio names an upload by its content, so that visitors with the same clip share one file. An upload is therefore
    held until a job takes it: one visitor's leaving must not take it from another one's job that waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, set[Path]] = {}
        self._shown: dict[tuple[str, str], Path] = {}
        self._held: dict[Path, list[float]] = {}  # when uploads that no job took yet came

    def hold(self, paths: Sequence[str]) -> None:
        """Note uploads."""
        with self._lock:
            for path in map(Path, paths):
                self._held.setdefault(path, []).append(time.time())

    def use(self, session: str, *paths: str | Path | None) -> None:
        """Note files (or folders) that a session's job uses now."""
        with self._lock:
            for path in map(Path, filter(None, paths)):
                self._of.setdefault(session, set()).add(path)
                if times := self._held.get(path):
                    times.pop(0)
                if path.is_relative_to(WORK):
                    touch(path)

    def show(self, session: str, tab: str, place: Path) -> None:
        """Note the folder of the result that a tab shows now; that of its last one goes."""
        with self._lock:
            last = self._shown.get((session, tab))
            self._shown[session, tab] = place
        self.use(session, place)
        if last is not None:
            _remove(last)

    def leave(self, session: str) -> None:
        """Remove what this session alone used."""
        with self._lock:
            mine = self._of.pop(session, set())
            self._shown = {key: place for key, place in self._shown.items() if key[0] != session}
            others = set().union(*self._of.values()) if self._of else set()
            for path in mine - others - KEEP:
                if not self._held.get(path):
                    self._held.pop(path, None)
                    _remove(path)

    def sweep(self, now: float | None = None) -> None:
        """Remove all that was not used for `KEPT` seconds, and folders that are empty."""
        now = time.time() if now is None else now
        # os.walk, because pathlib's stumbles over folders that go away meanwhile
        found = [Path(top) / name for top, folders, files in os.walk(WORK) for name in (*folders, *files)]
        for path in sorted(found, reverse=True):  # files before their folders
            try:
                facts = path.lstat()
                # gradio's File component leaves an empty file behind for each one that it takes.
                spoilt = path.parent == WORK and facts.st_size == 0
                if path in KEEP or now - facts.st_mtime < (120 if spoilt else KEPT):
                    continue
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError:  # in use, not empty, or gone already
                continue
        with self._lock:  # sessions that never said good-bye
            self._of = {s: kept for s, paths in self._of.items() if (kept := {p for p in paths if p.exists()})}
            self._shown = {key: place for key, place in self._shown.items() if place.exists()}
            self._held = {path: times for path, times in self._held.items() if path.exists()}


KEEP: set[Path] = set()  # examples
KEEPER = Keeper()


def touch(path: Path) -> None:
    """Say that a file was used now."""
    try:
        os.utime(path)
    except OSError:
        return


def _remove(path: Path) -> None:
    if WORK not in path.resolve().parents:
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    if path.parent != WORK and path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def start() -> None:
    """Make `WORK`, sweep it every minute, and remove it when the process ends."""
    WORK.mkdir(parents=True, exist_ok=True)

    def run() -> None:
        while True:
            time.sleep(60)
            KEEPER.sweep()

    threading.Thread(target=run, daemon=True, name="sweeper").start()
    atexit.register(shutil.rmtree, WORK, ignore_errors=True)
