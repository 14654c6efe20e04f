"""Columns of a row checked against their clip, whatever file or data set they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jwb_dh_v1.dataset.schema import POSE, WORD_MOTION, annotations_of
from jwb_dh_v1.errors import BadBox, SampleError
from jwb_dh_v1.media.annotations import KEYPOINTS, PARTS
from jwb_dh_v1.media.coco import rle_decode, rle_encode
from jwb_dh_v1.media.probe import VideoInfo

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
