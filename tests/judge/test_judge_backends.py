"""The Gemini and OpenAI clients, through their own SDKs, against a real server: answers and failures."""

from __future__ import annotations

import json
import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from judge_calls import BRIGHT, DARK, ENVIRONMENT, KEY, WIRES, failure, judge, prompt
from judge_server import JudgeServer
from judge_wires import content_key, tone, verdict_on, wav

from jwb_dh_v1.errors import JudgeUnavailable
from jwb_dh_v1.judge.backends.wire import LONGEST
from jwb_dh_v1.judge.request import Answer, CallFailed, Usage


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


# ---- answers


@pytest.mark.parametrize("wire", WIRES)
def test_verdict_depends_on_sound_and_order(wire):
    with JudgeServer() as server:
        asked = judge(wire, server)
        for pair, winner in (((DARK, BRIGHT), "2"), ((BRIGHT, DARK), "1"), ((DARK, tone(300, gain=0.1)), "tie")):
            answer = asked.ask(prompt(*pair))
            assert json.loads(answer.text) == verdict_on(*pair)
            assert json.loads(answer.text)["winner"] == winner
            assert (answer.finish, answer.model_served) == ("stop", asked.model)
        asked.close()
        assert len(server.requests) == 3 == sum(server.verdicts.values())


@pytest.mark.parametrize("wire", WIRES)
def test_request_holds_texts_and_sounds_in_order(wire):
    from hashlib import sha256

    with JudgeServer() as server:
        judge(wire, server).ask(prompt())
        request = server.requests[0]
    assert request.texts == ("You judge.", "Compare.", "And now")
    assert request.sounds == tuple(sha256(sound).hexdigest() for sound in (DARK, BRIGHT))
    assert request.key == content_key(request.model, request.texts, request.sounds)
    turn = request.body["contents"][0] if wire == "gemini" else request.body["messages"][1]
    kinds = [part.get("type") or next(iter(part)) for part in turn["parts" if wire == "gemini" else "content"]]
    assert kinds == (["text", "inlineData"] * 2 if wire == "gemini" else ["text", "input_audio"] * 2)
    assert turn["role"] == "user"
    assert request.headers["x-goog-api-key" if wire == "gemini" else "authorization"].endswith(KEY)


@pytest.mark.parametrize("wire", WIRES)
def test_usage_by_modality(wire):
    with JudgeServer() as server:
        answer = judge(wire, server).ask(prompt())
    assert answer.usage == Usage(
        audio_in=16, text_in=len("You judge.Compare.And now") // 4, out=len(answer.text) // 4, thoughts=17
    )


SPOILT = {  # fault: finish and reason for Gemini, for OpenAI
    "blocked": (("blocked", "PROHIBITED_CONTENT"), ("blocked", "content_filter")),
    "filtered": (("blocked", "SAFETY"), ("blocked", "content_filter")),
    "refusal": (("blocked", "RECITATION"), ("blocked", "refusal")),
    "truncated": (("truncated", "MAX_TOKENS"), ("truncated", "length")),
    "empty": (("stop", "no candidates"), ("stop", "no choices")),
    "fenced": (("stop", "STOP"), ("stop", "stop")),
    "invalid": (("stop", "STOP"), ("stop", "stop")),
    "missing": (("stop", "STOP"), ("stop", "stop")),
    "out_of_range": (("stop", "STOP"), ("stop", "stop")),
}


@pytest.mark.parametrize("wire", WIRES)
def test_spoilt_answers_arrive_as_they_are(wire):
    texts = {}
    with JudgeServer(list(SPOILT)) as server:
        asked = judge(wire, server)
        for fault, expected in SPOILT.items():
            answer = asked.ask(prompt())
            assert (answer.finish, answer.reason) == expected[WIRES.index(wire)], fault
            assert answer.usage.audio_in == 16  # was paid for
            texts[fault] = answer.text
        assert [request.fault for request in server.requests] == list(SPOILT)
    assert texts["fenced"].startswith("Here is") and "```json" in texts["fenced"]
    assert texts["blocked"] == texts["empty"] == ""
    assert json.loads(texts["out_of_range"])["score_1"] == 7
    assert "winner" not in json.loads(texts["missing"])
    for fault in ("invalid", "truncated"):
        with pytest.raises(ValueError):
            json.loads(texts[fault])


@pytest.mark.parametrize("wire", WIRES)
def test_another_model_is_told(wire):
    with JudgeServer(["other_model:gemini-3.8-flash"], served="gemini-2.5-pro-001") as server:
        asked = judge(wire, server)
        assert asked.ask(prompt()).model_served == "gemini-3.8-flash"
        assert asked.ask(prompt()).model_served == "gemini-2.5-pro-001"


def test_gemini_thoughts_are_no_answer():
    from google.genai import types

    from jwb_dh_v1.judge.backends.gemini import answer_of

    parts = [{"text": "Hm.", "thought": True}, {"text": '{"a"'}, {"text": ": 1}"}]
    reply = types.GenerateContentResponse.model_validate(
        {"candidates": [{"content": {"parts": parts}, "finishReason": "OTHER"}]}
    )
    assert answer_of(reply) == Answer('{"a": 1}', "", "stop", "OTHER")


# ---- failures

