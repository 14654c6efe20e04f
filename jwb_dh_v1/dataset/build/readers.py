"""Annotation files that people have, as columns of a row: JSON, CSV, TextGrid, WhisperX, COCO key points and masks.

Formats: our own JSON holds columns of `schema.features`; a CSV holds words (`word,start,end[,score][,source]`) or boxes
(`frame,part,x1,y1,x2,y2[,score]`), told apart by its header; TextGrid is Praat's text format, long or short
(https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html); WhisperX writes `segments` of `words`; key points
and run-length masks are COCO's (https://cocodataset.org/#format-results, https://github.com/jin-s13/COCO-WholeBody).
Frames count from 0, times are seconds after the first frame, boxes and points are pixels of the displayed picture.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jwb_dh_v1.media.annotations import KEYPOINTS, PARTS
from jwb_dh_v1.dataset.schema import TEXTS, BadAnnotation, Columns, checked
from jwb_dh_v1.dataset.schema import ANNOTATIONS, check_version
from jwb_dh_v1.errors import BadBox, SetupError
from jwb_dh_v1.media.probe import VideoInfo

SILENCE = {"", "sil", "sp", "<eps>", "<sil>", "<p:>"}  # labels of pauses by Praat's users, Kaldi, MFA and MAUS
# COCO-WholeBody's own files keep the parts of the 133 points apart, in this order.
PIECES = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
FACTS = ("num_frames", "height", "width")  # may be said again, and must then be those of the clip
OWN = {"schema_version", "pose", "transcript", *ANNOTATIONS, *TEXTS, *FACTS}


def read_annotations(path: Path, info: VideoInfo) -> Columns:
    """The columns that an annotation file tells, checked against its clip.

    Args:
        path: `.json`, `.csv`, `.TextGrid` or `.txt` (the transcript).
        info: size, rate and number of frames of the clip.

    Returns:
        Some columns of a row; of `transcript`, `pose`, `boxes` and `box_scores` only those keys that the file tells.

    Raises:
        BadAnnotation: the file cannot be read, is of no known form, or its words or texts are not what the schema says.
        BadBox: boxes, points or masks that are none of this clip.

    """
    text = _text(path)
    suffix = path.suffix.lower()
    reader: Callable[[str, str, VideoInfo], Columns]
    if suffix == ".txt":
        return {"transcript": {"text": text.strip() or None}}
    if suffix == ".textgrid":
        reader = _textgrid
    elif suffix == ".csv":
        reader = _csv
    elif suffix == ".json":
        reader = _json
    else:
        raise BadAnnotation(f"{path.name} is no annotation file: expected .json, .csv, .TextGrid or .txt.")
    return checked(reader(text, path.name, info), info, path.name)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadAnnotation(f"{path} cannot be read: {error.strerror or error}.") from None
    encoding = "utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"  # Praat writes UTF-16 at need
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadAnnotation(f"{path.name} is no UTF-8 text: byte {error.start}: {error.reason}.") from None


# --------------------------------------------------------------------------------------------------------------- CSV


def _csv(text: str, name: str, info: VideoInfo) -> Columns:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(lines, [])]
        for needed, allowed, read in (
            ({"word", "start", "end"}, {"score", "source"}, _csv_words),
            ({"frame", "part", "x1", "y1", "x2", "y2"}, {"score"}, _csv_boxes),
        ):
            if needed <= set(header) <= needed | allowed and len(set(header)) == len(header):
                return read(_records(lines, header, name), info)
    except csv.Error as error:
        raise BadAnnotation(f"{name}: line {lines.line_num}: {error}.") from None
    raise BadAnnotation(
        f"{name}: line 1: the columns are {','.join(header)[:100] or 'missing'}; expected "
        "word,start,end[,score][,source] or frame,part,x1,y1,x2,y2[,score]."
    )


def _records(lines: Any, header: list[str], name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of each line that is not blank."""
    for cells in lines:
        place = f"{name}: line {lines.line_num}"
        if not cells:
            continue
        if len(cells) != len(header):
            raise BadAnnotation(f"{place} has {len(cells)} cells, the header {len(header)}.")
        yield place, dict(zip(header, cells, strict=True))


def _number(place: str, what: str, cell: str) -> float | None:
    """A finite number, or None for an empty cell."""
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadAnnotation(f"{place}: {what} is {cell[:40]!r}, expected a number.")
    return value


