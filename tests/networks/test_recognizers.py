"""Recognisers by name: real speech through each of them (Whisper tiny.en's real weights), and what they refuse."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from goldens import _module, seeded
from test_whisper import TWO_CITIES

from jwb_dh_v1.errors import MissingPackage, MissingWeights, NotApplicable, SetupError
from jwb_dh_v1.media.audio import decode_audio
from jwb_dh_v1.metrics.speech import word_errors
from jwb_dh_v1.networks import whisper as tiny_en
from jwb_dh_v1.networks import whisper_large
from jwb_dh_v1.networks.ctranslate2 import whisper_network
from jwb_dh_v1.networks.recognizers import recognizer
from jwb_dh_v1.networks.weights import FILES, resolve, resolve_all
from jwb_dh_v1.networks.whisper_large import LargeWhisper, load_large

OBAMA = (  # the statement of 14 July 2015; the clip cuts the last word
    "Today, after two years of negotiations, the United States, together with our international partners, has achieved "
    "something"
)


@pytest.fixture(scope="module")
def speech() -> dict[str, np.ndarray]:
    return {name: decode_audio(resolve(name)).mono() for name in ("two-cities", "obama-speech")}


def check_words(hear, speech) -> None:
    """The WERs of Whisper tiny.en on these recordings, whoever runs it."""
    assert word_errors(TWO_CITIES, hear(speech["two-cities"], "en"))["wer"] == 0.0  # 44 s: two windows
    assert word_errors(OBAMA, hear(speech["obama-speech"], "en"))["wer"] == pytest.approx(3 / 17)  # seen by all three


@pytest.mark.teaser
def test_real_speech_through_the_large_path(speech):
    """The real tiny.en, decoded as large-v3 is."""
    files = resolve_all(tiny_en.FILES)
    ear = LargeWhisper(*whisper_network(*files.values()), threads=1, name="tiny.en")
    check_words(ear.transcribe, speech)
    with pytest.raises(NotApplicable, match=r"tiny\.en does not hear 'de'"):
        ear.transcribe(speech["obama-speech"], "de")


@pytest.fixture(scope="module")
def ctranslate2_folder(tmp_path_factory) -> Path:
    """tiny.en as faster-whisper wants it: in one folder, with its vocabulary (the tokenizer's, then the times)."""
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("tiny.en") / "tiny.en"
    folder.mkdir()
    for name, file in zip(("model.bin", "config.json", "tokenizer.json"), tiny_en.FILES, strict=True):
        (folder / name).symlink_to(resolve(file))
    places = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    words = [*sorted(places, key=places.__getitem__), *(f"<|{k / 50:.2f}|>" for k in range(1501))]
    content = ("\n".join(words) + "\n").encode()
    # that of the package which the other three come from
    assert hashlib.sha256(content).hexdigest() == "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
    (folder / "vocabulary.txt").write_bytes(content)
    return folder


@pytest.mark.teaser
def test_real_speech_through_faster_whisper(ctranslate2_folder, speech):
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed (extra asr)")
    ear = recognizer(f"faster-whisper:{ctranslate2_folder}", "cpu")
    assert ear.name == f"faster-whisper:tiny.en@{FILES['whisper-tiny.en'].sha256[:12]}"
    check_words(ear.transcribe, speech)
    backwards = np.ascontiguousarray(speech["two-cities"][: 16000 * 8][::-1])
    # With the fallback to higher temperatures, which draws random numbers, the second time gave other words.
    assert ear.transcribe(backwards, "en") == ear.transcribe(backwards, "en") != ""
    assert ear.transcribe(np.zeros(16000, np.float32), "en") == ""
    with pytest.raises(NotApplicable, match="does not hear 'de'"):
        ear.transcribe(speech["obama-speech"], "de")


def test_faster_whisper_says_what_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed (extra asr)")
    with pytest.raises(SetupError, match="cannot use"):
        recognizer(f"faster-whisper:{tmp_path}", "cpu")
    with pytest.raises(MissingWeights, match="no such size"):
        recognizer("faster-whisper:no such size", "cpu")


def test_without_faster_whisper(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingPackage, match=r"jwb-dh-v1\[asr\]"):
        recognizer("faster-whisper:large-v3")


@pytest.mark.teaser
def test_recognisers_by_name(speech, tmp_path):
    toy = _module("whisper_toy")
    files = toy.write(tmp_path, seeded.seeded_state_dict(toy.tensors()), max_length=12)
    brief = dict(zip(whisper_large.FILES, files, strict=True))
    large = recognizer("whisper-large-v3", "cpu", brief, other=True)
    sound = toy.sound(2)
    assert (large.name, large.transcribe(sound, "de")) == (
        "whisper-large-v3",
        load_large(brief).transcribe(sound, "de"),
    )
    tiny = recognizer("whisper-tiny.en", "cpu")
    assert tiny.name == "whisper-tiny.en"
    assert word_errors(OBAMA, tiny.transcribe(speech["obama-speech"], "en-GB"))["wer"] == pytest.approx(3 / 17)
    with pytest.raises(NotApplicable, match="English only"):
        tiny.transcribe(speech["obama-speech"], "zh")


def own_ear(samples: np.ndarray, language: str) -> str:
    return f"{len(samples)} {language}"


def test_a_function_is_a_recogniser():
    ear = recognizer(own_ear)
    assert (ear.name, ear.transcribe(np.zeros(3, np.float32), "en")) == ("own_ear", "3 en")


@pytest.mark.parametrize("name", ["", "whisper", "faster-whisper", "faster-whisper:", "openai:large"])
def test_unknown_names(name):
    with pytest.raises(SetupError, match=r"whisper-large-v3, whisper-tiny\.en, faster-whisper:MODEL"):
        recognizer(name)


def test_missing_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JWB_CACHE", str(tmp_path))
    monkeypatch.delenv("JWB_WEIGHTS", raising=False)
    with pytest.raises(MissingWeights, match=r"jwb-dh weights fetch whisper-large-v3 whisper-large-v3/config\.json"):
        recognizer("whisper-large-v3", "cpu")
