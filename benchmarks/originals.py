"""A model of the originals' processing: who decodes what how often, in which batches, with which statistics.

Not their code: the networks are ours with the same weights (without what `NetworkPool` does to make them faster),
driven as the originals drive theirs. VBench (Vchitect/VBench 45e79ec) goes through the clips once for each of six
dimensions; the authors' FID_calculate.py (deepreasonings/WholeBodyBenchmark b70702d) opens both videos anew for each
group of metrics; standard/1's other metrics are pytorch-fid's, clean-fid's, common_metrics_on_video_quality's,
insightface's and scikit-image's way, each with a decode of its own. What is left out, all in the originals' favour:
their detectors, the authors' JPEG of every frame, frames written as images for FID, and loading the networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import scipy.linalg
import torch
from common import FixedFace
from originals_vbench import Vbench, colour
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional
from torchvision import transforms

from jwb_dh_v1.metrics.fidelity.e_fid import SMALLEST
from jwb_dh_v1.networks import arcface, deep3d, i3d, inception
from jwb_dh_v1.networks.checkpoint import load_torch
from jwb_dh_v1.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD

FIRST = 16  # frames that the authors look at
Pair = tuple[Path, Path]  # generated, reference


class Originals(Vbench):
    """All of the originals' metrics on files: VBench's six, the authors' six, and those of standard/1."""

    # The authors' six, one pair of clips per call

    def paper_fid_and_efid(self, pair: Pair) -> tuple[float, float]:
        """Inception on frames and on their edges in batches of 4; scipy's root of a 2048 x 2048 product for each."""
        clips = [self.by_opencv(path, FIRST)[0] for path in pair]
        return self._paper_frechet(clips, colour), self._paper_frechet(clips, _edges)

    def _paper_frechet(self, clips: list[list[np.ndarray]], picture: Callable[[np.ndarray], np.ndarray]) -> float:
        net = self.net(lambda path: inception.inception_v3(load_torch(path)), "inception-v3")
        steps = [
            transforms.Resize((299, 299)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
        sides = []
        for frames in clips:
            with self.stages("resize"):
                pictures = torch.stack([transforms.Compose(steps)(Image.fromarray(picture(f))) for f in frames])
            found = []
            for batch in pictures.split(4):
                with torch.no_grad(), self.stages("Inception v3"):
                    found.append(net(batch).numpy())
            sides.append(np.concatenate(found))
        return self.frechet(*sides)

    def paper_fvd(self, pair: Pair) -> tuple[float]:
        """I3D on [0, 1]; the covariance of a single clip is 1e-6 I."""
        net = self.net(i3d.load_i3d, "i3d")
        found = []
        for path in pair:
            frames = self.by_opencv(path, FIRST)[0]
            with self.stages("resize"):
                clip = np.zeros((FIRST, 224, 224, 3), np.float32)
                for t, frame in enumerate(frames):
                    clip[t] = cv2.resize(colour(frame), (224, 224), interpolation=cv2.INTER_AREA) / np.float32(255)
            with torch.no_grad(), self.stages("I3D"):
                found.append(net(torch.from_numpy(clip).permute(3, 0, 1, 2)[None])[0].numpy())
        spread = 1e-6 * np.eye(400)
        with self.stages("sqrtm"):
            root = scipy.linalg.sqrtm((spread + spread) @ (spread + spread)).real
        gap = found[0] - found[1]
        return (float(gap @ gap + np.trace(spread + spread - 2 * root)),)

    def paper_pixels(self, pair: Pair) -> tuple[float, float, float]:
        """SSIM, PSNR and the cosine of raw pixels by scikit-image and NumPy."""
        ours, theirs = (self.by_opencv(path, FIRST)[0] for path in pair)
        found = []
        with self.stages("pixel metrics"):
            for a, b in zip(ours, theirs, strict=False):
                a = a if a.shape == b.shape else cv2.resize(a, (b.shape[1], b.shape[0]))
                x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
                ssim = structural_similarity(b, a, channel_axis=-1, data_range=255, win_size=7)
                psnr = peak_signal_noise_ratio(b, a, data_range=255)
                found.append((ssim, psnr, x @ y / (np.linalg.norm(x) * np.linalg.norm(y))))
        ssim, psnr, cosine = np.mean(found, axis=0)
        return float(ssim), float(psnr), float(cosine)

    # The field's, as standard/1 names them: features of one clip, decoded for this metric alone

    def fid(self, path: Path, clean: bool = False) -> np.ndarray:
        """pytorch-fid's features (batches of 50, resized in the network), or clean-fid's (Pillow, batches of 32)."""
        net = self.net(lambda file: inception.inception_fid(load_torch(file)), "inception-2015")
        found = []
        frames = self.by_decord(path)
        for at in range(0, len(frames), 32 if clean else 50):
            with self.stages("resize"):
                x = _clean(frames[at : at + 32]) if clean else _as_pytorch_fid(frames[at : at + 50])
            with torch.no_grad(), self.stages("Inception 2015"):
                found.append(net(x).numpy())
        return np.concatenate(found)

    def fvd(self, path: Path) -> np.ndarray:
        """I3D logits of the first 16 frames, shorter side to 224 and the centre square."""
        net = self.net(i3d.load_i3d, "i3d")
        frames = self.by_decord(path)[:FIRST]
        with self.stages("resize"):
            x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
            height, width = x.shape[2:]
            scale = 224 / min(height, width)
            size = (224, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), 224)
            x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
            top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
            x = (x[:, :, top : top + 224, left : left + 224] - 0.5) * 2
        with torch.no_grad(), self.stages("I3D"):
            found: np.ndarray = net(x.permute(1, 0, 2, 3)[None]).numpy()
        return found

    def e_fid(self, path: Path) -> np.ndarray:
        """Deep3D's expression coefficients, face by face."""
        net, found = self.net(deep3d.load, "deep3d"), []
        for frame in self.by_decord(path):
            points = FixedFace().faces(frame)[1][0]
            if deep3d.pose(points, len(frame))[0] < SMALLEST:
                continue
            with self.stages("resize"):
                picture = deep3d.picture(np.array(deep3d.align(frame, points))[None])
            with torch.no_grad(), self.stages("Deep3D"):
                found.append(net(picture).numpy()[0, 80:144])
        return np.array(found).reshape(-1, 64)

    def csim(self, pair: Pair) -> float:
        """ArcFace, face by face."""
        net, sides = self.net(partial(arcface.load, device="cpu"), "arcface"), []
        for path in pair:
            found = []
            for frame in self.by_decord(path):
                with self.stages("resize"):
                    face = arcface.align(frame, FixedFace().faces(frame)[1][0])
                with torch.no_grad(), self.stages("ArcFace"):
                    found.append(np.asarray(net(face[None]))[0].astype(np.float64))
            sides.append(found)
        cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(*sides, strict=True)]
        return float(np.mean(cosines))

    def ssim(self, pair: Pair) -> float:
        """scikit-image with Wang's window."""
        measure = partial(structural_similarity, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5,
                          use_sample_covariance=False)  # fmt: skip
        return self._pixels(pair, measure)

    def psnr(self, pair: Pair) -> float:
        """scikit-image; 100 dB for equal frames."""
        return self._pixels(pair, lambda a, b: min(100.0, peak_signal_noise_ratio(b, a, data_range=255)))

    def _pixels(self, pair: Pair, measure: Callable[[np.ndarray, np.ndarray], float]) -> float:
        ours, theirs = (self.by_decord(path) for path in pair)
        with self.stages("pixel metrics"):
            return float(np.mean([measure(a, b) for a, b in zip(ours, theirs, strict=True)]))

    def frechet(self, a: np.ndarray, b: np.ndarray) -> float:
        """FID's formula with scipy's matrix root, as the authors and pytorch-fid write it."""
        with self.stages("statistics"):
            means = [x.astype(np.float64).mean(axis=0) for x in (a, b)]
            spreads = [np.cov(x.astype(np.float64), rowvar=False) for x in (a, b)]
        with self.stages("sqrtm"):
            root = scipy.linalg.sqrtm(spreads[0] @ spreads[1])
            if not np.isfinite(root).all():
                extra = 1e-6 * np.eye(len(root))
                root = scipy.linalg.sqrtm((spreads[0] + extra) @ (spreads[1] + extra))
        gap = means[0] - means[1]
        return float(gap @ gap + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * np.trace(root.real))


def _edges(frame: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.Canny(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 100, 200)[..., None], 3, axis=2)


def _as_pytorch_fid(frames: np.ndarray) -> torch.Tensor:
    x = torch.stack([transforms.ToTensor()(frame) for frame in frames])
    return 2 * functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1


def _clean(frames: np.ndarray) -> torch.Tensor:
    def shrink(channel: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(channel.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC))

    small = [np.stack([shrink(frame[..., c]) for c in range(3)]).clip(0, 255) for frame in frames]
    return torch.from_numpy((np.stack(small) - 128) / 128)
