"""insightface's iresnet50 and `norm_crop` with seeded weights: `golden/arcface.json`.

No detector took part there: crops are slices of the frames (`plain`), or aligned by given points. So SCRFD's place is
taken by those points here; what SCRFD itself does is in `test_scrfd.py`.
"""

import cv2
import numpy as np
import pytest
import torch
from goldens import NAMES, clips, golden, seeded_state

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics.fidelity import csim as identity
from jwb_dh_v1.networks import arcface, scrfd
from jwb_dh_v1.networks.pool import NetworkPool

pytestmark = pytest.mark.teaser  # large networks on seeded weights: minutes

COSINE = 2e-5  # of plain crops: another summation order; seen 3.3e-7, the least wrong step below moves 1.06e-4
ALIGNED = 1e-3  # of aligned crops: OpenCV 4.11 and 5.0 differ by up to 3e-4; seen 2.3e-5 (5.0), wrong steps 9.7e-3
FEATURE = 1e-5  # of an embedding's length, for norms and components: summation order; seen 7e-7
ALIGNED_FEATURE = 1e-2  # the same for aligned crops, for OpenCV's sake; seen 1.5e-5 (5.0)

TABLE = golden("arcface")
PERSON = TABLE["aligned"]["person_like"]


@pytest.fixture(scope="module")
def net():
    return arcface.from_state(seeded_state("arcface_iresnet50", TABLE))


@pytest.fixture(scope="module")
def pairs():
    """(generated, reference) of the reference clips; the reference's bytes are checked where the table has them."""
    found = {name: clips.make_pair(name)[:2] for name in NAMES}
    for name, (_, reference) in found.items():
        assert clips.sha256(reference) == golden("subject_consistency")["clips"][name]["clip_sha256"]
    return found


@pytest.fixture(scope="module")
def points():
    """The face points that the table was made with, float32 [25, 5, 2]."""
    found = clips.person_face_points(**clips.CLIPS["person_like"][1]).astype(np.float32)
    assert np.array_equal(found[0], np.float32(PERSON["points_frame_0"]))
    return found


class Known:
    """Takes SCRFD's place: a face at known points, frame after frame."""

    def __init__(self, points):
        self.points = iter(points)

    def faces(self, frame):
        points = next(self.points)
        box = np.concatenate([points.min(axis=0), points.max(axis=0), [1]])
        return box[None].astype(np.float32), points[None]


def person_sample(pairs, points, net, at=slice(None)):
    def clip(frames):
        models = NetworkPool(device="cpu")
        models.put(scrfd.NETWORK, Known(points[at]))
        models.put(arcface.NETWORK, net)
        return Clip(frames[at], models=models)

    return Sample("a", *map(clip, pairs["person_like"]))


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check_features(ours, theirs, expected, limit):
    norms = np.array([np.linalg.norm(f, axis=1) for f in (ours, theirs)])
    assert norms == pytest.approx(np.array(expected["norm"]), rel=limit)
    first = np.array([ours[0, :5], theirs[0, :5]])
    assert first == pytest.approx(np.array(expected["first_frame_first5"]), abs=limit * float(norms.max()))


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_equal_insightface(name, net, pairs):
    expected = TABLE["plain"][name]
    y, x, n = expected["y"], expected["x"], expected["frames"]
    ours, theirs = (net(frames[:n, y : y + 112, x : x + 112]) for frames in pairs[name])
    assert ours.shape == (n, 512) and ours.dtype == np.float32
    assert cosine(ours, theirs) == pytest.approx(np.array(expected["frame_to_frame"]), abs=COSINE)
    first = cosine(ours, theirs[:1])
    assert first == pytest.approx(np.array(expected["to_reference_frame_0"]), abs=COSINE)
    assert first.mean() == pytest.approx(expected["mean_to_reference_frame_0"], abs=COSINE)
    check_features(ours, theirs, expected, FEATURE)


def test_csim_of_aligned_faces_equals_insightface(net, pairs, points):
    sample = person_sample(pairs, points, net)
    assert identity.csim(sample).value() == pytest.approx(PERSON["mean_frame_to_frame"], abs=ALIGNED)
    assert identity.csim_curve(sample) == pytest.approx(np.array(PERSON["frame_to_frame"]), abs=ALIGNED)
    ours, theirs = arcface.embeddings(sample.generated), arcface.embeddings(sample.reference)
    assert cosine(ours, theirs[:1]) == pytest.approx(np.array(PERSON["to_reference_frame_0"]), abs=ALIGNED)
    check_features(ours, theirs, PERSON, ALIGNED_FEATURE)
    assert identity.csim_facts(sample) == {"detected_generated": 1, "detected_reference": 1, "pairs": 25, "of": 25}


