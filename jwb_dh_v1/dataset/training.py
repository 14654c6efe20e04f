"""Rows for training: a row as a `Clip`, rows as a batch of tensors, and how streams are split, projected and resumed.

Everything else is `datasets` and PyTorch as they are::

    from datasets.distributed import split_dataset_by_node
    from torch.utils.data import DataLoader

    from jwb_dh_v1 import load_dataset
    from jwb_dh_v1.dataset.training import collate

    rows = load_dataset("jwb-dh-v1", split="evaluation", streaming=True)
    mine = split_dataset_by_node(rows, rank=0, world_size=2)
    for batch in DataLoader(mine, batch_size=2, num_workers=2, collate_fn=collate):
        batch["frames"], batch["lengths"], batch["boxes"]["face"], batch["text"]

Nodes and workers share the shards: their number should be a multiple of nodes times workers, else some have nothing to
do, and where nodes do not divide it each node reads everything and keeps its part. Nothing is lost or doubled either
way, but nodes may get different numbers of rows.

Annotations alone: `load_dataset(..., columns=["sample_id", "num_frames", "boxes", "transcript"])` fetches no byte of
a video, and `collate` takes such rows as well.

Resume at the exact sample: save `rows.state_dict()` with the model, and call `rows.load_state_dict(state)` on the same
stream later. With workers the positions live in the workers: torchdata's `StatefulDataLoader` collects them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.dataset.schema import ANNOTATIONS, annotations_of, check_version
from jwb_dh_v1.errors import BadBox, SetupError, Truncated, Unreadable
from jwb_dh_v1.media.annotations import KEYPOINTS, PARTS, Annotations
from jwb_dh_v1.media.clip import Clip

if TYPE_CHECKING:
    from jwb_dh_v1.networks.pool import NetworkPool

Row = Mapping[str, Any]
TEXTS = ("sample_id", "identity_id", "motion_text", "speech")


def decode(row: Row, *, verify: bool = True, models: NetworkPool | None = None) -> Clip:
    """The clip of a row. Nothing is decoded yet, and the video's bytes are not copied.

    Args:
        row: a row of the dataset with `video` as bytes (`Video(decode=False)`, as it is loaded).
        verify: compare the bytes with `video_sha256` where the row has it (about 1 ms per MB).
        models: the networks that features are computed with.

    Returns:
        Its `given` are the row's annotations, read when they are first asked for (`BadBox` where they are none).

    Raises:
        SetupError: the row has another schema, or its video was not loaded or was decoded by `datasets`.
        Unreadable: it holds no video.
        Truncated: the video's bytes are not those that were packed.

    """
    check_version(row.get("schema_version"))
    video = _media(row, "video")
    # Not the row itself: the audio and whatever else is in it need not live as long as the clip.
    known = {name: row[name] for name in ANNOTATIONS if name in row}
    clip = Clip(video, annotations=partial(annotations_of, known), models=models)
    promised = row.get("video_sha256") if verify else None
    if promised is not None and clip.sha256 != promised:
        raise Truncated(f"{_name(row)}: the video's bytes are not those of video_sha256. Fetch the shard again.")
    return clip


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as one batch: `DataLoader(..., collate_fn=collate)`. What the rows do not have, the batch does not have.

    B rows, T frames of the longest clip. Clips are decoded whole, so that B x T x H x W x 3 bytes must fit; for parts
    of long clips use `decode(row).take(indices)`.

    Returns:
        - `sample_id`, `identity_id`, `motion_text`, `speech`: lists of B strings (or None).
        - `text`: B transcripts; `words`: per row its words, `{"word", "start", "end", ...}` with times in seconds.
        - `lengths`: int64 [B], frames of each clip.
        - `fps`: float32 [B].
        - `frames`: uint8 [B, T, H, W, 3] RGB, zeros beyond `lengths`; a list of B [T, H, W, 3] where sizes differ.
        - `boxes`: body, face, left_hand, right_hand -> float32 [B, T, 4] in pixels, NaN where not seen or not there.
        - `keypoints`: float32 [B, T, 133, 3] x, y, score, NaN where not there.
        - `audio`: list of B float32 [channels, n] in [-1, 1], or None; `audio_rate`: int64 [B], 0 for None.

    Raises:
        SetupError: no row, annotations without their number of frames, or what `decode` says.
        SampleError: a row's video, audio or annotations are not what they should be.

    """
    import torch

    if not rows:
        raise SetupError("There is no row to make a batch of.")
    there = set.intersection(*(set(row) for row in rows))
    batch: dict[str, Any] = {name: [row[name] for row in rows] for name in TEXTS if name in there}
    if "transcript" in there:
        told = [row["transcript"] or {} for row in rows]
        batch["text"] = [transcript.get("text") for transcript in told]
        batch["words"] = [transcript.get("words") or [] for transcript in told]
    if "fps" in there:
        batch["fps"] = torch.tensor([row["fps"] for row in rows], dtype=torch.float32)
    known = [annotations_of(row) for row in rows] if {"boxes", "keypoints"} & there else []
    clips = [decode(row) for row in rows] if "video" in there else []
    lengths = [len(clip) for clip in clips]
    if known and not clips:
        if "num_frames" not in there:
            raise SetupError("Annotations without `video` need the column `num_frames`: add it to columns=.")
        lengths = [row["num_frames"] for row in rows]
    if lengths:
        batch["lengths"] = torch.tensor(lengths, dtype=torch.int64)
    if clips:
        batch["frames"] = _frames(clips, lengths)
    if "boxes" in there:
        batch["boxes"] = {part: torch.from_numpy(_boxes(rows, known, part, lengths)) for part in PARTS}
    if "keypoints" in there:
        batch["keypoints"] = torch.from_numpy(_keypoints(rows, lengths))
    if "audio" in there:
        batch["audio"], batch["audio_rate"] = _audio(rows)
    return batch


