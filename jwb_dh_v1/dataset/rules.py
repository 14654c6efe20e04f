"""What a row of the dataset must keep: rules about its cells, about its media, and a filter for reading.

Each rule has a name (`RULES`); `data check` reports them and `valid_rows` skips or refuses rows by them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from jwb_dh_v1.dataset.schema import SCHEMA_VERSION
from jwb_dh_v1.errors import SampleError, SetupError
from jwb_dh_v1.media.annotations import KEYPOINTS, PARTS

Say = Callable[[str], None]
Found = Iterator[tuple[str, str]]

RULES: Mapping[str, str] = {
    "manifest": "the manifest can be read",
    "missing-shard": "every shard that the manifest, or the numbering of the shards, names is there",
    "extra-shard": "no shard that the manifest does not name",
    "altered-shard": "a shard's sha256 is the manifest's",
    "row-count": "a shard has as many rows as the manifest says",
    "unreadable-shard": "a shard is a whole Parquet file",
    "schema": "columns and their types are those of the schema",
    "schema-version": f"schema version {SCHEMA_VERSION}",
    "duplicate-id": "a sample_id once",
    "duplicate-video": "a video once, by the hash of its bytes",
    "split-leak": "a person in one split only",
    "null": "sample_id, identity_id, video, fps, num_frames, height and width are there",
    "sample-id": "a sample_id can be a file's name",
    "licence": "a licence is named",
    "video-hash": "video_sha256 is that of the bytes",
    "video": "the video can be decoded to its end",
    "video-facts": "fps, num_frames, height and width are the video's",
    "audio": "the audio can be decoded",
    "audio-length": "audio and video differ in length by half a second at most",
    "word-empty": "no empty word",
    "word-times": "0 <= start <= end",
    "word-order": "words in order, without overlap",
    "word-past-end": "no word after the clip's end",
    "transcript": "words spell the text, but for case, spaces and punctuation",
    "box-count": "a box and a score (or null) per frame",
    "box": "boxes are finite, not empty, and touch the picture",
    "score": "scores of boxes and words in 0..1",
    "keypoints": f"key points [num_frames, {KEYPOINTS}, 3], finite, no score below 0",
    "mask-count": "a mask per frame",
    "mask-size": "a mask's size is that of the video",
    "mask-runs": "a mask's run lengths fill its size",
}
REQUIRED = ("sample_id", "identity_id", "fps", "num_frames", "height", "width")
WORD_SLACK = 1e-3  # seconds: what float32 and rounding in annotation files move a time by
RATE_SLACK = 1e-4  # relative: 29.97 stands for 30000/1001
AUDIO_SLACK = 0.5  # seconds


class BadRow(SetupError):
    """A row breaks a rule of the dataset, and reading was asked to stop there."""


def row_problems(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a row as far as its cells tell: (rule, message), one per rule, nothing decoded.

    Columns that the row does not have (because `columns=` left them out) are not judged. Key points may be nested lists
    or an array. Hashing the video takes about a millisecond per megabyte.
    """
    if "schema_version" in row and row["schema_version"] != SCHEMA_VERSION:
        return [("schema-version", f"schema {row['schema_version']}, this package reads {SCHEMA_VERSION}")]
    found: dict[str, list[str]] = {}
    for judge in (_names, _video_bytes, _words, _boxes, _keypoints, _masks):
        for rule, message in judge(row):
            found.setdefault(rule, []).append(message)
    return [(rule, told[0] + (f" (and {len(told) - 1} more)" if told[1:] else "")) for rule, told in found.items()]


def _names(row: Mapping[str, Any]) -> Found:
    for name in REQUIRED:
        if name in row and (row[name] is None or row[name] == ""):
            yield "null", f"{name} is not given"
    sample_id = row.get("sample_id")
    if sample_id and (re.search(r"[/\\\0]", sample_id) or sample_id.startswith(".") or len(sample_id.encode()) > 240):
        yield "sample-id", f"{sample_id[:60]!r} cannot be the name of a file"
    if "licence" in row and not (row["licence"] or "").strip():
        yield "licence", "no licence is named"


def _video_bytes(row: Mapping[str, Any]) -> Found:
    if "video" not in row:
        return
    content = content_of(row["video"])
    if content is None:
        yield "null", "video holds no bytes"
    elif not content:
        yield "video", "the video is empty (0 bytes)"
    elif "video_sha256" in row and row["video_sha256"] != (real := hashlib.sha256(content).hexdigest()):
        yield "video-hash", f"video_sha256 is {str(row['video_sha256'])[:12]}, that of the bytes {real[:12]}"


def content_of(media: Any) -> bytes | None:
    """The bytes of a media cell, None where there are none (or it has been turned into a decoder)."""
    content = media.get("bytes") if isinstance(media, Mapping) else None
    return content if isinstance(content, bytes) else None


