"""Whisper: the CTranslate2 file, the words, and when they are spoken."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from jwb_dh_v1.errors import NotApplicable, SetupError
from jwb_dh_v1.networks.ctranslate2 import read_ctranslate2, whisper_names, whisper_network
from jwb_dh_v1.networks.weights import resolve
from jwb_dh_v1.networks.whisper import Word

TWO_CITIES = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to Heaven, we were all going direct the other way - in short, the period was "
    "so far like the present period, that some of its noisiest authorities insisted on its being received, for good "
    "or for evil, in the superlative degree of comparison only."
)


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, array: np.ndarray, kind: int) -> bytes:
    shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return string(name) + shape + struct.pack("<BI", kind, array.nbytes) + array.tobytes()


def model_bin(version: int = 6) -> bytes:
    half = np.arange(6, dtype="<f2").reshape(2, 3)
    head = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, 2)
    parts = variable("decoder/embeddings/weight", half, 4) + variable("encoder/num_heads", np.array(6, "<i2"), 2)
    aliases = struct.pack("<I", 1) + string("decoder/projection/weight") + string("decoder/embeddings/weight")
    return head + parts + aliases


def test_a_hand_made_file_is_read(tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(model_bin())
    found = read_ctranslate2(tmp_path / "model.bin")
    assert set(found) == {"decoder/embeddings/weight", "encoder/num_heads", "decoder/projection/weight"}
    assert found["decoder/embeddings/weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["encoder/num_heads"] == 6
    assert found["decoder/projection/weight"] is found["decoder/embeddings/weight"]


def test_names_are_those_of_transformers():
    joined = np.arange(12.0).reshape(6, 2)
    named = dict(
        whisper_names(
            {
                "encoder/layer_1/self_attention/linear_0/weight": joined,
                "encoder/layer_1/self_attention/linear_0/bias": np.arange(6.0),
                "decoder/layer_0/attention/linear_1/weight": joined,
                "decoder/layer_0/ffn/layer_norm/gamma": np.ones(2),
                "encoder/position_encodings/encodings": joined,
                "decoder/pre_norm": np.array(1),
            }
        )
    )
    assert set(named) == {
        "model.encoder.layers.1.self_attn.q_proj.weight",
        "model.encoder.layers.1.self_attn.k_proj.weight",
        "model.encoder.layers.1.self_attn.v_proj.weight",
        "model.encoder.layers.1.self_attn.q_proj.bias",
        "model.encoder.layers.1.self_attn.v_proj.bias",  # no bias for the keys
        "model.decoder.layers.0.encoder_attn.k_proj.weight",
        "model.decoder.layers.0.encoder_attn.v_proj.weight",
        "model.decoder.layers.0.final_layer_norm.weight",
        "model.encoder.embed_positions.weight",
    }
    assert named["model.encoder.layers.1.self_attn.v_proj.bias"].tolist() == [4, 5]
    assert named["model.decoder.layers.0.encoder_attn.v_proj.weight"].tolist() == joined[3:].tolist()


@pytest.mark.parametrize("cut", [0, 1, 3, 10, 30, 60, 90, len(model_bin()) - 1])
def test_a_cut_file_is_a_setup_error(tmp_path: Path, cut: int):
    (tmp_path / "model.bin").write_bytes(model_bin()[:cut])
    with pytest.raises(SetupError, match="no whole CTranslate2 model"):
        read_ctranslate2(tmp_path / "model.bin")


@pytest.mark.parametrize("content", [model_bin(5), model_bin() + b"x", b"\xff" * 400, b"PK\3\4" * 100])
def test_another_file_is_a_setup_error(tmp_path: Path, content: bytes):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(SetupError, match="no whole CTranslate2 model"):
        read_ctranslate2(tmp_path / "model.bin")


@pytest.mark.teaser
def test_a_model_of_another_kind_is_a_setup_error(tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(model_bin())
    with pytest.raises(SetupError, match="no Whisper model"):
        whisper_network(
            tmp_path / "model.bin", resolve("whisper-tiny.en/config.json"), resolve("whisper-tiny.en/tokenizer.json")
        )


def multilingual_files(folder: Path) -> list[Path]:
    """A network 64 wide and 1 deep that knows English and German, as the three files of a CTranslate2 package."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    width, rng = 64, np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder/conv1/weight": (width, 80, 3), "encoder/conv1/bias": (width,),
        "encoder/conv2/weight": (width, width, 3), "encoder/conv2/bias": (width,),
        "encoder/position_encodings/encodings": (1500, width), "decoder/embeddings/weight": (50264 + 1501, width),
        "decoder/position_encodings/encodings": (448, width),
    }  # fmt: skip
    for part in ("encoder", "decoder"):
        shapes |= {f"{part}/layer_norm/{kind}": (width,) for kind in ("gamma", "beta")}
        blocks = {"self_attention": (3, 1)} | ({"attention": (1, 2, 1)} if part == "decoder" else {})
        for block, rows in blocks.items():
            head = f"{part}/layer_0/{block}"
            shapes |= {f"{head}/layer_norm/{kind}": (width,) for kind in ("gamma", "beta")}
            for place, times in enumerate(rows):
                shapes |= {f"{head}/linear_{place}/weight": (times * width, width)}
                shapes |= {f"{head}/linear_{place}/bias": (times * width,)}
        head = f"{part}/layer_0/ffn"
        shapes |= {f"{head}/layer_norm/gamma": (width,), f"{head}/layer_norm/beta": (width,)}
        shapes |= {f"{head}/linear_0/weight": (4 * width, width), f"{head}/linear_0/bias": (4 * width,)}
        shapes |= {f"{head}/linear_1/weight": (width, 4 * width), f"{head}/linear_1/bias": (width,)}
    data = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(shapes))
    for name, shape in shapes.items():
        values = rng.standard_normal(shape) / 3 + name.endswith("gamma")
        data += variable(name, values.astype("<f2"), 4)
    paths = [folder / name for name in ("model.bin", "config.json", "tokenizer.json")]
    paths[0].write_bytes(data + struct.pack("<I", 0))
    paths[1].write_text('{"suppress_ids": [1], "suppress_ids_begin": [220, 50257], "alignment_heads": [[0, 0]]}')
    special = ("endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "notimestamps")
    words = {f"w{k}": k for k in range(50257)} | {f"<|{name}|>": 50257 + k for k, name in enumerate(special)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(paths[2]))
    return paths


def test_a_multilingual_package_knows_its_languages(tmp_path: Path):
    from jwb_dh_v1.networks.whisper_large import LargeWhisper

    network, words = whisper_network(*multilingual_files(tmp_path))
    settings = network.generation_config
    assert settings.is_multilingual
    assert settings.lang_to_id == {"<|en|>": 50259, "<|de|>": 50260}
    assert settings.task_to_id == {"translate": 50261, "transcribe": 50262}
    settings.max_length = 12  # it does not know when to stop
    ear = LargeWhisper(network, words, threads=1)
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 16000).astype(np.float32)
    assert ear.transcribe(noise, "de") != ear.transcribe(noise, "en")
    with pytest.raises(NotApplicable, match="'fr'"):
        ear.transcribe(noise, "fr")


