"""Small video files with known faults, made with PyAV and a little byte surgery."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.video import write_mp4


def moving(frames=30, width=320, height=240, seed=0, speed=3):
    """uint8 [T, H, W, 3]: a coarse texture that slides by `speed` pixels a frame."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 8), -(-(width + speed * frames) // 8), 3))
    wide = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([wide[:height, t * speed : t * speed + width] for t in range(frames)])


def tone(seconds=1.0, rate=16000):
    """A 440 Hz tone at half of full scale."""
    t = np.arange(round(seconds * rate)) / rate
    return Audio((0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None], rate)


def faststart(path, frames=30):
    """An MP4 whose header comes first, so that a cut file can still be opened."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for picture in moving(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def rotated(path, source):
    """A copy of an MP4 whose track header asks for a quarter turn clockwise."""
    content = bytearray(Path(source).read_bytes())
    at = content.index(b"tkhd") + 4
    matrix = at + 4 + (20 if content[at] == 0 else 32) + 8 + 8  # version, times, ids, duration; reserved, layer, volume
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    Path(path).write_bytes(content)
    return path


def variable_rate(path, frames=30):
    """Every tenth frame lasts three times as long."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        at = 0
        for number, picture in enumerate(moving(frames)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 25)
            out.mux(stream.encode(frame))
            at += 3 if number % 10 == 9 else 1
        out.mux(stream.encode(None))
    return path


def float_audio(path, samples, frames=30):
    """A MOV with raw float sound, which can hold NaN."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        sound = out.add_stream("pcm_f32le", rate=16000, layout="mono")
        for picture in moving(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def without_frames(path):
    """A container with a video stream that holds no packet, beside sound that does."""
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


__all__ = ["faststart", "float_audio", "moving", "rotated", "tone", "variable_rate", "without_frames", "write_mp4"]
