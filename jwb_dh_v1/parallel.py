"""Work spread over a Ray cluster: the connection, and a map of calls over its CPUs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from jwb_dh_v1.errors import JwbError, MissingPackage, SetupError

Key = TypeVar("Key")


@dataclass(frozen=True)
class RayOptions:
    """How a run is spread over a Ray cluster.

    Attributes:
        address: of the cluster (`ray://host:10001`, `auto`). None: the one this process is connected to, that of
            `RAY_ADDRESS`, one that runs on this machine, or else one that is started here and ended with the run.
        workers: least and most actors. The pool starts with the least and grows while shards wait, which is also what
            makes an autoscaling cluster add nodes; actors without a shard left are ended. The most is, by default, as
            many as fit into the cluster.
        num_cpus: CPUs that an actor reserves. By default 1 beside a GPU; else half of its threads (a worker has as
            many as this process, so that every sum is taken in the same order): two share their cores, and one decodes
            while the other's networks run.
        num_gpus: GPUs that an actor reserves, fractions too. By default 1 where the device is CUDA, or `auto` and the
            cluster has GPUs; with 0 networks run on the CPU.
        retries: how often a shard is given to another worker after it lost its own.
        patience: seconds to wait for the first worker.

    """

    address: str | None = None
    workers: tuple[int, int | None] = (1, None)
    num_cpus: float | None = None
    num_gpus: float | None = None
    retries: int = 3
    patience: float = 600.0

    def __post_init__(self) -> None:
        least, most = self.workers
        if least < 1 or (most is not None and most < least):
            raise SetupError(f"workers are (least, most) with 1 <= least <= most, not {self.workers}.")
        if min(self.num_cpus or 0, self.num_gpus or 0, self.retries) < 0:
            raise SetupError("num_cpus, num_gpus and retries are not below 0.")


def ray_module() -> Any:
    """The module `ray`.

    Raises:
        MissingPackage: it is not installed.

    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return import_module("ray")
    except ImportError:
        raise MissingPackage('executor="ray" needs the package ray: pip install "jwb-dh-v1[scale]".') from None


@contextmanager
def connected(options: RayOptions) -> Iterator[Any]:
    """The module `ray`, connected; a connection that is made here is ended here.

    Raises:
        MissingPackage: Ray is not installed.
        SetupError: the cluster cannot be reached.

    """
    ray = ray_module()
    if ray.is_initialized():
        yield ray
        return
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(options.address, log_to_driver=False, logging_level="error")
    except Exception as error:  # a start that takes too long is a bare `Exception`
        with suppress(Exception):
            ray.shutdown()  # ends what was started half
        where = options.address or os.environ.get("RAY_ADDRESS") or "a local cluster"
        raise SetupError(f"Ray cannot connect to {where}: {(str(error).splitlines() or ['?'])[0]}") from error
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # ray.init takes it
    try:
        yield ray
    finally:
        ray.shutdown()


def same_threads() -> dict[str, str]:
    """Environment of a worker whose sums are taken in this process's order; Ray gives each as many threads as CPUs."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    blas = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or str(cores)
    threads = str(torch.get_num_threads())
    return {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": blas, "OMP_WAIT_POLICY": "PASSIVE"}


def raised(error: Any) -> JwbError:
    """What a `RayTaskError` was in its worker, as one of ours."""
    if isinstance(error.cause, JwbError):
        return error.cause
    reason = f"{type(error.cause).__name__}: {(str(error.cause).strip().splitlines() or ['?'])[0]}"
    return SetupError(f"A Ray worker cannot work: {reason}. Is the same software on all nodes?")


def ray_map(
    ray: Any,
    function: Callable[..., Any],
    calls: Iterable[tuple[Key, tuple[Any, ...]]],
    options: RayOptions,
    *,
    most: int | None = None,
    ordered: bool = False,
    env: Mapping[str, str] | None = None,
) -> Iterator[tuple[Key, Any]]:
    """Call a function as Ray tasks of a CPU each (`num_cpus`, `num_gpus`), in this process's folder.

    Args:
        ray: the module, connected.
        function: it pickles (once), and its module is imported from where this process has it.
        calls: a key and the arguments of each; they are read while tasks get done, never far ahead.
        options: of these the sizes, and how often a task is done again that lost its worker.
        most: tasks that run or wait at a time; by default two for each that the cluster has room for.
        ordered: results come in the order of the calls, not as they are done.
        env: environment variables of the workers.

    Returns:
        An iterator of the key and what the function returned, or Ray's error where the task lost all its workers.

    Raises:
        JwbError: what the function raised; a `SetupError` if that is none of ours.

    """
    cpus, gpus = options.num_cpus or 1, options.num_gpus or 0
    path = os.pathsep.join(filter(None, sys.path))
    task = ray.remote(_called).options(
        num_cpus=cpus,
        num_gpus=gpus,
        max_retries=options.retries,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": {"PYTHONPATH": path, **(env or {})}},
    )
    shared, here = ray.put(function), str(Path.cwd())
    waiting: dict[Any, Key] = {}
    source = iter(calls)
    try:
        while True:
            room = most or 2 * max(1, int(ray.cluster_resources().get("CPU", 0) / cpus))  # a cluster may grow
            while len(waiting) < room and (call := next(source, None)) is not None:
                waiting[task.remote(shared, here, *call[1])] = call[0]
            if not waiting:
                return
            done, _ = ray.wait([next(iter(waiting))] if ordered else list(waiting), num_returns=1)
            try:
                outcome = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise raised(error) from error
            except ray.exceptions.RayError as error:
                outcome = error
            yield waiting.pop(done[0]), outcome
    finally:
        for reference in waiting:
            with suppress(Exception):  # the cluster may be gone
                ray.cancel(reference, force=True)


def _called(function: Callable[..., Any], folder: str, *arguments: Any) -> Any:
    """What a task does; relative paths are the driver's."""
    with suppress(OSError):
        os.chdir(folder)
    return function(*arguments)
