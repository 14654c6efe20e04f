"""One question to its end: pauses, retries, the check of the model, one re-ask, and the line in the log."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock

from jwb_dh_v1.errors import JudgeModelMismatch, SetupError
from jwb_dh_v1.judge.answer import Verdict, read, same_model
from jwb_dh_v1.judge.log import Log, Record, scrub
from jwb_dh_v1.judge.question import Question
from jwb_dh_v1.judge.request import Answer, Backend, CallFailed, Prompt, Usage
from jwb_dh_v1.judge.rubric import Rubric, reask


class Gate:
    """Where all calls wait while a server wants quiet."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.clock = clock
        self.sleep = sleep
        self._until = float("-inf")
        self._lock = Lock()

    def pause(self, seconds: float) -> None:
        """Close the gate for at least that long from now."""
        with self._lock:
            self._until = max(self._until, self.clock() + seconds)

    def wait(self) -> None:
        """Return when the gate is open. Each closing is slept through once, whatever the clock says afterwards."""
        slept = float("-inf")
        while (until := self._until) > slept and (rest := until - self.clock()) > 0:
            self.sleep(rest)
            slept = until


class Abandoned(Exception):
    """The run is stopping; the question was not asked, or its failed call not tried again."""


@dataclass
class CallOutcome:
    """What came of one question.

    Attributes:
        record: as logged; None if the run stopped before there was anything to log.
        calls: made, with and without an answer.
        answers: received, each of them paid.
        usage: of all answers.
        unreachable: no answer, for a reason that may pass (overload, timeout).

    """

    record: Record | None = None
    calls: int = 0
    answers: int = 0
    usage: Usage = field(default_factory=Usage)
    latency: float = 0.0
    unreachable: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """How to ask: see run.judge for the meaning of each."""

    retries: int
    max_wait: float
    check_served: bool
    served: str | None  # pattern; None for the model that is asked for


class JudgeClient:
    """Asks questions; `ask` is called from several threads."""

    def __init__(
        self, backend: Backend, log: Log, rubric: Rubric, manners: RetryPolicy, gate: Gate, stopping: Event
    ) -> None:
        self.backend = backend
        self.log = log
        self.rubric = rubric
        self.manners = manners
        self.gate = gate
        self.stopping = stopping

    def ask(self, question: Question) -> CallOutcome:
        """Ask until there is a verdict or a reason why not, and log it.

        An answer of another model is not logged: it counts nowhere, and the next run asks again.

        Raises:
            SetupError: the judge cannot be asked, another model answered, or the log cannot be written.

        """
        asked = CallOutcome()
        rng = random.Random(question.key)
        try:
            answer = self._call(question.prompt, asked, rng)
        except Abandoned:
            return asked
        except CallFailed as error:
            asked.unreachable = error.retry
            verdict = Verdict("api_error", reason=scrub(str(error)))
            asked.record = self._logged(question, asked, verdict, "", None)
            return asked
        verdict, first = read(answer, self.rubric), None
        if verdict.status != "ok":
            first, served = verdict, answer.model_served
            try:
                again = reask(question.prompt, f"{first.status}: {first.reason}"[:200], self.rubric)
                answer = self._call(again, asked, rng, insist=True)
                verdict = read(answer, self.rubric)
            except (CallFailed, Abandoned, SetupError) as error:
                # The first answer is paid and stays what it is.
                verdict = Verdict(
                    first.status, reason=f"{first.reason}; the re-ask failed: {error}", raw_text=first.raw_text
                )
                asked.record = self._logged(question, asked, verdict, served, first)
                if isinstance(error, SetupError):
                    raise
                return asked
        asked.record = self._logged(question, asked, verdict, answer.model_served, first)
        return asked

    def _call(self, prompt: Prompt, asked: CallOutcome, rng: random.Random, insist: bool = False) -> Answer:
        """One answer, with retries. `insist`: make the first try even if the run is stopping."""
        for attempt in range(self.manners.retries + 1):
            self.gate.wait()
            if self.stopping.is_set() and not (insist and attempt == 0):
                raise Abandoned("the run was stopped")
            asked.calls += 1
            begin = self.gate.clock()
            try:
                answer = self.backend.ask(prompt)
            except CallFailed as error:
                if error.after is not None:
                    self.gate.pause(min(max(error.after, 0.0), self.manners.max_wait))
                if not error.retry or attempt == self.manners.retries:
                    raise
                if error.after is None:
                    self.gate.sleep(min(2.0**attempt * rng.uniform(1, 1.5), self.manners.max_wait))
                continue
            asked.answers += 1
            asked.usage += answer.usage
            asked.latency += self.gate.clock() - begin
            check_served(self.backend.model, answer.model_served, self.manners)
            return answer
        raise AssertionError("the last attempt returns or raises")

    def _logged(
        self, question: Question, asked: CallOutcome, verdict: Verdict, served: str, first: Verdict | None
    ) -> Record:
        return self.log.append(
            {
                **question.facts,
                "source": "judge",
                "status": verdict.status,
                "reason": verdict.reason,
                "winner": verdict.winner,
                "score_1": verdict.score_1,
                "score_2": verdict.score_2,
                "reasoning": dict(verdict.reasoning),
                "raw_text": verdict.raw_text,
                "first": first and {"status": first.status, "reason": first.reason, "raw_text": first.raw_text},
                "reasks": int(first is not None),
                "model_served": served,
                "usage": asdict(asked.usage),
                "attempts": asked.calls,
                "latency_s": round(asked.latency, 3),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )


def check_served(asked: str, served: str, manners: RetryPolicy) -> None:
    """Refuse the answer of another model.

    Raises:
        JudgeModelMismatch: names both, and the setting.

    """
    if manners.check_served and not same_model(asked, served, manners.served):
        wanted = f"a model like {manners.served!r}" if manners.served else f"{asked!r}"
        raise JudgeModelMismatch(
            f"{scrub(served)!r} answered, not {wanted}: scores of two judges cannot be mixed. Ask for that model by "
            "name, or allow it with --serve-check PATTERN."
        )
