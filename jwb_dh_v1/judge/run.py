"""Judging many pairs: what is asked, what the log already knows, what rules decide, and when to stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge import cost
from jwb_dh_v1.judge.asking import CallLimiter, CallOutcome, JudgeClient, RetryPolicy, check_served
from jwb_dh_v1.judge.cost import Budget, CostEstimate, Price
from jwb_dh_v1.judge.log import Log, Record
from jwb_dh_v1.judge.question import (
    Judged,
    JudgeItem,
    JudgeSettings,
    Orders,
    Question,
    questions,
    rule_for,
    rule_records,
    unfit,
)
from jwb_dh_v1.judge.request import Backend, Usage
from jwb_dh_v1.judge.rubric import JWB_R1, Rubric
from jwb_dh_v1.judge.statistics import Judgement

SAME = "same"
MAX_WAIT = 120.0
PATIENCE = 20  # questions in a row that no server answered, each with all its retries


@dataclass
class JudgeOutcome(Judged):
    """What a run found, with what earlier runs paid for.

    Only pairs whose every question came to an end are in it, in the order of the items: a pair that a stop cut in half
    would carry the bias of its one position. `judgements`, `heard` and `served` are those of `Judged`.

    Attributes:
        usage: tokens of this run's answers, guessed where the server does not count.
        dollars: of them; None without a price.
        calls: made in this run, with and without an answer.
        reused: questions that the log had answered before.
        by_rule: verdicts by rule, by its name.
        failed: judgements without a verdict, by status and reason.
        skipped: pairs that cannot be judged (not in `judgements`): sample id and reason.
        stopped: why the run ended early; None if it did not.

    """

    usage: Usage = field(default_factory=Usage)
    dollars: float | None = None
    calls: int = 0
    reused: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    stopped: str | None = None


def judge(
    items: Iterable[JudgeItem],
    backend: Backend,
    log: Log,
    *,
    rubric: Rubric = JWB_R1,
    orders: Orders = "both",
    repeats: int = 1,
    concurrency: int = 4,
    retries: int = 5,
    max_wait: float = MAX_WAIT,
    max_cost: float | None = None,
    price: Price | None = None,
    serve_check: str | None = SAME,
    ask_identical: bool = False,
    on_pair: Callable[[list[Judgement]], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
) -> JudgeOutcome:
    """Judge pairs; each question is paid for once, over all runs with this log.

    Until the first answer one call is made at a time, so that a wrong key or model costs one call. `items` is read as
    calls become free, and only the recordings of questions in flight are held. An answer that cannot be used is asked
    for once more; its second failure is final, and kept. A call without an answer is tried again; if it never
    answers, the next run asks again.

    Args:
        items: pairs of recordings.
        backend: who is asked.
        log: open for writing.
        rubric: what is asked.
        orders: `both`, or `emergent`, one order per sample (question.orders_of).
        repeats: how often each question is asked.
        concurrency: calls in flight.
        retries: tries after the first, for calls that may work later.
        max_wait: longest pause in seconds before a try, whatever the server asks. Where a server says how long to
            wait, all calls wait; else a call waits 1, 2, 4 ... s and up to half as long again.
        max_cost: dollars that this run may spend. Asking stops when the next question could pass it at its worst: two
            answers of the full length that the settings allow.
        price: of tokens; None looks it up.
        serve_check: `same` refuses answers of another model than the one asked for (asking.same_model); a pattern
            refuses what does not match it; None takes all. Answers in the log are checked in the same way.
        ask_identical: ask even where both recordings are equal to the bit, for diagnosis.identical_control.
        on_pair: told each pair's judgements when it is done (none if it is skipped), in the calling thread.
        clock, sleep: for tests.

    Raises:
        JudgeUnavailable, JudgeModelMismatch, SetupError: the run cannot go on. Calls in flight come to their end and
            are in the log before it is raised; the same holds for KeyboardInterrupt.

    """
    if repeats < 1 or concurrency < 1 or retries < 0 or not max_wait >= 0:
        raise SetupError("repeats and concurrency must be 1 or more, retries and max_wait 0 or more.")
    stopping = Event()
    limiter = CallLimiter(clock, sleep or stopping.wait)
    policy = RetryPolicy(retries, max_wait, serve_check is not None, None if serve_check == SAME else serve_check)
    budget = Budget(max_cost, price or cost.price_of(backend.name, backend.model))
    asker = JudgeSettings.of(backend, rubric)
    with ThreadPoolExecutor(concurrency, "judge") as pool:
        desk = _Desk(
            JudgeClient(backend, log, rubric, policy, limiter, stopping), asker, budget, pool, concurrency, on_pair
        )
        try:
            for number, item in enumerate(items):
                desk.take(number, item, orders, repeats, ask_identical)
                if desk.outcome.stopped:
                    break
            while desk.flying:
                desk.collect()
        except BaseException:
            stopping.set()  # leaving the pool waits for what is in flight
            raise
    return desk.result()


@dataclass
class _Pair:
    """Records of one pair, as they come in."""

    records: list[Record | None]

    @property
    def done(self) -> bool:
        return None not in self.records


@dataclass
class _Flight:
    """A question that a thread is asking, the places its answer goes to, and the dollars promised for it."""

    question: Question
    seats: list[tuple[int, int, Record]]  # number of the pair, place in it, facts of that pair's question
    reserved: float
    guess: Usage


class _Desk:
    """The one thread that decides; the pool's threads only ask."""

    def __init__(
        self,
        client: JudgeClient,
        asker: JudgeSettings,
        budget: Budget,
        pool: ThreadPoolExecutor,
        concurrency: int,
        on_pair: Callable[[list[Judgement]], None] | None,
    ) -> None:
        self.client = client
        self.log = client.log
        self.asker = asker
        self.budget = budget
        self.pool = pool
        self.concurrency = concurrency
        self.on_pair = on_pair
        self.outcome = JudgeOutcome()
        self.flying: dict[Future[CallOutcome], _Flight] = {}
        self.pairs: dict[int, _Pair] = {}
        self.finished: dict[int, list[Record]] = {}
        self.reached = False
        self.misses = 0

    def take(self, number: int, item: JudgeItem, orders: Orders, repeats: int, ask_identical: bool) -> None:
        """Ask everything about one pair."""
        reason = unfit(item)
        if reason:
            self.outcome.skipped.append((item.sample_id, reason))
            self._tell([])
            return
        ruled = rule_for(item, ask_identical)
        if ruled:
            found = list(rule_records(item, self.asker, orders, *ruled))
            self.outcome.by_rule[ruled[0]] += len(found)
            for record in found:
                if not self.log.holds(record):
                    self.log.append({**record, "time": _now()})
            self._finish(number, found)
            return
        asked = list(questions(item, self.asker, orders, repeats))
        self.pairs[number] = _Pair([None] * len(asked))
        for place, question in enumerate(asked):
            self._put(number, place, question)
            if self.outcome.stopped:
                return

    def _put(self, number: int, place: int, question: Question) -> None:
        """Answer one question from the log, from a call that is in flight, or by a call of its own."""
        seat = (number, place, question.facts)
        known = self.log.find(question.key)
        if known is not None:
            check_served(self.asker.model, known["model_served"], self.client.policy)
            self.outcome.reused += 1
            self._seat(seat, known)
            return
        for flight in self.flying.values():
            if flight.question.key == question.key:
                flight.seats.append(seat)
                return
        while len(self.flying) >= (self.concurrency if self.reached else 1):
            self.collect()
        # An answer and a re-ask, both at their worst.
        worst = 2 * self.budget.dollars(cost.at_most(question.prompt, self.asker.settings))
        while not self.budget.admits(worst) and self.flying:
            self.collect()
        if self.outcome.stopped:
            return
        if not self.budget.admits(worst):
            self.outcome.stopped = (
                f"--max-cost ${self.budget.limit:g}: ${self.budget.spent:.4f} is spent, and the next question may cost "
                f"up to ${worst:.4f}. What is judged is in the log; run the same command again with a higher limit to "
                "resume."
            )
            return
        self.budget.reserve(worst)
        flight = _Flight(question, [seat], worst, cost.expected(question.prompt))
        self.flying[self.pool.submit(self.client.ask, question)] = flight

    def collect(self) -> None:
        """Wait for an answer and take in all that are there.

        Raises:
            SetupError: a thread found that the run cannot go on.

        """
        ready, _ = wait(self.flying, return_when=FIRST_COMPLETED)
        for future in sorted(ready, key=list(self.flying).index):
            flight = self.flying.pop(future)
            asked = future.result()
            used = cost.counted(asked.usage, flight.guess, asked.answers)
            self.budget.settle(flight.reserved, self.budget.dollars(used))
            self.outcome.usage += used
            self.outcome.calls += asked.calls
            self.reached = self.reached or asked.answers > 0
            self.misses = self.misses + 1 if asked.unreachable else 0
            if self.misses >= PATIENCE:
                self.outcome.stopped = (
                    f"{PATIENCE} questions in a row got no answer; the last reason: {(asked.record or {})['reason']}. "
                    "Run the same command again later to resume: what is judged is in the log."
                )
            if asked.record is not None:
                for seat in flight.seats:
                    self._seat(seat, asked.record)

    def _seat(self, seat: tuple[int, int, Record], record: Record) -> None:
        """Give a pair a record; where it was made for another pair, as one of its own."""
        number, place, facts = seat
        own = {**record, **facts}
        if record["status"] != "api_error" and not self.log.holds(own):
            unpaid = {"source": "reused", "usage": {}, "attempts": 0, "latency_s": 0.0, "time": _now()}
            own = self.log.append({**own, **unpaid})
        pair = self.pairs[number]
        pair.records[place] = own
        if pair.done:
            del self.pairs[number]
            self._finish(number, [one for one in pair.records if one is not None])

    def _finish(self, number: int, found: list[Record]) -> None:
        slim = [{k: v for k, v in one.items() if k not in ("raw_text", "reasoning", "first", "text")} for one in found]
        self.finished[number] = slim
        self._tell(slim)

    def _tell(self, found: list[Record]) -> None:
        if self.on_pair is not None:
            pair = Judged()
            self.on_pair([pair.add(record) for record in found])

    def result(self) -> JudgeOutcome:
        """Everything that came to its end, in the order of the items."""
        for _, found in sorted(self.finished.items()):
            for record in found:
                self.outcome.add(record)
                if record["status"] != "ok":
                    self.outcome.failed[f"{record['status']}: {record['reason']}"[:160]] += 1
        self.outcome.dollars = self.budget.spent if self.budget.price else None
        return self.outcome


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def dry_run(
    items: Iterable[JudgeItem],
    asker: JudgeSettings,
    log: Log | None = None,
    *,
    orders: Orders = "both",
    repeats: int = 1,
    price: Price | None = None,
    ask_identical: bool = False,
) -> CostEstimate:
    """What `judge` would take, without a call or a key.

    Args:
        items: pairs of recordings.
        asker: who would be asked, see `JudgeSettings.of`.
        log: what it answers is not counted; may be open for reading only.
        orders, repeats, price, ask_identical: as in `judge`.

    """
    price = price or cost.price_of(asker.backend, asker.model)
    calls = reused = by_rule = skipped = 0
    usage = Usage()
    seen: set[str] = set()
    for item in items:
        if unfit(item):
            skipped += 1
            continue
        ruled = rule_for(item, ask_identical)
        if ruled:
            by_rule += len(list(rule_records(item, asker, orders, *ruled)))
            continue
        for question in questions(item, asker, orders, repeats):
            if question.key in seen or (log is not None and log.find(question.key)):
                reused += 1
                continue
            seen.add(question.key)
            calls += 1
            usage += cost.expected(question.prompt)
    return CostEstimate(calls, reused, by_rule, skipped, usage, price.of(usage) if price else None)
