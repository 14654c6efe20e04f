"""The authors' layout: clips, crops and the unpublished table, in the encodings it may come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from jwb_dh_v1.dataset.build.authors import items, read_table
from jwb_dh_v1.errors import DataNotFound, SetupError

HEADER = "模型号,视频类型,原视频地址,Groundtruth视频地址,备注,分辨率,unmatched"
LINES = [
    "1,body,/data/x/1/video1.mp4,/data/x/gt_test/a/video1.mp4,,,0",
    "4-mp4,body,/data/x/4-mp4/video1.mp4,/data/x/gt_test/a/video1.mp4,,,1",
    "1,face,/data/x/face_videos_v5/1-video1-face-v5.mp4,/data/x/face_videos_v5/a_video1_face.mp4,,,",
    "1,body,C:\\x\\1\\video2.mp4,C:\\x\\gt_test\\a\\video2.mp4,,,1",
    "2,hand,/data/x/hand_videos_v5/2-video2-hand-v5.mp4,/data/x/hand_videos_v5/a_video2_hand.mp4,,,1.0",
    "1,body,/data/x/1/video9.mp4,/data/x/gt_test/z/video9.mp4,,",
    "",
]
CLIPS = ("gt_test/a/video1.mp4", "gt_test/a/video2.mp4", "gt_test/b_c/video1.MP4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (*CLIPS, "gt_test/a/notes.txt", "face_videos_v5/a_video1_face.mp4", "face_videos_v5/q_1_face.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def table(root: Path, encoding: str = "utf-8", header: str = HEADER, lines: list[str] = LINES) -> Path:
    path = root / "groundtruth_results_revised_1.csv"
    path.write_bytes("\r\n".join([header, *lines]).encode(encoding))
    return path


def test_clips_become_items_and_nothing_is_made_up(root: Path):
    said: list[str] = []
    found = list(items(root, say=said.append))
    assert [(i.sample_id, i.identity_id, i.split) for i in found] == [
        ("a_video1", "a", "evaluation"),
        ("a_video2", "a", "evaluation"),
        ("b_c_video1", "b_c", "evaluation"),
    ]
    assert [i.video for i in found] == [root / name for name in CLIPS]
    assert all((i.audio, i.annotations, set(i.columns)) == (None, (), {"provenance", "licence"}) for i in found)
    assert "face_videos_v5/a_video1_face.mp4 (boxes not kept)" in found[0].columns["provenance"]
    assert "face_videos_v5" not in found[1].columns["provenance"]
    assert "academic research" in found[0].columns["licence"]
    assert "gt_test: 3 clips in 2 folders" in said
    assert "face_videos_v5: 1 of 3 clips have a crop; 1 belong to no clip, e.g. q_1_face.mp4" in said
    assert "hand_videos_v5: not there" in said
    assert any("groundtruth_results" in line and "not there" in line for line in said)
    assert [i.sample_id for i in items(root / "gt_test")] == [i.sample_id for i in found]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
def test_the_table_is_read_in_any_encoding(root: Path, encoding: str):
    table(root, encoding)
    said: list[str] = []
    one, two, three = items(root, say=said.append)
    assert one.columns["provenance"].endswith(
        "groundtruth_results_revised_1.csv: matched in 2 of 3 lines, unmatched=1 for 4-mp4 body"
    )
    assert "matched in 0 of 2 lines, unmatched=1 for 1 body, 2 hand" in two.columns["provenance"]
    assert "revised_1.csv: not named" in three.columns["provenance"]
    assert any(line.startswith("groundtruth_results_revised_1.csv: 6 lines, 3 unmatched") for line in said)
    assert any("1 name clips that are not here, e.g. /data/x/gt_test/z/video9.mp4" in line for line in said)


def test_only_clips_that_no_line_matches_are_dropped(root: Path):
    path = table(root)
    said: list[str] = []
    kept = [i.sample_id for i in items(root, path, unmatched="drop", say=said.append)]
    assert kept == ["a_video1", "b_c_video1"]
    assert said[-1] == "1 clips left out: unmatched in every line about them"
    with pytest.raises(SetupError, match="'keep' or 'drop'"):
        items(root, unmatched="maybe")  # type: ignore[arg-type]


def test_the_flag_is_found_by_its_place_too(root: Path):
    path = table(root, header=HEADER.replace("unmatched", "未匹配"))
    assert [line.unmatched for line in read_table(path)] == [False, True, False, True, True, False]
    assert [(line.model, line.kind) for line in read_table(path)[:2]] == [("1", "body"), ("4-mp4", "body")]


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        (HEADER.replace("模型号", "model"), "模型号; it has model"),
        ("模型号,视频类型,原视频地址,Groundtruth视频地址", r"unmatched \(by name or as column 7\)"),
        ("", "模型号, 视频类型, 原视频地址, Groundtruth视频地址"),
    ],
)
def test_a_missing_column_is_named(root: Path, header: str, missing: str):
    with pytest.raises(SetupError, match=missing):
        items(root, table(root, header=header))


def test_what_cannot_be_read_is_refused(root: Path, tmp_path: Path):
    with pytest.raises(SetupError, match="line 2: unmatched is 'yes'"):
        read_table(table(root, lines=[LINES[0][:-1] + "yes"]))
    (root / "other.csv").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(SetupError, match="neither UTF-8"):
        read_table(root / "other.csv")
    with pytest.raises(DataNotFound, match=r"nowhere\.csv"):
        items(root, root / "nowhere.csv")
    (root / "groundtruth_results.csv").write_text(HEADER)
    with pytest.raises(SetupError, match="say which one"):
        items(root)


def test_a_folder_of_another_layout_is_refused(tmp_path: Path):
    with pytest.raises(DataNotFound, match="no folder gt_test"):
        items(tmp_path)
    (tmp_path / "gt_test").mkdir()
    (tmp_path / "gt_test" / "loose.mp4").write_bytes(b"x")
    with pytest.raises(DataNotFound, match="must lie in folders"):
        items(tmp_path)
    for name in ("a_b/c.mp4", "a/b_c.mp4"):
        (tmp_path / "gt_test" / name).parent.mkdir()
        (tmp_path / "gt_test" / name).write_bytes(b"x")
    with pytest.raises(SetupError, match="would both be the sample a_b_c"):
        items(tmp_path)
