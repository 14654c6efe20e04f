"""Our `standard/1` and `paper/1` against a pipeline model of the originals, end to end, on the same clips.

    python benchmarks/pipeline_model.py [--clips 1] [--frames 12] [--precision fp32] [--regions body face hands]

The model (`originals.py`) is not the originals' code: it does what they do, with the same networks and the same seeded
weights. Both sides start from the same files and the dataset's boxes and key points, so that no detector runs; SCRFD is
a fixed face on both; networks are loaded and hashed beforehand. Crops are written to disk as video for the model (the
authors ran VBench on cropped videos), lossless, so that the numbers can be compared. Whatever VBench says of the body
is computed once and serves both protocols. Short clips make the time per pair (`sqrtm`) weigh more than it does for
whole ones, so the ratios for the clips' whole length are computed too, from the stages that grow with the frames. On a
busy machine the ratio of CPU times (hashing our weights counted) says more than that of wall times.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import header, networks, teaser_pairs, video_metrics, weight_files
from originals import Originals, Pair
from stages import REST, WHOLE, Stages

from jwb_dh_v1 import Clip, Result, Sample, score
from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.region import Region
from jwb_dh_v1.networks.pool import NetworkPool

VBENCH = ("subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree", "aesthetic_quality",
          "imaging_quality")  # fmt: skip
PAPER = {  # the authors decode both clips anew for each of these groups
    ("fid", "e_fid"): Originals.paper_fid_and_efid,
    ("fvd",): Originals.paper_fvd,
    ("ssim", "psnr", "csim"): Originals.paper_pixels,
}
PER_RUN = ("sqrtm", "statistics", "results to disk")  # does not grow with the frames
ROOTS = ("fid", "fid_clean", "e_fid", "fvd")
ROOT_TOLERANCE = 1e-3
Cell = tuple[str, str, str]  # protocol, metric, region
# Absolute, or relative where the value is above 1: float32 in other batches and orders, norms folded into convolutions.
# FID's is the matrix root's: of a product of rank n - 1 it is off by 1e-4 or so (specs: 4e-5 at a distance of 271).
TOLERANCE = 1e-5


def cpu_seconds() -> float:
    """Of this process and those that it has started and that have ended."""
    return sum(os.times()[:4])


class Model:
    """The pipeline model on some pairs: times by part (`body`, `standard`, `paper`) and the values."""

    def __init__(
        self, files: dict[str, Path], samples: list[Sample], regions: list[Region], metrics: list[str], folder: Path
    ) -> None:
        self.stages = {part: Stages() for part in ("body", "standard", "paper")}
        self.originals = Originals(files, self.stages["body"])
        self.samples, self.regions, self.metrics, self.folder = samples, regions, metrics, folder
        self.values: dict[Cell, float | None] = {}
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def run(self) -> None:
        """VBench on the bodies; the rest of standard/1 and VBench on its crops; the same of paper/1."""
        files = [(s.generated._source, s.reference._source) for s in self.samples]  # type: ignore[union-attr]
        bodies: dict[str, list[Pair]] = {"body": files} if "body" in self.regions else {}  # type: ignore[dict-item]
        self._part("body", lambda: self._vbench(bodies, ("standard", "paper")))
        self._part("standard", lambda: self._standard(bodies))
        self._part("paper", lambda: self._paper(bodies))

    def _part(self, name: str, work: Callable[[], None]) -> None:
        self.originals.stages = self.stages[name]
        begun, before = time.perf_counter(), cpu_seconds() - self.originals.loading
        work()
        self.wall[name] = time.perf_counter() - begun - self.stages[name].seconds.pop("load", 0.0)
        self.cpu[name] = cpu_seconds() - self.originals.loading - before

    def _crops(self, protocol: str) -> dict[str, list[Pair]]:
        """Face and hands of every pair as lossless videos; a part that one of the two lacks is left out."""
        stages, found = self.originals.stages, {}
        for region in self.regions:
            if region == "body":
                continue
            pairs = found[region] = []
            for sample in self.samples:
                with stages("decode"):
                    clips = list(_reopened(sample))
                    for clip in clips:
                        _ = clip.frames
                try:
                    with stages("crop"):
                        parts = Sample(sample.id, *clips).crop(region, PROTOCOLS[protocol].rule)
                except NotApplicable:
                    continue
                for number, part in enumerate(parts):
                    paths = [self.folder / f"{protocol}-{region}-{sample.id}-{number}-{side}.mp4" for side in "gr"]
                    for path, crop in zip(paths, (part.generated, part.reference), strict=True):
                        assert crop is not None
                        with stages("crop"):
                            frames = crop.frames
                        with stages("crops to disk"):
                            write_mp4(path, frames, crop.fps, lossless=True, preset="ultrafast")
                    pairs.append((paths[0], paths[1]))
        return found

    def _vbench(self, pairs: dict[str, list[Pair]], protocols: tuple[str, ...]) -> None:
        for metric in [name for name in VBENCH if name in self.metrics]:
            measure = getattr(self.originals, metric)
            for region, files in pairs.items():
                self._mean(protocols, metric, region, [measure(made) for made, _ in files])
            self.originals.drop()

    def _mean(self, protocols: tuple[str, ...], metric: str, region: str, values: list[float | None]) -> None:
        known = [value for value in values if value is not None]
        for protocol in protocols:
            self.values[protocol, metric, region] = float(np.mean(known)) if known else None

    def _standard(self, bodies: dict[str, list[Pair]]) -> None:
        crops = self._crops("standard")
        self._vbench(crops, ("standard",))
        ours = self.originals
        shapes: dict[str, Callable[[Path], np.ndarray]] = {
            "fid": ours.fid, "fid_clean": lambda path: ours.fid(path, clean=True), "fvd": ours.fvd, "e_fid": ours.e_fid,
        }  # fmt: skip
        for region, pairs in (bodies | crops).items():
            for metric, features in shapes.items():
                if metric not in self.metrics or region not in PROTOCOLS["standard"].metrics[metric].regions:
                    continue
                long = [pair for pair in pairs if metric != "fvd" or all(len(Clip(path)) >= 10 for path in pair)]
                sides = [np.concatenate([features(pair[i]) for pair in long]) for i in (0, 1)] if long else []
                enough = sides and min(len(side) for side in sides) > 1
                self.values["standard", metric, region] = ours.frechet(*sides) if enough else None
            for metric in ("ssim", "psnr", "csim"):
                if metric in self.metrics and region in PROTOCOLS["standard"].metrics[metric].regions:
                    self._mean(("standard",), metric, region, [getattr(ours, metric)(pair) for pair in pairs])
        ours.drop()

    def _paper(self, bodies: dict[str, list[Pair]]) -> None:
        crops = self._crops("paper")
        self._vbench(crops, ("paper",))
        for region, pairs in (bodies | crops).items():
            for group, measure in PAPER.items():
                if set(group) & set(self.metrics):
                    found = [measure(self.originals, pair) for pair in pairs]
                    for at, metric in [pair for pair in enumerate(group) if pair[1] in self.metrics]:
                        self._mean(("paper",), metric, region, [values[at] for values in found])
        self.originals.drop()


def ours(
    protocol: str, samples: list[Sample], regions: list[Region], metrics: list[str], models: NetworkPool, folder: Path
) -> tuple[Result, Stages, float, float]:
    """One run of the package, its stages, wall and CPU seconds; hashing weights is set-up, taken off the wall time."""
    stages = Stages()
    fresh = [Sample(sample.id, *_reopened(sample), person_id=sample.person_id) for sample in samples]
    wanted = [name for name in video_metrics(protocol) if name in metrics]
    with stages.package(models):
        begun, before = time.perf_counter(), cpu_seconds()
        result = score(fresh, wanted, regions, protocol=protocol, models=models, out=folder / protocol,
                       boxes="annotations", weights=models.weights, other_weights=True, failures="strict",
                       precision=models.precision, device="cpu")  # fmt: skip
        wall = time.perf_counter() - begun - stages.seconds.pop("weights hashed", 0.0)
    return result, stages, wall, cpu_seconds() - before


def _reopened(sample: Sample) -> tuple[Clip, Clip]:
    """Generated and reference, nothing decoded, the dataset's boxes with the reference."""
    assert sample.reference is not None
    given = sample.reference.provided_annotations
    return Clip(sample.generated._source), Clip(sample.reference._source, annotations=given)  # type: ignore[arg-type]


