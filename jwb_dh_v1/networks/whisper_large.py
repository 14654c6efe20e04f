"""Whisper large-v3 as `standard/1` hears with it: a `transformers` checkpoint, decoded by `transformers` itself.

The call is that of EmergentTTS-Eval (boson-ai/EmergentTTS-Eval-public, `utils_eval.py`): one language and the task
`transcribe` forced, timestamps always, nothing cut off, no padding before the features, greedy without fallbacks, in
fp32. Speech beyond 30 s is heard by the sequential long form: the next window begins at the last timestamp.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import NotApplicable, SetupError
from jwb_dh_v1.media.audio import is_silent
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.ctranslate2 import fill
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.whisper import RATE, heard, inference, primary

NAME = "whisper-large-v3"
FILES = (NAME, f"{NAME}/config.json", f"{NAME}/generation_config.json", f"{NAME}/tokenizer.json")
SHORTEST = 400  # samples: one window of the spectrogram


def load_checkpoint(model: Path, config: Path, generation: Path, tokenizer: Path) -> tuple[Any, Any]:
    """A network and its tokenizer from four files of a `transformers` repository, in fp32 on the CPU.

    Args:
        model: `model.safetensors` (any float type; large-v3's is fp16).
        config: `config.json`.
        generation: `generation_config.json`.
        tokenizer: `tokenizer.json`.

    Raises:
        SetupError: one of the files is not what it should be, or they do not belong together.

    """
    import torch
    from safetensors import SafetensorError, safe_open
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    try:
        shape = WhisperConfig.from_dict(_object(config))
        settings = GenerationConfig.from_dict(_object(generation))
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced
            network = WhisperForConditionalGeneration(shape)
        with safe_open(model, framework="pt") as held:  # one tensor at a time: never the file and its fp32 copy at once
            fill(network, {name: held.get_tensor(name).float() for name in held.keys()})  # noqa: SIM118
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[-1]
        raise SetupError(f"{model} with {config} and {generation} is no Whisper of transformers: {first}.") from error
    try:
        words = Tokenizer.from_file(str(tokenizer))
    except Exception as error:
        raise SetupError(f"{tokenizer} is no tokenizer: {error}.") from error
    if words.token_to_id("<|notimestamps|>") != getattr(settings, "no_timestamps_token_id", None):
        raise SetupError(f"{tokenizer} belongs to another Whisper than {generation}.")
    network.generation_config = settings
    return network.eval(), words


def _object(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def load_large(weights: Mapping[str, Path], device: str = "cpu") -> LargeWhisper:
    """Whisper large-v3 of the verified files `FILES`; 6.2 GB in fp32."""
    return LargeWhisper(*load_checkpoint(*(weights[name] for name in FILES)), device, name="Whisper large-v3")


class LargeWhisper:
    """Hears speech in a given language, greedily and without chance: the same samples give the same words.

    Args:
        model: `transformers.WhisperForConditionalGeneration` with its generation config.
        tokenizer: `tokenizers.Tokenizer` of the model.
        device: where to run.
        threads: CPU threads of PyTorch while it hears; None leaves them as they are.
        name: what errors call it.

    """

    def __init__(
        self, model: Any, tokenizer: Any, device: str = "cpu", threads: int | None = None, name: str = "Whisper"
    ) -> None:
        from transformers import WhisperFeatureExtractor

        self.model = model.eval().to(device)
        self.tokenizer = tokenizer
        self.device = device
        self.threads = threads
        self.name = name
        self.features = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)

    def transcribe(self, samples: np.ndarray, language: str) -> str:
        """The words of float32 [n] samples at 16 kHz, as Whisper writes them; "" for silence (below -60 dBFS).

        Args:
            samples: the speech, of any length.
            language: ISO 639-1 (`en`), as the model knows it; what follows a `-` is ignored.

        Raises:
            NotApplicable: the model does not know the language.

        """
        settings = self.model.generation_config
        token = f"<|{primary(language)}|>"
        if token not in (settings.lang_to_id if settings.is_multilingual else {"<|en|>"}):
            raise NotApplicable(f"{self.name} does not hear {language!r}")
        if is_silent(samples):
            return ""
        # An English-only model is not to be asked.
        asked = {"language": token, "task": "transcribe"} if settings.is_multilingual else {}
        given = self.features(
            np.pad(samples, (0, max(0, SHORTEST - len(samples)))),
            sampling_rate=RATE,
            return_tensors="pt",
            truncation=False,
            padding="longest",
            return_attention_mask=True,
        )
        with inference(self.threads):
            found = self.model.generate(
                given.input_features.to(self.device, self.model.dtype),
                attention_mask=given.attention_mask.to(self.device),
                return_timestamps=True,
                **asked,
            )
        # Text has the lowest numbers; the end, languages, tasks and timestamps follow.
        text: str = self.tokenizer.decode([token for token in found[0].tolist() if token < settings.eos_token_id])
        return text.strip()


NETWORK = Network(NAME, load_large)


def text_of(clip: Clip, language: str) -> str:
    """The words Whisper large-v3 hears in the clip's audio track, in a language (ISO 639-1); equal audio is heard once.

    Raises:
        NotApplicable: the clip has no audio track, or Whisper does not know the language.
        BadAudio: the track cannot be decoded.

    """
    hear = lambda samples: models_of(clip).get(NETWORK).transcribe(samples, language)  # noqa: E731
    return heard(clip, NAME, language, hear)
