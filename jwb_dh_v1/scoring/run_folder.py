"""A run's folder: its plan, its finished shards, and who may write to it.

Processes may hold ranges of one folder's shards that do not overlap. In a local folder a lock of the system says who
does. Elsewhere each process lays down a claim of its own and then looks for others': of two that overlap, at least the
later one sees the other, wherever listings show what was written before (S3, GCS, Azure, the Hub). A claim is renewed
while its owner lives; it counts no more once its process is gone (seen on its own machine) or after `EXPIRES` seconds.
Even two runs that get past all of this (a clock that jumps, a machine that sleeps) do no harm but double work: both
write the same rows and states.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, NotWritable, PlanMismatch, SetupError
from jwb_dh_v1.files import Folder, LocalFolder, RemoteFolder, locked, seal, unseal
from jwb_dh_v1.metrics.protocols import Protocol, protocol
from jwb_dh_v1.metrics.state import State
from jwb_dh_v1.scoring.aggregator import versions_here
from jwb_dh_v1.scoring.plan import Cell, Plan
from jwb_dh_v1.scoring.shard import read_shard

PLAN, RANGES, CLAIMS = "plan.json", "ranges.json", ".claims"
GATE = 60  # seconds
BEAT, EXPIRES = 120.0, 600.0  # seconds between renewals of a claim, and until one counts no more
ALL = 2**62  # the end of a range that is open

Finished = tuple[Any, dict[Cell, State], dict[str, float]]  # rows (pyarrow Table), states, seconds


def shard_file(number: int) -> str:
    """Name of a shard's file."""
    return f"shards/{number:06d}.npz"


def finished(folder: Folder, number: int) -> Finished | None:
    """A shard's content, or None where its file is absent or damaged."""
    file = folder.open(shard_file(number))
    if file is None:
        return None
    with file:
        try:
            with zipfile.ZipFile(file) as archive:
                # All of it: what NumPy does not read, because a damaged header promises less, it does not check either.
                if archive.testzip():
                    return None
            file.seek(0)
            return read_shard(file)
        except Exception:  # noqa: BLE001 - a flipped bit may end in any error; the shard is scored again
            return None


@contextmanager
def lock_shards(
    folder: Folder, wanted: range, plan: Plan | None = None, shard_size: int = 0, generated: str = ""
) -> Iterator[None]:
    """Hold a range of a folder's shards, and with a plan make it the folder's.

    Raises:
        AlreadyRunning: another process holds some of them.
        PlanMismatch: the folder is another plan's, or nothing tells what plan its shards are of.
        NotWritable: the folder cannot be written to, now or later.

    """
    hold = _locked(folder, wanted) if isinstance(folder, LocalFolder) else _announced(folder, wanted)
    with hold:
        if plan is not None:
            with _gate(folder):
                claim_folder(folder, plan, shard_size, generated)
        try:
            yield
        except NotWritable as error:
            kept = f"The finished shards of {folder.place} are kept, and the same command goes on from there."
            raise NotWritable(f"{error} {kept}") from error


@contextmanager
def _gate(folder: Folder) -> Iterator[None]:
    """One process at a time, for moments; what all of a local folder's processes write is written in here."""
    if isinstance(folder, RemoteFolder):
        yield  # stores have no locks: `create` and reading again have to do
        return
    path = folder.path / ".lock"
    try:
        with locked(path, f"Another process has held {path} for {GATE} s; is it stuck?", GATE):
            yield
    except OSError as error:
        raise error if isinstance(error, NotWritable) else NotWritable.of(folder.path, error) from error


def _taken(start: int, stop: int, place: str) -> str:
    which = f"to shards {start}:{stop} of" if stop < ALL else "to"
    return f"Another process is writing {which} {place}; wait for it or choose another --out."


@contextmanager
def _locked(folder: LocalFolder, wanted: range) -> Iterator[None]:
    try:
        (folder.path / "shards").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritable.of(folder.path, error) from error
    mine = locked(folder.path / f".shards-{wanted.start}-{wanted.stop}.lock")
    with ExitStack() as held:
        with _gate(folder):
            for path in sorted(folder.path.glob(".shards-*-*.lock")):
                start, stop = map(int, path.stem.split("-")[1:])
                if start < wanted.stop and stop > wanted.start:
                    with locked(path, _taken(start, stop, folder.place)):
                        path.unlink(missing_ok=True)  # left by a run that is over
            held.enter_context(mine)
        yield


@contextmanager
def _announced(folder: RemoteFolder, wanted: range) -> Iterator[None]:
    mine = f"{CLAIMS}/{wanted.start}-{wanted.stop}-{uuid.uuid4().hex}.json"
    owner = {"host": platform.node(), "machine": _machine(), "process": os.getpid()}

    def renew() -> None:
        folder.write(mine, json.dumps({**owner, "seen": time.time()}).encode())

    def keep() -> None:
        while not over.wait(BEAT):
            with suppress(SetupError):  # the next one may come through; writing a shard says it if none does
                renew()

    renew()
    over = threading.Event()
    beats = threading.Thread(target=keep, daemon=True)
    try:
        for name in folder.names(CLAIMS):
            start, stop = map(int, name.split("-")[:2])
            if f"{CLAIMS}/{name}" == mine or start >= wanted.stop or stop <= wanted.start:
                continue
            _check_over(folder, f"{CLAIMS}/{name}", start, stop)
        beats.start()
        yield
    finally:
        over.set()
        if beats.is_alive():
            beats.join()  # or it could write the claim again
        with suppress(SetupError):
            folder.remove(mine)