def _words(row: Mapping[str, Any]) -> Found:
    transcript = row.get("transcript") or {}
    words = list(transcript.get("words") or [])
    if not words:
        return
    length = row["num_frames"] / row["fps"] if row.get("num_frames") and row.get("fps") else np.inf
    last = 0.0
    for number, word in enumerate(words):
        name = f"word {number} {word['word']!r}"
        start, end, score = word["start"], word["end"], word.get("score")
        if not (word["word"] or "").strip():
            yield "word-empty", f"word {number} is empty"
        if score is not None and not 0 <= score <= 1:
            yield "score", f"{name} has score {score:.3g}"
        if start is None and end is None:  # spoken, but when is not known
            continue
        if start is None or end is None or not 0 <= start <= end < np.inf:
            yield "word-times", f"{name} lasts from {start} to {end} s"
            continue
        if start < last - WORD_SLACK:
            yield "word-order", f"{name} begins at {start:.3f} s, the word before it ends at {last:.3f} s"
        if end > length + WORD_SLACK:
            yield "word-past-end", f"{name} ends at {end:.3f} s, the clip at {length:.3f} s"
        last = max(last, end)
    text, spelled = _bare(transcript.get("text") or ""), _bare("".join(word["word"] or "" for word in words))
    if text != spelled:
        yield (
            "transcript",
            f"the text is {transcript.get('text')!r}, the words are {' '.join(str(w['word']) for w in words)!r}",
        )


