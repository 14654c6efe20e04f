"""Faults of the campaign (`faults.py`) that come from outside: storage, clips, the process that decodes."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

from fault_kinds import first, must_equal
from fault_world import COUNT, Violation, World, brief, limit_files

FREEZE, THAW, SHUTDOWN = 0xC0045877, 0xC0045878, 0x8004587D  # ioctls FIFREEZE, FITHAW, EXT4_IOC_SHUTDOWN
NO_FLUSH = struct.pack("I", 2)  # as a power cut: what was not synced is lost


# ----------------------------------------------------------------------------------------------------------- storage


def disk_full(world: World, rng: random.Random) -> str:
    """ENOSPC: an output folder on a tmpfs of a few blocks (or inodes), which grows afterwards."""
    place = world.folder() / "disk"
    few = f"size={rng.randrange(4, 100, 4)}k" if rng.random() < 0.8 else f"size=4m,nr_inodes={rng.randint(2, 14)}"
    world.mount(place, few)
    try:
        begun = first(world, place / "run", world.start(place / "run"))
        world.mount(place, "remount", "size=4m", "nr_inodes=1000")
        must_equal(world, place / "run")
    finally:
        world.unmount(place)
    return begun


def file_too_large(world: World, rng: random.Random) -> str:
    """EFBIG (RLIMIT_FSIZE): a write breaks off, as on a full disk."""
    out = world.folder() / "run"
    begun = first(world, out, world.start(out, before=limit_files(rng.randint(1, 9000)), isolated=rng.random() < 0.2))
    must_equal(world, out)
    return begun


def read_only(world: World, rng: random.Random) -> str:
    """EROFS: the output folder on a file system that is mounted read-only, empty or in the middle of a run."""
    place = world.folder() / "disk"
    world.mount(place, "size=4m")
    try:
        out = place / "run"
        if rng.random() < 0.7:
            child = world.start(out)
            world.moment(out, child, rng)
            child.send(signal.SIGKILL)
            child.wait()
        world.mount(place, "remount", "ro")
        begun = first(world, out, world.start(out))
        world.mount(place, "remount", "rw")
        must_equal(world, out)
    finally:
        world.unmount(place)
    return begun


def no_permission(world: World, rng: random.Random) -> str:
    """EACCES: a folder that may not be written to, for a user without privileges."""
    out = world.folder() / "run"
    if rng.random() < 0.5:
        child = world.start(out)
        world.moment(out, child, rng)
        child.send(signal.SIGKILL)
        child.wait()
    out.mkdir(exist_ok=True)
    out.chmod(0o555)
    nobody = os.geteuid() == 0
    for parent in (out, *out.parents) if nobody else ():
        if parent.stat().st_uid == 0 and str(parent).startswith(str(world.room)) and parent != out:
            parent.chmod(0o755)
    begun = first(world, out, world.start(out, before=(lambda: os.setuid(65534)) if nobody else None))
    out.chmod(0o755)
    must_equal(world, out)
    return begun


def power_cut(world: World, rng: random.Random) -> str:
    """The disk goes away at once (EXT4_IOC_SHUTDOWN without a flush) and comes back with what was synced."""
    return _on_disk(world, rng, lambda handle: fcntl.ioctl(handle, SHUTDOWN, NO_FLUSH))


def stalled(world: World, rng: random.Random) -> str:
    """Writes hang for up to half a second (a frozen file system), with a SIGTERM meanwhile in every second case."""

    def freeze(handle: int) -> None:
        fcntl.ioctl(handle, FREEZE, 0)
        try:
            time.sleep(rng.uniform(0.05, 0.5))
        finally:
            fcntl.ioctl(handle, THAW, 0)

    return _on_disk(world, rng, freeze, rng.random() < 0.5)


def _on_disk(world: World, rng: random.Random, act: Callable[[int], object], term: bool = False) -> str:
    image, place = world.image(), world.folder() / "disk"
    world.mount(place, "loop", source=str(image), kind="ext4")
    try:
        out = place / "run"
        child = world.start(out)
        world.moment(out, child, rng)
        handle = os.open(place, os.O_RDONLY)
        if term:
            child.send(signal.SIGTERM)
        act(handle)
        os.close(handle)
        code = child.wait()
        if code not in {0, 2, 143, -15}:
            raise Violation(f"exit {code}: {child.text()[-1500:]}")
    finally:
        world.unmount(place)
    world.mount(place, "loop", source=str(image), kind="ext4")
    try:
        partial = ", half a file was left" if any(out.rglob(".*.partial")) else ""
        world.right(out)
        must_equal(world, out)
    finally:
        world.unmount(place)
    return (brief(child.said()[0]) if code == 2 else f"exit {code}") + partial


# ------------------------------------------------------------------------------------------------------------- clips


def _spoiled(
    world: World, rng: random.Random, spoil: Callable[[Path], object], before: Callable[[], None] | None = None
) -> str:
    """Spoil one generated clip while the run goes on; run again; bring the clip back; run again."""
    ours, out = world.clips(), world.folder() / "run"
    alone = True if before is not None else None  # the patience of a decoding process, for example
    clip = ours / f"{rng.randrange(COUNT):02d}.mp4"
    whole, child = clip.read_bytes(), world.start(out, generated=ours, before=before, isolated=alone)
    while child.alive() and not (out / "plan.json").is_file():
        time.sleep(0.001)  # before, the run would begin with the spoiled clip, and the whole one would be another set
    world.moment(out, child, rng)
    spoil(clip)
    code = child.wait()
    if code not in {0, 1, 2}:
        raise Violation(f"exit {code}: {child.text()[-1500:]}")
    if code == 0:
        world.whole(out)
    same = world.start(out, generated=ours, before=before, isolated=alone)
    if same.wait() not in {0, 1, 2}:
        raise Violation(f"with the spoiled clip again: {same.text()[-1500:]}")
    if same.code == 0:
        world.whole(out)
    clip.unlink(missing_ok=True)
    clip.write_bytes(whole)
    must_equal(world, out, generated=ours)
    return f"exit {code}, again {brief(same.said()[0]) if same.code == 2 else f'exit {same.code}'}, mended equal"


def clip_removed(world: World, rng: random.Random) -> str:
    """A generated clip is removed while the run goes on."""
    return _spoiled(world, rng, Path.unlink)


def clip_replaced(world: World, rng: random.Random) -> str:
    """A generated clip becomes another one while the run goes on: renamed over, or written over in place."""

    def other(clip: Path) -> None:
        theirs = clip.with_name(f"{(int(clip.stem) + 1) % COUNT:02d}.mp4")
        if rng.random() < 0.5:
            shutil.copyfile(theirs, clip)
        else:
            shutil.copyfile(theirs, clip.with_name(".new"))
            clip.with_name(".new").replace(clip)

    return _spoiled(world, rng, other)


def clip_cut(world: World, rng: random.Random) -> str:
    """A generated clip becomes shorter while the run goes on, as one that is being copied anew."""
    return _spoiled(world, rng, lambda clip: os.truncate(clip, rng.randrange(clip.stat().st_size)))


def read_error(world: World, rng: random.Random) -> str:
    """EIO: a generated clip can be opened, but reading it fails (a link to /proc/self/mem)."""

    def fail(clip: Path) -> None:
        clip.unlink()
        clip.symlink_to("/proc/self/mem")

    return _spoiled(world, rng, fail)


def clip_hangs(world: World, rng: random.Random) -> str:
    """A generated clip becomes a FIFO that no one writes to: whoever opens it waits for ever."""

    def fifo(clip: Path) -> None:
        clip.unlink()
        os.mkfifo(clip)

    return _spoiled(world, rng, fifo, lambda: os.environ.update(JWB_DECODE_TIMEOUT="3"))


def decoder_killed(world: World, rng: random.Random) -> str:
    """SIGKILL to the process that decodes, as by a crash or for want of memory, one to four times."""
    out = world.folder() / "run"
    child = world.start(out, isolated=True)
    killed = 0
    for _ in range(rng.randint(1, 4)):
        world.moment(out, child, rng)
        for decoder in world.children_of(child):
            os.kill(decoder, signal.SIGKILL)
            killed += 1
    code = child.wait()
    if code not in {0, 1, 2}:
        raise Violation(f"exit {code}: {child.text()[-1500:]}")
    if code == 0:
        world.whole(out)
    must_equal(world, out)
    return f"{min(killed, 1)} killed, exit {code}"
