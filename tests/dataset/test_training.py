"""Loading checks what it loads; rows become clips and batches; streams are shared and resumed. No network needed."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from jwb_dh_v1 import load_dataset
from jwb_dh_v1.dataset.schema import POSE, SCHEMA_VERSION, WORD_MOTION, annotation_columns, features
from jwb_dh_v1.dataset.training import collate, decode
from jwb_dh_v1.errors import BadBox, DataNotFound, SetupError, Truncated, Unreadable
from jwb_dh_v1.media.annotations import PARTS, Annotations
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.video import write_mp4

CARD = """---
configs:
- config_name: evaluation
  default: true
  data_files: [{split: evaluation, path: "evaluation/*.parquet"}]
---
"""


def make_row(index: int, room: Path, frames: int, size: tuple[int, int] = (64, 48)) -> dict[str, Any]:
    """A row of noise with a face in all frames but the second."""
    random = np.random.default_rng(index)
    width, height = size
    path = room / f"{index}.mp4"
    sound = Audio(random.uniform(-0.5, 0.5, (1, 16000 * frames // 25)).astype(np.float32), 16000)
    write_mp4(path, random.integers(0, 255, (frames, height, width, 3), np.uint8), 25, sound)
    content = path.read_bytes()
    face = np.tile(np.array([1, 2, 30, 40], np.float32), (frames, 1))
    face[1] = np.nan
    seen = np.isfinite(face[:, 0]).astype(np.float32)
    points = random.random((frames, 133, 3)).astype(np.float32)
    word = {"word": "hello", "start": 0.1, "end": 0.2, "score": None, "source": "x"}
    return {
        "schema_version": SCHEMA_VERSION,
        "sample_id": f"s{index}",
        "identity_id": f"i{index // 2}",
        "video": {"bytes": content, "path": f"s{index}.mp4"},
        "video_sha256": hashlib.sha256(content).hexdigest(),
        "audio": {"bytes": sound.wav(), "path": f"s{index}.wav"},
        "fps": 25.0,
        "num_frames": frames,
        "height": height,
        "width": width,
        "motion_text": f"motion {index}",
        "pose": dict.fromkeys(POSE),
        "transcript": {
            "text": "hello",
            "language": "en",
            "words": [{**word, "motion": dict.fromkeys(WORD_MOTION)}],
        },
        **annotation_columns(Annotations({"face": face}, {"face": seen}, "test/1", points)),
        "speech": "own",
        "provenance": "noise",
        "licence": "none",
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    room = tmp_path_factory.mktemp("clips")
    return [make_row(index, room, 3 + index % 3) for index in range(8)]


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    schema = features().arrow_schema
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        values = [row[name].tolist() if name == "keypoints" else row[name] for row in rows]
        storage = pa.array(values, getattr(kind, "storage_type", kind))
        wrapped = isinstance(kind, pa.ExtensionType)
        columns.append(pa.ExtensionArray.from_storage(kind, storage) if wrapped else storage)
    return pa.Table.from_arrays(columns, schema=schema)


def without_metadata(table: pa.Table) -> pa.Table:
    """As another writer leaves it: storage types, and nothing that tells `datasets` the features."""
    columns = [c.combine_chunks() for c in table.columns]
    plain = [c.storage if isinstance(c, pa.ExtensionArray) else c for c in columns]
    return pa.Table.from_arrays(plain, names=table.column_names)


def write(folder: Path, *tables: pa.Table) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for index, table in enumerate(tables):
        path = folder / "evaluation" / f"evaluation-{index:05}-of-{len(tables):05}.parquet"
        parquet.write_table(table, path, row_group_size=1)
    return folder


@pytest.fixture(scope="module")
def shards(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "data", *(table_of(rows[at : at + 2]) for at in range(0, 8, 2)))


def load(folder: Path, streaming: bool = True, **how: Any) -> Any:
    how.setdefault("split", "evaluation")
    return load_dataset(folder, streaming=streaming, cache_dir=str(folder.parent / "cache"), **how)


# --------------------------------------------------------------------------------------------------------- loading


def test_the_signature_is_that_of_datasets():
    import datasets

    ours, theirs = (list(inspect.signature(f).parameters) for f in (load_dataset, datasets.load_dataset))
    by_position = [
        n for n, p in inspect.signature(load_dataset).parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    assert by_position == [n for n in theirs if n in by_position] == ["path", "name", "data_dir", "data_files", "split"]
    assert set(ours) - set(theirs) == {"columns", "kwargs"}  # `columns` is a keyword of its Parquet builder


@pytest.mark.parametrize(
    ("streaming", "split", "kind"),
    [(True, "evaluation", "IterableDataset"), (True, None, "IterableDatasetDict"), (False, None, "DatasetDict")],
)
def test_the_types_are_those_of_datasets(shards: Path, streaming: bool, split: str | None, kind: str):
    assert type(load(shards, streaming, split=split)).__name__ == kind


@pytest.mark.parametrize("streaming", [True, False])
def test_rows_come_back_as_they_were_written(shards: Path, rows: list[dict[str, Any]], streaming: bool):
    found = list(load(shards, streaming))
    assert len(found) == len(rows)
    for here, there in zip(found, rows, strict=True):
        assert here.keys() == there.keys()
        assert np.array_equal(np.asarray(here.pop("keypoints"), np.float32), there["keypoints"])
        word = there["transcript"]["words"][0]
        times = {key: float(np.float32(word[key])) for key in ("start", "end")}
        wanted = {**there, "transcript": {**there["transcript"], "words": [{**word, **times}]}}
        wanted.pop("keypoints")
        assert here == wanted


def test_columns_and_filters_are_passed_on(shards: Path):
    assert list(load(shards, columns=["sample_id"], filters=[("identity_id", "==", "i1")])) == [
        {"sample_id": "s2"},
        {"sample_id": "s3"},
    ]
    assert list(load(shards, columns="fps").take(1)) == [{"fps": 25.0}]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"columns": ["sample_id", "smell"]}, "has no column 'smell'"),
        ({"name": "training"}, "training"),
        ({"split": "validation"}, "validation"),
    ],
)
def test_what_is_not_there_is_named(shards: Path, streaming: bool, how: dict[str, Any], says: str):
    with pytest.raises(SetupError, match=says):
        load(shards, streaming, **how)


OTHERS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "missing": (lambda t: t.drop_columns(["motion_text"]), "column 'motion_text' is missing .*data pack"),
    "renamed": (lambda t: t.rename_columns({"fps": "rate"}), r"'fps' is missing; not known here: rate \(schema 2\)"),
    "retyped": (
        lambda t: t.set_column(t.column_names.index("fps"), "fps", t["fps"].cast("string")),
        "column 'fps' is string, expected is float",
    ),
    "boxes": (
        lambda t: t.set_column(t.column_names.index("boxes"), "boxes", pa.array([[1.0, 2.0]] * len(t))),
        "column 'boxes' is list<.*double>, expected is struct<body: list",
    ),
    "older": (
        lambda t: t.drop_columns(["pose"]).set_column(0, "schema_version", pa.array([1] * len(t), "int32")),
        "schema 1, this package reads 2: make them again",
    ),
}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("change", OTHERS)
def test_data_of_another_schema_are_refused_by_column(
    rows: list[dict[str, Any]], tmp_path: Path, change: str, streaming: bool
):
    alter, says = OTHERS[change]
    folder = write(tmp_path / "data", alter(without_metadata(table_of(rows[:2]))))
    with pytest.raises(SetupError, match=says):
        load(folder, streaming)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_chosen_column_of_another_type_is_refused(rows: list[dict[str, Any]], tmp_path: Path, streaming: bool):
    folder = write(tmp_path / "data", OTHERS["retyped"][0](without_metadata(table_of(rows[:2]))))
    with pytest.raises(SetupError, match="column 'fps' is string"):
        load(folder, streaming, columns=["fps"])
    assert list(load(folder, streaming, columns=["sample_id"]))  # what is asked for is as it should be


def test_a_newer_version_with_the_same_columns_is_refused(rows: list[dict[str, Any]], tmp_path: Path):
    folder = write(tmp_path / "data", table_of([{**row, "schema_version": SCHEMA_VERSION + 1} for row in rows[:1]]))
    with pytest.raises(SetupError, match="upgrade"):
        load(folder, streaming=False)
    with pytest.raises(SetupError, match="upgrade"):  # a stream has not been read yet
        decode(next(iter(load(folder))))


@pytest.mark.parametrize("streaming", [True, False])
def test_other_writers_and_other_data_pass(rows: list[dict[str, Any]], tmp_path: Path, streaming: bool):
    ours = write(tmp_path / "ours" / "data", without_metadata(table_of(rows[:2])))
    assert decode(next(iter(load(ours, streaming)))).frames.shape == (3, 48, 64, 3)
    foreign = write(tmp_path / "theirs" / "data", pa.table({"video": ["a.mp4"], "fps": ["many"]}))
    assert list(load(foreign, streaming)) == [{"video": "a.mp4", "fps": "many"}]
    assert list(load(foreign, streaming, columns=["fps"])) == [{"fps": "many"}]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:  # a page of a row group: the file opens
        place = parquet.ParquetFile(path).metadata.row_group(0).column(0).dictionary_page_offset
        path.write_bytes(content[:place] + b"\xff" * 24 + content[place + 24 :])


@pytest.mark.parametrize("how", ["cut", "empty", "page"])
def test_a_damaged_shard_is_named(rows: list[dict[str, Any]], tmp_path: Path, how: str):
    folder = write(tmp_path / "data", *(table_of(rows[at : at + 2]) for at in (0, 2, 4)))
    second = sorted(folder.rglob("*.parquet"))[1]
    damage(second, how)
    with pytest.raises(SetupError, match=f"{second.name} is damaged: .*data check"):
        load(folder, streaming=False)
    # A stream reads the first shard only before it is read from; `datasets` raises pyarrow's error and logs the name.
    stream, seen = load(folder), []
    with pytest.raises((pa.ArrowException, OSError)):
        for row in stream:
            seen.append(row["sample_id"])
    assert seen == ["s0", "s1"]


@pytest.mark.parametrize("streaming", [True, False])
def test_damaged_shards_are_left_out_on_request(rows: list[dict[str, Any]], tmp_path: Path, streaming: bool):
    folder = write(tmp_path / "data", *(table_of(rows[at : at + 2]) for at in (0, 2, 4)))
    damage(sorted(folder.rglob("*.parquet"))[0], "cut")
    with pytest.raises(SetupError, match=r"00000-of-00003.parquet is damaged"):
        load(folder, streaming)
    kept = load(folder, streaming, on_bad_files="skip")
    assert [row["sample_id"] for row in kept] == ["s2", "s3", "s4", "s5"]


def test_a_shard_with_other_columns_is_named(rows: list[dict[str, Any]], tmp_path: Path):
    whole = without_metadata(table_of(rows[:2]))
    other = whole.set_column(whole.column_names.index("fps"), "fps", pa.array([[1], [2]]))
    folder = write(tmp_path / "data", whole, other)
    with pytest.raises(SetupError, match=r"00001-of-00002.parquet differs from the shards before it in column fps"):
        load(folder, streaming=False)


def test_a_folder_without_shards_is_not_found(tmp_path: Path):
    with pytest.raises(DataNotFound, match="Is it whole"):
        load(write(tmp_path / "data"))


def test_processes_prepare_and_refuse_the_same(shards: Path, rows: list[dict[str, Any]]):
    assert load(shards, False, num_proc=2, columns=["sample_id"])["sample_id"][:] == [row["sample_id"] for row in rows]
    with pytest.raises(SetupError, match="has no column 'smell'"):
        load(shards, False, num_proc=2, columns=["smell"])


# --------------------------------------------------------------------------------------------------------- decoding


def test_a_row_becomes_a_clip_without_copies(rows: list[dict[str, Any]]):
    row = rows[0]
    clip = decode(row)
    assert clip._source is row["video"]["bytes"]
    assert clip._frames is None
    assert "info" not in clip._memo  # not even the header was looked at
    assert (len(clip), clip.size, clip.fps) == (3, (64, 48), 25.0)
    assert clip.provided_annotations is not None
    assert np.isnan(clip.provided_annotations.boxes["face"][1]).all()
    assert np.array_equal(clip.provided_annotations.keypoints, row["keypoints"])
    assert not any(held is row for held in clip.__dict__.values())


def test_bad_annotations_fail_when_they_are_asked_for(rows: list[dict[str, Any]]):
    clip = decode({**rows[0], "boxes": {"face": [[1, 2, 3]]}})
    assert clip.frames.shape == (3, 48, 64, 3)
    with pytest.raises(BadBox):
        _ = clip.provided_annotations


def test_other_bytes_than_packed_are_refused(rows: list[dict[str, Any]]):
    content = bytearray(rows[0]["video"]["bytes"])
    content[len(content) // 2] ^= 1
    broken = {**rows[0], "video": {"bytes": bytes(content), "path": None}}
    with pytest.raises(Truncated, match=r"s0: .*video_sha256"):
        decode(broken)
    assert decode(broken, verify=False).sha256 != rows[0]["video_sha256"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"video": None}, Unreadable),
        ({"video": {"bytes": None, "path": None}}, Unreadable),
        ({"video": object()}, SetupError),
        ({"schema_version": SCHEMA_VERSION + 1}, SetupError),
    ],
)
def test_rows_that_are_no_clips(rows: list[dict[str, Any]], change: dict[str, Any], error: type[Exception]):
    with pytest.raises(error, match=r"s0|schema"):
        decode({**rows[0], **change})


def test_a_row_without_video_says_how_to_load_it(rows: list[dict[str, Any]]):
    with pytest.raises(SetupError, match="columns="):
        decode({"sample_id": "s0"})


# --------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_padded(rows: list[dict[str, Any]]):
    batch = collate(rows[:3])
    assert batch["sample_id"] == ["s0", "s1", "s2"]
    assert batch["text"] == ["hello"] * 3
    assert batch["words"][1][0]["word"] == "hello"
    assert batch["lengths"].tolist() == [3, 4, 5]
    assert batch["lengths"].dtype == torch.int64
    assert (batch["frames"].shape, batch["frames"].dtype) == ((3, 5, 48, 64, 3), torch.uint8)
    for index, row in enumerate(rows[:3]):
        length = 3 + index
        assert np.array_equal(batch["frames"][index, :length].numpy(), decode(row).frames)
        assert not batch["frames"][index, length:].any()
        assert np.array_equal(batch["keypoints"][index, :length].numpy(), row["keypoints"])
        assert batch["keypoints"][index, length:].isnan().all()
        absent = batch["boxes"]["face"][index].isnan().all(dim=1)
        assert absent.tolist() == [t == 1 or t >= length for t in range(5)]
    assert set(batch["boxes"]) == set(PARTS)
    assert batch["boxes"]["face"][0, 0].tolist() == [1, 2, 30, 40]
    assert batch["boxes"]["body"].isnan().all()
    assert batch["boxes"]["body"].shape == (3, 5, 4)
    assert [sound.shape for sound in batch["audio"]] == [(1, 1920), (1, 2560), (1, 3200)]
    assert batch["audio_rate"].tolist() == [16000] * 3


def test_clips_of_several_sizes_come_as_a_list(rows: list[dict[str, Any]], tmp_path: Path):
    batch = collate([rows[0], make_row(9, tmp_path, 4, (32, 64))])
    assert [frames.shape for frames in batch["frames"]] == [(3, 48, 64, 3), (4, 64, 32, 3)]
    assert batch["boxes"]["face"].shape == (2, 4, 4)


def test_batches_of_annotations_need_no_video(shards: Path):
    columns = ["sample_id", "num_frames", "boxes", "keypoints"]
    batch = collate(list(load(shards, columns=columns).take(2)))
    assert set(batch) == {"sample_id", "lengths", "boxes", "keypoints"}
    assert batch["lengths"].tolist() == [3, 4]
    with pytest.raises(SetupError, match="num_frames"):
        collate(list(load(shards, columns=["boxes"]).take(2)))


def test_rows_without_annotations_make_a_batch(rows: list[dict[str, Any]]):
    bare = {**rows[0], **annotation_columns(None), "audio": None}
    batch = collate([bare, rows[1]])
    assert batch["boxes"]["face"][0].isnan().all()
    assert batch["keypoints"][0].isnan().all()
    assert not batch["boxes"]["face"][1, 0].isnan().any()
    assert batch["audio"][0] is None
    assert batch["audio_rate"].tolist() == [0, 16000]


def test_batches_that_cannot_be(rows: list[dict[str, Any]]):
    with pytest.raises(SetupError):
        collate([])
    short = {**rows[0], "boxes": {"face": rows[0]["boxes"]["face"][:-1]}, "box_scores": None}
    with pytest.raises(BadBox, match="s0: 2 face boxes for 3 frames"):
        collate([short])
    with pytest.raises(BadBox, match="s0: key points"):
        collate([{**rows[0], "keypoints": rows[0]["keypoints"][:-1]}])


# --------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("world", [2, 3, 5])
def test_nodes_and_workers_lose_and_double_nothing(shards: Path, rows: list[dict[str, Any]], world: int):
    from datasets.distributed import split_dataset_by_node
    from torch.utils.data import DataLoader

    seen = []
    for rank in range(world):
        mine = split_dataset_by_node(load(shards, columns=["sample_id"]), rank=rank, world_size=world)
        workers = min(2, mine.num_shards)
        for batch in DataLoader(mine, batch_size=3, num_workers=workers, collate_fn=collate):
            seen += batch["sample_id"]
    assert sorted(seen) == [row["sample_id"] for row in rows]


def test_a_stream_resumes_at_every_sample(shards: Path, rows: list[dict[str, Any]]):
    stream, states = load(shards, columns=["sample_id"]), []
    for _ in stream:
        states.append(pickle.dumps(stream.state_dict()))
    for at, state in enumerate(states):
        again = load(shards, columns=["sample_id"])
        again.load_state_dict(pickle.loads(state))
        assert [row["sample_id"] for row in again] == [row["sample_id"] for row in rows[at + 1 :]]
