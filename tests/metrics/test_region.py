"""Crops: the authors' rule against its published vectors, the tracked window against its definition."""

import numpy as np
import pytest
from media import moving

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import BadBox, NotApplicable
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.metrics.region import SIDE, cut, longest_run, paper, paper_window, track
from jwb_dh_v1.networks.pool import NetworkPool

ONES = np.ones(2)


@pytest.mark.parametrize(
    ("part", "points", "expected"),
    [  # image 1280x720; specs/metrics.md section 6
        ("face", [(100, 100), (140, 150)], (80, 75, 160, 175)),
        ("face", [(100, 100), (120, 150)], (85, 100, 135, 150)),
        ("face", [(5, 5), (20, 20)], (0, 0, 38, 38)),
        ("hands", [(100, 100), (140, 150)], (80, 75, 160, 175)),
        ("hands", [(100, 100), (110, 150)], (50, 50, 160, 200)),
    ],
)
def test_paper_boxes(part, points, expected):
    assert paper_window(np.array(points, float), ONES, part, 1280, 720) == expected


def test_paper_box_ignores_weak_points():
    points = np.array([(100.0, 100), (140, 150), (900, 700)])
    assert paper_window(points, np.array([0.9, 0.9, 0.3]), "face", 1280, 720) == (80, 75, 160, 175)
    assert paper_window(points, np.zeros(3), "face", 1280, 720) is None


def keypoints(frames, face):
    points = np.zeros((frames, 133, 3))
    for t, corners in enumerate(face):
        if corners is not None:
            points[t, 24:91] = (*corners[0], 1)
            points[t, 91] = (*corners[1], 1)  # the left hand's root, which the authors' slice takes for a face point
    return points


def test_paper_slices_are_off_by_one():
    clip = Clip(np.zeros((1, 720, 1280, 3), np.uint8))
    assert paper(clip, keypoints(1, [((100, 100), (140, 150))]), "face").windows.tolist() == [[80, 75, 160, 175]]


def test_paper_area_filter_and_first_size():
    clip = Clip(np.zeros((4, 720, 1280, 3), np.uint8))
    small, good, wide = ((5, 5), (20, 20)), ((100, 100), (140, 150)), ((100, 100), (130, 160))
    found = paper(clip, keypoints(4, [small, good, None, wide]), "face")
    assert found.indices.tolist() == [1, 3]  # 1444 px^2 is dropped, a frame without face too: time is compressed
    assert found.size == (80, 100)
    only = paper(clip, keypoints(4, [small, None, None, None]), "face")
    assert only.size == (38, 38)  # if nothing survives, everything is used
    with pytest.raises(NotApplicable):
        paper(clip, np.zeros((4, 133, 3)), "face")


def test_longest_run():
    assert longest_run(np.array([0, 1, 1, 0, 1, 1, 1, 0], bool)) == (4, 7)
    assert longest_run(np.ones(3, bool)) == (0, 3)
    assert longest_run(np.zeros(3, bool)) == (0, 0)
    assert longest_run(np.array([1, 0, 1], bool)) == (0, 1)  # the first of equal ones


def numbered(frames, width=320, height=240):
    """A clip whose every pixel tells its frame, column and row."""
    t, y, x = np.mgrid[:frames, :height, :width]
    return Clip(np.stack([t, x % 256, y], axis=-1).astype(np.uint8), fps=10.0)


def test_tracked_window_follows_the_box():
    boxes = np.full((30, 4), np.nan, np.float32)
    for t in range(5, 25):
        boxes[t] = (40 + 2 * t, 50, 120 + 2 * t, 150)  # 80 x 100, moving 2 px a frame
    found = track(numbered(30), boxes, "face")
    assert (found.start, found.stop, found.size) == (5, 25, (SIDE, SIDE))
    assert set((found.windows[:, 2] - found.windows[:, 0]).tolist()) == {150}  # 1.5 x the longer side
    assert np.diff(found.windows[:, 0]).tolist() == [2] * 19
    frames = found.frames
    assert frames.shape == (20, SIDE, SIDE, 3)
    assert frames[:, 0, 0, 0].tolist() == list(range(5, 25))  # the right frames


