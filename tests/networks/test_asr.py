"""Whisper large-v3's path against openai/whisper: numbers, words, files, and the rows of the protocols.

The numbers of `golden/whisper.json` are openai/whisper's own, for a small network with seeded weights, large-v3's
vocabulary, mel bands, configuration and generation settings (`golden/whisper_toy.py`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from goldens import _module, golden, seeded

from jwb_dh_v1.errors import NotApplicable, SetupError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.speech import word_errors
from jwb_dh_v1.networks import whisper as tiny_en
from jwb_dh_v1.networks import whisper_large
from jwb_dh_v1.networks.network import network_of
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import FILES, resolve
from jwb_dh_v1.networks.whisper_large import LargeWhisper, load_checkpoint, load_large
from jwb_dh_v1.scoring.plan import make_plan

pytestmark = pytest.mark.teaser  # large networks on seeded weights: minutes

toy = _module("whisper_toy")
GOLDEN = golden("whisper")
OBAMA = (  # the statement of 14 July 2015; the clip cuts the last word
    "Today, after two years of negotiations, the United States, together with our international partners, has achieved "
    "something"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Path]:
    """The small network as the four files of large-v3."""
    state = seeded.seeded_state_dict(toy.tensors())
    assert seeded.fingerprint(state) == GOLDEN["checkpoint"]
    return dict(zip(whisper_large.FILES, toy.write(tmp_path_factory.mktemp("small"), state), strict=True))


@pytest.fixture(scope="module")
def brief(tmp_path_factory) -> dict[str, Path]:
    """The same, stopped after a few words: it does not know when to stop, and most tests have heard enough."""
    files = toy.write(tmp_path_factory.mktemp("brief"), seeded.seeded_state_dict(toy.tensors()), max_length=12)
    return dict(zip(whisper_large.FILES, files, strict=True))


@pytest.fixture(scope="module")
def heard(small) -> LargeWhisper:
    return load_large(small)


def test_the_settings_are_those_of_the_published_files():
    for name, value in (("config.json", toy.config()), ("generation_config.json", toy.settings())):
        content, file = toy.written(value), FILES[f"whisper-large-v3/{name}"]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)


def test_the_published_size_is_that_of_our_tensors():
    """Names, shapes and offsets are written into the file, so that another name would hardly leave its size alone."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    with torch.device("meta"):
        network = WhisperForConditionalGeneration(WhisperConfig.from_dict(toy.config()))
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in sorted(network.state_dict().items()):
        if name != "proj_out.weight":  # it is the embedding
            begin, end = end, end + 2 * tensor.numel()
            header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    assert 8 + length + -length % 8 + end == FILES["whisper-large-v3"].size


def test_network_gives_openai_s_numbers(heard):
    import torch

    window = GOLDEN["window"]
    samples = toy.sound(30)
    assert toy.digest(samples) == window["sound_sha256"]
    with torch.inference_mode():
        mel = heard.features(samples, sampling_rate=16000, return_tensors="pt").input_features
        encoded = heard.model.get_encoder()(mel)
        logits = heard.model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([GOLDEN["prompt"]])).logits[0]
    # Another order of summation: seen 6e-8, 3e-6 (of 4) and 2e-5 (of 6).
    assert np.abs(mel[0, ::16, ::300].numpy() - window["mel"]).max() < 1e-5
    assert np.abs(encoded.last_hidden_state[0, ::150, ::4].numpy() - window["encoder"]).max() < 1e-4
    places = [0, 220, 1000, 25000, 50257, 50364, 50365, 50400, 51865]
    assert np.abs(logits[:, places].numpy() - window["logits"]).max() < 1e-3
    assert logits.argmax(-1).tolist() == window["best"]


def numbers(heard: LargeWhisper, wanted: dict) -> list[int]:
    return [int(word) for word in heard.transcribe(toy.sound(wanted["seconds"]), wanted["language"]).split()]


@pytest.mark.parametrize(
    "wanted",
    [pytest.param(t, marks=[pytest.mark.slow] * (t["language"] == "zh")) for t in GOLDEN["transcripts"]],
    ids=lambda wanted: f"{wanted['seconds']}s-{wanted['language']}",
)
def test_words_are_openai_s(heard, wanted):
    """openai/whisper's own `transcribe` at temperature 0, without its fallbacks: the same tokens, all of them."""
    assert len(wanted["seeks"]) == (1 if wanted["seconds"] < 30 else 2)
    assert numbers(heard, wanted) == wanted["text"]


