"""SCRFD without its weights: small ONNX graphs with its outputs and known answers, closed forms, and CSIM on top."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import LengthMismatch, MissingPackage, NotApplicable, SetupError
from jwb_dh_v1.metrics.fidelity import csim as identity
from jwb_dh_v1.metrics.region import Crop
from jwb_dh_v1.networks import arcface, scrfd
from jwb_dh_v1.networks.detectors.litert import greedy
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.report.drawing import curve_plot

# Rows of a face: place of its cell in the 640 square, score, distances to left, top, right, bottom, and five points.
POINTS = np.array([[-20.0, -16], [20, -16], [0, 4], [-16, 24], [16, 24]])
LEVEL = {8: 0, 16: 1, 32: 2}


def planted(faces: list[tuple[int, int, int, float, tuple[float, float, float, float]]]) -> list[np.ndarray]:
    """SCRFD's nine outputs for faces (stride, x, y of the cell's corner in pixels, score, distances in pixels)."""
    outputs = [np.zeros((2 * (640 // s) ** 2, width), np.float32) for width in (1, 4, 10) for s in scrfd.STRIDES]
    for stride, x, y, score, distances in faces:
        row = 2 * (y // stride * (640 // stride) + x // stride) + 1  # the second anchor of the cell
        outputs[LEVEL[stride]][row] = score
        outputs[LEVEL[stride] + 3][row] = np.array(distances) / stride
        outputs[LEVEL[stride] + 6][row] = POINTS.ravel() / stride
    return outputs


def write(path: Path, nodes: list[object], ins: tuple[object, ...], outs: list[object], constants: dict) -> Path:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, shape: object) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    values = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, [tensor("input.1", ins)], [tensor(*out) for out in outs], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def detector_file(path: Path, outputs: list[np.ndarray], batched: bool = False) -> Path:
    """A graph that gives `outputs`; scores times the brightest red, which is 0 for black frames and 0.996 for red."""
    helper = pytest.importorskip("onnx").helper
    nodes = [
        helper.make_node("Split", ["input.1"], ["red", "green", "blue"], axis=1),
        helper.make_node("ReduceMax", ["red"], ["most"], keepdims=0),
        helper.make_node("Clip", ["most", "zero", "one"], ["on"]),
    ]
    outs, constants = [], {"zero": 0.0, "one": 1.0}
    for number, value in enumerate(outputs):
        constants[f"planted{number}"] = value[None] if batched else value
        if number < 3:
            nodes.append(helper.make_node("Mul", [f"planted{number}", "on"], [f"{448 + number}"]))
        else:
            nodes.append(helper.make_node("Identity", [f"planted{number}"], [f"{448 + number}"]))
        outs.append((f"{448 + number}", constants[f"planted{number}"].shape))
    return write(path, nodes, (1, 3, "?", "?"), outs, constants)


SPREAD = np.random.default_rng(3).normal(size=(3, 512)).astype(np.float32)


def embedder_file(path: Path, from_mxnet: bool = False, width: int = 512) -> Path:
    """A face network whose embedding is the mean colour (in -1..1) times a fixed matrix."""
    helper = pytest.importorskip("onnx").helper
    nodes, constants, name = [], {"spread": SPREAD[:, :width]}, "input.1"
    if from_mxnet:
        constants |= {"middle": 127.5, "scale": 1 / 127.5}
        nodes += [
            helper.make_node("Sub", ["input.1", "middle"], ["shifted"], "_minusscalar0"),
            helper.make_node("Mul", ["shifted", "scale"], ["scaled"], "_mulscalar0"),
        ]
        name = "scaled"
    nodes += [
        helper.make_node("ReduceMean", [name], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "spread"], ["683"]),
    ]
    return write(path, nodes, ("None", 3, 112, 112), [("683", ("None", width))], constants)


FACES = [
    (32, 192, 128, 0.9, (64.0, 32, 64, 96)),
    (8, 200, 136, 0.8, (64.0, 32, 64, 96)),  # the same face, seen at another stride
    (16, 512, 320, 0.7, (16.0, 16, 16, 16)),  # another
    (16, 48, 320, 0.4, (16.0, 16, 16, 16)),  # too weak
]


@pytest.mark.parametrize("batched", [False, True])
def test_faces_come_back_in_pixels_of_the_frame(tmp_path: Path, batched: bool) -> None:
    pytest.importorskip("onnxruntime")
    found = scrfd.Scrfd(detector_file(tmp_path / "det_10g.onnx", planted(FACES), batched))
    frame = np.zeros((240, 320, 3), np.uint8)
    assert [a.shape for a in found.faces(frame)] == [(0, 5), (0, 5, 2)]
    frame[10:12, 10:12, 2] = 255  # blue is not red
    assert len(found.faces(frame)[0]) == 0
    frame[10:14, 10:14, 0] = 255
    boxes, points = found.faces(frame)  # 320 x 240 is doubled into the square
    assert boxes.dtype == points.dtype == np.float32
    on = 127.5 / 128
    np.testing.assert_allclose(boxes, [[64, 48, 128, 112, 0.9 * on], [248, 152, 264, 168, 0.7 * on]], rtol=1e-6)
    np.testing.assert_allclose(points, np.array([[192, 128], [512, 320]])[:, None] / 2 + POINTS / 2, rtol=1e-6)
    upright = np.full((320, 200, 3), 255, np.uint8)
    assert found.faces(upright)[0][0, :4] == pytest.approx([64, 48, 128, 112])  # its height is doubled
    for size in ((1, 1), (2, 1500), (1500, 1)):
        assert len(found.faces(np.full((*size, 3), 255, np.uint8))[0]) == 2


def test_letterbox() -> None:
    frame = np.zeros((100, 400, 3), np.uint8)
    frame[:] = 255, 10, 0
    picture, ratio = scrfd.letterbox(frame)
    assert picture.shape == (1, 3, 640, 640) and picture.dtype == np.float32 and ratio == 1.6
    for plane, level in enumerate((255, 10, 0)):
        assert (picture[0, plane, :160] == (level - 127.5) / 128).all()
    assert (picture[0, :, 160:] == -127.5 / 128).all()
    picture, ratio = scrfd.letterbox(np.full((854, 480, 3), 255, np.uint8))
    assert ratio == 640 / 854
    assert (picture[0, 0, :, :359] > 0).all() and (picture[0, 0, :, 359:] < 0).all()  # 359.7 is cut, not rounded


def test_cells_and_threshold() -> None:
    assert [len(scrfd.centres(s)) for s in scrfd.STRIDES] == [12800, 3200, 800]
    np.testing.assert_array_equal(
        scrfd.centres(16)[[0, 1, 2, 80, 3199]], [[0, 0], [0, 0], [16, 0], [0, 16], [624, 624]]
    )
    at, below = 0.5, float(np.nextafter(np.float32(0.5), np.float32(0)))
    spots = [(8, 80, 80, at, (4.0, 4, 4, 4)), (8, 240, 80, below, (4.0, 4, 4, 4))]
    boxes, _ = scrfd.decode(planted(spots), 1.0)
    np.testing.assert_array_equal(boxes, [[76, 76, 84, 84, 0.5]])


def plain_suppression(boxes: np.ndarray) -> list[int]:
    """The textbook's loop over pixels counted inclusively."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-boxes[i, 4], i)):
        for j in kept:
            w = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]) + 1
            h = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]) + 1
            both = max(w, 0) * max(h, 0)
            areas = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (boxes[i], boxes[j]))
            if both / (areas - both) > 0.4:
                break
        else:
            kept.append(i)
    return kept