def _check_over(folder: RemoteFolder, name: str, start: int, stop: int) -> None:
    """Remove a claim whose owner is gone.

    Raises:
        AlreadyRunning: it is not, or may not be.

    """
    file = folder.open(name)
    if file is None:
        return
    claim = json.loads(file.read())
    age = time.time() - claim["seen"]
    gone = claim["machine"] == _machine() and not _alive(claim["process"])
    if not gone and age < EXPIRES:
        host = f"{claim['host']}, process {claim['process']}, seen {max(age, 0):.0f} s ago"
        raise AlreadyRunning(
            f"{_taken(start, stop, folder.place)} It is {host}; if it is over, delete {folder.place}/{name} or wait "
            f"until it is {EXPIRES:.0f} s old."
        )
    folder.remove(name)


def _machine() -> str:
    """What tells whether a process number means the same here: this boot and, in a container, its own numbering."""
    facts = [platform.node(), str(uuid.getnode())]
    with suppress(OSError):
        facts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(Path("/proc/self/ns/pid").readlink())]
    return " ".join(facts)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def claim_folder(folder: Folder, plan: Plan, shard_size: int, generated: str = "") -> None:
    """Write the plan into a new folder; refuse a folder of another plan.

    Raises:
        PlanMismatch: names what differs; or nothing tells what plan the shards of this folder are of.

    """
    ours = json.loads(json.dumps({**plan.facts(), "shard_size": shard_size, "generated": generated}))
    file = folder.open(PLAN)
    if file is not None:
        file.close()
    elif not folder.names("shards"):
        folder.create(PLAN, seal(ours))
    theirs = _plan_in(folder)  # after `create`, too: another process may have been faster
    changed = {key: value for key, value in ours.items() if theirs.get(key) != value}
    differing = [f"{key}: {theirs.get(key)!r} there, {value!r} now" for key, value in changed.items()]
    if differing:
        raise PlanMismatch(f"{folder.place} holds another plan ({'; '.join(differing)}). Choose another --out.")


def _plan_in(folder: Folder) -> dict[str, Any]:
    found, there = _facts(folder, PLAN)
    if found is None:
        raise PlanMismatch(
            f"{folder.place}/{PLAN} is {'damaged' if there else 'missing'}, and nothing else tells what plan the "
            "shards beside it are of: bring it back from a copy, or choose another --out."
        )
    return found


def write_run_facts(folder: Folder, name: str, device: str, count: int | None) -> None:
    """Write down what `merge` needs and the plan does not hold.

    Raises:
        PlanMismatch: other processes of this folder have another name, device or versions of packages.

    """
    facts: dict[str, Any] = {"name": name, "device": device, "versions": versions_here(), "count": count}
    with _gate(folder):
        known, there = _facts(folder, RANGES)
        if known is None and not there:
            folder.create(RANGES, seal(facts))
            known, _ = _facts(folder, RANGES)
        for key in ("name", "device", "versions"):
            if known is not None and known[key] != facts[key]:
                raise PlanMismatch(f"{folder.place} was begun with {key} {known[key]!r}; here it is {facts[key]!r}.")
        if known is None or (known["count"] is None and count is not None):  # a damaged one is written anew
            folder.write(RANGES, seal(facts))


def read_run_facts(folder: Folder, table: str | Protocol | None = None) -> tuple[Plan, dict[str, Any]]:
    """The plan of a run in ranges, and what `write_run_facts` wrote down.

    Args:
        folder: of the run.
        table: the run's protocol; by default it is found by the name that the run wrote down.

    Raises:
        SetupError: there is no such protocol here.
        DataNotFound: there was no such run in this folder.
        PlanMismatch: what the runs wrote down about themselves is damaged.

    """
    facts, there = _facts(folder, RANGES)
    if not there:
        raise DataNotFound(
            f"{folder.place} holds no run in ranges; run `jwb-dh score ... --shards A:B --out {folder.place}` first."
        )
    found = _plan_in(folder)
    if facts is None:
        raise PlanMismatch(f"{folder.place}/{RANGES} is damaged: score one of the ranges again, which writes it anew.")
    return Plan.from_facts(found, protocol(table or found["protocol"])), facts


def _facts(folder: Folder, name: str) -> tuple[dict[str, Any] | None, bool]:
    """A sealed file's content, or None; and whether there is such a file."""
    file = folder.open(name)
    if file is None:
        return None, False
    with file, suppress(OSError):
        return unseal(file.read()), True
    return None, True
