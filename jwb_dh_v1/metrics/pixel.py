"""SSIM, PSNR and the benchmark's pixel "CSIM": full-reference metrics on raw pixels.

`ssim` and `psnr` follow the field (Wang et al. 2004; ITU-T J.340), the `paper_` twins follow the benchmark's
FID_calculate.py (deepreasonings/WholeBodyBenchmark b70702d): at most 16 frames, the generated frame stretched to the
reference's size, scikit-image's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from jwb_dh_v1.errors import NotApplicable, TooSmall
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean

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


def pixel_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two pictures as vectors of raw pixel values, in [0, 1]; 0 if one is black all over.

    Not an identity measure: any two evenly grey pictures give 1.
    """
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else 0.0


def _curve(sample: Sample, key: str, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    """One number per pair of frames, float64 [n]; computed once per sample."""

    def make() -> np.ndarray:
        return np.array([measure(a, b) for ours, theirs in sample.pairs() for a, b in zip(ours, theirs, strict=True)])

    other = sample.reference.content_key if sample.reference is not None else ""
    return sample.generated.memo((key, other), make)


def ssim_curve(sample: Sample) -> np.ndarray:
    """SSIM of each frame."""
    return _curve(sample, "ssim", ssim_index)


def ssim(sample: Sample) -> Mean:
    """Mean SSIM over the frames of one clip part."""
    return Mean.of(math.fsum(curve := ssim_curve(sample)) / len(curve))


def psnr_curve(sample: Sample) -> np.ndarray:
    """PSNR of each frame in dB, 100 for equal frames."""
    capped: np.ndarray = np.minimum(_curve(sample, "psnr", psnr_db), PSNR_OF_EQUAL)
    return capped


def psnr(sample: Sample) -> Mean:
    """Mean PSNR over the frames of one clip part, in dB."""
    return Mean.of(math.fsum(curve := psnr_curve(sample)) / len(curve))


def paper_pairs(sample: Sample) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The authors' frame pairs: the first min(T, T', 16) of each clip, ours stretched to the reference's size."""
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    count = min(len(sample.generated), len(sample.reference), PAPER_FRAMES)
    ours = next(sample.generated.chunks(PAPER_FRAMES, 0, count))
    theirs = next(sample.reference.chunks(PAPER_FRAMES, 0, count))
    for a, b in zip(ours, theirs, strict=True):
        yield (a if a.shape == b.shape else cv2.resize(a, (b.shape[1], b.shape[0]))), b


def _paper_curve(sample: Sample, measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    return np.array([measure(a, b) for a, b in paper_pairs(sample)])


def paper_ssim_curve(sample: Sample) -> np.ndarray:
    """The authors' SSIM of each of at most 16 frames."""
    return _paper_curve(sample, lambda a, b: ssim_index(a, b, "uniform"))


def paper_ssim(sample: Sample) -> Mean:
    """The authors' SSIM: scikit-image's defaults, mean over at most 16 frames."""
    return Mean.of(float(np.mean(paper_ssim_curve(sample))))


def paper_psnr_curve(sample: Sample) -> np.ndarray:
    """The authors' PSNR of each of at most 16 frames, in dB."""
    return _paper_curve(sample, psnr_db)


def paper_psnr(sample: Sample) -> Mean:
    """The authors' PSNR: mean over at most 16 frames; one pair of equal frames makes it infinite."""
    return Mean.of(float(np.mean(paper_psnr_curve(sample))))


def paper_csim_curve(sample: Sample) -> np.ndarray:
    """The authors' CSIM of each of at most 16 frames."""
    return _paper_curve(sample, pixel_cosine)


def paper_csim(sample: Sample) -> Mean:
    """The authors' CSIM: cosine of raw pixels, mean over at most 16 frames."""
    return Mean.of(float(np.mean(paper_csim_curve(sample))))