def test_suppression() -> None:
    # 9x9 boxes count as 10x10: shifted by 4 they share 60 / 140 = 0.43 (as 9x9 it were 0.38), by 5 50 / 150.
    rows = np.array([[5.0, 0, 14, 9, 0.7], [0, 0, 9, 9, 0.9], [-4, 0, 5, 9, 0.8]])
    np.testing.assert_array_equal(greedy(rows, scrfd.OVERLAP), [1, 0])
    assert greedy(rows[:0], scrfd.OVERLAP).shape == (0,)
    rng = np.random.default_rng(0)
    for n in (1, 40, 200):
        low = rng.uniform(0, 100, (n, 2))
        boxes = np.column_stack([low, low + rng.uniform(1, 60, (n, 2)), rng.integers(50, 100, n) / 100])
        found = greedy(boxes, scrfd.OVERLAP)
        assert found.tolist() == plain_suppression(boxes)
        assert n == 1 or 1 < len(found) < n


def test_similarity_and_crop() -> None:
    for turn, scale, shift in ((0.0, 1.0, (0, 0)), (0.4, 0.3, (5, -7)), (-2.5, 4.0, (100, 30))):
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        matrix = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
        moved = arcface.TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(arcface.similarity(arcface.TEMPLATE, moved), matrix, atol=1e-9)
    mirrored = arcface.similarity(arcface.TEMPLATE * [-1, 1], arcface.TEMPLATE)
    assert np.linalg.det(mirrored[:, :2]) > 0  # a face seen in a mirror is not turned inside out
    # Points where the template has them: the crop is the frame's corner, and black where the frame ends.
    frame = np.random.default_rng(0).integers(1, 256, (64, 80, 3), np.uint8)
    crop = arcface.align(frame, arcface.TEMPLATE)
    assert crop.shape == (112, 112, 3) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop[:64, :80], frame)
    assert not crop[64:].any() and not crop[:, 80:].any()
    assert arcface.align(frame, arcface.TEMPLATE, 224).shape == (224, 224, 3)
    np.testing.assert_array_equal(arcface.align(frame, arcface.TEMPLATE, 224)[:128:2, :160:2], frame)


