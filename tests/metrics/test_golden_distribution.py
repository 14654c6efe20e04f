"""FID and FVD against their official implementations: `golden/{fid,fvd,jwb_paired}.json`.

The networks carry seeded weights (`golden/seeded_weights.py`): the numbers say nothing about quality, all about whether
network, pictures and formula are the official ones. `golden/clips.py` makes the clips without any codec.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from goldens import clips, golden, seeded_state, some
from PIL import Image
from torch.nn import functional

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import NotApplicable, TooShort
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet
from jwb_dh_v1.metrics.fidelity import e_fid, set_distance
from jwb_dh_v1.metrics.fidelity import fid as fid_file
from jwb_dh_v1.metrics.fidelity import fvd as fvd_file
from jwb_dh_v1.metrics.state import add
from jwb_dh_v1.networks.i3d import NETWORK as I3D
from jwb_dh_v1.networks.i3d import TorchScriptI3d, i3d, load_i3d
from jwb_dh_v1.networks.inception import FID as INCEPTION
from jwb_dh_v1.networks.inception import V3, inception_fid, inception_v3
from jwb_dh_v1.networks.placement import fold_norms
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.preprocessing import IMAGENET_MEAN as MEAN
from jwb_dh_v1.networks.preprocessing import IMAGENET_STD as STD

pytestmark = pytest.mark.teaser  # large networks on seeded weights: minutes

FID, FVD, PAIRED = map(golden, ("fid", "fvd", "jwb_paired"))
VARIANTS = {
    "pytorch-fid": fid_file.fid,
    "torch-fidelity": fid_file.fid_tensorflow,
    "clean-fid clean": fid_file.fid_clean,
}

# The reference's limit for the same features, which also covers sqrtm (2e-6), folded norms and the rounding of features
# in `FeatureStatistics`; its wider limit from pixels, 1e-3, is not needed. Observed: 3e-6 for the sets, 1.3e-5 for
# single clips.
CLOSE_FID = 1e-4
# The reference's limit for pairs: larger features (norms up to 38), fewer of them. Observed: 6e-5, of it 1e-5 rounding.
CLOSE_PAIR = 1e-3
# Golden features have seven digits, ours steps of 1.5e-5 once they are in `FeatureStatistics`; float32 sums in another
# order leave less. Observed: 1.2e-5, for components and for norms up to 38.
CLOSE_FEATURE = 1e-4
# The reference's limit for FVD. Observed: 1e-5, and 2.1e-4 against videogpt, whose float32 SVD is off by as much.
CLOSE_FVD = 1e-3


@pytest.fixture(scope="module")
def states():
    of = {"inception_fid_2015": FID, "inception_v3_torchvision": PAIRED, "i3d_k400": FVD}
    return {name: seeded_state(name, table) for name, table in of.items()}


@pytest.fixture(scope="module")
def models(states):
    """A pool with the seeded networks, prepared as `NetworkPool` prepares the real ones."""
    made = NetworkPool(device="cpu")
    for network, net in (
        (INCEPTION, inception_fid(states["inception_fid_2015"])),
        (V3, inception_v3(states["inception_v3_torchvision"])),
    ):
        fold_norms(net)
        made.put(network, net.to(memory_format=torch.channels_last))
    made.put(I3D, i3d(states["i3d_k400"]))
    return made


@pytest.fixture(scope="module")
def samples(models):
    """The seven pairs of clips."""
    made = {}
    for name in clips.CLIPS:
        generated, reference, fps = clips.make_pair(name)
        assert clips.sha256(reference) == FID["clips"][name]
        made[name] = Sample(
            name, Clip(generated, models=models, fps=fps), Clip(reference, models=models, fps=fps), person_id=name
        )
    return made


@pytest.fixture(scope="module")
def fvd_set(models):
    made = {}
    for name in clips.FVD_SET:
        generated, reference, fps = clips.make_pair(name, clips.FVD_SET)
        assert clips.sha256(reference) == FVD["clips"][name]
        made[name] = Sample(name, Clip(generated, models=models, fps=fps), Clip(reference, models=models, fps=fps))
    return made


@pytest.fixture(scope="module")
def pairs(samples, models):
    """The ten pairs of the authors' script."""
    made = dict(samples)
    pan, still = samples["pan"], samples["still"]
    half = Clip(np.ascontiguousarray(pan.generated.frames[:, ::2, ::2]), models=models)
    made["pan_half_size_generated"] = Sample("half", half, pan.reference)
    made["pan_9_frames_generated"] = Sample("nine", Clip(pan.generated.frames[:9], models=models), pan.reference)
    made["pan_swapped_to_other_clip"] = Sample("swapped", still.generated, pan.reference)
    return made


