"""Detectors: closed forms for tracks, squares, SSD decoding, masks and the choice of one person."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from jwb_dh_v1.errors import MissingPackage, SetupError
from jwb_dh_v1.media import coco
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.networks.detectors import DETECTOR_WEIGHTS, detector, tracks
from jwb_dh_v1.networks.detectors.litert import Square, Ssd, iou, ssd_anchors, suppress
from jwb_dh_v1.networks.detectors.mediapipe import hand_region, palm_region, sharpen, tiles
from jwb_dh_v1.networks.detectors.person import Hand, Sighting, assemble, hand_sides

NAN = np.nan

# ---------------------------------------------------------------------------------------------------------- tracks


@pytest.mark.parametrize(("fps", "every"), [(1, 1), (8, 1), (12, 2), (24, 3), (25, 3), (30, 4), (60, 8)])
def test_stride(fps: float, every: int) -> None:
    assert tracks.stride(fps) == every


def test_fill_is_linear_between_sightings_and_nan_beyond_half_a_second() -> None:
    frames = np.arange(0, 40, 4)  # 8 fps: a gap of 4 frames is 0.5 s, of 8 frames 1 s
    values = np.full((10, 1), NAN)
    values[[0, 1, 3, 4], 0] = [0, 4, 100, 104]
    out = tracks.fill(values, frames, 40, 8.0)[:, 0]
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[:5], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(out[5:7], [4, 4])  # nearer to frame 4 than to the next look
    assert np.isnan(out[7:11]).all()  # frames 4 and 12 are 1 s apart
    np.testing.assert_array_equal(out[11:17], [100, 100, 101, 102, 103, 104])
    assert np.isnan(out[19:]).all()
    bridged = tracks.fill(values, frames, 40, 16.0)[:, 0]  # now 8 frames are 0.5 s
    np.testing.assert_allclose(bridged[4:13], np.linspace(4, 100, 9), rtol=1e-6)  # float32 of a value near 100


def test_fill_holds_the_last_look_to_the_end_and_leaves_an_empty_clip_empty() -> None:
    out = tracks.fill(np.array([[NAN], [5.0]]), np.array([0, 3]), 6, 24.0)
    np.testing.assert_array_equal(out[:, 0], [NAN, NAN, 5, 5, 5, 5])
    assert tracks.fill(np.zeros((0, 4)), np.zeros(0, int), 0, 25.0).shape == (0, 4)


def test_smoothing_keeps_steady_motion_and_averages_a_spike() -> None:
    line = np.column_stack([np.arange(30.0), 5 - 2 * np.arange(30.0)])
    np.testing.assert_allclose(tracks.smooth(line, 3.0), line, atol=1e-12)  # rounding of float64
    spike = np.zeros((21, 1))
    spike[10] = 1
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
    np.testing.assert_allclose(tracks.smooth(spike, 2.0)[10], kernel[6] / kernel.sum(), atol=1e-12)
    runs = np.array([[0.0], [0.0], [NAN], [9.0], [9.0]])
    np.testing.assert_array_equal(tracks.smooth(runs, 5.0), runs)  # nothing leaks from run to run


def test_two_people_stay_apart_and_the_largest_is_the_main_one() -> None:
    big = [np.array([10.0 + t, 10, 50 + t, 50]) for t in range(6)]
    small = [np.array([100.0 - t, 10, 120 - t, 30]) for t in range(6)]
    seen = [np.array([s, b]) if t % 2 else np.array([b, s]) for t, (b, s) in enumerate(zip(big, small, strict=True))]
    found = tracks.link(seen, gap=2, reach=1.0)
    assert sorted(len(t) for t in found) == [6, 6]
    main = tracks.main_person(found, seen)
    assert [[seen[s][r][2] - seen[s][r][0] for s, r in t] for t in main] == [[40.0] * 6]


def test_a_cut_ends_a_track_and_nothing_glides_across_it() -> None:
    seen = [np.array([[0.0, 0, 10, 10]])] * 3 + [np.array([[80.0, 0, 90, 10]])] * 3
    found = tracks.link(seen, gap=4, reach=1.0)
    assert [len(t) for t in found] == [3, 3]
    dense = tracks.fill_tracks(found, seen, np.arange(0, 12, 2), 12, 16.0, 4, sigma=0.15)
    assert set(np.unique(dense[:, 0])) == {0.0, 80.0}


def test_a_lone_sighting_is_dropped_unless_the_clip_has_no_second() -> None:
    assert tracks.lasting([[(3, 0)], [(0, 0), (1, 0)]], 6) == [[(0, 0), (1, 0)]]
    assert tracks.lasting([[(0, 0)]], 1) == [[(0, 0)]]


def test_finish_cuts_at_the_edges_and_drops_what_is_outside() -> None:
    boxes = np.array([[-5, -5, 20, 20], [200, 5, 220, 9], [NAN] * 4], np.float32)
    cut, scores = tracks.finish(boxes, np.array([0.5, 0.9, NAN]), 100, 50)
    np.testing.assert_array_equal(cut, np.array([[0, 0, 20, 20], [NAN] * 4, [NAN] * 4], np.float32))
    np.testing.assert_array_equal(scores, np.array([0.5, 0, 0], np.float32))
    Annotations({"face": cut}, {"face": scores}, "test").check(3, 100, 50)


# --------------------------------------------------------------------------------------------- squares, SSD, masks


def test_anchor_layouts_have_the_networks_sizes() -> None:
    for size, strides, per_layer, count in (
        (128, (8, 16, 16, 16), 2, 896),
        (192, (4,), 1, 2304),
        (192, (8, 16, 16, 16), 2, 2016),
        (224, (8, 16, 32, 32, 32), 2, 2254),
    ):
        assert ssd_anchors(size, strides, per_layer).shape == (count, 2)
    anchors = ssd_anchors(128, (8, 16, 16, 16))
    np.testing.assert_array_equal(anchors[:3], [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]])
    np.testing.assert_array_equal(anchors[512:519, 0], [1 / 16] * 6 + [3 / 16])  # six a cell on the coarse grid


def test_iou_and_weighted_suppression() -> None:
    box, others = np.array([0.0, 0, 2, 2]), np.array([[1.0, 1, 3, 3], [5, 5, 6, 6], [0, 0, 2, 2], [1, 1, 1, 1]])
    np.testing.assert_allclose(iou(box, others), [1 / 7, 0, 1, 0])
    rows = np.array([[0, 0, 10, 10, 0.6], [2, 0, 12, 10, 0.9], [50, 50, 60, 60, 0.5]])  # the first two: 8/12
    merged = (0.6 * rows[0, :4] + 0.9 * rows[1, :4]) / 1.5
    np.testing.assert_allclose(suppress(rows), [[*merged, 0.9], rows[2]])
    assert suppress(rows[:0]).shape == (0, 5)


def test_a_turned_square_maps_its_corners_and_cuts_what_it_covers() -> None:
    square = Square(50.0, 40.0, 20.0, np.pi / 2)  # turned clockwise: its right side points down
    corners = square.to_picture(np.array([[0, 0], [1, 0], [1, 1]]))
    np.testing.assert_allclose(corners, [[60, 30], [60, 50], [40, 50]], atol=1e-12)
    frame = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    np.testing.assert_array_equal(Square(50, 40, 20).cut(frame, 20), frame[30:50, 40:60])  # whole pixels: exact
    assert not Square(500, 400, 20).cut(frame, 8, black=True).any()
    np.testing.assert_array_equal(Square(500, 400, 20).cut(frame, 8), np.tile(frame[-1, -1], (8, 8, 1)))


def test_detector_decodes_a_known_answer() -> None:
    class Known:
        size = 128

        def __call__(self, picture: np.ndarray, low: float) -> list[np.ndarray]:
            assert picture.shape == (128, 128, 3) and low == -1.0
            boxes, logits = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -9.0, np.float32)
            boxes[0, 40, :6] = [4, 8, 32, 16, -4, 0]  # centre offset, extent, first point, in input pixels
            logits[0, 40] = 2.0
            return [boxes, logits]

    found = Ssd(Known(), (8, 16, 16, 16), 0.5, low=-1.0)(np.zeros((100, 200, 3), np.uint8), Square(100, 50, 200))  # type: ignore[arg-type]
    scale = 200 / 128  # anchor 40 is cell (20 % 16, 1): its centre is at (4.5, 1.5) * 8 pixels of the input
    x, y = (36 + 4) * scale, (12 + 8) * scale - 50  # the letterbox begins 50 pixels above the picture
    expected = [x - 16 * scale, y - 8 * scale, x + 16 * scale, y + 8 * scale, 1 / (1 + np.exp(-2)), 32 * scale]
    np.testing.assert_allclose(found[0, :6], expected, rtol=1e-12)
    assert len(found) == 1


def test_hand_regions_point_the_hand_upwards() -> None:
    palm = np.array([40.0, 40, 60, 60, 0.9, 50, 60, 0, 0, 50, 40, *([0] * 8)])  # wrist below, knuckle above
    region = palm_region(palm)
    assert (region.x, region.y, region.side, region.angle) == pytest.approx((50, 40, 52, 0))
    palm[[5, 6, 9, 10]] = [40, 50, 60, 50]  # fingers to the right: turned a quarter clockwise, moved right
    region = palm_region(palm)
    assert (region.x, region.y, region.angle) == pytest.approx((60, 50, np.pi / 2))
    points = np.tile([50.0, 50.0], (21, 1))
    points[[0, 5, 9, 13, 17]] = [[50, 90], [40, 50], [47, 48], [53, 50], [60, 52]]
    again = hand_region(points)
    x, y = (again.to_picture(np.array([0.5, 0.5])) - points[0]) @ np.array([1, 0]), again.side
    assert abs(again.angle) < 0.1 and again.y < 70 and y == pytest.approx(84, rel=0.1) and abs(x) < 10


def test_sharpen_moves_to_the_centre_of_mass() -> None:
    heat = np.zeros((64, 64, 2))
    heat[20, 30, 0] = heat[20, 32, 0] = 0.8
    heat[20, 30, 1] = 0.4  # too weak
    points = np.array([[0.48, 0.31], [0.48, 0.31]])
    np.testing.assert_allclose(sharpen(points, heat), [[31 / 64, 20 / 64], [0.48, 0.31]])


def test_tiles_cover_the_picture() -> None:
    for width, height in ((1280, 720), (720, 1280), (640, 640), (300, 7)):
        covered = np.zeros((height, width), bool)
        for tile in tiles(width, height):
            x, y, half = tile.x, tile.y, tile.side / 2
            covered[max(0, round(y - half)) : round(y + half), max(0, round(x - half)) : round(x + half)] = True
        assert covered.all()


def test_masks_have_cocos_bytes() -> None:
    # By hand from maskApi.c: 256 = 8 * 32 + 0 -> chr(48+32+0), chr(48+8).
    assert coco.rle_encode(np.zeros((16, 16), bool)) == {"size": [16, 16], "counts": b"P8"}
    centre = np.zeros((3, 3), bool)
    centre[1, 1] = True
    assert coco.rle_encode(centre)["counts"] == b"414"
    column = np.array([[0, 1, 1, 0, 0, 0, 1]]).T  # runs 1 2 3 1: the fourth as 1 - 2 = -1 -> bits 31, no more
    assert coco.rle_encode(column)["counts"] == b"123O"
    assert coco.rle_encode(np.array([[0, 1], [0, 1]]))["counts"] == b"22"  # columns, not rows
    assert coco.rle_encode(np.ones((2, 2)))["counts"] == b"04"


def test_masks_round_trip() -> None:
    rng = np.random.default_rng(1)
    for shape, share in (((1, 1), 0.5), ((37, 53), 0.5), ((120, 90), 0.02), ((1, 4000), 0.001), ((700, 900), 0.9)):
        mask = rng.random(shape) < share
        np.testing.assert_array_equal(coco.rle_decode(coco.rle_encode(mask)), mask)
    text = coco.rle_encode(mask)["counts"]
    assert isinstance(text, bytes)
    np.testing.assert_array_equal(coco.rle_decode({"size": [700, 900], "counts": text.decode()}), mask)
    with pytest.raises(ValueError, match="700x901"):
        coco.rle_decode({"size": [700, 901], "counts": text})


# ------------------------------------------------------------------------------------------------------ one person


def _hand(x: float, right: float, presence: float = 0.95) -> Hand:
    return Hand(np.full((21, 2), x), presence, right, np.array([x, 100, x + 20, 120]))


def test_sides_follow_handedness_and_no_one_has_two_left_hands() -> None:
    looks = [[_hand(10, 0.9), _hand(100, 0.1)] for _ in range(5)]
    sides = hand_sides(looks, 4)
    assert sides == {"right_hand": [[(i, 0) for i in range(5)]], "left_hand": [[(i, 1) for i in range(5)]]}
    unsure = hand_sides([[_hand(10, 0.95), _hand(100, 0.6)] for _ in range(5)], 4)
    assert [len(t) for t in unsure["left_hand"]] == [5]  # gives way to the surer right hand
    twice = hand_sides([[_hand(10, 0.95), _hand(100, 0.9)] for _ in range(5)], 4)
    assert len(twice["right_hand"]) == 1 and not twice["left_hand"]
    assert not any(hand_sides([[_hand(10, 0.9, presence=0.85)] for _ in range(5)], 4).values())


def _face(x: float, size: float) -> np.ndarray:
    return np.array([x, 20, x + size, 20 + size, 0.9, *([0] * 12)])


def test_hands_of_the_person_beside_are_left_out() -> None:
    faces = np.array([_face(100, 40), _face(300, 30)])
    looks = [Sighting(i, faces, [_hand(130, 0.9), _hand(330, 0.1)]) for i in range(6)]
    found = assemble(looks, 6, 8.0, (400, 200), full=False)
    assert found.coverage("face") == found.coverage("right_hand") == 1.0
    np.testing.assert_allclose(found.boxes["face"][:, 0], 100)
    assert found.coverage("left_hand") == 0.0 and found.keypoints is None and "body" not in found.boxes
    alone = assemble([Sighting(i, faces[:0], [_hand(130, 0.9)]) for i in range(6)], 6, 8.0, (400, 200), full=False)
    assert alone.coverage("right_hand") == 1.0  # no face to be seen: the hand counts


def test_missing_packages_and_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = dict.fromkeys([*DETECTOR_WEIGHTS["mediapipe"], *DETECTOR_WEIGHTS["dwpose"]], tmp_path / "none")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r'pip install "jwb-dh-v1\[lite\]"'):
        detector("mediapipe", weights)
    with pytest.raises(MissingPackage, match=r'pip install "jwb-dh-v1\[dwpose\]"'):
        detector("dwpose", weights)
    with pytest.raises(SetupError, match="yolo"):
        detector("yolo", weights)
