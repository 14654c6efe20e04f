"""Whole runs against simulated judges: what they find, threads, faults, kills, budgets."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jwb_dh_v1.audio import Audio
from jwb_dh_v1.errors import JudgeModelMismatch, JudgeUnavailable, SetupError
from jwb_dh_v1.judge.cost import Price
from jwb_dh_v1.judge.diagnosis import contradictions, identical_control, position_bias, swap_consistency
from jwb_dh_v1.judge.log import Log, records
from jwb_dh_v1.judge.question import Asker, Item, judged, orders_of
from jwb_dh_v1.judge.request import Answer, CallFailed, Usage
from jwb_dh_v1.judge.rubric import JWB_R1, REASK
from jwb_dh_v1.judge.run import dry_run, judge
from jwb_dh_v1.judge.speech import Speech, prepare
from jwb_dh_v1.judge.statistics import win_rate

SYSTEM, BASELINE = "system", "baseline"
TOKENS = Usage(10, 20, 30, 40)
MARGIN = 0.5  # less than that is a tie


def sound(name, seconds=0.02, lufs=-30.0, silent=False):
    """A recording that no other name has; prepared by hand, so that a thousand take no time."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))
    wav = Audio(rng.uniform(-0.5, 0.5, (1, round(seconds * 16000))).astype(np.float32), 16000).wav()
    return Speech(wav, hashlib.sha256(wav).hexdigest(), seconds, None if silent else lufs, 7.0, False, silent)


def pairs(count, system=SYSTEM, **more):
    for i in range(count):
        sounds = {"speech": sound(f"{system} {i}"), "baseline_speech": sound(f"{BASELINE} {i}"), **more}
        yield Item(f"{i:04d}", f"person {i}", f"Text {i}.", "en", "general", system, BASELINE, **sounds)


class Clock:
    """Time that only passes while someone sleeps."""

    def __init__(self):
        self.now, self.slept, self.lock = 0.0, [], threading.Lock()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds
            self.slept.append(seconds)


def verdict(winner, score_1=2, score_2=2):
    return json.dumps(
        {
            "reasoning_1": "a",
            "reasoning_2": "b",
            "comparison": "c",
            "score_1": score_1,
            "score_2": score_2,
            "winner": winner,
        }
    )


class SimulatedJudge:
    """Hears the hidden quality of each recording, with noise and a liking for the first; may fail before it answers.

    The noise and the faults of a question hang on the question (and on the try), not on the thread.
    """

    name = "simulated"

    def __init__(
        self,
        quality=None,
        bias=0.0,
        noise=0.0,
        faults=0.0,
        served="sim-1",
        model="sim-1",
        settings=None,
        usage=TOKENS,
        wrong_scores=False,
        seconds=0.0,
    ):
        self.quality = quality or {}
        self.bias, self.noise, self.faults, self.seconds = bias, noise, faults, seconds
        self.served, self.model, self.settings, self.usage = served, model, settings or {"temperature": 0}, usage
        self.wrong_scores = wrong_scores
        self.calls, self.charged, self.prompts = Counter(), Counter(), []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.here = threading.local()  # .number: of this thread's call, over all calls

    @staticmethod
    def question(prompt):
        return tuple(hashlib.sha256(part).hexdigest() for part in (prompt.parts[1], prompt.parts[3]))

    def ask(self, prompt):
        question = self.question(prompt)
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            self.calls[question] += 1
            number = self.calls[question]
            self.here.number = sum(self.calls.values())
            self.prompts.append(prompt)
        try:
            time.sleep(self.seconds)
            if random.Random(f"{question} {number}").random() < self.faults:
                raise CallFailed("503 overloaded", retry=True)
            answer = self.answer(prompt, question)
            with self.lock:
                self.charged[question] += 1
            return answer
        finally:
            with self.lock:
                self.busy -= 1

    def answer(self, prompt, question):
        first, second = (self.quality.get(one, 0.0) for one in question)
        lead = first - second + self.bias + self.noise * random.Random(f"{question}").gauss(0, 1)
        winner = "1" if lead > MARGIN else "2" if lead < -MARGIN else "tie"
        scores = {"1": (3, 1), "2": (1, 3), "tie": (2, 2)}[winner]
        return Answer(verdict(winner, *(scores[::-1] if self.wrong_scores else scores)), self.served, usage=self.usage)

    def close(self):
        pass


