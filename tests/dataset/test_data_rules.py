"""Each kind of damage to a row breaks exactly its rule: `data check` names it, and reading skips or refuses it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_check import (  # noqa: F401 - fixtures
    FIRST,
    VICTIM,
    Row,
    copied_fixture,
    found_in,
    manifest,
    rows_fixture,
    video,
    whole_fixture,
    write,
)

from jwb_dh_v1.dataset.rules import RULES, BadRow, media_problems, rle_area, row_problems, valid_rows
from jwb_dh_v1.dataset.schema import SCHEMA_VERSION
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.coco import rle_decode, rle_encode


def cut_in_the_middle(row: Row) -> None:
    """The pictures of the last third are noise: its header still promises all of them, and every packet is there."""
    content = bytearray(row["video"]["bytes"])
    at, size = content.index(b"mdat") + 4, len(content)
    content[at + (size - at) // 2 : at + (size - at) * 2 // 3] = bytes(((size - at) * 2 // 3) - (size - at) // 2)
    video(row, bytes(content))


def word(number: int, **cells: Any) -> Callable[[Row], None]:
    return lambda row: row["transcript"]["words"][number].update(cells)


def between(row: Row, text: str) -> None:
    words = row["transcript"]["words"]
    words.insert(1, {**words[0], "word": text, "start": words[0]["end"], "end": words[0]["end"]})


def exchange(row: Row) -> None:
    one, other = row["transcript"]["words"][:2]
    for cell in ("start", "end"):
        one[cell], other[cell] = other[cell], one[cell]


def sound(row: Row, seconds: float) -> None:
    audio = decode_audio(row["audio"]["bytes"])
    assert audio is not None
    row["audio"]["bytes"] = Audio(audio.samples, audio.rate).cut(0, seconds).wav()


def box(part: str, frame: int, value: Any) -> Callable[[Row], None]:
    return lambda row: row["boxes"][part].__setitem__(frame, value)


def set_point(row: Row, at: tuple[int, int, int], value: float) -> None:
    row["keypoints"][at] = value


def other_mask(row: Row, shape: tuple[int, int]) -> None:
    row["mask_rle"][3] = rle_encode(np.ones(shape, bool))


CELLS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "schema of tomorrow": ("schema-version", lambda r: r.update(schema_version=SCHEMA_VERSION + 1)),
    "no schema": ("schema-version", lambda r: r.update(schema_version=None)),
    "no identity": ("null", lambda r: r.update(identity_id=None)),
    "empty identity": ("null", lambda r: r.update(identity_id="")),
    "no video": ("null", lambda r: r["video"].update(bytes=None)),
    "no frame rate": ("null", lambda r: r.update(fps=None)),
    "no licence": ("licence", lambda r: r.update(licence=None)),
    "blank licence": ("licence", lambda r: r.update(licence=" ")),
    "other bytes": ("video-hash", lambda r: r["video"].update(bytes=r["video"]["bytes"] + b"\0\0\0\x08free")),
    "no hash": ("video-hash", lambda r: r.update(video_sha256=None)),
    "empty video": ("video", lambda r: video(r, b"")),
    "negative time": ("word-times", word(0, start=-0.5)),
    "end before start": ("word-times", word(-1, end=0.01)),
    "half a time": ("word-times", word(1, end=None)),
    "NaN time": ("word-times", word(1, start=float("nan"))),
    "words exchanged": ("word-order", exchange),
    "words overlap": ("word-order", lambda r: word(1, start=r["transcript"]["words"][0]["start"] + 0.01)(r)),
    "word after the end": ("word-past-end", word(-1, end=2.5)),
    "empty word": ("word-empty", lambda r: between(r, "")),
    "blank word": ("word-empty", lambda r: between(r, " ")),
    "word score": ("score", word(2, score=1.2)),
    "other word": ("transcript", word(2, word="was not")),
    "no text": ("transcript", lambda r: r["transcript"].update(text=None)),
    "box missing": ("box-count", lambda r: r["boxes"]["face"].pop()),
    "score missing": ("box-count", lambda r: r["box_scores"]["body"].pop()),
    "box inverted": ("box", box("face", 4, [90.0, 40.0, 60.0, 80.0])),
    "box outside": ("box", box("body", 59, [180.0, 10.0, 200.0, 60.0])),
    "box NaN": ("box", box("right_hand", 0, [float("nan")] * 4)),
    "box infinite": ("box", box("left_hand", 0, [0.0, 0.0, float("inf"), 9.0])),
    "box score": ("score", lambda r: r["box_scores"]["face"].__setitem__(7, -0.1)),
    "NaN score": ("score", lambda r: r["box_scores"]["face"].__setitem__(7, float("nan"))),
    "points missing": ("keypoints", lambda r: r.update(keypoints=r["keypoints"][:-1])),
    "17 points": ("keypoints", lambda r: r.update(keypoints=r["keypoints"][:, :17])),
    "ragged points": ("keypoints", lambda r: r.update(keypoints=[r["keypoints"][0].tolist(), [[1.0, 2.0, 0.5]]] * 30)),
    "NaN point": ("keypoints", lambda r: set_point(r, (2, 5, 0), np.nan)),
    "negative point score": ("keypoints", lambda r: set_point(r, (2, 5, 2), -0.5)),
    "mask missing": ("mask-count", lambda r: r["mask_rle"].pop()),
    "mask turned": ("mask-size", lambda r: other_mask(r, (176, 144))),
    "mask null": ("mask-size", lambda r: r["mask_rle"].__setitem__(0, None)),
    "mask too long": ("mask-runs", lambda r: r["mask_rle"][0].update(counts=rle_encode(np.ones((145, 176)))["counts"])),
    "mask cut": ("mask-runs", lambda r: r["mask_rle"][0].update(counts=r["mask_rle"][0]["counts"][:-1])),
    "mask no runs": ("mask-runs", lambda r: r["mask_rle"][0].update(counts=b"\xff\x00")),
}
MEDIA: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "truncated video": ("video", lambda r: video(r, r["video"]["bytes"][: len(r["video"]["bytes"]) * 7 // 10])),
    "no video at all": ("video", lambda r: video(r, b"not a video, but some text of no great length")),
    "other frame rate": ("video-facts", lambda r: r.update(fps=r["fps"] - 1)),
    "audio noise": ("audio", lambda r: r["audio"].update(bytes=b"RIFF....WAVE" + bytes(200))),
    "audio too short": ("audio-length", lambda r: sound(r, 1.0)),
    "audio too long": ("audio-length", lambda r: sound(r, 2.6)),
}
BREAKING = ("17 points", "ragged points")  # `datasets` itself cannot read them


@pytest.mark.teaser
@pytest.mark.parametrize("kind", [*CELLS, *MEDIA])
def test_a_damaged_row_breaks_its_rule_only(kind: str, rows: dict[str, Row], copied: Path):
    rule, damage = (CELLS | MEDIA)[kind]
    bad = copy.deepcopy(rows[VICTIM])
    damage(bad)
    write(copied / FIRST, [rows["carphone-1"], bad])
    manifest(copied)
    assert found_in(copied, decode="some" if kind in MEDIA else "none") == [(rule, FIRST, 1, VICTIM)]
    # On reading, in the form in which `datasets` gives rows.
    if kind in BREAKING:
        for on_bad in ("skip", "refuse"):
            with pytest.raises(BadRow, match=r"^The row after carphone-1 cannot be read: .*reshape"):
                list(valid_rows(rows_of(copied), on_bad))  # type: ignore[arg-type]
        return
    stream = list(rows_of(copied))
    said: list[str] = []
    kept = valid_rows(stream, say=said.append, media=kind in MEDIA)
    assert [row["sample_id"] for row in kept] == ["carphone-1", "obama-1"]
    assert len(said) == 1
    assert said[0].startswith(f"skipped {VICTIM}: {rule}: ")
    with pytest.raises(BadRow, match=f"^{VICTIM}: {rule}: "):
        list(valid_rows(stream, on_bad="refuse", media=kind in MEDIA))


def rows_of(folder: Path) -> Any:
    import datasets

    return datasets.load_dataset(
        "parquet", data_files=str(folder / "evaluation/*.parquet"), split="train", streaming=True
    )


@pytest.mark.teaser
@pytest.mark.parametrize("name", [None, "", "../other", "a/b", ".hidden", "x" * 300])
def test_names_that_cannot_be_names(name: str | None, rows: dict[str, Row]):
    row = {**rows[VICTIM], "sample_id": name}
    assert [rule for rule, _ in row_problems(row)] == ["sample-id" if name else "null"]
    said: list[str] = []
    assert list(valid_rows([rows["obama-1"], row], say=said.append)) == [rows["obama-1"]]
    assert said[0].startswith(f"skipped {name or 'row 1'}: ")


@pytest.mark.teaser
def test_pictures_that_are_noise_are_found_by_decoding_all(rows: dict[str, Row]):
    bad = copy.deepcopy(rows[VICTIM])
    cut_in_the_middle(bad)
    assert media_problems(bad, whole=False) == []  # the packets are all there
    assert [rule for rule, _ in media_problems(bad, whole=True)] == ["video"]
    assert media_problems(rows[VICTIM], whole=True) == []


@pytest.mark.teaser
def test_only_the_columns_that_were_read_are_judged(rows: dict[str, Row]):
    bad = copy.deepcopy(rows[VICTIM])
    bad["licence"] = None
    bad["keypoints"] = bad["keypoints"][:3]
    assert [rule for rule, _ in row_problems(bad)] == ["licence", "keypoints"]
    few = {name: bad[name] for name in ("sample_id", "transcript", "boxes", "fps", "num_frames")}
    assert row_problems(few) == []
    assert media_problems(few, whole=True) == []
    assert row_problems({"keypoints": bad["keypoints"].tolist()}) == []  # how many there should be is not known
    with pytest.raises(SetupError, match="'refuse' or 'skip'"):
        valid_rows([], on_bad="ignore")  # type: ignore[arg-type]


def test_words_spell_the_text_in_any_script():
    def judged(text: str, *words: str) -> list[str]:
        times = [{"word": w, "start": None, "end": None, "score": None} for w in words]
        return [rule for rule, _ in row_problems({"transcript": {"text": text, "words": times}})]

    assert judged("It’s 5 o'clock — STRASSE!", "it's", "5", "oclock,", "straße") == []
    assert judged("你好，世界", "你", "好", "世界") == []
    assert judged("नमस्ते दुनिया", "नमस्ते", "दुनिया") == []
    assert judged("नमस्ते", "नमसत") == ["transcript"]  # its vowel signs are not punctuation
    assert judged("one two", "one") == ["transcript"]
    assert judged("words without times are fine") == []


@pytest.mark.parametrize("seed", range(8))
def test_the_area_of_runs_is_what_drawing_them_gives(seed: int):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 200, 2))
    mask = rng.random((height, width)) < rng.random()
    counts = rle_encode(mask)["counts"]
    assert isinstance(counts, bytes)
    assert rle_area(counts) == height * width
    for at in rng.integers(0, len(counts), 40):  # of a counts with another character, both say the same
        changed = counts[:at] + bytes([rng.integers(48, 112)]) + counts[at + 1 :]
        try:
            rle_decode({"size": [height, width], "counts": changed})
            drawn = True
        except ValueError:
            drawn = False
        assert (rle_area(changed) == height * width) == drawn
    assert rle_area(b"") is None
    assert rle_area(b"0" * 9 + b"o" * 30 + b"0") is None


def test_every_rule_is_put_to_the_test():
    shards = {"missing-shard", "extra-shard", "altered-shard", "row-count", "unreadable-shard", "manifest", "schema"}
    shards |= {"duplicate-id", "duplicate-video", "split-leak", "sample-id"}
    assert {rule for rule, _ in (CELLS | MEDIA).values()} | shards == set(RULES)
    card = Path(__file__).parents[2] / "dataset_card.md"
    assert f"The check knows {len(RULES)} rules" in card.read_text(encoding="utf-8")
