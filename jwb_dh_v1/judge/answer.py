"""From a judge's answer to a verdict: what counts as an answer, and why it does not.

We check the text ourselves, whatever the backend promises: constrained decoding fails silently (an SDK's `parsed` is
just None), and most servers have none.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from jwb_dh_v1.judge.request import Answer, Status, Winner
from jwb_dh_v1.judge.rubric import JWB_R1, Rubric

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

    What stands before `models/` does not count. Without a pattern the id must be equal, or go on with a version or
    date: `gemini-2.5-pro-001` and `gpt-audio-2025-08-28` are served for their plain names, but `gemini-2.5-flash-lite`
    is not `gemini-2.5-flash`. A pattern is that of `fnmatch`, on the served id, and asked does not matter then.
    An empty `served` says nothing and passes.
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
    raise _Unreadable(f"{name} is no JSON")


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
