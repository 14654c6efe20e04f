"""Pairs of recordings, the questions about them, and how a record of the log becomes a judgement again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.log import Record, digest, row_of
from jwb_dh_v1.judge.request import Backend, JudgePrompt, Speech
from jwb_dh_v1.judge.rubric import JWB_R1, Rubric, prompt
from jwb_dh_v1.judge.statistics import Judgement, Order, Outcome
from jwb_dh_v1.version import __version__

Orders = Literal["both", "emergent"]


@dataclass(frozen=True)
class JudgeItem:
    """One sample of a system and of the baseline.

    Attributes:
        sample_id, identity_id: the sample and the person in it.
        text, language, category: what should be spoken; `general` or the dataset's tag.
        system, baseline: their names.
        speech, baseline_speech: what they said; None where there is no sound at all.

    """

    sample_id: str
    identity_id: str
    text: str
    language: str
    category: str
    system: str
    baseline: str
    speech: Speech | None
    baseline_speech: Speech | None


Who = tuple[str, str, str, str]  # backend, model, rubric with the start of its sha256, digest of the settings


def _who(backend: str, model: str, rubric: str, sha256: str, settings: Mapping[str, Any]) -> Who:
    """One judge's name in all statistics: answers of two judges are never mixed."""
    return backend, model, f"{rubric} {sha256[:12]}", digest(dict(settings))


@dataclass(frozen=True)
class JudgeSettings:
    """Who is asked: everything besides text and sound that can change an answer."""

    backend: str
    model: str
    settings: Mapping[str, Any]
    rubric: Rubric = JWB_R1

    @classmethod
    def of(cls, backend: Backend, rubric: Rubric = JWB_R1) -> JudgeSettings:
        """The settings of a backend that is asked with a rubric."""
        return cls(backend.name, backend.model, backend.settings, rubric)

    @property
    def who(self) -> Who:
        """The key under which `judged` groups this judge's records."""
        return _who(self.backend, self.model, self.rubric.name, self.rubric.sha256, self.settings)


@dataclass(frozen=True)
class Question:
    """One call to come: its prompt, and the part of its record that is known before the answer (see `facts`)."""

    prompt: JudgePrompt
    facts: Record

    @property
    def key(self) -> str:
        """Equal keys are the same question."""
        return str(self.facts["key"])


def orders_of(sample_id: str, orders: Orders) -> tuple[Order, ...]:
    """In which order(s) the two recordings of a sample are heard.

    `emergent` is one order per sample, the same for every system: the baseline first if the first draw of NumPy's
    default_rng(id) is above 1/2, as in EmergentTTS-Eval, whose ids are whole numbers; other ids seed by their sha256.
    """
    if orders == "both":
        return ("system_first", "baseline_first")
    if orders != "emergent":
        raise SetupError(f"The orders are {orders!r}; give both or emergent.")
    whole = sample_id.isascii() and sample_id.isdecimal()
    seed = int(sample_id) if whole else int.from_bytes(hashlib.sha256(sample_id.encode()).digest()[:8])
    return ("baseline_first",) if np.random.default_rng(seed).random() > 0.5 else ("system_first",)


def unfit(item: JudgeItem) -> str | None:
    """Why a pair cannot be judged, None if it can.

    Raises:
        SetupError: a system against itself; that is 1/2 without a judge.

    """
    if item.system == item.baseline:
        raise SetupError(f"{item.system!r} is compared with itself, which is 1/2 without a judge; name another one.")
    if item.baseline_speech is None:
        return "the baseline has no audio"
    if item.baseline_speech.silent:
        return "the baseline is silent"
    if not item.text.strip():
        return "no text"
    return None


def rule_for(item: JudgeItem, ask_identical: bool = False) -> tuple[str, Outcome] | None:
    """The verdict that needs no judge, with the name of its rule.

    `no_speech`: nothing can be heard of the system, a loss. `same_audio`: both recordings are the same to the last
    bit, a tie, unless they are asked on purpose (diagnosis.identical_control).
    """
    if item.speech is None or item.speech.silent:
        return "no_speech", "loss"
    if item.baseline_speech is not None and item.speech.sha256 == item.baseline_speech.sha256 and not ask_identical:
        return "same_audio", "tie"
    return None


