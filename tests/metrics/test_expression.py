"""E-FID: Deep3DFaceRecon's network and alignment against independent paths and closed forms.

No numbers of the official code exist for this network, so each step is proven another way: the network by torchvision's
ResNet-50 with one fully connected layer and the same seeded weights, the alignment by Pillow on the whole picture and
by cameras that are known. The detector of faces is planted (SCRFD's weights cannot be had here); all else is real.
"""

import math

import cv2
import numpy as np
import pytest
import torch
from goldens import DEEP3D_HEADS, clips, deep3d_state, made
from PIL import Image
from torchvision.models import resnet50

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import NotApplicable, SetupError
from jwb_dh_v1.metrics.fidelity import e_fid as expression
from jwb_dh_v1.networks import deep3d, scrfd
from jwb_dh_v1.networks.pool import NetworkPool

BICUBIC = Image.Resampling.BICUBIC
HEADS = DEEP3D_HEADS  # identity, expression, texture, angle, gamma, shift, depth
COEFFICIENT = (
    1e-4  # relative to the largest coefficient: another order of summation; seen 8e-7, the smallest wrong step 3e-3
)


# the network


@pytest.fixture(scope="module")
def state():
    return deep3d_state()


@pytest.fixture(scope="module")
def net(state):
    return deep3d.from_state(state)


@pytest.fixture(scope="module")
def independent(state):
    """The same function by torchvision alone: the seven heads as one fully connected layer."""
    twin = resnet50(weights=None, num_classes=257)
    own = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    own["fc.weight"] = torch.cat([state[f"final_layers.{i}.weight"][:, :, 0, 0] for i in range(7)])
    own["fc.bias"] = torch.cat([state[f"final_layers.{i}.bias"] for i in range(7)])
    twin.load_state_dict(own)
    twin.eval()

    def run(crops):
        x = torch.stack([torch.from_numpy(crop / 255).float().permute(2, 0, 1) for crop in crops])
        with torch.inference_mode():
            return twin(x).numpy()

    return run


def far(found, expected):
    """The largest difference, relative to the largest number expected."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_network_equals_torchvision(net, independent):
    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        found = net(deep3d.picture(crops)).numpy()
    assert found.shape == (2, 257)
    assert found.dtype == np.float32
    assert far(found, independent(crops)) < COEFFICIENT
    assert far(found[0], found[1]) > 100 * COEFFICIENT  # pictures are told apart
    assert sum(p.numel() for p in net.parameters()) == 24_034_625  # 23.5 million of ResNet-50, 2049 a coefficient


def test_coefficients_lie_where_the_face_model_expects_them():
    assert tuple(deep3d.PARTS.values()) == HEADS
    names = list(deep3d.PARTS)
    start = sum(HEADS[: names.index("expression")])
    assert slice(start, start + deep3d.PARTS["expression"]) == deep3d.EXPRESSION


def test_official_file_loads(state, net, tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 10)
    saved = {"net_recon": state, "opt_00": optimiser.state_dict(), "sched_00": schedule.state_dict()}
    torch.save(saved, tmp_path / "epoch_20.pth")
    found = deep3d.load(tmp_path / "epoch_20.pth")
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), net.state_dict().values(), strict=True))


def test_wrong_files_are_named(state, tmp_path):
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(SetupError, match=r"bare\.pth holds no `net_recon`"):
        deep3d.load(tmp_path / "bare.pth")
    torch.save({"net_recon": state | {"final_layers.1.bias": torch.zeros(79)}}, tmp_path / "other.pth")
    with pytest.raises(SetupError, match=r"no Deep3DFaceRecon network.*final_layers\.1\.bias"):
        deep3d.load(tmp_path / "other.pth")
    with pytest.raises(SetupError, match="no Deep3DFaceRecon network"):
        deep3d.from_state({k: v for k, v in state.items() if not k.startswith("final_layers.6")})


# the alignment


def projected(scale, x, y_up, height, turn=(0.0, 0.0, 0.0)):
    """The standard face's points in a picture of that height, by a known camera; `turn` in radians about x, y, z."""
    a, b, c = turn
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    about_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    flat = scale * (deep3d.STANDARD_FACE @ (about_z @ about_y @ about_x)[:2].T) + [x, y_up]
    return np.column_stack([flat[:, 0], height - 1 - flat[:, 1]])


@pytest.mark.parametrize("turn", [(0, 0, 0), (0.3, -0.5, 0.2), (-0.4, 1.2, -1.0)])
def test_pose_gives_back_a_known_camera(turn):
    points = projected(57.25, 301.5, 122.75, 480, turn)
    assert deep3d.pose(points, 480) == pytest.approx((57.25, 301.5, 122.75), abs=1e-9)
    stretched = projected(1, 0, 0, 1) * [40, 60]  # rows of unequal length: their mean
    assert deep3d.pose(stretched, 1)[0] == pytest.approx(50, abs=1e-9)


