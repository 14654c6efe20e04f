"""Damaged videos end typed: some random ones in both ways of decoding, and what the 5,000 of the benchmark found."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import float_audio, moving, write_mp4

from jwb_dh_v1 import Clip
from jwb_dh_v1.errors import BadAudio, NotAVideo, VariableSize

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


def fuzz(*arguments: str, timeout: float) -> dict[str, int]:
    command = [sys.executable, str(FUZZ), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
    assert " 0 crashes and hangs, 0 violations," in found.stdout, found.stdout
    return {outcome: int(times) for times, outcome in re.findall(r"^ *(\d+)  (\S.*)$", found.stdout, re.MULTILINE)}


@pytest.mark.skipif(sys.platform != "linux", reason="memory and open files are read from /proc")
@pytest.mark.timeout(600)
def test_sixty_damaged_videos() -> None:
    here = fuzz("--videos", "60", "--seed", "11", timeout=250)
    assert sum(here.values()) == 60
    assert 5 < here["frames"] < 40 and {"NotAVideo", "Truncated"} <= set(here)
    # The process that decodes says of each file what this one would.
    assert fuzz("--videos", "60", "--seed", "11", "--isolated", timeout=250) == here


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("isolated", [False, True])
def test_two_thousand_damaged_videos(isolated: bool) -> None:
    found = fuzz("--videos", "2000", "--seed", "12", *(["--isolated"] if isolated else []), timeout=1700)
    assert sum(found.values()) == 2000


def test_codecs_that_no_one_knows(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", moving(8, 64, 48), 8)
    whole = (tmp_path / "a.mp4").read_bytes()
    at = whole.rindex(b"avc1")  # in the table of samples; it is a brand, too, at the beginning
    with pytest.raises(NotAVideo, match="of a codec that FFmpeg does not know"):
        _ = Clip(whole[:at] + b"zzzz" + whole[at + 4 :]).info

    path = tmp_path / "a.mov"
    float_audio(path, np.zeros(16000))
    clip = Clip(path.read_bytes().replace(b"fl32", b"zzzz"))
    assert np.array_equal(clip.frames, Clip(path).frames)
    with pytest.raises(BadAudio, match="of a codec that FFmpeg does not know"):
        _ = clip.audio


def pictures(size: int, count: int) -> list[av.Packet]:
    """Grey MJPEG pictures."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 8)
    packets = []
    for number in range(count):
        grey = np.full((size, size, 3), 99, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuvj420p")
        frame.pts, frame.time_base = number, Fraction(1, 8)
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def test_pictures_that_change_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=8)
        stream.width = stream.height = 8
        stream.pix_fmt = "yuvj420p"
        for number, packet in enumerate(pictures(8, 3) + pictures(12, 3)):
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 8), stream
            out.mux(packet)
    clip = Clip(path)
    assert (clip.size, len(clip)) == ((8, 8), 6)
    with pytest.raises(VariableSize, match=r"is 12x12, the clip 8x8"):
        _ = clip.frames
