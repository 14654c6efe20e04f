"""Annotation files: each form is read as it is written by its tools, and what is wrong is named with its place."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jwb_dh_v1.dataset.build.readers import BadAnnotation, read_annotations
from jwb_dh_v1.errors import BadBox
from jwb_dh_v1.media.coco import rle_decode, rle_encode
from jwb_dh_v1.media.probe import VideoInfo

INFO = VideoInfo(width=64, height=48, fps=2.0, frames=4, rotation=0, has_audio=True, even=True)  # 2 seconds
NO_MOTION = {"body": None, "face": None, "hands": None}


def word(text: str, start: float | None, end: float | None, score: float | None = None, source: str | None = None):
    return {"word": text, "start": start, "end": end, "score": score, "source": source, "motion": NO_MOTION}


@pytest.fixture
def read(tmp_path: Path):
    def reader(name: str, content: str | bytes | Any) -> dict[str, Any]:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_annotations(path, INFO)

    return reader


# --------------------------------------------------------------------------------------------------------------- CSV


def test_words_from_csv(read):
    found = read("a.csv", '\ufeffword,start,end,score\nhello,0.1,0.5,0.9\n"a,b",0.5,1,\n2014,,,\n')
    assert found == {
        "transcript": {"words": [word("hello", 0.1, 0.5, 0.9), word("a,b", 0.5, 1.0), word("2014", None, None)]}
    }


def test_boxes_from_csv(read):
    found = read("a.csv", "frame,part,x1,y1,x2,y2,score\n2,face,1,2,30,40.5,0.5\n0,face,1,2,3,4,\n\n")
    assert found == {
        "boxes": {"face": [[1, 2, 3, 4], None, [1, 2, 30, 40.5], None]},
        "box_scores": {"face": [1.0, 0.0, 0.5, 0.0]},
    }


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", BadAnnotation, "line 1: the columns are missing"),
        ("word,begin,end\n", BadAnnotation, "line 1: the columns are word,begin,end"),
        ("word,start,end,word\n", BadAnnotation, "line 1"),
        ("word,start,end\na,0,1\nb,1\n", BadAnnotation, "line 3 has 2 cells"),
        ("word,start,end\na,zero,1\n", BadAnnotation, "line 2: start is 'zero'"),
        ("word,start,end\na,nan,1\n", BadAnnotation, "line 2: start is 'nan'"),
        ('word,start,end\n"a,0,1\n', BadAnnotation, "unexpected end"),
        ("word,start,end\na,0,1\nb,0.4,1.2\n", BadAnnotation, r"word 2 \('b'\) begins at 0.4 s, the word before"),
        ("word,start,end\na,1,0.5\n", BadAnnotation, r"word 1 \('a'\): from 1.0 to 0.5"),
        ("word,start,end\na,-1,0.5\n", BadAnnotation, "word 1"),
        ("word,start,end\na,1,2.2\n", BadAnnotation, r"ends at 2.2 s, after the clip's end at 2 s"),
        ("word,start,end\na,1,\n", BadAnnotation, "from 1.0 to None"),
        ("word,start,end\n ,0,1\n", BadAnnotation, "word 1 is ''"),
        ("word,start,end,score\na,0,1,1.5\n", BadAnnotation, "the score is 1.5"),
        ("frame,part,x1,y1,x2,y2\n4,face,1,2,3,4\n", BadBox, "line 2: frame is '4', expected 0 to 3"),
        ("frame,part,x1,y1,x2,y2\n0.5,face,1,2,3,4\n", BadBox, "line 2: frame"),
        ("frame,part,x1,y1,x2,y2\n0,foot,1,2,3,4\n", BadBox, "line 2: part is 'foot'"),
        ("frame,part,x1,y1,x2,y2\n0,face,1,2,3,4\n0,face,1,2,3,4\n", BadBox, "line 3: frame 0 has a box of face"),
        ("frame,part,x1,y1,x2,y2\n0,face,1,2,,4\n", BadBox, "line 2: a corner"),
        ("frame,part,x1,y1,x2,y2\n1,face,3,2,1,4\n", BadBox, "of frame 1 is no box in 64x48"),
        ("frame,part,x1,y1,x2,y2\n1,face,65,2,70,4\n", BadBox, "of frame 1 is no box in 64x48"),
        ("frame,part,x1,y1,x2,y2,score\n1,face,1,2,3,4,2\n", BadBox, "face: scores"),
    ],
)
def test_wrong_csv(read, text: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message) as caught:
        read("a.csv", text)
    assert str(caught.value).startswith("a.csv")


def test_the_overhang_of_the_last_word_is_cut_off(read):
    found = read("a.csv", "word,start,end\na,1.5,2.05\nb,2.05,2.08\n")["transcript"]["words"]
    assert [(w["start"], w["end"]) for w in found] == [(1.5, 2.0), (2.0, 2.0)]


# ---------------------------------------------------------------------------------------------------------- TextGrid

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.5
            mark = "words"
    item [2]:
        class = "IntervalTier"
        name = "anna - words"
        xmin = 0
        xmax = 2
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 1
            text = "say"
        intervals [3]:
            xmin = 1
            xmax = 1.5
            text = "\"\"hi\"\" 2!"
        intervals [4]:
            xmin = 1.5
            xmax = 2
            text = "sil"
    item [3]:
        class = "IntervalTier"
        name = "anna - phones"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2
            text = "s"
"""
SHORT = '"ooTextFile"\n"TextGrid"\n0\n2\n<exists>\n1\n"IntervalTier"\n"tier"\n0\n2\n2\n0\n1\n"grüß"\n1\n2\n"dich"\n'


