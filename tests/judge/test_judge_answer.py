"""What comes back: answers and what is none, the model that served, and what it costs."""

import json

import pytest
from judge_material import GOOD, question, sine

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge import cost
from jwb_dh_v1.judge.asking import read, same_model
from jwb_dh_v1.judge.request import Answer, Usage, prepare
from jwb_dh_v1.judge.rubric import prompt

# --- answers ---------------------------------------------------------------------------------------------------------


def verdict(text, **more):
    return read(Answer(text if isinstance(text, str) else json.dumps(text), "m", **more))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        json.dumps(GOOD, indent=2),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"```\n{json.dumps(GOOD)}```",
        f"Here is my judgement:\n\n{json.dumps(GOOD)}\n\nI hope that helps {{really}}!",
        f"<think>Is {{1}} better? {{}} Perhaps.</think>{json.dumps(GOOD)}",
        "\ufeff \n" + json.dumps(GOOD),
        json.dumps([GOOD]),
        "{" + json.dumps(GOOD) + "}",
        json.dumps({**GOOD, "confidence": 0.9}),
        json.dumps({**GOOD, "score_1": 3.0}),
    ],
)
def test_one_whole_object_is_an_answer_whatever_stands_around_it(text):
    got = verdict(text)
    assert (got.status, got.winner, got.score_1, got.score_2, got.reason) == ("ok", "1", 3, 2, "")
    assert type(got.score_1) is int and got.raw_text == text
    assert got.reasoning == {k: GOOD[k] for k in ("reasoning_1", "reasoning_2", "comparison")}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("Recording 1 wins.", "no whole JSON object"),
        (json.dumps(GOOD)[:-1], "no whole JSON object"),
        (json.dumps(GOOD).replace("{", "{'"), "no whole JSON object"),
        (json.dumps(GOOD) + json.dumps({**GOOD, "winner": "2"}), "2 answers"),
        (json.dumps(GOOD)[:-1] + ', "winner": "2"}', "twice"),
        ({k: v for k, v in GOOD.items() if k != "winner"}, "missing: winner"),
        ({}, "missing: reasoning_1"),
        ({**GOOD, "score_1": "3"}, "score_1 is not of type integer"),
        ({**GOOD, "score_1": True}, "score_1"),
        ({**GOOD, "score_2": 2.5}, "score_2"),
        ({**GOOD, "score_2": None}, "score_2"),
        ({**GOOD, "winner": 1}, "winner is not of type string"),
        ({**GOOD, "comparison": ["a"]}, "comparison"),
        (json.dumps(GOOD).replace(" 3,", " NaN,"), "NaN"),
        (json.dumps(GOOD).replace(" 3,", " 1e999,"), "score_1"),
        (json.dumps(GOOD).replace(" 3,", " " + "9" * 5000 + ","), "no whole"),
        ("[" * 100_000, "no whole"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("{ " * 100_000 + json.dumps(GOOD), "no whole"),
    ],
)
def test_what_is_no_answer_is_a_parse_error_with_its_reason(text, reason):
    got = verdict(text)
    assert got.status == "parse_error" and reason in got.reason
    assert (got.winner, got.score_1, got.score_2, got.reasoning) == (None, None, None, {})


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"score_1": 4}, "score_1 is 4, not 0 to 3"),
        ({"score_2": -1}, "score_2 is -1"),
        ({"score_2": 10**400}, "score_2 is 1000"),
        ({"winner": "0"}, "winner is '0', not one of 1, 2, tie"),
        ({"winner": "Tie"}, "'Tie'"),
        ({"winner": "recording 1 " * 999}, "winner is"),
    ],
)
def test_values_that_the_schema_forbids_are_out_of_range(change, reason):
    got = verdict({**GOOD, **change})
    assert got.status == "out_of_range" and reason in got.reason and len(got.reason) < 100 and got.winner is None


def test_every_allowed_value_is_taken_and_contradictions_are_too():
    for score in range(4):
        for winner in ("1", "2", "tie"):
            got = verdict({**GOOD, "score_1": score, "winner": winner})
            assert (got.status, got.score_1, got.winner) == ("ok", score, winner)


@pytest.mark.parametrize("finish", ["blocked", "truncated"])
def test_the_servers_word_stands_above_the_text(finish):
    got = verdict(GOOD, finish=finish, reason="SAFETY")
    assert (got.status, got.reason, got.winner) == (finish, "SAFETY", None)
    assert verdict("", finish=finish).reason == finish


