"""DWPose without its weights: small ONNX graphs of the real shapes and names with known answers, and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jwb_dh_v1.networks.detectors import detector, dwpose
from jwb_dh_v1.networks.detectors.litert import greedy


def _yolox_rows(boxes: list[tuple[float, float, float, float, float, int]]) -> np.ndarray:
    """Raw output [1, 8400, 85] for boxes (centre x, y, width, height in the 640 square, score, class), stride 32."""
    raw = np.zeros((1, 8400, 85), np.float32)
    for x, y, w, h, score, kind in boxes:
        row = 80 * 80 + 40 * 40 + int(y // 32) * 20 + int(x // 32)
        raw[0, row, :4] = [x / 32 - x // 32, y / 32 - y // 32, np.log(w / 32), np.log(h / 32)]
        raw[0, row, 4], raw[0, row, 5 + kind] = score, 1.0
    return raw


def _graphs(folder: Path, boxes: list[tuple[float, float, float, float, float, int]]) -> dict[str, Path]:
    """Files with the real networks' input and output names and shapes.

    YOLOX: always `boxes`. Pose: every key point where the third channel (red, if the picture is BGR) is brightest.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def save(
        name: str, nodes: list[object], inputs: list[object], outputs: list[object], constants: list[object]
    ) -> Path:
        graph = helper.make_graph(nodes, name, inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(folder / f"{name}.onnx"))
        return folder / f"{name}.onnx"

    def tensor(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def constant(name: str, value: np.ndarray) -> object:
        return numpy_helper.from_array(value, name)

    zero = np.zeros(1, np.float32)
    yolox = [  # the input takes part, so that its name and shape are checked when the graph runs
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output"]),
    ]
    constants = [constant("zero", zero), constant("rows", _yolox_rows(boxes))]
    paths = {
        "yolox-l": save("yolox", yolox, [tensor("images", 1, 3, 640, 640)], [tensor("output", 1, 8400, 85)], constants)
    }
    nodes: list[object] = [helper.make_node("Gather", ["input", "two"], ["red"], axis=1)]  # [1, 1, 384, 288]
    for axis, other, length in (("x", 2, 288), ("y", 3, 384)):
        nodes += [
            helper.make_node("ReduceMax", ["red"], [f"line_{axis}"], axes=[other], keepdims=0),  # [1, 1, length]
            helper.make_node("Unsqueeze", [f"line_{axis}", "last"], [f"thin_{axis}"]),
            helper.make_node("Expand", [f"thin_{axis}", f"twice_{axis}"], [f"wide_{axis}"]),
            helper.make_node("Reshape", [f"wide_{axis}", f"flat_{axis}"], [f"bins_{axis}"]),
            helper.make_node("Expand", [f"bins_{axis}", f"all_{axis}"], [f"simcc_{axis}"]),
        ]
        paths_constants = [
            constant(f"twice_{axis}", np.array([1, 1, length, 2])),
            constant(f"flat_{axis}", np.array([1, 1, 2 * length])),
            constant(f"all_{axis}", np.array([1, 133, 2 * length])),
        ]
        constants = paths_constants if axis == "x" else [*constants, *paths_constants]
    constants += [constant("two", np.array([2])), constant("last", np.array([3]))]
    outputs = [tensor("simcc_x", 1, 133, 576), tensor("simcc_y", 1, 133, 768)]
    paths["dwpose-l-384"] = save("pose", nodes, [tensor("input", 1, 3, 384, 288)], outputs, constants)
    return paths


def test_dwpose_reads_a_red_spot_through_the_whole_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    # A person at 80..180 x 40..200 of a 320x240 picture: the letterbox scales by 2. The dog and the weak one are out.
    boxes = [
        (260.0, 240.0, 200.0, 320.0, 0.9, 0),
        (500.0, 300.0, 90.0, 90.0, 0.9, 16),
        (100.0, 100.0, 60.0, 60.0, 0.25, 0),
    ]
    found = detector("dwpose", _graphs(tmp_path, boxes))
    frames = np.zeros((9, 240, 320, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[100:104, 110 + 2 * t : 114 + 2 * t, 0] = 255  # red, as the frames are RGB
        frame[60:64, 150:154, 2] = 255  # blue must not draw the points
    result = found.detect([frames], 8.0, full=True)
    result.check(9, 320, 240)
    # exp(log) in float32 moves an edge of a 640 square by less than 1e-4 pixels.
    np.testing.assert_allclose(result.boxes["body"], np.tile([80.0, 40, 180, 200], (9, 1)), atol=1e-3)
    np.testing.assert_allclose(result.scores["body"], 0.9, atol=1e-6)
    assert result.keypoints is not None and result.keypoints.shape == (9, 133, 3)
    # The box grows to 150 x 200 (3:4), so one network pixel is 0.52 of the picture's; the first of the brightest
    # bins is the spot's first full column, which lies within one picture pixel and one network pixel of its edge.
    expected = np.column_stack([110 + 2 * np.arange(9), np.full(9, 100)])
    assert np.abs(result.keypoints[:, :, :2] - expected[:, None]).max() < 1.6
    np.testing.assert_allclose(result.keypoints[..., 2], (255 - 103.53) / 57.375, rtol=1e-5)  # red takes blue's mean
    assert not found.detect([frames], 8.0).keypoints
    for size in (1, 4):
        again = found.detect(np.split(frames, range(size, 9, size)), 8.0, full=True)
        assert again.keypoints is not None and again.keypoints.tobytes() == result.keypoints.tobytes()


def test_dwpose_gives_the_whole_picture_when_no_one_is_found(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = detector("dwpose", _graphs(tmp_path, []))
    frames = np.zeros((3, 240, 320, 3), np.uint8)
    dark = found.detect([frames], 8.0, full=True)
    assert not np.nan_to_num(dark.boxes["face"]).any() and dark.keypoints is not None and not dark.keypoints.any()
    frames[:, 200:204, 10:14, 0] = 255
    result = found.detect([frames], 8.0, full=True)
    assert result.coverage("body") == 0.0
    assert result.keypoints is not None
    # The region is 400 x 533 about the picture's middle: one network pixel is 1.39 pixels.
    assert np.abs(result.keypoints[..., :2] - [10, 200]).max() < 1 + 1.4


def test_dwpose_letterbox_grid_and_suppression() -> None:
    picture = np.full((100, 200, 3), 7, np.uint8)
    square, ratio = dwpose.letterbox(picture, 640)
    assert ratio == 3.2 and square.shape == (1, 3, 640, 640) and square.dtype == np.float32
    assert (square[0, :, :320] == 7).all() and (square[0, :, 320:] == 114).all()
    raw = np.zeros((8400, 6))
    decoded = dwpose.decode_grid(raw, 640)
    np.testing.assert_array_equal(decoded[[0, 1, 80], :4], [[0, 0, 8, 8], [8, 0, 8, 8], [0, 8, 8, 8]])
    np.testing.assert_array_equal(decoded[[6400, 8000, 8399], :4], [[0, 0, 16, 16], [0, 0, 32, 32], [608, 608, 32, 32]])
    # 9x9 boxes count as 10x10: shifted by 4 they share 6/14 = 0.43 and both stay, shifted by 3 7/13 = 0.54.
    rows = np.array([[0.0, 0, 9, 9, 0.9], [4, 0, 13, 9, 0.8], [-3, 0, 6, 9, 0.7]])
    np.testing.assert_array_equal(rows[greedy(rows, dwpose.SUPPRESSED), 4], [0.9, 0.8])


def test_dwpose_simcc_region_and_parts() -> None:
    x, y = np.zeros((3, 576)), np.zeros((3, 768))
    x[0, 101], y[0, 40] = 0.8, 0.6
    x[1, 3] = 0.9  # y is flat zero: absent
    np.testing.assert_array_equal(dwpose.decode_simcc(x, y), [[50.5, 20, 0.6], [-1, -1, 0], [-1, -1, 0]])
    centre, extent = dwpose.pose_region(np.array([0.0, 0, 100, 100]), 0.75)
    np.testing.assert_allclose([*centre, *extent], [50, 50, 125, 125 / 0.75])
    np.testing.assert_allclose(dwpose.pose_region(np.array([0.0, 0, 30, 100]), 0.75)[1], [93.75, 125])
    points = np.array([[1.0, 2, 0.9], [11, 6, 0.7], [50, 50, 0.3]])
    np.testing.assert_allclose(dwpose.part_box(points, 0.0), [1, 2, 11, 6, 0.8])
    np.testing.assert_allclose(dwpose.part_box(points, 0.15), [-0.5, 0.5, 12.5, 7.5, 0.8])
    assert np.isnan(dwpose.part_box(points[2:], 0.0)).all()


def test_dwpose_stays_with_one_person() -> None:
    people = np.array([[0.0, 0, 50, 90, 0.5], [100, 0, 140, 80, 0.9]])
    np.testing.assert_array_equal(dwpose.choose(people, None), people[0])
    np.testing.assert_array_equal(dwpose.choose(people, np.array([98.0, 0, 140, 80, 0.9])), people[1])
    assert dwpose.choose(people[:0], people[0]) is None
