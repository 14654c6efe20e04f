"""VBench's dynamic degree with seeded RAFT weights: `golden/dynamic_degree.json`.

The weights mean nothing as a model (`still` is dynamic, `person_like` is not); they show architecture, preprocessing
and formula. By default every clip takes part with some of its pairs; `--run-slow` looks at all 65.
"""

import numpy as np
import pytest
import torch
from goldens import NAMES, frames_of, golden, made, sample_of, seeded_state
from torch.nn import functional
from torchvision.models.optical_flow import raft_large

from jwb_dh_v1.errors import NotFinite, SetupError, TooShort, TooSmall
from jwb_dh_v1.metrics.quality import dynamic_degree as motion
from jwb_dh_v1.networks import raft

pytestmark = pytest.mark.teaser  # large networks on seeded weights: minutes

TABLE = golden("dynamic_degree")
# Pixels: another summation order in 20 updates; seen 4e-6 over all 65 pairs, a wrong step moves 0.05 or more.
PAIR = 1e-3
# Means of a flow (seen 4e-6) and its largest component (seen 4e-5; one vector, hence the least stable).
FLOW = (1e-3, 1e-3, 1e-3, 1e-2)
SOME = {"still": 1, "pan": 1, "zoom_noise": 1, "flicker": 1, "person_like": 1, "pan_fast": 2, "odd_size": 2}


@pytest.fixture(scope="module")
def state():
    return seeded_state("raft_things", TABLE)


@pytest.fixture(scope="module")
def net(state):
    return raft.from_state(state)


def statistics(flow):
    flow = flow.astype(np.float64)
    return flow[..., 0].mean(), flow[..., 1].mean(), np.abs(flow).mean(), np.abs(flow).max()


