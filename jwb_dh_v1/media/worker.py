"""Decoding in a process of its own, one clip ahead of the networks.

A file can do anything to the libraries that open it. Here they run in a child process: one that hangs is ended, one
that crashes is noticed, the file's sample fails with `DecoderHung` or `DecoderCrashed`, and the next file gets a new
child. What the child says and decodes is what this process would have (see `process.py`).

While a sample is scored, the files of the next one are decoded. Up to two clips of `clip.FRAME_BUDGET` bytes wait there
(1 GB at most; 0.7 GB for a pair of 5 s in 720p); of longer clips, one chunk.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.spawn import get_executable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from jwb_dh_v1 import errors
from jwb_dh_v1.errors import DecoderCrashed, DecoderHung, SampleError, SetupError
from jwb_dh_v1.media import clip as clip_module
from jwb_dh_v1.media.ipc import HERE, Channel, received_array
from jwb_dh_v1.media.worker_clip import Request, WorkerClip

PATIENCE = 60.0  # seconds without progress (a chunk of 32 frames takes under 5 s for 4K on one core)
START = 120.0  # seconds for a child to start: a fraction of one, but of a busy machine and a slow file system more
STARTS = 3  # children in a row that end before their first word
TRIES = 2  # children that a file may end
SLICE = 1.0
TELL = "import sys; sys.path[:] = sys.argv[2:]; from jwb_dh_v1.media.process import main; main(int(sys.argv[1]))"
ROLES = ("generated", "reference")
WHAT = {"info": "facts", "sha256": "bytes", "audio": "sound", "frames": "frames", "next": "frames"}


class HasClips(Protocol):
    """What is scored: one or two clips."""

    @property
    def generated(self) -> clip_module.Clip:
        """The clip that is scored."""
        ...

    @property
    def reference(self) -> clip_module.Clip | None:
        """The real clip."""
        ...


Clips = TypeVar("Clips", bound=HasClips)


def patience() -> float:
    """Seconds without progress after which a file is given up: `JWB_DECODE_TIMEOUT`, or 60.

    Raises:
        SetupError: it is no number above 0.

    """
    given = os.environ.get("JWB_DECODE_TIMEOUT") or str(PATIENCE)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds > 0 or math.isinf(seconds):
        raise SetupError(f"JWB_DECODE_TIMEOUT is a number of seconds above 0, not {given!r}.")
    return seconds


@dataclass(eq=False)
class Decoder:
    """The child process of a run. It starts with `start` or its first question, and anew after a crash. For one thread.

    Attributes:
        patience: seconds without progress after which a file is given up.
        answered: how many questions of each kind the child has answered: `info`, `sha256`, `audio`, `frames` (whole
            clips), `next` (chunks of long ones).
        numbers: for clips and streams, each used once.
        pid: of the child that is there, else None.

    """

    patience: float = field(default_factory=patience)
    answered: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=count)
    _habits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _waiting: deque[Request] = field(default_factory=deque)
    _child: subprocess.Popen[bytes] | None = None
    _channel: Channel | None = None
    _ready: bool = False
    _unready: int = 0
    _quiet: float = 0.0
    _more: float = 0.0

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @staticmethod
    def here() -> bool:
        """Whether this system can do it (Windows cannot: there a run decodes by itself)."""
        return HERE

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child, which takes a second to import what it needs, before it is asked anything.

        Raises:
            SetupError: it cannot be started.

        """
        if self._child is None:
            self._start()

    def open(self, source: Path | bytes) -> WorkerClip:
        """A file, or the content of one, that the child reads. Nothing is done yet."""
        return WorkerClip(self, source, next(self.numbers))

    def close(self) -> None:
        """End the child."""
        self._end()
        self._waiting.clear()

    def ahead(self, samples: Iterable[Clips]) -> Generator[Clips, None, None]:
        """The samples, their files opened by the child, which decodes the next one's while one is in use.

        It fetches what the clips of the sample before were asked for, so that what a run does not look at is not
        decoded either.
        """
        source = iter(samples)
        current = next(source, None)
        following: Clips | None = None
        try:
            while current is not None:
                following = next(source, None)
                for sample in (current, following):
                    for role, clip in _clips(sample):
                        clip.decode_in_worker(self)
                        if isinstance(clip.opened, WorkerClip):
                            clip.opened.prepare(self._habits.get(role, ()))
                yield current
                self._leave(current)
                current = following
        finally:
            for sample in (current, following):
                self._leave(sample)

    def _leave(self, sample: HasClips | None) -> None:
        for role, clip in _clips(sample):
            if isinstance(clip.opened, WorkerClip) and clip.opened.used:
                self._habits[role] = tuple(clip.opened.used)
            clip.decode_in_worker(None)

    # ------------------------------------------------------------------------------------------ questions and answers

    def ask(self, clip: WorkerClip, op: str, **facts: Any) -> Request:
        """Send a question; the answers come in the order of the questions."""
        facts |= {"op": op, "budget": clip_module.FRAME_BUDGET, "folder": None}
        with suppress(OSError):  # the folder that this process is in may be gone
            facts["folder"] = str(Path.cwd())
        request = Request(clip, facts)
        self._waiting.append(request)
        if self._child is None:
            self._start()
        else:
            self._send(request)
        return request

    def forget(self, clip: WorkerClip, stream: int = -1) -> None:
        """Tell the child that a clip, or one stream of it, is not needed any more."""
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send({"op": "close", "clip": clip.number if stream < 0 else -1, "stream": stream})

    def wait(self, request: Request) -> Any:
        """The answer.

        Raises:
            SampleError, NotApplicable: what the child ran into.
            DecoderHung, DecoderCrashed: what the file did to the child.
            SetupError: no child can be started.

        """
        self._quiet = 0.0
        while not request.done:
            if self._child is None:
                self._start()
            self._listen()
        if request.error is not None:
            raise request.error[0](request.error[1])
        return request.answer

    def _listen(self) -> None:
        """Take the next message, or a second of silence, or the child's end."""
        assert self._channel is not None
        begun = time.monotonic()
        try:
            received = self._channel.receive(SLICE)
        except EOFError:
            self._crashed()
            return
        if received is None:
            # A laptop that slept or a container that was paused is no hang: such a gap counts as one slice.
            self._quiet += min(time.monotonic() - begun, 2 * SLICE)
            if self._quiet >= (max(self.patience, START) if not self._ready else self.patience + self._more):
                self._hung()
            return
        self._quiet = 0.0
        message, file = received
        if "ready" in message:
            self._ready, self._unready = True, 0
        elif "alive" in message:
            self._more = message["alive"]
        else:
            self._take(self._waiting.popleft(), message, file)

    def _take(self, request: Request, message: dict[str, Any], file: int | None) -> None:
        self._more = 0.0
        self.answered[request.facts["op"]] += 1
        request.done = True
        if file is not None and request.dropped:
            os.close(file)
        elif "error" in message:
            request.error = getattr(errors, message["error"], errors.Unexpected), message["message"]
        elif file is None:
            request.answer = message["value"]
        else:
            request.answer = received_array(file, message["shape"], message["dtype"]), message["value"]

    def _send(self, request: Request) -> None:
        assert self._channel is not None
        clip = request.clip
        path = str(clip.source) if isinstance(clip.source, Path) else None
        with suppress(OSError):  # a child that is gone is noticed when its answer is read
            self._channel.send({**request.facts, "clip": clip.number, "path": path}, clip.content())

    # ---------------------------------------------------------------------------------------------------- the child

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        executable = os.fsdecode(get_executable() or sys.executable)
        # A session of its own: Ctrl-C in a terminal is not for the child.
        with theirs:
            try:
                self._child = subprocess.Popen(
                    [executable, "-c", TELL, str(theirs.fileno()), *sys.path],
                    stdin=subprocess.DEVNULL,
                    stdout=sys.__stderr__ if _open(sys.__stderr__) else subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise SetupError(f"The process that decodes cannot be started ({executable}): {error}.") from error
        self._channel, self._ready, self._quiet, self._more = Channel(ours), False, 0.0, 0.0
        self._waiting = deque(request for request in self._waiting if not request.dropped)
        for request in self._waiting:
            self._send(request)

    def _end(self) -> int:
        """End the child; its return code, or 0 where it does not go (it waits for a disk, say)."""
        child, self._child = self._child, None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if child is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.2 if child.poll() is None else 0)
        child.kill()
        try:
            return child.wait(5)
        except subprocess.TimeoutExpired:
            return 0

    def _hung(self) -> None:
        ready = self._ready
        self._end()
        if not ready:
            self._not_started("it said nothing for minutes")
        elif self._waiting:
            told = f"no progress in {self.patience:g} s while its {{}} were read; JWB_DECODE_TIMEOUT gives it more."
            self._give_up(self._waiting.popleft(), DecoderHung, told)

    def _crashed(self) -> None:
        ready = self._ready
        code = self._end()
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not ready:
            self._not_started(ended)
        elif self._waiting:
            request = self._waiting[0]
            request.deaths += 1
            if request.deaths == TRIES:
                self._waiting.popleft()
                told = f"the decoder crashed twice ({ended}) while its {{}} were read."
                self._give_up(request, DecoderCrashed, told)

    def _give_up(self, request: Request, kind: type[SampleError], told: str) -> None:
        what = WHAT[request.facts["op"]]
        request.done, request.error = True, (kind, f"{request.clip.name}: {told.format(what)}")
        # What else was to be fetched of this file may end the same way: only if it is needed.
        self._waiting = deque(other for other in self._waiting if not request.clip.withdraw(other))

    def _not_started(self, reason: str) -> None:
        self._unready += 1
        if self._unready == STARTS:
            raise SetupError(
                f"The process that decodes does not start ({reason}); `{sys.executable} -c 'import av, decord'` may "
                "tell why."
            )


def _clips(sample: HasClips | None) -> Iterator[tuple[str, clip_module.Clip]]:
    for role in ROLES if sample is not None else ():
        clip = getattr(sample, role)
        if clip is not None:
            yield role, clip


def _open(stream: Any) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False