def _name(row: Row) -> str:
    return str(row.get("sample_id") or "a row")


def _media(row: Row, column: str) -> Mapping[str, Any]:
    """The bytes of `video` or `audio`, as `{"bytes", "path"}`."""
    if column not in row:
        raise SetupError(f"{_name(row)} was loaded without {column!r}: add it to columns=.")
    media = row[column]
    if media is None:
        raise Unreadable(f"{_name(row)} holds no {column}.")
    if not isinstance(media, Mapping):
        raise SetupError(
            f"{_name(row)}: {column!r} was decoded by `datasets`; load it as {column.title()}(decode=False)."
        )
    if media.get("bytes") is None and media.get("path") is None:
        raise Unreadable(f"{_name(row)} holds no {column}.")
    return media


def _frames(clips: list[Clip], lengths: list[int]) -> Any:
    """Frames of B clips in one tensor, or in a list where they differ in size."""
    import torch

    if len({clip.size for clip in clips}) > 1:
        return [torch.from_numpy(np.ascontiguousarray(clip.frames)) for clip in clips]
    width, height = clips[0].size
    frames = torch.zeros((len(clips), max(lengths), height, width, 3), dtype=torch.uint8)
    for into, clip in zip(frames.numpy(), clips, strict=True):  # the array and the tensor share their memory
        at = 0
        for chunk in clip.chunks():
            into[at : at + len(chunk)] = chunk
            at += len(chunk)
        clip.release()
    return frames


def _boxes(rows: Sequence[Row], known: list[Annotations | None], part: str, lengths: list[int]) -> np.ndarray:
    """Boxes of one part, float32 [B, T, 4]."""
    padded = np.full((len(rows), max(lengths), 4), np.nan, np.float32)
    for into, row, told, length in zip(padded, rows, known, lengths, strict=True):
        boxes = told.boxes.get(part) if told else None
        if boxes is not None:
            if len(boxes) != length:
                raise BadBox(f"{_name(row)}: {len(boxes)} {part} boxes for {length} frames.")
            into[:length] = boxes
    return padded


def _keypoints(rows: Sequence[Row], lengths: list[int]) -> np.ndarray:
    """Key points, float32 [B, T, 133, 3]; of rows without boxes, too."""
    padded = np.full((len(rows), max(lengths), KEYPOINTS, 3), np.nan, np.float32)
    for into, row, length in zip(padded, rows, lengths, strict=True):
        if row["keypoints"] is not None:
            points = np.asarray(row["keypoints"], np.float32)
            if points.shape != (length, KEYPOINTS, 3):
                raise BadBox(f"{_name(row)}: key points of shape {points.shape}, expected ({length}, {KEYPOINTS}, 3).")
            into[:length] = points
    return padded


def _audio(rows: Sequence[Row]) -> tuple[list[Any], Any]:
    """Sound as it is: float32 [channels, n] per row, and its rates."""
    import torch

    from jwb_dh_v1.media.audio import decode_audio

    sounds, rates = [], []
    for row in rows:
        media = None if row["audio"] is None else _media(row, "audio")
        source = None if media is None else media["bytes"] if media.get("bytes") is not None else media["path"]
        audio = None if source is None else decode_audio(source)
        sounds.append(None if audio is None else torch.from_numpy(audio.samples))
        rates.append(0 if audio is None else audio.rate)
    return sounds, torch.tensor(rates, dtype=torch.int64)
