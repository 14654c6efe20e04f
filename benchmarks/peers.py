"""FID, SSIM, PSNR and WER against the peers' own packages, on the same frames, words and seeded Inception weights.

    python benchmarks/peers.py [--frames 48] [--sentences 2000] [--only fid ssim wer]

pytorch-fid, clean-fid and torch-fidelity read folders of PNG files, torchmetrics tensors (read from those files), this
package a lossless video of the same frames: each what it is given in practice, from the files to the number. Networks
are loaded beforehand, but for torch-fidelity, which loads inside its function. jiwer is what counts words in this
package too: its row says what our counts by word and character, alignment and flags cost on top.
Peers that are not installed are left out: `pip install --no-deps pytorch-fid clean-fid torch-fidelity torchmetrics`.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import header, networks, weight_file
from PIL import Image

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics import wer
from jwb_dh_v1.metrics.fidelity import fid as fid_file
from jwb_dh_v1.metrics.fidelity import pixel
from jwb_dh_v1.networks.checkpoint import load_torch
from jwb_dh_v1.networks.inception import inception_fid
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve

Timed = tuple[float, float]  # value, seconds
# FID: sums in other orders and folded norms; a matrix root of rank n - 1 adds up to 1e-4. torchmetrics sums PSNR's
# error over all frames before the logarithm, so frames are given to it one by one; its SSIM is in float64 here, without
# its mirrored border.
TOLERANCE = {"fid": 1e-3, "ssim": 1e-6, "psnr": 1e-6, "wer": 1e-12}


def there(package: str) -> bool:
    """Whether a peer is installed; says so if not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{package} is not installed: left out", flush=True)
    return found


def clock(work: Callable[[], float]) -> Timed:
    """Value and wall seconds of one call, what it prints thrown away."""
    begun = time.perf_counter()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        value = float(work())
    return value, time.perf_counter() - begun


def row(what: str, peer: str, theirs: Timed, ours: Timed, tolerance: float) -> None:
    """One line: seconds of both, ratio, values, agreement."""
    gap = abs(ours[0] - theirs[0])
    fits = "" if gap <= tolerance * max(1.0, abs(theirs[0])) else " OTHER"
    print(f"| {what} | {peer} | {theirs[1]:.3f} | {ours[1]:.3f} | {theirs[1] / ours[1]:.2f} | {theirs[0]:.6f} | "
          f"{ours[0]:.6f} | {gap:.1e}{fits} |", flush=True)  # fmt: skip


class Frames:
    """The same frames as PNG folders and as lossless videos; two sides, a real woman and her blurred self."""

    def __init__(self, count: int, folder: Path) -> None:
        import cv2

        real = Clip(resolve("pexels-woman")).frames[:count]
        made = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in real])
        self.arrays, self.folders, self.videos = (made, real), [], []
        for name, frames in zip(("made", "real"), self.arrays, strict=True):
            room = folder / name
            room.mkdir()
            for number, frame in enumerate(frames):
                Image.fromarray(frame).save(room / f"{number:04d}.png")
            self.folders.append(str(room))
            self.videos.append(folder / f"{name}.mp4")
            write_mp4(self.videos[-1], frames, 24, lossless=True)

    def sample(self, models: NetworkPool | None = None) -> Sample:
        """Both videos, nothing decoded."""
        return Sample("a", *(Clip(video, models=models) for video in self.videos))


def fid(frames: Frames, folder: Path) -> None:
    """FID from files to the number, the network loaded beforehand where the peer lets us."""
    file = weight_file("inception-2015", folder)

    def ours(metric: Callable[[Sample], fid_file.Frechet]) -> Timed:
        models = networks({"inception-2015": file})
        return clock(lambda: metric(frames.sample(models)).value())

    ours(fid_file.fid)  # a warm-up for both: it is torch's own
    if there("pytorch_fid"):
        from pytorch_fid import fid_score
        from pytorch_fid.inception import InceptionV3

        with patch("pytorch_fid.inception.load_state_dict_from_url", lambda *_, **__: load_torch(file)):
            ready = InceptionV3([3])
        theirs = clock(lambda: _pytorch_fid(fid_score, ready, frames.folders))
        row("FID", "pytorch-fid", theirs, ours(fid_file.fid), TOLERANCE["fid"])
    if there("cleanfid"):
        from cleanfid import fid as clean

        net = inception_fid(load_torch(file))
        look = lambda x: net((x - 128) / 128)  # noqa: E731 - its own network is a TorchScript file of the same layers
        theirs = clock(
            lambda: clean.compute_fid(*frames.folders, mode="clean", num_workers=0, device=torch.device("cpu"),
                                      custom_feat_extractor=look, use_dataparallel=False, verbose=False)
        )  # fmt: skip
        row("FID (clean)", "clean-fid", theirs, ours(fid_file.fid_clean), TOLERANCE["fid"])
    tensorflow = ours(fid_file.fid_tensorflow)
    if there("torch_fidelity"):
        import torch_fidelity

        theirs = clock(
            lambda: torch_fidelity.calculate_metrics(
                input1=frames.folders[0], input2=frames.folders[1], fid=True, cuda=False, cache=False, batch_size=32,
                feature_extractor_weights_path=str(file), verbose=False, save_cpu_ram=True,
            )["frechet_inception_distance"]
        )  # fmt: skip
        row("FID (TensorFlow's resize; its loading included)", "torch-fidelity", theirs, tensorflow, TOLERANCE["fid"])
    if there("torchmetrics") and there("torch_fidelity"):
        from torchmetrics.image.fid import FrechetInceptionDistance

        peer = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(file), antialias=False)
        row("FID (TensorFlow's resize)", "torchmetrics", clock(lambda: _torchmetrics(peer, frames)), tensorflow,
            TOLERANCE["fid"])  # fmt: skip


