"""Whisper through the `faster-whisper` package (CTranslate2), an option for those who have it.

Settings are those of F5-TTS's WER (SWivid/F5-TTS, `src/f5_tts/eval/utils_eval.py`): beam 5, the language given, and the
package's defaults: no voice activity detection, each window conditioned on the last one's text. Only the fallback to
higher temperatures is off: it draws random numbers that `ctranslate2.set_random_seed` does not begin again, so that a
clip's words would depend on the clips before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage, MissingWeights, NotApplicable, SetupError
from jwb_dh_v1.hub import hub_errors, reason
from jwb_dh_v1.media.audio import is_silent
from jwb_dh_v1.networks.whisper import primary


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
        from jwb_dh_v1.files import sha256_of

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
