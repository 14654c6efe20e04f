"""`data check` names what is wrong with a dataset: each kind of damage to its shards breaks exactly its rule."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from rich.console import Console

from jwb_dh_v1.dataset.check import Report, check, print_report
from jwb_dh_v1.dataset.schema import features
from jwb_dh_v1.errors import DataNotFound

Row = dict[str, Any]
# Four small clips of three people; the damage is done to the second.
LAYOUT = {
    "evaluation/evaluation-00000-of-00002.parquet": ("carphone-1", "carphone-2"),
    "evaluation/evaluation-00001-of-00002.parquet": ("obama-1",),
    "train/000/train-00000-of-00001.parquet": ("pyfeat-1",),
}
FIRST, SECOND, TRAIN = LAYOUT
VICTIM = "carphone-2"


def write(path: Path, rows: list[Row], compression: str = "snappy") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = []
    schema = features().arrow_schema
    for column in schema:
        values = [row[column.name] for row in rows]
        if isinstance(column.type, pa.ExtensionType):
            values = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
            columns.append(pa.ExtensionArray.from_storage(column.type, pa.array(values, column.type.storage_type)))
        else:
            columns.append(pa.array(values, column.type))
    parquet.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression=compression)


def manifest(folder: Path) -> None:
    facts = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "rows": parquet.read_metadata(path).num_rows,
        }
        for path in sorted(folder.rglob("*.parquet"))
    }
    (folder / "manifest.json").write_text(json.dumps({"files": facts}))


@pytest.fixture(name="rows", scope="module")
def rows_fixture(teaser_dir: Path) -> dict[str, Row]:
    from jwb_dh_v1.dataset.load import load_dataset

    every = load_dataset(teaser_dir, split="evaluation", streaming=True)
    wanted = {name for names in LAYOUT.values() for name in names}
    found = {row["sample_id"]: row for row in every if row["sample_id"] in wanted}
    for row in found.values():
        row["keypoints"] = np.asarray(row["keypoints"], np.float32)
    return found


@pytest.fixture(name="whole", scope="module")
def whole_fixture(rows: dict[str, Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "jwb-dh-v1"
    for name, samples in LAYOUT.items():
        write(folder / name, [rows[sample] for sample in samples])
    manifest(folder)
    return folder


@pytest.fixture(name="copied")
def copied_fixture(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "jwb-dh-v1"))


def found_in(folder: Path, **how: Any) -> list[tuple[str, str, int | None, str | None]]:
    return [(p.rule, p.file, p.row, p.sample_id) for p in check(folder, **how).problems]


def video(row: Row, content: bytes) -> None:
    row["video"]["bytes"], row["video_sha256"] = content, hashlib.sha256(content).hexdigest()


@pytest.mark.teaser
@pytest.mark.parametrize("how", [{"decode": "all"}, {"decode": "some", "workers": 2}, {"decode": "none"}])
def test_whole_data_have_no_problem(whole: Path, how: dict[str, Any]):
    seen: list[tuple[str, int, int]] = []
    report = check(whole, on_file=lambda *facts: seen.append(facts), **how)
    assert report.problems == []
    assert report.ok
    assert (report.rows, report.files, report.identities) == (4, 3, 3)
    assert report.splits == {"evaluation": 3, "train": 1}
    assert report.seconds == pytest.approx(10.4, abs=0.5)
    assert seen == [(FIRST, 2, 0), (SECOND, 1, 0), (TRAIN, 1, 0)]
    assert report.decoded == {"all": 4, "some": 3, "none": 0}[how["decode"]]


@pytest.mark.teaser
def test_the_teaser_as_made_has_no_problem(teaser_dir: Path):
    report = check(teaser_dir, decode="some")
    assert report.problems == []
    assert report.rows == 8


# ---------------------------------------------------------------------------------------------------- damaged shards


def altered(folder: Path, rows: dict[str, Row]) -> tuple[Any, ...]:
    write(folder / SECOND, [rows["obama-1"]], compression="zstd")
    return "altered-shard", SECOND, None, None


def truncated(folder: Path, _: Any) -> tuple[Any, ...]:
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(content[: len(content) // 2])
    return "unreadable-shard", SECOND, None, None


def emptied(folder: Path, _: Any) -> tuple[Any, ...]:
    (folder / SECOND).write_bytes(b"")
    return "unreadable-shard", SECOND, None, None


def missing(folder: Path, _: Any) -> tuple[Any, ...]:
    (folder / SECOND).unlink()
    return "missing-shard", SECOND, None, None


def missing_by_number(folder: Path, _: Any) -> tuple[Any, ...]:
    (folder / "manifest.json").unlink()
    (folder / SECOND).unlink()
    return "missing-shard", SECOND, None, None


def extra(folder: Path, rows: dict[str, Row]) -> tuple[Any, ...]:
    other = copy.deepcopy(rows["obama-1"])
    other["sample_id"] = "obama-9"
    video(other, other["video"]["bytes"] + b"\0\0\0\x08free")
    write(folder / "evaluation" / "more.parquet", [other])
    return "extra-shard", "evaluation/more.parquet", None, None


def fewer_rows(folder: Path, _: Any) -> tuple[Any, ...]:
    facts = json.loads((folder / "manifest.json").read_text())
    facts["files"][FIRST]["rows"] = 3
    (folder / "manifest.json").write_text(json.dumps(facts))
    return "row-count", FIRST, None, None


def no_manifest(folder: Path, _: Any) -> tuple[Any, ...]:
    (folder / "manifest.json").write_text('{"files": ')
    return "manifest", "manifest.json", None, None


def other_type(folder: Path, _: Any) -> tuple[Any, ...]:
    table = parquet.read_table(folder / SECOND)
    at = table.column_names.index("fps")
    parquet.write_table(table.set_column(at, "fps", table["fps"].cast(pa.float64())), folder / SECOND)
    manifest(folder)
    return "schema", SECOND, None, None


def column_missing(folder: Path, _: Any) -> tuple[Any, ...]:
    parquet.write_table(parquet.read_table(folder / SECOND).drop_columns("pose"), folder / SECOND)
    manifest(folder)
    return "schema", SECOND, None, None


def column_more(folder: Path, _: Any) -> tuple[Any, ...]:
    table = parquet.read_table(folder / SECOND)
    parquet.write_table(table.append_column("notes", pa.array(["x"])), folder / SECOND)
    manifest(folder)
    return "schema", SECOND, None, None


def same_id(folder: Path, rows: dict[str, Row]) -> tuple[Any, ...]:
    other = {**rows["obama-1"], "sample_id": "carphone-1"}
    write(folder / SECOND, [other])
    manifest(folder)
    return "duplicate-id", SECOND, 0, "carphone-1"


def same_video(folder: Path, rows: dict[str, Row]) -> tuple[Any, ...]:
    write(folder / SECOND, [rows["obama-1"], {**rows["obama-1"], "sample_id": "obama-9"}])
    manifest(folder)
    return "duplicate-video", SECOND, 1, "obama-9"


def leak(folder: Path, rows: dict[str, Row]) -> tuple[Any, ...]:
    write(folder / TRAIN, [{**rows["pyfeat-1"], "identity_id": "obama"}])
    manifest(folder)
    return "split-leak", TRAIN, 0, "pyfeat-1"


SHARDS = (
    altered, truncated, emptied, missing, missing_by_number, extra, fewer_rows, no_manifest,
    other_type, column_missing, column_more, same_id, same_video, leak,
)  # fmt: skip


@pytest.mark.teaser
@pytest.mark.parametrize("damage", SHARDS, ids=lambda f: f.__name__)
def test_a_damaged_dataset_breaks_its_rule_only(damage: Callable[..., Any], rows: dict[str, Row], copied: Path):
    wanted = damage(copied, rows)
    assert found_in(copied, decode="none") == [wanted]


@pytest.mark.teaser
def test_a_bit_that_flipped_in_a_video_is_told_with_the_sample(copied: Path):
    content = bytearray((copied / FIRST).read_bytes())
    content[content.rindex(b"mdat") + 900] ^= (
        1  # media are stored PLAIN, compressed data that snappy leaves as they are
    )
    (copied / FIRST).write_bytes(content)
    found = found_in(copied, decode="none")
    assert found[0] == ("altered-shard", FIRST, None, None)
    assert [problem[0] for problem in found[1:]] in (["video-hash"], ["unreadable-shard"])


@pytest.mark.teaser
def test_the_teaser_folder_may_repeat_samples_but_not_its_own(rows: dict[str, Row], copied: Path):
    write(copied / "teaser" / "teaser-00000-of-00001.parquet", [rows["obama-1"], rows["pyfeat-1"]])
    manifest(copied)
    assert found_in(copied, decode="none") == []
    write(copied / "teaser" / "teaser-00000-of-00001.parquet", [rows["obama-1"], rows["obama-1"]])
    manifest(copied)
    assert [found[0] for found in found_in(copied, decode="none")] == ["duplicate-id", "duplicate-video"]


@pytest.mark.teaser
def test_problems_are_counted_when_they_are_too_many_to_keep(
    rows: dict[str, Row], copied: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Report, "LIMIT", 2)
    bad = [{**rows[VICTIM], "sample_id": f"s{n}", "licence": None} for n in range(5)]
    write(copied / FIRST, bad)
    manifest(copied)
    report = check(copied, decode="none")
    assert report.counts == {"licence": 5, "duplicate-video": 4}
    assert [p.sample_id for p in report.problems] == ["s0", "s1", "s1", "s2"]
    assert not report.ok


@pytest.mark.teaser
def test_the_table_names_rule_place_and_sample(rows: dict[str, Row], copied: Path):
    write(copied / FIRST, [{**rows[VICTIM], "licence": ""}])
    manifest(copied)
    report = check(copied, decode="none")
    assert str(report.problems[0]) == f"{FIRST}, row 0 ({VICTIM}): licence: no licence is named"
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    line = next(line for line in out.getvalue().splitlines() if "no licence is named" in line)
    assert "licence" in line
    assert f"{FIRST}, row 0 ({VICTIM})" in line
    assert "3 rows (evaluation 2, train 1) of 3 people in 3 shards" in out.getvalue()
    out = io.StringIO()
    print_report(Report("x"), Console(file=out, width=200))
    assert "No rule is broken." in out.getvalue()


def test_a_folder_without_shards_is_no_dataset(tmp_path: Path):
    with pytest.raises(DataNotFound, match="no Parquet shard"):
        check(tmp_path)
    with pytest.raises(DataNotFound, match="no Parquet shard"):
        check(tmp_path / "nowhere")