def _pytorch_fid(fid_score, net, folders) -> float:  # type: ignore[no-untyped-def]
    sides = [fid_score.compute_statistics_of_path(folder, net, 50, 2048, "cpu", 0) for folder in folders]
    return float(fid_score.calculate_frechet_distance(*sides[0], *sides[1]))


def _torchmetrics(peer, frames: Frames) -> float:  # type: ignore[no-untyped-def]
    for folder, real in zip(frames.folders, (False, True), strict=True):
        paths = sorted(Path(folder).iterdir())
        for at in range(0, len(paths), 32):
            batch = np.stack([np.asarray(Image.open(path)) for path in paths[at : at + 32]])
            peer.update(torch.from_numpy(batch).permute(0, 3, 1, 2), real=real)
    return float(peer.compute())


def pixels(frames: Frames) -> None:
    """SSIM and PSNR of arrays that both sides have already."""
    if not there("torchmetrics"):
        return
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    made, real = (torch.from_numpy(side).permute(0, 3, 1, 2).double() for side in frames.arrays)

    def sample() -> Sample:
        return Sample("a", *(Clip(side) for side in frames.arrays))

    def mean(measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        return float(np.mean([float(measure(a[None], b[None])) for a, b in zip(made, real, strict=True)]))

    for name, metric, measure in (
        ("ssim", pixel.SSIM.score, _without_border(structural_similarity_index_measure)),
        ("psnr", pixel.PSNR.score, lambda a, b: peak_signal_noise_ratio(a, b, data_range=255.0)),
    ):
        with torch.inference_mode():
            theirs = clock(lambda measure=measure: mean(measure))  # type: ignore[misc]
        own = clock(lambda metric=metric: metric(sample()).value())  # type: ignore[misc]
        row(name.upper(), "torchmetrics (float64)", theirs, own, TOLERANCE[name])


def _without_border(measure: Callable[..., Any]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """torchmetrics also averages over windows that reach beyond the border, where it mirrors the picture."""

    def mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        _, picture = measure(a, b, data_range=255.0, return_full_image=True)
        inside: torch.Tensor = picture[..., 5:-5, 5:-5]
        return inside.mean()

    return mean


def words(count: int) -> None:
    """WER over sentences without capitals and punctuation, summed over all words."""
    random = np.random.default_rng(0)
    lexicon = np.array([f"word{number}" for number in range(500)])
    said = [lexicon[random.integers(0, 500, random.integers(5, 40))] for _ in range(count)]
    heard = [
        np.where(random.random(len(s)) < 0.1, random.choice(lexicon, len(s)), s)[random.random(len(s)) > 0.05]
        for s in said
    ]
    texts = [[" ".join(s) for s in side] for side in (said, heard)]

    def ours() -> float:
        found = [wer.errors(a, b, "none") for a, b in zip(*texts, strict=True)]
        return sum(e.counts.errors for e in found) / sum(e.counts.units for e in found)

    own = clock(ours)
    if there("torchmetrics"):
        from torchmetrics.functional.text import word_error_rate

        row("WER", "torchmetrics", clock(lambda: float(word_error_rate(texts[1], texts[0]))), own, 1e-6)
    if there("jiwer"):
        import jiwer

        row("WER", "jiwer", clock(lambda: jiwer.wer(*texts)), own, TOLERANCE["wer"])


def main() -> None:
    """Print a line per peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48, help="a side, 640 x 360")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--only", nargs="+", default=["fid", "ssim", "wer"], choices=["fid", "ssim", "wer"])
    args = parser.parse_args()
    print(header("pytorch-fid", "clean-fid", "torch-fidelity", "torchmetrics", "jiwer"))
    print(f"{args.frames} frames of 640 x 360 a side, {args.sentences} sentences, {torch.get_num_threads()} threads\n")
    print("| what | peer | peer, s | this package, s | times faster | peer's value | ours | difference |\n"
          "|---|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        frames = Frames(args.frames, Path(scratch))
        if "fid" in args.only:
            fid(frames, Path(scratch))
        if "ssim" in args.only:
            pixels(frames)
    if "wer" in args.only:
        words(args.sentences)
    print("\nTolerances: " + ", ".join(f"{name} {value:g}" for name, value in TOLERANCE.items())
          + "; relative where the value is above 1. WER of torchmetrics is float32 (1e-6).")  # fmt: skip


if __name__ == "__main__":
    main()
