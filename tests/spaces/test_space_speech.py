"""Speech in the demo Space: the baseline beside the video, and the judge from a visitor's key to the verdict."""

from __future__ import annotations

import importlib
import json
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install -e '.[demo]'")

from judge_server import JudgeServer
from judge_wires import RATE, tone, wav
from space_server import DEMO, Server, Visitor, given, running, write_video
from test_space import left_after, real  # noqa: F401 - fixture

pytestmark = pytest.mark.teaser
KEY = "sk-visitor-4711-of-this-test"
QUOTED = r"You sent the key \*\*\*"  # the judge on loopback quotes the key in every error
HIGH, LOW = tone(1841), tone(358)  # the judge on loopback finds the brighter one better


@pytest.fixture
def speech_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return importlib.import_module("speech_comparison")


def sound(path: Path, seconds: float, gain: float) -> Path:
    path.write_bytes(wav(gain * np.sin(2 * np.pi * 500 * np.arange(int(RATE * seconds)) / RATE)))
    return path


def test_loudness_and_length_stand_beside_each_other(speech_comparison: Any, tmp_path: Path) -> None:
    loud, quiet = sound(tmp_path / "a.wav", 4, 0.4), sound(tmp_path / "b.wav", 2, 0.1)
    found = speech_comparison.compare(loud, quiet, None)
    assert [found[side]["seconds"] for side in ("generated", "baseline")] == [4, 2]
    apart = found["generated"]["lufs"] - found["baseline"]["lufs"]
    # Four times the amplitude; the blocks of 0.4 s at the ends hold less, and 16 bits round.
    assert apart == pytest.approx(20 * math.log10(4), abs=0.05)
    assert found["remarks"] == [
        f"The video is {apart:.1f} LU louder than the baseline; a judge hears both at -23 LUFS.",
        "The video's sound lasts 4.0 s, the baseline's 2.0 s: do both read the same text?",
    ]
    assert "wer" not in found["generated"], "no words are compared without a transcript"
    same = speech_comparison.compare(loud, loud, None)
    assert same["remarks"] == ["Both have the same sound: a judge would not be asked, it is a tie."]


