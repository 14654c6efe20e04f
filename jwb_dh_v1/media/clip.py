"""One video: decoded once, streamed when it is long, with everything that was computed from it remembered.

Decoder: decord where it is installed and can open the file, else PyAV (both bundle FFmpeg; on the clips of our tests
their pixels are equal). Rotated, tiny and streamed files always go through PyAV: decord 0.6 returns a fourth channel
for the first, fails at the second, and needs gigabytes for the third.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from jwb_dh_v1.errors import NoFrames, NotApplicable, Truncated, Unreadable, VariableFrameRate, VariableSize
from jwb_dh_v1.files import sha256_of
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.probe import VideoInfo, open_container, probe

T = TypeVar("T")
Source = str | Path | bytes | Mapping[str, Any] | np.ndarray

# Frames of a clip up to this many bytes are kept after the first decode (5 s of 720p at 24 fps are 332 MB); longer
# clips are decoded again by each reader, in chunks.
FRAME_BUDGET = 512 * 2**20
CHUNK = 32


class FeatureMemory(Protocol):
    """What remembers features by content: a pool of networks."""

    def remember(self, key: Any, make: Callable[[], T]) -> T:
        """`make()`, or what it gave before for this key."""
        ...


class FrameSource(Protocol):
    """A file that something else opens, and tells what is in it; see `worker_clip`."""

    @property
    def opener(self) -> object:
        """Who opens it."""
        ...

    def info(self) -> VideoInfo:
        """Size, rate and number of frames."""
        ...

    def sha256(self) -> str:
        """Of the file's bytes."""
        ...

    def audio(self) -> Audio | None:
        """The first audio track."""
        ...

    def frames(self) -> np.ndarray:
        """All frames, uint8 [T, H, W, 3] RGB."""
        ...

    def stream(self, n: int) -> Iterator[np.ndarray]:
        """The frames, n at a time."""
        ...

    def close(self) -> None:
        """Forget the file."""
        ...


class Opener(Protocol):
    """What opens files for clips: a decoding process."""

    def open(self, source: Path | bytes) -> FrameSource:
        """A file, or the content of one."""
        ...


