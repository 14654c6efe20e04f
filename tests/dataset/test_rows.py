"""Rows: what annotation files and sounds become, how Parquet keeps it, and that all of it comes back unchanged."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import media
import numpy as np
import pyarrow.parquet
import pytest
from test_pack import clip_file_fixture, distinct  # noqa: F401 - a fixture

from jwb_dh_v1.dataset.build.pack import items_in, pack
from jwb_dh_v1.dataset.build.rows import Item, row_of
from jwb_dh_v1.dataset.check import check
from jwb_dh_v1.dataset.load import load_dataset
from jwb_dh_v1.dataset.parquet import GROUP_ROWS, read_rows, record_batch, write_rows
from jwb_dh_v1.dataset.schema import annotations_of, features
from jwb_dh_v1.errors import BadAudio, DataNotFound, SetupError
from jwb_dh_v1.media.annotations import PARTS
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.media.video import write_mp4

FACTS = ("schema_version", "sample_id", "video", "video_sha256", "audio", "fps", "num_frames", "height", "width")


# ------------------------------------------------------------------------------------------------------- round trip


def export(rows: list[dict[str, Any]], folder: Path) -> None:
    """The teaser as files: odd rows as one JSON, even ones with a file per kind of annotation."""
    folder.mkdir()
    for number, row in enumerate(rows):
        name = row["sample_id"]
        (folder / f"{name}.mp4").write_bytes(row["video"]["bytes"])
        (folder / f"{name}.wav").write_bytes(row["audio"]["bytes"])
        own = {key: value for key, value in row.items() if key not in FACTS}
        own["mask_rle"] = [{"size": m["size"], "counts": m["counts"].decode()} for m in row["mask_rle"]]
        own["keypoints"] = row["keypoints"].tolist()
        if number % 2 == 0:
            (folder / f"{name}.masks.json").write_text(json.dumps(own.pop("mask_rle")))
            people = [{"image_id": n, "keypoints": np.ravel(p).tolist()} for n, p in enumerate(own.pop("keypoints"))]
            (folder / f"{name}.keypoints.json").write_text(json.dumps(people))
            boxes, scores = own.pop("boxes"), own.pop("box_scores")
            with (folder / f"{name}.boxes.csv").open("w", newline="") as handle:
                table = csv.writer(handle)
                table.writerow(["frame", "part", "x1", "y1", "x2", "y2", "score"])
                for part in PARTS:
                    for frame, (box, score) in enumerate(zip(boxes[part], scores[part], strict=True)):
                        if box is not None:
                            table.writerow([frame, part, *box, score])
            transcript = own.pop("transcript")
            (folder / f"{name}.txt").write_text(transcript["text"] + "\n")
            own["transcript"] = {"language": transcript["language"]}
            with (folder / f"{name}.words.csv").open("w", newline="") as handle:
                table = csv.DictWriter(handle, ["word", "start", "end", "score", "source"], extrasaction="ignore")
                table.writeheader()
                table.writerows(transcript["words"])
        (folder / f"{name}.json").write_text(json.dumps(own))


def same(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, np.ndarray):
        return np.array_equal(np.asarray(given, np.float32), wanted)
    return bool(given == wanted)


@pytest.mark.teaser
def test_every_sample_comes_back_as_it_was(teaser_dir: Path, tmp_path: Path):
    wanted = {row["sample_id"]: row for path in teaser_dir.rglob("*.parquet") for row in read_rows(path)}
    export(list(wanted.values()), tmp_path / "clips")
    manifest = pack(items_in(tmp_path / "clips"), tmp_path / "jwb-dh-v1")
    assert (manifest.rows, manifest.failed) == (len(wanted), ())
    assert len(wanted) >= 8
    for streaming in (True, False):
        rows = load_dataset(
            tmp_path / "jwb-dh-v1", split="evaluation", streaming=streaming, cache_dir=str(tmp_path / "c")
        )
        assert rows.features == features()
        found = {row["sample_id"]: row for row in rows}
        assert set(found) == set(wanted)
        for name, row in wanted.items():
            for column, value in row.items():
                # A hand that was never seen leaves no line in a CSV of boxes.
                if column in {"boxes", "box_scores"}:
                    seen = {p: v for p, v in value.items() if found[name][column][p] is not None}
                    lost = set(value) - set(seen)
                    assert all(box is None for part in lost for box in row["boxes"][part]), (name, lost)
                    assert all(found[name][column][part] == told for part, told in seen.items()), (name, column)
                else:
                    assert same(found[name][column], value), (name, column)
            if streaming:
                assert np.array_equal(Clip(found[name]["video"]).frames[::20], Clip(row["video"]).frames[::20])
            annotations = annotations_of(found[name])
            assert annotations is not None
            annotations.check(row["num_frames"], row["width"], row["height"])
    assert not check(tmp_path / "jwb-dh-v1", decode="none").problems
    # Rows that were read give the file that they came from.
    path = next((tmp_path / "jwb-dh-v1").rglob("*.parquet"))
    again = write_rows(read_rows(path), tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()
    assert again == manifest.files[path.relative_to(tmp_path / "jwb-dh-v1").as_posix()]


# ---------------------------------------------------------------------------------------------------------- Parquet


def test_groups_encodings_and_columns(clip_file: Path, tmp_path: Path):
    row = row_of(Item("a", "p", clip_file))
    written = write_rows((row for _ in range(GROUP_ROWS + 1)), tmp_path / "t.parquet")
    meta = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet").metadata
    assert written.rows == meta.num_rows == GROUP_ROWS + 1
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [GROUP_ROWS, 1]
    columns = {c.path_in_schema: c for c in (meta.row_group(0).column(n) for n in range(meta.num_columns))}
    assert columns["video.bytes"].compression == columns["audio.bytes"].compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in columns["video.bytes"].encodings
    assert columns["transcript.words.list.element.word"].compression == "ZSTD"
    assert all(column.has_offset_index for column in columns.values())
    assert [set(r) for r in read_rows(tmp_path / "t.parquet", ["sample_id", "fps"])] == [{"sample_id", "fps"}] * 65
    assert written.sha256 == hashlib.sha256((tmp_path / "t.parquet").read_bytes()).hexdigest()


def test_groups_stay_small(clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from jwb_dh_v1.dataset import parquet

    row = row_of(Item("a", "p", clip_file))
    size = record_batch(row).nbytes
    monkeypatch.setattr(parquet, "GROUP_BYTES", 3.5 * size)
    write_rows([row] * 7, tmp_path / "t.parquet")
    meta = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet").metadata
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [3, 3, 1]
    assert write_rows([], tmp_path / "none.parquet").rows == 0
    assert list(read_rows(tmp_path / "none.parquet")) == []


def test_cells_that_do_not_fit_are_named(clip_file: Path, tmp_path: Path):
    row = row_of(Item("a", "p", clip_file))
    for column, value in (("num_frames", 2**40), ("pose", 7), ("motion_text", 7), ("keypoints", [1.0]), ("fps", "x")):
        with pytest.raises(ValueError, match=column):
            record_batch({**row, column: value})
    with pytest.raises(ValueError, match="no column 'licence'"):
        write_rows([{key: value for key, value in row.items() if key != "licence"}], tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ items


def test_names_people_and_sidecars(clip_file: Path, tmp_path: Path):
    for name in ("anna_1", "bob-x-1", "carl", "anna/1", "anna/deep/2", ".hidden", "told", "grüße_日本"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        distinct(clip_file, tmp_path / f"{name}.mp4", 0)
    for name in ("anna_1.txt", "anna_1.words.csv", "anna_1.json", "anna_1.wav", "carl.png", "told.json"):
        (tmp_path / name).write_text('{"identity_id": "dora", "licence": "theirs"}')
    (tmp_path / "metadata.csv").write_text(
        "sample_id,identity_id,split,motion_text\ncarl,eve,train,waves\ntold,,,\ngone,frank,,\n", "utf-8-sig"
    )
    found = {item.sample_id: item for item in items_in(tmp_path, {"licence": "ours"})}
    people = {name: item.identity_id for name, item in found.items()}
    assert people == {
        "anna_1": "dora", "bob-x-1": "bob", "carl": "eve", "anna-1": "anna", "anna-deep-2": "anna", "told": "dora",
        "grüße_日本": "grüße", "gone": "frank",
    }  # fmt: skip
    assert [path.name for path in found["anna_1"].annotations] == ["anna_1.words.csv", "anna_1.txt", "anna_1.json"]
    assert found["anna_1"].audio == tmp_path / "anna_1.wav"
    assert (found["carl"].split, found["carl"].columns) == ("train", {"licence": "ours", "motion_text": "waves"})
    assert not found["gone"].video.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na\n", "expected sample_id"),
        ("sample_id,colour\na,red\n", "colour"),
        ("sample_id,split\na,train\na,train\n", "line 3: a is there twice"),
        ("sample_id,split\na\n", "line 2 has another number of cells"),
        ("sample_id,split\na,b,c\n", "line 2 has another number of cells"),
        ("", "columns of nothing"),
    ],
)
def test_wrong_tables(clip_file: Path, tmp_path: Path, text: str, message: str):
    distinct(clip_file, tmp_path / "a.mp4", 0)
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(SetupError, match=message):
        list(items_in(tmp_path))


def test_no_clips(tmp_path: Path):
    with pytest.raises(DataNotFound, match="holds no video"):
        list(items_in(tmp_path))
    with pytest.raises(DataNotFound, match="no folder"):
        list(items_in(tmp_path / "x"))
    with pytest.raises(DataNotFound, match="not one clip"):
        pack([], tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------- rows


def test_the_sound_starts_with_the_first_frame(tmp_path: Path):
    from dataclasses import replace

    from jwb_dh_v1.media.audio import decode_audio

    sound = media.tone(0.5)
    for late in (0.0, 0.1):
        write_mp4(tmp_path / "a.mp4", media.moving(20, 64, 48), 20, replace(sound, start=late))
        audio = decode_audio(row_of(Item("a", "p", tmp_path / "a.mp4"))["audio"]["bytes"])
        assert audio is not None
        begin = np.flatnonzero(np.abs(audio.samples[0]) > 0.2)[0] / audio.rate
        assert begin == pytest.approx(late, abs=0.004)  # AAC smears a beginning over a few ms
    write_mp4(tmp_path / "a.mp4", media.moving(20, 64, 48), 20)
    row = row_of(Item("a", "p", tmp_path / "a.mp4"))
    assert (row["audio"], row["speech"]) == (None, None)  # a silent film is a clip, too


def test_sound_files_are_kept_if_they_are_what_the_schema_says(clip_file: Path, tmp_path: Path):
    import av

    sound = media.tone(0.5)
    (tmp_path / "a.wav").write_bytes(sound.wav())
    flac, wide = tmp_path / "a.flac", tmp_path / "wide.wav"
    for path, codec, kind in ((flac, "flac", "s16"), (wide, "pcm_f32le", "flt")):
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=16000, layout="mono")
            samples = sound.samples if kind == "flt" else np.rint(sound.samples * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
            frame.sample_rate = 16000
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    for name in ("a.wav", "a.flac"):
        assert row_of(Item("x", "p", clip_file, tmp_path / name))["audio"] == {
            "bytes": (tmp_path / name).read_bytes(), "path": f"x{Path(name).suffix}"
        }  # fmt: skip
    assert row_of(Item("x", "p", clip_file, wide))["audio"] == {"bytes": sound.wav(), "path": "x.wav"}
    wide.write_bytes(b"RIFF")
    with pytest.raises(BadAudio):
        row_of(Item("x", "p", clip_file, wide))