def total(metric, samples):
    state = None
    for sample in samples:
        state = add(state, metric(sample))
    return state


def features(state: Frechet):
    return [side.rows / 2**16 for side in (state.generated, state.reference)]


# FID


@pytest.mark.parametrize(
    "variant", some(VARIANTS, *(v for v in VARIANTS if v != "torch-fidelity"))
)  # no protocol has it
def test_fid_equals_the_packages(variant, samples):
    expected = FID["variants"][variant]
    state = total(VARIANTS[variant], samples.values())
    assert state.value() == pytest.approx(expected["value"], abs=CLOSE_FID)
    assert state.value() == pytest.approx(expected["closed_form_from_these_features"]["fid"], abs=CLOSE_FID)
    if variant == "pytorch-fid":
        legacy = FID["variants"]["clean-fid legacy_pytorch"]
        assert state.value() == pytest.approx(legacy["value"], abs=CLOSE_FID)
    for side, mean, trace in zip(
        features(state), expected["mean_first5"], expected["trace_of_covariance"], strict=True
    ):
        assert side.shape == (136, 2048)
        assert side.mean(0)[:5] == pytest.approx(mean, abs=CLOSE_FEATURE)
        assert side.var(0, ddof=1).sum() == pytest.approx(trace, abs=CLOSE_FID)


@pytest.mark.parametrize("variant", VARIANTS)
def test_fid_features_equal_the_packages(variant, samples):
    for name, expected in FID["variants"][variant]["per_clip"].items():
        sides = features(VARIANTS[variant](samples[name]))
        for side, first5, norm in zip(sides, expected["first_frame_first5"], expected["first_frame_norm"], strict=True):
            assert len(side) == expected["frames"]
            assert side[0, :5] == pytest.approx(first5, abs=CLOSE_FEATURE)
            assert np.linalg.norm(side[0]) == pytest.approx(norm, abs=CLOSE_FEATURE)
        gap = sides[0].mean(0) - sides[1].mean(0)
        assert gap @ gap == pytest.approx(expected["mean_difference_squared"], abs=CLOSE_FID)


def _antialiased(frames):
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return 2 * functional.interpolate(x, (299, 299), mode="bilinear", antialias=True) - 1


WRONG_FID = {
    "antialias": _antialiased,
    "BGR": lambda frames: fid_file.pytorch_input(frames).flip(1),
    "range": lambda frames: (fid_file.pytorch_input(frames) + 1) / 2,
    "other variant": fid_file.clean_input,
}


def moved(net, prepare, sample, right):
    """How far the Fréchet distance of the first four frames goes when they are prepared in another way."""
    pairs = (sample.generated, sample.reference)
    wrong = [set_distance.run_network(net, prepare(clip.frames[:4]), torch.device("cpu")) for clip in pairs]
    values = [
        Frechet(*(FeatureStatistics.of(rows[:4]) for rows in rows)).value() for rows in (wrong, map(right, pairs))
    ]
    return abs(values[0] - values[1])


@pytest.mark.parametrize("wrong", WRONG_FID)
def test_a_wrong_step_moves_fid(wrong, samples, models):
    sample = samples["zoom_noise"]  # larger than 299, so that antialiasing shows
    assert moved(models.get(INCEPTION), WRONG_FID[wrong], sample, fid_file.inception_2015) > 10 * CLOSE_FID


@pytest.mark.parametrize("wrong", ["last pool averages", "padding counts", "unpatched"])
def test_a_wrong_pool_moves_fid(wrong, states, samples):
    from torchvision.models import inception

    from jwb_dh_v1.networks import inception as ours

    net = inception_fid(states["inception_fid_2015"])
    if wrong == "last pool averages":
        net.Mixed_7c.__class__ = ours._E
    elif wrong == "padding counts":
        net.Mixed_6b.__class__ = inception.InceptionC
    else:
        net = inception.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        net.load_state_dict(states["inception_fid_2015"])
        net.fc = torch.nn.Identity()
        net.eval()
    frame = samples["odd_size"].reference.frames[:1]
    found = set_distance.run_network(net, fid_file.pytorch_input(frame), torch.device("cpu"))
    expected = FID["variants"]["pytorch-fid"]["per_clip"]["odd_size"]["first_frame_norm"][1]
    assert abs(np.linalg.norm(found) - expected) > 10 * CLOSE_FEATURE


