"""Scoring on a Ray cluster: actors that load the networks once, and the pool that gives them shards.

A shard whose worker is lost goes to another one; frames and features never leave the worker that made them.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import MissingWeights, SetupError, WrongHash
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.media.worker import Decoder
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.parallel import RayOptions, raised, same_threads
from jwb_dh_v1.scoring.executors import OnSample, Shards, Stop, WorkersLost, Written
from jwb_dh_v1.scoring.plan import Plan
from jwb_dh_v1.scoring.shard import score_shard


class Worker:
    """What runs in an actor: the plan's networks, loaded once. Frames are decoded here and never leave."""

    def __init__(self, plan: Plan, paths: Mapping[str, Path], device: str, threads: int, folder: str) -> None:
        self.plan, self.paths, self.device = plan, dict(paths), device
        self.threads, self.folder = threads, folder
        self.models: NetworkPool | None = None
        self.decoder: Decoder | None = None

    def ready(self) -> str:
        """Verify and load the weights; the node's name. (Not in `__init__`, whose errors Ray turns into text.)"""
        import platform

        import torch

        torch.set_num_threads(self.threads)  # sums in another order end in other last digits
        with suppress(OSError):
            os.chdir(self.folder)  # relative paths are the driver's; where there is no such folder, clips are missed
        node = platform.node()
        paths = {name: _on_this_node(name, self.paths[name], sha, node) for name, sha in self.plan.weights.items()}
        self.decoder = Decoder() if Decoder.here() else None
        self.models = self.plan.pool(paths, self.device)
        self.models.preload(self.plan.weights, self.plan.boxes)
        return node

    def score(self, samples: list[Sample], files: Sequence[Path]) -> bytes:
        """A shard's result. A file that the driver sees and this node does not is no sample's fault."""
        import platform

        assert self.models is not None, "ready() comes first"
        for path in files:
            if not path.exists():
                raise SetupError(f"{platform.node()} does not see {path}; put the clips where all nodes see them.")
        return score_shard(samples, self.plan, self.models, decoder=self.decoder).to_bytes()


def _on_this_node(name: str, path: Path, sha256: str, node: str) -> Path:
    """The file at the driver's place, or this node's own copy, with the plan's content."""
    from jwb_dh_v1.files import sha256_of
    from jwb_dh_v1.networks.weights import FILES, cached

    for place in (path, cached(FILES[name])):
        if place.is_file():
            if sha256_of(place) != sha256:
                raise WrongHash(f"{place} on {node} is not the {name} of the plan (sha256 {sha256[:12]}...).")
            return place
    raise MissingWeights(f"{node} has no {name}: put it at {path} there, or run `jwb-dh weights fetch {name}` there.")


def bare(sample: Sample) -> Sample:
    """The sample without anything that was decoded or computed: paths, or files' bytes.

    Raises:
        SetupError: a clip was given as frames, which do not travel.

    """
    return replace(
        sample,
        generated=_bare(sample.generated, sample.id),
        reference=None if sample.reference is None else _bare(sample.reference, sample.id),
    )


def _bare(clip: Clip, name: str) -> Clip:
    if clip._source is None:
        raise SetupError(f"A clip of sample {name!r} is an array; Ray workers take files. Use executor='local'.")
    twin = clip.uncached_copy()
    twin.release()
    twin.models = None
    return twin


def _files(samples: Iterable[Sample]) -> list[Path]:
    """The files that this machine sees and the workers have to see."""
    clips = [clip for s in samples for clip in (s.generated, s.reference) if clip is not None]
    return [clip._source for clip in clips if isinstance(clip._source, Path) and clip._source.exists()]


def ray_device(ray: Any, device: str, options: RayOptions) -> str:
    """The device of all workers: `cpu` or `cuda`; `auto` means CUDA where the cluster has GPUs."""
    if device == "auto":
        return "cuda" if options.num_gpus != 0 and ray.cluster_resources().get("GPU", 0) else "cpu"
    return device.partition(":")[0]  # which GPU an actor gets is Ray's choice


def in_ray(
    ray: Any,
    shards: Shards,
    plan: Plan,
    paths: Mapping[str, Path],
    device: str,
    options: RayOptions,
    stop: Stop,
    on_sample: OnSample = lambda name: None,
) -> Written:
    """Score shards in Ray actors; they come in the order in which they are finished.

    A worker has one shard at a time, and a shard is read when a worker is free for it. A shard whose worker is lost
    (with its node, or out of memory) goes to another one.

    Raises:
        SetupError: a worker's node is not ready (weights, packages, files it does not see), or no worker starts.
        WorkersLost: shards lost all their workers.

    """
    pool = _Actors(ray, plan, paths, device, options)
    source = iter(shards)
    again: deque[_Task] = deque()
    lost: list[_Task] = []
    more = True
    try:
        while True:
            while pool.idle and (more or again) and not stop:
                task = again.popleft() if again else _next(source)
                if task is None:
                    more = False
                else:
                    pool.give(task)
            waiting = (more or bool(again)) and not stop
            if not waiting and not pool.running:
                break
            pool.resize(waiting)
            for task, content in pool.finished():
                if content is not None:
                    yield task.number, content
                    for sample in task.samples:
                        on_sample(sample.id)
                elif task.lost <= options.retries:
                    again.append(task)
                else:
                    lost.append(task)
    finally:
        pool.close()
    if lost and not stop:
        named = ", ".join(f"{task.number} ({task.samples[0].id} ... {task.samples[-1].id})" for task in lost)
        raise WorkersLost(
            f"Each time a worker scored one of these shards it was lost: {named}. Last reason: {lost[-1].reason}. "
            "Smaller shards show which clip it is; more memory for each worker (num_cpus) may help."
        )


