"""What the fault campaign (`faults.py`) stands on: clips, runs of the command line in forked processes, damage, mounts.

A run is `jwb-dh score` (or `merge`) of ten small clips in a process that is forked after all imports, so that it takes
a fraction of a second; signals, limits and file systems are real. Mounts lie in a mount namespace of the campaign's
own where the kernel allows one: they vanish with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jwb_dh_v1.cli import main as cli
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.media.worker import Decoder

COUNT, SIZE = 10, 2
LONGEST = 300.0  # seconds; a run that takes longer hangs
OUTPUTS = ("results.json", "samples.parquet")
PLAN = ["--protocol", "paper", "--regions", "body", "--metrics", "ssim", "psnr", "--shard-size", str(SIZE)]
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NAMESPACE, PRIVATE, DIE_WITH_PARENT = 0x20000, (1 << 18) | (1 << 14), 1


class Violation(Exception):
    """What must not happen: a traceback, a wrong total, a run that hangs, an error without a sentence."""


def moving(frames: int, width: int, height: int, seed: int) -> np.ndarray:
    """A coarse texture that slides, uint8 [T, H, W, 3]."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), width // 8 + frames, 3))
    wide = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([wide[:height, 3 * t : 3 * t + width] for t in range(frames)])


class Child:
    """A run of the command line in a process of its own, whose output goes to a file.

    Args:
        arguments: of `jwb-dh`.
        before: called in the child first: limits, other clocks.

    """

    def __init__(self, arguments: list[str], before: Callable[[], None] | None = None) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - read when the run is over
        ready, begun = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._child(arguments, before, begun))
        os.close(begun)
        os.read(ready, 1)
        os.close(ready)
        self.begun = time.monotonic()
        self.code: int | None = None

    def _child(self, arguments: list[str], before: Callable[[], None] | None, begun: int) -> int:
        code = 1
        try:
            LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL)
            os.setpgid(0, 0)  # Ctrl-C in the campaign's terminal is the campaign's
            for stream in (1, 2):
                os.dup2(self.log.fileno(), stream)
            if before is not None:
                before()
            os.write(begun, b"x")
            code = cli(arguments)
        except BaseException:  # noqa: BLE001 - as the interpreter does at its end
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return code

    def alive(self) -> bool:
        """Whether it still runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, longest: float = LONGEST) -> int:
        """The exit code, negative for a signal.

        Raises:
            Violation: it hangs, or its output holds a traceback, or an error without exactly one sentence.

        """
        end = time.monotonic() + longest
        while self.alive():
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise Violation(f"hangs: {self.text()[-300:]}")
            time.sleep(0.003)
        assert self.code is not None
        text = self.text()
        if "Traceback" in text or "terminate called" in text:
            raise Violation(f"exit {self.code} with a traceback: {text[-1500:]}")
        if self.code == 2 and len(self.said()) != 1:
            raise Violation(f"exit 2 with {len(self.said())} sentences: {text[-500:]}")
        if self.code not in {0, 1, 2, 130, 143} and -self.code not in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}:
            raise Violation(f"exit {self.code}: {text[-500:]}")
        return self.code

    def text(self) -> str:
        """All output so far."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def said(self) -> list[str]:
        """The error messages (those about signals apart)."""
        return re.findall(r"^jwb-dh: (?!SIG)(.+)$", self.text(), re.MULTILINE)


class Cold(Child):
    """The same as a fresh interpreter, for what must be there before the imports (a preloaded clock)."""

    def __init__(self, arguments: list[str], extra: dict[str, str]) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-m", "jwb_dh_v1.cli", *arguments]
        process = subprocess.Popen(command, env={**os.environ, **extra}, stdout=self.log, stderr=self.log)
        process.returncode = 0  # it is waited for here
        self.pid, self.begun, self.code = process.pid, time.monotonic(), None


