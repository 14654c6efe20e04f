"""Audio: decoding, the start offset, resampling, silence, bad samples; and what `write_mp4` promises."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jwb_dh_v1.errors import BadAudio, Unreadable
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.video import exact_fps, read_frames, replace_audio, write_mp4

RATE = 24000


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> Audio:
    """Noise below 3 kHz: it survives AAC, and its correlation has one sharp peak."""
    from scipy.signal import butter, sosfilt

    white = np.random.default_rng(seed).normal(0, 0.3, (channels, round(seconds * rate)))
    return Audio(np.clip(sosfilt(butter(6, 3000, fs=rate, output="sos"), white), -1, 1).astype(np.float32), rate)


def pictures(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    ramp = np.add.outer(np.arange(height) * 2, np.arange(width))
    return np.stack(
        [np.stack([(ramp + 9 * k) % 256, (ramp + 90) % 256, ramp % 200], -1) for k in range(frames)]
    ).astype(np.uint8)


def float_wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)  # 3: IEEE float
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lag(decoded: Audio, original: Audio) -> int:
    """Samples by which the original is found later in the decoded track."""
    from scipy.signal import correlate

    return int(np.argmax(correlate(decoded.samples[0], original.samples[0], "full"))) - original.samples.shape[1] + 1


def test_a_wav_comes_back_as_written():
    original = noise(0.5, channels=2)
    decoded = decode_audio(original.wav())
    assert decoded is not None
    assert (decoded.rate, decoded.start, decoded.samples.dtype) == (RATE, 0.0, np.float32)
    # Written in steps of 1/32767 and read as n/32768: half a step, and the two scales' difference at full scale.
    assert np.abs(decoded.samples - original.samples).max() <= 0.5 / 32767 + 1 / 32768


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_the_start_offset_survives_the_container(tmp_path: Path, start: float):
    speech = noise(0.6)
    write_mp4(tmp_path / "a.mp4", pictures(25), 25, Audio(speech.samples, RATE, start))
    decoded = decode_audio(tmp_path / "a.mp4")
    assert decoded is not None
    # MP4 edit lists count in milliseconds, so that is how exactly a delay can be kept.
    assert decoded.start + lag(decoded, speech) / RATE == pytest.approx(start, abs=1e-3)
    assert decoded.start > 0.15 if start else decoded.start == 0.0


def test_sound_before_the_first_frame_is_dropped(tmp_path: Path):
    speech = noise(0.6)
    write_mp4(tmp_path / "a.mp4", pictures(25), 25, Audio(speech.samples, RATE, -0.1))
    decoded = decode_audio(tmp_path / "a.mp4")
    assert decoded is not None
    assert lag(decoded, speech) == -2400  # 0.1 s at 24 kHz


def test_bytes_and_path_are_the_same(tmp_path: Path):
    write_mp4(tmp_path / "ä ö.mp4", pictures(), 25, noise(0.4, channels=2))
    by_path, by_bytes = decode_audio(str(tmp_path / "ä ö.mp4")), decode_audio((tmp_path / "ä ö.mp4").read_bytes())
    assert by_path is not None
    assert by_bytes is not None
    assert np.array_equal(by_path.samples, by_bytes.samples)
    assert by_path.samples.shape[0] == 2


def test_no_track_is_none(tmp_path: Path):
    write_mp4(tmp_path / "a.mp4", pictures(), 25)
    assert decode_audio(tmp_path / "a.mp4") is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(bad: float):
    samples = np.zeros(1600, np.float32)
    samples[700] = bad
    with pytest.raises(BadAudio, match="1 NaN or infinite samples of 1600"):
        decode_audio(float_wav(samples))


def test_overshoot_is_clipped():
    decoded = decode_audio(float_wav(np.array([0.5, 1.5, -2.0, 0.0] * 400)))
    assert decoded is not None
    assert decoded.samples[0, :4].tolist() == [0.5, 1.0, -1.0, 0.0]


def test_what_is_no_sound_is_refused(tmp_path: Path):
    with pytest.raises(Unreadable):
        decode_audio(tmp_path / "none.wav")
    with pytest.raises(BadAudio):
        decode_audio(b"no sound at all" * 50)
    with pytest.raises(BadAudio):
        decode_audio(b"")


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 48000])
def test_resampling_keeps_a_tone_and_its_length(rate: int):
    seconds = np.arange(rate) / rate
    tone = Audio(np.stack([np.sin(2 * np.pi * 440 * seconds)] * 2).astype(np.float32) * 0.5, rate)
    mono = tone.mono(16000)
    assert (mono.dtype, mono.shape) == (np.float32, (16000,))
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    # The filter's pass band ripples by under 0.5 %; its edges, where the tone is cut off, are left out.
    assert np.abs(mono - wanted)[200:-200].max() < 0.005


def test_resampling_suppresses_what_would_alias():
    seconds = np.arange(48000) / 48000
    high = Audio(np.sin(2 * np.pi * 12000 * seconds)[None].astype(np.float32), 48000)
    # SciPy's default Kaiser window (beta 5) stops by about 50 dB; 12 kHz would alias to 4 kHz.
    assert np.abs(high.mono(16000)[200:-200]).max() < 0.005


def test_silence_is_below_minus_60_dbfs():
    assert Audio(np.zeros((1, 0), np.float32), 16000).silent
    assert Audio(np.full((1, 100), 0.00099, np.float32), 16000).silent
    assert not Audio(np.full((2, 100), 0.00101, np.float32), 16000).silent


def test_cut_fills_up_with_silence():
    piece = noise(0.5).cut(0.4, 0.7)
    assert piece.samples.shape == (1, round(0.3 * RATE))
    assert not piece.samples[0, round(0.1 * RATE) :].any()
    assert piece.samples[0, : round(0.1 * RATE)].any()


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (2, 2), (1, 1)])
def test_sizes_are_kept_and_the_lossless_form_is_lossless(tmp_path: Path, height: int, width: int):
    frames = pictures(5, height, width)
    write_mp4(tmp_path / "a.mp4", frames, 25)
    assert read_frames(tmp_path / "a.mp4").shape == frames.shape
    write_mp4(tmp_path / "b.mp4", frames, 25, lossless=True)
    assert np.array_equal(read_frames(tmp_path / "b.mp4"), frames)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    import cv2

    # A soft texture that slides under grain: on such pictures libx264's AVX-512 code gives 2 to 4 files in 6.
    rng = np.random.default_rng(0)
    soft = cv2.GaussianBlur(rng.integers(0, 256, (300, 420, 3)).astype(np.float32), (0, 0), 3)
    soft = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX)
    grain = rng.normal(0, 4, (30, 240, 320, 3))
    frames = [
        np.clip(soft[2 * k : 240 + 2 * k, 3 * k : 320 + 3 * k] + grain[k], 0, 255).astype(np.uint8) for k in range(30)
    ]
    written = set()
    for k in range(6):
        ballast = np.full(rng.integers(1, 10**6), k, np.uint8)  # it depends on what the memory held before
        write_mp4(tmp_path / "a.mp4", frames, 29.97, noise(1.0), crf=38)
        written.add((tmp_path / "a.mp4").read_bytes())
        del ballast
    assert len(written) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("old")
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(tmp_path / "a.mp4", [], 25)
    with pytest.raises(ValueError, match="Frame 1 is 32x48"):
        write_mp4(tmp_path / "a.mp4", [pictures(1)[0], pictures(1)[0][:, :32]], 25)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.mp4", "old")]


def test_replacing_sound_keeps_the_pictures(tmp_path: Path):
    write_mp4(tmp_path / "a.mp4", pictures(25), 25, noise(1.0))
    replace_audio(tmp_path / "a.mp4", tmp_path / "b.mp4", noise(1.0, seed=7))
    assert np.array_equal(read_frames(tmp_path / "a.mp4"), read_frames(tmp_path / "b.mp4"))
    heard = decode_audio(tmp_path / "b.mp4")
    assert heard is not None
    assert lag(heard, noise(1.0, seed=7)) == 0


def test_rates_are_exact():
    assert exact_fps(29.97) == exact_fps(float(np.float32(30000 / 1001))) == Fraction(30000, 1001)
    assert exact_fps(23.976) == Fraction(24000, 1001)
    assert exact_fps(25.0) == 25
    assert exact_fps(float(np.float32(4500 / 377))) == Fraction(4500, 377)
