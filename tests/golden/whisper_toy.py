"""A Whisper of large-v3's vocabulary and mel bands, 32 wide and 2 deep, with seeded weights, heard by openai/whisper.

    pip install --target FOLDER openai-whisper tiktoken numba
    PYTHONPATH=FOLDER python tests/golden/whisper_toy.py  # writes whisper.json beside this file

`tensors()`, `settings()` and `sound()` need neither that package nor torch: the tests make the same network with them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
WIDTH, HEADS, LAYERS, BANDS, VOCABULARY = 32, 2, 2, 128, 51866
# in the order of their tokens, from 50259 on
LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
).split()
# text tokens that stand for sounds and signs, which Whisper is kept from writing (`Tokenizer.non_speech_tokens`)
NOT_SPOKEN = [
    1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 359, 503, 522, 542, 873, 893,
    902, 918, 922, 931, 1350, 1853, 1982, 2460, 2627, 3246, 3253, 3268, 3536, 3846, 3961, 4183, 4667, 6585, 6647, 7273,
    9061, 9383, 10428, 10929, 11938, 12033, 12331, 12562, 13793, 14157, 14635, 15265, 15618, 16553, 16604, 18362, 18956,
    20075, 21675, 22520, 26130, 26161, 26435, 28279, 29464, 31650, 32302, 32470, 36865, 42863, 47425, 49870, 50254,
]  # fmt: skip


def config():
    """large-v3's `config.json` (its sha256 is that of the table of weights)."""
    return {
        "_name_or_path": "openai/whisper-large-v3", "activation_dropout": 0.0, "activation_function": "gelu",
        "apply_spec_augment": False, "architectures": ["WhisperForConditionalGeneration"], "attention_dropout": 0.0,
        "begin_suppress_tokens": [220, 50257], "bos_token_id": 50257, "classifier_proj_size": 256, "d_model": 1280,
        "decoder_attention_heads": 20, "decoder_ffn_dim": 5120, "decoder_layerdrop": 0.0, "decoder_layers": 32,
        "decoder_start_token_id": 50258, "dropout": 0.0, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
        "encoder_layerdrop": 0.0, "encoder_layers": 32, "eos_token_id": 50257, "init_std": 0.02,
        "is_encoder_decoder": True, "mask_feature_length": 10, "mask_feature_min_masks": 0, "mask_feature_prob": 0.0,
        "mask_time_length": 10, "mask_time_min_masks": 2, "mask_time_prob": 0.05, "max_length": 448,
        "max_source_positions": 1500, "max_target_positions": 448, "median_filter_width": 7, "model_type": "whisper",
        "num_hidden_layers": 32, "num_mel_bins": BANDS, "pad_token_id": 50256, "scale_embedding": False,
        "torch_dtype": "float16", "transformers_version": "4.36.0.dev0", "use_cache": True,
        "use_weighted_layer_sum": False, "vocab_size": VOCABULARY,
    }  # fmt: skip


def small_config():
    """The same for the small network."""
    small = {"d_model": WIDTH, "num_hidden_layers": LAYERS}
    for part in ("encoder", "decoder"):
        small |= {f"{part}_attention_heads": HEADS, f"{part}_ffn_dim": 4 * WIDTH, f"{part}_layers": LAYERS}
    return config() | small


def settings():
    """large-v3's `generation_config.json` (its sha256 is that of the table of weights); right for both networks."""
    return {
        "alignment_heads": [[7, 0], [10, 17], [12, 18], [13, 12], [16, 1], [17, 14], [19, 11], [21, 4], [24, 1],
                            [25, 6]],
        "begin_suppress_tokens": [220, 50257], "bos_token_id": 50257, "decoder_start_token_id": 50258,
        "eos_token_id": 50257, "forced_decoder_ids": [[1, None], [2, 50360]], "is_multilingual": True,
        "lang_to_id": dict(sorted((f"<|{code}|>", 50259 + place) for place, code in enumerate(LANGUAGES))),
        "max_initial_timestamp_index": 50, "max_length": 448, "no_timestamps_token_id": 50364, "pad_token_id": 50257,
        "prev_sot_token_id": 50362, "return_timestamps": False,
        "suppress_tokens": [*NOT_SPOKEN, 50258, 50359, 50360, 50361, 50362, 50363],
        "task_to_id": {"transcribe": 50360, "translate": 50359}, "transformers_version": "4.36.0.dev0",
    }  # fmt: skip


