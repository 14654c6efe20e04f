"""Hours and money for 20,000 and 2,000,000 clips, from seconds measured on this machine.

    python benchmarks/profile_run.py --json profile.json && python benchmarks/cost_model.py profile.json
    python benchmarks/cost_model.py profile.json --seconds 5 --price 0.1 --gpu-price H100=3.0 [--no-check]

The CPU row is the measured time per second of video, times the clips. **The GPU rows are not measured**: networks are
assumed to reach `EFFICIENCY` of the card's published dense float32 rate for each that they reach of the profiled
machine's own, measured rate; everything else stays on `CORES` CPU cores beside the card and overlaps with it, so that
the slower of the two counts. Prices are the user's to give: those here are round figures of the order of on-demand
offers, no quotes. Videos of another size than the profiled one (`--pixels`): decoding, resizing, pixel arithmetic, RAFT
and AMT-S are taken to grow with the pixels (the last two grow faster), the other networks look at fixed sizes.

The check runs lite/1 here: the cost of one clip is taken, that of the next ones predicted, and then measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import header, networks, teaser_pairs, video_metrics, weight_files, without_memory
from profile_run import fresh
from stages import NETWORKS

from jwb_dh_v1 import Sample, score
from jwb_dh_v1.networks.pool import NetworkPool

SETS = (20_000, 2_000_000)
# Dense float32 outside the tensor cores, TFLOPS as published by the maker; dollars an hour, an assumption.
CARDS = {"T4": (8.1, 0.4), "L4": (30.3, 0.8), "A100": (19.5, 1.5), "L40S": (91.6, 1.5), "H100": (66.9, 3.0)}
EFFICIENCY = 0.5  # of what the CPU reaches of its own matmul rate; small batches and memory-bound layers cost the rest
CORES = 8  # beside a card
ON_CARD = {*NETWORKS.values(), "RAFT", "AMT-S"} - {"dlib"}
BY_PIXELS = {"decode", "crop", "resize", "pixel metrics", "RAFT", "AMT-S", "open and hash"}


def per_second(measured: dict[str, Any], pixels: float) -> dict[str, float]:
    """Seconds of work per second of one generated clip (its reference included), by stage, for pictures of a size."""
    width, height = measured["size"]
    growth = pixels / (width * height)
    stages = {**measured["stages"], "the rest": measured["wall"] - sum(measured["stages"].values())}
    return {s: v * (growth if s in BY_PIXELS else 1) / measured["video_seconds"] for s, v in stages.items()}


def hours(stages: dict[str, float], clips: int, seconds: float, rate: float, tflops: float | None) -> float:
    """Wall hours on this machine, or on a machine with a card of so many TFLOPS."""
    video = clips * seconds / 3600
    if tflops is None:
        return video * sum(stages.values())
    card = sum(v for s, v in stages.items() if s in ON_CARD) * rate / (tflops * EFFICIENCY)
    beside = sum(v for s, v in stages.items() if s not in ON_CARD) * torch.get_num_threads() / CORES
    return video * max(card, beside)


def check(clips: int, frames: int) -> None:
    """Predict the time of some clips from that of the first, and measure it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        samples, _ = teaser_pairs(8, frames, folder)
        same = [sample for sample in samples if sample.generated.size == (640, 360)][: clips + 1]
        models = networks(weight_files(("lite",), folder))
        _run(same[:1], models, folder / "warm")
        one = _run(same[:1], models, folder / "one")
        rest = _run(same[1:], models, folder / "rest")
    per = one / len(same[0].generated)
    count = sum(len(sample.generated) for sample in same[1:])
    print(f"\nCheck, lite/1, 640 x 360: {len(same[0].generated)} frames of one clip took {one:.2f} s, so {count} "
          f"frames of {len(same) - 1} others should take {per * count:.2f} s; measured {rest:.2f} s, "
          f"{100 * (rest / (per * count) - 1):+.0f} %.")  # fmt: skip


def _run(samples: list[Sample], models: NetworkPool, out: Path) -> float:
    begun = time.perf_counter()
    score(fresh(samples, "annotations"), video_metrics("lite"), protocol="lite", models=without_memory(models),
          boxes="annotations", weights=models.weights, device="cpu", out=out)  # fmt: skip
    return time.perf_counter() - begun


def main() -> None:
    """Print a table for each profiled protocol, then the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path, help="what profile_run.py --json wrote")
    parser.add_argument("--seconds", type=float, default=5, help="length of a clip")
    parser.add_argument("--pixels", type=float, default=1280 * 720, help="of a frame")
    parser.add_argument("--price", type=float, default=0.1, help="dollars an hour of a machine like this one (assumed)")
    parser.add_argument("--gpu-price", nargs="+", default=[], metavar="CARD=DOLLARS")
    parser.add_argument("--clips", type=int, default=3, help="of the check")
    parser.add_argument("--frames", type=int, default=0, help="of each clip of the check; 0 for all")
    parser.add_argument("--no-check", action="store_true")
    args = parser.parse_args()
    known = json.loads(args.profile.read_text())
    prices = {card: price for card, (_, price) in CARDS.items()}
    prices |= {card: float(price) for card, _, price in (text.partition("=") for text in args.gpu_price)}
    rate = known["tflops"]
    print(header())
    print(f"profile of {known['machine'].splitlines()[0]}\nfloat32 matmul there: {rate:.3f} TFLOPS; clips of "
          f"{args.seconds:g} s, {args.pixels / 1e6:.2f} megapixels, one reference each, three regions")  # fmt: skip
    for protocol, measured in known["protocols"].items():
        stages = per_second(measured, args.pixels)
        print(f"\n### {protocol}/1: {sum(stages.values()):.1f} s per second of video here "
              f"(n = {measured['pairs']} pairs, {measured['frames']} frames)\n")  # fmt: skip
        print("| machine | basis | " + " | ".join(f"{n:,} clips, h | dollars" for n in SETS) + " |")
        print("|---|---|" + "---|" * 2 * len(SETS))
        rows = [("this CPU", "measured per second of video", None, args.price)]
        rows += [(f"{c} + {CORES} cores", "estimate, not measured", t, prices[c]) for c, (t, _) in CARDS.items()]
        for name, basis, tflops, price in rows:
            cells = [hours(stages, n, args.seconds, rate, tflops) for n in SETS]
            print(f"| {name} | {basis} | " + " | ".join(f"{h:,.1f} | {h * price:,.0f}" for h in cells) + " |")
    if not args.no_check:
        check(args.clips, args.frames)


if __name__ == "__main__":
    main()