NEVER = "never"  # JudgeUnavailable
FAULTS = {  # fault: retry and after for Gemini, for OpenAI
    "429:3": ((True, 3.0),) * 2,
    "429:0.25": ((True, 0.25),) * 2,
    "429-header:7": ((True, 7.0),) * 2,
    "429-ms:250": ((True, 0.25),) * 2,
    "429-bare": ((True, None),) * 2,
    "quota": ((True, None), NEVER),
    "400": ((False, None),) * 2,
    "400-key": (NEVER, NEVER),
    "400-field": (NEVER, (False, None)),
    "401": (NEVER, NEVER),
    "402": (NEVER, NEVER),
    "403": (NEVER, NEVER),
    "404": (NEVER, NEVER),
    "408": ((True, None),) * 2,
    "500": ((True, None),) * 2,
    "503": ((True, None),) * 2,
    "504": ((True, None),) * 2,
    "timeout:5": ((True, None),) * 2,
    "reset": ((True, None),) * 2,
    "cut": ((True, None),) * 2,
    "html": ((True, None),) * 2,
    "garbage": ((True, None),) * 2,
}


@pytest.mark.parametrize("wire", WIRES)
def test_every_failure_says_whether_and_when(wire, caplog):
    """One request each (the SDKs do not retry), and the key is in no text that could be kept."""
    caplog.set_level(logging.DEBUG)
    with JudgeServer(list(FAULTS)) as server:
        asked = judge(wire, server, timeout_s=0.4)
        for number, (fault, expected) in enumerate(FAULTS.items()):
            start = time.monotonic()
            error = failure(asked.ask, prompt())
            assert time.monotonic() - start < 4, fault  # not the 5 s after which the server would answer
            assert len(server.requests) == number + 1, fault
            wanted = expected[WIRES.index(wire)]
            if wanted == NEVER:
                assert isinstance(error, JudgeUnavailable), fault
            else:
                assert isinstance(error, CallFailed), fault
                assert (error.retry, error.after) == wanted, fault
            if fault[0] == "4":
                assert "***" in str(error), fault  # the server did quote it
                assert f"Fault {fault.partition(':')[0]}." in str(error) or fault in ("400-key", "400-field")
            assert_no_key(error)
            assert len(str(error)) < LONGEST + 250
        assert not server.answered
        assert json.loads(asked.ask(prompt()).text)["winner"] == "2"  # the client outlives all of it
    assert caplog.records  # both SDKs do log at this level
    assert all(KEY not in record.getMessage() for record in caplog.records)
    assert KEY not in repr(asked) + str(asked.settings)


def assert_no_key(error):
    """Not in the error, nor in anything that hangs on it."""
    chain = [error]
    while chain[-1] is not None:
        assert KEY not in str(chain[-1]) + repr(chain[-1]) + repr(vars(chain[-1]))
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    assert KEY not in "".join(traceback.format_exception(error))
    assert len(chain) == 2, "the SDK's error hangs on ours"


def test_404_names_the_setting():
    with JudgeServer("always:404") as server:
        for wire in WIRES:
            text = str(failure(judge(wire, server).ask, prompt()))
            assert "--model" in text and "retired" in text and judge(wire, server).model in text


@pytest.mark.parametrize("wire", WIRES)
def test_503_twice_then_fine(wire):
    with JudgeServer(["503", "503"]) as server:
        asked = judge(wire, server)
        assert failure(asked.ask, prompt()).retry
        assert failure(asked.ask, prompt()).retry
        assert asked.ask(prompt()).finish == "stop"
        assert [request.status for request in server.requests] == [503, 503, 200]


@pytest.mark.parametrize("wire", WIRES)
def test_date_to_wait_for(wire):
    with JudgeServer("always:429-date:30") as server:
        assert 25 < failure(judge(wire, server).ask, prompt()).after <= 30


@pytest.mark.parametrize("wire", WIRES)
def test_no_server(wire):
    with JudgeServer() as server:
        asked = judge(wire, server)
    error = failure(asked.ask, prompt())
    assert error.retry and error.after is None
    assert_no_key(error)


@pytest.mark.parametrize("wire", WIRES)
def test_wrong_key(wire):
    with JudgeServer(key="another") as server:
        error = failure(judge(wire, server).ask, prompt())
    assert isinstance(error, JudgeUnavailable) and "API_KEY" in str(error)
    assert_no_key(error)


@pytest.mark.parametrize("wire", WIRES)
def test_server_refuses_other_sounds(wire):
    """What the tests rest on: the server does read the recordings."""
    with JudgeServer() as server:
        asked = judge(wire, server)
        for data in (wav(np.zeros(99), rate=24000), wav(np.zeros(98), channels=2), DARK[:-100], b"RIFF"):
            error = failure(asked.ask, prompt(first=data))
            assert not error.retry and "400" in str(error)
        assert not server.answered


@pytest.mark.parametrize("wire", WIRES)
def test_threads_at_once(wire):
    pairs = [(tone(300 + 40 * number), tone(2500 - 40 * number)) for number in range(48)]
    with JudgeServer("random:0.3:429,503,reset,cut,empty,fenced", seed=1, latency=0.02) as server:
        asked = judge(wire, server)

        def one(pair):
            try:
                return asked.ask(prompt(*pair))
            except CallFailed as error:
                assert error.retry
                return None

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(one, pairs))
        assert 2 <= server.most_at_once <= 8  # 8 unless the machine is busy
        assert len(server.requests) == len(pairs)
        assert sum(server.answered.values()) == sum(a is not None and a.reason[:3] != "no " for a in answers)
        faults = {request.sounds: request.fault for request in server.requests}
        assert 5 <= sum(map(bool, faults.values())) <= 25
    good = [(pair, answer) for pair, answer in zip(pairs, answers, strict=True) if answer and answer.text[:1] == "{"]
    assert len(good) >= 20
    assert all(json.loads(answer.text) == verdict_on(*pair) for pair, answer in good)  # each got its own answer