def test_networks_equal_their_originals(states, models, samples, monkeypatch):
    frames = np.concatenate([samples[name].reference.frames[:1] for name in ("pan", "still")])
    torchvision_models = pytest.importorskip("torchvision.models")
    original = torchvision_models.inception_v3(init_weights=False, transform_input=False)
    original.load_state_dict(states["inception_v3_torchvision"])
    original.fc = torch.nn.Identity()
    x = fid_file.paper_input(frames)
    with torch.inference_mode():
        # Folded norms and another memory layout, features up to 3. Observed: 1e-6.
        assert models.get(V3)(x) == pytest.approx(original.eval()(x), abs=1e-5)

    pytorch_fid = pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(pytorch_fid, "load_state_dict_from_url", lambda *a, **k: states["inception_fid_2015"])
    theirs = pytorch_fid.InceptionV3([3]).eval()
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)[0][..., 0, 0]
        assert models.get(INCEPTION)(fid_file.pytorch_input(frames)) == pytest.approx(expected, abs=1e-5)


def test_pictures_equal_the_packages(samples):
    frames = samples["odd_size"].reference.frames[:2]
    transforms = pytest.importorskip("torchvision.transforms")
    resize = transforms.Compose(
        [
            transforms.Resize((299, 299)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    # The picture is wide, so that every Pillow resizes it in our order. Observed: equal.
    expected = torch.stack([resize(Image.fromarray(frame)) for frame in frames])
    assert fid_file.paper_input(frames).numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    clean = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    expected = np.stack([clean(frame) for frame in frames]).transpose(0, 3, 1, 2)
    assert np.array_equal(fid_file.clean_input(frames).numpy(), (expected - np.float32(128)) / np.float32(128))
    original = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    x = original.interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
    # They interpolate along the rows first, too. Observed: equal; 1e-6 leaves room for a fused multiply-add.
    assert fid_file.tensorflow_input(frames).numpy() == pytest.approx(((x - 128) / 128).numpy(), abs=1e-6)


# FVD


def test_fvd_equals_common_metrics(fvd_set):
    state = total(fvd_file.fvd, fvd_set.values())
    styleganv, videogpt = FVD["variants"]["styleganv"], FVD["variants"]["videogpt"]
    # Observed: 1e-5, the rounding of features in `FeatureStatistics` (2**-16).
    assert state.value() == pytest.approx(styleganv["closed_form_from_these_features"]["fid"], abs=1e-4)
    assert state.value() == pytest.approx(styleganv["value"], abs=CLOSE_FVD)
    assert state.value() == pytest.approx(videogpt["value"], abs=CLOSE_FVD)  # its float32 SVD is 2e-4 off
    ours, theirs = features(state)
    for row, name in enumerate(fvd_set):
        for side, first5, norm in zip(
            (ours, theirs), styleganv["logits_first5"][name], styleganv["logits_norm"][name], strict=True
        ):
            assert side[row, :5] == pytest.approx(first5, abs=CLOSE_FEATURE)
            assert np.linalg.norm(side[row]) == pytest.approx(norm, abs=CLOSE_FEATURE)
    # One clip has no covariance: we give no number, JunyaoHu's rule is the mean term alone.
    assert math.isnan(fvd_file.fvd(fvd_set["fvd0"]).value())
    gap = ours[0] - theirs[0]
    assert gap @ gap == pytest.approx(styleganv["value_first_clip_only"], abs=CLOSE_FVD)


def test_fvd_of_ten_frames_equals_common_metrics(fvd_set, models):
    short = [
        Sample(s.id, *(Clip(clip.frames[:10], models=models) for clip in (s.generated, s.reference)))
        for s in fvd_set.values()
    ]
    value = total(fvd_file.fvd, short).value()
    assert value == pytest.approx(FVD["variants"]["styleganv"]["value_first_10_frames"], abs=CLOSE_FVD)
    assert value == pytest.approx(FVD["variants"]["videogpt"]["value_first_10_frames"], abs=CLOSE_FVD)


WRONG_FVD = {
    "range": lambda frames: (fvd_file.fvd_input(frames) + 1) / 2,
    "BGR": lambda frames: fvd_file.fvd_input(frames[..., ::-1].copy()),
    "squeezed": lambda frames: fvd_file.paper_fvd_input(frames) * 2 - 1,
    "backwards": lambda frames: fvd_file.fvd_input(frames[::-1].copy()),
}


@pytest.mark.parametrize("wrong", WRONG_FVD)
def test_a_wrong_step_moves_fvd(wrong, fvd_set, models):
    sample = fvd_set["fvd7"]  # the fastest, so that the order of frames shows
    rows = [
        set_distance.run_network(models.get(I3D), WRONG_FVD[wrong](clip.frames), torch.device("cpu"))
        for clip in (sample.generated, sample.reference)
    ]
    right = features(fvd_file.fvd(sample))
    gap, expected = (a[0].astype(float) - b[0] for a, b in (rows, right))
    assert abs(gap @ gap - expected @ expected) > 10 * CLOSE_FVD


def test_fvd_needs_ten_frames_and_i3d_nine(fvd_set, models):
    frames = fvd_set["fvd0"].generated.frames
    nine = Clip(frames[:9], models=models)
    with pytest.raises(TooShort, match="at least 10 frames"):
        fvd_file.fvd(Sample("short", nine, nine))
    with pytest.raises(ValueError, match="9 or more"):
        models.get(I3D)(fvd_file.fvd_input(frames[:8]))


def test_a_torchscript_i3d_is_called_as_the_authors_call_it(tmp_path, states):
    class Graph(torch.nn.Module):
        def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
            marks = torch.tensor([float(rescale), float(resize), float(return_features)])
            return torch.cat([marks, x.mean().view(1)])[None]

    torch.jit.script(Graph()).save(str(tmp_path / "graph.pt"))
    net = load_i3d(tmp_path / "graph.pt")
    assert isinstance(net, TorchScriptI3d)
    assert net(torch.ones(1, 3, 16, 8, 8)).tolist() == [[0.0, 0.0, 1.0, 1.0]]
    for zipped in (True, False):  # the published state dict may be of either format
        torch.save(states["i3d_k400"], tmp_path / "state.pt", _use_new_zipfile_serialization=zipped)
        assert not isinstance(load_i3d(tmp_path / "state.pt"), TorchScriptI3d)


# The authors' numbers


@pytest.mark.parametrize("name", PAIRED["pairs"])
def test_paper_fvd_equals_the_authors(name, pairs):
    expected, sample = PAIRED["pairs"][name], pairs[name]
    assert clips.sha256(sample.generated.frames) == expected["generated_sha256"]
    value = fvd_file.paper_fvd(sample).value()
    # The same float32 formula on logits of norm 15 that agree to 2e-6. Observed: 7e-6.
    assert value == pytest.approx(expected["FVD"], abs=1e-4)
    assert value == pytest.approx(expected["FVD_closed_form"], abs=1e-4)
    rows = [fvd_file.paper_i3d(clip)[0] for clip in (sample.generated, sample.reference)]
    for row, first5, norm in zip(rows, expected["i3d_logits_first5"], expected["i3d_logits_norm"], strict=True):
        assert row[:5] == pytest.approx(first5, abs=CLOSE_FEATURE)
        assert np.linalg.norm(row) == pytest.approx(norm, abs=CLOSE_FEATURE)


WITH_FID = [name for name, pair in PAIRED["pairs"].items() if "FID_closed_form" in pair]


@pytest.mark.parametrize("name", some(WITH_FID, "person_like", "odd_size", "flicker"))
def test_paper_fid_and_efid_equal_the_authors(name, pairs, monkeypatch):
    expected, sample = PAIRED["pairs"][name], pairs[name]
    if name == "flicker":  # the only tall clip; the golden numbers were made with Pillow 13
        monkeypatch.setattr(fid_file, "paper_input", _height_first)
        sample = Sample(name, *(Clip(clip.frames, models=_twin(clip.models)) for clip in _sides(sample)))
    for key, metric in (("FID", fid_file.paper_fid), ("E_FID", e_fid.paper_efid)):
        value = metric(sample).value()
        assert value == pytest.approx(expected[f"{key}_closed_form"]["fid"], abs=CLOSE_PAIR)
        if expected[key] is not None:
            assert value == pytest.approx(expected[key], abs=CLOSE_PAIR)
    for side, clip in zip(("generated", "reference"), _sides(sample), strict=True):
        for suffix, edges in (("", False), ("_edges", True)):
            rows, golden = fid_file.paper_inception(clip, edges), expected[f"inception_{side}{suffix}"]
            assert np.linalg.norm(rows, axis=1) == pytest.approx(golden["norm"], abs=CLOSE_FEATURE)
            assert rows[0, :5] == pytest.approx(golden["first_frame_first5"], abs=CLOSE_FEATURE)


def test_tall_pictures_are_resized_as_by_the_pillow_of_the_authors(pairs):
    sample, expected = pairs["flicker"], PAIRED["pairs"]["flicker"]["FID_closed_form"]["fid"]
    # Measured: 4.3e-3 between Pillow 12 (horizontal pass first, as here) and 13 (vertical first when tall).
    assert CLOSE_PAIR < abs(fid_file.paper_fid(sample).value() - expected) < 1e-2
    frames = sample.reference.frames[:1]
    once = Image.fromarray(frames[0]).resize((299, 299), Image.Resampling.BILINEAR)
    ways = [fid_file.paper_input(frames), _height_first(frames)]
    steps = [np.rint((x[0].numpy().transpose(1, 2, 0) * STD + MEAN) * 255).astype(int) for x in ways]
    assert any(np.array_equal(np.asarray(once), way) for way in steps)
    assert np.abs(steps[0] - steps[1]).max() == 1


def _height_first(frames):
    size, bilinear = (299, 299), Image.Resampling.BILINEAR
    small = [Image.fromarray(f).resize((f.shape[1], 299), bilinear).resize(size, bilinear) for f in frames]
    x = (np.stack([np.asarray(picture) for picture in small]) / np.float32(255) - MEAN) / STD
    return torch.from_numpy(x.transpose(0, 3, 1, 2))


def _sides(sample):
    return sample.generated, sample.reference


def _twin(models):
    """The same networks without the memory of features."""
    twin = NetworkPool(device="cpu")
    twin.put(V3, models.get(V3))
    return twin


def _torch_resized(frames):
    mean, std = (torch.from_numpy(x).view(3, 1, 1) for x in (MEAN, STD))
    return ((fid_file.pytorch_input(frames) + 1) / 2 - mean) / std


WRONG_PAPER = {
    "no antialias": (False, _torch_resized),
    "BGR": (False, lambda frames: fid_file.paper_input(frames[..., ::-1].copy())),
    "range": (False, fid_file.pytorch_input),
    "edges of BGR": (True, lambda frames: fid_file.paper_input(fid_file.canny(frames[..., ::-1].copy()))),
    "edges resized first": (
        True,
        lambda frames: fid_file.paper_input(
            fid_file.canny(np.stack([np.asarray(Image.fromarray(f).resize((299, 299))) for f in frames]))
        ),
    ),
}


@pytest.mark.parametrize("wrong", WRONG_PAPER)
def test_a_wrong_step_moves_the_paper_values(wrong, samples, models):
    edges, prepare = WRONG_PAPER[wrong]
    right = lambda clip: fid_file.paper_inception(clip, edges)  # noqa: E731
    assert moved(models.get(V3), prepare, samples["pan"], right) > 10 * CLOSE_PAIR


def test_equal_clips_and_missing_references(pairs):
    clip = pairs["pan_9_frames_generated"].generated
    same = Sample("same", clip, clip)
    assert fid_file.paper_fid(same).value() == pytest.approx(0, abs=1e-9)
    assert fvd_file.paper_fvd(same).value() == pytest.approx(-0.0008, abs=1e-12)
    for metric in (*VARIANTS.values(), fid_file.paper_fid, e_fid.paper_efid, fvd_file.paper_fvd):
        with pytest.raises(NotApplicable, match="no reference"):
            metric(Sample("alone", clip))
    single = Clip(clip.frames[:1], models=clip.models)
    with pytest.raises(TooShort, match="at least 2 frames"):
        fid_file.paper_fid(Sample("one", single, single))
