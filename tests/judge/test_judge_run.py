"""Whole runs against simulated judges: what they find, orders and rules, exactly once."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_judge import BASELINE, SYSTEM, SimulatedJudge, lines, pairs, run, sound

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.diagnosis import contradictions, identical_control, position_bias, swap_consistency
from jwb_dh_v1.judge.question import JudgeItem, judged, orders_of
from jwb_dh_v1.judge.request import Usage, prepare
from jwb_dh_v1.judge.rubric import JWB_R1
from jwb_dh_v1.judge.statistics import win_rate
from jwb_dh_v1.media.audio import Audio

# --- what a judge like that is found to be ---------------------------------------------------------------------------


def mixed(count=400, seed=5):
    """Items of which 40 % are clearly better than the baseline, 25 % worse, 35 % alike; their qualities; the truth."""
    rng = np.random.default_rng(seed)
    items, quality = list(pairs(count)), {}
    for item, draw in zip(items, rng.permutation(count) / count, strict=True):
        quality[item.speech.sha256] = 1.5 if draw < 0.40 else -1.5 if draw < 0.65 else 0.0
    return items, quality, 0.40 + 0.35 / 2


def test_a_biased_judge_is_diagnosed_and_both_orders_undo_it(tmp_path):
    items, quality, truth = mixed()
    backend = SimulatedJudge(quality, bias=0.8, noise=0.25)
    got = run(items, backend, tmp_path / "log")
    assert len(got.judgements) == 800 and not got.failed
    rate = win_rate(got.judgements).rate
    assert rate.low <= truth <= rate.high and rate.high - rate.low < 0.1
    bias = position_bias(got.heard)
    assert bias.p_value < 1e-6 and bias.first_rate.low > 0.55 and bias.leaning_first > 100 > bias.leaning_second
    swaps = swap_consistency(got.heard)
    assert swaps.to_first > 50 and swaps.to_second == 0
    first_only = win_rate([one for one in got.judgements if one.order == "system_first"]).rate
    assert first_only.low > truth + 0.05  # what one order alone would have claimed


def test_an_unbiased_judge_is_not_accused(tmp_path):
    items, quality, truth = mixed()
    got = run(items, SimulatedJudge(quality, noise=0.5), tmp_path / "log")
    rate = win_rate(got.judgements).rate
    assert rate.low <= truth <= rate.high
    assert position_bias(got.heard).p_value > 0.05 and swap_consistency(got.heard).decisive.value > 0.95
    assert contradictions(got.heard).value == 0


def test_scores_are_mapped_with_the_order_and_contradictions_counted(tmp_path):
    items, quality, _ = mixed(60)
    got = run(items, SimulatedJudge(quality), tmp_path / "log")
    by_outcome = {(one.outcome, one.score_system, one.score_baseline) for one in got.judgements}
    assert by_outcome == {("win", 3, 1), ("loss", 1, 3), ("tie", 2, 2)}
    swapped = run(items, SimulatedJudge(quality, wrong_scores=True), tmp_path / "other")
    assert 0.5 < contradictions(swapped.heard).value < 0.8 and not swapped.failed


def test_covariates_are_of_what_is_heard(tmp_path):
    one = sound("a", seconds=0.05, lufs=-20)
    items = [*pairs(1, speech=one)]
    for got in run(items, SimulatedJudge(), tmp_path / "log").judgements:
        assert got.covariates == {"duration": pytest.approx(0.03), "loudness": pytest.approx(10)}
    real = [
        prepare(Audio(np.sin(np.arange(16000) * f).astype(np.float32)[None] * a, 16000))
        for f, a in [(0.3, 0.5), (0.2, 0.01)]
    ]
    items = [*pairs(1, speech=real[0], baseline_speech=real[1])]
    for got in run(items, SimulatedJudge(), tmp_path / "log").judgements:
        assert abs(got.covariates["loudness"]) <= 0.011  # brought to one level


# --- orders, rules, controls -----------------------------------------------------------------------------------------


def test_both_orders_swap_the_sounds_and_nothing_else(tmp_path):
    backend = SimulatedJudge()
    [item] = pairs(1)
    run([item], backend, tmp_path / "log")
    first, second = backend.prompts
    assert first.parts[0] == second.parts[0] and first.parts[2] == second.parts[2]
    assert {(p.parts[1], p.parts[3]) for p in (first, second)} == {
        (item.speech.wav, item.baseline_speech.wav),
        (item.baseline_speech.wav, item.speech.wav),
    }


def test_emergent_order_is_that_of_the_draw_and_the_same_for_every_system(tmp_path):
    drawn = {str(i): np.random.default_rng(i).random() > 0.5 for i in range(200)}
    assert all((orders_of(i, "emergent") == ("baseline_first",)) == baseline for i, baseline in drawn.items())
    assert sum(orders_of(str(i), "emergent") == ("baseline_first",) for i in range(1645)) == 815  # specs/speech.md, 1
    assert orders_of("clip-a", "emergent") == orders_of("clip-a", "emergent")
    assert {orders_of(f"clip-{i}", "emergent") for i in range(20)} == {("system_first",), ("baseline_first",)}
    got = run(pairs(40), SimulatedJudge(), tmp_path / "log", orders="emergent")
    assert {one.sample_id: (one.order,) for one in got.judgements} == {
        f"{i:04d}": orders_of(str(i), "emergent") for i in range(40)
    }
    with pytest.raises(SetupError, match="both or emergent"):
        run(pairs(1), SimulatedJudge(), tmp_path / "log", orders="AB")


def test_rules_need_no_call(tmp_path):
    quiet, same = sound("quiet", silent=True), sound("same")
    items = [
        *pairs(1, system="missing", speech=None),
        *pairs(1, system="silent", speech=quiet),
        *pairs(1, system="same", speech=same, baseline_speech=same),
        *pairs(1, system="no baseline", baseline_speech=None),
        *pairs(1, system="silent baseline", baseline_speech=quiet),
        *pairs(1, system="nothing at all", speech=None, baseline_speech=None),
        *pairs(1, system="heard"),
    ]
    backend, seen = SimulatedJudge(), []
    got = run(items, backend, tmp_path / "log", on_pair=seen.append)
    assert sum(backend.calls.values()) == got.calls == 2
    outcomes = {(one.system, one.outcome, one.order) for one in got.judgements}
    assert outcomes == {
        (system, outcome, order)
        for system, outcome in [("missing", "loss"), ("silent", "loss"), ("same", "tie"), ("heard", "tie")]
        for order in ("system_first", "baseline_first")
    }
    assert {one.system for one in got.heard} == {"heard"}
    assert got.by_rule == {"no_speech": 4, "same_audio": 2}
    assert got.skipped == [
        ("0000", "the baseline has no audio"),
        ("0000", "the baseline is silent"),
        ("0000", "the baseline has no audio"),
    ]
    assert sorted(map(len, seen)) == [0, 0, 0, 2, 2, 2, 2]
    written = lines(tmp_path / "log")
    assert Counter(one["source"] for one in written) == {"rule": 6, "judge": 2}
    again = run(items, backend, tmp_path / "log")
    assert again.calls == 0 and len(lines(tmp_path / "log")) == 8 and again.judgements == got.judgements
    [(who, found)] = judged(written).items()
    assert who[:2] == ("simulated", "sim-1") and sorted(map(repr, found.judgements)) == sorted(
        map(repr, got.judgements)
    )


def test_a_text_is_needed(tmp_path):
    item = JudgeItem("s", "p", "  ", "en", "general", "a", "b", sound("a"), sound("b"))
    assert run([item], SimulatedJudge(), tmp_path / "log").skipped == [("s", "no text")]


def test_a_system_against_itself_is_refused_before_any_call(tmp_path):
    backend = SimulatedJudge()
    with pytest.raises(SetupError, match="1/2 without a judge"):
        run(pairs(1, system=BASELINE), backend, tmp_path / "log")
    assert not backend.calls


def test_the_identical_control_can_be_asked(tmp_path):
    items = [
        item
        for i in range(20)
        for item in pairs(1, system=f"copy {i}", speech=sound(f"{i}"), baseline_speech=sound(f"{i}"))
    ]
    got = run(items, SimulatedJudge(bias=1.0), tmp_path / "log", ask_identical=True)
    # Both orders are one question here (the same two sounds), so half of the answers are shared.
    assert got.calls == 20 and len(got.heard) == 40
    control = identical_control(got.heard)
    assert control.rate.value == 0 and control.first == 40


def test_repeats_are_questions_of_their_own(tmp_path):
    backend = SimulatedJudge()
    got = run(pairs(3), backend, tmp_path / "log", repeats=3)
    assert got.calls == 18 and {one.repeat for one in got.judgements} == {0, 1, 2}
    assert run(pairs(3), backend, tmp_path / "log", repeats=1).calls == 0
    for bad in ({"repeats": 0}, {"concurrency": 0}, {"retries": -1}, {"max_wait": -1.0}):
        with pytest.raises(SetupError):
            run(pairs(1), backend, tmp_path / "log", **bad)


# --- exactly once ----------------------------------------------------------------------------------------------------


def test_a_thousand_pairs_with_faults_are_judged_exactly_once_or_failed_with_a_reason(tmp_path):
    backend = SimulatedJudge(faults=0.3, seconds=0.001)
    got = run(pairs(1000), backend, tmp_path / "log", concurrency=8, retries=2)
    assert got.stopped is None and len(got.judgements) == 2000 and 4 <= backend.busiest <= 8
    missing = [one for one in got.judgements if one.outcome is None]
    assert got.failed == {"api_error: 503 overloaded": len(missing)} and 20 < len(missing) < 100  # 0.3**3 = 2.7 %
    assert set(backend.charged.values()) == {1} and sum(backend.charged.values()) == 2000 - len(missing)
    written = lines(tmp_path / "log")
    assert len(written) == 2000 and len({one["key"] for one in written}) == 2000
    assert got.calls == sum(backend.calls.values()) == sum(one["attempts"] for one in written)
    assert got.usage == Usage(*(sum(backend.charged.values()) * n for n in (10, 20, 30, 40)))
    assert got.served == {"sim-1": 2000 - len(missing)}
    # The next run asks for what is missing, and for nothing else.
    backend.faults = 0.0
    again = run(pairs(1000), backend, tmp_path / "log", concurrency=8)
    assert again.calls == len(missing) and again.reused == 2000 - len(missing) and not again.failed
    assert set(backend.charged.values()) == {1}
    known = [one for one in got.judgements if one.outcome]
    assert {repr(one) for one in known} <= {repr(one) for one in again.judgements}


def test_results_do_not_hang_on_threads(tmp_path):
    items, quality, _ = mixed(60)
    found = [
        run(items, SimulatedJudge(quality, 0.3, 0.5, faults=0.2), tmp_path / str(n), concurrency=n).judgements
        for n in (1, 3, 16)
    ]
    assert found[0] == found[1] == found[2]


def test_two_systems_that_sound_the_same_are_one_question(tmp_path):
    class Slow(SimulatedJudge):
        def ask(self, prompt):
            time.sleep(0.02)
            return super().ask(prompt)

    same = [*pairs(1, system="a", speech=sound("x")), *pairs(1, system="b", speech=sound("x"))]
    backend = Slow({sound("x").sha256: 2.0})
    got = run([*pairs(1), *same], backend, tmp_path / "log", concurrency=6)
    assert set(backend.charged.values()) == {1} and sum(backend.charged.values()) == 4
    assert [(one.system, one.outcome) for one in got.judgements[2:]] == [("a", "win")] * 2 + [("b", "win")] * 2
    written = lines(tmp_path / "log")
    assert Counter(one["source"] for one in written) == {"judge": 4, "reused": 2}
    assert [one["usage"] for one in written if one["source"] == "reused"] == [{}, {}]
    found = next(iter(judged(written).values()))
    assert sorted(map(repr, found.judgements)) == sorted(map(repr, got.judgements))
    assert len({one.system for one in got.judgements}) == 3


def test_anything_that_can_change_an_answer_is_another_question(tmp_path):
    def asked(item=None, rubric=JWB_R1, **more):
        backend = SimulatedJudge(**more)
        run([item or next(pairs(1))], backend, tmp_path / "log", rubric=rubric, serve_check=None)
        return sum(backend.charged.values())

    base = dict(
        sample_id="0000",
        identity_id="p",
        text="Text 0.",
        language="en",
        category="general",
        system=SYSTEM,
        baseline=BASELINE,
        speech=sound(f"{SYSTEM} 0"),
        baseline_speech=sound(f"{BASELINE} 0"),
    )
    assert asked() == 2 and asked() == 0
    assert asked(JudgeItem(**{**base, "identity_id": "other", "sample_id": "other"})) == 0
    for change in ({"text": "Text 1."}, {"language": "de"}, {"category": "news"}, {"speech": sound("other")}):
        assert asked(JudgeItem(**{**base, **change})) == 2
    assert asked(model="sim-2") == 2 and asked(settings={"temperature": 1}) == 2
    assert asked(rubric=replace(JWB_R1, role="You are kind.")) == 2


CHILD = """
import hashlib, os, sys, time
sys.path.insert(0, sys.argv[3])
from simulated_judge import SimulatedJudge, pairs
from jwb_dh_v1.judge.log import Log
from jwb_dh_v1.judge.run import judge

