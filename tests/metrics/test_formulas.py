"""Consistency, dynamic degree, similarity and word errors against closed forms and the tables of the definitions."""

import numpy as np
import pytest
from media import moving

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import NotApplicable, TooShort
from jwb_dh_v1.metrics.fidelity import csim as identity
from jwb_dh_v1.metrics.fidelity import fid as fid_file
from jwb_dh_v1.metrics.fidelity import fvd as fvd_file
from jwb_dh_v1.metrics.quality import consistency
from jwb_dh_v1.metrics.quality import dynamic_degree as motion
from jwb_dh_v1.metrics.speech import word_error_rate as speech
from jwb_dh_v1.networks import mobilenet
from jwb_dh_v1.networks.checkpoint import load_torch
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve_all


def test_consistency_formula():
    vectors = np.array([(1.0, 0), (0, 1), (1, 0), (-1, 0)])
    assert consistency.pair_scores(vectors).tolist() == [0, 0.5, 0]  # specs/metrics.md section 6
    assert consistency.pair_scores(np.ones((5, 3))) == pytest.approx(np.ones(4), abs=1e-15)  # one rounding
    assert consistency.pair_scores(np.array([(1.0, 0), (-1, 0)])).tolist() == [0]  # antipodal: clamped
    with pytest.raises(TooShort):
        consistency.pair_scores(np.ones((1, 3)))


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(8, 1), (10, 1), (12, 2), (15, 2), (16, 2), (20, 2), (23.976, 3), (24, 3), (25, 3), (29.97, 4), (30, 4), (50, 6),
     (60, 8), (0, 1), (3, 1)],
)  # fmt: skip
def test_sampling_interval(fps, expected):
    assert motion.interval(fps) == expected  # VBench's table, specs/metrics.md section 1.4


def test_top_five_percent():
    flow = np.zeros((64, 64, 2), np.float32)
    flow[:3, :, 0] = 10
    assert motion.top_motion(flow) == pytest.approx(192 * 10 / 204, abs=1e-6)  # k = 204: 192 tens and 12 zeros
    flow[3, :, 1] = -10
    assert motion.top_motion(flow) == 10


def test_threshold_is_strict_and_needs_enough_pairs():
    assert not motion.is_dynamic(np.full(15, 6.0), 256)
    assert motion.is_dynamic(np.full(15, 6.0001), 256)
    assert not motion.is_dynamic(np.full(15, 16.8), 720)
    assert motion.is_dynamic(np.full(15, 16.9), 720)
    for n, need in [(3, 1), (5, 1), (6, 2), (10, 2), (14, 4), (16, 4), (24, 6), (40, 10), (41, 10)]:
        moving = np.zeros(n - 1)
        moving[:need] = 99
        assert motion.is_dynamic(moving, 256)
        moving[need - 1] = 0
        assert not motion.is_dynamic(moving, 256)


def moving_texture(pixels_per_frame, frames=24, side=256):
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 256, (side // 8, side, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return Clip(np.stack([wide[:, t * pixels_per_frame :][:, :side] for t in range(frames)]), fps=8.0)


def test_dynamic_degree_sees_known_shifts():
    # 8 fps: every frame is looked at; the threshold at side 256 is 6 px, DIS is good to a fraction of a pixel.
    assert motion.lite_dynamic(Sample("a", moving_texture(12))).value() == 1.0
    assert motion.lite_dynamic(Sample("a", moving_texture(2))).value() == 0.0
    curve = motion.dis_curve(Sample("a", moving_texture(12)))
    assert np.median(curve) == pytest.approx(12, abs=1.5)  # top 5 % of a DIS field overshoots a little at edges
    with pytest.raises(TooShort):
        motion.lite_dynamic(Sample("a", moving_texture(1, frames=1)))


def test_sampling_does_not_depend_on_chunks():
    clip = moving_texture(3, frames=67)
    clip._fps = 24.0  # every third frame: 23 of them, across the borders of 32-frame chunks
    assert len(motion.dis_curve(Sample("a", clip))) == 22


def test_rescaled_cosine():
    zero, one = np.zeros((1, 128)), np.zeros((1, 128))
    one[0, 0] = 0.6
    assert identity.rescaled_cosine(zero, zero)[0] == 1
    assert identity.rescaled_cosine(zero, one)[0] == pytest.approx(0.5, abs=1e-12)  # dlib's threshold


def test_word_errors():
    found = speech.word_errors("Mr. Smith's colour is twenty-two", "mister smith's color was 22 now")
    # normalised: "mister smith is color is 22" against "mister smith is color was 22 now"
    assert (found["substitutions"], found["deletions"], found["insertions"], found["words"]) == (1, 0, 1, 6)
    assert found["wer"] == pytest.approx(2 / 6)
    assert speech.word_errors("one two", "")["wer"] == 1
    with pytest.raises(NotApplicable):
        speech.word_errors("...", "hello")


@pytest.mark.teaser
def test_mobilenet_features_equal_torchvisions_own():
    import torch
    from torchvision.models import mobilenet_v2

    paths = resolve_all(["mobilenet-v2"])
    frames = np.random.default_rng(0).integers(0, 256, (9, 224, 224, 3), dtype=np.uint8)
    net = mobilenet_v2(weights=None).eval()
    net.load_state_dict(load_torch(paths["mobilenet-v2"]))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        pictures = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = net.features(pictures).mean(dim=(2, 3)).numpy()
    found = mobilenet.features(Clip(frames, models=NetworkPool(paths, "cpu")))
    assert found.shape == (9, 1280)
    # Folded norms round differently in float32; features reach about 6 and pass 53 layers. Seen: 2e-5.
    assert np.abs(found - expected).max() < 2e-4


@pytest.mark.teaser
def test_lite_fvd_sees_the_order_of_frames_and_fid_does_not():
    models = NetworkPool(resolve_all(["mobilenet-v2"]), "cpu")
    real = [moving(16, 160, 128, seed=n) for n in range(3)]

    def distances(change):
        clips = [(Clip(change(frames), models=models), Clip(frames, models=models)) for frames in real]
        samples = [Sample(str(n), *pair) for n, pair in enumerate(clips)]
        return [sum((f(s) for s in samples[1:]), f(samples[0])).value() for f in (fid_file.lite_fid, fvd_file.lite_fvd)]

    shuffle = np.random.default_rng(0).permutation(16)
    same, backwards, shuffled = (distances(f) for f in (lambda c: c, lambda c: c[::-1], lambda c: c[shuffle]))
    # Equal sets leave what float64 leaves of features of norm 40: 1e-14; the order of a set's rows changes no more.
    assert max(*same, *backwards, shuffled[0]) < 1e-10
    assert shuffled[1] > 0.05  # seen 0.25: steps between frames are larger, their mean is the same
    sample = Sample("a", Clip(real[0], models=models), Clip(real[0], models=models))
    found, vector = mobilenet.features(sample.generated), fvd_file.clip_vector(sample.generated)
    assert vector.shape == (1, 2560)
    assert vector[0, :1280] == pytest.approx(found.mean(axis=0), abs=1e-6)  # float32 means
    with pytest.raises(TooShort):
        fvd_file.lite_fvd(Sample("a", Clip(real[0][:9], models=models), Clip(real[0], models=models)))
