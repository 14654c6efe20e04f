"""Writing MP4 files that are the same bytes each time: the teaser, its stand-in systems and the tests' clips.

H.264 by libx264 and AAC, both inside PyAV's wheels, so no system FFmpeg is needed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jwb_dh_v1.media.audio import Audio

AAC_FRAME = 1024
SMPTE170M, LIMITED = 6, 1  # AVCOL_SPC_SMPTE170M, AVCOL_RANGE_MPEG: what swscale makes of RGB unless told otherwise

# More than one thread changes libx264's rate control and with it the bytes. Its AVX-512 code gives other bytes from
# run to run on small pictures (seen with PyAV 18.1: one file in three), and AVX2 others than C. SSE2 is a fast path
# that repeats itself on one machine, but it divides by `rcpps`, which processors round differently (one clip in ten).
REPEATABLE = {"threads": "1"}
if platform.machine().lower() in {"x86_64", "amd64"}:
    REPEATABLE["x264-params"] = "asm=SSE2"
PORTABLE = {"threads": "1", "x264-params": "asm=0"}  # libx264's C code: no instruction set, no approximation


@contextmanager
def portable_code() -> Iterator[None]:
    """Hold FFmpeg's codecs that are opened within to their C code, whatever the processor can do.

    Its AAC rounds otherwise with FMA than without. Pictures need none of this: the code of swscale for SSSE3 to AVX-512
    makes the same colours everywhere (which are not those of its C code). Where PyAV's libraries do not show
    `av_force_cpu_flags` (Windows), the processor chooses, and bytes may differ from one to another.
    """
    import av

    force = getattr(ctypes.CDLL(av._core.__file__), "av_force_cpu_flags", lambda flags: None)
    force(0)
    try:
        yield
    finally:
        force(-1)


@contextmanager
def _new_mp4(path: Path) -> Iterator[Any]:
    """An output container that takes its name only when all went well; readers never see half a file."""
    import av

    partial = path.with_name(f".{os.getpid()}-{threading.get_ident()}.part")  # short: `path.name` may be at the limit
    try:
        # bitexact leaves out the muxer's version and the dates; faststart puts the index first, as the web wants it.
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(partial), "w", format="mp4", options=options) as container:
            yield container
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Track:
    """The audio of a new file, written in step with the video so that the two are interleaved."""

    def __init__(self, container: Any, audio: Audio, portable: bool) -> None:
        channels = audio.samples.shape[0]
        if channels not in (1, 2):
            raise ValueError(f"Audio has {channels} channels; MP4 files are written with 1 or 2.")
        skip = max(0, -round(audio.start * audio.rate))  # the video starts at 0, so what came before it is dropped
        self.container, self.rate = container, audio.rate
        self.samples = np.ascontiguousarray(audio.samples[:, skip:], np.float32)
        self.layout = "mono" if channels == 1 else "stereo"
        self.offset = max(0, round(audio.start * audio.rate))
        self.done = 0
        self.stream = container.add_stream("aac", rate=audio.rate, layout=self.layout)
        self.stream.bit_rate = 64000 * channels
        self.stream.codec_context.thread_count = 1
        with portable_code() if portable else nullcontext():
            self.stream.codec_context.open()

    def write_until(self, seconds: float) -> None:
        import av

        while self.done < self.samples.shape[1] and (self.offset + self.done) / self.rate < seconds:
            block = np.ascontiguousarray(self.samples[:, self.done : self.done + AAC_FRAME])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=self.layout)
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts = self.offset + self.done
            self.container.mux(self.stream.encode(frame))
            self.done += block.shape[1]

    def finish(self) -> None:
        self.write_until(float("inf"))
        self.container.mux(self.stream.encode(None))


def exact_fps(fps: Fraction | float) -> Fraction:
    """The frame rate as a fraction; a float within 0.001 of an NTSC rate is that rate (23.976 -> 24000/1001)."""
    if isinstance(fps, Fraction):
        return fps
    ntsc = Fraction(round(fps) * 1000, 1001)
    return ntsc if abs(float(ntsc) - fps) < 1e-3 else Fraction(fps).limit_denominator(1001)


def write_mp4(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    audio: Audio | None = None,
    *,
    crf: int = 16,
    preset: str = "medium",
    lossless: bool = False,
    portable: bool = False,
) -> None:
    """Write an MP4; the same frames and samples give the same bytes on the same PyAV and processor.

    Args:
        path: replaced in one step when the file is complete.
        frames: uint8 [H, W, 3] RGB, all of one size, at least one. They are consumed one by one.
        fps: frames per second; frame k is shown at k / fps.
        audio: written as AAC, 64 kbit/s a channel; its `start` is kept (a delay against the first frame).
        crf: libx264's quality, 0..51, smaller is better; 16 cannot be told from the source by eye.
        preset: libx264's speed.
        lossless: H.264 in RGB at quantiser 0: decoded frames equal the given ones.
        portable: the same bytes on every x86-64 processor, too, at a third of the speed.

    Even sizes are written as yuv420p; odd ones as yuv444p, which keeps the exact size.

    Raises:
        ValueError: no frame, frames of several sizes or of another type, or audio of more than two channels.

    """
    import av

    rate = exact_fps(fps)
    with _new_mp4(Path(path)) as container:
        stream: Any = None
        track: _Track | None = None
        for count, picture in enumerate(frames):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"Frame {count} is {picture.dtype} {picture.shape}, expected uint8 [H, W, 3].")
            height, width = picture.shape[:2]
            if stream is None:
                stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
                stream.width, stream.height = width, height
                even = width % 2 == 0 and height % 2 == 0
                stream.pix_fmt = "rgb24" if lossless else "yuv420p" if even else "yuv444p"
                if not lossless:
                    stream.codec_context.colorspace, stream.codec_context.color_range = SMPTE170M, LIMITED
                quality = {"qp": "0"} if lossless else {"crf": str(crf)}
                stream.options = {**quality, "preset": preset, **(PORTABLE if portable else REPEATABLE)}
                stream.codec_context.thread_count = 1
                track = _Track(container, audio, portable) if audio is not None else None
            elif (height, width) != (stream.height, stream.width):
                raise ValueError(f"Frame {count} is {width}x{height}, the first was {stream.width}x{stream.height}.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = count, 1 / rate
            container.mux(stream.encode(frame))
            if track is not None:
                track.write_until((count + 1) / float(rate))
        if stream is None:
            raise ValueError(f"{path}: a video needs at least one frame.")
        container.mux(stream.encode(None))
        if track is not None:
            track.finish()


def replace_audio(source: str | Path, path: str | Path, audio: Audio, *, portable: bool = False) -> None:
    """Copy the video of an MP4 packet by packet (the pictures stay the same to the bit) and give it other sound.

    Args:
        source: the file whose first video track is kept.
        path: the file to write, in one step.
        audio: the new sound, at its own `start`.
        portable: the same bytes on every x86-64 processor.

    """
    import av

    with av.open(str(source)) as original, _new_mp4(Path(path)) as container:
        video = original.streams.video[0]
        stream = container.add_stream_from_template(video)
        track = _Track(container, audio, portable)
        for packet in original.demux(video):
            if packet.dts is None:  # the demuxer's flush mark
                continue
            packet.stream = stream
            container.mux(packet)
            track.write_until(float(packet.dts * packet.time_base))
        track.finish()


def read_frames(source: str | Path) -> np.ndarray:
    """All frames of a short video through PyAV, uint8 [T, H, W, 3] RGB, rotation ignored. For clips of known origin."""
    import av

    with av.open(str(source)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