class Charging(SimulatedJudge):
    '''Writes down what it charges, at once, before it answers; written bytes outlive the process.'''
    def answer(self, prompt, question):
        time.sleep(0.002)
        os.write(ledger, (" ".join(question) + "\\n").encode())
        time.sleep(0.002)
        return super().answer(prompt, question)

ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with Log(sys.argv[1]) as log:
    print("open", flush=True)
    judge(pairs(150), Charging(faults=0.1), log, concurrency=5, sleep=lambda seconds: None)
print("done", flush=True)
"""


def test_a_kill_costs_no_answer_that_was_received(tmp_path):
    log, ledger = tmp_path / "log", tmp_path / "ledger"
    command = [sys.executable, "-c", CHILD, str(log), str(ledger), str(Path(__file__).parents[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def kept():
        return {tuple(one["audio_sha256"]) for one in lines(log) if one["status"] == "ok"}

    lost, before = 0, 0
    for stop_at in (20, 90, 180):
        safe = kept() if log.exists() else set()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout.readline() == b"open\n"
            deadline = time.monotonic() + 60
            while log.read_bytes().count(b"\n") < stop_at:
                assert time.monotonic() < deadline and child.poll() is None
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            child.wait()
        charged = [tuple(one.split()) for one in ledger.read_text().splitlines()]
        assert not safe & set(charged[before:])  # what was logged was not charged again
        assert 0 <= len(charged) - before - len(kept() - safe) <= 5  # at most what was in flight is lost
        lost += len(charged) - before - len(kept() - safe)
        before = len(charged)
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    assert done.stdout.endswith(b"done\n")
    charged = Counter(ledger.read_text().splitlines())
    assert len(charged) == 300 == len(kept()) and sum(charged.values()) == 300 + lost
    assert lost <= 15
