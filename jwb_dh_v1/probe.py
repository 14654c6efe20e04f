"""What a video file says about itself, read without decoding: size, rate, rotation, frames, and whether it is whole.

One pass over the packets (FFmpeg's demuxer through PyAV) finds truncated files, variable frame rates and missing audio
before any decoder starts, because decoders hide these: decord, for one, repeats the last good frame.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import NoFrames, NotAVideo, Truncated, Unreadable

# Formats that hold their own pictures. Playlists (hls, dash, concat) may name other files and hosts: never opened.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,ogg,asf,wav,flac,mp3,aac"
# Edit lists are ignored, as decord ignores them: every stored frame counts, and stored packets can be counted.
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file,pipe,data", "ignore_editlist": "1"}


@dataclass(frozen=True)
class VideoInfo:
    """Facts of one video stream.

    Attributes:
        width, height: of the displayed picture in pixels, after rotation.
        fps: average frame rate in frames per second.
        frames: number of frames.
        rotation: degrees counter-clockwise by which decoded frames are turned for display: 0, 90, 180 or 270.
        has_audio: whether there is an audio stream.
        even: whether frames are evenly spaced in time.

    """

    width: int
    height: int
    fps: float
    frames: int
    rotation: int
    has_audio: bool
    even: bool


def open_container(source: Path | bytes) -> Any:
    """Open a file or its content with PyAV (the caller closes it).

    Raises:
        Unreadable: missing, a folder, no permission, a name too long, a loop of links.
        NotAVideo: empty, or no format that FFmpeg knows and that may be opened.

    """
    import av

    if isinstance(source, Path):
        try:
            size = source.stat().st_size
            if source.is_dir():
                raise Unreadable(f"{source} is a folder, expected a video file.")
            with source.open("rb"):
                pass
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            reason = getattr(error, "strerror", None) or error
            raise Unreadable(f"{str(source)[:200]} cannot be opened: {reason}.") from None
    else:
        size = len(source)
    if size == 0:
        raise NotAVideo(f"{_name(source)} is empty (0 bytes).")
    try:
        # A str path lets FFmpeg seek by itself; the prefix keeps names such as "concat:a|b" from meaning a protocol.
        place = f"file:{source}" if isinstance(source, Path) else io.BytesIO(source)
        return av.open(place, metadata_errors="replace", options=OPTIONS)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise NotAVideo(f"{_name(source)} is no video that FFmpeg can open: {error}.") from None


def _name(source: Path | bytes) -> str:
    return source.name if isinstance(source, Path) else f"a video of {len(source)} bytes"


def probe(source: Path | bytes) -> VideoInfo:
    """Read the facts of a video and check that the file is whole.

    Raises:
        Unreadable, NotAVideo: see `open_container`; also a file without a video stream.
        Truncated: fewer or shorter packets than the header promises.
        NoFrames: a video stream without a single packet.

    """
    import av

    with open_container(source) as container:
        if not container.streams.video:
            raise NotAVideo(f"{_name(source)} has no video stream.")
        stream = container.streams.video[0]
        counts = dict.fromkeys((s.index for s in container.streams if s.type in {"video", "audio"}), 0)
        times: list[int] = []
        broken = False
        try:
            for packet in container.demux([s for s in container.streams if s.index in counts]):
                if packet.size == 0:
                    continue  # the demuxer's flush packet
                counts[packet.stream.index] += 1
                broken |= bool(packet.is_corrupt)
                if packet.stream.index == stream.index and packet.pts is not None:
                    times.append(packet.pts)
        except av.error.FFmpegError as error:
            raise Truncated(f"{_name(source)} breaks off after {counts[stream.index]} frames: {error}.") from None
        for part in container.streams:
            # Raw PCM is counted in samples by the header but read in blocks: only damaged packets tell there.
            counted = part.index in counts and not part.codec_context.name.startswith("pcm_")
            promised = part.frames if counted else 0
            if broken or counts.get(part.index, promised) < promised:
                raise Truncated(
                    f"{_name(source)} is cut: its header promises {promised} {part.type} packets, "
                    f"{counts.get(part.index, 0)} are whole. Copy or render the file again."
                )
        if counts[stream.index] == 0:
            raise NoFrames(f"{_name(source)} has a video stream without frames.")
        rate = stream.average_rate or stream.guessed_rate
        gaps = np.diff(np.sort(np.asarray(times, dtype=np.int64)))
        # Half a frame of jitter is rounding of the container's clock; a frame more or less is another rate.
        even = bool(len(gaps) < 2 or np.all(np.abs(gaps - np.median(gaps)) <= 0.5 * np.median(gaps)))
        rotation = _rotation(container, stream)
        width, height = int(stream.codec_context.width), int(stream.codec_context.height)
        if rotation in {90, 270}:
            width, height = height, width
        fps, has_audio = float(rate) if rate else 0.0, bool(container.streams.audio)
        return VideoInfo(width, height, fps, counts[stream.index], rotation, has_audio, even)


def _rotation(container: Any, stream: Any) -> int:
    """The display rotation of the first frame in degrees counter-clockwise; needs one decoded frame."""
    import av

    container.seek(0)
    try:
        for frame in container.decode(stream):
            return int(round(frame.rotation / 90) * 90) % 360
    except av.error.FFmpegError as error:
        raise NoFrames(f"The first frame cannot be decoded: {error}.") from None
    raise NoFrames("The video stream holds no frame that can be decoded.")