def run(items, backend, path, **more):
    clock = Clock()
    with Log(path) as log:
        return judge(items, backend, log, **{"clock": clock, "sleep": clock.sleep, **more})


def lines(path):
    return list(records(path))


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
    item = Item("s", "p", "  ", "en", "general", "a", "b", sound("a"), sound("b"))
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
    assert asked(Item(**{**base, "identity_id": "other", "sample_id": "other"})) == 0
    for change in ({"text": "Text 1."}, {"language": "de"}, {"category": "news"}, {"speech": sound("other")}):
        assert asked(Item(**{**base, **change})) == 2
    assert asked(model="sim-2") == 2 and asked(settings={"temperature": 1}) == 2
    assert asked(rubric=replace(JWB_R1, role="You are kind.")) == 2


CHILD = """
import hashlib, os, sys, time
sys.path.insert(0, sys.argv[3])
from test_judge_run import SimulatedJudge, pairs
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
    command = [sys.executable, "-c", CHILD, str(log), str(ledger), str(Path(__file__).parent)]
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


# --- retries, pauses, re-asks ----------------------------------------------------------------------------------------


class Scripted(SimulatedJudge):
    """Does what a list says, call by call, over all questions; judges when the list is at its end."""

    def __init__(self, *script, **more):
        super().__init__(**more)
        self.script, self.asked = list(script), []

    def answer(self, prompt, question):
        with self.lock:
            step = self.script.pop(0) if self.script else None
            self.asked.append(prompt)
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Answer):
            return step
        return (
            Answer(step, self.served, usage=self.usage) if isinstance(step, str) else super().answer(prompt, question)
        )


def test_retries_wait_longer_each_time_and_as_long_as_the_server_says(tmp_path):
    clock = Clock()
    failures = [CallFailed("503", retry=True) for _ in range(4)]
    backend = Scripted(*failures, CallFailed("429", retry=True, after=17.5))
    got = run(pairs(1), backend, tmp_path / "log", orders="emergent", clock=clock, sleep=clock.sleep)
    assert got.calls == 6 and not got.failed and lines(tmp_path / "log")[0]["attempts"] == 6
    assert len(clock.slept) == 5 and clock.slept[4] == 17.5
    assert all(2**n <= slept <= 1.5 * 2**n for n, slept in enumerate(clock.slept[:4]))
    assert len({slept / 2**n for n, slept in enumerate(clock.slept[:4])}) == 4  # spread, so that threads do not march


def test_no_pause_is_longer_than_allowed(tmp_path):
    clock = Clock()
    backend = Scripted(
        CallFailed("503", retry=True), CallFailed("429", retry=True, after=86400.0), CallFailed("429", retry=True)
    )
    run(pairs(1), backend, tmp_path / "log", clock=clock, sleep=clock.sleep, max_wait=0.5, retries=3)
    assert clock.slept == [0.5, 0.5, 0.5]


def test_retries_end_and_the_reason_is_kept(tmp_path):
    backend = Scripted(*[CallFailed("503 busy", retry=True) for _ in range(3)])
    got = run(pairs(1), backend, tmp_path / "log", orders="emergent", retries=2)
    assert got.failed == {"api_error: 503 busy": 1} and got.calls == 3 and got.judgements[0].outcome is None
    assert win_rate([*got.judgements, *run(pairs(2), SimulatedJudge(), tmp_path / "b").judgements]).failed == 1
    [only] = lines(tmp_path / "log")
    assert (only["status"], only["attempts"], only["model_served"]) == ("api_error", 3, "")
    assert only["usage"] == {"audio_in": 0, "text_in": 0, "out": 0, "thoughts": 0}


def test_what_cannot_work_later_is_not_tried_again(tmp_path):
    backend = Scripted(CallFailed("400 too large", retry=False))
    got = run(pairs(2), backend, tmp_path / "log", orders="emergent")
    assert got.calls == 2 and got.failed == {"api_error: 400 too large": 1}


def test_a_request_for_quiet_holds_every_call_back(tmp_path):
    class Busy(SimulatedJudge):
        asked_at, quiet_since = [], None

        def ask(self, prompt):
            now = time.monotonic()
            with self.lock:
                self.asked_at.append(now)
                first = len(self.asked_at) == 20 and self.quiet_since is None
                if first:
                    self.quiet_since = now
            if first:
                raise CallFailed("429 slow down", retry=True, after=0.8)
            time.sleep(0.01)
            return super().ask(prompt)

    backend = Busy()
    run(pairs(60), backend, tmp_path / "log", concurrency=4, clock=time.monotonic, sleep=None)
    # Calls that had passed the gate may still begin; a third of the pause later all is quiet.
    assert not [t for t in backend.asked_at if 0.27 < t - backend.quiet_since < 0.79]
    assert len([t for t in backend.asked_at if t - backend.quiet_since >= 0.79]) > 50


def test_a_run_without_any_answer_stops(tmp_path):
    got = run(pairs(100), SimulatedJudge(faults=1.0), tmp_path / "log", retries=1)
    assert "20 questions in a row" in got.stopped and "503 overloaded" in got.stopped
    assert got.calls == 40 and len(lines(tmp_path / "log")) == 20
    again = run(pairs(100), SimulatedJudge(), tmp_path / "log")
    assert again.stopped is None and len(again.judgements) == 200 and again.reused == 0


BLOCKED = Answer("", "sim-1", finish="blocked", reason="SAFETY")
CUT = Answer('{"reasoning_1": "a', "sim-1", finish="truncated", reason="MAX_TOKENS")


@pytest.mark.parametrize(
    "bad, status, reason",
    [
        ("no JSON here", "parse_error", "there is no whole JSON object"),
        (verdict("1", 7), "out_of_range", "score_1 is 7, not 0 to 3"),
        (BLOCKED, "blocked", "SAFETY"),
        (CUT, "truncated", "MAX_TOKENS"),
    ],
)
def test_an_unusable_answer_is_asked_for_once_more(tmp_path, bad, status, reason):
    raw = bad if isinstance(bad, str) else bad.text
    backend = Scripted(bad, verdict("1", 3, 2))
    got = run(pairs(1), backend, tmp_path / "log", orders="emergent")
    assert got.calls == 2 and got.judgements[0].outcome in ("win", "loss")
    [only] = lines(tmp_path / "log")
    assert (only["status"], only["reasks"], only["raw_text"]) == ("ok", 1, verdict("1", 3, 2))
    assert only["first"] == {"status": status, "reason": reason, "raw_text": raw}
    first, again = backend.asked
    assert again.parts[:4] == first.parts and reason in again.parts[4]
    assert again.parts[4].startswith(REASK.split("{")[0])
    # Twice is final: kept, counted, and not asked again.
    got = run(pairs(1), Scripted(bad, bad), tmp_path / "other", orders="emergent")
    assert got.failed == {f"{status}: {reason}": 1} and got.judgements[0].outcome is None
    assert lines(tmp_path / "other")[0]["status"] == status
    later = run(pairs(1), SimulatedJudge(), tmp_path / "other", orders="emergent")
    assert later.calls == 0 and later.failed == {f"{status}: {reason}": 1}


def test_usage_of_a_reask_is_counted_and_the_last_word_stands(tmp_path):
    backend = Scripted("garbage", BLOCKED)
    got = run(pairs(1), backend, tmp_path / "log", orders="emergent", price=Price(1e6, 1e6, 1e6))
    assert got.failed == {"blocked: SAFETY": 1}
    assert got.usage == Usage(10, 20, 30, 40) and got.dollars == 100  # the blocked answer counted none


def test_a_failed_reask_keeps_the_paid_answer(tmp_path):
    backend = Scripted("garbage", CallFailed("400 gone", retry=False))
    got = run(pairs(1), backend, tmp_path / "log", orders="emergent")
    [only] = lines(tmp_path / "log")
    assert only["status"] == "parse_error" and only["raw_text"] == "garbage" and only["attempts"] == 2
    assert "the re-ask failed: 400 gone" in only["reason"] and sum(got.failed.values()) == 1
    # So it is where the re-ask shows that the run cannot go on.
    with pytest.raises(JudgeUnavailable):
        run(pairs(1), Scripted("garbage", JudgeUnavailable("the key is gone")), tmp_path / "b", orders="emergent")
    assert lines(tmp_path / "b")[0]["raw_text"] == "garbage"


# --- stopping --------------------------------------------------------------------------------------------------------


def test_another_model_is_refused_after_one_call_and_scored_nowhere(tmp_path):
    backend = SimulatedJudge(model="gemini-2.5-pro", served="models/gemini-3.8-flash")
    with pytest.raises(JudgeModelMismatch, match=r"gemini-3\.8-flash.*answered, not 'gemini-2\.5-pro'"):
        run(pairs(50), backend, tmp_path / "log")
    assert sum(backend.calls.values()) == 1 and lines(tmp_path / "log") == []
    with pytest.raises(JudgeModelMismatch, match=r"not a model like 'gemini-3\.8-pro\*'"):
        run(pairs(50), backend, tmp_path / "log", serve_check="gemini-3.8-pro*")
    assert len(run(pairs(5), backend, tmp_path / "log", serve_check="gemini-3*").judgements) == 10
    # What the log holds is checked too.
    with pytest.raises(JudgeModelMismatch):
        run(pairs(5), backend, tmp_path / "log")
    got = run(pairs(5), backend, tmp_path / "log", serve_check=None)
    assert got.calls == 0 and got.served == {"models/gemini-3.8-flash": 10}


def test_a_model_that_changes_during_the_run_stops_it(tmp_path):
    class Rerouted(SimulatedJudge):
        def answer(self, prompt, question):
            if self.here.number > 30:
                self.served = "sim-2-lite"
            return super().answer(prompt, question)

    backend = Rerouted()
    with pytest.raises(JudgeModelMismatch, match="sim-2-lite"):
        run(pairs(100), backend, tmp_path / "log", concurrency=4)
    assert {one["model_served"] for one in lines(tmp_path / "log")} == {"sim-1"}
    assert sum(backend.charged.values()) - len(lines(tmp_path / "log")) <= 4


def test_a_wrong_key_costs_one_call(tmp_path):
    backend = Scripted(*[JudgeUnavailable("the key was refused")] * 20)
    with pytest.raises(JudgeUnavailable):
        run(pairs(50), backend, tmp_path / "log", concurrency=8)
    assert sum(backend.calls.values()) == 1 and not lines(tmp_path / "log")


def test_until_the_first_answer_calls_go_one_by_one(tmp_path):
    class Late(SimulatedJudge):
        alone = True

        def answer(self, prompt, question):
            with self.lock:
                self.alone = self.alone and (self.here.number > 6 or self.busy == 1)
            if self.here.number <= 5:
                raise CallFailed("400", retry=False)
            return super().answer(prompt, question)

    backend = Late()
    run(pairs(20), backend, tmp_path / "log", concurrency=4)
    assert backend.alone


def test_a_fatal_error_keeps_what_is_in_flight(tmp_path):
    class Revoked(SimulatedJudge):
        def answer(self, prompt, question):
            if self.here.number == 21:
                raise JudgeUnavailable("the key was revoked")
            if self.here.number > 21:
                time.sleep(0.05)
            return super().answer(prompt, question)

    backend = Revoked()
    with pytest.raises(JudgeUnavailable, match="revoked"):
        run(pairs(200), backend, tmp_path / "log", concurrency=4)
    kept = {tuple(one["audio_sha256"]) for one in lines(tmp_path / "log")}
    assert kept == set(backend.charged) and 20 <= len(kept) <= 26


def test_a_fatal_error_ends_long_pauses(tmp_path):
    other_asked = threading.Event()

    class Mixed(SimulatedJudge):
        def answer(self, prompt, question):
            if self.here.number == 2:
                assert other_asked.wait(20)  # or the other call would be held back as well
                raise CallFailed("429", retry=True, after=30.0)
            if self.here.number == 3:
                other_asked.set()
                time.sleep(0.1)
                raise JudgeUnavailable("gone")
            return super().answer(prompt, question)

    begin, backend = time.monotonic(), Mixed()
    with Log(tmp_path / "log") as log, pytest.raises(JudgeUnavailable):
        judge(pairs(50), backend, log, concurrency=2)  # its own clock and sleep
    assert time.monotonic() - begin < 10 and sum(backend.calls.values()) == 3  # and nothing is tried again


def test_an_unforeseen_error_stops_the_run_and_keeps_the_answers(tmp_path):
    backend = Scripted(None, None, None, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run(pairs(50), backend, tmp_path / "log")
    assert len(lines(tmp_path / "log")) == sum(backend.charged.values()) >= 3


def test_an_interrupt_drains(tmp_path):
    class Interrupting(SimulatedJudge):
        def answer(self, prompt, question):
            if self.here.number == 12:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.03 if self.here.number < 40 else 0)
            return super().answer(prompt, question)

    backend = Interrupting()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells turn it off for background jobs
    try:
        with pytest.raises(KeyboardInterrupt):
            run(pairs(200), backend, tmp_path / "log", concurrency=4)
    finally:
        signal.signal(signal.SIGINT, before)
    kept = {tuple(one["audio_sha256"]) for one in lines(tmp_path / "log")}
    assert kept == set(backend.charged) == set(backend.calls) and len(kept) < 40
    assert len(run(pairs(200), backend, tmp_path / "log").judgements) == 400
    assert set(backend.charged.values()) == {1}


def test_an_error_of_the_items_or_of_the_listener_drains_too(tmp_path):
    def broken():
        yield from pairs(10)
        raise OSError("the disk is gone")

    backend = SimulatedJudge()
    with pytest.raises(OSError, match="gone"):
        run(broken(), backend, tmp_path / "log")
    assert 16 <= len(lines(tmp_path / "log")) == sum(backend.charged.values()) <= 20

    def listener(_):
        raise ValueError("a bug of the caller")

    with pytest.raises(ValueError, match="caller"):
        run(pairs(10), backend, tmp_path / "other", on_pair=listener)
    assert 2 <= len(lines(tmp_path / "other")) <= 6


def test_items_are_read_as_calls_become_free(tmp_path):
    read, ahead = 0, []

    def counted():
        nonlocal read
        for item in pairs(50):
            read += 1
            yield item

    class Watching(SimulatedJudge):
        def answer(self, prompt, question):
            ahead.append(read - sum(self.charged.values()) / 2)
            return super().answer(prompt, question)

    run(counted(), Watching(), tmp_path / "log", concurrency=4)
    assert max(ahead) <= 4


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
    asker = Asker(backend.name, backend.model, backend.settings)
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
        Item(text, text, text, text, text, text or "s", BASELINE, sound(f"s{i}"), sound(f"b{i}"))
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
