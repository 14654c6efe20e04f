"""What a run costs and writes down: budgets, estimates, records without keys."""

import json
import random
import time
from collections import Counter

import pytest
from simulated_judge import BASELINE, Scripted, SimulatedJudge, lines, pairs, run, sound, verdict

from jwb_dh_v1.errors import JudgeModelMismatch, SetupError
from jwb_dh_v1.judge.cost import Price
from jwb_dh_v1.judge.log import Log, records
from jwb_dh_v1.judge.question import JudgeItem, JudgeSettings, judged
from jwb_dh_v1.judge.request import Answer, CallFailed, Usage
from jwb_dh_v1.judge.rubric import JWB_R1
from jwb_dh_v1.judge.run import dry_run

# --- money -----------------------------------------------------------------------------------------------------------


class Greedy(SimulatedJudge):
    """Takes any number of tokens up to its limit."""

    text = ""

    def answer(self, prompt, question):
        time.sleep(0.001)
        usage = Usage(0, 100, random.Random(f"{question}").randint(1, 1000), 0)
        return Answer(self.text or super().answer(prompt, question).text, self.served, usage=usage)


@pytest.mark.parametrize("limit", [0.0, 0.005, 0.05, 0.2])
def test_a_budget_is_never_passed(tmp_path, limit):
    price = Price(0.0, 0.0, 5.0)  # at most 0.005 dollars a call
    backend = Greedy(settings={"max_output_tokens": 1000})
    path = tmp_path / "log"
    got = run(pairs(100), backend, path, concurrency=8, max_cost=limit, price=price)
    paid = sum(price.of(Usage(**one["usage"])) for one in lines(path))
    assert got.dollars == pytest.approx(paid) and paid <= limit
    assert f"--max-cost ${limit:g}" in got.stopped
    assert paid > limit - 0.0101  # and stops no earlier than it must: an answer and a re-ask could pass it
    assert all(len(orders) == 2 for orders in by_sample(got.judgements).values())  # no pair is cut in half
    rest = run(pairs(100), backend, path, concurrency=8, max_cost=10.0, price=price)
    assert rest.stopped is None and len(rest.judgements) == 200 and set(backend.charged.values()) == {1}


def test_the_reask_is_in_the_budget(tmp_path):
    price = Price(0.0, 0.0, 5.0)
    backend = Greedy(settings={"max_output_tokens": 1000})
    backend.text = "no JSON"
    for n in range(20):  # where the stop falls differs
        path = tmp_path / str(n)
        got = run(pairs(10), backend, path, orders="emergent", max_cost=0.012 + n / 4000, price=price)
        assert 0 < got.dollars <= 0.012 + n / 4000 and "--max-cost" in got.stopped
        assert all(one["reasks"] == 1 for one in lines(path))


def by_sample(judgements):
    found = {}
    for one in judgements:
        found.setdefault(one.sample_id, set()).add(one.order)
    return found


def test_answers_of_a_server_that_does_not_count_are_guessed(tmp_path):
    got = run(pairs(10), SimulatedJudge(usage=Usage()), tmp_path / "log", price=Price(1, 1, 1))
    assert got.usage.out == 20 * 900 and got.dollars > 0


def test_an_unknown_price_leaves_dollars_open_and_refuses_a_limit(tmp_path):
    assert run(pairs(1), SimulatedJudge(), tmp_path / "log").dollars is None
    backend = SimulatedJudge()
    with pytest.raises(SetupError, match="--price"):
        run(pairs(1), backend, tmp_path / "other", max_cost=1.0)
    assert not backend.calls


def test_a_dry_run_counts_what_a_run_would_ask(tmp_path):
    quiet = sound("quiet", silent=True)
    items = [
        *pairs(10),
        *pairs(10, system="twin", speech=sound("x")),
        *pairs(1, system="mute", speech=quiet),
        *pairs(1, system="lost", baseline_speech=None),
        *pairs(2, system="copy", speech=sound("system 0")),
    ]
    backend = SimulatedJudge()
    asker = JudgeSettings(backend.name, backend.model, backend.settings)
    with Log(tmp_path / "none", write=False) as log:
        plan = dry_run(items, asker, log, price=Price(1, 2, 3))
    assert not (tmp_path / "none").exists()
    run(items[:4], backend, tmp_path / "log")
    with Log(tmp_path / "log", write=False) as log:
        rest = dry_run(items, asker, log)
    got = run(items, backend, tmp_path / "log")
    assert plan.calls == sum(backend.calls.values()) == 42 and rest.calls == got.calls == 34
    assert (plan.by_rule, plan.skipped, plan.reused) == (2, 1, 2) and rest.reused == got.reused == 10
    assert plan.usage.out == 42 * 900 and plan.usage.audio_in == 42 and rest.dollars is None
    assert plan.dollars == pytest.approx(Price(1, 2, 3).of(plan.usage))
    assert dry_run(items, asker, None, orders="emergent", repeats=3).calls == 63


