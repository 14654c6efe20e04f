"""What a judge is asked and what it answers: the small interface that every backend implements.

A backend does one call and nothing else: no retries, no parsing, no log. `run.py` retries, validates and logs, so that
all backends behave alike and a new one is one class with `ask`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Winner = Literal["1", "2", "tie"]
Finish = Literal["stop", "truncated", "blocked"]
Status = Literal["ok", "parse_error", "out_of_range", "blocked", "truncated", "api_error"]
STATUSES: tuple[Status, ...] = ("ok", "parse_error", "out_of_range", "blocked", "truncated", "api_error")


@dataclass(frozen=True)
class Prompt:
    """One question: a system text, then texts and WAV files in the order in which they are heard.

    Attributes:
        system: the judge's role.
        parts: texts (str) and sounds (bytes: WAV, mono, 16 kHz, 16 bit).
        schema: JSON schema of the answer, for backends that can hold the model to it.
        seconds: length of all sounds together, for the estimate of cost.

    """

    system: str
    parts: tuple[str | bytes, ...]
    schema: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the server counted them; zeros where it does not say."""

    audio_in: int = 0
    text_in: int = 0
    out: int = 0
    thoughts: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Answer:
    """What came back from one call.

    Attributes:
        text: as the model wrote it; may be empty.
        model_served: the model that the server says it ran; empty where it does not say.
        finish: `stop`, `truncated` (the limit of tokens) or `blocked` (a filter), by the server's own word.
        reason: the server's word for `finish`.
        usage: tokens.

    """

    text: str
    model_served: str
    finish: Finish = "stop"
    reason: str = ""
    usage: Usage = field(default_factory=Usage)


class CallFailed(Exception):
    """A call gave no answer.

    Attributes:
        retry: whether the same call may work later (429, 5xx, timeouts, broken connections).
        after: seconds that the server asks to wait; None if it does not say.

    The message holds no key: backends make it of the status code and the server's own text, cut to 300 characters,
    with the key they know replaced.
    """

    def __init__(self, message: str, *, retry: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.retry = retry
        self.after = after


class Backend(Protocol):
    """One way to ask a judge. `ask` is called from several threads at once.

    Attributes:
        name: `gemini`, `openai`, `local` ...
        model: the id that is asked for.
        settings: everything else that can change an answer (temperature, thinking, API version); JSON values.

    """

    name: str
    model: str
    settings: Mapping[str, Any]

    def ask(self, prompt: Prompt) -> Answer:
        """One call.

        Raises:
            CallFailed: no answer; says whether to try again.
            SetupError: it can never work (no key, unknown or retired model: the message names the setting).

        """

    def close(self) -> None:
        """Let go of connections."""