class Clip:
    """A video and what is known about it. Nothing is opened before it is asked for.

    Args:
        source: a path, the content of a file as bytes, a dataset row `{"bytes": ..., "path": ...}`, or frames as
            uint8 [T, H, W, 3] RGB.
        annotations: boxes, key points and masks that came with the clip, or a function that reads them when they are
            first needed (so that what is wrong with them fails this sample, not the reading of the data).
        models: the networks that features are computed with; needed for features only.
        fps: frames per second of frames given as an array.

    Errors (on first use): `Unreadable`, `NotAVideo`, `Truncated`, `NoFrames`, `VariableFrameRate`, `BadAudio`.

    """

    start = 0  # a crop of a clip begins at a later frame
    expected: int | None = None  # bytes of the file when the run began, where someone looked
    opened: FrameSource | None = None  # the file, where another process opens it

    def __init__(
        self,
        source: Source,
        *,
        annotations: Annotations | Callable[[], Annotations | None] | None = None,
        models: FeatureMemory | None = None,
        fps: float = 25.0,
    ) -> None:
        self._given = annotations
        self.models = models
        self._memo: dict[Any, Any] = {}
        self._frames: np.ndarray | None = None
        self._source: Path | bytes | None = None
        given: Any = source
        if isinstance(given, Mapping):
            given = given["bytes"] if given.get("bytes") is not None else given["path"]
        if isinstance(given, np.ndarray):
            if given.dtype != np.uint8 or given.ndim != 4 or given.shape[-1] != 3:
                raise TypeError(f"frames must be uint8 [T, H, W, 3], not {given.dtype} {given.shape}")
            # Frames of a view (`bgr[..., ::-1]`) have strides that torch does not take.
            self._frames, self._fps = np.ascontiguousarray(given), fps
        else:
            self._source = given if isinstance(given, bytes) else Path(given)

    @property
    def provided_annotations(self) -> Annotations | None:
        """The annotations that came with the clip, or None."""
        if callable(self._given):
            self._given = self._given()
        return self._given

    def decode_in_worker(self, decoder: Opener | None) -> None:
        """Let another process open this clip's file (None: this process, as is the default). Arrays stay here."""
        if self._source is None or (self.opened is not None and self.opened.opener is decoder):
            return
        if self.opened is not None:
            self.opened.close()
        self.opened = None if decoder is None else decoder.open(self._source)

    @property
    def name(self) -> str:
        """A short name for messages."""
        return self._source.name if isinstance(self._source, Path) else "clip"

    @property
    def info(self) -> VideoInfo:
        """Size, rate and number of frames, without decoding."""
        return self.memo("info", self._probe)

    def _probe(self) -> VideoInfo:
        if self._source is None:
            assert self._frames is not None
            count, height, width, _ = self._frames.shape
            if count == 0:
                raise NoFrames("The array holds no frames.")
            return VideoInfo(width, height, self._fps, count, 0, False, True)
        if self.opened is not None:
            return self.opened.info()
        info = probe(self._source)
        if not info.even:
            raise VariableFrameRate(
                f"{self.name} has unevenly spaced frames; make it even first: ffmpeg -i IN -fps_mode cfr -r FPS OUT."
            )
        return info

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.info.fps

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.info.frames

    @property
    def stop(self) -> int:
        """One past the last frame, counted in frames of the whole clip."""
        return self.start + len(self)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.info.width, self.info.height

    @property
    def root(self) -> Clip:
        """The whole clip that this one was cut from (itself, if it was not)."""
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, or of shape and pixels of an array."""
        return self.memo("sha256", self._hash)

    def _hash(self) -> str:
        if isinstance(self._source, Path):
            if self.opened is not None:
                return self.opened.sha256()
            try:
                return sha256_of(self._source)
            except OSError as error:
                raise Unreadable(f"{str(self._source)[:200]} cannot be read: {error}.") from None
        if isinstance(self._source, bytes):
            return hashlib.sha256(self._source).hexdigest()
        assert self._frames is not None
        digest = hashlib.sha256(repr((self._frames.shape, self._fps)).encode())
        digest.update(np.ascontiguousarray(self._frames).data)
        return digest.hexdigest()

    @property
    def content_key(self) -> str:
        """What features are remembered under: equal for equal pixels."""
        return self.sha256

    def memo(self, key: Any, make: Callable[[], T]) -> T:
        """The value of `make()`, computed once per clip."""
        if key not in self._memo:
            self._memo[key] = make()
        return cast(T, self._memo[key])

    def feature(self, key: Any, make: Callable[[], T]) -> T:
        """`memo` for arrays, also remembered by the models for other clips of the same content."""
        if self.models is None:
            return self.memo(key, make)
        return self.memo(key, lambda: self.models.remember((self.content_key, key), make))  # type: ignore[union-attr]

    def uncached_copy(self) -> Clip:
        """A twin that knows what this clip knows; frames that the twin decodes go away with it."""
        twin = copy.copy(self)
        twin._memo = dict(self._memo)
        return twin

    def release(self) -> None:
        """Forget frames and features (a file's; an array stays), so that a long list of clips stays small."""
        if self._source is not None:
            self._frames = None
        self._memo = {key: self._memo[key] for key in ("info", "sha256") if key in self._memo}

    @property
    def audio(self) -> Audio | None:
        """The first audio track, or None. Its start offset against the video is kept."""
        if self._source is None:
            return None
        return self.memo("audio", self._sound)

    def _sound(self) -> Audio | None:
        assert self._source is not None
        if not self.info.has_audio:
            return None
        return decode_audio(self._source) if self.opened is None else self.opened.audio()

    @property
    def speech(self) -> Audio:
        """The audio track.

        Raises:
            NotApplicable: there is none.

        """
        audio = self.audio
        if audio is None:
            raise NotApplicable(f"{self.name} has no audio track")
        return audio

    @property
    def frames(self) -> np.ndarray:
        """All frames, uint8 [T, H, W, 3] RGB; of long clips use `chunks`."""
        if self._frames is None:
            shape = len(self), self.size[1], self.size[0], 3
            if self.opened is None:
                self._frames = fill(np.empty(shape, np.uint8), self._stream(CHUNK))
            else:
                self._frames = self.opened.frames()
        return self._frames

    @property
    def fits(self) -> bool:
        """Whether all frames stay within the frame budget and are kept after the first decode."""
        return self._frames is not None or len(self) * self.size[0] * self.size[1] * 3 <= FRAME_BUDGET

    def chunks(self, n: int = CHUNK, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames `start` to `stop` of this clip in order, n at a time (the last chunk may be shorter)."""
        stop = len(self) if stop is None else min(stop, len(self))
        if self.fits:
            frames = self.frames
            for at in range(start, stop, n):
                yield frames[at : min(at + n, stop)]
            return
        at, kept = 0, []
        for chunk in self._stream(n):
            low, high = max(start - at, 0), min(stop - at, len(chunk))
            at += len(chunk)
            if low < high:
                kept.append(chunk[low:high])
                ready = np.concatenate(kept) if len(kept) > 1 else kept[0]
                while len(ready) >= n:
                    yield ready[:n]
                    ready = ready[n:]
                kept = [ready] if len(ready) else []
            if at >= stop:
                break
        if kept:
            yield kept[0]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Some frames in ascending order, uint8 [n, H, W, 3], in one pass."""
        if self.fits:
            chosen: np.ndarray = self.frames[indices]
            return chosen
        picked, at = [], 0
        for chunk in self.chunks():
            here = indices[(indices >= at) & (indices < at + len(chunk))] - at
            picked.append(chunk[here])
            at += len(chunk)
        return np.concatenate(picked)

    def _stream(self, n: int) -> Iterator[np.ndarray]:
        """Decode from the first frame to the last, checking that every promised frame arrives."""
        assert self._source is not None
        info = self.info
        if self.opened is not None:
            yield from self.opened.stream(n)
            return
        seen = 0
        for chunk in _decode(self._source, info, n, bounded=not self.fits):
            if chunk.shape[1:3] != (info.height, info.width):
                raise VariableSize(
                    f"{self.name} has pictures of {chunk.shape[2]}x{chunk.shape[1]}, its header says "
                    f"{info.width}x{info.height}."
                )
            seen += len(chunk)
            yield chunk
        if seen != info.frames:
            raise Truncated(f"{self.name}: {seen} of {info.frames} frames could be decoded. Render the file again.")


def fill(whole: np.ndarray, chunks: Iterator[np.ndarray]) -> np.ndarray:
    """Write chunks of frames one after the other into `whole`, and return it."""
    at = 0
    for chunk in chunks:
        whole[at : at + len(chunk)] = chunk
        at += len(chunk)
    return whole


def decoder_name() -> str:
    """Name and version of the decoder in use, part of every plan."""
    from importlib.metadata import version

    if importlib.util.find_spec("decord"):
        return f"decord {version('decord')}"
    return f"PyAV {version('av')}"


def _decode(source: Path | bytes, info: VideoInfo, n: int, bounded: bool) -> Iterator[np.ndarray]:
    # decord keeps what it decodes ahead: 1200 frames of 1080p took it to 2.5 GB (PyAV: 0.6 GB, and no slower), so that
    # streams that must stay small go through PyAV. Its colour conversion stops at pictures of a few pixels.
    if not bounded and info.rotation == 0 and min(info.width, info.height) >= 16 and importlib.util.find_spec("decord"):
        reader = _decord(source)
        # decord also counts frames that an edit list hides, and then repeats the last one in their place.
        if reader is not None and len(reader) == info.frames:
            yield from _decord_chunks(reader, source, n)
            return
    yield from _pyav_chunks(source, info, n)


def _decord(source: Path | bytes) -> Any:
    """A decord reader, or None where its old FFmpeg cannot open the file (AV1, for example)."""
    import decord

    try:
        return decord.VideoReader(str(source) if isinstance(source, Path) else io.BytesIO(source), num_threads=2)
    except (decord.DECORDError, RuntimeError):
        return None


def _decord_chunks(reader: Any, source: Path | bytes, n: int) -> Iterator[np.ndarray]:
    import decord

    for at in range(0, len(reader), n):
        try:
            yield reader.get_batch(range(at, min(at + n, len(reader)))).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else "decoder error"
            raise Truncated(f"Frames from {at} on cannot be decoded: {first}") from None


def _pyav_chunks(source: Path | bytes, info: VideoInfo, n: int) -> Iterator[np.ndarray]:
    import av

    kept: list[np.ndarray] = []
    with open_container(source) as container:
        try:
            for frame in container.decode(video=0):
                picture = frame.to_ndarray(format="rgb24")
                kept.append(np.rot90(picture, info.rotation // 90) if info.rotation else picture)
                if kept[-1].shape[:2] != (info.height, info.width):
                    raise VariableSize(f"A frame is {frame.width}x{frame.height}, the clip {info.width}x{info.height}.")
                if len(kept) == n:
                    yield np.stack(kept)
                    kept = []
        except av.error.FFmpegError as error:
            raise Truncated(f"Frames cannot be decoded to the end: {error}.") from None
    if kept:
        yield np.stack(kept)
