"""What must not change a score: batches, chunks, threads, order, company, and the form a clip comes in.

lite/1 runs whole, on its real networks and a real face. Of standard/1 the features are looked at, on networks with
drawn weights. How a set is cut into shards is in `test_resume.py`.
"""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from goldens import seeded
from media import write_mp4

from jwb_dh_v1 import Clip, Sample, score
from jwb_dh_v1.media import clip
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.metrics import region
from jwb_dh_v1.metrics.fidelity import csim as identity
from jwb_dh_v1.metrics.fidelity import e_fid as expression
from jwb_dh_v1.metrics.fidelity import fid as fid_file
from jwb_dh_v1.networks import arcface, clip_image, dino, inception, mobilenet, musiq
from jwb_dh_v1.networks.memory import Memory
from jwb_dh_v1.networks.pool import CACHE_BYTES, NetworkPool
from jwb_dh_v1.networks.weights import resolve_all
from jwb_dh_v1.scoring.plan import make_plan

pytestmark = pytest.mark.teaser  # large networks on seeded weights: minutes

FRAMES, WIDTH, HEIGHT = 12, 160, 128  # half a second: the shortest in which a face counts as seen
REGIONS = ["body", "face"]
PEOPLE = 3

# The largest difference of any score (relative above 1) or feature (relative to the largest). Work that is cut in
# another way is added in another order, so float32 features move in their last bits. Observed: 6e-8 for scores and
# batches, 1.7e-7 (a FID of 82) for threads, 8e-7 for features and batches.
ROUNDING = 1e-5