MUTANTS = {
    "none": lambda asked: asked,
    "another language": lambda asked: asked | {"language": "<|en|>"},
    "translated": lambda asked: asked | {"task": "translate"},
    "no timestamps": lambda asked: asked | {"return_timestamps": False},
    "late first timestamp": lambda asked: asked | {"max_initial_timestamp_index": None},
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_another_call_gives_other_words(heard, mutant, monkeypatch):
    wanted = GOLDEN["transcripts"][1]
    assert (wanted["seconds"], wanted["language"]) == (8, "de")
    true = heard.model.generate
    monkeypatch.setattr(heard.model, "generate", lambda mel, **asked: true(mel, **MUTANTS[mutant](asked)))
    assert (numbers(heard, wanted) == wanted["text"]) is (mutant == "none")


def test_padding_before_the_features_gives_other_words(heard, monkeypatch):
    """Silence added to the samples is not what openai/whisper adds: zeros, which are no silence, to the features."""
    true = heard.features
    monkeypatch.setattr(heard, "features", lambda samples, **how: true(samples, **how | {"padding": "max_length"}))
    wanted = GOLDEN["transcripts"][1]
    assert numbers(heard, wanted) != wanted["text"]


def test_languages(brief):
    heard = load_large(brief)
    sound = toy.sound(2)
    assert heard.transcribe(sound, "de-AT") == heard.transcribe(sound, "DE") != heard.transcribe(sound, "en")
    for language in ("xx", "", "english", "<|en|>"):
        with pytest.raises(NotApplicable, match="large-v3 does not hear"):
            heard.transcribe(sound, language)


def test_silence_and_the_shortest_sounds(brief):
    heard = load_large(brief)
    assert heard.transcribe(np.zeros(16000, np.float32), "en") == ""
    assert heard.transcribe(np.zeros(0, np.float32), "en") == ""
    for length in (1, 200, 399):
        assert isinstance(heard.transcribe(toy.sound(1)[:length] + np.float32(0.1), "en"), str)


def test_loading_leaves_the_random_numbers_alone_and_takes_fp16(small, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    half = {key: value.half() for key, value in load_file(small["whisper-large-v3"]).items()}
    save_file(half, tmp_path / "model.safetensors")
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    network, _ = load_checkpoint(tmp_path / "model.safetensors", *list(small.values())[1:])
    assert torch.equal(torch.rand(4), wanted)
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    assert network.proj_out.weight is network.model.decoder.embed_tokens.weight


def spoilt(small: dict[str, Path], folder: Path, what: str) -> list[Path]:
    """The four files, one of them wrong."""
    from safetensors.torch import load_file, save_file

    model, config, generation, tokenizer = small.values()
    if what == "garbage":
        model = folder / "model.safetensors"
        model.write_bytes(b"no tensors at all")
    elif what in {"a tensor missing", "a tensor too many"}:
        state = load_file(model)
        if what == "a tensor missing":
            del state["model.decoder.layer_norm.bias"]
        else:
            state["model.more"] = state["model.decoder.layer_norm.bias"].clone()
        model = folder / "model.safetensors"
        save_file(state, model)
    elif what == "another size":
        config = folder / "config.json"
        config.write_bytes(toy.written(toy.config()))
    elif what == "no JSON":
        config = folder / "config.json"
        config.write_text("{")
    elif what == "a list":
        generation = folder / "generation_config.json"
        generation.write_text("[]")
    elif what == "no tokenizer":
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_text("{}")
    elif what == "another vocabulary":
        generation = folder / "generation_config.json"
        generation.write_bytes(toy.written(toy.settings() | {"no_timestamps_token_id": 50363}))
    return [model, config, generation, tokenizer]


WRONG = ["garbage", "a tensor missing", "a tensor too many", "another size", "no JSON", "a list", "no tokenizer"]


@pytest.mark.parametrize("what", [*WRONG, "another vocabulary"])
def test_other_files_are_a_setup_error(small, tmp_path, what):
    with pytest.raises(SetupError, match=r"is no Whisper|is no tokenizer|belongs to another"):
        load_checkpoint(*spoilt(small, tmp_path, what))


def test_standard_and_paper_need_large_v3():
    for name in ("standard", "paper"):
        metric = PROTOCOLS[name].metrics["wer"]
        assert metric.weights == whisper_large.FILES
        plan = make_plan(name, ["wer"])
        assert plan.cells == (("wer", "speech"),)
        assert plan.weights == {file: FILES[file].sha256 for file in whisper_large.FILES}
    assert PROTOCOLS["lite"].metrics["wer"].weights == tiny_en.FILES
    assert network_of("whisper-large-v3") is whisper_large.NETWORK
    assert "assumed" in PROTOCOLS["paper"].metrics["wer"].networks


@pytest.mark.teaser
def test_wer_of_standard_from_files_to_results(brief, tmp_path):
    """The small network's words are no words: every number of them is wrong, and they are those it hears."""
    from jwb_dh_v1 import Sample, score

    video = resolve("obama-speech")
    samples = [
        Sample("a", Clip(video), transcript=OBAMA),
        Sample("b", Clip(video), transcript=OBAMA, language="de"),
        Sample("c", Clip(video), transcript=OBAMA, language="xx"),
    ]
    how = {"protocol": "standard", "weights": brief, "other_weights": True, "device": "cpu"}
    result = score(samples, ["wer"], **how)
    cell = result["wer", "speech"]
    assert (cell.n, cell.skipped, cell.failed) == (2, 1, 0)
    large, rates = NetworkPool(brief, "cpu").get(whisper_large.NETWORK), []
    for language in ("en", "de"):
        words = large.transcribe(Clip(video).speech.mono(16000), language)
        rates.append(word_errors(OBAMA, words, language)["wer"])
    assert cell.value == pytest.approx(np.mean(rates), rel=1e-12)
    assert rates[0] >= 1


@pytest.mark.teaser
def test_equal_sound_is_heard_once_in_each_language(brief):
    models = NetworkPool(brief, "cpu")
    asked = []
    large = models.get(whisper_large.NETWORK)
    true = large.transcribe
    large.transcribe = lambda samples, language: asked.append(language) or true(samples, language)
    first, second = (Clip(resolve("obama-speech"), models=models) for _ in range(2))
    texts = [whisper_large.text_of(clip, language) for clip in (first, second) for language in ("en", "de")]
    assert asked == ["en", "de"]
    assert texts[:2] == texts[2:] and texts[0] != texts[1]
