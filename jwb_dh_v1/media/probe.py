"""What a video file says about itself, read without decoding: size, rate, rotation, frames, and whether it is whole.

Passes over the packets (FFmpeg's demuxer through PyAV) find truncated files, variable frame rates, hidden frames and
missing audio before any decoder starts, because decoders hide these: decord, for one, repeats the last good frame.
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
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file,pipe,data"}


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


def open_container(source: Path | bytes, edits: bool = True) -> Any:
    """Open a file or its content with PyAV (the caller closes it).

    Args:
        source: the file.
        edits: honour edit lists, which hide stored frames (a player does); without, every stored packet is seen.

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
        return av.open(place, metadata_errors="replace", options=OPTIONS | ({} if edits else {"ignore_editlist": "1"}))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise NotAVideo(f"FFmpeg does not recognise {_name(source)} as a video ({why}).") from None


def _name(source: Path | bytes) -> str:
    return source.name if isinstance(source, Path) else f"a video of {len(source)} bytes"


def probe(source: Path | bytes) -> VideoInfo:
    """Read the facts of a video and check that the file is whole.

    Raises:
        Unreadable, NotAVideo: see `open_container`; also a file without a video stream, or of an unknown codec.
        Truncated: fewer or shorter packets than the header promises.
        NoFrames: a video stream without a single packet.

    """
    _check_whole(source)
    with open_container(source) as container:
        stream = container.streams.video[0]
        shown = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if not shown:
            raise NoFrames(f"{_name(source)} has a video stream without frames.")
        rate = stream.average_rate or stream.guessed_rate
        times = np.sort(np.asarray([pts for pts in shown if pts is not None], dtype=np.int64))
        gaps = np.diff(times)
        # Half a frame of jitter is rounding of the container's clock; a frame more or less is another rate.
        even = bool(len(gaps) < 2 or np.all(np.abs(gaps - np.median(gaps)) <= 0.5 * np.median(gaps)))
        rotation = _rotation(container, stream)
        width, height = int(stream.codec_context.width), int(stream.codec_context.height)
        if rotation in {90, 270}:
            width, height = height, width
        fps, has_audio = float(rate) if rate else 0.0, bool(container.streams.audio)
        return VideoInfo(width, height, fps, len(shown), rotation, has_audio, even)


def _check_whole(source: Path | bytes) -> None:
    """Compare the packets that are there with those that the header promises."""
    import av

    with open_container(source, edits=False) as container:
        if not container.streams.video:
            raise NotAVideo(f"{_name(source)} has no video stream.")
        if container.streams.video[0].codec_context is None:
            raise NotAVideo(f"{_name(source)} has a video stream of a codec that FFmpeg does not know.")
        streams = [s for s in container.streams if s.type in {"video", "audio"}]
        counts = dict.fromkeys((s.index for s in streams), 0)
        broken = False
        try:
            for packet in container.demux(streams):
                counts[packet.stream.index] += packet.size > 0  # the demuxer's flush packets are empty
                broken |= bool(packet.is_corrupt)
        except av.error.FFmpegError as error:
            raise Truncated(f"{_name(source)} breaks off after {max(counts.values())} packets: {error}.") from None
        for stream in streams:
            # Raw PCM is counted in samples by the header but read in blocks: only damaged packets tell there.
            known = stream.codec_context
            promised = 0 if known is None or known.name.startswith("pcm_") else stream.frames
            if broken or counts[stream.index] < promised:
                raise Truncated(
                    f"{_name(source)} is cut: its header promises {promised} {stream.type} packets, "
                    f"{counts[stream.index]} are whole. Copy or render the file again."
                )


def _rotation(container: Any, stream: Any) -> int:
    """The display rotation of the first frame in degrees counter-clockwise; needs one decoded frame."""
    import av

    try:
        container.seek(0)
        for frame in container.decode(stream):
            return int(round(frame.rotation / 90) * 90) % 360
    except av.error.FFmpegError as error:
        raise NoFrames(f"The first frame cannot be decoded: {error}.") from None
    raise NoFrames("The video stream holds no frame that can be decoded.")
