"""A judge on this machine: a language model of transformers that hears (Qwen2-Audio, the thinker of Qwen-Omni).

No network is asked once the files are here. Greedy decoding: the same prompt on the same machine gives the same answer.
A model of 7 billion parameters needs some 16 GB of accelerator memory in bfloat16.
"""

from __future__ import annotations

import io
import threading
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jwb_dh_v1.errors import JudgeUnavailable, SetupError
from jwb_dh_v1.judge.request import Answer, CallFailed, Finish, JudgePrompt, Usage

CLASSES = {  # by config.model_type; of the omni models only the part that hears and writes
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
# None: a checkpoint's own settings of sampling have no meaning here and would be warned about.
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}


class LocalModel:
    """One model in memory, loaded at once; calls wait for each other.

    Args:
        model: id on the Hub (`Qwen/Qwen2-Audio-7B-Instruct`) or a folder in the form of `save_pretrained`.
        revision: commit on the Hub; None takes the newest, whose commit is then in `settings`.
        device: such as `cuda`; None is an accelerator if there is one.
        dtype: name of a torch dtype; None is bfloat16 on an accelerator and float32 on the CPU.
        max_new_tokens: limit of the answer.

    Raises:
        JudgeUnavailable: no such model, or files that cannot be loaded.
        SetupError: a model of a kind that is not known here, no such device or dtype.

    """

    name = "local"

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int = 1024,
    ) -> None:
        import torch
        import transformers

        self.model = model
        try:
            self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except RuntimeError:
            raise SetupError(f"There is no device {device!r} for the judge; try cuda or cpu") from None
        dtype = dtype or ("float32" if self._device.type == "cpu" else "bfloat16")
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise SetupError(f"There is no dtype {dtype!r} for the judge; try float32 or bfloat16")
        try:
            config = transformers.AutoConfig.from_pretrained(model, revision=revision)
            if config.model_type not in CLASSES:
                raise SetupError(f"{model} is a {config.model_type!r}; a local judge is one of {', '.join(CLASSES)}")
            revision = getattr(config, "_commit_hash", None) or revision
            self._processor: Any = transformers.AutoProcessor.from_pretrained(model, revision=revision)
            kind = getattr(transformers, CLASSES[config.model_type])
            # Only safetensors: a pickle would run code of its maker.
            net = kind.from_pretrained(model, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True)
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise JudgeUnavailable(f"There is no judge {model!r} to load; check --model ({said})") from None
        self._net: Any = net.to(self._device).eval().requires_grad_(False)
        extractor = self._processor.feature_extractor
        self._rate = int(extractor.sampling_rate)
        self._window = int(extractor.n_samples)
        self._audio_token = self._processor.tokenizer.convert_tokens_to_ids(self._processor.audio_token)
        self._control = [str(token) for token in self._processor.tokenizer.added_tokens_decoder.values()]
        self._lock = threading.Lock()
        self.settings: Mapping[str, Any] = {
            "revision": revision,
            "dtype": dtype,
            "max_new_tokens": max_new_tokens,
            "decoding": "greedy",
            "transformers": transformers.__version__,
        }

    def ask(self, prompt: JudgePrompt) -> Answer:
        """One answer; see `Backend.ask`.

        The encoder hears a fixed window (30 s in Qwen2-Audio, 300 s in Qwen2.5-Omni) and would silently cut what is
        longer, so that a longer clip fails for good.
        """
        import torch

        sounds = [self._heard(part) for part in prompt.parts if isinstance(part, bytes)]
        content = [
            {"type": "text", "text": self._plain(part)} if isinstance(part, str) else {"type": "audio"}
            for part in prompt.parts
        ]
        talk = [
            {"role": "system", "content": [{"type": "text", "text": self._plain(prompt.system)}]},
            {"role": "user", "content": content},
        ]
        inputs = self._inputs(talk, sounds)
        limit = self.settings["max_new_tokens"]
        try:
            with self._lock, torch.inference_mode():
                written = self._net.generate(**inputs, **GREEDY, max_new_tokens=limit)
        except torch.OutOfMemoryError:
            raise CallFailed(f"{self.model} ran out of memory on {self._device}", retry=False) from None
        asked = inputs["input_ids"][0]
        tokens = written[0, len(asked) :]
        ends = self._net.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        finish: Finish = "truncated" if len(tokens) >= limit and int(tokens[-1]) not in ends else "stop"
        audio = int((asked == self._audio_token).sum())
        return Answer(
            text=self._processor.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
            model_served=self.model,
            finish=finish,
            reason="max_new_tokens" if finish == "truncated" else "",
            usage=Usage(audio_in=audio, text_in=len(asked) - audio, out=len(tokens)),
        )

    def close(self) -> None:
        """Nothing to let go of: the model leaves memory with this object."""

    def _plain(self, text: str) -> str:
        """The text with a space in each of the tokenizer's control words: a transcript cannot end its turn."""
        for token in self._control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _inputs(self, talk: list[dict[str, Any]], sounds: list[NDArray[np.float32]]) -> Any:
        text = self._processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        batch = self._processor(
            text=[text], audio=sounds or None, sampling_rate=self._rate, return_tensors="pt", padding=True
        )
        return batch.to(self._device, dtype=self._net.dtype)  # whole numbers keep their type

    def _heard(self, data: bytes) -> NDArray[np.float32]:
        with wave.open(io.BytesIO(data)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (self._rate, 1, 2):
                raise CallFailed(f"{self.model} takes mono sound of 16 bits at {self._rate} Hz", retry=False)
            count = file.getnframes()
            if count > self._window:
                raise CallFailed(
                    f"A clip of {count / self._rate:.1f} s is longer than the {self._window / self._rate:.0f} s that "
                    f"{self.model} hears at once",
                    retry=False,
                )
            samples = np.frombuffer(file.readframes(count), "<i2")
        return samples.astype(np.float32) / np.float32(32768)
