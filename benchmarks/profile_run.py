"""One run of the package by stage, and the promises about it, each measured.

    python benchmarks/profile_run.py [--protocols lite standard] [--clips 2] [--frames N] [--boxes mediapipe]
                                     [--json FILE] [--functions]

Clips of the teaser against their blurred selves, whole ones for lite/1 and 12 frames each for the others, with seeded
weights where the real ones are not here (SCRFD: a fixed face). For each protocol a warm-up on 10 frames, then the body
alone, then all regions (with nothing remembered), which is the run that is shown by stage. Promised: overhead beyond
decode and networks below 10 %, one decode per clip, face and hands at most 60 % on top of the body, and the first
sample of `jwb-dh score` (lite/1, weights cached) within 15 s. `--json` keeps the seconds for `cost_model.py`;
`--functions` adds the functions with the longest own time (cProfile, which slows the run).
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from common import (
    header,
    matmul_rate,
    networks,
    teaser_folder,
    teaser_pairs,
    video_metrics,
    weight_files,
    without_memory,
)
from stages import NETWORKS, WHOLE, Stages

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve

DETECTOR = ("face-short-range", "face-full-range", "palm", "hand-landmark")
LOOKING = {*NETWORKS.values(), "RAFT", "AMT-S", "DIS flow", "dlib", "face mesh", "detector"}  # what a metric must do
ALSO = ("resize", "pixel metrics")  # must be done too, but is neither decode nor network
FRAMES = {"lite": 0, "standard": 12, "paper": 12}


def fresh(samples: list[Sample], boxes: str) -> list[Sample]:
    """The same files, nothing decoded; with the boxes given or without."""
    return [
        Sample(s.id, Clip(s.generated._source),  # type: ignore[arg-type]
               Clip(s.reference._source,  # type: ignore[union-attr,arg-type]
                    annotations=s.reference.provided_annotations if boxes == "annotations" else None),
               person_id=s.person_id)
        for s in samples
    ]  # fmt: skip


def timed(
    protocol: str, samples: list[Sample], regions: list[str], models: NetworkPool, out: Path
) -> tuple[Stages, float]:
    """Seconds by stage and in all of one run with nothing remembered; hashing weights is set-up and not counted."""
    stages, models = Stages(), without_memory(models)
    with stages.package(models):
        begun = time.perf_counter()
        score(fresh(samples, models.boxes), video_metrics(protocol), regions, protocol=protocol, models=models,  # type: ignore[arg-type]
              boxes=models.boxes, weights=models.weights, other_weights=True, device="cpu", out=out)  # fmt: skip
        wall = time.perf_counter() - begun
    return stages, wall - stages.seconds.pop("weights hashed", 0.0)


def promise(what: str, value: float, bound: float, unit: str = "") -> None:
    """One line of the verdict."""
    print(f"| {what} | {value:.3g}{unit} | {bound:g}{unit} | {'yes' if value < bound else 'NO'} |")


def profile(protocol: str, args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure one protocol and print its tables; the figures for `--json`."""
    frames = FRAMES[protocol] if args.frames is None else args.frames
    samples, _ = teaser_pairs(args.clips, frames, folder)
    files = weight_files((protocol,), folder)
    if args.boxes == "mediapipe":
        files |= {name: resolve(name) for name in DETECTOR}
    models = networks(files, args.boxes)
    short, _ = teaser_pairs(1, 10, folder / "warm")
    timed(protocol, short, ["body", "face", "hands"], models, folder / "warm-run")
    _, body = timed(protocol, samples, ["body"], models, folder / "body")
    profiler = cProfile.Profile() if args.functions else nullcontext()
    with profiler:
        stages, wall = timed(protocol, samples, ["body", "face", "hands"], models, folder / "all")
    seconds = sum(len(s.generated) / s.generated.fps for s in samples)
    print(f"\n### {protocol}/1: {len(samples)} pairs, {sum(len(s.generated) for s in samples)} frames a side "
          f"({seconds:.2f} s of video), three regions, {wall:.1f} s\n")  # fmt: skip
    print(stages.table(wall))
    looked = sum(spent for stage, spent in stages.seconds.items() if stage in LOOKING)
    decode = stages.seconds["decode"]
    also = sum(stages.seconds.get(stage, 0.0) for stage in ALSO)
    decodes = stages.calls[WHOLE] / (2 * len(samples))
    print("\n| | measured | promised below | kept |\n|---|---|---|---|")
    promise("beyond decode and networks", 100 * (wall - decode - looked) / wall, 10, " %")
    promise("the same without resizing and pixel arithmetic", 100 * (wall - decode - looked - also) / wall, 10, " %")
    promise("decodes per clip", decodes, 1 + 1e-9)
    promise(f"face and hands on top of the body ({body:.1f} s)", 100 * (wall / body - 1), 60, " %")
    only = [m.name for m in PROTOCOLS[protocol].metrics.values() if "body" not in m.regions and m.name != "wer"]
    if only:
        spent = json.loads((folder / "all" / "timings.json").read_text())["seconds"]
        apart = sum(seconds for cell, seconds in spent.items() if cell.partition("/")[0] in only)
        promise(
            f"the same without what the body has not ({', '.join(only)})", 100 * ((wall - apart) / body - 1), 60, " %"
        )
    if args.functions:
        print()
        pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(15)  # type: ignore[arg-type]
    print(flush=True)
    size = samples[0].generated.size
    return {"pairs": len(samples), "video_seconds": seconds, "frames": sum(len(s.generated) for s in samples),
            "size": size, "wall": wall, "body": body, "stages": dict(stages.seconds)}  # fmt: skip


