"""SSIM, PSNR and pixel CSIM against closed forms, published vectors and scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import LengthMismatch, NotApplicable, SizeMismatch, TooSmall
from jwb_dh_v1.metrics.fidelity import csim, pixel

# All numbers are float64 sums over a few thousand pixels: two right orders of summation differ by some 1e-13.
TIGHT = 1e-9


def grey(value, height=32, width=32):
    return np.full((height, width, 3), value, np.uint8)


RAMP = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (32, 32, 3)).copy()
BRIGHTER = np.clip(RAMP.astype(int) + 10, 0, 255).astype(np.uint8)
_RNG = np.random.default_rng(1)
NOISE = [_RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(2)]  # the dtype changes the stream


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (grey(0), grey(255), 6.5025 / (255**2 + 6.5025)),  # C1 / (255^2 + C1)
        (RAMP, RAMP, 1.0),
        (RAMP, BRIGHTER, 0.9915559879582828),  # specs/metrics.md section 6
        (*NOISE, -0.0014858624034178),
    ],
)
def test_paper_ssim_vectors(a, b, expected):
    assert pixel.ssim_index(a, b, "uniform") == pytest.approx(expected, abs=TIGHT)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (grey(0), grey(255), 0.0),
        (grey(7), grey(8), 48.1308036087),
        (RAMP, BRIGHTER, 28.2005767855),
        (*NOISE, 7.7468729933),
        (RAMP, RAMP, math.inf),
    ],
)
def test_psnr_vectors(a, b, expected):
    assert pixel.psnr_db(a, b) == pytest.approx(expected, abs=1e-9)  # the vectors are given to ten digits


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (grey(10), grey(200), 1.0),
        (RAMP, BRIGHTER, 0.9994147674526),
        (*NOISE, 0.7519181426772),
        (grey(0), RAMP, 0.0),
    ],
)
def test_pixel_cosine_vectors(a, b, expected):
    assert csim.pixel_cosine(a, b) == pytest.approx(expected, abs=TIGHT)


@pytest.mark.parametrize("size", [(11, 11), (40, 50), (33, 91), (128, 64)])
def test_both_ssims_equal_scikit_image(size):
    rng = np.random.default_rng(size[0])
    a = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    plain = structural_similarity(a, b, channel_axis=-1, data_range=255)
    wang = structural_similarity(
        a, b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert pixel.ssim_index(a, b, "uniform") == pytest.approx(plain, abs=TIGHT)
    assert pixel.ssim_index(a, b) == pytest.approx(wang, abs=TIGHT)
    assert pixel.psnr_db(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=TIGHT)


@pytest.mark.parametrize(("short", "window"), [(7, 7), (6, 5), (5, 5), (4, 3), (3, 3)])
def test_paper_window_shrinks_as_the_authors_do(short, window):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, short, 20, 3)).astype(np.uint8)
    expected = structural_similarity(a, b, channel_axis=-1, data_range=255, win_size=window)
    assert pixel.ssim_index(a, b, "uniform") == pytest.approx(expected, abs=TIGHT)


def test_windows_do_not_fit_into_tiny_pictures():
    for size, window in ((10, "gaussian"), (2, "uniform")):
        with pytest.raises(TooSmall):
            pixel.ssim_index(grey(0, size, size), grey(0, size, size), window)


def clip(frames, fps=25.0):
    return Clip(np.stack(frames), fps=fps)


def test_paper_uses_sixteen_frames_and_stretches_ours():
    theirs = clip([RAMP] * 20)
    ours = clip([BRIGHTER] * 16 + [grey(0)] * 4)
    assert csim.METRICS["paper"][0].score(Sample("a", ours, theirs)).value() == pytest.approx(
        0.9994147674526, abs=TIGHT
    )
    double = clip([np.repeat(np.repeat(grey(90), 2, 0), 2, 1)] * 3)
    assert pixel.PAPER_PSNR.score(Sample("a", double, clip([grey(91)] * 5))).value() == pytest.approx(
        48.1308036087, abs=1e-9
    )


def test_field_metrics_use_all_frames():
    ours = clip([RAMP] * 16 + [BRIGHTER] * 16)
    sample = Sample("a", ours, clip([RAMP] * 32))
    assert pixel.PSNR.score(sample).value() == pytest.approx((100 + 28.2005767855) / 2, abs=1e-9)
    assert len(pixel.ssim_curve(sample)) == 32


def test_what_cannot_be_compared_is_said():
    with pytest.raises(SizeMismatch, match="32x32, reference 50x40"):
        pixel.SSIM.score(Sample("a", clip([RAMP] * 4), clip([NOISE[0]] * 4)))
    with pytest.raises(LengthMismatch, match="4 frames"):
        pixel.SSIM.score(Sample("a", clip([RAMP] * 4), clip([RAMP] * 9)))
    with pytest.raises(LengthMismatch, match=r"30\.000 fps"):
        pixel.SSIM.score(Sample("a", clip([RAMP] * 4, 30.0), clip([RAMP] * 4)))
    with pytest.raises(NotApplicable, match="no reference"):
        pixel.SSIM.score(Sample("a", clip([RAMP])))


def test_two_frames_more_or_less_are_allowed():
    assert pixel.SSIM.score(Sample("a", clip([RAMP] * 6), clip([RAMP] * 4))).value() == 1.0