def test_alignment_equals_insightface(pairs, points):
    # insightface takes its means in float32: seen 2.6e-6 pixels, 1.2e-8 in the turn and scale.
    found = arcface.similarity(points[0], arcface.TEMPLATE)
    assert found == pytest.approx(np.array(PERSON["matrix_frame_0"]), abs=1e-5)
    crops = np.array(
        [[arcface.align(*pair) for pair in zip(frames, points, strict=True)] for frames in pairs["person_like"]]
    )
    # Grey levels: two versions of OpenCV differ by up to 3 in a pixel; seen 0, and 1.8e-4 in the means.
    assert crops.mean(axis=(2, 3, 4)) == pytest.approx(np.array(PERSON["crop_mean"]), abs=0.1)
    middle = crops[:, 0, 56, 56].astype(int)
    assert middle == pytest.approx(np.array(PERSON["crop_frame0_pixel_56_56_rgb"]), abs=3)


# What a plausible implementation might do otherwise.
def other_input(change):
    """Patch the first convolution, which sees (x - 127.5) / 127.5."""

    def patch(net, monkeypatch):
        convolve = net.conv1.forward
        monkeypatch.setattr(net.conv1, "forward", lambda x: convolve(change(x)))

    return patch


NET_MUTANTS = {
    "none": other_input(lambda x: x),
    "BGR": other_input(lambda x: x.flip(1)),
    "x / 255": other_input(lambda x: (x + 1) / 2),
    "(x - 127.5) / 128": other_input(lambda x: x * (127.5 / 128)),
    "0..255": other_input(lambda x: x * 127.5 + 127.5),
    "rows first": lambda net, m: m.setattr(net.fc, "forward", swapped(net.fc)),
}


def swapped(linear):
    """A last layer fed with positions before channels."""
    forward = linear.forward
    return lambda x: forward(x.view(-1, 512, 49).transpose(1, 2).reshape(-1, 512 * 49))


@pytest.mark.parametrize("mutant", NET_MUTANTS)
def test_embeddings_see_a_wrong_step(mutant, net, pairs, monkeypatch):
    expected = TABLE["plain"]["flicker"]
    y, x = expected["y"], expected["x"]
    NET_MUTANTS[mutant](net, monkeypatch)
    ours, theirs = (net(frames[:3, y : y + 112, x : x + 112]) for frames in pairs["flicker"])
    gap = np.abs(cosine(ours, theirs[:1]) - np.array(expected["to_reference_frame_0"])[:3]).max()
    assert (gap < COSINE) == (mutant == "none"), gap


FRONTAL = [[39.730, 51.138], [72.270, 51.138], [56.000, 68.493], [42.463, 87.010], [69.537, 87.010]]


def warp_with(**changes):
    right = cv2.warpAffine
    return lambda frame, matrix, size, flags: right(frame, matrix, size, **({"flags": flags} | changes))


def turned_back(points, target, right=arcface.similarity):
    matrix = right(points, target)
    matrix[:, :2] = matrix[:, :2].T
    return matrix


ALIGN_MUTANTS = {
    "none": lambda m: None,
    "another template": lambda m: m.setattr(arcface, "TEMPLATE", np.float32(FRONTAL)),
    "template of 112 x 96": lambda m: m.setattr(arcface, "TEMPLATE", arcface.TEMPLATE - np.float32([8, 0])),
    "transposed turn": lambda m: m.setattr(arcface, "similarity", turned_back),
    "nearest": lambda m: m.setattr(cv2, "warpAffine", warp_with(flags=cv2.INTER_NEAREST)),
    "cubic": lambda m: m.setattr(cv2, "warpAffine", warp_with(flags=cv2.INTER_CUBIC)),
    "eyes swapped": lambda m: m.setattr(arcface, "TEMPLATE", arcface.TEMPLATE[[1, 0, 2, 4, 3]]),
}


@pytest.mark.parametrize("mutant", ALIGN_MUTANTS)
def test_csim_sees_a_wrong_alignment(mutant, net, pairs, points, monkeypatch):
    ALIGN_MUTANTS[mutant](monkeypatch)
    at = slice(0, 4)
    sample = person_sample(pairs, points, net, at)
    first = cosine(arcface.embeddings(sample.generated), arcface.embeddings(sample.reference)[:1])
    gap = np.abs(identity.csim_curve(sample) - np.array(PERSON["frame_to_frame"])[at]).max()
    gap = max(gap, np.abs(first - np.array(PERSON["to_reference_frame_0"])[at]).max())
    assert (gap < ALIGNED) == (mutant == "none"), gap


def test_a_checkpoint_is_read_from_its_file_and_others_are_named(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "backbone.pth")
    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    assert np.array_equal(arcface.load(tmp_path / "backbone.pth")(crops), net(crops))
    (tmp_path / "backbone.pth").unlink()  # 175 MB
    torch.save({"weight": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(SetupError, match="no ArcFace iresnet50"):
        arcface.load(tmp_path / "head.pth")
    with pytest.raises(SetupError, match="no ArcFace iresnet50"):
        arcface.from_state(net.state_dict() | {"fc.bias": torch.zeros(256)})