def test_standard_face_is_a_face():
    eyes, nose, mouth = deep3d.STANDARD_FACE[:2], deep3d.STANDARD_FACE[2], deep3d.STANDARD_FACE[3:]
    assert (eyes[0, 0] < 0 < eyes[1, 0]) and (mouth[0, 0] < 0 < mouth[1, 0])
    assert eyes[:, 1].min() > nose[1] > mouth[:, 1].max()  # y is up
    assert nose[2] > max(eyes[:, 2].max(), mouth[:, 2].max())  # z is towards the viewer
    # Left and right are mirror images to within a hundredth.
    assert np.abs(deep3d.STANDARD_FACE[[1, 4]] * [-1, 1, 1] - deep3d.STANDARD_FACE[[0, 3]]).max() < 0.01


def test_an_aligned_face_stays():
    frame = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    # A scale that is too small by 1e-6, because sizes are truncated: 223.9999 would be 223.
    points = projected(102 * (1 - 1e-6), 112, 112, 224)
    assert np.array_equal(deep3d.align(frame, points), frame)


def whole_then_cut(frame, points, resample=BICUBIC):
    """The alignment as it is defined: the whole picture resized at once, then cut; the camera by another solver."""
    height, width = frame.shape[:2]
    design = np.column_stack([deep3d.STANDARD_FACE, np.ones(5)])
    (a, b, c, x), (d, e, f, y) = (np.linalg.pinv(design) @ [[px, height - 1 - py] for px, py in points]).T
    factor = 102 / ((math.hypot(a, b, c) + math.hypot(d, e, f)) / 2)
    w, h = math.floor(width * factor), math.floor(height * factor)
    left = math.trunc(w / 2 - 112 + (x - width / 2) * factor)
    top = math.trunc(h / 2 - 112 + (height / 2 - y) * factor)
    resized = Image.fromarray(frame).resize((w, h), resample)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize(
    ("scale", "x", "y_up"), [(60.3, 160, 120), (31.7, 250, 60), (150, 100.3, 130.2), (101.7, 20, 220), (241, 160, 120)]
)
def test_crop_is_pillows_whole_picture_cut(scale, x, y_up):
    frame = np.random.default_rng(2).integers(0, 256, (240, 320, 3), np.uint8)
    points = projected(scale, x, y_up, 240, (0.2, 0.3, -0.1))
    found = deep3d.align(frame, points)
    assert found.shape == (224, 224, 3)
    assert np.array_equal(found, whole_then_cut(frame, points))


def test_outside_is_black():
    frame = np.full((240, 320, 3), 200, np.uint8)
    found = deep3d.align(frame, projected(102, 0.5, 239.5, 240))  # the origin in the picture's top left corner
    assert (found[115:, 115:] == 200).all()
    assert (found[:109] == 0).all() and (found[:, :109] == 0).all()


def painted(scale, x, y_up, height, width):
    """A smooth pattern fixed to the standard face's plane, seen by a frontal camera."""
    row, column = np.mgrid[:height, :width]
    u, v = (column - x) / scale, (height - 1 - row - y_up) / scale
    waves = [np.sin(5 * u + 2 * v), np.sin(4 * v - u + 1), np.sin(3 * u + 3 * v * v)]
    return np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("scale", "x", "y_up", "size"),
    [(80, 300, 250, (480, 640)), (170, 420, 300, (720, 900)), (130, 210, 330, (640, 400))],
)
def test_shift_and_scale_of_the_picture_do_not_matter(scale, x, y_up, size):
    frame = painted(scale, x, y_up, *size)
    found = deep3d.align(frame, projected(scale, x, y_up, size[0])).astype(float)
    expected = painted(102, 111.5, 111.5, 224, 224).astype(float)
    # Places are truncated to whole pixels of the crop, and the pattern rises by up to 6 grey levels a pixel.
    assert np.abs(found - expected).mean() < 4  # seen 1.4 to 2.6
    assert np.abs(found[::-1] - expected).mean() > 40  # upside down: seen 62


# the metric


class Planted:
    """In SCRFD's place: gives back the points it was told, frame by frame; NaN is no face."""

    def __init__(self, points):
        self.left = list(points)

    def faces(self, frame):
        five = np.asarray(self.left.pop(0), np.float32)
        if np.isnan(five).any():
            return np.zeros((0, 5), np.float32), np.zeros((0, 5, 2), np.float32)
        box = [*five.min(axis=0), *five.max(axis=0), 0.9]
        return np.array([box], np.float32), five[None]


def clip_of(frames, points, net=None):
    models = NetworkPool(device="cpu")
    models.put(scrfd.NETWORK, Planted(points))
    models.put(deep3d.NETWORK, net)
    return Clip(frames, models=models)


@pytest.fixture(scope="module")
def person():
    """Twelve frames of the reference clip `person_like`, and the five points of its face."""
    return made("person_like")[0][:12], clips.person_face_points(**clips.CLIPS["person_like"][1])[:12]


