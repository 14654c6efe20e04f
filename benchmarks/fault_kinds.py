"""Faults of the campaign (`faults.py`) in processes, the run's files and its clock. Each is a function
`(world, rng) -> outcome` on a run of its own.

What all have in common: what is on the disk after the fault is right or typed, and the same command (after the fault
was mended, where it lasts) ends in the bytes of the undisturbed run.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from fault_world import COUNT, SIZE, Child, Cold, Violation, World, brief, damage

Kind = Callable[[World, random.Random], str]


def must_equal(world: World, out: Path, *more: str, generated: Path | None = None) -> None:
    """The same command again ends in the undisturbed bytes.

    Raises:
        Violation: not even by an error.

    """
    if (found := world.again(out, *more, generated=generated)) != "equal":
        raise Violation(f"the same command again ends in {found}")


def first(world: World, out: Path, child: Child, allowed: tuple[int, ...] = (0,)) -> str:
    """How the disturbed run ended, in a word or two; what it left has to be right.

    Raises:
        Violation: another code than 0, 2 or the allowed ones.

    """
    code = child.wait()
    if code not in {0, 2, *allowed}:
        raise Violation(f"exit {code}: {child.text()[-1500:]}")
    world.right(out)
    if code == 0:
        world.whole(out)
    return brief(child.said()[0]) if code == 2 else f"exit {code}" if code >= 0 else signal.Signals(-code).name


# ------------------------------------------------------------------------------------------------- signals, processes


def killed(world: World, rng: random.Random) -> str:
    """SIGKILL, one to three times in a row."""
    out, codes = world.folder() / "run", []
    for _ in range(rng.randint(1, 3)):
        child = world.start(out)
        world.moment(out, child, rng)
        child.send(signal.SIGKILL)
        codes.append(first(world, out, child, (-9,)))
    must_equal(world, out)
    return "killed" if "SIGKILL" in codes else "was done"


def terminated(world: World, rng: random.Random) -> str:
    """SIGTERM."""
    return _asked(world, rng, signal.SIGTERM, (143, -15))


def interrupted(world: World, rng: random.Random) -> str:
    """SIGINT, once or twice."""
    return _asked(world, rng, signal.SIGINT, (130,), rng.random() < 0.5)


def _asked(world: World, rng: random.Random, number: int, codes: tuple[int, ...], twice: bool = False) -> str:
    out = world.folder() / "run"
    child = world.start(out, *(["--report"] if rng.random() < 0.1 else []))
    world.moment(out, child, rng)
    child.send(number)
    if twice:
        time.sleep(rng.uniform(0, 0.05))
        child.send(number)
    begun = first(world, out, child, codes)
    must_equal(world, out)
    return begun


def paused(world: World, rng: random.Random) -> str:
    """SIGSTOP (a suspended machine), a second start meanwhile, SIGCONT."""
    out = world.folder() / "run"
    child = world.start(out)
    world.moment(out, child, rng)
    child.send(signal.SIGSTOP)
    # Whoever is stopped within a step that only one may take keeps others waiting for a minute; so thaw it first.
    second = world.start(out)
    time.sleep(0.2)
    child.send(signal.SIGCONT)
    told = _second(world, out, second)
    begun = first(world, out, child)
    must_equal(world, out)
    return f"{begun}, second: {told}"


def started_twice(world: World, rng: random.Random) -> str:
    """A duplicate start on one output folder: the second is told, or starts when the first is done."""
    out = world.folder() / "run"
    child = world.start(out)
    world.moment(out, child, rng)
    told = _second(world, out, world.start(out))
    begun = first(world, out, child)
    must_equal(world, out)
    if begun not in {"exit 0", "'Another process'"} or begun == told == "'Another process'":
        raise Violation(f"first {begun}, second {told}")
    return f"{begun}, second: {told}"


def _second(world: World, out: Path, child: Child) -> str:
    code = child.wait()
    if code not in {0, 2} or (code == 2 and "Another process" not in child.said()[0]):
        raise Violation(f"the second start ends in {code}: {child.text()[-500:]}")
    world.right(out)
    return brief(child.said()[0]) if code == 2 else "exit 0"


def ranges(world: World, rng: random.Random) -> str:
    """Two ranges at once, one of them killed; then a damaged file; then merge."""
    out, middle = world.folder() / "run", rng.randint(1, COUNT // SIZE - 1)
    parts = (("--shards", f"0:{middle}"), ("--shards", f"{middle}:"))
    children = [world.start(out, *part) for part in parts]
    lost = rng.choice((0, 1, 2))
    if lost < 2:
        world.moment(out, children[lost], rng)
        children[lost].send(signal.SIGKILL)
    for number, child in enumerate(children):
        code = child.wait()
        if code and not (number == lost and code == -9):
            raise Violation(f"range {parts[number][1]} ends in {code}: {child.text()[-800:]}")
    how, kept = "", {}
    if rng.random() < 0.6:
        names = ("ranges.json", "ranges.json", "plan.json", "shards/*.npz", ".lock", ".shards-*.lock")
        places = sorted(out.glob(rng.choice(names)))
        if places:
            place = rng.choice(places)
            kept[place] = place.read_bytes()
            how = (
                f"{place.name.lstrip('.').split('-')[0] if place.suffix != '.npz' else 'shard'} {damage(place, rng)}, "
            )
    merging = Child(["merge", str(out)])
    code = merging.wait()
    world.right(out)
    if code == 0:
        world.whole(out)
        return f"{how.split()[0] + ' damaged, ' if how else ''}equal"
    if code != 2:
        raise Violation(f"{how}merge ends in {code}: {merging.text()[-800:]}")
    told = brief(merging.said()[0])
    for _ in range(2):
        codes = []
        for part in parts:
            child = world.start(out, *part)
            codes.append(child.wait())
            if codes[-1] not in {0, 2}:
                raise Violation(f"{how}range {part[1]} again ends in {codes[-1]}: {child.text()[-800:]}")
        if codes == [0, 0]:
            break
        for place, content in kept.items():  # told; the user brings the file back
            place.write_bytes(content)
    merging = Child(["merge", str(out)])
    if merging.wait() != 0:
        raise Violation(f"{how}merge at last: {merging.text()[-800:]}")
    world.whole(out)
    return f"{how.split()[0] + ' damaged, ' if how else ''}{told}"


# ------------------------------------------------------------------------------------------------------------- files


def damaged(world: World, rng: random.Random) -> str:
    """Truncations, flipped bits, blocks of zeros, bytes too many in a file of a finished or a stopped run."""
    out = world.folder() / "run"
    child = world.start(out)
    if rng.random() < 0.5:
        world.moment(out, child, rng)
        child.send(signal.SIGKILL)
    child.wait()
    what = rng.choice(("shards/*.npz", "shards/*.npz", "plan.json", "results.json", "samples.parquet", "timings.json",
                       ".lock", ".shards-*.lock"))  # fmt: skip
    places = sorted(out.glob(what))
    if not places:
        must_equal(world, out)
        return "nothing there yet"
    place = rng.choice(places)
    whole = place.read_bytes()
    damage(place, rng)
    name = "shard" if what.startswith("shards") else "lock" if what.endswith(".lock") else what
    found = world.again(out)
    if found != "equal":
        if name != "plan.json":
            raise Violation(f"{name} damaged: {found}")
        place.write_bytes(whole)
        must_equal(world, out)
    return f"{name}: {found}"


def obstacle(world: World, rng: random.Random) -> str:
    """A folder lies where a file should be, or a file where a folder should be."""
    out = world.folder() / "run"
    out.mkdir()
    what = rng.choice((".", "shards", "shards/000002.npz", "results.json", "samples.parquet", "plan.json", ".lock"))
    place = out / what
    if what in {".", "shards"}:
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("in the way")
    else:
        place.mkdir(parents=True)
    begun = first(world, out, world.start(out))
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink()
    must_equal(world, out)
    return begun


def removed(world: World, rng: random.Random) -> str:
    """The output folder is removed while the run goes on."""
    out = world.folder() / "run"
    child = world.start(out)
    world.moment(out, child, rng)
    shutil.rmtree(out, ignore_errors=True)  # a file may appear while it is walked: then some of it stays
    begun = child.wait()
    if begun not in {0, 2}:
        raise Violation(f"exit {begun}: {child.text()[-800:]}")
    told = brief(child.said()[0]) if begun == 2 else "exit 0"
    world.right(out)
    found = world.again(out)
    if found != "equal":  # half a folder was left
        shutil.rmtree(out)
        must_equal(world, out)
    return f"{told}, {found}"


# ------------------------------------------------------------------------------------------------------------- clock


def clock_jump(world: World, rng: random.Random) -> str:
    """The wall clock jumps by up to ten years, back or forth, in the middle of the run, which may be killed after it.

    Python's clock only (`time.time`, `time.time_ns`): libfaketime spoils `time.sleep` of Python 3.11 as well, and the
    machine's own clock is everybody's.
    """
    out, jump, after = world.folder() / "run", rng.choice((-1, 1)) * 10 ** rng.uniform(0, 8.5), rng.uniform(0, 1)
    child = world.start(out, before=lambda: _patch_clock(jump, after * world.length))
    world.moment(out, child, rng)
    if rng.random() < 0.5:
        child.send(signal.SIGKILL)
    begun = first(world, out, child, (-9,))
    must_equal(world, out)
    return begun


def _patch_clock(jump: float, after: float) -> None:
    real, begun = time.time, time.monotonic()
    time.time = lambda: real() + (jump if time.monotonic() - begun > after else 0)
    time.time_ns = lambda: int(time.time() * 1e9)


def cold(world: World, rng: random.Random) -> str:
    """SIGKILL or SIGTERM to a fresh interpreter, its imports too."""
    out, number = world.folder() / "run", rng.choice((signal.SIGKILL, signal.SIGTERM))
    child = Cold(world.arguments(out), {})
    time.sleep(rng.uniform(0, 10 * world.length))
    child.send(number)
    begun = first(world, out, child, (-9, -15, 143))
    must_equal(world, out)
    return begun