def check_pairs(name, net, pairs):
    """Flows and scores of a clip's first pairs."""
    expected = TABLE["clips"][name]
    frames = frames_of(name, expected)[:: motion.interval(expected["fps"])]
    assert len(frames) == expected["sampled_frames"]
    found = list(raft.flows(net, frames[: pairs + 1]))
    for flow, numbers in zip(found, expected["pair_flow_meanx_meany_meanabs_maxabs"], strict=False):
        assert flow.dtype == np.float32
        assert flow.shape == (*(-(-side // 8) * 8 for side in expected["size_hw"]), 2)
        assert np.all(np.abs(np.subtract(statistics(flow), numbers)) < FLOW)
    scores = [motion.top_motion(flow) for flow in found]
    assert scores == pytest.approx(expected["pair_top5_mean"][:pairs], abs=PAIR)


@pytest.mark.parametrize("name", NAMES)
def test_first_flows_equal_vbench(name, net):
    check_pairs(name, net, SOME[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_flows_equal_vbench(name, net):
    check_pairs(name, net, TABLE["clips"][name]["sampled_frames"])


def stop(scores, side):
    """After how many pairs the decision on all is certain, found by trying both ends of what may follow."""
    for seen in range(1, len(scores) + 1):
        rest = len(scores) - seen
        if len({motion.is_dynamic(np.append(scores[:seen], np.full(rest, x)), side) for x in (0.0, 1e9)}) == 1:
            return seen
    return 0


@pytest.mark.parametrize("name", ["pan", "odd_size"])
def test_dynamic_degree_equals_vbench(name, net):
    expected = TABLE["clips"][name]
    scores = np.array(expected["pair_top5_mean"])
    sample = sample_of(frames_of(name, expected), expected["fps"], raft=net)
    runs = []
    hook = net.context_encoder.register_forward_hook(lambda *_: runs.append(1))  # once per pair
    seen = motion.raft_seen(sample)
    assert motion.dynamic(sample).value() == motion.paper_dynamic(sample).value() == expected["value"]
    assert motion.raft_seen(sample) is seen  # one run for both decisions and their curve
    hook.remove()
    count = stop(scores, min(expected["size_hw"]))
    assert len(runs) == count < len(scores) == len(seen)
    assert seen.dtype == np.float64
    assert seen[:count] == pytest.approx(scores[:count], abs=PAIR)
    assert np.isnan(seen[count:]).all()


def test_the_whole_curve_equals_vbench(net):
    expected = TABLE["clips"]["odd_size"]
    curve = motion.raft_curve(sample_of(frames_of("odd_size", expected), expected["fps"], raft=net))
    assert curve.dtype == np.float64
    assert curve == pytest.approx(np.array(expected["pair_top5_mean"]), abs=PAIR)


@pytest.mark.parametrize("name", NAMES)
def test_decisions_on_vbenchs_scores_equal_vbench(name):
    """With five or more sampled frames `dynamic` and VBench's letter agree."""
    expected = TABLE["clips"][name]
    scores, side = np.array(expected["pair_top5_mean"]), min(expected["size_hw"])
    assert motion.pairs_needed(expected["sampled_frames"]) == expected["need"]
    assert motion.pairs_above(scores, side) == expected["pairs_above"]
    assert motion.pairs_above(np.array([expected["threshold"], expected["threshold"] + 1e-6]), side) == 1
    assert motion.is_dynamic(scores, side) == expected["value"]


# What a plausible implementation might do otherwise, seen on the first pair of the clip that needs padding.
def pads(mode, centred=True):
    def padded(picture):
        down, right = (-side % 8 for side in picture.shape[2:])
        left, top = (right // 2, down // 2) if centred else (0, 0)
        return functional.pad(picture, (left, right - left, top, down - top), mode=mode)

    return padded


def stretched(picture):
    return functional.interpolate(picture, [-(-side // 8) * 8 for side in picture.shape[2:]], mode="bilinear")


MUTANTS = {
    "none": lambda m: None,
    "our padding again": lambda m: m.setattr(raft, "padded", pads("replicate")),
    "not centred": lambda m: m.setattr(raft, "padded", pads("replicate", centred=False)),
    "padded with black": lambda m: m.setattr(raft, "padded", pads("constant")),
    "padded by reflection": lambda m: m.setattr(raft, "padded", pads("reflect")),
    "resized": lambda m: m.setattr(raft, "padded", stretched),
    "0..1": lambda m: m.setattr(raft, "scaled", lambda picture: picture / 255),
    "12 updates": lambda m: m.setattr(raft, "UPDATES", 12),
    "mask not scaled": lambda m: m.setattr("torchvision.models.optical_flow.raft.MaskPredictor.forward", plain_mask),
    "top 5 % without padding": lambda m: m.setattr(motion, "top_motion", without_padding(motion.top_motion)),
    "BGR": None,
}  # fmt: skip


def plain_mask(self, x):
    return self.conv(self.convrelu(x))


def without_padding(top_motion):
    return lambda flow: top_motion(flow[1:-1, 3:-3])  # 182 x 250 within 184 x 256


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_step_shows(mutant, net, monkeypatch):
    expected = TABLE["clips"]["odd_size"]
    frames = made("odd_size")[0][:3]  # every second one is looked at
    if MUTANTS[mutant] is None:
        frames = np.ascontiguousarray(frames[..., ::-1])
    else:
        MUTANTS[mutant](monkeypatch)
    (score,) = motion.raft_curve(sample_of(frames, expected["fps"], raft=net))
    gap = abs(score - expected["pair_top5_mean"][0])
    assert (gap < PAIR) == (mutant in {"none", "our padding again"}), gap


def test_every_frame_instead_of_the_interval_shows(net, monkeypatch):
    monkeypatch.setattr(motion, "interval", lambda fps: 1)
    expected = TABLE["clips"]["odd_size"]
    curve = motion.raft_curve(sample_of(made("odd_size")[0][:3], expected["fps"], raft=net))
    assert len(curve) == 2
    assert np.abs(curve - expected["pair_top5_mean"][:2]).max() > PAIR


def test_torchvisions_own_loop_gives_the_same_flow(net):
    """Shared features, the scaled correlation and the single upsampling change nothing."""
    frames = made("odd_size")[0][:3, :136, :144]
    pictures = [raft.scaled(torch.from_numpy(frame).permute(2, 0, 1)[None].float()) for frame in frames]
    found = list(raft.flows(net, frames))
    with torch.inference_mode():
        for flow, first, second in zip(found, pictures[:-1], pictures[1:], strict=True):
            expected = net(first, second, num_flow_updates=20)[-1][0].permute(1, 2, 0).numpy()
            # Flows of 12 px; seen 0. A batch of two frames may choose another kernel elsewhere.
            assert np.abs(flow - expected).max() < 1e-3


def test_each_frame_is_encoded_once(net):
    seen = {"features": 0, "context": 0}

    def count(name):
        return lambda *_: seen.update({name: seen[name] + 1})

    hooks = [
        net.feature_encoder.register_forward_hook(count("features")),
        net.context_encoder.register_forward_hook(count("context")),
    ]
    frames = made("odd_size")[0][:4, :128, :128]
    assert len(list(raft.flows(net, frames))) == 3
    assert seen == {"features": 4, "context": 3}
    assert net.corr_block.corr_pyramid == []  # the volume of the last pair is not kept
    for hook in hooks:
        hook.remove()


def test_both_file_layouts_give_the_same_flow(state, net, tmp_path):
    converted = raft.torchvision_names(state)
    assert set(converted) == set(raft_large(weights=None).state_dict())
    torch.save(state, tmp_path / "raft-things.pth")
    torch.save(converted, tmp_path / "raft_large_C_T_V1-22a6c225.pth")
    frames = made("odd_size")[0][:2, :128, :128]
    (expected,) = raft.flows(net, frames)
    for path in tmp_path.iterdir():
        loaded = raft.load(path)
        assert not loaded.training
        assert {(p.dtype, p.requires_grad) for p in loaded.parameters()} == {(torch.float32, False)}
        (flow,) = raft.flows(loaded, frames)
        assert np.array_equal(flow, expected)


def test_wrong_files_are_named(state, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(SetupError, match="no RAFT"):
        raft.load(tmp_path / "head.pth")
    with pytest.raises(SetupError, match="no RAFT"):
        raft.from_state({key: value for key, value in state.items() if "flow_head" not in key})
    with pytest.raises(SetupError, match="no RAFT"):
        raft.from_state(state | {"module.fnet.conv2.bias": torch.zeros(3)})


def moves(state, right, down):
    """A network that sees the same motion everywhere: each of its 20 updates adds a 160th of it, in cells of 8 px."""
    head = "module.update_block.flow_head.conv2."
    step = torch.tensor([right, down]) / 160
    return raft.from_state(state | {head + "weight": torch.zeros(2, 256, 3, 3), head + "bias": step})


@pytest.mark.parametrize(
    ("right", "down", "expected"),
    [(2.99, 0.0, 0.0), (3.01, 0.0, 1.0), (0.0, -3.01, 1.0), (1.79, 2.39, 0.0), (-1.81, 2.41, 1.0)],
)
def test_known_motion_through_the_whole_network(state, right, down, expected):
    frames = made("still")[0][:3, :128, :128]  # 128 px: the threshold is 3 px
    sample = sample_of(frames, 8.0, raft=moves(state, right, down))
    # At the border the mean of 3 x 3 cells takes in zeros; inside, and so in the longest 5 %, all vectors are equal.
    # 20 sums near 16 in float32, times 8; seen 3e-5.
    assert motion.raft_curve(sample) == pytest.approx(np.hypot(right, down), abs=1e-4)
    assert motion.dynamic(sample).value() == expected


@pytest.mark.parametrize(
    ("side", "threshold"), [(256, 6), (480, 11.25), (512, 12), (720, 16.875), (1080, 25.3125)]
)  # fmt: skip
def test_thresholds(side, threshold):
    assert motion.pairs_above(np.array([threshold, np.nextafter(threshold, 99)]), side) == 1  # specs/metrics.md 1.4


def test_pairs_needed():
    table = {1: 0, 2: 0, 3: 1, 5: 1, 6: 2, 10: 2, 14: 4, 16: 4, 24: 6, 40: 10, 41: 10}  # specs/metrics.md 1.4
    assert {frames: motion.pairs_needed(frames) for frames in table} == table


def test_short_clips(state, net):
    still = moves(state, 0.0, 0.0)
    frames = made("still")[0][:7, :128, :128]
    for count in (1, 3):  # at 24 fps every third frame is looked at
        short = sample_of(frames[:count], 24.0, raft=net)
        with pytest.raises(TooShort, match="over 3 frames at 24 fps"):
            motion.dynamic(short)
        assert motion.paper_dynamic(short).value() == 0
    two, three = (sample_of(frames[:count], 24.0, raft=still) for count in (4, 7))
    assert motion.raft_curve(two).tolist() == [0]
    assert motion.dynamic(two).value() == 0
    assert motion.paper_dynamic(two).value() == 1  # VBench needs 0 pairs of one
    assert motion.raft_curve(three).tolist() == [0, 0]
    assert motion.paper_dynamic(three).value() == 0


@pytest.mark.parametrize("size", [(120, 200), (200, 120), (50, 50), (1, 300)])
def test_small_clips_fail(size, net):
    sample = sample_of(np.zeros((2, *size, 3), np.uint8), 8.0, raft=net)
    for decide in (motion.dynamic, motion.paper_dynamic):
        with pytest.raises(TooSmall, match=rf"{size[1]} x {size[0]} px.*121 px"):
            decide(sample)


def test_the_smallest_clip_and_a_black_one(net):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, motion.RAFT_SIDE, 130, 3), dtype=np.uint8)
    (flow,) = raft.flows(net, frames)
    assert flow.shape == (128, 136, 2)
    assert np.isfinite(flow).all()
    assert np.isfinite(motion.raft_curve(sample_of(np.zeros_like(frames), 8.0, raft=net))).all()
    (flow,) = raft.flows(net, frames[:, :, :120])  # what the limit keeps out
    assert np.isnan(flow).all()


def test_nan_is_said(state):
    broken = moves(state, float("nan"), 0.0)
    with pytest.raises(NotFinite, match="RAFT's flow"):
        motion.dynamic(sample_of(made("still")[0][:2, :128, :128], 8.0, raft=broken))