def first_result(folder: Path) -> None:
    """Wall time from the start of `jwb-dh score` until its progress line counts the first sample."""
    import pty

    samples, _ = teaser_pairs(8, 0, folder / "cli")
    (folder / "videos").mkdir()
    for sample in samples:
        shutil.copy(sample.generated._source, folder / "videos" / f"{sample.id}.mp4")  # type: ignore[arg-type]
    command = [sys.executable, "-m", "jwb_dh_v1.cli", "score", str(folder / "videos"),
               "--data", str(teaser_folder()), "--protocol", "lite", "--device", "cpu",
               "--out", str(folder / "cli-run")]  # fmt: skip
    ours, theirs = pty.openpty()  # the bar is drawn for a terminal only
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "120"}
    )
    os.close(theirs)
    seen = ""
    try:
        while not re.search(r"[1-9]\d*/8", seen):
            seen += os.read(ours, 4096).decode(errors="replace")
    except OSError:
        sys.exit(f"jwb-dh score ended before a first sample:\n{seen[-2000:]}")
    finally:
        spent = time.perf_counter() - begun
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        process.kill()
        process.wait()
        os.close(ours)
    print("### Start to first result: `jwb-dh score`, lite/1, all metrics, three regions, first of 8 whole clips\n")
    print("| | measured | promised below | kept |\n|---|---|---|---|")
    promise("start to first sample", spent, 15, " s")
    print(f"\nIts process (not the one that decodes) took {cpu:.1f} s of CPU time until then.")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", nargs="*", default=["lite", "standard"], choices=list(FRAMES))
    parser.add_argument("--clips", type=int, default=2, help="of the teaser's 8")
    parser.add_argument("--frames", type=int, help="of each clip; 0 for all")
    parser.add_argument("--boxes", default="mediapipe", choices=["mediapipe", "annotations"])
    parser.add_argument("--functions", action="store_true")
    parser.add_argument("--no-start", action="store_true", help="leave out the start to the first result")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(header(), flush=True)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for protocol in args.protocols:
            room = Path(scratch) / protocol
            (room / "warm").mkdir(parents=True)
            found[protocol] = profile(protocol, args, room)
        if not args.no_start:
            (Path(scratch) / "cli").mkdir()
            first_result(Path(scratch))
    if args.json:
        args.json.write_text(json.dumps({"machine": header(), "tflops": matmul_rate(), "protocols": found}, indent=1))


if __name__ == "__main__":
    main()