def test_long_textgrid(read):
    found = read("a.TextGrid", LONG)
    assert found["transcript"]["words"] == [
        word("say", 0.25, 1.0, source="textgrid"),
        word('"hi" 2!', 1.0, 1.5, source="textgrid"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_short_textgrid_with_one_tier_of_any_name(read, encoding: str):
    found = read("a.TextGrid", SHORT.encode(encoding))
    assert [w["word"] for w in found["transcript"]["words"]] == ["grüß", "dich"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file ends where a text"),
        ("hello", "file ends"),
        ('"ooTextFile"\n"Sound"', "no TextGrid"),
        (SHORT[: SHORT.index('"dich"')], "line 17: the file ends where a text should be"),
        (SHORT.replace('"grüß"', "3"), "line 14: '3' where a text should be"),
        (SHORT.replace("\n2\n2\n", "\n2\n1e999\n"), "expected a number"),
        (LONG.replace("anna - words", "speech"), "one tier of intervals named `words`; there are 'speech', 'anna"),
        (SHORT.replace("TextGrid", 'TextGrid"\n"x'), "line 3"),
    ],
)
def test_wrong_textgrid(read, text: str, message: str):
    with pytest.raises(BadAnnotation, match=message):
        read("a.TextGrid", text)


# -------------------------------------------------------------------------------------------------------------- JSON


def test_whisperx(read):
    spoken = [{"word": " In", "start": 0.1, "end": 0.3, "score": 0.99}, {"word": "2014"}]
    more = [{"word": "so", "start": 1.0, "end": 1.2, "probability": 0.5}]
    segments = [{"text": " In 2014", "words": spoken}, {"text": "so", "words": more}]
    wanted = [word("In", 0.1, 0.3, 0.99, "whisperx"), word("2014", None, None, None, "whisperx")]
    wanted.append(word("so", 1.0, 1.2, 0.5, "whisperx"))
    for given in (
        {"segments": segments, "language": "en"},
        {"segments": segments, "word_segments": spoken + more, "language": "en"},
    ):
        assert read("a.json", given) == {"transcript": {"text": "In 2014 so", "language": "en", "words": wanted}}


def people(frames=4, **more):
    points = np.arange(frames * 399, dtype=float).reshape(frames, 399) / 1000
    return points, [{"keypoints": list(row), **{k: v[n] for k, v in more.items()}} for n, row in enumerate(points)]


def test_keypoints_in_order(read):
    points, given = people()
    assert np.array_equal(read("a.json", given)["keypoints"], points.reshape(4, 133, 3).astype(np.float32))


def test_keypoints_by_picture(read):
    points, given = people(image_id=[30, 10, 20, 40])
    order = [1, 2, 0, 3]
    wanted = points.reshape(4, 133, 3).astype(np.float32)[order]
    assert np.array_equal(read("a.json", given)["keypoints"], wanted)
    whole = {"images": [{"id": 30}, {"id": 5}, {"id": 10}, {"id": 20}], "annotations": given[:3]}
    found = read("a.json", whole)["keypoints"]
    assert np.array_equal(found[[0, 2, 3]], points.reshape(4, 133, 3).astype(np.float32)[:3])
    assert not found[1].any()  # no one is seen in picture 5


def test_keypoints_in_pieces(read):
    points, given = people()
    edges = np.cumsum([0, 17, 6, 68, 21, 21]) * 3
    names = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    for one in given:
        flat = one["keypoints"]
        one |= {name: flat[a:b] for name, a, b in zip(names, edges[:-1], edges[1:], strict=True)}
    assert np.array_equal(read("a.json", given)["keypoints"], points.reshape(4, 133, 3).astype(np.float32))


def test_masks_in_three_spellings(read):
    masks = [np.zeros((48, 64), bool) for _ in range(4)]
    for n, mask in enumerate(masks[:3]):
        mask[n : n + 10, 5:20] = True
    encoded: list[Any] = [rle_encode(mask) for mask in masks]
    flat = masks[1].ravel(order="F")
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    runs = [b - a for a, b in itertools.pairwise(edges)]
    given = [{"size": e["size"], "counts": e["counts"].decode()} for e in encoded[:3]] + [None]
    given[1] = {"size": [48, 64], "counts": runs}
    found = read("a.json", given)["mask_rle"]
    assert found == encoded
    assert np.array_equal(rle_decode(found[1]), masks[1])


def test_own_columns(read):
    given = {
        "schema_version": 2, "num_frames": 4, "width": 64, "height": None, "motion_text": "waves", "speech": "own",
        "pose": {"posture": "stands"}, "boxes": {"face": [[1, 2, 3, 4], None, None, None]},
        "transcript": {"text": "hi", "words": [{"word": "hi", "start": 0, "end": 1, "motion": {"hands": True}}]},
    }  # fmt: skip
    found = read("a.json", given)
    assert set(found) == {"motion_text", "speech", "pose", "boxes", "transcript"}
    assert found["transcript"]["words"] == [word("hi", 0, 1) | {"motion": {**NO_MOTION, "hands": True}}]


KEYPOINTS = people()[1]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("", BadAnnotation, "line 1, column 1"),
        ('{"a": 1', BadAnnotation, "line 1, column 8"),
        (b"\xff\xfe\x00", BadAnnotation, "no UTF-8 text"),
        (b'{"motion_text": "\xe9"}', BadAnnotation, "no UTF-8 text: byte 17"),
        ("[" * 100_000, BadAnnotation, "no JSON that can be read"),
        ('{"boxes": {"face": [[NaN, 1, 2, 3]]}}', BadAnnotation, "NaN is no number"),
        ("[]", BadAnnotation, "no known form"),
        ("7", BadAnnotation, "no known form"),
        ({"motion": "waves"}, BadAnnotation, "no column is named 'motion'"),
        ({"schema_version": 99}, BadAnnotation, "upgrade"),
        ({"num_frames": 5}, BadAnnotation, "num_frames is 5, the clip has 4"),
        ({"motion_text": 7}, BadAnnotation, "motion_text is 7, expected a text"),
        ({"speech": "dubbed"}, BadAnnotation, "speech is 'dubbed'"),
        ({"pose": {"arms": "up"}}, BadAnnotation, r"pose holds \['arms'\]"),
        ({"transcript": "hi"}, BadAnnotation, "transcript holds str"),
        ({"transcript": {"words": {"word": "a"}}}, BadAnnotation, "words are dict"),
        ({"transcript": {"words": ["a"]}}, BadAnnotation, "word 1 holds str"),
        ({"transcript": {"words": [{"word": "a", "motion": {"face": 1}}]}}, BadAnnotation, "motion must be true"),
        ({"transcript": {"words": [{"word": "a", "start": True, "end": 1}]}}, BadAnnotation, "no span"),
        ({"boxes": {"hand": [None] * 4}}, BadBox, r"boxes of \['hand'\]"),
        ({"boxes": {"face": [None] * 3}}, BadBox, r"face boxes have shape \(3, 4\)"),
        ({"boxes": {"face": [[1, 2, 3]] * 4}}, BadBox, "four numbers"),
        ({"boxes": {"face": [[1, 2, 1e300, 4]] * 4}}, BadBox, "no box in 64x48"),
        ({"boxes": [1]}, BadBox, "boxes"),
        ({"box_scores": {"face": [1.0] * 4}}, BadBox, "face has scores but no boxes"),
        ({"boxes": {"face": [None] * 4}, "box_scores": {"face": [1.0] * 3}}, BadBox, "3 scores for 4 boxes"),
        ({"boxes": {"face": [None] * 4}, "box_scores": {"face": ["x"] * 4}}, BadBox, "scores must be numbers"),
        ({"segments": [{"words": [{"start": 0}]}]}, BadAnnotation, "as WhisperX writes them"),
        ({"segments": 7}, BadAnnotation, "as WhisperX writes them"),
        ({"segments": [{"text": "a", "words": [{"word": "a", "start": 5, "end": 6}]}]}, BadAnnotation, "ends at 6 s"),
        (KEYPOINTS[:3], BadBox, "key points of 3 pictures for 4 frames"),
        ([{**one, "image_id": 1} for one in KEYPOINTS], BadBox, "1 pictures for 4 frames"),
        ([{**one, "image_id": [1]} for one in KEYPOINTS], BadBox, "as COCO writes them"),
        ([*KEYPOINTS[:3], {"keypoints": [0.0] * 398}], BadBox, r"annotation 3 \(frame 3\): 398 numbers"),
        ([*KEYPOINTS[:3], {"keypoints": [0.0, 0.0, -1.0] * 133}], BadBox, "frame 3, key point 0"),
        ([*KEYPOINTS[:3], {"keypoints": ["x"] * 399}], BadBox, "as COCO writes them"),
        ({"annotations": [{**KEYPOINTS[0], "image_id": 0}] * 2, "images": [{"id": n} for n in range(4)]}, BadBox,
         r"annotation 1 \(frame 0\): a second person"),
        ({"annotations": [{**KEYPOINTS[0], "image_id": 9}], "images": [{"id": n} for n in range(4)]}, BadBox, "COCO"),
        ([{"size": [48, 64], "counts": "x"}] * 3, BadBox, "3 masks for 4 frames"),
        ([{"size": [64, 48], "counts": "x"}] * 4, BadBox, r"mask of frame 0 is of \[64, 48\]"),
        ([None, {"size": [48, 64], "counts": "11"}, None, None], BadBox, "mask of frame 1: the runs"),
        ([None, {"size": [48, 64], "counts": [1, 2]}, None, None], BadBox, "mask of frame 1: the runs do not fill"),
        ([None, {"size": [48, 64], "counts": 10**12}, None, None], BadBox, "mask of frame 1"),
        ([None, {"size": [48, 64], "counts": "ü"}, None, None], BadBox, "mask of frame 1"),
        ([None, {"counts": "1"}, None, None], BadBox, "mask of frame 1"),
    ],
)  # fmt: skip
def test_wrong_json(read, given: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message) as caught:
        read("a.json", given)
    assert str(caught.value).startswith("a.json")


def test_transcripts_and_strangers(read, tmp_path: Path):
    assert read("a.txt", " Hello there.\n") == {"transcript": {"text": "Hello there."}}
    assert read("a.txt", "") == {"transcript": {"text": None}}
    with pytest.raises(BadAnnotation, match=r"a\.srt is no annotation file"):
        read("a.srt", "1")
    with pytest.raises(BadAnnotation, match="cannot be read: No such file"):
        read_annotations(tmp_path / "gone.json", INFO)
