"""SSIM and PSNR: are pixels those of the real frame?

`ssim` and `psnr` follow the field (Wang et al. 2004; ITU-T J.340), the `paper_` twins follow the benchmark's
FID_calculate.py (deepreasonings/WholeBodyBenchmark b70702d): at most 16 frames, the generated frame stretched to the
reference's size, scikit-image's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np

from jwb_dh_v1.errors import NotApplicable, TooSmall
from jwb_dh_v1.metrics.metric import INF, REFERENCE, Metric, exact_mean
from jwb_dh_v1.metrics.sample import Sample

PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
PSNR_OF_EQUAL = 100.0  # dB; common_metrics_on_video_quality's rule for a mean squared error below 1e-10
PAPER_FRAMES = 16


def ssim_index(a: np.ndarray, b: np.ndarray, window: str = "gaussian") -> float:
    """Structural similarity of two pictures, uint8 [H, W, C], mean over pixels and channels, in [-1, 1].

    Args:
        a, b: pictures of one size.
        window: `gaussian`: 11 x 11, sigma 1.5, population covariance (Wang et al. 2004; scikit-image with
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False). `uniform`: 7 x 7 (smaller, odd, for
            pictures under 7 px), sample covariance (scikit-image's defaults).

    Raises:
        TooSmall: a side is shorter than the window (11; 3 for `uniform`).

    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    short = min(a.shape[:2])
    if window == "gaussian":
        size, unbias = 11, 1.0
        smooth: Callable[[np.ndarray], np.ndarray] = lambda z: cv2.GaussianBlur(z, (11, 11), 1.5)  # noqa: E731
    else:
        size = max(3, min(7, short - (short + 1) % 2))
        unbias = size * size / (size * size - 1)
        smooth = lambda z: cv2.blur(z, (size, size))  # noqa: E731
    if short < size:
        raise TooSmall(f"SSIM needs frames of at least {size}x{size}, these are {a.shape[1]}x{a.shape[0]}.")
    ux, uy = smooth(x), smooth(y)
    vx, vy = unbias * (smooth(x * x) - ux * ux), unbias * (smooth(y * y) - uy * uy)
    vxy = unbias * (smooth(x * y) - ux * uy)
    index = (2 * ux * uy + C1) * (2 * vxy + C2) / ((ux * ux + uy * uy + C1) * (vx + vy + C2))
    edge = size // 2  # windows that reach over the border are left out
    return float(index[edge : a.shape[0] - edge, edge : a.shape[1] - edge].mean())


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB: 10 log10(255^2 / MSE); inf for equal ones."""
    error = float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def _curve(sample: Sample, key: str, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """One number per pair of frames, float64 [n]; computed once per sample."""

    def make() -> np.ndarray:
        return np.array([measure(a, b) for ours, theirs in sample.pairs() for a, b in zip(ours, theirs, strict=True)])

    other = sample.reference.content_key if sample.reference is not None else ""
    return sample.generated.memo((key, other), make)


def ssim_curve(sample: Sample) -> np.ndarray:
    """SSIM of each frame (Wang et al. 2004); the value of a clip part is the mean over its frames."""
    return _curve(sample, "ssim", ssim_index)


def psnr_curve(sample: Sample) -> np.ndarray:
    """PSNR of each frame in dB, 100 for equal frames; the value of a clip part is the mean over its frames."""
    capped: np.ndarray = np.minimum(_curve(sample, "psnr", psnr_db), PSNR_OF_EQUAL)
    return capped


def paper_pairs(sample: Sample) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The authors' frame pairs: the first min(T, T', 16) of each clip, ours stretched to the reference's size."""
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    count = min(len(sample.generated), len(sample.reference), PAPER_FRAMES)
    ours = next(sample.generated.chunks(PAPER_FRAMES, 0, count))
    theirs = next(sample.reference.chunks(PAPER_FRAMES, 0, count))
    for a, b in zip(ours, theirs, strict=True):
        yield (a if a.shape == b.shape else cv2.resize(a, (b.shape[1], b.shape[0]))), b


def paper_curve(sample: Sample, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """One number per pair of the authors' frames, float64 [n <= 16]."""
    return np.array([measure(a, b) for a, b in paper_pairs(sample)])


def paper_ssim_curve(sample: Sample) -> np.ndarray:
    """The authors' SSIM of each of at most 16 frames: scikit-image's defaults."""
    return paper_curve(sample, lambda a, b: ssim_index(a, b, "uniform"))


def paper_psnr_curve(sample: Sample) -> np.ndarray:
    """The authors' PSNR of each of at most 16 frames, in dB; one pair of equal frames makes the mean infinite."""
    return paper_curve(sample, psnr_db)


SSIM = Metric(
    "ssim",
    curve=ssim_curve,
    average=exact_mean,
    higher_is_better=True,
    range=(-1, 1),
    needs=REFERENCE,
    same_boxes=True,
)
PSNR = replace(SSIM, name="psnr", curve=psnr_curve, range=(0, 100), unit="dB")
PAPER_SSIM = Metric("ssim", curve=paper_ssim_curve, higher_is_better=True, range=(-1, 1), needs=REFERENCE)
PAPER_PSNR = replace(PAPER_SSIM, name="psnr", curve=paper_psnr_curve, range=(0, INF), unit="dB")
METRICS = {"standard": (SSIM, PSNR), "paper": (PAPER_SSIM, PAPER_PSNR), "lite": (SSIM, PSNR)}
