"""A file as a clip sees it that another process opens."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.ipc import memory_file
from jwb_dh_v1.media.probe import VideoInfo


@dataclass(eq=False)
class Request:
    """One question to the child; `done` tells whether there is an answer, or an error in its place.

    Attributes:
        clip, facts: what is asked, of which file.
        deaths: children that ended while this was the first question without an answer.
        dropped: no one will look at the answer.
        early: no one waits for it yet.

    """

    clip: WorkerClip
    facts: dict[str, Any]
    done: bool = False
    answer: Any = None
    error: tuple[type[JwbError], str] | None = None
    deaths: int = 0
    dropped: bool = False
    early: bool = False


class Asker(Protocol):
    """The decoding process, as far as its files need it."""

    numbers: Iterator[int]

    def ask(self, clip: WorkerClip, op: str, **facts: Any) -> Request:
        """Send a question."""
        ...

    def wait(self, request: Request) -> Any:
        """The answer."""
        ...

    def forget(self, clip: WorkerClip, stream: int = -1) -> None:
        """Tell the child that a clip, or one stream of it, is not needed any more."""
        ...


class WorkerClip:
    """A file as the child sees it. Each kind of question is asked once; a failure is remembered.

    Attributes:
        used: the kinds of questions that were needed, in order.

    """

    def __init__(self, decoder: Asker, source: Path | bytes, number: int) -> None:
        self.decoder, self.source, self.number = decoder, source, number
        self.used: list[str] = []
        self._asked: dict[str, Request] = {}
        self._file: int | None = None

    @property
    def opener(self) -> Asker:
        """The process that opens it."""
        return self.decoder

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self.source.name if isinstance(self.source, Path) else "clip"

    def content(self) -> int | None:
        """Descriptor of a memory file with the content, where that was given instead of a path."""
        if self._file is None and isinstance(self.source, bytes):
            self._file = memory_file(0)
            with open(self._file, "wb", closefd=False) as handle:
                handle.write(self.source)
        return self._file

    def prepare(self, ops: Iterable[str]) -> None:
        """Ask for what will be needed."""
        for op in ops:
            if op not in self._asked:
                self._asked[op] = self.decoder.ask(self, op, **({"ahead": True} if op == "frames" else {}))
                self._asked[op].early = True

    def withdraw(self, request: Request) -> bool:
        """Take back a question of this file that no one waits for yet; whether it was one."""
        if request.clip is self and request.early:
            self._asked = {op: other for op, other in self._asked.items() if other is not request}
            return True
        return False

    def info(self) -> VideoInfo:
        """As `Clip.info`."""
        return VideoInfo(**self._get("info"))

    def sha256(self) -> str:
        """As `Clip.sha256`."""
        return str(self._get("sha256"))

    def audio(self) -> Audio | None:
        """As `Clip.audio`."""
        found = self._get("audio")
        return None if found is None else Audio(found[0], **found[1])

    def frames(self) -> np.ndarray:
        """As `Clip.frames`: memory of its own, which goes with the last one that holds it."""
        found = self._get("frames", ahead=False)
        if found is None:  # asked ahead, and too long for that
            del self._asked["frames"]
            found = self._get("frames", ahead=False)
        frames: np.ndarray = found[0]
        return frames

    def _get(self, op: str, **facts: Any) -> Any:
        if op not in self.used:
            self.used.append(op)
        if op not in self._asked:
            self._asked[op] = self.decoder.ask(self, op, **facts)
        request = self._asked[op]
        request.early = False
        answer = self.decoder.wait(request)
        if isinstance(answer, tuple):  # who asked keeps the array; asked again, it is decoded again
            del self._asked[op]
        return answer

    def stream(self, n: int) -> Generator[np.ndarray, None, None]:
        """The frames in chunks of `n`; while one is in use the next one is decoded."""
        number, at = next(self.decoder.numbers), 0
        coming = self.decoder.ask(self, "next", stream=number, n=n, at=at)
        try:
            while (found := self.decoder.wait(coming)) is not None:
                at += 1
                coming = self.decoder.ask(self, "next", stream=number, n=n, at=at)
                yield found[0]
        finally:
            _drop(coming)
            self.decoder.forget(self, number)

    def close(self) -> None:
        """Let go of what was fetched and not used."""
        for request in self._asked.values():
            _drop(request)
        self._asked.clear()
        self.decoder.forget(self)
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _drop(request: Request) -> None:
    request.dropped, request.answer = True, None