def test_silence_loses_all_words(speech_comparison: Any, tmp_path: Path) -> None:
    mute, quiet = write_video(tmp_path / "a.mp4", 5), sound(tmp_path / "b.wav", 1, 0)
    found = speech_comparison.compare(mute, quiet, "hello good people")
    for side, seconds in (("generated", None), ("baseline", 1)):
        facts = found[side]
        assert (facts["seconds"], facts["lufs"], facts["silent"]) == (seconds, None, True)
        assert (facts["wer"], facts["deletions"], facts["words"]) == (1, 3, 3)
    assert "Nothing is to be heard in the baseline" in found["remarks"][-1]
    known = found["generated"] | {"wer": 0.0, "deletions": 0}
    again = speech_comparison.compare(mute, quiet, "hello good people", known)
    assert again["generated"]["wer"] == 0, "what was heard before is not heard again"
    assert again["remarks"][0] == "Word errors: 0.0 % in the video, fewer than in the baseline (100.0 %)."
    assert speech_comparison.compare(mute, quiet, "!?")["remarks"][-1].startswith("Words were not compared: ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("space"), {"JWB_DEMO_ALLOW_BASE_URL": "1"}) as found:
        yield found


@pytest.fixture
def visitor(server: Server) -> Visitor:
    return Visitor(server)


def test_the_baselines_words_are_the_cores(visitor: Visitor, real: dict[str, Any], whisper: Any) -> None:  # noqa: F811
    from jwb_dh_v1.judge.request import prepare
    from jwb_dh_v1.media.audio import decode_audio
    from jwb_dh_v1.metrics.speech import word_errors

    source, text = real["video"]["bytes"], real["transcript"]["text"]
    ours = decode_audio(source)
    assert ours is not None
    half = ours.cut(0, ours.duration / 2).wav()
    theirs = decode_audio(half)
    assert theirs is not None
    video = given(visitor.upload("a.mp4", source))
    said, answer = visitor.score(video, text=text, baseline=given(visitor.upload("b.wav", half)))
    assert said == "complete", answer
    found = answer[0]["speech"]
    for side, audio in (("generated", ours), ("baseline", theirs)):
        core = word_errors(text, whisper.transcribe(audio.mono(16000)))
        assert {name: found[side][name] for name in ("wer", "words", "hypothesis")} == {
            name: core[name] for name in ("wer", "words", "hypothesis")
        }
        assert found[side]["lufs"] == prepare(audio).lufs
    assert found["baseline"]["deletions"] > found["generated"]["deletions"], "half of the words are not there"
    assert left_after(visitor.server) == set()
    video = given(visitor.upload("a.mp4", source))
    assert "speech" not in visitor.score(video, text=text)[1][0], "nothing is added without a baseline"


REFUSED = {
    "no-sound": (
        "b.mp4",
        lambda folder: write_video(folder / "b.mp4", 5).read_bytes(),
        "The baseline has no sound: b.mp4",
    ),
    "too-long": ("b.wav", lambda folder: sound(folder / "b.wav", 66, 0.1).read_bytes(), "is longer than 60 s"),
    "broken": ("b.wav", lambda folder: b"RIFF" + bytes(40), "b.wav"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_baseline_has_the_same_limits(visitor: Visitor, tmp_path: Path, name: str) -> None:
    title, content, sentence = REFUSED[name]
    video = given(visitor.upload("a.mp4", write_video(tmp_path / "a.mp4", 20).read_bytes()))
    said, answer = visitor.score(video, baseline=given(visitor.upload(title, content(tmp_path))))
    assert said == "error"
    assert sentence in answer["error"]
    assert "/" not in answer["error"]
    assert left_after(visitor.server) == set()


def ask(visitor: Visitor, judge: JudgeServer, wire: str, ours: bytes = HIGH, theirs: bytes = LOW) -> tuple[str, Any]:
    two = [given(visitor.upload(name, content)) for name, content in (("a.wav", ours), ("b.wav", theirs))]
    model, url = ("", judge.url) if wire == "gemini" else ("gpt-audio", judge.openai_url)
    said, answer = visitor.call("judge", *two, "hello there", wire, model, KEY, url)
    assert KEY not in json.dumps(answer)
    assert KEY not in visitor.server.log.read_text()
    assert visitor.made() == visitor.before
    return said, answer


@pytest.mark.parametrize("wire", ["gemini", "openai"])
def test_a_judge_is_asked_in_both_orders(visitor: Visitor, wire: str) -> None:
    with JudgeServer("429:0.1", key=KEY) as judge:
        said, answer = ask(visitor, judge, wire)
        assert said == "complete", answer
        verdict = answer[0]
        assert (verdict["outcome"], verdict["sentence"]) == ("win", "The generated recording wins in both orders.")
        assert [(one["order"], one["winner"], one["outcome"]) for one in verdict["judgements"]] == [
            ("system_first", "1", "win"),
            ("baseline_first", "2", "win"),
        ]
        assert [request.status for request in judge.requests] == [429, 200, 200], "it waits as the server asks"
        first, second = (request.sounds for request in judge.requests[1:])
        assert first == second[::-1] and first[0] != first[1]
        assert "hello there" in " ".join(judge.requests[1].texts)
        assert ask(visitor, judge, wire, LOW, HIGH)[1][0]["outcome"] == "loss"
        assert ask(visitor, judge, wire, tone(500), tone(505))[1][0]["outcome"] == "tie"
        count = len(judge.requests)
        assert "judge was not asked" in ask(visitor, judge, wire, HIGH, HIGH)[1][0]["sentence"]
        assert len(judge.requests) == count


SENTENCES = {  # fault: the sentence, and the largest number of calls that it may cost
    "always:401": (f"The provider does not accept this key for .*{QUOTED}", 1),
    "always:403": (f"The provider does not accept this key for .*{QUOTED}", 1),
    "always:404": (f"The provider has no model .*retired.*{QUOTED}", 1),
    "always:429:3000": (f"takes no more requests with this key for now; it wants a pause of 3000 s.*{QUOTED}", 2),
    "always:503": (f"cannot answer just now; try again later.*{QUOTED}", 4),
    "always:blocked": ("The provider's filter let no verdict on these recordings through", 4),
    "always:truncated": ("The judge's answer ended before its verdict", 4),
    "always:invalid": ("holds no verdict that can be read", 4),
    "always:reset": ("The connection to the judge broke", 4),
    "always:other_model:another": ("'another' answered, not", 1),
}


@pytest.mark.parametrize("wire", ["gemini", "openai"])
@pytest.mark.parametrize("fault", SENTENCES)
def test_what_goes_wrong_is_one_sentence(visitor: Visitor, wire: str, fault: str) -> None:
    with JudgeServer(fault) as judge:
        said, answer = ask(visitor, judge, wire)
        sentence, calls = SENTENCES[fault]
        assert said == "error"
        assert re.search(sentence, answer["error"]), answer["error"]
        assert len(judge.requests) <= calls
    for word in ("--", "_API_KEY", "Traceback", "\n", "/usr"):
        assert word not in answer["error"]


def test_orders_that_disagree_are_unclear(visitor: Visitor) -> None:
    with JudgeServer({1: "blocked", 2: "blocked"}) as judge:
        said, answer = ask(visitor, judge, "gemini")
        assert said == "complete", answer
        assert answer[0]["outcome"] == "unclear"
        assert "win" in answer[0]["sentence"] and "no answer" in answer[0]["sentence"]


def test_the_key_is_in_no_file_while_a_judge_thinks(visitor: Visitor) -> None:
    seen, found = 0, []

    def look() -> None:
        nonlocal seen
        for place in (visitor.server.work, visitor.server.temporary, DEMO):
            for path in place.rglob("*"):
                try:
                    seen += 1
                    found.extend([path] if path.is_file() and KEY.encode() in path.read_bytes() else [])
                except FileNotFoundError:  # gone meanwhile
                    continue

    with JudgeServer(latency=1.0) as judge:
        asking = threading.Thread(target=ask, args=(visitor, judge, "gemini"))
        asking.start()
        while asking.is_alive():
            look()
            asking.join(0.1)
        assert len(judge.requests) == 2
    assert seen and not found


@pytest.mark.parametrize(("key", "model", "sentence"), [
    (" ", "m", "your own key"), ("two words", "m", "This is no key"), ("k", "", "Name the model"),
])  # fmt: skip
def test_what_cannot_be_asked_is_not(visitor: Visitor, key: str, model: str, sentence: str) -> None:
    two = [given(visitor.upload(name, content)) for name, content in (("a.wav", HIGH), ("b.wav", LOW))]
    with JudgeServer() as judge:
        said, answer = visitor.call("judge", *two, "hello", "openai", model, key, judge.openai_url)
        assert (said, judge.requests) == ("error", [])
    assert sentence in answer["error"]