def _csv_words(records: Iterator[tuple[str, dict[str, str]]], info: VideoInfo) -> Columns:
    words = []
    for place, cells in records:
        times = {key: _number(place, key, cells.get(key, "")) for key in ("start", "end", "score")}
        words.append({"word": cells["word"].strip(), **times, "source": cells.get("source") or None})
    return {"transcript": {"words": words}}


def _csv_boxes(records: Iterator[tuple[str, dict[str, str]]], info: VideoInfo) -> Columns:
    boxes: dict[str, list[Any]] = {}
    scores: dict[str, list[float]] = {}
    for place, cells in records:
        part, frame = cells["part"].strip(), _number(place, "frame", cells["frame"])
        if part not in PARTS:
            raise BadBox(f"{place}: part is {part[:40]!r}, expected one of {', '.join(PARTS)}.")
        if frame is None or frame != int(frame) or not 0 <= frame < info.frames:
            raise BadBox(f"{place}: frame is {cells['frame'][:40]!r}, expected 0 to {info.frames - 1}.")
        mine = boxes.setdefault(part, [None] * info.frames)
        if mine[int(frame)] is not None:
            raise BadBox(f"{place}: frame {int(frame)} has a box of {part} already.")
        box = [_number(place, key, cells[key]) for key in ("x1", "y1", "x2", "y2")]
        if None in box:
            raise BadBox(f"{place}: a corner of the box is missing; leave out the line of a part that is not seen.")
        mine[int(frame)] = box
        score = _number(place, "score", cells.get("score", ""))
        scores.setdefault(part, [0.0] * info.frames)[int(frame)] = 1.0 if score is None else score
    return {"boxes": boxes, "box_scores": scores}


# ---------------------------------------------------------------------------------------------------------- TextGrid

# Praat reads free-standing numbers, texts in quotes and flags; everything else is comment, "[1]:" and "xmin =" too.
TOKENS = re.compile(r'"(?P<text>(?:[^"]|"")*)"|(?P<flag><\w+>)|(?<!\S)(?P<number>[-+]?\d[\d.eE+-]*%?)(?!\S)|![^\n]*')


def _textgrid(text: str, name: str, info: VideoInfo) -> Columns:
    tokens = iter([match for match in TOKENS.finditer(text) if match.lastgroup])

    def take(kind: str) -> str:
        for match in tokens:
            if match.lastgroup == kind:
                return str(match[kind])
            line = text.count("\n", 0, match.start()) + 1
            raise BadAnnotation(f"{name}: line {line}: {match[0][:40]!r} where a {kind} should be.")
        raise BadAnnotation(f"{name}: line {text.count(chr(10)) + 1}: the file ends where a {kind} should be.")

    def number() -> float:
        value = _number(name, "a time or a size", take("number"))
        assert value is not None
        return value

    if (take("text"), take("text")) != ("ooTextFile", "TextGrid"):
        raise BadAnnotation(f"{name}: line 1: no TextGrid in Praat's text format; save it as text in Praat.")
    number(), number()
    tiers: list[tuple[str, list[Columns]]] = []
    for _ in range(int(number()) if take("flag") == "<exists>" else 0):
        kind, tier = take("text"), take("text")
        number(), number()
        words = []
        for _ in range(int(number())):
            start, end = number(), number() if kind == "IntervalTier" else math.nan
            label = take("text").replace('""', '"').strip()
            if label.lower() not in SILENCE:
                words.append({"word": label, "start": start, "end": end, "source": "textgrid"})
        if kind == "IntervalTier":
            tiers.append((tier, words))
    # MFA writes one tier per speaker: "anna - words"
    found = [words for tier, words in tiers if tier.lower().split(" - ")[-1].strip() in {"word", "words"}]
    found = found or ([tiers[0][1]] if len(tiers) == 1 else [])
    if len(found) != 1:
        names = ", ".join(repr(tier[:40]) for tier, _ in tiers) or "none"
        raise BadAnnotation(f"{name}: expected one tier of intervals named `words`; there are {names}.")
    return {"transcript": {"words": found[0]}}


# -------------------------------------------------------------------------------------------------------------- JSON


