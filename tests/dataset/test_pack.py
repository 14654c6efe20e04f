"""Packing: kills and workers do not show, people stay in one split, bad clips are listed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import media
import pytest

from jwb_dh_v1.dataset.build.pack import STATE, items_in, pack, shard_count, shard_name
from jwb_dh_v1.dataset.build.rows import Item
from jwb_dh_v1.dataset.check import check
from jwb_dh_v1.dataset.load import load_dataset
from jwb_dh_v1.dataset.parquet import read_rows
from jwb_dh_v1.errors import AlreadyRunning, PlanMismatch, SetupError
from jwb_dh_v1.media.video import write_mp4


@pytest.fixture(name="clip_file", scope="module")
def clip_file_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 10 frames of 64x48 with half a second of sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_mp4(path, media.moving(10, 64, 48), 20, media.tone(0.5))
    return path


@pytest.fixture
def clips(clip_file: Path, tmp_path: Path) -> Path:
    """24 clips of 6 people, all different to the byte."""
    folder = tmp_path / "clips"
    for number in range(24):
        place = folder / f"p{number % 6}"
        place.mkdir(parents=True, exist_ok=True)
        distinct(clip_file, place / f"{number:02d}.mp4", number)
        (place / f"{number:02d}.txt").write_text(f"clip {number}")
    return folder


def distinct(source: Path, path: Path, number: int) -> Path:
    """A copy with a `free` box, which players pass over."""
    content = b"%08d" % number
    path.write_bytes(source.read_bytes() + (8 + len(content)).to_bytes(4, "big") + b"free" + content)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in the folder, but for the packer's own notes."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if not name.startswith(STATE)}


def packed_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.rglob("*.parquet")) for row in read_rows(path)]


def test_bad_clips_are_listed_and_the_others_are_packed(clip_file: Path, clips: Path, tmp_path: Path):
    bad = clips / "p0"
    whole = media.faststart(tmp_path / "long.mp4").read_bytes()
    (bad / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (bad / "text.mp4").write_text("Not found")
    (bad / "empty.mp4").touch()
    (bad / "link.mp4").symlink_to(bad / "nowhere")
    media.variable_rate(bad / "uneven.mp4")
    distinct(clip_file, bad / os.fsdecode(b"\xff.mp4"), 97)
    distinct(clip_file, bad / "grüße 日本.mp4", 98)
    for name, content in (
        ("words.csv", "word,start,end\na,0,9\n"),
        ("boxes.csv", "frame,part,x1,y1,x2,y2\n99,face,1,1,2,2\n"),
    ):
        distinct(clip_file, bad / f"{name[:5]}.mp4", 99)
        (bad / f"{name[:5]}.{name}").write_text(content)
    distinct(clip_file, bad / "json.mp4", 100)
    (bad / "json.json").write_text("{")
    distinct(clip_file, bad / "says.mp4", 101)
    (bad / "says.txt").write_text("nine")
    (bad / "says.csv").write_text("word,start,end\nten,0,0.2\n")
    distinct(clip_file, clips / "p1" / "01.mov", 102)  # p1-01 is there already
    (clips / "metadata.csv").write_text("sample_id\ngone\np0-grüße 日本\n")
    distinct(clip_file, bad / "mute.mp4", 103)
    extra = Item("mute", "p0", bad / "mute.mp4", audio=bad / "mute.wav")
    told: dict[str, str | None] = {}
    manifest = pack(
        [*items_in(clips), extra], tmp_path / "out", on_item=lambda name, why: told.update({name: why and why.error})
    )
    wrong = {failure.sample_id: failure.error for failure in manifest.failed}
    assert wrong == {
        "p0-cut": "Truncated", "p0-text": "NotAVideo", "p0-empty": "NotAVideo", "p0-link": "Unreadable",
        "p0-uneven": "VariableFrameRate", "p0-\udcff": "BadAnnotation", "p0-words": "BadAnnotation",
        "p0-boxes": "BadBox", "p0-json": "BadAnnotation", "p0-says": "BadAnnotation", "p1-01": "BadAnnotation",
        "gone": "Unreadable", "mute": "Unreadable",
    }  # fmt: skip
    names = {row["sample_id"] for row in packed_rows(tmp_path / "out")}
    assert names == {f"p{n % 6}-{n:02d}" for n in range(24)} | {"p0-grüße 日本", "p0-mute"}
    assert manifest.rows == len(names) == 26
    assert told == wrong | dict.fromkeys(names - {"p1-01"}) | {"p1-01": None}
    listed = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {failure["sample_id"] for failure in listed["failed"]} == set(wrong)
    assert listed["rows"] == listed["splits"]["evaluation"]["rows"] == 26


# ------------------------------------------------------------------------------------------------- kills and workers

SCRIPT = """
import multiprocessing, os, signal, sys
import importlib
packing = importlib.import_module("jwb_dh_v1.dataset.build.pack")  # the room's own name is the function
from jwb_dh_v1.dataset.build.pack import items_in, pack

