"""One audio track: decoding (PyAV), resampling, silence. What the speech metrics and the teaser hear.

Definitions: full scale is 1.0, so 0 dBFS is an RMS of 1; resampling is polyphase with SciPy's Kaiser-windowed FIR,
never by FFT, which rings at the edges of a clip (see seed-tts-eval's use of `scipy.signal.resample`).
"""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jwb_dh_v1.errors import BadAudio, Unreadable
from jwb_dh_v1.media.probe import FORMATS

SILENCE_DBFS = -60.0
# Only formats that hold their own sound (see probe.py). Edit lists are honoured, unlike there: they hold the start
# offset of the track and the encoder's priming.
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file,pipe,data"}


@dataclass(frozen=True)
class Audio:
    """Decoded sound.

    Attributes:
        samples: float32 [channels, n] in [-1, 1].
        rate: samples per second and channel.
        start: time of the first sample in seconds on the container's clock, the clock of the video's time stamps.

    """

    samples: np.ndarray
    rate: int
    start: float = 0.0

    @property
    def duration(self) -> float:
        """Length in seconds, the start offset not counted."""
        return int(self.samples.shape[1]) / self.rate

    @property
    def silent(self) -> bool:
        """Whether the RMS over all channels is below -60 dBFS, or there is no sample at all."""
        return is_silent(self.samples)

    def mono(self, rate: int = 16000) -> np.ndarray:
        """The mean of the channels at another rate, float32 [ceil(n * rate / self.rate)].

        `start` is not honoured: index 0 is the first sample of the track, wherever it lies on the container's clock.
        """
        mixed: np.ndarray = self.samples.mean(axis=0, dtype=np.float32)
        if rate == self.rate or mixed.size == 0:
            return mixed
        from scipy.signal import resample_poly

        common = math.gcd(rate, self.rate)
        resampled: np.ndarray = resample_poly(mixed, rate // common, self.rate // common)
        limited: np.ndarray = np.clip(resampled, -1.0, 1.0).astype(np.float32)
        return limited

    def cut(self, begin: float, end: float) -> Audio:
        """The samples from `begin` to `end`, seconds after the first sample, as a track that starts at 0.

        What lies after the track's end is filled with silence, so that the result always lasts `end - begin`.
        """
        first, last = round(begin * self.rate), round(end * self.rate)
        piece = np.zeros((self.samples.shape[0], last - first), np.float32)
        inside = self.samples[:, first:last]
        piece[:, : inside.shape[1]] = inside
        return Audio(piece, self.rate)

    def wav(self) -> bytes:
        """A 16-bit PCM WAV file; `start` is lost."""
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as handle:
            handle.setnchannels(self.samples.shape[0])
            handle.setsampwidth(2)
            handle.setframerate(self.rate)
            handle.writeframes(np.rint(self.samples.T * 32767).astype("<i2").tobytes())
        return buffer.getvalue()


def is_silent(samples: np.ndarray) -> bool:
    """Whether the RMS of samples in [-1, 1] is below -60 dBFS, or there is no sample."""
    if samples.size == 0:
        return True
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < 10 ** (SILENCE_DBFS / 20)


def decode_audio(source: str | Path | bytes) -> Audio | None:
    """Decode the first audio track of a file or of a file's bytes.

    Encoder priming is dropped as the container says; gaps within the track are not filled. Samples beyond full scale
    (lossy codecs overshoot) are clipped, as a player does.

    Returns:
        None where there is no audio track, or one without any packet.

    Raises:
        Unreadable: the file cannot be opened.
        BadAudio: FFmpeg does not know the file, the track cannot be decoded, or it holds NaN or infinite samples.

    """
    import av

    name = "the given bytes" if isinstance(source, bytes) else str(source)
    try:
        handle = io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")  # noqa: SIM115
    except OSError as error:
        raise Unreadable(f"{name} cannot be opened: {error.strerror or error}.") from error
    with handle:
        try:
            with av.open(handle, metadata_errors="replace", options=OPTIONS) as container:
                if not container.streams.audio:
                    return None
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise BadAudio(f"The audio of {name} is of a codec that FFmpeg does not know.")
                # Planar floats in the track's own layout and rate; NaN passes through swresample unchanged.
                convert = av.AudioResampler(format="fltp")
                blocks: list[np.ndarray] = []
                start: float | None = None
                packets = 0
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    for frame in packet.decode():
                        if start is None:
                            start = float(frame.time or 0.0)
                        blocks += [block.to_ndarray() for block in convert.resample(frame)]
                rate = int(stream.codec_context.sample_rate)
        except (av.FFmpegError, ValueError) as error:
            raise BadAudio(f"The audio of {name} cannot be decoded: {error}.") from error
    if not packets:
        return None
    if not blocks or start is None:
        raise BadAudio(f"The audio track of {name} holds no sample that can be decoded.")
    samples = np.concatenate(blocks, axis=1).astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise BadAudio(f"The audio of {name} holds {bad} NaN or infinite samples of {samples.size}.")
    return Audio(np.clip(samples, -1.0, 1.0), rate, start)