def load_json(text: str, name: str) -> Any:
    """Parse JSON strictly: NaN and Infinity are refused.

    Raises:
        BadAnnotation: no JSON; the message names the line.

    """

    def refuse(constant: str) -> NoReturn:
        raise BadAnnotation(f"{name}: {constant} is no number of JSON; null means unknown.")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise BadAnnotation(f"{name}: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise BadAnnotation(f"{name}: no JSON that can be read: {str(error)[:100]}.") from None


def _json(text: str, name: str, info: VideoInfo) -> Columns:
    given = load_json(text, name)
    if isinstance(given, dict):
        if {"segments", "word_segments"} & set(given):
            return _whisperx(given, name)
        if "annotations" in given:
            return _keypoints(given["annotations"], name, info, given.get("images"))
        return _own(given, name, info)
    if isinstance(given, list) and given:
        if all(one is None or (isinstance(one, dict) and "counts" in one) for one in given):
            return {"mask_rle": given}
        if all(isinstance(one, dict) and "keypoints" in one for one in given):
            return _keypoints(given, name, info, None)
    raise BadAnnotation(
        f"{name} is of no known form: expected an object of columns, WhisperX segments, COCO key points, or one COCO "
        "mask per frame."
    )


def _own(given: Columns, name: str, info: VideoInfo) -> Columns:
    unknown = sorted(set(given) - OWN)
    if unknown:
        raise BadAnnotation(f"{name}: no column is named {unknown[0][:40]!r}; there are {', '.join(sorted(OWN))}.")
    try:
        check_version(given.get("schema_version"))
    except (SetupError, TypeError) as error:
        raise BadAnnotation(f"{name}: {error}") from None
    for fact, actual in zip(FACTS, (info.frames, info.height, info.width), strict=True):
        if given.get(fact) not in (None, actual):
            raise BadAnnotation(f"{name}: {fact} is {given[fact]!r}, the clip has {actual}.")
    return {key: value for key, value in given.items() if value is not None and key not in {*FACTS, "schema_version"}}


def _whisperx(given: Columns, name: str) -> Columns:
    segments = given.get("segments") or []
    try:
        spoken = given.get("word_segments") or [word for segment in segments for word in segment.get("words") or []]
        words = [
            # WhisperX gives no time to what it cannot align ("2014"), and other Whispers say "probability".
            {
                "word": word["word"].strip(),
                "start": word.get("start"),
                "end": word.get("end"),
                "score": word.get("score", word.get("probability")),
                "source": "whisperx",
            }
            for word in spoken
        ]
        said = " ".join(str(segment["text"]).strip() for segment in segments) or " ".join(w["word"] for w in words)
    except (TypeError, AttributeError, KeyError) as error:
        raise BadAnnotation(f"{name}: segments are not as WhisperX writes them: {error!r}.") from None
    return {"transcript": {"text": said.strip() or None, "language": given.get("language"), "words": words}}


def _keypoints(given: Any, name: str, info: VideoInfo, images: Any) -> Columns:
    """One person per frame: frames in the order of `images`, else of sorted `image_id`s, else of the list."""
    points = np.zeros((info.frames, KEYPOINTS, 3), np.float32)
    try:
        if images is not None:
            order = [image["id"] for image in images]
        elif any("image_id" in one for one in given):
            order = sorted({one["image_id"] for one in given})
        else:
            order = list(range(len(given)))
        if len(order) != info.frames or len(set(order)) != len(order):
            raise BadBox(f"{name}: key points of {len(set(order))} pictures for {info.frames} frames.")
        frames = {image: frame for frame, image in enumerate(order)}
        seen: set[int] = set()
        for number, one in enumerate(given):
            frame = frames[one["image_id"]] if "image_id" in one else number
            place = f"{name}: annotation {number} (frame {frame})"
            if frame in seen:
                raise BadBox(f"{place}: a second person; keep the one that the sample is about.")
            seen.add(frame)
            parts = PIECES if len(one["keypoints"]) == 3 * PIECES["keypoints"] else ["keypoints"]
            values = np.concatenate([np.asarray(one[part], np.float64).ravel() for part in parts])
            if values.size != KEYPOINTS * 3:
                raise BadBox(f"{place}: {values.size} numbers, expected {KEYPOINTS} x 3.")
            points[frame] = values.reshape(KEYPOINTS, 3)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadBox(f"{name}: key points are not as COCO writes them: {error!r}.") from None
    return {"keypoints": points}
