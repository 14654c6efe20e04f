"""Contact sheets: the worst and the best clips of a run at a glance, a strip of moments each."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from jwb_dh_v1.analysis.ranking import Place
from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report.illustrate import ByteBudget, Task, require_same
from jwb_dh_v1.report.plots import jpeg
from jwb_dh_v1.scoring.result import Result

BUDGET = 2_500_000  # bytes of all strips in the page
TILES = 6  # moments of a strip
WIDTH, HEIGHT = 1080, 150  # largest strip of one clip in pixels
QUALITY = 80


@dataclass
class Strip:
    """One clip: its place, a JPEG as data: URI with its size, what the rows show, and why there is none."""

    place: Place
    kind: str
    image: str = ""
    width: int = 0
    height: int = 0
    sides: str = "generated"
    note: str = ""


def tasks(strips: Sequence[Strip], result: Result) -> list[Task]:
    """The pictures that the strips need."""
    room, hashes = ByteBudget(BUDGET), _hashes(result, {strip.place.sample_id for strip in strips})
    return [
        Task(strip.place.sample_id, strip, partial(_fill, strip, hashes.get(strip.place.sample_id, "")), room)
        for strip in strips
    ]


def _hashes(result: Result, samples: set[str]) -> dict[str, str]:
    """The sha256 of the files that were scored."""
    if result.samples is None:
        return {}
    names, hashes = (result.samples[key].to_pylist() for key in ("sample_id", "sha256"))
    return {name: sha for name, sha in zip(names, hashes, strict=True) if name in samples}


def _fill(strip: Strip, sha256: str, sample: Sample) -> int:
    """Evenly spaced frames of the generated clip, those of the reference at the same share of its length below."""
    require_same(sample, sha256)
    rows = [_tiles(sample.generated)]
    if sample.reference is not None:
        try:
            rows.append(_tiles(sample.reference))
            strip.sides = "above generated, below the reference"
        except JwbError:
            strip.sides = "generated; the reference cannot be read"
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0)), constant_values=128) for row in rows]
    data, strip.width, strip.height = jpeg(np.vstack(rows)[:-4], WIDTH, QUALITY)
    strip.image = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return len(strip.image)


def _tiles(clip: Clip) -> np.ndarray:
    """The frames of one row side by side, uint8 [h, w, 3]."""
    at = np.unique(np.linspace(0, len(clip) - 1, TILES).round().astype(int))
    height = min(HEIGHT, round(WIDTH / TILES * clip.size[1] / clip.size[0]))
    width = max(1, round(height * clip.size[0] / clip.size[1]))
    tiles = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in clip.take(at)]
    return np.hstack([np.pad(tile, ((0, 0), (0, 4), (0, 0)), constant_values=128) for tile in tiles])[:, :-4]
