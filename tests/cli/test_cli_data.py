"""`jwb-dh data ...`, `jwb-dh annotate`: each command once, on real clips, with its exit code and its files."""

import json

import pytest
from media import moving

from jwb_dh_v1.cli import main
from jwb_dh_v1.dataset.load import load_dataset
from jwb_dh_v1.media.video import write_mp4


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        write_mp4(folder / f"anna{number % 2}_{number}.mp4", moving(10, 64, 48, seed=number), 10)
        (folder / f"anna{number % 2}_{number}.txt").write_text("Hello there.", encoding="utf-8")
    (folder / "broken_1.mp4").write_text("no video")
    return folder


def test_pack_check_card_push_prompts(clips, tmp_path, capsys):
    data, card = tmp_path / "my-data", tmp_path / "card.md"
    assert main(["data", "pack", str(clips), "--out", str(data), "--licence", "CC0-1.0"]) == 1  # one clip is broken
    told = capsys.readouterr().out
    assert "failed: broken" in told and "4 rows" in told
    rows = load_dataset(str(data), split="evaluation", streaming=True)
    assert sorted(row["sample_id"] for row in rows) == ["anna0_0", "anna0_2", "anna1_1", "anna1_3"]
    assert main(["data", "check", str(data), "--decode", "all"]) == 0
    card.write_text("# Card\n", encoding="utf-8")
    assert main(["data", "card", str(data), "--card", str(card)]) == 0
    assert "config_name: evaluation" in capsys.readouterr().out
    assert main(["data", "push", str(data), "someone/thing", "--dry-run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert main(["data", "prompts", "--data", str(data), "--out", str(tmp_path / "prompts")]) == 0
    lines = (tmp_path / "prompts" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["transcript"] for line in lines} == {"Hello there."} and len(lines) == 4
    shard = next((data / "evaluation").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    assert main(["data", "check", str(data)]) == 1
    told = capsys.readouterr().out
    assert "unreadable-shard" in told, told


def test_mistakes_are_one_sentence(clips, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        (["data", "pack", str(tmp_path / "none"), *out], "none"),
        (["data", "pack", str(clips), *out, "--splits", "train=much"], "--splits takes NAME=SHARE"),
        (["data", "pack", str(clips), *out, "--shards", "train=much"], "--shards takes NAME=COUNT"),
        (["data", "check", str(tmp_path)], str(tmp_path)),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.teaser
def test_annotate(clips, tmp_path, capsys):
    assert main(["annotate", str(clips), "--out", str(tmp_path / "notes"), "--no-speech"]) == 1  # one clip is broken
    assert (tmp_path / "notes" / "coverage.json").is_file()
    assert json.loads((tmp_path / "notes" / "anna0_0.json").read_text(encoding="utf-8"))["annotation_source"]
    assert "broken_1" in capsys.readouterr().out
