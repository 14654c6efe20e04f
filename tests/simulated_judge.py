"""A judge without a network: simulated verdicts and faults, a clock that only sleeps, and pairs to judge."""

import hashlib
import json
import random
import threading
import time
from collections import Counter

import numpy as np

from jwb_dh_v1.judge.log import Log, records
from jwb_dh_v1.judge.question import JudgeItem
from jwb_dh_v1.judge.request import Answer, CallFailed, Speech, Usage
from jwb_dh_v1.judge.run import judge
from jwb_dh_v1.media.audio import Audio

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
        yield JudgeItem(f"{i:04d}", f"person {i}", f"Text {i}.", "en", "general", system, BASELINE, **sounds)


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
