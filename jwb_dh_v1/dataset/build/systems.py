"""Six stand-in systems made from the teaser, whose order on each metric is known before anything is scored.

| system | pictures | sound | what must show |
|---|---|---|---|
| `copy` | the reference's file | its own | SSIM 1, CSIM 1, FID 0 |
| `recompressed` | encoded again at a low quality | kept | a little worse than `copy` |
| `blurred` | Gaussian blur | kept | SSIM below `recompressed` |
| `frozen` | the first frame throughout | kept | no motion, perfect consistency |
| `swapped` | another person, cut and scaled to the same size, looped | kept | the lowest face CSIM |
| `garbled` | the reference's, bit by bit | another clip's speech | the highest WER |
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from jwb_dh_v1.files import sha256_of, write_atomically
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
import numpy as np
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.errors import DataNotFound
from jwb_dh_v1.media.video import exact_fps, replace_audio, write_mp4

PARQUET = "evaluation/evaluation-00000-of-00001.parquet"  # where the teaser's rows are


def write_manifest(folder: Path, name: str, facts: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write `folder/name`: facts and the sha256 of each file. It comes last and says that the folder is complete."""
    content = {**facts, "files": {file: sha256_of(folder / file) for file in files}}
    write_atomically(folder / name, json.dumps(content, indent=1, sort_keys=True) + "\n")


def is_complete(folder: Path, name: str, facts: Mapping[str, Any]) -> bool:
    """Whether the manifest `folder/name` tells of these facts and every file it names is there, unaltered."""
    try:
        told = json.loads((folder / name).read_text(encoding="utf-8"))
        files = told.pop("files")
        return bool(told == facts and all(sha256_of(folder / f) == digest for f, digest in files.items()))
    except (OSError, ValueError, KeyError, AttributeError):  # no manifest, half of one, or a file is gone
        return False


VERSION = 2  # moves when any byte of a system's file can move
MANIFEST = "systems.json"
SYSTEMS = ("copy", "recompressed", "blurred", "frozen", "swapped", "garbled")
CRF = 35  # of `recompressed`: blocks are seen, faces still known
BLUR = 72  # of `blurred`: sigma is the height of the picture divided by this, 5 pixels of 360

# Who stands in for whom in `swapped`: clips whose face stays in the picture when it is cut to the other's aspect.
FACES = {"obama": "pyfeat-1", "pexels-woman": "carphone-1", "pyfeat-man": "pexels-3", "carphone-man": "pyfeat-1"}
# Whose words are heard in `garbled`, and from which second on: two texts that share next to no word.
VOICES = {"obama": ("pexels-1", 0.0)}
OTHER_VOICE = ("obama-1", 1.0)


@dataclass(frozen=True)
class Reference:
    """A sample of the teaser, decoded."""

    sample_id: str
    identity_id: str
    content: bytes
    frames: np.ndarray
    fps: Fraction
    audio: Audio


def make_systems(teaser: Path, folder: Path, say: Callable[[str], None] = print) -> None:
    """Write `folder/<system>/<sample_id>.mp4` for the six systems and every sample of the teaser.

    All have the reference's size, frame rate and number of frames. A folder that is already complete for this teaser
    is left alone. The same package versions write the same bytes on every x86-64 processor.

    Args:
        teaser: the folder that `make_teaser` wrote.
        folder: where the systems go; files of the same names are replaced.
        say: takes one line at a time about what is being done.

    Raises:
        DataNotFound: there is no teaser in that folder.

    """
    table = teaser / PARQUET
    if not table.is_file():
        raise DataNotFound(f"{table} is not there; run `jwb-dh teaser` first.")
    if systems_are_complete(teaser, folder):
        say(f"systems: {folder} is complete")
        return
    references = _read(table)
    by_id = {reference.sample_id: reference for reference in references}
    say(f"systems: making {len(SYSTEMS)} systems of {len(references)} clips each in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    files = []
    for system in SYSTEMS:
        (folder / system).mkdir(exist_ok=True)
        for reference in references:
            name = f"{system}/{reference.sample_id}.mp4"
            _make(system, reference, by_id, folder / name, folder)
            files.append(name)
        say(f"systems: {system}")
    write_manifest(folder, MANIFEST, _facts(table), files)


def systems_are_complete(teaser: Path, folder: Path) -> bool:
    """Whether `folder` holds the systems of this teaser as this version makes them, unaltered."""
    table = teaser / PARQUET
    return table.is_file() and is_complete(folder, MANIFEST, _facts(table))


def _facts(table: Path) -> dict[str, Any]:
    recipe = hashlib.sha256(repr((SYSTEMS, CRF, BLUR, FACES, VOICES, OTHER_VOICE)).encode()).hexdigest()
    return {"version": VERSION, "teaser": sha256_of(table), "recipe": recipe}


def _read(table: Path) -> list[Reference]:
    from pyarrow import parquet

    rows: list[Mapping[str, Any]] = parquet.read_table(
        table, columns=["sample_id", "identity_id", "video", "audio"]
    ).to_pylist()
    found = []
    for row in rows:
        clip, audio = Clip(row["video"]), decode_audio(row["audio"]["bytes"])
        if audio is None:
            raise DataNotFound(f"{table}: {row['sample_id']} has no sound; make the teaser again.")
        found.append(
            Reference(
                row["sample_id"], row["identity_id"], row["video"]["bytes"], clip.frames, exact_fps(clip.fps), audio
            )
        )
    return found


def _make(system: str, reference: Reference, by_id: Mapping[str, Reference], path: Path, folder: Path) -> None:
    frames: Iterable[np.ndarray]
    crf = 16
    if system == "copy":
        path.write_bytes(reference.content)
        return
    if system == "garbled":
        voice, begin = VOICES.get(reference.identity_id, OTHER_VOICE)
        seconds = float(len(reference.frames) / reference.fps)
        replace_audio(folder / "copy" / path.name, path, by_id[voice].audio.cut(begin, begin + seconds), portable=True)
        return
    if system == "recompressed":
        frames, crf = reference.frames, CRF
    elif system == "blurred":
        frames = _blurred(reference.frames)
    elif system == "frozen":
        frames = (reference.frames[0] for _ in reference.frames)
    else:
        frames = _refit(by_id[FACES[reference.identity_id]].frames, reference.frames.shape)
    write_mp4(path, frames, reference.fps, reference.audio, crf=crf, portable=True)


def _blurred(frames: np.ndarray) -> Iterator[np.ndarray]:
    import cv2

    sigma = frames.shape[1] / BLUR
    for frame in frames:
        yield cv2.GaussianBlur(frame, (0, 0), sigma)


def _refit(frames: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Another clip's frames, cut around the centre to the shape's aspect, scaled, and looped to its length.

    Pillow scales 8-bit pictures in whole numbers, in the same way on every processor; OpenCV's cubic does not.
    """
    from PIL import Image

    count, height, width = shape[:3]
    tall, wide = frames.shape[1:3]
    scale = min(tall / height, wide / width)
    high, broad = round(height * scale), round(width * scale)
    top, left = (tall - high) // 2, (wide - broad) // 2
    for k in range(count):
        cut = np.ascontiguousarray(frames[k % len(frames), top : top + high, left : left + broad])
        yield np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BICUBIC))
