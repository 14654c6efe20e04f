"""One clip on its way into the dataset: the files it consists of, before they become a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Item:
    """What will be one row.

    Attributes:
        sample_id: unique name in the dataset.
        identity_id: the person; splits never share one.
        video: the file whose bytes go into the row as they are.
        audio: the speech as a WAV or FLAC file; None: the video's own track.
        annotations: annotation files, in the order in which they are read; later ones win per column.
        columns: columns of the row that are known already (motion_text, transcript, speech, provenance, licence, ...).
        split: where it belongs, or None where the packer is to decide by identity.

    """

    sample_id: str
    identity_id: str
    video: Path
    audio: Path | None = None
    annotations: tuple[Path, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