def tensors():
    """Entries for `seeded_weights.seeded_state_dict`, by the names of `transformers`."""
    shapes = {
        "encoder.conv1.weight": [WIDTH, BANDS, 3], "encoder.conv1.bias": [WIDTH],
        "encoder.conv2.weight": [WIDTH, WIDTH, 3], "encoder.conv2.bias": [WIDTH],
        "encoder.embed_positions.weight": [1500, WIDTH], "decoder.embed_tokens.weight": [VOCABULARY, WIDTH],
        "decoder.embed_positions.weight": [448, WIDTH],
    }  # fmt: skip
    for part in ("encoder", "decoder"):
        for layer in range(LAYERS):
            head = f"{part}.layers.{layer}"
            for attention in ("self_attn",) if part == "encoder" else ("self_attn", "encoder_attn"):
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes[f"{head}.{attention}.{name}.weight"] = [WIDTH, WIDTH]
                    if name != "k_proj":
                        shapes[f"{head}.{attention}.{name}.bias"] = [WIDTH]
                shapes[f"{head}.{attention}_layer_norm.weight"] = shapes[f"{head}.{attention}_layer_norm.bias"] = [WIDTH]
            shapes[f"{head}.fc1.weight"], shapes[f"{head}.fc1.bias"] = [4 * WIDTH, WIDTH], [4 * WIDTH]
            shapes[f"{head}.fc2.weight"], shapes[f"{head}.fc2.bias"] = [WIDTH, 4 * WIDTH], [WIDTH]
            shapes[f"{head}.final_layer_norm.weight"] = shapes[f"{head}.final_layer_norm.bias"] = [WIDTH]
        shapes[f"{part}.layer_norm.weight"] = shapes[f"{part}.layer_norm.bias"] = [WIDTH]
    entries = [{"key": f"model.{key}", "shape": shape, "dtype": "float32"} for key, shape in shapes.items()]
    for entry in entries:
        # Attention and words that depend on what is heard, positions that do not drown it; by trial.
        if entry["key"].endswith(("q_proj.weight", "k_proj.weight")):
            entry["std"] = 0.5
        elif "embed" in entry["key"]:
            entry["std"] = 0.3
    return entries


def sound(seconds):
    """Syllables of noise with pauses, float32 [n] at 16 kHz; no libm, so that it is the same everywhere."""
    words = np.random.PCG64(5).random_raw(16000 * seconds)
    noise = (words >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    loud = np.repeat(np.array([0.3, 0.05, 0.6, 0.0, 0.15, 0.4, 0.02, 0.0]), 2000)
    return (noise * np.tile(loud, seconds)).astype(np.float32)


def digest(samples):
    """sha256 of samples."""
    return hashlib.sha256(samples.astype("<f4").tobytes()).hexdigest()


def written(value):
    """JSON as `transformers` writes it."""
    return (json.dumps(value, indent=2) + "\n").encode()


def write(folder, state, **changed):
    """The small network as large-v3's four files; word k of its tokenizer is ` k`; `changed` are settings."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordLevel

    names = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json")
    paths = [folder / name for name in names]
    save_file({key: value.contiguous() for key, value in state.items()}, paths[0])
    paths[1].write_bytes(written(small_config()))
    paths[2].write_bytes(written(settings() | changed))
    special = {"<|endoftext|>": 50257, "<|notimestamps|>": 50364}
    words = {f" {k}": k for k in range(VOCABULARY) if k not in special.values()}
    tokenizer = Tokenizer(WordLevel(words | special, unk_token=" 0"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(paths[3]))
    return paths


OPENAI = {
    "self_attn_layer_norm": "attn_ln", "encoder_attn_layer_norm": "cross_attn_ln", "final_layer_norm": "mlp_ln",
    "self_attn.": "attn.", "encoder_attn.": "cross_attn.", "q_proj": "query", "k_proj": "key", "v_proj": "value",
    "out_proj": "out", "fc1": "mlp.0", "fc2": "mlp.2", "layers.": "blocks.", "model.": "",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens": "decoder.token_embedding", "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
}  # fmt: skip


def main():
    """Write whisper.json."""
    import seeded_weights as seeded
    import torch
    import whisper
    from whisper.model import ModelDimensions, Whisper

    state = seeded.seeded_state_dict(tensors())
    fingerprint = seeded.fingerprint(state)
    for old, new in OPENAI.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    model = Whisper(ModelDimensions(BANDS, 1500, WIDTH, HEADS, LAYERS, VOCABULARY, 448, WIDTH, HEADS, LAYERS))
    model.load_state_dict(state)
    model.eval()
    prompt = [50258, 50261, 50360, 50365, 1000, 2000, 30000, 50500]
    table = {"whisper": whisper.__version__, "torch": torch.__version__, "checkpoint": fingerprint, "prompt": prompt}
    with torch.inference_mode():
        audio = sound(30)
        mel = whisper.log_mel_spectrogram(audio, BANDS)
        heard = model.encoder(mel[None])
        logits = model.decoder(torch.tensor([prompt]), heard)[0]
        table["window"] = {
            "sound_sha256": digest(audio),
            "mel": mel[::16, ::300].tolist(),
            "encoder": heard[0, ::150, ::4].tolist(),
            "logits": logits[:, [0, 220, 1000, 25000, 50257, 50364, 50365, 50400, 51865]].tolist(),
            "best": logits.argmax(-1).tolist(),
        }
        table["transcripts"] = []
        for seconds, language in ((8, "en"), (8, "de"), (44, "en"), (44, "zh")):
            out = model.transcribe(
                sound(seconds), language=language, temperature=0.0, condition_on_previous_text=False, fp16=False,
                sample_len=445, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
            )  # fmt: skip
            tokens = [token for segment in out["segments"] for token in segment["tokens"] if token < 50257]
            seeks = sorted({segment["seek"] for segment in out["segments"]})
            table["transcripts"].append({"seconds": seconds, "language": language, "seeks": seeks, "text": tokens})
    (HERE / "whisper.json").write_text(json.dumps(table) + "\n")
    for found in table["transcripts"]:
        print(found["seconds"], found["language"], len(found["text"]), found["seeks"], found["text"][:8])


if __name__ == "__main__":
    main()
