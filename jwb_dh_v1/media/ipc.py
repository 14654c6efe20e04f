"""Messages and arrays between two processes of one machine: JSON over a Unix socket, arrays in nameless memory.

An array lies in a memory file whose descriptor travels with the message. Nothing has a name in the file system, so
that nothing is left behind, however either process ends; and no pixel goes through the socket.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jwb_dh_v1.errors import SetupError

HERE = hasattr(socket, "send_fds")  # Windows has no descriptors to send
LENGTH = struct.Struct("<I")
BLOCK = 1 << 16
MOST = 64  # descriptors in one read; each message carries one at most


class Channel:
    """One end of a socket pair.

    Args:
        end: a connected Unix stream socket, which is this object's from now on.

    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._bytes = bytearray()
        self._files: deque[int] = deque()

    def send(self, message: Mapping[str, Any], file: int | None = None) -> None:
        """Send a message, with an open file that the other side gets a descriptor of.

        Raises:
            OSError: the other side is gone.

        """
        content = json.dumps({**message, "file": file is not None}).encode()
        data = LENGTH.pack(len(content)) + content
        sent = socket.send_fds(self.socket, [data], [] if file is None else [file])
        self.socket.sendall(data[sent:])

    def receive(self, seconds: float | None = None) -> tuple[dict[str, Any], int | None] | None:
        """The next message and the descriptor that came with it (the caller's to close); None after `seconds` of quiet.

        Raises:
            EOFError: the other side is gone, and all that it sent has been read.

        """
        self.socket.settimeout(seconds)
        try:
            while (message := self._whole()) is None:
                data, files, _, _ = socket.recv_fds(self.socket, BLOCK, MOST)
                self._files += files
                if not data:
                    raise EOFError("the other process is gone")
                self._bytes += data
        except TimeoutError:
            return None
        except ConnectionError:
            raise EOFError("the other process is gone") from None
        finally:
            self.socket.settimeout(None)
        return message, self._files.popleft() if message.pop("file") else None

    def _whole(self) -> dict[str, Any] | None:
        if len(self._bytes) < LENGTH.size:
            return None
        stop = LENGTH.size + LENGTH.unpack_from(self._bytes)[0]
        if len(self._bytes) < stop:
            return None
        message: dict[str, Any] = json.loads(self._bytes[LENGTH.size : stop])
        del self._bytes[:stop]
        return message

    def close(self) -> None:
        """Close this end, and what came in without being asked for."""
        self.socket.close()
        while self._files:
            os.close(self._files.popleft())


def memory_file(size: int) -> int:
    """Descriptor of a new file of `size` bytes that lies in memory (where there is no such thing: a nameless one)."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("jwb-dh")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    try:
        os.truncate(file, size)
    except OSError as error:  # this machine's limit, not the clip's fault
        os.close(file)
        raise SetupError(f"There is no room for {size} bytes of frames ({error.strerror}; see ulimit -f).") from error
    return file


def content_of(file: int) -> bytes:
    """A copy of a memory file's bytes. (Reading would move a position that both processes share.)"""
    size = os.fstat(file).st_size
    if size == 0:
        return b""
    with mmap.mmap(file, size, access=mmap.ACCESS_READ) as room:
        return room[:]


def shared_array(shape: Sequence[int], dtype: Any) -> tuple[int, np.ndarray]:
    """A new memory file and the array that fills it, to be sent when the array is written."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    file = memory_file(max(1, count * kind.itemsize))
    room = mmap.mmap(file, 0)
    return file, np.frombuffer(room, kind, count).reshape(shape)


def written_array(array: np.ndarray) -> int:
    """A new memory file with an array's content: half the work of mapping and filling one."""
    file = memory_file(max(1, array.nbytes))
    with open(file, "wb", closefd=False) as handle:
        handle.write(np.ascontiguousarray(array).data)
    return file


def received_array(file: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """The array that lies in a received file, which is closed. It can be written to, as any other; its memory goes
    with it.
    """
    try:
        room = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
    finally:
        os.close(file)
    return np.frombuffer(room, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