def test_the_persons_face_is_large_and_near_the_middle() -> None:
    middle, aside, small = [40.0, 40, 60, 60, 0.6], [0, 40, 20, 60, 0.9], [48, 48, 52, 52, 0.9]
    assert scrfd.main_face(np.array([aside, middle]), 100, 100) == 1
    assert scrfd.main_face(np.array([small, aside]), 100, 100) == 1  # 400 x 0.43 against 16
    assert scrfd.main_face(np.empty((0, 5)), 100, 100) is None
    assert scrfd.main_face(np.array([[200.0, 200, 210, 210, 0.9]]), 100, 100) == 0


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[scrfd.Scrfd, arcface.OnnxArcFace]:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("graphs")
    detector = scrfd.Scrfd(detector_file(folder / "det_10g.onnx", planted(FACES)))
    net = arcface.load(embedder_file(folder / "w600k_r50.onnx"))
    assert isinstance(net, arcface.OnnxArcFace)
    return detector, net


def sample_of(ours: Clip | np.ndarray, theirs: Clip | np.ndarray, networks: tuple) -> Sample:
    clips = []
    for given in (ours, theirs):
        models = NetworkPool(device="cpu")
        for network, net in zip((scrfd.NETWORK, arcface.NETWORK), networks, strict=True):
            models.put(network, net)
        clip = Clip(given) if isinstance(given, np.ndarray) else given
        clip.models = models
        clips.append(clip)
    return Sample("a", *clips)


def coloured(n: int, seed: int) -> np.ndarray:
    """Frames of one colour each, red always full, so that the detector sees its faces."""
    frames = np.empty((n, 240, 320, 3), np.uint8)
    frames[:] = np.random.default_rng(seed).integers(0, 256, (n, 1, 1, 3))
    frames[..., 0] = 255
    return frames