def whole_length(stages: list[Stages], wall: float, growth: float) -> float:
    """Seconds for clips `growth` times as long, if everything but `PER_RUN` grows with the frames."""
    fixed = sum(one.seconds.get(stage, 0.0) for one in stages for stage in PER_RUN)
    return fixed + growth * (wall - fixed)


def breakdown(theirs: list[Stages], mine: list[Stages], walls: tuple[float, float]) -> None:
    """Seconds by stage, side by side."""
    names = sorted({n for s in (*theirs, *mine) for n in s.seconds},
                   key=lambda n: -sum(s.seconds.get(n, 0.0) for s in (*theirs, *mine)))  # fmt: skip
    print("\n| stage | originals' model, s | this package, s |\n|---|---|---|")
    columns = [[sum(s.seconds.get(n, 0.0) for s in side) for n in names] for side in (theirs, mine)]
    for name, a, b in zip(names, *columns, strict=True):
        print(f"| {name} | {a:.2f} | {b:.2f} |")
    print(f"| {REST} | {walls[0] - sum(columns[0]):.2f} | {walls[1] - sum(columns[1]):.2f} |")
    decodes = sum(s.calls.get("decode", 0) for s in theirs), sum(s.calls.get(WHOLE, 0) for s in mine)
    print(f"| clips and crops decoded (count) | {decodes[0]} | {decodes[1]} |")
    for missing in sorted({place for s in mine for place in s.missing}):
        print(f"\nnot timed by itself: {missing}")


