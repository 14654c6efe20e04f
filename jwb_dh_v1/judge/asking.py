"""One question from the first call to its line in the log: pauses, retries, the check of the model, one re-ask.

Answers are checked here, whatever the backend promises: constrained decoding fails silently (an SDK's `parsed` is just
None), and most servers do not offer it.
"""

from __future__ import annotations

import fnmatch
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Any, NoReturn

from jwb_dh_v1.errors import JudgeModelMismatch, SetupError
from jwb_dh_v1.judge.log import Log, Record, scrub
from jwb_dh_v1.judge.question import Question
from jwb_dh_v1.judge.request import Answer, Backend, CallFailed, JudgePrompt, Status, Usage, Winner
from jwb_dh_v1.judge.rubric import JWB_R1, Rubric, reask

BROKEN = 100  # braces that begin no object, after which we stop looking: each try reads on through the text


@dataclass(frozen=True)
class Verdict:
    """What one answer says.

    Attributes:
        status: `ok`, or why there is no verdict; the fields below are None or empty then.
        winner: `1` (heard first), `2` or `tie`. It may contradict the scores: diagnosis.contradictions counts that.
        score_1, score_2: whole numbers 0 to 3.
        reasoning: `reasoning_1`, `reasoning_2` and `comparison`.
        reason: what is wrong, in a few words of ours or the server's; empty for `ok`.
        raw_text: the answer as it came.

    """

    status: Status
    winner: Winner | None = None
    score_1: int | None = None
    score_2: int | None = None
    reasoning: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    raw_text: str = ""


def read(answer: Answer, rubric: Rubric = JWB_R1) -> Verdict:
    """Check an answer.

    The answer is the text itself, or the only JSON object with all keys in it, so that a code fence or a sentence
    around it does no harm. Nothing is repaired: two such objects, a key given twice, a missing key or another type is
    a `parse_error`, a value that the schema does not allow is `out_of_range`. More keys than asked are ignored.
    An answer that the server calls blocked or truncated is that, even if its text can be read.
    """
    if answer.finish != "stop":
        return Verdict(answer.finish, reason=answer.reason or answer.finish, raw_text=answer.text)
    try:
        found = _only_object(answer.text, rubric.schema["required"])
        _check_types(found, rubric.schema["properties"])
    except _Unreadable as error:
        return Verdict("parse_error", reason=str(error), raw_text=answer.text)
    wrong = _out_of_range(found, rubric.schema["properties"])
    if wrong:
        return Verdict("out_of_range", reason=wrong, raw_text=answer.text)
    return Verdict(
        "ok",
        winner=found["winner"],
        score_1=int(found["score_1"]),
        score_2=int(found["score_2"]),
        reasoning={key: found[key] for key in ("reasoning_1", "reasoning_2", "comparison")},
        raw_text=answer.text,
    )


def same_model(asked: str, served: str, pattern: str | None = None) -> bool:
    """Whether the model that answered is the one that was asked for.

    A prefix up to `models/` is ignored. Without a pattern the id must be equal, or continue with a version or
    date: `gemini-2.5-pro-001` and `gpt-audio-2025-08-28` are served for their plain names, but `gemini-2.5-flash-lite`
    is not `gemini-2.5-flash`. A pattern (`fnmatch`) is matched against the served id alone.
    An empty `served` passes: the server does not say.
    """
    name, wanted = (one.rpartition("models/")[2] for one in (served, asked))
    if not name:
        return True
    if pattern is not None:
        return fnmatch.fnmatchcase(name, pattern.rpartition("models/")[2])
    return re.fullmatch(re.escape(wanted) + r"([-@:._]v?\d[\w.-]*)?", name) is not None