def main():
    clips, out, workers, after, where = sys.argv[1:]
    left = [int(after)]
    def die(*_):
        left[0] -= 1
        if left[0] == 0:
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    if where == "row":
        row_of = packing.row_of
        packing.row_of = lambda item: (die(), row_of(item))[1]
    pack(items_in(clips), out, shards={"evaluation": 6}, workers=int(workers), on_item=die if where == "item" else None)

if __name__ == "__main__":
    main()
"""


def killed(clips: Path, out: Path, workers: int, after: int, where: str) -> list[int]:
    """Kill a pack in its middle; the ids of its workers."""
    script = out.parent / "script.py"
    script.write_text(SCRIPT)
    # Files, not pipes: an orphan would hold a pipe open, and this would wait for it.
    said, log = out.parent / "said", out.parent / "log"
    with said.open("w") as stdout, log.open("w") as stderr:
        command = [sys.executable, script, clips, out, str(workers), str(after), where]
        done = subprocess.run(command, stdout=stdout, stderr=stderr)
    assert done.returncode == -signal.SIGKILL, log.read_text()
    return [int(pid) for pid in said.read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("workers", "after", "where"), [(1, 11, "row"), (2, 9, "item")])
def test_a_killed_pack_goes_on(clips: Path, tmp_path: Path, workers: int, after: int, where: str):
    (clips / "p0" / "bad.mp4").write_text("no video")
    wanted = tmp_path / "whole"
    pack(items_in(clips), wanted, shards={"evaluation": 6})
    out = tmp_path / "out"
    orphans = killed(clips, out, workers, after, where)
    if workers > 1:  # they must not go on writing into the folder
        assert len(orphans) == workers
        left = time.time() + 10
        while any(map(runs, orphans)) and time.time() < left:
            time.sleep(0.05)
        assert not any(map(runs, orphans))
    assert not (out / "manifest.json").exists()
    half = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    recorded = [path for path in half if (out / STATE / f"{path.stem}.json").exists()]
    assert 0 < len(recorded) < 6
    if where == "row":
        assert [path for path in out.rglob(".*.part")]  # the shard that was being written
    pack(items_in(clips), out, shards={"evaluation": 6})
    assert files_of(out) == files_of(wanted)
    assert all(path.stat().st_mtime_ns == half[path] for path in recorded)
    assert len(json.loads((out / "manifest.json").read_text())["failed"]) == 1


def test_workers_do_not_show(clips: Path, tmp_path: Path):
    for workers in (1, 2):
        pack(items_in(clips), tmp_path / str(workers), shards={"evaluation": 6}, workers=workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert len(files_of(tmp_path / "1")) == 6 + 2


def test_what_has_changed_is_made_again(clips: Path, tmp_path: Path):
    out = tmp_path / "out"
    (clips / "p0" / "00.csv").write_text("word,start,end\nclap,0,0.2\n")
    first = pack(items_in(clips), out, shards={"evaluation": 6})
    assert [failure.sample_id for failure in first.failed] == ["p0-00"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    (clips / "p0" / "00.txt").write_text("Clap!")
    damaged = sorted(before)[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    second = pack(items_in(clips), out, shards={"evaluation": 6})
    assert (second.rows, second.failed) == (24, ())
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    theirs = {p for p in before if any(row["sample_id"] == "p0-00" for row in read_rows(p, ["sample_id"]))}
    assert changed == theirs | {damaged}


def test_other_files_are_not_taken_in_and_nobody_writes_twice(clips: Path, tmp_path: Path):
    from filelock import FileLock

    out = tmp_path / "out"
    pack(items_in(clips), out, shards={"evaluation": 2})
    kept = files_of(out)
    with pytest.raises(PlanMismatch, match="evaluation-00000-of-00002"):
        pack(items_in(clips), out, shards={"evaluation": 3})
    assert files_of(out) == kept
    with FileLock(out / STATE / "lock"), pytest.raises(AlreadyRunning):
        pack(items_in(clips), out, shards={"evaluation": 2})
    with pytest.raises(SetupError, match="one shard"):
        pack(items_in(clips), tmp_path / "other", shards={"evaluation": 0})


def test_a_shard_that_cannot_be_written_stops_the_pack(clips: Path, tmp_path: Path):
    (tmp_path / "out" / "evaluation").mkdir(parents=True)
    (tmp_path / "out" / "evaluation" / "evaluation-00000-of-00001.parquet").mkdir()
    with pytest.raises(SetupError, match="cannot be written"):
        pack(items_in(clips), tmp_path / "out", shards={"evaluation": 1})


# ----------------------------------------------------------------------------------------------------------- splits


def people_of(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        split = path.relative_to(folder).parts[0]
        found.setdefault(split, set()).update(row["identity_id"] for row in read_rows(path, ["identity_id"]))
    return found


@pytest.mark.parametrize("splits", [{"evaluation": 8, "train": None}, {"evaluation": 1 / 3, "train": None}])
def test_splits_share_no_person(clips: Path, tmp_path: Path, splits: dict[str, float | None]):
    pack(items_in(clips, {"licence": "ours"}), tmp_path / "out", splits=splits, shards={"train": 2})
    people = people_of(tmp_path / "out")
    assert not people["evaluation"] & people["train"]
    assert people["evaluation"] | people["train"] == {f"p{n}" for n in range(6)}
    assert len(people["evaluation"]) == 2  # 8 of 24 clips, 4 a person
    order = sorted(people["evaluation"] | people["train"], key=lambda p: hashlib.sha256(p.encode()).digest())
    assert people["evaluation"] == set(order[:2])
    whole = load_dataset(tmp_path / "out", "train", split="train", streaming=True, columns=["sample_id"])
    assert len(list(whole)) == 16
    assert not check(tmp_path / "out", decode="none").problems


def test_given_splits_hold_and_leaks_stop(clips: Path, tmp_path: Path):
    (clips / "metadata.csv").write_text("sample_id,split\np3-03,teaser\np4-04,train\n")
    pack(items_in(clips), tmp_path / "out", splits={"evaluation": None})
    people = people_of(tmp_path / "out")
    assert people == {"evaluation": {"p0", "p1", "p2", "p5"}, "teaser": {"p3"}, "train": {"p4"}}
    rows = load_dataset(tmp_path / "out", "teaser", split="evaluation", streaming=True, columns=["identity_id"])
    assert {row["identity_id"] for row in rows} == {"p3"}
    (clips / "metadata.csv").write_text("sample_id,split\np3-03,teaser\np3-09,train\n")
    with pytest.raises(SetupError, match="'p3' is in several splits"):
        pack(items_in(clips), tmp_path / "other")
    (clips / "metadata.csv").write_text("sample_id,split\np3-03,../up\n")
    with pytest.raises(SetupError, match=r"A split is named '\.\./up'"):
        pack(items_in(clips), tmp_path / "other")


def test_the_order_is_that_of_hashes_and_not_of_listing(clips: Path, tmp_path: Path):
    items = list(items_in(clips))
    pack(items, tmp_path / "a")
    pack(reversed(items), tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    names = [row["sample_id"] for row in packed_rows(tmp_path / "a")]
    assert names == sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


# ----------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize(
    ("rows", "size", "count"),
    [
        (20_000, 3e6, 192), (2_000_000, 3e6, 6144), (0, 0, 1), (1, 3e6, 1), (8, 4e5, 1), (64, 3e6, 1), (1000, 3e6, 12),
        (1000, 0, 1), (127, 1e12, 1), (128, 1e12, 2), (10**9, 3e6, 16384), (20_000, 1e4, 3),
    ],
)  # fmt: skip
def test_shard_counts(rows: int, size: float, count: int):
    assert shard_count(rows, size) == count


def test_shard_counts_have_many_factors_and_grow():
    counts = [shard_count(rows, 3e6) for rows in range(0, 3_000_000, 1000)]
    assert counts == sorted(counts)
    for count in counts:
        odd = count // (count & -count)
        assert odd in {1, 3}


def test_no_folder_holds_more_than_1024_shards():
    assert shard_name("evaluation", 0, 192) == "evaluation/evaluation-00000-of-00192.parquet"
    assert shard_name("train", 6143, 6144) == "train/005/train-06143-of-06144.parquet"
    names = [shard_name("train", number, 6144) for number in range(6144)]
    assert names == sorted(names)
    folders = [name.rsplit("/", 1)[0] for name in names]
    assert max(folders.count(folder) for folder in set(folders)) == 1024


def test_many_shards_are_found_in_their_folders(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jwb_dh_v1.dataset.parquet.PER_FOLDER", 4)
    pack(items_in(clips), tmp_path / "out", shards={"evaluation": 6})
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.parquet")} == {"000", "001"}
    rows = load_dataset(tmp_path / "out", split="evaluation", streaming=True, columns=["sample_id"])
    assert rows.num_shards == 6
    assert len(list(rows)) == 24


def test_a_folder_packed_again_is_not_taken_for_the_old_one(clips: Path, tmp_path: Path):
    def texts() -> set[str]:
        pack(items_in(clips), tmp_path / "out")
        rows = load_dataset(tmp_path / "out", split="evaluation", cache_dir=str(tmp_path / "cache"))
        return {row["text"] for row in rows["transcript"]}

    before = texts()
    (clips / "p1" / "01.txt").write_text("something else")
    assert texts() - before == {"something else"}
