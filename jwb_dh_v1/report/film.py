"""A piece of a clip encoded again for a page: small, beside its reference, with its sound."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.report.illustrate import NotShown

# Largest height in pixels and libx264's quality, until a clip fits its share.
SIZES = ((320, 28), (240, 31), (160, 34))


@dataclass
class Film:
    """An encoded piece: MP4 bytes, size in pixels, what it shows from left to right, and what is to be said."""

    data: bytes = b""
    width: int = 0
    height: int = 0
    sides: str = "generated"
    notes: list[str] = field(default_factory=list)


def encode(sample: Sample, first: int, last: int, share: int) -> Film:
    """A piece of a sample as MP4, the generated clip left of the reference.

    Args:
        sample: with clips that may be decoded.
        first, last: frames of the generated clip, the last one not included.
        share: characters that the piece may take as base64; it is made smaller until it fits.

    Raises:
        NotShown: even the smallest version is larger.
        SampleError: the generated clip cannot be decoded.

    """
    film, reference, fps = Film(), sample.reference, sample.generated.fps
    if reference is not None:
        try:
            _ = reference.info
            film.sides = "generated, then reference"
        except JwbError as error:
            film.notes.append(f"The reference is not shown: {error}")
            reference = None
    audio = _sound(film, sample.generated, first / fps, last / fps)
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "clip.mp4"
        for largest, quality in SIZES:
            height = max(2, min(largest, sample.generated.size[1]) // 2 * 2)
            frames = _frames(sample.generated, reference, first, last, height)
            head = next(frames)
            write_mp4(path, chain([head], frames), fps, audio, crf=quality, preset="fast")
            if 4 * path.stat().st_size / 3 <= share:
                film.data, (film.height, film.width) = path.read_bytes(), head.shape[:2]
                if quality != SIZES[0][1]:
                    film.notes.append("Shown smaller and coarser than other clips, to keep the report small.")
                return film
    raise NotShown("the video would make the report too large.")


def _frames(generated: Clip, reference: Clip | None, first: int, last: int, height: int) -> Iterator[np.ndarray]:
    """Frames `first` to `last` of both clips side by side at the same moments, uint8 [height, W, 3]; both even."""
    theirs = _at_moments(reference, generated, first, last) if reference is not None else None
    for chunk in generated.chunks(start=first, stop=last):
        for frame in chunk:
            sides = [_shrunk(frame, height)]
            if theirs is not None:
                sides += [np.zeros((height, 4, 3), np.uint8), _shrunk(next(theirs), height)]
            yield np.hstack(sides)


def _at_moments(reference: Clip, generated: Clip, first: int, last: int) -> Iterator[np.ndarray]:
    """The reference's frame at the moment of each of the generated frames; its last one stays when it is over."""
    rate = reference.fps / generated.fps
    same = abs(rate - 1) < 0.01
    moment = [k if same else round(k * rate) for k in range(first, last)]
    wanted, at = 0, min(moment[0], len(reference) - 1)
    frame: np.ndarray | None = None
    for chunk in reference.chunks(start=at):
        for frame in chunk:
            while wanted < len(moment) and moment[wanted] <= at:
                yield frame
                wanted += 1
            at += 1
        if wanted == len(moment):
            return
    while frame is not None:
        yield frame


def _shrunk(frame: np.ndarray, height: int) -> np.ndarray:
    width = max(2, round(frame.shape[1] * height / frame.shape[0] / 2) * 2)
    small: np.ndarray = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return small


def _sound(film: Film, clip: Clip, begin: float, end: float) -> Audio | None:
    """The clip's sound in the piece, in one channel; None, with a note where it is broken."""
    try:
        audio = clip.audio
    except JwbError as error:
        film.notes.append(f"No sound: {error}")
        return None
    if audio is None:
        film.notes.append("The clip has no sound.")
        return None
    low = max(0, round((begin - audio.start) * audio.rate))
    high = max(low, round((end - audio.start) * audio.rate))
    samples = audio.samples[:, low:high].mean(axis=0, keepdims=True)
    return Audio(samples, audio.rate, max(0.0, audio.start - begin)) if samples.size else None
