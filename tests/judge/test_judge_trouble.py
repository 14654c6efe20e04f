"""Runs in trouble: retries and pauses, answers that are of no use, and what stops a run."""

import os
import signal
import threading
import time

import pytest
from simulated_judge import Clock, Scripted, SimulatedJudge, lines, pairs, run, verdict

from jwb_dh_v1.errors import JudgeModelMismatch, JudgeUnavailable
from jwb_dh_v1.judge.cost import Price
from jwb_dh_v1.judge.log import Log
from jwb_dh_v1.judge.request import Answer, CallFailed, Usage
from jwb_dh_v1.judge.rubric import REASK
from jwb_dh_v1.judge.run import judge
from jwb_dh_v1.judge.statistics import win_rate

# --- retries, pauses, re-asks ----------------------------------------------------------------------------------------


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
