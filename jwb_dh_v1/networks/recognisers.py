"""Speech recognisers by name, for callers that let the user choose one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jwb_dh_v1.errors import SetupError

Hear = Callable[[np.ndarray, str], str]
NAMES = ("whisper-large-v3", "whisper-tiny.en", "faster-whisper:MODEL")


@dataclass(frozen=True)
class Recogniser:
    """Something that hears words.

    Attributes:
        name: what it is; part of a result.
        transcribe: float32 [n] samples at 16 kHz and their language (ISO 639-1) -> the words as they are written, ""
            for silence. It raises NotApplicable for a language that it does not know.

    """

    name: str
    transcribe: Hear


def recogniser(
    asr: str | Hear, device: str = "auto", weights: Mapping[str, Path] | None = None, other: bool = False
) -> Recogniser:
    """A recogniser, loaded.

    Args:
        asr: `whisper-large-v3` (as `standard/1` hears), `whisper-tiny.en` (as `lite/1` does; English only),
            `faster-whisper:MODEL` (a folder, a size such as `large-v3`, or a Hub repository), or a function of samples
            and language, which is known by its own name.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        weights: the user's own files by name.
        other: take a given file even if its content is not the table's.

    Raises:
        SetupError: no recogniser has that name, or its package, weights or device are missing.

    """
    from jwb_dh_v1.networks import whisper, whisper_large
    from jwb_dh_v1.networks.pool import NetworkPool
    from jwb_dh_v1.networks.weights import resolve_all

    if callable(asr):
        return Recogniser(getattr(asr, "__qualname__", type(asr).__qualname__), asr)
    kind, _, model = asr.partition(":")
    if kind == "faster-whisper" and model:
        from jwb_dh_v1.networks.faster_whisper import FasterWhisper

        faster = FasterWhisper(model, device)
        return Recogniser(faster.name, faster.transcribe)
    if asr not in NAMES[:2]:
        raise SetupError(f"There is no recogniser {asr!r}; there are {', '.join(NAMES)}.")
    place = str(NetworkPool(device=device).device)
    if asr == whisper.NAME:
        return Recogniser(asr, whisper.load_tiny_en(resolve_all(whisper.FILES, weights, other), place).transcribe)
    large = whisper_large.load_large(resolve_all(whisper_large.FILES, weights, other), place)
    return Recogniser(asr, large.transcribe)
