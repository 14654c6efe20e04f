"""What a judge is asked and what it answers: the small interface that every backend implements.

A backend makes one call and nothing else: no retries, no parsing, no log. `asking` retries, checks and logs, so that
all backends behave alike and a new one is one class with `ask`.

Recordings are sent as the judge hears them (`prepare`): mono, 16 kHz, 16 bit, brought to one loudness, and hashed.
Loudness is the integrated loudness of ITU-R BS.1770-4, measured by `pyloudnorm` on the mono signal at 16 kHz, because
that is what the judge hears. Recordings shorter than one gating block (0.4 s) are measured as one block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from jwb_dh_v1.errors import BadAudio, MissingPackage
from jwb_dh_v1.media.audio import Audio, is_silent

RATE = 16000
BLOCK_SECONDS = 0.4
TARGET_LUFS = -23.0


@dataclass(frozen=True)
class Speech:
    """A recording, ready to be sent.

    Attributes:
        wav: a WAV file, mono, 16 kHz, 16 bit.
        sha256: of `wav`.
        seconds: its length.
        lufs: loudness before the gain in LUFS; None if `silent`.
        gain: what was applied, in dB.
        limited: the gain that the target asks for was cut so that no sample passes full scale; the recording is
            quieter than the target.
        silent: nothing can be heard: RMS below -60 dBFS, or below the absolute gate of BS.1770 (-70 LUFS).

    """

    wav: bytes
    sha256: str
    seconds: float
    lufs: float | None
    gain: float
    limited: bool
    silent: bool


def prepare(audio: Audio, loudness: float | None = TARGET_LUFS) -> Speech:
    """Make a recording ready.

    The gain is rounded to 0.01 dB, so that the bytes do not depend on the last bit of a sum. The same samples give the
    same bytes.

    Args:
        audio: any rate and number of channels; channels are averaged.
        loudness: target in LUFS; None leaves the level as it is (profile `emergent`).

    Raises:
        BadAudio: NaN or infinite samples.
        MissingPackage: pyloudnorm.

    """
    if not np.isfinite(audio.samples).all():
        raise BadAudio("The audio contains NaN or infinite samples.")
    heard = audio.mono(RATE)
    lufs = None if is_silent(heard) else integrated_loudness(heard)
    gain, limited = 0.0, False
    if lufs is not None and loudness is not None:
        wanted = round(loudness - lufs, 2)
        room = math.floor(-2000 * math.log10(float(np.abs(heard).max()))) / 100  # dB up to full scale, rounded down
        gain, limited = min(wanted, room), wanted > room
    wav = Audio((heard.astype(np.float64) * 10 ** (gain / 20))[None], RATE).wav()
    return Speech(wav, hashlib.sha256(wav).hexdigest(), len(heard) / RATE, lufs, gain, limited, lufs is None)


def integrated_loudness(heard: np.ndarray) -> float | None:
    """Loudness in LUFS of a mono signal [n] at 16 kHz; None below the absolute gate.

    Raises:
        MissingPackage: pyloudnorm.

    """
    try:
        import pyloudnorm
    except ImportError as error:
        raise MissingPackage('Loudness needs pyloudnorm: pip install "jwb-dh-v1[judge]".') from error
    block = min(BLOCK_SECONDS, math.nextafter(len(heard) / RATE, 0))
    # "DeMan": the filters of the recommendation itself; pyloudnorm's default rounds their parameters (0.05 LU).
    meter = pyloudnorm.Meter(RATE, filter_class="DeMan", block_size=block)
    value = float(meter.integrated_loudness(heard.astype(np.float64)))
    return value if math.isfinite(value) else None


Winner = Literal["1", "2", "tie"]
Finish = Literal["stop", "truncated", "blocked"]
Status = Literal["ok", "parse_error", "out_of_range", "blocked", "truncated", "api_error"]


@dataclass(frozen=True)
class JudgePrompt:
    """One question: a system text, then texts and WAV files in the order in which they are heard.

    Attributes:
        system: the judge's role.
        parts: texts (str) and sounds (bytes: WAV, mono, 16 kHz, 16 bit).
        schema: JSON schema of the answer, for backends that can hold the model to it.
        seconds: length of all sounds together, for the estimate of cost.

    """

    system: str
    parts: tuple[str | bytes, ...]
    schema: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the server counted them; zeros where it does not say."""

    audio_in: int = 0
    text_in: int = 0
    out: int = 0
    thoughts: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Answer:
    """What came back from one call.

    Attributes:
        text: as the model wrote it; may be empty.
        model_served: the model that the server says it ran; empty where it does not say.
        finish: `stop`, `truncated` (the limit of tokens) or `blocked` (a filter), by the server's own word.
        reason: the server's word for `finish`.
        usage: tokens.

    """

    text: str
    model_served: str
    finish: Finish = "stop"
    reason: str = ""
    usage: Usage = field(default_factory=Usage)


class CallFailed(Exception):
    """A call gave no answer.

    Attributes:
        retry: whether the same call may work later (429, 5xx, timeouts, broken connections).
        after: seconds that the server asks to wait; None if it does not say.

    The message holds no key: backends make it of the status code and the server's own text, cut to 300 characters,
    with the key they know replaced.
    """

    def __init__(self, message: str, *, retry: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.retry = retry
        self.after = after


class Backend(Protocol):
    """One way to ask a judge. `ask` is called from several threads at once.

    Attributes:
        name: `gemini`, `openai`, `local` ...
        model: the id that is asked for.
        settings: everything else that can change an answer (temperature, thinking, API version); JSON values.

    """

    name: str
    model: str
    settings: Mapping[str, Any]

    def ask(self, prompt: JudgePrompt) -> Answer:
        """One call.

        Raises:
            CallFailed: no answer; says whether to try again.
            SetupError: it can never work (no key, unknown or retired model: the message names the setting).

        """

    def close(self) -> None:
        """Let go of connections."""