@pytest.fixture(scope="module")
def other(person):
    """The same face in another light, seen larger."""
    frames, points = person
    dark = (frames[:, 60:360, 250:600] * 0.7).astype(np.uint8)
    return np.stack([cv2.resize(f, (700, 600)) for f in dark]), 2 * (points - [250, 60]) + 0.5


@pytest.mark.teaser
def test_efid_is_the_distance_of_expression_coefficients(person, other, net, independent):
    sample = Sample("a", clip_of(*other, net), clip_of(*person, net), person_id="someone")
    found = expression.efid(sample)
    sides = []
    for (frames, points), clip in ((other, sample.generated), (person, sample.reference)):
        expected = independent([whole_then_cut(f, p) for f, p in zip(frames, points.astype(np.float32), strict=True)])
        assert far(expression.coefficients(clip), expected) < COEFFICIENT
        sides.append(expected[:, 80:144].astype(np.float64))
    assert (found.generated.n, found.reference.n) == (12, 12)
    assert set(found.generated.groups) == {"someone"}
    # The definition, with numpy alone.
    a, b = (np.cov(side.T) for side in sides)
    root = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    gap = sides[0].mean(axis=0) - sides[1].mean(axis=0)
    assert found.value() == pytest.approx(gap @ gap + np.trace(a) + np.trace(b) - 2 * root, rel=1e-3)  # seen 1e-7
    itself = Sample("a", clip_of(*person, net), clip_of(*person, net))
    assert expression.efid(itself).value() < 1e-9 * np.trace(b)  # seen 0


def no_flip(points, height):
    upright = points * [1, -1] + [0, height - 1]
    return right_pose(upright, height)


right_pose = deep3d.pose
MUTANTS = {
    "none": lambda m: None,
    "BGR": lambda m: m.setattr(deep3d, "picture", lambda crops: right_picture(crops[..., ::-1].copy())),
    "-1 to 1": lambda m: m.setattr(deep3d, "picture", lambda crops: right_picture(crops) * 2 - 1),
    "bilinear": lambda m: m.setattr(deep3d, "align", lambda f, p: whole_then_cut(f, p, Image.Resampling.BILINEAR)),
    "not antialiased": lambda m: m.setattr(deep3d, "align", not_antialiased),
    "no y flip": lambda m: m.setattr(deep3d, "pose", no_flip),
    "half a unit": lambda m: m.setattr(deep3d, "RESCALE", 51.0),
    "wrong slice": lambda m: m.setattr(deep3d, "EXPRESSION", slice(79, 143)),
}
right_picture = deep3d.picture


def not_antialiased(frame, points):
    scale, x, y = right_pose(points, frame.shape[0])
    factor = 102 / scale
    centre = np.array([[factor, 0, 112 - factor * x], [0, factor, 112 - factor * (frame.shape[0] - y)]])
    return cv2.warpAffine(frame, centre, (224, 224), flags=cv2.INTER_CUBIC)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_step_is_seen(mutant, other, net, independent, monkeypatch):
    frames, points = other[0][:1], other[1][:1].astype(np.float32)
    expected = independent([whole_then_cut(frames[0], points[0])])[:, 80:144]
    MUTANTS[mutant](monkeypatch)
    gap = far(expression.expression(clip_of(frames, points, net)), expected)
    assert (gap < COEFFICIENT) == (mutant == "none"), gap


class Counting(torch.nn.Module):
    """A network that tells how many faces it saw: 257 times the mean grey level of each."""

    def forward(self, pictures):
        return pictures.mean(dim=(1, 2, 3))[:, None].expand(-1, 257)


def test_frames_without_a_face_are_left_out_and_counted(person):
    frames, points = person
    some = points.copy()
    some[[0, 3, 4, 5, 6, 7, 8, 9, 10]] = np.nan
    some[11] = some[11].mean(axis=0) + (some[11] - some[11].mean(axis=0)) / 6  # scale 46 / 6: too small
    clip = clip_of(frames, some, Counting())
    sample = Sample("a", clip, clip_of(frames, points, Counting()))
    assert expression.efid(sample).generated.n == 2
    assert expression.efid_facts(sample) == {"frames": 2, "of": 12, "reference_frames": 12, "reference_of": 12}
    expected = [deep3d.align(frames[i], points[i].astype(np.float32)).mean() / 255 for i in (1, 2)]
    assert expression.coefficients(clip)[:, 0] == pytest.approx(expected, abs=1e-6)


def test_no_face_and_no_reference_are_skipped(person):
    frames, points = person
    nobody = clip_of(frames, np.full_like(points, np.nan), Counting())
    somebody = clip_of(frames, points, Counting())
    for sample in (Sample("a", nobody, somebody), Sample("a", somebody, nobody)):
        with pytest.raises(NotApplicable, match="none in any of its 12 frames"):
            expression.efid(sample)
    with pytest.raises(NotApplicable, match="no reference"):
        expression.efid(Sample("a", somebody))