def cosine(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """What `embedder_file` makes of frames of one colour."""
    a, b = ((frames[:, 0, 0] / 127.5 - 1) @ SPREAD.astype(float) for frames in (ours, theirs))
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_both_kinds_of_onnx_file_are_fed_as_they_expect(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    expected = (crops.mean(axis=(1, 2)) / 127.5 - 1) @ SPREAD
    for from_mxnet, first in ((False, ["ReduceMean", "MatMul"]), (True, ["Sub", "Mul", "ReduceMean", "MatMul"])):
        path = embedder_file(tmp_path / "w600k_r50.onnx", from_mxnet)
        assert arcface.first_operations(path) == first
        found = arcface.load(path).to("cpu")(crops)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)  # float32 sums of 12544 numbers; seen 2.4e-8


def test_csim_through_detector_alignment_and_network(networks: tuple) -> None:
    ours, theirs = coloured(20, 0), coloured(20, 1)
    ours[3], theirs[3:5], theirs[19] = 0, 0, 0  # no face
    sample = sample_of(ours, theirs, networks)
    seen = np.ones(20, bool)
    seen[[3, 4, 19]] = False
    points = scrfd.five_points(sample.generated)
    assert points.shape == (20, 5, 2) and points.dtype == np.float32
    assert np.flatnonzero(np.isnan(points).any(axis=(1, 2))).tolist() == [3]
    np.testing.assert_allclose(points[0], [96, 64] + POINTS / 2, rtol=1e-6)  # the larger face
    curve, expected = identity.csim_curve(sample), cosine(ours, theirs)
    np.testing.assert_array_equal(np.isfinite(curve), seen)
    # ONNX Runtime's mean adds 12544 equal float32 numbers one after the other; seen 9.7e-6.
    np.testing.assert_allclose(curve[seen], expected[seen], atol=1e-4)
    assert identity.csim(sample).value() == pytest.approx(expected[seen].mean(), abs=1e-4)
    facts = {"detected_generated": 0.95, "detected_reference": 0.85, "pairs": 17, "of": 20}
    assert identity.csim_facts(sample) == facts
    svg = curve_plot(range(20), tuple(curve), title="CSIM", higher_is_better=True)
    assert f"over 20 frames: from {curve[seen].min():.4g}" in svg and f"mean {curve[seen].mean():.4g}" in svg
    again = sample_of(theirs, theirs, networks)
    assert identity.csim(again).value() == pytest.approx(1, abs=1e-12)


def test_csim_pairs_crops_by_moment(networks: tuple) -> None:
    frames = coloured(40, 2)

    def part(start: int, stop: int) -> Crop:
        n = stop - start
        return Crop(Clip(frames), np.arange(start, stop), np.tile([0, 0, 320, 240], (n, 1)), (320, 240), "face", "area")

    sample = sample_of(part(5, 30), part(12, 40), networks)
    assert identity.csim_curve(sample) == pytest.approx(np.ones(18), abs=1e-6)
    assert identity.csim_facts(sample)["of"] == 18
    assert identity.csim(sample_of(frames[:-1], frames[1:], networks)).value() < 0.9  # one frame off is seen


def test_csim_without_faces_or_reference(networks: tuple) -> None:
    frames, black = coloured(4, 3), np.zeros((4, 240, 320, 3), np.uint8)
    with pytest.raises(NotApplicable, match="found in 4 of 4 generated frames and in 0 of the reference's"):
        identity.csim(sample_of(frames, black, networks))
    half = np.concatenate([frames[:2], black[2:]])
    with pytest.raises(NotApplicable, match="never at the same moment"):
        identity.csim_curve(sample_of(half, half[::-1], networks))
    with pytest.raises(NotApplicable, match="no reference"):
        identity.csim(Sample("a", sample_of(frames, frames, networks).generated))
    with pytest.raises(LengthMismatch):
        identity.csim(sample_of(frames, coloured(40, 3), networks))
    assert identity.csim(sample_of(frames[:1], frames[:1], networks)).value() == pytest.approx(1, abs=1e-6)
    tiny = np.full((2, 2, 3, 3), 255, np.uint8)
    assert identity.csim(sample_of(tiny, tiny, networks)).value() == pytest.approx(1, abs=1e-6)


def test_wrong_files_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    detector = detector_file(tmp_path / "det.onnx", planted([]))
    embedder = embedder_file(tmp_path / "rec.onnx")
    text = tmp_path / "page.onnx"
    text.write_text("<html>not found</html>")
    for path in (text, embedder):
        with pytest.raises(SetupError, match=rf"{path.stem}\.onnx cannot be run"):
            scrfd.Scrfd(path)
    with pytest.raises(SetupError, match="no SCRFD with five points"):
        scrfd.Scrfd(detector_file(tmp_path / "small.onnx", planted([])[:6]))
    with pytest.raises(SetupError, match=r"det\.onnx cannot be run"):
        arcface.load(detector)
    with pytest.raises(SetupError, match=r"no face network: two crops gave \(2, 128\)"):
        arcface.load(embedder_file(tmp_path / "narrow.onnx", width=128))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for build in (lambda: scrfd.Scrfd(detector), lambda: arcface.load(embedder)):
        with pytest.raises(MissingPackage, match=r"pip install \"jwb-dh-v1\[dwpose\]\""):
            build()