def facts(item: JudgeItem, order: Order, repeat: int, asker: JudgeSettings) -> Record:
    """What a record holds before the answer; lists of two are in the order in which the recordings are heard.

    Fields: key, backend, model, settings, rubric {name, sha256}; system, baseline, sample_id, identity_id, order,
    repeat; text, language, category; audio_sha256, seconds, loudness (LUFS before the gain) and gain (dB), None for a
    recording that is missing, silent. The answer adds: source, status, reason, winner ("1", "2", "tie"), score_1,
    score_2, reasoning, raw_text, first (what the first answer was, where it was asked again, else None), reasks,
    model_served, usage, attempts (calls made), latency_s (of the calls that answered), time (UTC), package.
    """
    two = (item.speech, item.baseline_speech)
    heard = two if order == "system_first" else two[::-1]
    known: Record = {
        "backend": asker.backend,
        "model": asker.model,
        "settings": dict(asker.settings),
        "rubric": {"name": asker.rubric.name, "sha256": asker.rubric.sha256},
        "text": item.text,
        "language": item.language,
        "category": item.category,
        "audio_sha256": [one and one.sha256 for one in heard],
        "repeat": repeat,
    }
    return {
        "key": digest({**known, "rubric": asker.rubric.sha256}),
        **known,
        "system": item.system,
        "baseline": item.baseline,
        "sample_id": item.sample_id,
        "identity_id": item.identity_id,
        "order": order,
        "seconds": [one and one.seconds for one in heard],
        "loudness": [one and one.lufs for one in heard],
        "gain": [one and one.gain for one in heard],
        "package": __version__,
    }


def questions(item: JudgeItem, asker: JudgeSettings, orders: Orders, repeats: int) -> Iterator[Question]:
    """All questions about a pair that needs a judge, repeats outside, orders inside."""
    for repeat in range(repeats):
        for order in orders_of(item.sample_id, orders):
            known = facts(item, order, repeat, asker)
            two = (item.speech, item.baseline_speech)
            first, second = two if order == "system_first" else two[::-1]
            assert first is not None and second is not None
            yield Question(prompt(item.text, item.language, item.category, first, second, asker.rubric), known)


def rule_records(
    item: JudgeItem, asker: JudgeSettings, orders: Orders, name: str, outcome: Outcome
) -> Iterator[Record]:
    """Records of a verdict by rule: one per order, so that it weighs as a judged pair does."""
    for order in orders_of(item.sample_id, orders):
        known = facts(item, order, 0, asker)
        won = {"win": ("system_first", "1", "2"), "loss": ("baseline_first", "1", "2")}.get(outcome)
        winner = "tie" if won is None else won[1] if won[0] == order else won[2]
        known["key"] = digest([name, known["key"]])
        yield {**known, "source": "rule", "status": "ok", "reason": name, "winner": winner}


def judgement_of(record: Mapping[str, Any]) -> Judgement:
    """What a record says about its system. Covariates are of what was heard: loudness counts after the gain."""
    first = record["order"] == "system_first"
    outcome: Outcome | None = None
    if record["status"] == "ok":
        outcome = "tie" if record["winner"] == "tie" else "win" if (record["winner"] == "1") == first else "loss"
    scores = (record.get("score_1"), record.get("score_2"))
    covariates = {}
    if None not in record["seconds"]:
        covariates["duration"] = record["seconds"][0] - record["seconds"][1]
    if None not in record["loudness"]:
        heard = [loud + gain for loud, gain in zip(record["loudness"], record["gain"], strict=True)]
        covariates["loudness"] = heard[0] - heard[1]
    return Judgement(
        record["system"],
        record["baseline"],
        record["sample_id"],
        record["identity_id"],
        outcome,
        record["order"],
        record["repeat"],
        *(scores if first else scores[::-1]),
        covariates={name: value if first else -value for name, value in covariates.items()},
    )


@dataclass
class Judged:
    """The judgements of one judge.

    Attributes:
        judgements: all, those by rule included: for win rates.
        heard: without those by rule: for the diagnosis of the judge.
        served: how many answers each served model gave; more than one means that snapshots were mixed.

    """

    judgements: list[Judgement] = field(default_factory=list)
    heard: list[Judgement] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> Judgement:
        """Take a record in."""
        one = judgement_of(record)
        self.judgements.append(one)
        if record["source"] != "rule":
            self.heard.append(one)
            if record["status"] != "api_error":
                self.served[record["model_served"]] += 1
        return one


def judged(records: Iterable[Mapping[str, Any]]) -> dict[Who, Judged]:
    """Judgements from a log, by judge (`JudgeSettings.who`).

    A question that failed and was answered later counts as answered; one that is in the log twice counts once.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    for record in records:
        row = row_of(record)
        if row not in rows or rows[row]["status"] == "api_error":
            rows[row] = record
    found: dict[Who, Judged] = {}
    for record in rows.values():
        rubric = record["rubric"]
        who = _who(record["backend"], record["model"], rubric["name"], rubric["sha256"], record["settings"])
        found.setdefault(who, Judged()).add(record)
    return found