def person(number):
    """A real face that slides by a pixel a frame, uint8 [12, 128, 160, 3]; every number stands elsewhere."""
    small = cv2.resize(skimage.data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    corners = [(2 + 3 * number + t // 4, 40 + 2 * number + t) for t in range(FRAMES)]
    return np.stack([small[y : y + HEIGHT, x : x + WIDTH] for y, x in corners])


def face(number):
    """Where the face of `person(number)` is."""
    corners = np.float32([(72 - 2 * number - t, 36 - 3 * number - t // 4) for t in range(FRAMES)])
    return Annotations({"face": np.hstack([corners, corners + 52])}, {"face": np.ones(FRAMES, np.float32)}, "test")


@pytest.fixture(scope="module", autouse=True)
def fewer_faces():
    """Three faces a clip for CSIM instead of 16, and six for E-FID instead of 32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "FRAMES", 3)
        patch.setattr(expression, "FRAMES", 6)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Generated and reference file of each person; the generated one is moved by a pixel and coded worse."""
    folder, found = tmp_path_factory.mktemp("people"), []
    for number in range(PEOPLE):
        found.append((folder / f"{number}-generated.mp4", folder / f"{number}-reference.mp4"))
        write_mp4(found[-1][0], np.roll(person(number), 1, axis=2), 25, crf=34)
        write_mp4(found[-1][1], person(number), 25)
    return found


@pytest.fixture(scope="module")
def networks():
    """The networks of lite/1."""
    plan = make_plan("lite", regions=REGIONS, boxes="annotations")
    return NetworkPool(resolve_all(plan.weights), "cpu", "annotations")


def forgetful(models):
    """The same networks without their memory of features."""
    twin = copy.copy(models)
    twin._features = Memory(CACHE_BYTES)
    return twin


def sample(files, number, form=Path, reference=None):
    """One person's sample; `form` makes a clip's source of a path."""
    ours, theirs = map(form, files[number])
    reference = reference or Clip(theirs, annotations=face(number))
    return Sample(str(number), Clip(ours), reference, person_id=f"person {number % 2}")


def scored(samples, models, metrics=None):
    result = score(samples, metrics, REGIONS, protocol="lite", boxes="annotations", device="cpu", models=models)
    assert result.complete, [row.message for row in result.rows() if row.status == "failed"]
    return result


def values(result):
    return {(cell.metric, cell.region): cell.value for cell in result.scores}


def numbers(result):
    """Every number of a result, by cell and by sample and cell; NaN where there is none."""
    found = {(c.metric, c.region): [c.value, c.n, c.coverage, *(c.ci95 or ())] for c in result.scores}
    for row in result.rows():
        found[row.sample_id, row.metric, row.region] = [row.value, row.n, row.coverage, *row.curve]
    return {key: np.array(given, np.float64) for key, given in found.items()}


def gap(one, other):
    """The largest difference of any of some `numbers`, relative above 1."""
    assert one.keys() == other.keys()
    largest = 0.0
    for key, a in one.items():
        b = other[key]
        assert np.array_equal(np.isnan(a), np.isnan(b)), key
        largest = max(largest, np.nanmax(np.abs(a - b) / np.maximum(1, np.abs(a)), initial=0))
    return largest


@pytest.fixture(scope="module")
def usual(files, networks):
    """The first person scored from paths, with every default."""
    return scored([sample(files, 0)], forgetful(networks))


@pytest.mark.teaser
def test_every_metric_gives_a_number(usual):
    """So that the comparisons below compare something. One clip has no FVD, and a silent one no WER."""
    assert {key for key, value in values(usual).items() if value is None} == {
        ("fvd", "body"),
        ("fvd", "face"),
        ("wer", "speech"),
    }
    assert len(values(usual)) >= 18
    other = numbers(usual)
    other["ssim", "face"] = other["ssim", "face"] + 1e-12
    assert 0 < gap(other, numbers(usual)) < 1e-11


# a clip's form, its chunks and batches, threads

FORMS = {
    "bytes": lambda path: path.read_bytes(),
    "row": lambda path: {"bytes": path.read_bytes(), "path": "elsewhere.mp4"},
    "array": lambda path: Clip(path).frames.copy(),
}


@pytest.mark.teaser
@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_clip_changes_nothing(form, files, networks, usual):
    found = scored([sample(files, 0, FORMS[form])], forgetful(networks))
    assert gap(numbers(found), numbers(usual)) == 0


@pytest.mark.teaser
@pytest.mark.parametrize(("size", "budget"), [(1, clip.FRAME_BUDGET), (5, 0)], ids=["kept", "streamed"])
def test_the_size_of_chunks_changes_nothing(size, budget, files, networks, usual, monkeypatch):
    monkeypatch.setattr(clip, "FRAME_BUDGET", budget)
    for module in (clip, region):
        monkeypatch.setattr(module, "CHUNK", size)
    # A default is bound when its function is made.
    assert Clip.chunks.__defaults__[0] == Sample.pairs.__defaults__[0] == 32
    monkeypatch.setattr(Clip.chunks, "__defaults__", (size, *Clip.chunks.__defaults__[1:]))
    monkeypatch.setattr(Sample.pairs, "__defaults__", (size,))
    found = scored([sample(files, 0)], forgetful(networks))
    assert gap(numbers(found), numbers(usual)) == 0


def batches(net):
    """A list that grows by the number of pictures in each call of a network, and what ends that."""
    seen = []
    return seen, net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))


@pytest.mark.teaser
@pytest.mark.parametrize(("size", "cut"), [(1, {1}), (32, {FRAMES})])
def test_batches_change_lite_scores_by_rounding(size, cut, files, networks, usual, monkeypatch):
    assert mobilenet.BATCH == 8
    monkeypatch.setattr(mobilenet, "BATCH", size)
    seen, hook = batches(networks.get(mobilenet.NETWORK))
    try:
        found = scored([sample(files, 0)], forgetful(networks))
    finally:
        hook.remove()
    assert set(seen) == cut
    assert gap(numbers(found), numbers(usual)) < ROUNDING


@pytest.mark.teaser
def test_threads_change_scores_by_rounding(files, networks):
    before, found = (torch.get_num_threads(), cv2.getNumThreads()), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            found.append(numbers(scored([sample(files, 0)], forgetful(networks))))
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    assert gap(*found) < ROUNDING
    for pixels in (("ssim", "body"), ("psnr", "body"), ("ssim", "face"), ("psnr", "face")):
        assert np.array_equal(found[0][pixels], found[1][pixels], equal_nan=True)


# The checkpoint, the declaration, what makes a network of it, its features, where the size of a batch is.
STANDARD = {
    "dino": ("dino_vitbase16", dino.NETWORK, dino.from_state, dino.features, dino),
    "clip_b32": ("clip_vit_b32", clip_image.B32, clip_image.from_state, clip_image.features_b32, clip_image),
    "musiq": ("musiq_spaq", musiq.NETWORK, musiq.from_state, musiq.scores, musiq),
    "inception_fid": (
        "inception_fid_2015",
        inception.FID,
        inception.inception_fid,
        fid_file.inception_2015,
        fid_file,
    ),
    "arcface": ("arcface_iresnet50", arcface.NETWORK, arcface.from_state, arcface.embeddings, arcface),
}


def drawn_state(name):
    """By the rule of `goldens.seeded_state`, but drawn by torch: other numbers, in a fifth of the time."""
    torch.manual_seed(0)
    found = {}
    for entry in seeded.load_spec(name)["tensors"]:
        key, shape = entry["key"], entry["shape"]
        if not name.startswith("clip") or key.startswith("visual."):
            offset, std = seeded.offset_std(key, tuple(shape))
            noise = entry.get("offset", offset) + entry.get("std", std) * torch.randn(shape)
            found[key] = 1 + 0.1 * noise.abs() if key.endswith("running_var") else noise
    return found


@pytest.mark.parametrize("name", STANDARD)
def test_batches_change_standard_features_by_rounding(name, monkeypatch):
    checkpoint, network, make, feature, module = STANDARD[name]
    net, found = make(drawn_state(checkpoint)), []
    points = np.float32([(90, 55), (107, 55), (98, 65), (92, 75), (106, 75)])  # for arcface: where SCRFD might look
    for size, cut in ((module.BATCH, [3]), (1, [1, 1, 1]), (2, [2, 1])):
        monkeypatch.setattr(module, "BATCH", size)
        models = NetworkPool(device="cpu")
        models.put(network, net)
        short = Clip(person(0)[:3], models=models)
        short.feature("scrfd-5-points", lambda: np.stack([points] * 3))
        seen, hook = batches(net)
        found.append(feature(short))
        hook.remove()
        assert seen == cut
    scale = np.abs(found[0]).max()
    assert np.ptp(found[0], axis=0).max() > 100 * ROUNDING * scale  # frames are told apart
    for other in found[1:]:
        assert np.abs(other - found[0]).max() < ROUNDING * scale


# a sample among others


@pytest.mark.teaser
def test_order_and_company_change_nothing(files, networks, usual):
    shared = forgetful(networks)
    forth = scored([sample(files, number) for number in (0, 1, 2)], shared)
    back = scored([sample(files, number) for number in (2, 0, 1)], shared)
    one, other = numbers(forth), numbers(back)
    rows = {key for key in one if len(key) == 3}
    assert gap(*({key: found[key] for key in rows} for found in (one, other))) == 0
    alone = {key: found for key, found in numbers(usual).items() if key[0] == "0"}
    assert gap(alone, {key: one[key] for key in alone}) == 0

    # The sums behind these are exact in any order; E-FID's 18 faces in 16 dimensions are kept as sums, too.
    apart = {key[0] for key, value in values(forth).items() if values(back)[key] != value}
    assert values(forth)["e_fid", "face"] > 0
    # The Gram form of FID and FVD and the intervals follow the order in float64.
    assert apart <= {"fid", "fvd"}
    assert gap(one, other) < 1e-10


@pytest.mark.teaser
def test_a_shared_reference_is_as_good_as_one_each(files, networks):
    def clips(count):
        return [Clip(files[0][1], annotations=face(0)) for _ in range(count)]

    found = []
    for references in (clips(1) * 2, clips(2)):
        samples = [sample(files, number, reference=references[number]) for number in range(2)]
        found.append(numbers(scored(samples, forgetful(networks), ["fid", "ssim", "e_fid"])))
    assert gap(*found) == 0