class _Unreadable(ValueError):
    """The text holds no answer; the message says why."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Unreadable("a key is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Unreadable(f"{name} is not valid JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _only_object(text: str, keys: list[str]) -> dict[str, Any]:
    """The one JSON object in a text that has all keys."""
    if not text.strip():
        raise _Unreadable("the answer is empty")
    objects: list[dict[str, Any]] = []
    at, broken = text.find("{"), 0
    while at >= 0 and broken < BROKEN:
        try:
            value, end = DECODER.raw_decode(text, at)
            objects.append(value)
        except _Unreadable:
            raise
        except RecursionError:
            raise _Unreadable("it is nested too deeply") from None
        except ValueError:
            end, broken = at + 1, broken + 1
        at = text.find("{", end)
    if not objects:
        raise _Unreadable("there is no whole JSON object")
    complete = [one for one in objects if all(key in one for key in keys)]
    if len(complete) > 1:
        raise _Unreadable(f"there are {len(complete)} answers in one")
    if not complete:
        best = max(objects, key=lambda one: sum(key in one for key in keys))
        raise _Unreadable("missing: " + ", ".join(key for key in keys if key not in best))
    return complete[0]


def _check_types(found: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    for key, wanted in properties.items():
        value = found[key]
        if wanted["type"] == "string":
            good = isinstance(value, str)
        else:  # a whole number; JSON does not tell 2 from 2.0
            good = type(value) is int or (isinstance(value, float) and value.is_integer())
        if not good:
            raise _Unreadable(f"{key} is not of type {wanted['type']}")


def _out_of_range(found: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """The first value that the schema does not allow, in words; empty if there is none."""
    for key, wanted in properties.items():
        value = found[key]
        if "enum" in wanted and value not in wanted["enum"]:
            return f"{key} is {value[:40]!r}, not one of {', '.join(wanted['enum'])}"
        if "minimum" in wanted and not wanted["minimum"] <= value <= wanted["maximum"]:
            return f"{key} is {str(value)[:20]}, not {wanted['minimum']} to {wanted['maximum']}"
    return ""


class CallLimiter:
    """Holds all calls while a server asks for a pause."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.clock = clock
        self.sleep = sleep
        self._until = float("-inf")
        self._lock = Lock()

    def pause(self, seconds: float) -> None:
        """Hold all calls for at least that long from now."""
        with self._lock:
            self._until = max(self._until, self.clock() + seconds)

    def wait(self) -> None:
        """Return when calls may be made. Each pause is slept through once, whatever the clock says afterwards."""
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
    """How often a failed call is tried again, and whose answer is accepted; see `run.judge`."""

    retries: int
    max_wait: float
    check_served: bool
    served: str | None  # pattern; None for the model that is asked for


class JudgeClient:
    """Asks questions; `ask` is called from several threads."""

    def __init__(
        self, backend: Backend, log: Log, rubric: Rubric, policy: RetryPolicy, limiter: CallLimiter, stopping: Event
    ) -> None:
        self.backend = backend
        self.log = log
        self.rubric = rubric
        self.policy = policy
        self.limiter = limiter
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

    def _call(self, prompt: JudgePrompt, asked: CallOutcome, rng: random.Random, insist: bool = False) -> Answer:
        """One answer, with retries. `insist`: make the first try even if the run is stopping."""
        for attempt in range(self.policy.retries + 1):
            self.limiter.wait()
            if self.stopping.is_set() and not (insist and attempt == 0):
                raise Abandoned("the run was stopped")
            asked.calls += 1
            begin = self.limiter.clock()
            try:
                answer = self.backend.ask(prompt)
            except CallFailed as error:
                if error.after is not None:
                    self.limiter.pause(min(max(error.after, 0.0), self.policy.max_wait))
                if not error.retry or attempt == self.policy.retries:
                    raise
                if error.after is None:
                    self.limiter.sleep(min(2.0**attempt * rng.uniform(1, 1.5), self.policy.max_wait))
                continue
            asked.answers += 1
            asked.usage += answer.usage
            asked.latency += self.limiter.clock() - begin
            check_served(self.backend.model, answer.model_served, self.policy)
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


def check_served(asked: str, served: str, policy: RetryPolicy) -> None:
    """Refuse the answer of another model.

    Raises:
        JudgeModelMismatch: names both, and the setting.

    """
    if policy.check_served and not same_model(asked, served, policy.served):
        wanted = f"a model like {policy.served!r}" if policy.served else f"{asked!r}"
        raise JudgeModelMismatch(
            f"{scrub(served)!r} answered, not {wanted}: scores of two judges cannot be mixed. Ask for that model by "
            "name, or allow it with --serve-check PATTERN."
        )