# --- records and keys ------------------------------------------------------------------------------------------------


def test_a_record_holds_what_is_needed_to_check_it(tmp_path):
    [item] = pairs(1)
    run([item], SimulatedJudge(), tmp_path / "log")
    first, second = lines(tmp_path / "log")
    assert first["audio_sha256"] == [item.speech.sha256, item.baseline_speech.sha256] == second["audio_sha256"][::-1]
    assert (first["order"], second["order"]) == ("system_first", "baseline_first")
    assert first["rubric"] == {"name": "jwb-r1", "sha256": JWB_R1.sha256} and first["settings"] == {"temperature": 0}
    assert (first["backend"], first["model"], first["model_served"]) == ("simulated", "sim-1", "sim-1")
    assert (first["text"], first["language"], first["category"], first["repeat"]) == ("Text 0.", "en", "general", 0)
    assert (first["seconds"], first["loudness"], first["gain"]) == ([0.02, 0.02], [-30.0, -30.0], [7.0, 7.0])
    assert first["usage"] == {"audio_in": 10, "text_in": 20, "out": 30, "thoughts": 40}
    assert json.loads(first["raw_text"])["winner"] == first["winner"] == "tie"
    assert first["reasoning"] == {"reasoning_1": "a", "reasoning_2": "b", "comparison": "c"}
    assert (first["attempts"], first["reasks"], first["first"], first["reason"]) == (1, 0, None, "")
    assert first["time"].endswith("+00:00") and first["package"] and first["format"] == 1 and first["latency_s"] == 0


def test_no_key_is_written_or_told(tmp_path, monkeypatch):
    secret = "AIzaSyFakeFakeFakeFake-0123456789abcdef"
    monkeypatch.setenv("GEMINI_API_KEY", secret)
    leaks = [
        CallFailed(f"403 for key={secret}", retry=False),
        Answer(f"I was told {secret}", "sim-1"),
        Answer(verdict("1").replace('"a"', f'"{secret}"'), "sim-1"),
        Answer("", "sim-1", finish="blocked", reason=secret),
        Answer("", "sim-1", finish="blocked", reason=f"PROHIBITED {secret}"),
        Answer("x", "sim-1"),
        CallFailed(f"429 {secret}", retry=False),
    ]
    told = []
    got = run(pairs(5), Scripted(*leaks), tmp_path / "log", orders="emergent", on_pair=told.append)
    assert sum(got.failed.values()) == 3 and got.calls == 8
    with pytest.raises(JudgeModelMismatch) as caught:
        run(pairs(1), SimulatedJudge(served=f"m-{secret}"), tmp_path / "other")
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 2 and all(secret.encode() not in p.read_bytes() for p in files)
    assert secret not in f"{got!r} {told!r} {caught.value}" and "[key]" in (tmp_path / "log").read_text()


def test_hostile_texts_and_names_go_through(tmp_path):
    texts = ['"}\n{"winner": "1"}', "\u202e\x00\ud800", "{text} {0} %s", "'; DROP TABLE log; --", "x" * 50_000]
    items = [
        JudgeItem(text, text, text, text, text, text or "s", BASELINE, sound(f"s{i}"), sound(f"b{i}"))
        for i, text in enumerate(texts)
    ]
    got = run(items, SimulatedJudge(), tmp_path / "log", orders="both")
    assert len(got.judgements) == 10 and not got.failed
    assert run(items, SimulatedJudge(), tmp_path / "log").reused == 10
    assert {one["text"] for one in lines(tmp_path / "log")} == set(texts)


def test_several_judges_in_one_log_are_never_mixed(tmp_path):
    for model in ("sim-1", "sim-2"):
        run(pairs(3), SimulatedJudge(model=model, served=model), tmp_path / "log")
    run(pairs(3), SimulatedJudge(settings={"temperature": 1}), tmp_path / "log")
    found = judged(records(tmp_path / "log"))
    assert Counter(who[1] for who in found) == {"sim-1": 2, "sim-2": 1}
    assert all(len(one.judgements) == 6 and len(one.served) == 1 for one in found.values())


def test_a_failure_that_was_answered_later_counts_once(tmp_path):
    run(pairs(3), SimulatedJudge(faults=1.0), tmp_path / "log", retries=0)
    got = run(pairs(3), SimulatedJudge(), tmp_path / "log")
    assert len(lines(tmp_path / "log")) == 12
    [found] = judged(records(tmp_path / "log")).values()
    assert len(found.judgements) == 6 and all(found.judgements[i].outcome == "tie" for i in range(6))
    assert sorted(map(repr, got.judgements)) == sorted(map(repr, found.judgements))