def agreement(values: dict[Cell, float | None], results: dict[str, Result]) -> None:
    """The numbers of both, cell by cell."""
    print("\n| protocol | metric | region | originals' model | this package | difference | |\n" + "|---" * 7 + "|")
    for (protocol, metric, region), theirs in values.items():
        mine = results[protocol][metric, region].value
        if theirs is None or mine is None:
            print(
                f"| {protocol} | {metric} | {region} | {theirs} | {mine} | | {'equal' if theirs is mine else 'OTHER'} |"
            )
            continue
        gap = mine - theirs
        fits = abs(gap) <= (ROOT_TOLERANCE if metric in ROOTS else TOLERANCE) * max(1.0, abs(theirs))
        print(
            f"| {protocol} | {metric} | {region} | {theirs:.6f} | {mine:.6f} | {gap:+.1e} | {'' if fits else 'OTHER'} |"
        )
    roots = f"{ROOT_TOLERANCE:g} where a matrix root is taken ({', '.join(ROOTS)})"
    print(f"\nTolerance {TOLERANCE:g}, {roots}; relative where the value is above 1. None: fails or is skipped on both")
    print("sides. The weights are seeded, so that the values mean nothing else.")


def main() -> None:
    """Run both, print ratios, breakdown and agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1, help="of the teaser's 8; FVD of standard/1 needs 2")
    parser.add_argument("--frames", type=int, default=12, help="of each clip; 0 for all (46 to 80)")
    parser.add_argument("--regions", nargs="+", default=["body", "face", "hands"])
    parser.add_argument("--metrics", nargs="+", default=sorted({*video_metrics("standard"), *video_metrics("paper")}))
    parser.add_argument("--precision", default="fp32", help="of this package's networks; bf16 changes the numbers")
    args = parser.parse_args()
    print(header("scikit-image", "torchvision"), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        samples, whole = teaser_pairs(args.clips, args.frames, folder)
        frames = sum(len(sample.generated) for sample in samples)
        files = weight_files(("standard", "paper"), folder, args.metrics)
        print(f"{len(samples)} pairs, {frames} frames a side, regions {' '.join(args.regions)}, {args.precision}, "
              f"{torch.get_num_threads()} threads\n", flush=True)  # fmt: skip
        models = networks(files, precision=args.precision)
        results, mine, walls, cpus = {}, {}, {}, {}
        for protocol in ("standard", "paper"):
            found = ours(protocol, samples, args.regions, args.metrics, models, folder)
            results[protocol], mine[protocol], walls[protocol], cpus[protocol] = found
            print(f"this package, {protocol}/1: {walls[protocol]:.1f} s", flush=True)
        del models
        model = Model(files, samples, args.regions, args.metrics, folder)
        model.run()
    for part, seconds in model.wall.items():
        print(f"originals' model, {part}: {seconds:.1f} s")
    growth = whole / frames
    calculated = f"by calculation, for {growth:.1f} x the frames (whole clips)"
    print(
        f"\n| | originals' model, s | this package, s | times faster | by CPU time | {calculated} |\n"
        + "|---" * 6
        + "|"
    )
    for name, parts, runs in (
        ("standard/1", ("body", "standard"), ("standard",)),
        ("standard/1 and paper/1", ("body", "standard", "paper"), ("standard", "paper")),
    ):
        theirs, own = sum(model.wall[p] for p in parts), sum(walls[r] for r in runs)
        work = sum(model.cpu[p] for p in parts) / sum(cpus[r] for r in runs)
        long = whole_length([model.stages[p] for p in parts], theirs, growth)
        long /= whole_length([mine[r] for r in runs], own, growth)
        print(f"| {name} | {theirs:.1f} | {own:.1f} | {theirs / own:.2f} | {work:.2f} | {long:.2f} |")
    breakdown(list(model.stages.values()), list(mine.values()), (sum(model.wall.values()), sum(walls.values())))
    agreement(model.values, results)


if __name__ == "__main__":
    main()
