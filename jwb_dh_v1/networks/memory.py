"""Values by content, up to a number of bytes: features of a pool, decoded frames of the `evaluate` modules."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from jwb_dh_v1.media.annotations import Annotations

T = TypeVar("T")
FACT_BYTES = 256  # what anything that is not an array counts for


class Memory:
    """Values by content, up to a number of bytes.

    What earlier calls left makes room for what this call decodes, but not what this call has used itself. So when
    several modules walk over one set that is larger than the memory, each still finds the first clips here; by age
    alone every clip would be gone just before it is asked for again. A value for which no room can be made is given
    out and not kept.

    Args:
        budget: bytes of arrays that are kept.

    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._kept: OrderedDict[Any, tuple[int, Any]] = OrderedDict()  # least recently used first
        self._call = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Memory], tuple[int]]:
        """Another process begins with nothing."""
        return Memory, (self.budget,)

    def begin(self) -> None:
        """A new call: everything that is here may make room again."""
        with self._lock:
            self._call += 1

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of that key, made now if it is not here."""
        with self._lock:
            if key in self._kept:
                value = self._kept.pop(key)[1]
                self._kept[key] = self._call, value
                return cast(T, value)
        made = make()
        with self._lock:
            self._keep(key, made)
        return made

    def forget(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0

    def _keep(self, key: Any, value: Any) -> None:
        wanted = _size(value)
        free = self.budget - self.bytes
        gone = []
        for old, (call, held) in self._kept.items():
            if wanted <= free:
                break
            if call < self._call:
                gone.append(old)
                free += _size(held)
        if wanted > free or key in self._kept:  # the second: another thread was faster
            return
        for old in gone:
            self.bytes -= _size(self._kept.pop(old)[1])
        self._kept[key] = self._call, value
        self.bytes += wanted


def _size(value: Any) -> int:
    if isinstance(value, Annotations):
        arrays = [*value.boxes.values(), *value.scores.values(), value.keypoints]
        return sum(a.nbytes for a in arrays if a is not None)
    return value.nbytes if isinstance(value, np.ndarray) else FACT_BYTES