@dataclass
class _Task:
    number: int
    samples: list[Sample]
    files: list[Path]
    lost: int = 0
    reason: str = ""


def _next(source: Iterator[tuple[int, Iterable[Sample]]]) -> _Task | None:
    for number, shard in source:
        samples = [bare(sample) for sample in shard]
        return _Task(number, samples, _files(samples))
    return None


@dataclass
class _Actors:
    """The actors of a run, by what they do: starting, idle or scoring a shard."""

    ray: Any
    plan: Plan
    paths: Mapping[str, Path]
    device: str
    options: RayOptions
    starting: dict[Any, tuple[Any, set[str]]] = field(default_factory=dict)  # reference -> actor, nodes at its start
    running: dict[Any, tuple[Any, _Task]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        import torch

        threads = torch.get_num_threads()
        gpus = self.options.num_gpus
        if self.device != "cuda":
            gpus = 0
        elif gpus is None:
            gpus = 1
        cpus = self.options.num_cpus
        if cpus is None:
            cpus = 1 if gpus else max(1, threads // 2)
        self.asked = {"CPU": cpus, "GPU": gpus}
        self.least, most = self.options.workers
        self.most = self._fitting() if most is None else most
        # max_restarts=0: a restarting actor would keep its shard to itself until there is room for it again.
        self.kind = self.ray.remote(Worker).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": same_threads()},
        )
        self.arguments = (self.plan, self.paths, self.device, threads, str(Path.cwd()))
        self.begun = time.monotonic()

    def _fitting(self) -> int:
        """As many actors as the nodes that are there hold."""
        nodes = [node["Resources"] for node in self._nodes()]
        asked = {kind: amount for kind, amount in self.asked.items() if amount}
        fit = sum(min((int(n.get(kind, 0) / amount) for kind, amount in asked.items()), default=1) for n in nodes)
        return max(fit, self.least)

    def _nodes(self) -> list[Mapping[str, Any]]:
        """Those that the cluster takes for alive; it notices after some ten seconds that one is not."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    @property
    def size(self) -> int:
        return len(self.starting) + len(self.running) + len(self.idle)

    def resize(self, waiting: bool) -> None:
        """Grow while shards wait, by as many as there are at most; end what is not needed any more."""
        if not waiting:
            for actor in [*self.idle, *(actor for actor, _ in self.starting.values())]:
                self._end(actor)
            self.idle.clear()
            self.starting.clear()
            return
        working = len(self.running) + len(self.idle)
        aim = max(self.least, min(self.most, 2 * working))
        if self.size < aim:
            nodes = {node["NodeID"] for node in self._nodes()}
            while self.size < aim:
                actor = self.kind.remote(*self.arguments)
                self.starting[actor.ready.remote()] = actor, nodes
        if not working and time.monotonic() - self.begun > self.options.patience:
            have = {kind: self.ray.cluster_resources().get(kind, 0) for kind in self.asked}
            raise SetupError(
                f"No Ray worker started in {self.options.patience:.0f} s; each asks for {self.asked}, the cluster has "
                f"{have} in all. Ask for less (num_cpus, num_gpus), or free some."
            )

    def give(self, task: _Task) -> None:
        """A shard for an idle actor."""
        actor = self.idle.pop()
        self.running[actor.score.remote(task.samples, task.files)] = actor, task

    def finished(self) -> Iterator[tuple[_Task, bytes | None]]:
        """Shards that are done, None with those whose worker was lost; waits a second at most."""
        errors = self.ray.exceptions
        done, _ = self.ray.wait([*self.running, *self.starting], num_returns=1, timeout=1.0)
        for reference in done:
            new = reference in self.starting
            task: _Task | None = None
            nodes: set[str] = set()
            if new:
                actor, nodes = self.starting.pop(reference)
            else:
                actor, task = self.running.pop(reference)
            try:
                content = self.ray.get(reference)
            except errors.RayTaskError as error:
                raise raised(error) from error
            except errors.RayError as error:
                self._end(actor)
                if getattr(error, "actor_init_failed", False):  # `Worker` does nothing there but to be imported
                    reason = str(error).strip().splitlines()[-1]
                    raise SetupError(
                        f"A Ray worker cannot start: {reason}. Is the same software on all nodes?"
                    ) from error
                reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['?'])[0]}"
                if task is not None:
                    task.lost, task.reason = task.lost + 1, reason
                    yield task, None
                    continue
                # Ray goes on placing workers on a node that was lost until it notices: these do not count.
                self.failed += nodes <= {node["NodeID"] for node in self._nodes()}
                if self.failed > self.options.retries:
                    raise SetupError(f"Ray workers do not start ({self.failed} tries): {reason}") from error
                continue
            self.idle.append(actor)
            self.failed = 0
            self.begun = time.monotonic()
            if task is not None:
                yield task, content

    def _end(self, actor: Any) -> None:
        with suppress(Exception):  # it may be gone with its node, or the cluster with it
            self.ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """End all actors, and with them what they were doing."""
        busy = [*self.starting.values(), *self.running.values()]
        for actor in [*self.idle, *(actor for actor, _ in busy)]:
            self._end(actor)
