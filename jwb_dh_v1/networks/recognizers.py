"""Speech recognisers by name, for callers that let the user choose one; and Whisper through `faster-whisper`.

Settings of the latter are those of F5-TTS's WER (SWivid/F5-TTS, `src/f5_tts/eval/utils_eval.py`): beam 5, the language
given, and the package's defaults: no voice activity detection, each window conditioned on the last one's text. Only the
fallback to higher temperatures is off: it draws random numbers that `ctranslate2.set_random_seed` does not begin again,
so that a clip's words would depend on the clips before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage, MissingWeights, NotApplicable, SetupError
from jwb_dh_v1.files import sha256_of
from jwb_dh_v1.hub import hub_errors, reason
from jwb_dh_v1.media.audio import is_silent
from jwb_dh_v1.networks import whisper, whisper_large
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve_all
from jwb_dh_v1.networks.whisper import primary

Hear = Callable[[np.ndarray, str], str]
NAMES = ("whisper-large-v3", "whisper-tiny.en", "faster-whisper:MODEL")


@dataclass(frozen=True)
class Recognizer:
    """Something that hears words.

    Attributes:
        name: what it is; part of a result.
        transcribe: float32 [n] samples at 16 kHz and their language (ISO 639-1) -> the words as they are written, ""
            for silence. It raises NotApplicable for a language that it does not know.

    """

    name: str
    transcribe: Hear


def recognizer(
    asr: str | Hear, device: str = "auto", weights: Mapping[str, Path] | None = None, other: bool = False
) -> Recognizer:
    """A recognizer, loaded.

    Args:
        asr: `whisper-large-v3` (as `standard/1` hears), `whisper-tiny.en` (as `lite/1` does; English only),
            `faster-whisper:MODEL` (a folder, a size such as `large-v3`, or a Hub repository), or a function of samples
            and language, which is known by its own name.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        weights: the user's own files by name.
        other: take a given file even if its content is not the table's.

    Raises:
        SetupError: no recognizer has that name, or its package, weights or device are missing.

    """
    if callable(asr):
        return Recognizer(getattr(asr, "__qualname__", type(asr).__qualname__), asr)
    kind, _, model = asr.partition(":")
    if kind == "faster-whisper" and model:
        faster = FasterWhisper(model, device)
        return Recognizer(faster.name, faster.transcribe)
    if asr not in NAMES[:2]:
        raise SetupError(f"There is no recogniser {asr!r}; there are {', '.join(NAMES)}.")
    place = str(NetworkPool(device=device).device)
    if asr == whisper.NAME:
        return Recognizer(asr, whisper.load_tiny_en(resolve_all(whisper.FILES, weights, other), place).transcribe)
    large = whisper_large.load_large(resolve_all(whisper_large.FILES, weights, other), place)
    return Recognizer(asr, large.transcribe)


class FasterWhisper:
    """Hears speech in a given language, with beam search at temperature 0.

    Args:
        model: a folder with `model.bin`, `config.json`, `tokenizer.json` and a vocabulary, a size (`large-v3`), or the
            name of a Hub repository. The latter two are downloaded into the Hub's cache.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        compute_type: of CTranslate2: `default` keeps what the file holds where the device can (fp16 becomes fp32 on a
            CPU), `float16`, `int8` and others convert.

    Attributes:
        name: `faster-whisper:MODEL@HASH`, with the first 12 digits of the sha256 of `model.bin`, and the compute type
            if one was asked for.

    Raises:
        MissingPackage: `faster-whisper` is not installed.
        MissingWeights: the model is no folder and could not be downloaded.
        SetupError: the folder holds no such model, or the device or compute type is not there.

    """

    def __init__(self, model: str | Path, device: str = "auto", compute_type: str = "default") -> None:
        try:
            from faster_whisper import WhisperModel
            from faster_whisper.utils import download_model
        except ImportError:
            raise MissingPackage('faster-whisper is needed: pip install "jwb-dh-v1[asr]".') from None
        folder = Path(model)
        if not folder.is_dir():
            try:
                folder = Path(download_model(str(model)))
            except hub_errors(OSError, ValueError) as error:
                raise MissingWeights(f"{model} is no folder and could not be downloaded: {reason(error)}.") from error
        kind, _, index = device.partition(":")
        try:
            self.model: Any = WhisperModel(
                str(folder), device=kind, device_index=int(index or 0), compute_type=compute_type, local_files_only=True
            )
            version = sha256_of(folder / "model.bin")[:12]
        except (OSError, ValueError, RuntimeError) as error:
            raise SetupError(f"faster-whisper cannot use {folder}: {reason(error)}.") from error
        kept = "" if compute_type == "default" else f" {compute_type}"
        self.name = f"faster-whisper:{Path(model).name if Path(model).is_dir() else model}@{version}{kept}"

    def transcribe(self, samples: np.ndarray, language: str) -> str:
        """The words of float32 [n] samples at 16 kHz, as Whisper writes them; "" for silence (below -60 dBFS).

        Raises:
            NotApplicable: the model does not know the language.

        """
        if primary(language) not in self.model.supported_languages:
            raise NotApplicable(f"{self.name} does not hear {language!r}")
        if is_silent(samples):
            return ""
        found, _ = self.model.transcribe(samples, language=primary(language), beam_size=5, temperature=0.0)
        return " ".join(segment.text.strip() for segment in found).strip()
