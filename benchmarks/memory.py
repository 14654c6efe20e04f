"""Peak memory by the number of clips and by their length: it must not grow with either.

    python benchmarks/memory.py [--clips 100 1000 20000] [--seconds 5 60 600] [--size 640x360] [--fps 25]
                                [--metrics psnr dynamic_degree] [--protocol lite] [--regions body] [--folder DIR]

Each line is a process of its own, which makes its clips (by number: different files of 8 frames of 32 x 32, made when
their turn comes; by length: two files, made beforehand), scores them and tells its peak (and that of the
process that decodes for it). `--clips` runs PSNR and
SSIM in shards of 64 into a folder, as any run. A clip of up to 512 MB of pixels stays in memory (of 640 x 360 at 25
frames a second that is 31 s), a longer one is streamed, so that the peak is highest for clips just below that.
`--clips --seconds 600 --size 1920x1080` is the 10-minute 1080p clip alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from common import header

from jwb_dh_v1 import Clip, Result, Sample, score
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.networks.weights import resolve

TINY = 8, 32  # frames, pixels a side


def peak(process: str = "self") -> float:
    """The largest resident size of a process so far, in MiB (its own: getrusage's begins with that of its parent)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class Helpers(threading.Thread):
    """Looks once a second at the processes that this one has started; `highest` is their largest peak in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = 0.0

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            for file in Path("/proc/self/task").glob("*/children"):
                with suppress(OSError, StopIteration):  # it may have ended in between
                    self.highest = max(self.highest, *map(peak, file.read_text().split()), 0.0)
            time.sleep(1)


class Tiny:
    """Many small samples, each made when it is asked for; `size` is their number."""

    def __init__(self, count: int, folder: Path) -> None:
        self.size, self.folder = count, folder

    def __iter__(self) -> Iterator[Sample]:
        """Yield sample after sample, their files' bytes in memory."""
        for number in range(self.size):
            random = np.random.default_rng(number)
            frames = random.integers(0, 256, (TINY[0], TINY[1], TINY[1], 3), dtype=np.uint8)
            path, clips = self.folder / "tiny.mp4", []
            for pictures in (frames, 255 - frames):
                write_mp4(path, pictures, 25, preset="ultrafast")
                clips.append(Clip(path.read_bytes()))
            yield Sample(str(number), *clips)


def by_number(count: int, folder: Path) -> Result:
    """Score so many tiny clips."""
    return score(Tiny(count, folder), ["psnr", "ssim"], ["body"], protocol="lite", device="cpu", out=folder / "run",  # type: ignore[arg-type]
                 data=f"tiny:{count}")  # fmt: skip


def pictures(source: Clip, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """`count` frames of a size: the source forwards and backwards in turn."""
    small = source.frames
    length = len(small)
    for number in range(count):
        at = number % (2 * length)
        yield cv2.resize(small[at if at < length else 2 * length - 1 - at], size)


def write_long(args: argparse.Namespace, seconds: float, folder: Path) -> tuple[Path, Path]:
    """The made and the real clip of a length, kept if they are there."""
    width, height = (int(side) for side in args.size.split("x"))
    count = round(seconds * args.fps)
    paths = [folder / f"{name}-{count}-{args.fps:g}-{args.size}.mp4" for name in ("made", "real")]
    for path, crf in zip(paths, (35, 23), strict=True):
        if not path.exists():
            source = Clip(resolve("pexels-woman"))
            write_mp4(path, pictures(source, count, (width, height)), args.fps, crf=crf, preset="ultrafast")
    return paths[0], paths[1]


def child(args: argparse.Namespace) -> None:
    """Do one line's work and print its figures as JSON."""
    before, begun, helpers = peak(), time.perf_counter(), Helpers()
    helpers.start()
    if args.child[0] == "clips":
        with tempfile.TemporaryDirectory() as scratch:
            result = by_number(int(args.child[1]), Path(scratch))
    else:
        sample = Sample("long", Clip(args.child[1]), Clip(args.child[2]))
        result = score([sample], args.metrics, args.regions, protocol=args.protocol, device="cpu")
    cells = {f"{cell.metric}/{cell.region}": cell.value for cell in result.scores}
    counts = min(cell.n for cell in result.scores), max(cell.failed for cell in result.scores)
    print(json.dumps({"before": before, "peak": peak(), "helper": helpers.highest, "wall": time.perf_counter() - begun,
                      "cells": cells, "n": counts[0], "failed": counts[1]}))  # fmt: skip


def in_a_process(args: argparse.Namespace, *what: str) -> dict[str, float]:
    """The figures of one line."""
    command = [sys.executable, __file__, "--protocol", args.protocol, "--metrics", *args.metrics, "--regions",
               *args.regions, "--child", *what]  # fmt: skip
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    """Print a line per size, and the growth from the smallest to the largest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="*", default=[100, 1000, 20_000])
    parser.add_argument("--seconds", type=float, nargs="*", default=[5, 60, 600])
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--protocol", default="lite")
    parser.add_argument("--metrics", nargs="+", default=["psnr", "dynamic_degree"])
    parser.add_argument("--regions", nargs="+", default=["body"])
    parser.add_argument("--folder", type=Path, help="keep the long clips here, for another run")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    print(header())
    with tempfile.TemporaryDirectory() as scratch:
        if args.clips:
            print("\n| clips | peak, MiB | of the decoder | before scoring | wall, s | clips/s |\n" + "|---" * 6 + "|")
        for count in args.clips:
            found = in_a_process(args, "clips", str(count))
            assert found["n"] == count and not found["failed"], found
            print(f"| {count} | {found['peak']:.0f} | {found['helper']:.0f} | {found['before']:.0f} | "
                  f"{found['wall']:.1f} | {count / found['wall']:.1f} |", flush=True)  # fmt: skip
        if args.seconds:
            print(f"\n| length, s | frames of {args.size} | pixels, MiB | peak, MiB | of the decoder | before scoring |"
                  " wall, s |\n" + "|---" * 7 + "|")  # fmt: skip
        for seconds in args.seconds:
            paths = write_long(args, seconds, args.folder or Path(scratch))
            found = in_a_process(args, "seconds", *map(str, paths))
            assert found["n"] == 1, found
            width, height = (int(side) for side in args.size.split("x"))
            frames = round(seconds * args.fps)
            print(f"| {seconds:g} | {frames} | {frames * width * height * 3 / 2**20:.0f} | {found['peak']:.0f} | "
                  f"{found['helper']:.0f} | {found['before']:.0f} | {found['wall']:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
