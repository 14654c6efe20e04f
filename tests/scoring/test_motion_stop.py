"""Dynamic degree stops at the pair that decides: the same booleans, fewer runs of RAFT, and a curve in its place."""

from unittest import mock

import numpy as np
import pytest
from goldens import sample_of
from hypothesis import given, settings
from hypothesis import strategies as st

from jwb_dh_v1.analysis.diagnosis.clip_statistics import MEASURES, curve, first_still, moment
from jwb_dh_v1.errors import NotFinite
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.quality import dynamic_degree as motion
from jwb_dh_v1.networks import raft
from jwb_dh_v1.report.illustrate import _marked, curve_frames
from jwb_dh_v1.report.timeline import _lane
from jwb_dh_v1.scoring.result import Result, Row, Score

SIDE, THRESHOLD = 128, 3.0  # px
BODY = ("dynamic_degree", "body")


def sample_with(pairs):
    """A clip of so many pairs; at 8 fps every frame is looked at."""
    return sample_of(np.zeros((pairs + 1, SIDE, SIDE, 3), np.uint8), 8.0, raft=None)


def scripted(scores, drawn):
    """In place of the network: fields in which every vector is so long; `drawn` counts them."""

    def flows(net, frames):
        next(frames)
        for _, score in zip(frames, scores, strict=True):
            drawn.append(score)
            yield np.full((16, 16, 2), [score, 0.0], np.float32)

    return mock.patch.object(raft, "flows", flows)


def decisions(scores, drawn):
    sample = sample_with(len(scores))
    with scripted(scores, drawn):
        return motion.dynamic(sample).value(), motion.paper_dynamic(sample).value(), motion.raft_seen(sample)


lengths = st.sampled_from([0.0, THRESHOLD, float(np.nextafter(np.float32(THRESHOLD), np.float32(9))), 50.0])


@settings(max_examples=200, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=40))
def test_the_booleans_are_those_of_all_pairs(scores):
    """Against the decisions on the whole curve, which test_golden_motion_raft.py holds to VBench's."""
    drawn = []
    standard, paper, seen = decisions(scores, drawn)
    above = sum(score > THRESHOLD for score in scores)
    needed = round(4 * (len(scores) + 1) / 16)  # VBench's line
    assert paper == (above >= needed)
    assert standard == (above >= max(1, needed)) == motion.is_dynamic(np.array(scores), SIDE)
    # No pair was looked at twice or without need: one less would not have told the two possible ends apart.
    count = len(drawn)
    assert seen.tolist()[:count] == drawn == scores[:count]
    assert len(seen) == len(scores) and np.isnan(seen[count:]).all()
    before, rest = scores[: count - 1], len(scores) - count + 1
    assert len({motion.is_dynamic(np.array([*before, *[end] * rest]), SIDE) for end in (0.0, 50.0)}) == 2


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        ([50.0] * 15, 4),  # 16 sampled frames need 4
        ([0.0] * 15, 12),  # three are left
        ([0.0] * 11 + [50.0] * 4, 15),
        ([50.0] * 3 + [0.0] * 12, 15),
        ([50.0], 1),
        ([0.0], 1),  # VBench calls it dynamic without a look; standard/1 looks
        ([0.0, 50.0], 2),
    ],
)
def test_number_of_pairs(scores, count):
    drawn = []
    decisions(scores, drawn)
    assert len(drawn) == count


@pytest.mark.parametrize("decide", [motion.dynamic, motion.paper_dynamic])
def test_no_number_is_no_decision(decide):
    drawn = []
    with scripted([0.0, np.nan, 50.0, 50.0], drawn), pytest.raises(NotFinite):
        decide(sample_with(4))
    assert len(drawn) == 2


def test_protocols_show_the_curve_that_they_decide_by():
    for name, seen in (("standard", motion.raft_seen), ("paper", motion.paper_raft_seen)):
        assert PROTOCOLS[name].metrics["dynamic_degree"].curve is seen
    assert PROTOCOLS["lite"].metrics["dynamic_degree"].curve is motion.dis_curve  # whole: DIS is cheap


# What is drawn and told of a curve that ends before its clip


WHOLE = np.array([0.1, 9.0, 8.0, 0.1, 7.0, 6.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
SEEN = np.where(np.arange(12) < 4, WHOLE, np.nan)


def row(values, region="body"):
    return Row("a", "a", "dynamic_degree", region, 1.0, 1, 1.0, "ok", curve=tuple(values))


def result():
    score = Score("dynamic_degree", "body", 1.0, 1, 0, 0, None, "", True, (0.0, 1.0), "", 1.0, "RAFT")
    return Result("a", "standard/1", True, (score,), {}, {}, "cpu")


def lane_of(values):
    sample = sample_of(np.zeros((13, SIDE, SIDE, 3), np.uint8), 8.0)
    frames = curve_frames(sample, "body", len(values), "track", False, False)
    return frames, _lane(row(values), result(), (frames + 0.5) / 8, 13 / 8)


def test_a_stopped_curve_keeps_its_place_on_the_axis():
    """Entries after the stop are there without a value: frames and times of the others are those of the whole curve."""
    (frames, whole), (stopped_frames, stopped) = lane_of(WHOLE), lane_of(SEEN)
    assert frames.tolist() == stopped_frames.tolist() == list(range(1, 13))
    assert stopped.times == whole.times
    assert stopped.values == [*whole.values[:4], *[None] * 8]
    x = [float(point.partition(",")[0]) for point in stopped.points[0].split()]
    assert len(stopped.points) == 1 and x == pytest.approx([1000 * (n + 1.5) / 13 for n in range(4)], abs=0.1)
    assert _marked(SEEN, True)["worst"] < 4


def test_nothing_is_told_of_what_nobody_looked_at():
    whole, seen = {BODY: row(WHOLE)}, {BODY: row(SEEN)}
    assert curve(whole, *BODY).tolist() == WHOLE.tolist() and len(curve(seen, *BODY)) == 0
    assert MEASURES["still_end"].of(whole, "body") == 0.5  # six of twelve
    assert MEASURES["still_end"].of(seen, "body") is None
    assert first_still(whole, "body") is not None and first_still(seen, "body") is None
    assert moment(whole, *BODY, True) is not None and moment(seen, *BODY, True) is None
    face = ("dynamic_degree", "face")
    body = {BODY: row(WHOLE + 1)}
    assert MEASURES["part_motion"].of(body | {face: row(WHOLE + 1, "face")}, "face") == 1.0
    assert MEASURES["part_motion"].of(body | {face: row(SEEN, "face")}, "face") is None


def test_motion_that_was_seen_is_motion():
    peak = MEASURES["peak_motion"].of
    assert peak({BODY: row(WHOLE)}, "body") == peak({BODY: row(SEEN)}, "body") == 9.0
    still = np.full(12, 0.1)
    assert peak({BODY: row(still)}, "body") == 0.1
    still[9:] = np.nan  # too few pairs were left to make it dynamic; what they show nobody knows
    assert peak({BODY: row(still)}, "body") is None
    assert peak({BODY: row(())}, "body") is None