def test_a_glimpse_is_no_part():
    boxes = np.full((30, 4), np.nan, np.float32)
    boxes[3:7] = (40, 50, 120, 150)
    with pytest.raises(NotApplicable, match=r"0\.40 s only"):
        track(numbered(30), boxes, "left_hand")


def test_cut_repeats_the_border():
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    out = cut(frame, np.array([-2, -2, 4, 4]), (6, 6))
    assert np.array_equal(out[2:, 2:], frame)
    assert np.array_equal(out[0, 0], frame[0, 0])


def boxed(boxes):
    return Annotations({"face": boxes}, {"face": np.ones(len(boxes), np.float32)}, "dataset")


@pytest.mark.parametrize("bad", [(10, 10, 5, 20), (400, 10, 500, 50), (np.inf, 0, 9, 9), (1, np.nan, 9, 9)])
def test_wrong_boxes_are_typed(bad):
    boxes = np.tile(np.array([10, 10, 60, 60], np.float32), (20, 1))
    boxes[7] = bad
    clip = numbered(20)
    clip._given, clip.models = boxed(boxes), NetworkPool(boxes="annotations")
    with pytest.raises(BadBox, match="frame 7"):
        Sample("a", clip).crop("face")


def test_reference_boxes_on_a_clip_of_another_size_and_rate():
    reference = numbered(20)
    reference._given = boxed(np.tile(np.array([40, 40, 140, 140], np.float32), (20, 1)))
    small = Clip(np.zeros((40, 120, 160, 3), np.uint8), fps=20.0)
    for clip in (reference, small):
        clip.models = NetworkPool(boxes="annotations")
    part = Sample("a", small, reference).crop("face")[0]
    assert part.generated.windows[0].tolist() == [8, 8, 83, 83]  # half of (15, 15, 165, 165), rounded to even
    assert part.reference.windows[0].tolist() == [15, 15, 165, 165]
    assert len(part.generated) == 40


def test_pixels_are_compared_where_the_reference_shows_the_part():
    reference, other = numbered(20), numbered(20)
    reference._given = boxed(np.tile(np.array([40, 40, 140, 140], np.float32), (20, 1)))
    models = NetworkPool(boxes="mediapipe")
    models.__dict__["detector"] = SeesNothing()
    for clip in (reference, other):
        clip.models = models
    sample = Sample("a", other, reference)
    part = sample.crop("face", same_boxes=True)[0]
    assert part.generated.windows.tolist() == part.reference.windows.tolist()
    with pytest.raises(NotApplicable):  # by its own boxes, the generated clip shows no face
        sample.crop("face")


class SeesNothing:
    """A detector that finds no one; the reference carries boxes under its name."""

    name = "dataset"

    def detect(self, chunks, fps, *, full=False):
        frames = sum(len(chunk) for chunk in chunks)
        return Annotations({"face": np.full((frames, 4), np.nan, np.float32)}, {"face": np.zeros(frames)}, self.name)


class Planted:
    """A detector with known answers: the hand is called left in the first clip it sees and right in the second."""

    name = "planted/1"

    def __init__(self):
        self.names = iter(["left_hand", "right_hand"])

    def detect(self, chunks, fps, *, full=False):
        length = sum(len(chunk) for chunk in chunks)
        box = np.tile(np.array([20, 20, 60, 60], np.float32), (length, 1))
        return Annotations({next(self.names): box}, {}, self.name)


def test_a_hand_taken_for_the_other_one_keeps_its_counterpart():
    models = NetworkPool(device="cpu")
    models.detector = Planted()
    made, real = (Clip(moving(20, 128, 96, seed=n), models=models) for n in (0, 1))
    (part,) = Sample("a", made, real).crop("hands")
    assert (part.generated.part, part.reference.part) == ("left_hand", "right_hand")