@pytest.mark.parametrize(
    "asked, served, pattern, same",
    [
        ("gemini-2.5-pro", "gemini-2.5-pro", None, True),
        ("gemini-2.5-pro", "models/gemini-2.5-pro", None, True),
        ("models/gemini-2.5-pro", "gemini-2.5-pro-001", None, True),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro", None, True),
        ("gpt-audio", "gpt-audio-2025-08-28", None, True),
        ("gemini-2.5-pro-preview", "gemini-2.5-pro-preview-05-06", None, True),
        ("Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct", None, True),
        ("gemini-2.5-pro", "", None, True),
        ("gemini-2.5-pro", "gemini-3.8-flash", None, False),
        ("gemini-2.5-flash", "gemini-2.5-flash-lite", None, False),
        ("gpt-audio", "gpt-audio-mini-2025-10-06", None, False),
        ("gemini-2.5-pro", "gemini-2x5-pro", None, False),
        ("gemini-2.5-pro", "my-gemini-2.5-pro", None, False),
        ("gemini-flash-latest", "gemini-3.8-flash", "gemini-3*", True),
        ("gemini-flash-latest", "models/gemini-4", "gemini-3*", False),
    ],
)
def test_which_model_is_the_same(asked, served, pattern, same):
    assert same_model(asked, served, pattern) is same


# --- cost ------------------------------------------------------------------------------------------------------------


def test_a_price_counts_thoughts_as_output_and_audio_apart():
    assert cost.Price(1, 2, 10).of(Usage(audio_in=100, text_in=1000, out=50, thoughts=50)) == pytest.approx(2.2e-3)


@pytest.mark.parametrize(
    "backend, model, out",
    [
        ("gemini", "gemini-2.5-pro", 10.0),
        ("gemini", "models/gemini-2.5-pro-001", 10.0),
        ("gemini", "gemini-2.5-flash", 2.5),
        ("gemini", "gemini-2.5-flash-lite", 0.4),
        ("local", "Qwen/Qwen2-Audio-7B-Instruct", 0.0),
        ("replay", "anything", 0.0),
    ],
)
def test_known_prices(backend, model, out):
    assert cost.price_of(backend, model).out == out


def test_an_unknown_price_is_not_guessed():
    assert cost.price_of("openai", "gpt-audio") is None
    with pytest.raises(SetupError, match="--price"):
        cost.Budget(1.0, None)
    with pytest.raises(SetupError, match="--max-cost"):
        cost.Budget(-1.0, cost.FREE)


def test_prices_are_read_from_the_command_line():
    assert cost.parse_price("1.25,10") == cost.Price(1.25, 1.25, 10, "given")
    assert cost.parse_price("0.3, 1 ,2.5") == cost.Price(0.3, 1, 2.5, "given")
    for bad in ("", "1", "a,b", "1,-2", "1,2,3,4", "nan,1", "inf,1"):
        with pytest.raises(SetupError, match="is no price"):
            cost.parse_price(bad)


def test_the_estimate_of_a_call_is_about_that_of_the_specification():
    speech = prepare(sine(10))
    usage = cost.expected(prompt("word " * 40, "en", "general", speech, speech))
    assert usage.audio_in == 640 and 700 < usage.text_in < 2000 and usage.out + usage.thoughts == 1156
    assert cost.PRICES["gemini-2.5-pro"].of(usage) == pytest.approx(0.0145, abs=0.002)
    assert 8 < 660 * cost.PRICES["gemini-2.5-pro"].of(usage) < 12  # "about $10" for 330 clips in both orders


def test_the_worst_case_lies_above_the_estimate_and_hangs_on_the_limit():
    asked = question()
    likely, worst = cost.expected(asked), cost.at_most(asked, {"max_output_tokens": 4096})
    assert worst.out == 4096 and worst.text_in > 2 * likely.text_in and worst.audio_in == 2 * likely.audio_in
    assert cost.at_most(asked, {"max_tokens": None}).out == cost.OUT_TOKENS_AT_MOST


def test_a_budget_counts_promises():
    budget = cost.Budget(1.0, cost.Price(0, 0, 1))
    assert budget.admits(0.6)
    budget.reserve(0.6)
    assert not budget.admits(0.5)
    budget.settle(0.6, 0.1)
    assert budget.admits(0.9) and budget.spent == pytest.approx(0.1) and budget.promised == pytest.approx(0)
    assert cost.Budget(None, None).admits(1e9)


def test_what_a_server_does_not_count_is_guessed():
    guess = Usage(1, 2, 3, 4)
    assert cost.counted(Usage(), guess, 2) == Usage(2, 4, 6, 8)
    assert cost.counted(Usage(), guess, 0) == Usage()
    assert cost.counted(Usage(out=5), guess, 2) == Usage(out=5)
