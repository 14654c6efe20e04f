"""MediaPipe's networks on the real clips: coverage, sides, points, masks, and bits that do not depend on chunks."""

from __future__ import annotations

import numpy as np
import pytest

from jwb_dh_v1.media import coco
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, DETECTOR_WEIGHTS, detector
from jwb_dh_v1.networks.detectors.litert import iou
from jwb_dh_v1.networks.weights import resolve

PERSONS = ("obama-speech", "pexels-woman", "pyfeat-man", "carphone")
_decoded: dict[str, tuple[np.ndarray, float]] = {}
_full: dict[str, Annotations] = {}


@pytest.fixture(scope="module")
def mediapipe():  # type: ignore[no-untyped-def]
    return detector("mediapipe", {n: resolve(n) for n in (*DETECTOR_WEIGHTS["mediapipe"], *ANNOTATE_WEIGHTS)})


def media(name: str) -> tuple[np.ndarray, float]:
    import av

    if name not in _decoded:
        with av.open(str(resolve(name))) as file:
            rate = file.streams.video[0].average_rate
            assert rate is not None
            _decoded[name] = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)]), float(rate)
    return _decoded[name]


def annotated(detect, name: str) -> Annotations:  # type: ignore[no-untyped-def]
    if name not in _full:
        frames, fps = media(name)
        _full[name] = detect.detect([frames], fps, full=True)
        _full[name].check(*frames.shape[:1], frames.shape[2], frames.shape[1])
    return _full[name]


@pytest.mark.teaser
@pytest.mark.parametrize("name", PERSONS)
def test_faces_are_found_and_hold_the_nose(mediapipe, name: str) -> None:  # type: ignore[no-untyped-def]
    found = annotated(mediapipe, name)
    assert found.coverage("face") > 0.9 and found.coverage("body") > 0.9  # both 1.0 when measured
    assert found.keypoints is not None and found.boxes["face"].dtype == found.keypoints.dtype == np.float32
    box, tip = found.boxes["face"], found.keypoints[:, 23 + 30]
    inside = (tip[:, 0] > box[:, 0]) & (tip[:, 0] < box[:, 2]) & (tip[:, 1] > box[:, 1]) & (tip[:, 1] < box[:, 3])
    assert inside.all()
    # The pose network's nose is another network's: within a fifth of the face of the mesh's.
    size = box[:, 2] - box[:, 0]
    assert np.median(np.linalg.norm(found.keypoints[:, 0, :2] - tip[:, :2], axis=1) / size) < 0.2


@pytest.mark.teaser
def test_hands_are_the_persons_own_sides(mediapipe) -> None:  # type: ignore[no-untyped-def]
    """By eye: Obama shows only his left hand (cuff, ring), small, blurred and half hidden; she her right one."""
    obama, woman = annotated(mediapipe, "obama-speech"), annotated(mediapipe, "pexels-woman")
    # Measured 0.286; blurred hands lie near the threshold, where another processor's rounding may decide otherwise.
    assert 0.15 < obama.coverage("left_hand") < 0.5
    assert obama.coverage("right_hand") < 0.05  # measured 0
    by_eye = np.array([197.0, 159, 240, 192])  # frame 21, in a magnified view
    assert iou(by_eye, obama.boxes["left_hand"][21:22].astype(float))[0] > 0.5  # two eyes agree to about that
    # Her hand is up from frame 57 to 232, by eye: 0.37 of the clip; measured 0.362.
    assert 0.33 < woman.coverage("right_hand") < 0.4 and woman.coverage("left_hand") < 0.02
    assert np.isfinite(woman.boxes["right_hand"][66:224, 0]).all()
    assert annotated(mediapipe, "carphone").coverage("right_hand") == 0.0


@pytest.mark.teaser
def test_a_clip_without_anyone_is_all_nan(mediapipe) -> None:  # type: ignore[no-untyped-def]
    found = annotated(mediapipe, "no-face")
    assert all(np.isnan(b).all() for b in found.boxes.values()) and not any(s.any() for s in found.scores.values())
    assert found.keypoints is not None and not found.keypoints.any()
    assert found.masks is not None and not any(coco.rle_decode(m).any() for m in found.masks)
    empty = mediapipe.detect([], 25.0, full=True)
    assert empty.boxes["face"].shape == (0, 4) and empty.keypoints.shape == (0, 133, 3) and empty.masks == []


