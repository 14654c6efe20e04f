"""The process that opens files for a run: started by `Decoder`, and ended with it.

It answers requests in their order, each by an ordinary `Clip` of its own, so that what a file gives here is what it
gives in any other process, errors included. It never imports torch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import typed
from jwb_dh_v1.media import clip as clip_module
from jwb_dh_v1.media.clip import CHUNK, Clip, fill
from jwb_dh_v1.media.ipc import Channel, content_of, shared_array, written_array

SLOWEST = 2**20  # bytes per second of the slowest storage that is waited for
QUIET = 1.0  # seconds between two signs of life
PR_SET_PDEATHSIG = 1
FIRST_TO_GO = 500  # of -1000 .. 1000: where memory ends, this process goes and the run stays


class Server:
    """Clips and streams that are open, by the numbers that the other side gave them."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.clips: dict[int, Clip] = {}
        self.streams: dict[int, Iterator[np.ndarray]] = {}
        self.said = 0.0

    def run(self) -> None:
        """Answer until the other side is gone."""
        self.channel.send({"ready": os.getpid()})
        while True:
            received = self.channel.receive()
            assert received is not None
            request, file = received
            if request["op"] == "close":
                self.clips.pop(request["clip"], None)
                self.streams.pop(request["stream"], None)
                continue
            try:
                self._answer(request, self._clip(request, file))
            except Exception as error:  # noqa: BLE001 - what a file does to its readers is told, whatever it is
                found = typed(error)
                self.channel.send({"error": type(found).__name__, "message": str(found)})

    def _clip(self, request: dict[str, Any], file: int | None) -> Clip:
        clip_module.FRAME_BUDGET = request["budget"]  # the run's, also where it is not the default
        with suppress(OSError):
            if request["folder"] is not None:
                os.chdir(request["folder"])  # relative paths are the run's
        known = self.clips.get(request["clip"])
        if known is None:
            known = Clip(Path(request["path"]) if file is None else content_of(file))
            self.clips[request["clip"]] = known
        if file is not None:
            os.close(file)
        return known

    def _answer(self, request: dict[str, Any], clip: Clip) -> None:
        op = request["op"]
        if op in {"info", "sha256", "audio"}:
            self._alive(_bytes(clip) / SLOWEST)
        if op == "info":
            self.channel.send({"value": asdict(clip.info)})
        elif op == "sha256":
            self.channel.send({"value": clip.sha256})
        elif op == "audio":
            audio = clip.audio
            clip.release()
            if audio is None:
                self.channel.send({"value": None})
            else:
                facts = {"rate": audio.rate, "start": audio.start}
                self._send_array(written_array(audio.samples), audio.samples, facts)
        elif op == "frames":
            self._frames(clip, request["ahead"])
        else:
            self._next(clip, request)

    def _frames(self, clip: Clip, ahead: bool) -> None:
        """All frames; ahead of the need, those of a clip within the budget only."""
        if ahead and not clip.fits:
            self.channel.send({"value": None})
            return
        file, room = shared_array((len(clip), clip.size[1], clip.size[0], 3), np.uint8)
        try:
            fill(room, self._watched(clip._stream(CHUNK)))
        except BaseException:
            os.close(file)
            raise
        self._send_array(file, room)

    def _next(self, clip: Clip, request: dict[str, Any]) -> None:
        """The next chunk of a stream; one that is not known here was begun in a process that is gone."""
        number = request["stream"]
        if number not in self.streams:
            self.streams[number] = islice(self._watched(clip._stream(request["n"])), request["at"], None)
        chunk = next(self.streams[number], None)
        if chunk is None:
            del self.streams[number]
            self.channel.send({"value": None})
        else:
            self._send_array(written_array(chunk), chunk)

    def _watched(self, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for chunk in chunks:
            self._alive()
            yield chunk

    def _send_array(self, file: int, array: np.ndarray, value: Any = None) -> None:
        self.channel.send({"value": value, "shape": array.shape, "dtype": array.dtype.str}, file)
        os.close(file)

    def _alive(self, more: float = 0.0) -> None:
        """Say that work goes on; it may now be quiet for `more` seconds beyond the other side's patience."""
        now = time.monotonic()
        if more or now - self.said > QUIET:
            self.said = now
            self.channel.send({"alive": more})


def _bytes(clip: Clip) -> int:
    if isinstance(clip._source, Path):
        with suppress(OSError, ValueError):
            return clip._source.stat().st_size
        return 0
    return len(clip._source or b"")


def _end_with_parent(end: socket.socket) -> None:
    """End when the run's process does, also in the middle of work that never ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
    import select

    def watch() -> None:
        poll = select.poll()
        poll.register(end, select.POLLHUP)
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main(descriptor: int) -> None:
    """Serve on this descriptor of a socket."""
    # A stop that is meant for the run's group of processes is the run's to obey: it still needs this one for a while.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end = socket.socket(fileno=descriptor)
    _end_with_parent(end)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        Server(Channel(end)).run()
