"""A small fixed set of samples, read once and scored often: for training loops."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import DataNotFound
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.scoring.run import Prepared

CLIPS = 4  # of the data, unless told otherwise


@dataclass(frozen=True, eq=False)
class FixedSet:
    """The samples that are scored again and again, made by `fixed_set`.

    Attributes:
        rows: for prompts.
        samples: for references.
        prepared: plans of earlier calls with their networks, which remember the features of the references.

    """

    rows: tuple[Mapping[str, Any], ...]
    samples: tuple[Sample, ...]
    prepared: dict[Any, tuple[Prepared, NetworkPool]] = field(default_factory=dict, repr=False)


Data = str | Path | Iterable[Sample] | Iterable[Mapping[str, Any]] | FixedSet


def fixed_set(data: Data, limit: int = CLIPS, split: str | None = None) -> FixedSet:
    """Read the first samples of some data once, to be scored often.

    Args:
        data: a dataset folder or Hub name, a plain folder of real videos, rows of a dataset, or samples (their
            references are the real clips; their generated clips are not looked at).
        limit: how many.
        split: of the dataset; `evaluation` by default.

    Raises:
        DataNotFound: there are no such data, or a sample has no reference.

    """
    if isinstance(data, FixedSet):
        return data
    pairs: list[tuple[Mapping[str, Any], Sample]] = []
    for one in _entries(data, split):
        if len(pairs) == limit:
            break
        pairs.append(_of_sample(one) if isinstance(one, Sample) else _of_row(one))
    if not pairs:
        raise DataNotFound("There are no samples to score in the training loop.")
    return FixedSet(*zip(*pairs, strict=True))


def _entries(data: str | Path | Iterable[Any], split: str | None) -> Iterable[Any]:
    if not isinstance(data, str | Path):
        return data
    place = Path(data)
    if place.is_dir() and not any(place.rglob("*.parquet")):
        from jwb_dh_v1.dataset.pairs import pair

        return pair(place, place)  # the real clips are both sides; only the references are used
    from jwb_dh_v1.dataset.load import load_dataset

    rows: Iterable[Any] = load_dataset(str(data), split=split or "evaluation", streaming=True)
    return rows


def _of_row(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sample]:
    from jwb_dh_v1.dataset.schema import annotations_of

    spoken = row.get("transcript")
    spoken = spoken if isinstance(spoken, Mapping) else {"text": spoken}
    reference = Clip(row["video"], annotations=partial(annotations_of, row))
    sample = Sample(
        str(row["sample_id"]),
        reference,
        reference,
        transcript=spoken.get("text"),
        person_id=row.get("identity_id"),
        language=spoken.get("language") or "en",
    )
    return row, sample


def _of_sample(sample: Sample) -> tuple[Mapping[str, Any], Sample]:
    if sample.reference is None:
        raise DataNotFound(f"{sample.id} has no reference: the real clip is what the model is prompted with.")
    video: Any = sample.reference._source
    if video is None:  # frames of an array: as a file without loss
        video = _file(sample.reference)
    transcript = {"text": sample.transcript, "language": sample.language}
    return {"sample_id": sample.id, "video": video, "transcript": transcript}, sample


def _file(clip: Clip) -> bytes:
    from jwb_dh_v1.media.video import write_mp4

    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "clip.mp4"
        write_mp4(path, clip.frames, clip.fps, lossless=True)
        return path.read_bytes()