def _bare(text: str) -> str:
    """Letters, marks and digits only, case folded: so that writing systems without spaces compare, too."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN")


def _boxes(row: Mapping[str, Any]) -> Found:
    frames, width, height = row.get("num_frames"), row.get("width") or np.inf, row.get("height") or np.inf
    for part in PARTS:
        boxes, scores = (row.get("boxes") or {}).get(part), (row.get("box_scores") or {}).get(part)
        for what, given in (("boxes", boxes), ("scores", scores)):
            if given is not None and frames is not None and len(given) != frames:
                yield "box-count", f"{len(given)} {part} {what} for {frames} frames"
        if scores is not None:
            values = np.array([0 if s is None else s for s in scores], np.float64)
            if not ((values >= 0) & (values <= 1)).all():  # false for NaN
                frame = int(np.argmin((values >= 0) & (values <= 1)))
                yield "score", f"{part} box of frame {frame} has score {values[frame]:.3g}"
        seen = [] if boxes is None else [n for n, box in enumerate(boxes) if box is not None]
        if boxes is None or not seen:
            continue
        try:
            x1, y1, x2, y2 = np.array([boxes[n] for n in seen], np.float64).reshape(len(seen), 4).T
        except (TypeError, ValueError):
            yield "box", f"a {part} box is not four numbers"
            continue
        good = (x2 > x1) & (y2 > y1) & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
        good &= np.isfinite(x1) & np.isfinite(y1) & np.isfinite(x2) & np.isfinite(y2)
        if not good.all():
            frame = seen[int(np.argmin(good))]
            told = [round(float(v), 2) for v in boxes[frame]]
            yield "box", f"{part} box {told} of frame {frame} is no box in {row.get('width')}x{row.get('height')}"


def _keypoints(row: Mapping[str, Any]) -> Found:
    if row.get("keypoints") is None:
        return
    try:
        points = np.asarray(row["keypoints"], np.float32)
    except (TypeError, ValueError):
        yield "keypoints", "the key points of some frames are not as many as those of others"
        return
    frames = row.get("num_frames")
    if points.shape[1:] != (KEYPOINTS, 3) or (frames is not None and len(points) != frames):
        yield "keypoints", f"shape {points.shape}, expected ({frames}, {KEYPOINTS}, 3)"
    elif not np.isfinite(points).all():
        yield "keypoints", f"{int((~np.isfinite(points)).sum())} values are not finite"
    elif (points[..., 2] < 0).any():  # no upper bound: the maxima of a heat map (DWPose) may exceed 1
        yield "keypoints", f"a score is {points[..., 2].min():.3g}"


def _masks(row: Mapping[str, Any]) -> Found:
    masks, frames = row.get("mask_rle"), row.get("num_frames")
    if masks is None:
        return
    if frames is not None and len(masks) != frames:
        yield "mask-count", f"{len(masks)} masks for {frames} frames"
    size = (row.get("height"), row.get("width"))
    for frame, mask in enumerate(masks):
        told = None if mask is None or mask["size"] is None else tuple(int(n) for n in mask["size"])
        if told is None or (None not in size and told != size):
            yield "mask-size", f"the mask of frame {frame} is {told}, the picture {size} (height, width)"
        elif (area := rle_area(mask["counts"] or b"")) != told[0] * told[1]:
            yield "mask-runs", f"the runs of frame {frame} fill {area} of {told[0]}x{told[1]} pixels"


def rle_area(counts: bytes) -> int | None:
    """The pixels that COCO's compressed run lengths cover, without drawing them (see `annotate.coco.rle_encode`).

    None where the characters are no run lengths, or a run is negative.
    """
    data = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not data.size or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        return None
    ends = np.flatnonzero(~data & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(data.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 8:  # 45 bits: no picture is that large
        return None
    runs = np.add.reduceat((data & 31) << (5 * place), starts)
    runs -= np.where(data[ends] & 16, np.int64(1) << (5 * (place[ends] + 1)), 0)
    # From the fourth on, a run is the difference to the one two before.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if runs.min() < 0 else int(runs.sum())


def media_problems(row: Mapping[str, Any], whole: bool) -> list[tuple[str, str]]:
    """What is wrong with the media of a row: (rule, message).

    Args:
        row: columns that it does not have are not judged.
        whole: decode every frame and the video's own sound; otherwise packets are counted and one frame decoded.

    """
    from jwb_dh_v1.media.audio import decode_audio
    from jwb_dh_v1.media.clip import Clip

    found = []
    content, sound = content_of(row.get("video")), content_of(row.get("audio"))
    seconds = None
    if content:
        clip = Clip(content)
        try:
            info = clip.info
            seconds = info.frames / info.fps if info.fps else None
            for name, real in (("num_frames", info.frames), ("height", info.height), ("width", info.width)):
                if row.get(name) not in (None, real):
                    found.append(("video-facts", f"{name} is {row[name]}, that of the video {real}"))
            if row.get("fps") is not None and not abs(row["fps"] - info.fps) <= RATE_SLACK * info.fps:
                found.append(("video-facts", f"fps is {row['fps']:.4f}, that of the video {info.fps:.4f}"))
            if whole:
                for _ in clip.chunks():
                    pass
        except Exception as error:  # noqa: BLE001 - a checker goes on, whatever a decoder does
            found.append(("video", _told(error)))
        try:
            _ = clip.audio if whole and not found else None
        except Exception as error:  # noqa: BLE001
            found.append(("audio", f"the video's own sound: {_told(error)}"))
    if sound is not None:
        try:
            audio = decode_audio(sound)
        except Exception as error:  # noqa: BLE001
            found.append(("audio", _told(error)))
        else:
            if audio is None:
                found.append(("audio", "there is no sound in it"))
            elif seconds is not None and abs(audio.duration - seconds) > AUDIO_SLACK:
                found.append(("audio-length", f"the audio lasts {audio.duration:.2f} s, the video {seconds:.2f} s"))
    return found


def _told(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return text if isinstance(error, SampleError) else f"{type(error).__name__}: {text}"


def valid_rows(
    rows: Iterable[Mapping[str, Any]],
    on_bad: Literal["refuse", "skip"] = "skip",
    say: Say | None = None,
    *,
    media: bool = False,
) -> Iterator[Mapping[str, Any]]:
    """The rows that break no rule of `row_problems`, e.g. of a stream from `load_dataset`.

    A shard that cannot be read is not a matter of rows: `load_dataset(..., on_bad_files="warn")` leaves it out.

    Args:
        rows: any rows; what is not among their columns is not judged.
        on_bad: leave bad rows out, or stop at the first.
        say: takes a line per row left out, with its name and what is wrong.
        media: also look into the video and the audio, as `media_problems(row, whole=False)` does.

    Raises:
        BadRow: with `refuse`; always where the cells of a row are such that the stream itself breaks off (key points of
            another number, for example).

    """
    if on_bad not in ("refuse", "skip"):
        raise SetupError(f"on_bad must be 'refuse' or 'skip', not {on_bad!r}.")
    return _valid(rows, on_bad, say or (lambda _: None), media)


def _valid(rows: Iterable[Mapping[str, Any]], on_bad: str, say: Say, media: bool) -> Iterator[Mapping[str, Any]]:
    stream = iter(rows)
    number, before = 0, "the start"
    while True:
        try:
            row = next(stream)
        except StopIteration:
            return
        except ValueError as error:  # `datasets` cannot make a row of these cells, and its stream ends there
            raise BadRow(
                f"The row after {before} cannot be read: {error}. Run `jwb-dh data check` on the data."
            ) from error
        found = row_problems(row) + (media_problems(row, whole=False) if media else [])
        number, before = number + 1, row.get("sample_id") or f"row {number}"
        if not found:
            yield row
            continue
        line = f"{before}: " + "; ".join(f"{r}: {m}" for r, m in found)
        if on_bad == "refuse":
            raise BadRow(f"{line}. Run `jwb-dh data check` on the data, or read with on_bad='skip'.")
        say(f"skipped {line}")
