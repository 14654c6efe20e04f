"""The weights of a Whisper model in a CTranslate2 file, under the names that `transformers` gives them, and a network.

The file and its names are those of opennmt/ctranslate2 (`src/models/model.cc`, `python/ctranslate2/specs/
whisper_spec.py`). Nothing of it is code: the file holds names, shapes and numbers.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import SetupError

DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 `model.bin` of version 6, by name; little-endian arrays as stored.

    Raises:
        SetupError: the file is no such file, or is cut.

    """
    data = path.read_bytes()
    at = 0

    def number(code: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal at
        raw = data[at + 2 : at + 2 + number("H")]
        at += len(raw)
        if not raw.endswith(b"\0"):
            raise ValueError("a name is not closed by a zero byte")
        return raw[:-1].decode()

    variables: dict[str, np.ndarray] = {}
    try:
        version = number("I")
        if version != 6:
            raise ValueError(f"its version is {version}, expected 6")
        text(), number("I")  # the spec's name and revision
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            kind, size = DTYPES.get(number("B")), number("I")
            if kind is None or size != np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"{name} has an unknown type or a size that does not fit its shape {shape}")
            variables[name] = np.frombuffer(data, kind, int(np.prod(shape, dtype=np.int64)), at).reshape(shape)
            at += size
        for _ in range(number("I")):
            alias, target = text(), text()
            variables[alias] = variables[target]
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes follow its end")
    except (struct.error, ValueError, KeyError) as error:
        raise SetupError(f"{path} is no whole CTranslate2 model: {error}. Fetch it again.") from error
    return variables


def whisper_names(variables: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """CTranslate2's variables under the names of `transformers.WhisperForConditionalGeneration`."""
    suffix = {"gamma": "weight", "beta": "bias"}
    for name, value in variables.items():
        part, _, rest = name.partition("/")
        *place, kind = rest.split("/")
        if part not in {"encoder", "decoder"} or not place or value.ndim == 0:
            continue  # switches such as decoder/pre_norm, and the alias of the tied projection
        head = f"model.{part}."
        kind = suffix.get(kind, kind)
        layer = re.fullmatch(r"layer_(\d+)", place[0])
        if not layer:
            if place[0] == "projection":
                continue
            known = {"position_encodings": "embed_positions.weight", "embeddings": "embed_tokens.weight"}
            yield head + known.get(place[0], f"{place[0]}.{kind}"), value
            continue
        head += f"layers.{layer[1]}."
        block, item = place[1], place[2]
        if block == "ffn":
            yield (
                head + {"linear_0": "fc1", "linear_1": "fc2", "layer_norm": "final_layer_norm"}[item] + f".{kind}",
                value,
            )
            continue
        attention = {"self_attention": "self_attn", "attention": "encoder_attn"}[block]
        if item == "layer_norm":
            yield f"{head}{attention}_layer_norm.{kind}", value
            continue
        if attention == "self_attn":
            targets = {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)}[item]
        else:
            targets = {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)}[item]
        for target, rows in zip(targets, np.split(value, len(targets)), strict=True):
            if (target, kind) != ("k_proj", "bias"):  # Whisper has none; CTranslate2 stores zeros
                yield f"{head}{attention}.{target}.{kind}", rows


def whisper_network(model: Path, config: Path, tokenizer: Path) -> tuple[Any, Any]:
    """Whisper in fp32 from the three files of a CTranslate2 package; nothing is written.

    Args:
        model: `model.bin`.
        config: its `config.json`, which holds the alignment heads and the suppressed tokens.
        tokenizer: its `tokenizer.json`.

    Returns:
        `transformers.WhisperForConditionalGeneration` on the CPU, which hands out attention, with its generation
        config; and the `tokenizers.Tokenizer`.

    Raises:
        SetupError: one of the files is not what it should be.

    """
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in whisper_names(read_ctranslate2(model))}
    try:
        facts = json.loads(config.read_text(encoding="utf-8"))
        words = Tokenizer.from_str(tokenizer.read_text(encoding="utf-8"))
        vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
        end, start = words.token_to_id("<|endoftext|>"), words.token_to_id("<|startoftranscript|>")
        if end is None or start is None:
            raise ValueError("its tokenizer has no <|endoftext|> or <|startoftranscript|>")
        depth = {p: sum(f"{p}.layers" in n and n.endswith("fc1.bias") for n in state) for p in ("encoder", "decoder")}
        shape = WhisperConfig(
            vocab_size=vocabulary,
            d_model=width,
            num_mel_bins=state["model.encoder.conv1.weight"].shape[1],
            encoder_layers=depth["encoder"],
            decoder_layers=depth["decoder"],
            encoder_attention_heads=width // 64,
            decoder_attention_heads=width // 64,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=start,
            attn_implementation="eager",  # the only one that hands out attention, which word times need
        )
        generation = GenerationConfig(
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=start,
            max_length=448,
            suppress_tokens=facts["suppress_ids"],
            begin_suppress_tokens=facts["suppress_ids_begin"],
            alignment_heads=facts["alignment_heads"],
            no_timestamps_token_id=words.token_to_id("<|notimestamps|>"),
            max_initial_timestamp_index=50,
            # English-only models have 50257 text tokens and one end token less, so that they start with 50257.
            is_multilingual=start > 50257,
        )
        if generation.is_multilingual:
            tasks: dict[str, Any] = {task: words.token_to_id(f"<|{task}|>") for task in ("translate", "transcribe")}
            languages = range(start + 1, tasks["translate"])
            generation.task_to_id = tasks
            generation.lang_to_id = {words.id_to_token(token): token for token in languages}
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced
            network = WhisperForConditionalGeneration(shape)
        fill(network, state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SetupError(f"{model.parent} holds no Whisper model in CTranslate2's form: {error}.") from error
    network.generation_config = generation
    return network.eval(), words


def fill(network: Any, state: Mapping[str, Any]) -> None:
    """Give a Whisper network its tensors; the projection to words is the embedding's.

    Raises:
        ValueError: names are missing or unknown.
        RuntimeError: a shape is another.

    """
    missing, extra = network.load_state_dict(state, strict=False, assign=True)
    lost = sorted(set(missing) - {"proj_out.weight"})
    if extra or lost:
        raise ValueError(f"missing {lost[:3]}, unknown {sorted(extra)[:3]}")
    network.tie_weights()