@pytest.mark.teaser
@pytest.mark.parametrize(("name", "start"), [("obama-speech", 0), ("pexels-woman", 50)])
def test_chunks_do_not_change_a_bit(mediapipe, name: str, start: int) -> None:  # type: ignore[no-untyped-def]
    frames, fps = media(name)
    frames = frames[start : start + 40]
    whole = mediapipe.detect([frames], fps, full=True)
    quick = mediapipe.detect([frames], fps)
    for size in (1, 7):
        other = mediapipe.detect(np.split(frames, range(size, 40, size)), fps, full=True)
        assert other.keypoints.tobytes() == whole.keypoints.tobytes() and other.masks == whole.masks
        assert other.boxes.keys() == whole.boxes.keys() == {"body", "face", "left_hand", "right_hand"}
        for part in whole.boxes:
            assert other.boxes[part].tobytes() == whole.boxes[part].tobytes()
            assert other.scores[part].tobytes() == whole.scores[part].tobytes()
    for part in quick.boxes:  # and looking for more does not move a box
        assert quick.boxes[part].tobytes() == whole.boxes[part].tobytes()


@pytest.mark.teaser
def test_points_are_those_of_the_mediapipe_package(mediapipe) -> None:  # type: ignore[no-untyped-def]
    """mediapipe 0.10.21 itself (solutions.pose, solutions.face_mesh, static images) on one frame, in pixels."""
    frames, fps = media("pyfeat-man")
    points = mediapipe.detect([frames[5:6]], fps, full=True).keypoints[0, :, :2]
    pose = [[290.7, 191.5], [322.0, 161.1], [256.3, 164.9], [430.2, 358.2], [132.3, 350.7]]
    # Their letterbox goes through a perspective warp, ours through an affine one: 0.3 pixels when measured.
    np.testing.assert_allclose(points[[0, 1, 2, 5, 6]], pose, atol=1.0)
    mesh = [[300.5, 292.1], [293.4, 205.1], [241.3, 166.3], [339.8, 161.1], [272.0, 246.2], [322.0, 243.1]]
    # Our crop comes from the second look at the face, theirs from the first: 1.3 pixels of a 180 pixel face.
    np.testing.assert_allclose(points[23 + np.array([8, 30, 36, 45, 48, 54])], mesh, atol=2.5)


@pytest.mark.teaser
def test_small_faces_are_found_in_a_large_picture(mediapipe) -> None:  # type: ignore[no-untyped-def]
    import cv2

    frames, fps = media("pexels-woman")
    big = annotated(mediapipe, "pexels-woman").boxes["face"][0]
    scale = 40 / float(big[3] - big[1])  # a standing person's face in 1280x720
    small = cv2.resize(frames[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = np.full((2, 720, 1280, 3), 128, np.uint8)
    picture[:, 100 : 100 + small.shape[0], 600 : 600 + small.shape[1]] = small
    found = mediapipe.detect([picture], fps).boxes["face"][0].astype(float)
    expected = big.astype(float) * scale + [600, 100, 600, 100]
    assert iou(expected, found[None])[0] > 0.7  # a pixel of the 128-pixel crop is 2 % of the face on each side


@pytest.mark.teaser
def test_masks_show_the_person(mediapipe) -> None:  # type: ignore[no-untyped-def]
    frames, _ = media("pyfeat-man")
    found = annotated(mediapipe, "pyfeat-man")
    assert found.masks is not None and len(found.masks) == len(frames)
    mask = coco.rle_decode(found.masks[0])
    assert mask.shape == frames.shape[1:3]
    assert found.keypoints is not None
    x, y = found.keypoints[0, coco.FACE, :2].round().astype(int).T
    # One mask cell is 2.5 pixels: a point of the jaw line may fall beside the face; the rest lies inside.
    assert mask[y, x].mean() > 0.9 and mask[:20, -60:].mean() < 0.05  # the face; a corner of the wall
