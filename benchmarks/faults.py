"""A fault campaign: random, seeded faults against real runs of `jwb-dh score`, and what each ends in.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/faults.py [--faults 500] [--seed 0] [--jobs 2] [--kinds KIND ...]

Each fault has a run of ten small clips (SSIM and PSNR) of its own: processes are killed, suspended and started twice;
files of the output folder are cut, flipped and removed; disks fill up, turn read-only, stall and lose power (a tmpfs
and ext4 images, mounted in a namespace of our own, when this is root); clips vanish, change, hang and cannot be read.
Each time the same command must end in the bytes of the undisturbed run, or in one typed sentence while the fault lasts.
Anything else (a traceback, another total, a hang) is a violation: it is printed with the number that repeats it
(`--only`), and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
import fault_kinds as kinds_here
import fault_storage as outside
from fault_kinds import Kind
from fault_world import Violation, World, own_mounts

WEIGHTS: dict[Kind, int] = {
    kinds_here.killed: 10, kinds_here.terminated: 6, kinds_here.interrupted: 6, kinds_here.paused: 3,
    kinds_here.started_twice: 4, kinds_here.ranges: 8, kinds_here.damaged: 14, kinds_here.obstacle: 3,
    kinds_here.removed: 5, kinds_here.clock_jump: 3, kinds_here.cold: 1,
    outside.disk_full: 8, outside.file_too_large: 3, outside.read_only: 4, outside.no_permission: 2,
    outside.power_cut: 6, outside.stalled: 3, outside.clip_removed: 4, outside.clip_replaced: 5, outside.clip_cut: 3,
    outside.read_error: 3, outside.clip_hangs: 2, outside.decoder_killed: 4,
}  # fmt: skip
TMPFS = {outside.disk_full, outside.read_only}
LOOP = {outside.power_cut, outside.stalled}  # an ext4 image


def kind_of(number: int, seed: int, kinds: list[Kind]) -> tuple[Kind, random.Random]:
    """The fault of a number: each kind once, then by weight."""
    rng = random.Random(f"{seed}/{number}")
    chosen = rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
    return (kinds[number] if number < len(kinds) else chosen), rng


def load() -> None:
    """Import what a run imports, so that the forked ones begin at once."""
    import av  # noqa: F401
    import decord  # noqa: F401
    import filelock  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401
    import rich.progress
    import rich.table  # noqa: F401
    import scipy.signal  # noqa: F401
    import torch  # noqa: F401

    import jwb_dh_v1.dataset.pairs
    import jwb_dh_v1.metrics.fidelity.pixel
    import jwb_dh_v1.report.charts
    import jwb_dh_v1.report.report  # noqa: F401


@dataclass
class Report:
    """What was seen: outcomes and seconds by kind."""

    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    length: float = 0.0

    def add(self, kind: str, outcome: str, seconds: float, times: int = 1) -> None:
        """Count an outcome."""
        found = self.outcomes.setdefault(kind, {})
        found[outcome] = found.get(outcome, 0) + times
        self.spent[kind] = self.spent.get(kind, 0.0) + seconds


def campaign(numbers: Iterable[int], seed: int, kinds: list[Kind]) -> Report:
    """Run the faults of some numbers one after the other, in a folder of their own."""
    report, room = Report(), Path(tempfile.mkdtemp(prefix="faults-"))
    room.chmod(0o755)
    try:
        world = World(room)
        report.length = world.length
        for number in numbers:
            kind, rng = kind_of(number, seed, kinds)
            begun, before = time.monotonic(), set(room.iterdir())
            world.dice = random.Random(f"{seed}/{number}/dice")
            try:
                outcome = kind(world, rng)
            except Violation as error:
                outcome = "VIOLATION"
                report.violations.append(f"fault {number} (seed {seed}, {kind.__name__}): {error}")
                print(report.violations[-1], flush=True)
            report.add(kind.__name__, outcome, time.monotonic() - begun)
            print(f"fault {number}: {kind.__name__}, {outcome}", file=sys.stderr, flush=True)
            for folder in set(room.iterdir()) - before:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return report


def in_parallel(numbers: range, jobs: int, seed: int, kinds: list[Kind]) -> Report:
    """The same in several forked processes, each with every so-many-th number."""
    files = []
    for job in range(jobs):
        files.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - read below
        if os.fork() == 0:
            code = 1
            try:
                json.dump(asdict(campaign(numbers[job::jobs], seed, kinds)), files[-1])
                files[-1].flush()
                code = 0
            except BaseException:  # noqa: BLE001 - the process ends here
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
    whole = Report()
    for _ in range(jobs):
        if os.wait()[1]:
            whole.violations.append("a part of the campaign broke off")
    for file in files:
        file.seek(0)
        part = Report(**json.loads(file.read() or "{}"))
        whole.violations += part.violations
        whole.length = max(whole.length, part.length)
        for kind, found in part.outcomes.items():
            for outcome, times in found.items():
                whole.add(kind, outcome, part.spent[kind] * times / sum(found.values()), times)
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=f"of {', '.join(kind.__name__ for kind in WEIGHTS)}")
    parser.add_argument("--only", type=int, help="the fault of this number alone (with the same --seed and --kinds)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    args = parser.parse_args()
    begun, mounts = time.monotonic(), own_mounts()
    loops = mounts and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None
    left_out = (set() if mounts else TMPFS) | (set() if loops else LOOP)
    kinds = [kind for kind in WEIGHTS if kind not in left_out]
    if args.kinds:
        kinds = [kind for kind in kinds if kind.__name__ in args.kinds]
    load()
    if args.only is None:
        report = in_parallel(range(args.faults), args.jobs, args.seed, kinds)
    else:
        report = campaign([args.only], args.seed, kinds)
    print(f"an undisturbed run: {report.length:.2f} s; full disk by {'a tmpfs' if mounts else 'RLIMIT_FSIZE alone'}")
    if left_out:
        print(f"left out, as nothing can be mounted here: {', '.join(sorted(kind.__name__ for kind in left_out))}")
    print(f"{'kind':15s} {'faults':>6s} {'s each':>6s}  outcomes")
    for kind in WEIGHTS:
        if found := report.outcomes.get(kind.__name__):
            listed = "; ".join(f"{outcome} {times}" for outcome, times in sorted(found.items()))
            count = sum(found.values())
            print(f"{kind.__name__:15s} {count:6d} {report.spent[kind.__name__] / count:6.2f}  {listed}")
    total = sum(sum(found.values()) for found in report.outcomes.values())
    print(f"{total} faults, {len(report.violations)} violations, "
          f"{time.monotonic() - begun:.0f} s, seed {args.seed}")  # fmt: skip
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