@pytest.mark.teaser
def test_only_english_is_heard(whisper):
    assert whisper.transcribe(np.zeros(16000, np.float32), "en-GB") == ""
    with pytest.raises(NotApplicable, match=r"Whisper tiny\.en hears English only, not 'de'"):
        whisper.transcribe(np.zeros(16000, np.float32), "de")


@pytest.fixture(scope="module")
def two_cities() -> np.ndarray:
    from jwb_dh_v1.media.audio import decode_audio

    audio = decode_audio(resolve("two-cities"))
    assert audio is not None
    return audio.mono()


@pytest.mark.teaser
def test_nothing_is_heard_in_silence(whisper):
    assert whisper.transcribe(np.zeros(16000, np.float32)) == ""
    assert whisper.words(np.zeros(0, np.float32)) == []


@pytest.mark.teaser
def test_clean_speech_is_heard_without_error(whisper, two_cities):
    from jwb_dh_v1.metrics.speech import word_errors

    heard = whisper.transcribe(two_cities)  # 44 s: two windows
    assert word_errors(TWO_CITIES, heard)["wer"] == 0.0
    assert whisper.transcribe(two_cities) == heard


def in_order(words: list[Word], seconds: float) -> bool:
    times = [t for word in words for t in (word.start, word.end)]
    return times == sorted(times) and times[0] >= 0 and times[-1] <= seconds and all(w.end > w.start for w in words)


@pytest.mark.teaser
def test_word_times_are_in_order_and_inside(whisper, two_cities):
    words = whisper.words(two_cities)
    assert " ".join(word.word for word in words) == whisper.transcribe(two_cities)
    assert in_order(words, len(two_cities) / 16000)
    assert all(0 <= word.score <= 1 for word in words)


@pytest.mark.teaser
def test_words_are_loud_and_pauses_are_not(whisper, two_cities):
    piece = two_cities[: 16000 * 17]
    words = whisper.words(piece)
    spoken = np.zeros(len(piece), bool)
    for word in words:
        spoken[round(word.start * 16000) : round(word.end * 16000)] = True
    power = np.square(piece, dtype=np.float64)
    # The recording's pauses lie 30 dB below its speech; 15 dB leave room for soft sounds at the edges of words.
    assert power[spoken].mean() > 10**1.5 * power[~spoken].mean()
    assert 0.5 < spoken.mean() < 0.9  # read with pauses: a third of it, by the waveform


@pytest.mark.teaser
def test_a_known_text_gets_the_times(whisper, two_cities):
    piece = two_cities[: round(16000 * 4.8)]
    text = "It was the best of times, it was the worst of times,"
    known, heard = whisper.words(piece, text), whisper.words(piece)
    assert [word.word for word in known] == text.split()
    assert in_order(known, 4.8)
    # Two steps of the encoder (20 ms each) and one of the loudness (10 ms): other punctuation may move a word by these.
    assert max(abs(a.start - b.start) for a, b in zip(known, heard, strict=True)) <= 0.051
    with pytest.raises(ValueError, match="30 s"):
        whisper.words(two_cities, TWO_CITIES)


@pytest.mark.teaser
def test_loading_leaves_the_random_numbers_alone(whisper):
    import torch

    from jwb_dh_v1.networks.weights import resolve_all
    from jwb_dh_v1.networks.whisper import load_tiny_en

    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    load_tiny_en(resolve_all(["whisper-tiny.en", "whisper-tiny.en/config.json", "whisper-tiny.en/tokenizer.json"]))
    assert torch.equal(torch.rand(4), wanted)
