"""The columns of JWB-DH-V1, and the way between a row's annotation columns and `Annotations`.

Media are bytes in the row (`Video(decode=False)`, `Audio(decode=False)`): rows are read and written without torchcodec,
and `datasets` shows them as what they are. Boxes and key points are in pixels of the displayed picture, times in
seconds after the clip's first frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.errors import BadBox, SampleError, SetupError
from jwb_dh_v1.media.annotations import KEYPOINTS, PARTS, Annotations
from jwb_dh_v1.media.coco import rle_decode, rle_encode
from jwb_dh_v1.media.probe import VideoInfo

if TYPE_CHECKING:
    from datasets import Features

SCHEMA_VERSION = 2  # moves when a column changes its name, type or meaning; each row carries it
MEDIA = ("video", "audio")
WORD_MOTION = ("body", "face", "hands")
POSE = ("posture", "hand_gesture", "leg_stance")
ANNOTATIONS = ("boxes", "box_scores", "keypoints", "mask_rle", "annotation_source")


@cache
def features() -> Features:
    """The `datasets.Features` of one row; also reachable as `schema.FEATURES`.

    - `sample_id`, `identity_id`: unique name of the clip; the same for all clips of one person.
    - `video`: MP4 bytes. `audio`: 16-bit WAV or FLAC bytes of the speech from the first frame on (as in the MP4).
    - `fps`, `num_frames`, `height`, `width`: of `video` as displayed.
    - `video_sha256`: of the bytes in `video`, so that copies and damage are found without guessing.
    - `motion_text`: the motion in words. `pose`: its parts where they are known: posture, hand gesture, leg stance.
    - `transcript`: the speech in words; each word with `start` and `end`, a `score` in [0, 1] or null, the `source` of
      its times, and `motion`: whether body, face and hands move during it (null: not known).
    - `boxes`, `box_scores`: per part and frame x1 y1 x2 y2 (null where not seen) and a score in [0, 1].
    - `keypoints`: [T, 133, 3] x, y, score in COCO-WholeBody order. `mask_rle`: the person, COCO run lengths per frame.
    - `annotation_source`: what made the three columns above, e.g. `mediapipe/1`.
    - `speech`: `own` (spoken in this video) or `muxed` (another recording: words are valid, lip sync is not).
    - `provenance`, `licence`: where the media come from, and on what terms.
    """
    from datasets import Array3D, Audio, Features, List, Value, Video

    word = {
        "word": Value("string"),
        "start": Value("float32"),
        "end": Value("float32"),
        "score": Value("float32"),
        "source": Value("string"),
        "motion": {region: Value("bool") for region in WORD_MOTION},
    }
    transcript = {"text": Value("string"), "language": Value("string"), "words": List(word)}
    return Features(
        {
            "schema_version": Value("int32"),
            "sample_id": Value("string"),
            "identity_id": Value("string"),
            "video": Video(decode=False),
            "video_sha256": Value("string"),
            "audio": Audio(decode=False),
            "fps": Value("float32"),
            "num_frames": Value("int32"),
            "height": Value("int32"),
            "width": Value("int32"),
            "motion_text": Value("string"),
            "pose": {part: Value("string") for part in POSE},
            "transcript": transcript,
            "boxes": {part: List(List(Value("float32"), length=4)) for part in PARTS},
            "box_scores": {part: List(Value("float32")) for part in PARTS},
            "keypoints": Array3D(shape=(None, KEYPOINTS, 3), dtype="float32"),
            "mask_rle": List({"size": List(Value("int32"), length=2), "counts": Value("binary")}),
            "annotation_source": Value("string"),
            "speech": Value("string"),
            "provenance": Value("string"),
            "licence": Value("string"),
        }
    )


def __getattr__(name: str) -> Any:
    if name == "FEATURES":  # built on first use, because `import datasets` takes seconds
        return features()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def annotations_of(row: Mapping[str, Any]) -> Annotations | None:
    """What a row knows about the person in its clip; None where it holds no boxes.

    Args:
        row: a row of the dataset; columns other than the annotations are not read.

    Raises:
        SetupError: the row has another schema than this package.
        BadBox: columns that are not shaped as the schema says.

    """
    check_version(row.get("schema_version"))
    given = row.get("boxes") or {}
    boxes = {part: _boxes(part, given[part]) for part in PARTS if given.get(part) is not None}
    if not boxes:
        return None
    scores = {}
    for part, found in boxes.items():
        told = (row.get("box_scores") or {}).get(part)
        seen = np.isfinite(found[:, 0]).astype(np.float32)
        scores[part] = seen if told is None else np.asarray(told, np.float32)
        if scores[part].shape != seen.shape:
            raise BadBox(f"{part}: {len(scores[part])} scores for {len(found)} boxes.")
    points = row.get("keypoints")
    keypoints = None if points is None else np.asarray(points, np.float32)
    if keypoints is not None and keypoints.shape[1:] != (KEYPOINTS, 3):
        raise BadBox(f"keypoints have shape {keypoints.shape}, expected (T, {KEYPOINTS}, 3).")
    masks = row.get("mask_rle")
    return Annotations(
        boxes,
        scores,
        row.get("annotation_source") or "dataset",
        keypoints,
        None if masks is None else [{"size": list(m["size"]), "counts": m["counts"]} for m in masks],
    )


def check_version(version: int | None) -> None:
    """Refuse data of another schema.

    Raises:
        SetupError: says which, and what to do.

    """
    if version is None or version == SCHEMA_VERSION:
        return
    what = "upgrade jwb-dh-v1" if version > SCHEMA_VERSION else "make them again (`jwb-dh data pack`, `jwb-dh teaser`)"
    raise SetupError(f"The data have schema {version}, this package reads {SCHEMA_VERSION}: {what}.")


def _boxes(part: str, rows: Any) -> np.ndarray:
    """Rows of four numbers or None -> float32 [T, 4] with NaN for None."""
    absent = [np.nan] * 4
    try:
        boxes = np.array([absent if row is None else row for row in rows], np.float32).reshape(len(rows), 4)
    except (TypeError, ValueError) as error:
        raise BadBox(f"{part}: boxes must be one list of four numbers (or null) per frame: {error}.") from None
    return boxes


def annotation_columns(annotations: Annotations | None) -> dict[str, Any]:
    """The row columns of `Annotations`, the inverse of `annotations_of`; parts that are not there are null."""
    if annotations is None:
        empty = dict.fromkeys(PARTS)
        return {"boxes": empty, "box_scores": dict(empty), **dict.fromkeys(ANNOTATIONS[2:])}
    boxes: dict[str, Any] = dict.fromkeys(PARTS)
    scores: dict[str, Any] = dict.fromkeys(PARTS)
    for part, found in annotations.boxes.items():
        boxes[part] = [None if np.isnan(box).any() else [float(v) for v in box] for box in found]
        scores[part] = [float(v) for v in annotations.scores[part]]
    return {
        "boxes": boxes,
        "box_scores": scores,
        "keypoints": annotations.keypoints,
        "mask_rle": annotations.masks,
        "annotation_source": annotations.source,
    }


Columns = dict[str, Any]

# Aligners hear the sound, which ends up to a few packets after the last frame: so much is cut off the last words.
OVERHANG = 0.1  # seconds
OVERLAP = 1e-3  # seconds by which rounding may let a word begin before the last one's end
TEXTS = ("identity_id", "motion_text", "annotation_source", "speech", "provenance", "licence")
WORD = ("word", "start", "end", "score", "source", "motion")


class BadAnnotation(SampleError):
    """An annotation file cannot be read, or says what cannot be true of its clip; the message names file and place."""


def checked(columns: Mapping[str, Any], info: VideoInfo, name: str) -> Columns:
    """Columns as the schema wants them, or an error.

    Args:
        columns: any of transcript, pose, boxes, box_scores, keypoints, mask_rle and the texts.
        info: of the clip.
        name: what to call them in messages: a file or a sample.

    Returns:
        The same columns: every word with all its keys, masks compressed, key points float32.

    Raises:
        BadAnnotation: texts or words; words must not overlap, end before they start, or lie after the clip's end.
        BadBox: boxes, scores, key points or masks.

    """
    found = dict(columns)
    for key in TEXTS:
        _told(found.get(key), name, key)
    if found.get("speech") not in (None, "own", "muxed"):
        raise BadAnnotation(f"{name}: speech is {found['speech'][:40]!r}, expected own or muxed.")
    for key, keys in (("pose", POSE), ("transcript", ("text", "language", "words"))):
        if found.get(key) is not None:
            _known(found[key], keys, name, key)
            for inner in set(keys) - {"words"}:
                _told(found[key].get(inner), name, f"{key}.{inner}")
    words = (found.get("transcript") or {}).get("words")
    if words is not None:
        found["transcript"] = {**found["transcript"], "words": _words(words, info, name)}
    if found.get("keypoints") is not None:
        found["keypoints"] = _points(found["keypoints"], info, name)
    if found.get("mask_rle") is not None:
        found["mask_rle"] = _masks(found["mask_rle"], info, name)
    _check_boxes(found, info, name)
    return found


def _told(value: Any, name: str, key: str) -> None:
    if value is not None and not isinstance(value, str):
        raise BadAnnotation(f"{name}: {key} is {str(value)[:40]}, expected a text.")


def _known(given: Any, keys: tuple[str, ...], name: str, what: str) -> None:
    if not isinstance(given, Mapping) or set(given) - set(keys):
        told = list(given)[:5] if isinstance(given, Mapping) else type(given).__name__
        raise BadAnnotation(f"{name}: {what} holds {str(told)[:80]}, expected {', '.join(keys)}.")


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _words(given: Any, info: VideoInfo, name: str) -> list[Columns]:
    if not isinstance(given, list):
        raise BadAnnotation(f"{name}: words are {type(given).__name__}, expected a list.")
    seconds = info.frames / info.fps
    words, last = [], 0.0
    for number, one in enumerate(given, 1):
        place = f"{name}: word {number}"
        _known(one, WORD, name, f"word {number}")
        word = {key: one.get(key) for key in WORD}
        _told(word["source"], name, f"word {number}: source")
        if not isinstance(word["word"], str) or not word["word"].strip():
            raise BadAnnotation(f"{place} is {str(word['word'])[:40]!r}, expected a text.")
        place += f" ({word['word'][:40]!r})"
        start, end, score = word["start"], word["end"], word["score"]
        if score is not None and not (_real(score) and 0 <= score <= 1):
            raise BadAnnotation(f"{place}: the score is {score!r}, expected 0 to 1 or null.")
        if (start, end) != (None, None):
            if not (_real(start) and _real(end) and 0 <= start <= end):
                raise BadAnnotation(f"{place}: from {start!r} to {end!r} is no span of seconds.")
            if start < last - OVERLAP:
                raise BadAnnotation(f"{place} begins at {start:g} s, the word before it ends at {last:g} s.")
            if end > seconds + OVERHANG:
                raise BadAnnotation(f"{place} ends at {end:g} s, after the clip's end at {seconds:g} s.")
            last = end
            if end > seconds:
                word["start"], word["end"] = min(start, seconds), seconds
        motion = word["motion"] or {}
        _known(motion, WORD_MOTION, name, f"word {number}: motion")
        if not all(moves is None or isinstance(moves, bool) for moves in motion.values()):
            raise BadAnnotation(f"{place}: motion must be true, false or null per region.")
        words.append({**word, "motion": {region: motion.get(region) for region in WORD_MOTION}})
    return words


def _points(given: Any, info: VideoInfo, name: str) -> np.ndarray:
    try:
        points = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise BadBox(f"{name}: keypoints: {error}.") from None
    if points.shape != (info.frames, KEYPOINTS, 3):
        raise BadBox(f"{name}: keypoints have shape {points.shape}, expected ({info.frames}, {KEYPOINTS}, 3).")
    bad = ~np.isfinite(points).all(axis=2) | ~(points[:, :, 2] >= 0)
    if bad.any():
        frame, point = np.argwhere(bad)[0]
        told = points[frame, point].tolist()
        raise BadBox(f"{name}: frame {frame}, key point {point} is {told}, expected finite x, y and score >= 0.")
    return points


def _masks(given: Any, info: VideoInfo, name: str) -> list[Columns]:
    if not isinstance(given, list) or len(given) != info.frames:
        told = f"{len(given)} masks" if isinstance(given, list) else type(given).__name__
        raise BadBox(f"{name}: {told} for {info.frames} frames.")
    size = [info.height, info.width]
    masks = []
    for frame, mask in enumerate(given):
        place = f"{name}: mask of frame {frame}"
        if mask is None:
            masks.append(rle_encode(np.zeros(size, bool)))
            continue
        try:
            if list(mask["size"]) != size:
                raise BadBox(f"{place} is of {mask['size']} (height, width), the clip of {size}.")
            counts = mask["counts"]
            if isinstance(counts, list):
                masks.append(rle_encode(_from_runs(counts, size)))
                continue
            data = counts.encode("ascii") if isinstance(counts, str) else counts
            rle_decode({"size": size, "counts": data})
        except (TypeError, KeyError, ValueError) as error:
            raise BadBox(f"{place}: {error}.") from None
        masks.append({"size": size, "counts": data})
    return masks


def _from_runs(counts: list[int], size: list[int]) -> np.ndarray:
    """A mask, bool [H, W], from COCO's uncompressed runs down the columns, zeros first."""
    height, width = size
    if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
        raise ValueError(f"the runs do not fill {height}x{width} pixels")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")


def _check_boxes(columns: Columns, info: VideoInfo, name: str) -> None:
    boxes, scores = columns.get("boxes") or {}, columns.get("box_scores") or {}
    try:
        for what, given in (("boxes", boxes), ("box_scores", scores)):
            if set(given) - set(PARTS):
                raise BadBox(f"{what} of {sorted(set(given) - set(PARTS))}, expected {', '.join(PARTS)}.")
        for part, told in scores.items():
            if told is not None and boxes.get(part) is None:
                raise BadBox(f"{part} has scores but no boxes.")
            if told is not None and not all(_real(score) and 0 <= score <= 1 for score in told):
                raise BadBox(f"{part}: scores must be numbers from 0 to 1.")
        with np.errstate(over="ignore"):  # becomes infinite, which is found
            found = annotations_of({"boxes": boxes, "box_scores": scores})
        if found is not None:
            found.check(info.frames, info.width, info.height)
    except BadBox as error:
        raise BadBox(f"{name}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadBox(f"{name}: boxes are not one list of boxes (or null) per part: {error}.") from None