class World:
    """The campaign's folder: clips, and what the undisturbed run wrote."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.dice = random.Random(0)
        for number in range(COUNT):
            for side, crf in (("real", 16), ("generated", 20 + number)):
                (room / side).mkdir(exist_ok=True)
                write_mp4(room / side / f"{number:02d}.mp4", moving(4, 64, 48, number), 8, crf=crf, preset="ultrafast")
        times = []
        for number in range(2):
            child = self.start(room / f"calm{number}", isolated=number == 0)
            if child.wait() != 0:
                raise SystemExit(f"The undisturbed run fails: {child.text()}")
            times.append(time.monotonic() - child.begun)
        self.length = times[1]  # the first also starts the process that decodes
        self.expected = self.outputs(room / "calm0")
        if self.expected != self.outputs(room / "calm1"):
            raise SystemExit("Two undisturbed runs differ (the first decoded in a process of its own).")

    @staticmethod
    def outputs(out: Path) -> dict[str, bytes]:
        """The files whose bytes must not depend on what happened."""
        return {name: (out / name).read_bytes() for name in OUTPUTS if (out / name).is_file()}

    def arguments(self, out: Path, *more: str, generated: Path | None = None) -> list[str]:
        """Of the run that every fault disturbs."""
        ours = generated or self.room / "generated"
        report = [] if "--report" in more else ["--no-report"]
        rest = [word for word in more if word != "--report"]
        return ["score", str(ours), "--data", str(self.room / "real"), "--out", str(out), *PLAN, *report, *rest]

    def start(
        self,
        out: Path,
        *more: str,
        generated: Path | None = None,
        before: Callable[[], None] | None = None,
        isolated: bool | None = None,
    ) -> Child:
        """Begin a run; by chance (`dice`) every third one decodes in a process of its own, as runs do by default."""
        if isolated is None:
            isolated = self.dice.random() < 1 / 3

        def prepare() -> None:
            if not isolated:
                Decoder.here = staticmethod(lambda: False)  # type: ignore[method-assign]
            if before is not None:
                before()

        return Child(self.arguments(out, *more, generated=generated), prepare)

    def folder(self) -> Path:
        """A new, empty folder."""
        return Path(tempfile.mkdtemp(dir=self.room))

    def clips(self) -> Path:
        """A copy of the generated clips, to be spoiled."""
        return Path(shutil.copytree(self.room / "generated", self.folder() / "generated"))

    def moment(self, out: Path, child: Child, rng: random.Random) -> None:
        """Wait for a random moment of a run: any, or shortly after another shard was written."""
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 1.1) * self.length)
            return
        wanted = len(list(out.glob("shards/*.npz"))) + rng.randint(1, COUNT // SIZE)
        while child.alive() and len(list(out.glob("shards/*.npz"))) < wanted:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))

    @staticmethod
    def children_of(child: Child) -> list[int]:
        """The processes that a run has started and that are there now."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(status.read_text().rpartition(")")[2].split()[1]) == child.pid:
                    found.append(int(status.parent.name))
        return found

    def right(self, out: Path) -> None:
        """What is there is byte-equal to the undisturbed run's.

        Raises:
            Violation: it is not.

        """
        for name, content in self.outputs(out).items():
            if content != self.expected[name]:
                raise Violation(f"another {name}: {content[:3000]!r}")

    def again(self, out: Path, *more: str, generated: Path | None = None) -> str:
        """Run the same command once more: `equal`, or the typed error's first words.

        Raises:
            Violation: neither equal bytes nor a typed error.

        """
        child = self.start(out, *more, generated=generated)
        code = child.wait()
        if code == 2:
            return brief(child.said()[0])
        if code:
            raise Violation(f"exit {code} of the same command again: {child.text()[-1500:]}")
        self.whole(out)
        return "equal"

    def whole(self, out: Path) -> None:
        """All outputs are there and equal, and nothing is left over."""
        self.right(out)
        if missing := set(OUTPUTS) - set(self.outputs(out)):
            raise Violation(f"exit 0 without {missing}")
        if left := [path.name for path in out.rglob("*.partial")]:
            raise Violation(f"left over: {left}")

    def image(self, megabytes: int = 8) -> Path:
        """A file with an empty ext4 file system, for `mount(..., "loop")`."""
        path = self.folder() / "image"
        with path.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal" if megabytes < 4 else "has_journal", str(path)], check=True)  # noqa: E501 # fmt: skip
        return path

    def mount(self, place: Path, *options: str, source: str = "tmpfs", kind: str = "tmpfs") -> None:
        """Mount a file system of the campaign's own."""
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, "-o", ",".join(options), source, str(place)], check=True)

    @staticmethod
    def unmount(place: Path) -> None:
        """The opposite of `mount`."""
        subprocess.run(["umount", str(place)], check=True)


def own_mounts() -> bool:
    """Move into a mount namespace of our own; whether that, and mounting in it, is allowed."""
    return (
        os.geteuid() == 0 and LIBC.unshare(NEW_NAMESPACE) == 0 and LIBC.mount(b"none", b"/", None, PRIVATE, None) == 0
    )


def damage(path: Path, rng: random.Random) -> str:
    """Spoil a file; how."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("cut", "flip", "flip", "zeros", "grow", "empty"))
    if how == "empty" or not content:
        content, how = bytearray(), "empty"
    elif how == "cut":
        del content[rng.randrange(len(content)) :]
    elif how == "flip":
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "zeros":
        at = rng.randrange(len(content))
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    else:
        content += rng.randbytes(rng.randint(1, 600))
    path.write_bytes(content)
    return how


SAID = ("cannot be written", "Another process", "holds another plan", "is damaged", "missing or damaged", "was begun",
        "stopped", "changed", "cannot be read", "no run in ranges", "There is no room")  # fmt: skip


def brief(sentence: str) -> str:
    """The words by which an error is counted."""
    return next((f"'{words}'" for words in SAID if words in sentence), sentence[:60])


def limit_files(size: int) -> Callable[[], None]:
    """For `before`: no file may become larger than `size` bytes (EFBIG, as on a full disk)."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
