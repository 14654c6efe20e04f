"""Peak memory and time for a long clip, which must be streamed: 10 minutes of 1080p by default.

    python benchmarks/long_clip.py [--minutes 10] [--fps 25] [--protocol lite] [--metrics ssim psnr ...]

The clip is a real person (the teaser's source clip `pexels-woman`), looped and enlarged to 1920x1080, against itself at
a lower quality. Frames alone would be 93 GB at 25 fps.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import cv2

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.video import write_mp4
from jwb_dh_v1.weights import resolve


def frames(source: Clip, count: int):
    """Yield `count` frames of 1080p, the source forwards and backwards in turn."""
    small = source.frames
    length = len(small)
    for number in range(count):
        at = number % (2 * length)
        yield cv2.resize(small[at if at < length else 2 * length - 1 - at], (1920, 1080))


def main() -> None:
    """Write the clip, score it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--protocol", default="lite")
    parser.add_argument("--metrics", nargs="+")
    parser.add_argument("--regions", nargs="+", default=["body", "face", "hands"])
    parser.add_argument("--folder", help="keep the clips here, for another run")
    args = parser.parse_args()
    count = round(args.minutes * 60 * args.fps)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.folder or scratch)
        paths = [folder / f"{name}-{count}-{args.fps:g}.mp4" for name in ("real", "made")]
        for path, crf in zip(paths, (23, 35), strict=True):
            if not path.exists():
                source = Clip(resolve("pexels-woman"))
                write_mp4(path, frames(source, count), args.fps, crf=crf, preset="ultrafast")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        begun = time.perf_counter()
        sample = Sample("long", Clip(paths[1]), Clip(paths[0]))
        result = score([sample], args.metrics, args.regions, protocol=args.protocol, device="cpu")
        wall = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{count} frames of 1920x1080, {args.protocol}: {wall:.0f} s, {2 * count / wall:.1f} frames/s of both clips")
    print(f"peak memory {peak:.2f} GiB ({before:.2f} GiB before scoring)")
    for cell in result.scores:
        print(cell.metric, cell.region, cell.value, f"n={cell.n} skipped={cell.skipped} failed={cell.failed}")


if __name__ == "__main__":
    main()
