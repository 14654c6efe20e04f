"""The costs on the metrics' pages: seconds of two CPU cores per second of video, each metric alone, from a file.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/metric_cost.py [standard paper lite]

One second (24 frames of 640x360, a real woman) against its mirror image; the reference is looked at too, as for every
first run. Networks whose weights are not here carry the tests' seeded ones, which take as long. SCRFD has no such
stand-in: a fixed face takes its place, and its time is missing; nor has Whisper large-v3, which is left out. Faces are
cut where the dataset's detector finds them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import FixedFace, header, weight_file, without_memory

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.networks import scrfd
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve


def clips(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Generated and real file by region; speech has the same file twice."""
    frames = Clip(resolve("pexels-woman")).frames[:24]
    paths = folder / "made.mp4", folder / "real.mp4"
    for path, pictures in zip(paths, (frames[:, :, ::-1], frames), strict=True):
        write_mp4(path, np.ascontiguousarray(pictures), 24)
    talk = resolve("obama-speech")
    return {"body": paths, "face": paths, "speech": (talk, talk)}


def seconds(metric, region, rule, paths, models) -> float:  # type: ignore[no-untyped-def]
    """From the files to the score, once."""
    begun = time.perf_counter()
    made, real = (Clip(path, models=models) for path in paths)
    sample = Sample("a", made, real, transcript="Today after two years of negotiations")
    for part in sample.crop(region, rule, metric.same_boxes):
        metric.score(part)
    return (time.perf_counter() - begun) / (len(made) / made.fps)


def main() -> None:
    """Print a line per metric and protocol: the second of two runs, so that loading is not in it."""
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        videos = clips(folder)
        boxes = {n: resolve(n) for n in ("face-short-range", "face-full-range", "palm", "hand-landmark")}
        for name in sys.argv[1:] or list(PROTOCOLS):
            table = PROTOCOLS[name]
            for metric in table.metrics.values():
                if "whisper-large-v3" in metric.weights:
                    continue
                files = {n: weight_file(n, folder) for n in metric.weights if n != "scrfd"}
                region = "body" if "body" in metric.regions else metric.regions[0]
                models = NetworkPool(boxes | files, "cpu")
                models.put(scrfd.NETWORK, FixedFace())  # type: ignore[arg-type]
                models.preload(files, "annotations")
                runs = [seconds(metric, region, table.rule, videos[region], without_memory(models)) for _ in range(2)]
                print(f"{table.name} {metric.name} {region} {runs[-1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
