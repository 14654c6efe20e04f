"""What the Ray executor costs and gives: workers of one node, 1, 2, 4 simulated nodes of a CPU each, cost of a shard.

Every run scores the same clips (SSIM, PSNR and pixel cosine of paper/1, which need no weights) and must give the bytes
of the run in one process. The clock runs from the moment when all workers are ready. A worker has one thread for
networks, linear algebra and OpenCV; efficiency is the speed against one worker's, over min(workers, cores of this
machine), since simulated nodes share them.

    python benchmarks/ray_scaling.py                          (some minutes)
    python benchmarks/ray_scaling.py --clips 8 --nodes 1 2    (smaller)
"""

from __future__ import annotations

import os

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
os.environ.update(ONE_THREAD | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import header

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.parallel import RayOptions, ray_map
from jwb_dh_v1.scoring import ray_pool
from jwb_dh_v1.scoring.executors import Execution

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from media import moving

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CALL = {"metrics": ("ssim", "psnr", "csim"), "regions": ("body",), "protocol": "paper", "name": "run"}
begun = 0.0


def make(folder: Path, clips: int, frames: int, size: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:03d}.mp4" for number in range(clips)]
    for number, path in enumerate(paths):
        write_mp4(path, moving(frames, size, size, seed=number), 25)
    return paths


def run(paths: list[Path], shard: int, ray: RayOptions | None) -> tuple[float, str]:
    """Seconds since the workers were ready, and the result."""
    global begun
    samples = [Sample(path.stem, Clip(path), Clip(path.read_bytes())) for path in paths]
    begun = time.perf_counter()
    execution = Execution(shard_size=shard) if ray is None else Execution("ray", ray, shard_size=shard)
    result = score(samples, execution=execution, device="cpu", **CALL)  # type: ignore[arg-type]
    return time.perf_counter() - begun, result.to_json()


def wait_for_all() -> None:
    """Have the pool give its first shard when all of its workers are ready, and start the clock then."""
    resize, ready = ray_pool._Actors.resize, set()

    def resized(self: ray_pool._Actors, waiting: bool) -> None:
        global begun
        resize(self, waiting)
        room = self.ray.cluster_resources().get("CPU", 0)
        if id(self) not in ready and self.least * self.asked["CPU"] <= room:
            self.ray.wait(list(self.starting), num_returns=len(self.starting), timeout=300)
            ready.add(id(self))
            begun = time.perf_counter()

    ray_pool._Actors.resize = resized  # type: ignore[method-assign]


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[object]:
    """Simulated nodes of so many CPUs each, and the module `ray`, attached to them."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(num_cpus=cpus)
        ray.init(made.address, log_to_driver=False, logging_level="error")
        yield ray
    finally:
        ray.shutdown()
        made.shutdown()


def nothing() -> None:
    """The cheapest call."""


class Table:
    """Rows of one kind of workers; speeds are against the first one."""

    def __init__(self, expected: str, clips: int) -> None:
        self.expected, self.clips, self.one = expected, clips, 0.0

    def row(self, what: str, workers: int, timed: tuple[float, str]) -> None:
        """Print a run; its bytes have to be the expected ones."""
        seconds, text = timed
        self.one = self.one or seconds
        speed = self.one / seconds
        same = "yes" if text == self.expected else "NO"
        print(f"{what:28} {seconds:7.2f} s {self.clips / seconds:7.2f} clips/s  x{speed:4.2f}  efficiency "
              f"{speed / min(workers, CORES):4.0%}  same bytes: {same}", flush=True)  # fmt: skip
        if text != self.expected:
            sys.exit("The results differ.")


def overhead(ray: object, paths: list[Path]) -> None:
    """What a shard costs beyond its work: one tiny clip each, one worker."""
    local, expected = run(paths, 1, None)
    there, text = run(paths, 1, RayOptions(workers=(1, 1), num_cpus=0.5))
    ours, theirs = (f"{1000 * seconds / len(paths):.1f} ms" for seconds in (local, there))
    print(f"a shard of one tiny clip: {ours} in this process, {theirs} with a Ray worker, writing included")
    if text != expected:
        sys.exit("The results differ.")
    list(ray_map(ray, nothing, [(0, ())], RayOptions(), most=2))  # starts a worker
    begun = time.perf_counter()
    count = sum(1 for _ in ray_map(ray, nothing, ((n, ()) for n in range(200)), RayOptions(num_cpus=0.5), most=2))
    each = 1000 * (time.perf_counter() - begun) / count
    print(f"a task that does nothing (of packing, annotation, generation): {each:.1f} ms, two at a time")


def main() -> None:
    """Print header and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--shard", type=int, default=2, help="clips per shard")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="of one node")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4], help="of one CPU each")
    parser.add_argument("--limit", type=int, default=900, help="seconds after which it counts as a deadlock")
    args = parser.parse_args()
    signal.alarm(args.limit)
    print(header("ray"))
    clips = f"{args.clips} clips of {args.frames} frames {args.size}x{args.size}"
    print(f"{clips}, {args.shard} per shard; {CORES} cores")
    wait_for_all()
    with tempfile.TemporaryDirectory() as room:
        paths = make(Path(room) / "clips", args.clips, args.frames, args.size)
        tiny = make(Path(room) / "tiny", 60, 4, 64)
        before = time.process_time()
        local, expected = run(paths, args.shard, None)
        busy = (time.process_time() - before) / local
        print(f"{'this process, no Ray':28} {local:7.2f} s {args.clips / local:7.2f} clips/s, {busy:.2f} cores busy")
        table = Table(expected, args.clips)
        with cluster(1, CORES) as ray:
            for count in args.workers:
                options = RayOptions(workers=(count, count), num_cpus=CORES / max(args.workers))
                table.row(f"{count} workers of one node", count, run(paths, args.shard, options))
            overhead(ray, tiny)
            few = paths[: 2 * args.shard]
            alone = run(few, args.shard, None)[1]
            seconds, text = run(few, args.shard, RayOptions(workers=(4 * CORES, 4 * CORES), num_cpus=1, patience=60))
            print(f"{4 * CORES} workers asked for where {CORES} fit: done in {seconds:.1f} s, no deadlock, "
                  f"same bytes: {'yes' if text == alone else 'NO'}")  # fmt: skip
        table = Table(expected, args.clips)
        for count in args.nodes:
            with cluster(count, 1):
                options = RayOptions(workers=(count, count), num_cpus=1)
                table.row(f"{count} nodes, one worker each", count, run(paths, args.shard, options))


if __name__ == "__main__":
    main()
