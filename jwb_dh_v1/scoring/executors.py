"""Where work is done: in this process, or on a Ray cluster; and how a run is asked to stop.

To score, every executor takes numbered shards and gives (number, bytes of a `ShardResult`) in any order. The run's
folder is written by the caller alone, so what a shard's bytes are does not depend on who made them. Packing, annotation
and generation write one file for each call of a function: these calls are spread as Ray tasks (`ray_map`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from jwb_dh_v1.errors import SetupError, Stopped
from jwb_dh_v1.media.worker import Decoder
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.parallel import RayOptions
from jwb_dh_v1.scoring.plan import Plan
from jwb_dh_v1.scoring.shard import score_shard

Executor = Literal["local", "ray"]
Shards = Iterable[tuple[int, Iterable[Sample]]]
Written = Generator[tuple[int, bytes], None, None]
OnSample = Callable[[str], None]


@dataclass(frozen=True)
class Execution:
    """How a run is worked off. Nothing in here can change a number.

    Attributes:
        executor: `local`, this process; or `ray`, actors of a Ray cluster, with the same bytes as result.
        ray: which cluster, and how many actors of what size.
        shards: score only the shards from the first number to one before the second and write no results: for job
            arrays, whose processes may share a folder while their ranges do not overlap. `merge` then adds up.
        shard_size: samples per shard, the unit of work and of resume.
        isolate: files are opened in a process of their own, which decodes one sample ahead: a file that makes it hang
            or crash fails its own sample (`DecoderHung`, `DecoderCrashed`). None: where there is a folder. Ray workers
            always do.

    Raises:
        SetupError: no such executor, a shard without samples, or a range that is none.

    """

    executor: Executor = "local"
    ray: RayOptions = field(default_factory=RayOptions)
    shards: tuple[int, int] | None = None
    shard_size: int = 64
    isolate: bool | None = None

    def __post_init__(self) -> None:
        if self.executor not in {"local", "ray"}:
            raise SetupError(f"There is no executor {self.executor!r}; there are local, ray.")
        if self.shard_size < 1:
            raise SetupError(f"A shard holds at least one sample, not {self.shard_size}.")
        if self.shards is not None and not 0 <= self.shards[0] < self.shards[1]:
            raise SetupError(f"Shards {self.shards[0]}:{self.shards[1]} need 0 <= first < last.")


class MissingShards(SetupError):
    """Shards of a run in ranges are not there yet, or damaged; the message names them."""


class WorkersLost(SetupError):
    """Shards ended every worker that scored them (out of memory, a crash in a library); all others are finished."""


@dataclass
class Stop:
    """Whether the run was asked to stop: the signal's number, or None."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn SIGTERM and the first Ctrl-C into a wish to stop after the current shard; a second Ctrl-C stops at once.

    Only the main thread can take signals; in another one nothing changes.

    Raises:
        Stopped: at the end, where the wish came too late to be heeded within: what follows should not begin.

    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _: Any) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number
        text = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        # os.write: a signal may come in the middle of a print.
        os.write(2, f"\njwb-dh: {signal.Signals(number).name}; stopping after this shard{text}.\n".encode())

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if stop.signal is not None:
        raise Stopped("stopped; all shards of this run are done.", stop.signal)


def in_process(
    shards: Shards, plan: Plan, models: NetworkPool, on_sample: OnSample, decoder: Decoder | None = None
) -> Written:
    """Score shards one after the other, here."""
    for number, shard in shards:
        yield number, score_shard(shard, plan, models, on_sample, decoder).to_bytes()
