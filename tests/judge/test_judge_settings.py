"""What the clients send and refuse: settings, keys, addresses; and the server of these tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from judge_calls import BRIGHT, DARK, ENVIRONMENT, KEY, WIRES, failure, judge, prompt
from judge_server import RANDOM, JudgeServer, judge_process, stats_of
from judge_wires import brightness, content_key, tone, verdict_on, wav

from jwb_dh_v1.errors import JudgeUnavailable, MissingPackage, SetupError
from jwb_dh_v1.judge.backends import PAPER, backend
from jwb_dh_v1.judge.backends.wire import LONGEST, Secret, address, waiting_time
from jwb_dh_v1.judge.request import Answer, Usage
from jwb_dh_v1.judge.rubric import SCHEMA


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


# ---- settings


@pytest.mark.parametrize(
    ("model", "given", "sent"),
    [
        ("gemini-2.5-pro", {}, {"temperature": 0.0, "topP": 0.9, "thinkingBudget": 256}),
        ("gemini-2.5-pro", {"thinking_budget": 128}, {"temperature": 0.0, "topP": 0.9, "thinkingBudget": 128}),
        ("gemini-2.5-pro", {"thinking_budget": -1}, {"temperature": 0.0, "topP": 0.9, "thinkingBudget": -1}),
        ("models/gemini-2.5-flash", {"thinking_budget": 0}, {"temperature": 0.0, "topP": 0.9, "thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", {}, {"temperature": 0.0, "topP": 0.9, "thinkingBudget": 512}),
        ("gemini-2.0-flash", {"temperature": 0.5}, {"temperature": 0.5, "topP": 0.9}),
        ("gemini-3-pro", {}, {"thinkingLevel": "LOW"}),
        ("gemini-3.8-flash", {"thinking_level": "high"}, {"thinkingLevel": "HIGH"}),
        ("gemini-3.8-flash", {"temperature": 1}, {"thinkingLevel": "LOW", "temperature": 1.0}),
        ("gemini-pro-latest", {}, {}),
    ],
)
def test_gemini_families(model, given, sent):
    with JudgeServer() as server:
        asked = backend("gemini", model, api_key=KEY, base_url=server.url, **given)
        asked.ask(prompt())
        request = server.requests[0]
    assert request.path == f"/v1beta/models/{model.removeprefix('models/')}:generateContent"
    config = request.body["generationConfig"]
    thinking = config.pop("thinkingConfig", {})
    # The SDK writes the fields of this one block in snake case.
    thinking = {
        {"thinking_budget": "thinkingBudget", "thinking_level": "thinkingLevel"}.get(k, k): v
        for k, v in thinking.items()
    }
    assert config.pop("responseMimeType") == "application/json"
    assert list(config.pop("responseJsonSchema")["properties"]) == list(SCHEMA["properties"])
    assert config.pop("maxOutputTokens") == 8192
    assert {**config, **thinking} == sent
    assert {setting["category"].removeprefix("HARM_CATEGORY_") for setting in request.body["safetySettings"]} == {
        "HARASSMENT",
        "HATE_SPEECH",
        "SEXUALLY_EXPLICIT",
        "DANGEROUS_CONTENT",
    }
    assert {setting["threshold"] for setting in request.body["safetySettings"]} == {"BLOCK_NONE"}
    assert "tools" not in request.body
    names = {"topP": "top_p", "thinkingBudget": "thinking_budget", "thinkingLevel": "thinking_level"}
    told = {names.get(name, name): value.lower() if isinstance(value, str) else value for name, value in sent.items()}
    assert asked.settings == {"api_version": "v1beta", "max_output_tokens": 8192, **told}
    json.dumps(asked.settings)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("gemini-2.5-pro", {"thinking_budget": 0}),
        ("gemini-2.5-pro", {"thinking_budget": 127}),
        ("gemini-2.5-pro-preview-06-05", {"thinking_budget": 0}),
        ("gemini-2.5-pro", {"thinking_budget": 32769}),
        ("gemini-2.5-flash-lite", {"thinking_budget": 256}),
        ("gemini-2.5-pro", {"thinking_level": "low"}),
        ("gemini-3-pro", {"thinking_budget": 256}),
        ("gemini-3-pro", {"thinking_level": "very"}),
    ],
)
def test_gemini_refuses_settings_of_other_families(model, given):
    with pytest.raises(SetupError, match="thinking") as caught:
        backend("gemini", model, api_key=KEY, **given)
    assert not isinstance(caught.value, JudgeUnavailable)


def test_gemini_api_version_is_sent_and_told():
    with JudgeServer() as server:
        asked = judge("gemini", server, api_version="v1")
        asked.ask(prompt())
        assert server.requests[0].path.startswith("/v1/models/")
    assert asked.settings["api_version"] == "v1"


def test_gemini_environment_chooses_no_other_api(monkeypatch):
    for name, value in {
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_GENAI_USE_ENTERPRISE": "true",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": "l",
        "GOOGLE_GENAI_API_VERSION": "v1alpha",
    }.items():
        monkeypatch.setenv(name, value)
    with JudgeServer() as server:
        judge("gemini", server).ask(prompt())
        assert server.requests[0].path == "/v1beta/models/gemini-2.5-pro:generateContent"


def test_gemini_sends_nothing_that_is_too_long():
    sound = tone(300, seconds=2.0)
    with JudgeServer() as server:
        asked = judge("gemini", server, inline_limit=110_000)
        error = failure(asked.ask, prompt(sound, sound))  # 2 x 64,044 bytes are 2 x 85,392 in base64
        assert not error.retry and "too long" in str(error) and not server.requests
        asked.ask(prompt(sound, DARK))  # 85,392 + 10,728 and some 5,000 of text
        size = int(server.requests[0].headers["content-length"])
    from jwb_dh_v1.judge.backends.gemini import request_size

    assert size < request_size(prompt(sound, DARK)) < size + 4096


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"temperature": 0.0, "max_tokens": 4096}),
        ({"temperature": None, "max_tokens": None}, {}),
        ({"json_mode": "json_object"}, {"response_format": {"type": "json_object"}}),
        (
            {"json_mode": "json_schema"},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}},
        ),
    ],
)
def test_openai_body(given, sent):
    with JudgeServer() as server:
        asked = judge("openai", server, **given)
        asked.ask(prompt())
        body = server.requests[0].body
    assert body.pop("model") == "audio-model"
    assert body.pop("messages")[0] == {"role": "system", "content": "You judge."}
    assert body == ({"temperature": 0.0, "max_tokens": 4096} | sent if "json_mode" in given else sent)
    assert asked.settings == {"temperature": 0.0, "max_tokens": 4096, "json_mode": "none", **given}


def test_openai_server_without_key():
    with JudgeServer() as server:
        backend("openai", "m", base_url=server.openai_url).ask(prompt())
        assert server.requests[0].headers["authorization"] == "Bearer none"


def test_openai_answer_without_details():
    """vLLM counts no modalities and may leave out fields."""
    from openai.types.chat import ChatCompletion

    from jwb_dh_v1.judge.backends.openai_compatible import answer_of

    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    counted = ChatCompletion.construct(
        model="m", choices=[choice], usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    )
    assert answer_of(counted) == Answer("x", "m", "stop", "stop", Usage(text_in=5, out=2))
    assert answer_of(ChatCompletion.construct(choices=[choice])) == Answer("x", "", "stop", "stop")


# ---- keys, addresses, registry


def test_keys_come_from_the_environment(monkeypatch):
    with JudgeServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "one")
        backend("gemini", base_url=server.url).ask(prompt())
        monkeypatch.setenv("GOOGLE_API_KEY", "two\n")
        backend("gemini", base_url=server.url).ask(prompt())
        monkeypatch.setenv("OPENAI_API_KEY", "three")
        monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
        backend("openai", "m").ask(prompt())
        sent = [
            request.headers.get("x-goog-api-key") or request.headers["authorization"] for request in server.requests
        ]
        assert sent == ["one", "two", "Bearer three"]
        assert server.requests[0].model == PAPER == "gemini-2.5-pro"


def test_no_key_at_all():
    with pytest.raises(JudgeUnavailable, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        backend("gemini")
    with pytest.raises(JudgeUnavailable, match="OPENAI_API_KEY"):
        backend("openai", "gpt-audio")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "nul\0"])
def test_key_that_no_header_carries(key):
    for wire in WIRES:
        with pytest.raises(JudgeUnavailable) as caught:
            backend(wire, "gemini-2.5-pro", api_key=key)
        assert key not in str(caught.value)


def test_secret_is_replaced_before_the_text_is_cut():
    secret = Secret(KEY, ("X",))
    for lead in range(LONGEST - len(KEY), LONGEST + 1):
        hidden = secret.out_of("a" * lead + KEY + "b" * 400)
        assert "AIza" not in hidden and len(hidden) == LONGEST
    assert KEY not in repr(secret)
    assert Secret(None, ("X",), default="none").out_of("none of it\n is secret") == "none of it is secret"


def test_waiting_time():
    assert waiting_time({}) is None
    assert waiting_time({"retry-after": "soon"}) is None
    assert waiting_time({"retry-after": "-1"}) == 0
    assert waiting_time({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert waiting_time({"retry-after": "9", "retry-after-ms": "1500"}) == 1.5


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "host:80", "file:///etc", "http://", "http://u:p@host", "http://h/?key=1", "http://h/#a"]
)
def test_addresses_that_are_refused(url):
    for wire in WIRES:
        with pytest.raises(SetupError, match="base URL"):
            backend(wire, "gemini-2.5-pro", api_key=KEY, base_url=url)


def test_addresses_that_are_taken():
    assert address(None) is None
    assert address("https://[::1]:8000/v1/") == "https://[::1]:8000/v1"


def test_registry():
    with pytest.raises(SetupError, match="gemini, openai, local"):
        backend("claude")
    for name in ("openai", "local"):
        with pytest.raises(SetupError, match="--model"):
            backend(name)
    with pytest.raises(SetupError, match=r"'gemini' has no setting topp; it has api_key, .*top_p"):
        backend("gemini", api_key=KEY, topp=0.9)
    with pytest.raises(SetupError, match="json_schema, json_object, none"):
        backend("openai", "m", api_key=KEY, json_mode="xml")


@pytest.mark.parametrize(("wire", "package"), [("gemini", "google.genai"), ("openai", "openai")])
def test_missing_package_names_the_extra(wire, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=r"jwb-dh-v1\[judge\]"):
        backend(wire, "gemini-2.5-pro", api_key=KEY)


def test_sdks_are_imported_late():
    code = (
        "import sys\n"
        "from jwb_dh_v1.judge.backends import gemini, local, openai_compatible\n"
        "assert not {'google.genai', 'openai', 'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the server of these tests


def test_rule_of_the_server():
    assert brightness(tone(2000, 1.0)) == pytest.approx(4 * np.sin(np.pi * 2000 / 16000) ** 2, rel=1e-3)
    assert brightness(wav(np.zeros(10))) == 0
    assert verdict_on(BRIGHT, wav(np.zeros(10)))["winner"] == "1"
    one, two = verdict_on(DARK, BRIGHT), verdict_on(BRIGHT, DARK)
    assert (one["winner"], one["score_1"], one["score_2"]) == ("2", two["score_2"], two["score_1"]) == ("2", 0, 3)
    assert verdict_on(tone(300, gain=0.9), tone(300, gain=0.05))["winner"] == "tie"


def test_random_faults_are_of_content_not_of_order():
    keys = [content_key("m", [str(number)], []) for number in range(2000)]
    server, same, other = (JudgeServer("random:0.3", seed=seed) for seed in (7, 7, 8))
    faults = [server.fault_of(number, key, 0) for number, key in enumerate(keys)]
    assert faults == [same.fault_of(0, key, 0) for key in keys]
    assert faults != [other.fault_of(0, key, 0) for key in keys]
    assert faults != [server.fault_of(0, key, 1) for key in keys]
    assert 0.27 < sum(map(bool, faults)) / len(keys) < 0.33
    assert set(faults) == {"", *RANDOM}
    for one in (server, same, other):
        one.server.server_close()


def test_server_as_a_process(tmp_path):
    with judge_process(tmp_path, "--faults", "503,fenced", "--served", "x") as url:
        asked = backend("openai", "m", base_url=f"{url}/v1")
        assert failure(asked.ask, prompt()).retry
        assert asked.ask(prompt()).model_served == "x"
        asked.ask(prompt())
        stats = stats_of(url)
    assert stats["requests"] == 3
    assert stats["faults"] == {"503": 1, "fenced": 1, "": 1}
    assert list(stats["answered"].values()) == list(stats["verdicts"].values()) == [2]


def test_server_is_quick():
    """Two clips of 10 s; a thousand pairs in both orders take 2,000 of these. Observed: 20 ms, half of it the SDK's."""
    first, second = tone(300, 10.0), tone(3000, 10.0)
    with JudgeServer() as server:
        asked = judge("openai", server)
        asked.ask(prompt())
        start = time.perf_counter()
        for number in range(20):
            asked.ask(prompt(first, second, text=str(number)))
        assert (time.perf_counter() - start) / 20 < 1  # beside other tests
