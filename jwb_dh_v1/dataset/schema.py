"""The columns of JWB-DH-V1, and the way between a row's annotation columns and `Annotations`.

Media are bytes in the row (`Video(decode=False)`, `Audio(decode=False)`): rows are read and written without torchcodec,
and `datasets` shows them as what they are. Boxes and key points are in pixels of the displayed picture, times in
seconds after the clip's first frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.errors import BadBox, SetupError
from jwb_dh_v1.media.annotations import KEYPOINTS, PARTS, Annotations

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
