"""Twenty visitors at once: what the demo Space does under load.

Each visitor is a `gradio_client` in a thread that uploads one of a few real clip pairs and scores it, again and again.
A visitor who is told that the queue is full, or that its own job still waits, tries again; anything else that is not a
result is an error.

    python benchmarks/space_load.py [--teaser jwb-dh-v1] [--users 20] [--seconds 120]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from space_server import Server, running, shorter

METRICS = ["psnr", "ssim", "motion_smoothness"]


def pairs(teaser: str, folder: Path, most: int = 4) -> list[tuple[Path, Path]]:
    """Blurred and real clips of some people of the teaser."""
    from jwb_dh_v1.dataset.load import load_dataset

    found = []
    for row in load_dataset(teaser, split="evaluation", streaming=True):
        source, name = row["video"]["bytes"], row["sample_id"]
        made = shorter(source, folder / f"{name}.mp4", 2)
        found.append((made, shorter(source, folder / f"{name}-real.mp4", 0)))
        if len(found) == most:
            break
    return found


class Visitor(threading.Thread):
    """One visitor, from the first click to the end of the time."""

    def __init__(self, number: int, server: Server, pair: tuple[Path, Path], end: float) -> None:
        super().__init__()
        self.number, self.server, self.pair, self.end = number, server, pair, end
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.told_to_wait = 0

    def run(self) -> None:
        """Score until the time is over, at least once."""
        from gradio_client import Client, handle_file

        client = Client(self.server.url, verbose=False)
        while not self.seconds or time.monotonic() < self.end:
            begun = time.monotonic()
            try:
                answer: Any = client.predict(
                    video=handle_file(self.pair[0]), reference=handle_file(self.pair[1]), regions=["body"],
                    metrics=METRICS, api_name="/score",
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001 - counted
                if "Queue is full" in str(error) or "429" in str(error):
                    self.told_to_wait += 1
                    time.sleep(1)
                    continue
                self.errors.append(f"{type(error).__name__}: {error}"[:200])
                continue
            if any(score["value"] is None for score in answer["scores"]):
                self.errors.append("a score is missing")
            self.seconds.append(time.monotonic() - begun)
        client.close()


def resident(pid: int) -> float:
    """Peak memory of a process so far, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teaser", default="jwb-dh-v1", help="folder made by `jwb-dh teaser` (default: %(default)s)")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clips = pairs(args.teaser, folder)
        with running(folder, {"JWB_DEMO_PER_ADDRESS": str(args.users)}) as server:
            warm = Visitor(-1, server, clips[0], 0.0)
            warm.start()
            warm.join()
            before, begun = resident(server.pid), time.monotonic()
            visitors = [
                Visitor(n, server, clips[n % len(clips)], begun + args.seconds) for n in range(args.users)
            ]  # fmt: skip
            for visitor in visitors:
                visitor.start()
            for visitor in visitors:
                visitor.join()
            spent, after = time.monotonic() - begun, resident(server.pid)
            closed = time.monotonic()
            while server.left() and time.monotonic() - closed < 60:
                time.sleep(0.5)
            left = (
                f"{len(server.left())} files left {time.monotonic() - closed:.0f} s after the last one closed its page"
            )
    all_seconds = [s for visitor in visitors for s in visitor.seconds]
    errors = [error for visitor in visitors for error in visitor.errors]
    jobs = [len(visitor.seconds) for visitor in visitors]
    print(f"{args.users} visitors, {spent:.0f} s: {len(all_seconds)} jobs, {len(all_seconds) / spent:.2f} a second")
    print(f"errors: {len(errors)}; told to wait: {sum(visitor.told_to_wait for visitor in visitors)}")
    for error in sorted(set(errors))[:5]:
        print(f"  {error}")
    for share in (50, 95, 100):
        print(f"latency p{share}: {np.percentile(all_seconds, share):.1f} s")
    print(f"jobs per visitor: {min(jobs)} to {max(jobs)} (first alone: {warm.seconds[0]:.1f} s, with loading)")
    print(f"peak memory: {before:.0f} MB after the first job, {after:.0f} MB at the end; {left}")


if __name__ == "__main__":
    main()
