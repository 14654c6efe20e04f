"""What judging costs: list prices, an estimate before any call, and a budget that stops before it is passed.

Prices move and are here only for orientation; `--price` overrides them. Free tiers, batches (half the price) and
caches are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.asking import same_model
from jwb_dh_v1.judge.request import JudgePrompt, Usage

AUDIO_TOKENS_PER_SECOND = 32  # Gemini's documented rate; others count differently, and the log holds what was counted
BYTES_PER_TOKEN = 4  # of UTF-8: four letters of English, 1.3 Chinese characters
OUT_TOKENS = 900  # reasoning of two recordings, comparison and scores
THOUGHT_TOKENS = 256  # the budget for thinking that the backends set
# What a call can cost at most is needed before it is made. These settings bound it; without one, this is assumed.
OUT_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens", "max_new_tokens")
OUT_TOKENS_AT_MOST = 8192


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens; thoughts cost as much as `out`."""

    text_in: float
    audio_in: float
    out: float
    source: str = ""

    def of(self, usage: Usage) -> float:
        """Dollars."""
        tokens_in = usage.text_in * self.text_in + usage.audio_in * self.audio_in
        return (tokens_in + (usage.out + usage.thoughts) * self.out) / 1e6


FREE = Price(0.0, 0.0, 0.0, "runs here")
PRICES: dict[str, Price] = {
    "gemini-2.5-pro": Price(
        1.25, 1.25, 10.0, "list price of prompts up to 200,000 tokens, as others quote it, 2026-11"
    ),
    "gemini-2.5-flash": Price(0.30, 1.00, 2.50, "list price as others quote it, 2026-11; the audio rate is unchecked"),
    "gemini-2.5-flash-lite": Price(
        0.10, 0.30, 0.40, "list price as others quote it, 2026-11; the audio rate is unchecked"
    ),
}
FREE_BACKENDS = ("local", "replay", "human")


def price_of(backend: str, model: str) -> Price | None:
    """The list price of a model or of a dated version of it; None if it is not known."""
    if backend in FREE_BACKENDS:
        return FREE
    return next((price for name, price in PRICES.items() if same_model(name, model)), None)


def parse_price(text: str) -> Price:
    """`IN,OUT` or `TEXT_IN,AUDIO_IN,OUT` in dollars per million tokens, as `--price` takes it.

    Raises:
        SetupError: not two or three numbers from 0 up.

    """
    try:
        numbers = [float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(0 <= one < float("inf") for one in numbers):
        raise SetupError(f"--price {text!r} is no price; give IN,OUT in dollars per million tokens, e.g. 1.25,10.")
    return Price(numbers[0], numbers[-2], numbers[-1], "given")


def expected(prompt: JudgePrompt) -> Usage:
    """The tokens that one call will take, more or less."""
    text = -(-_text_bytes(prompt) // BYTES_PER_TOKEN)
    return Usage(round(prompt.seconds * AUDIO_TOKENS_PER_SECOND), text, out=OUT_TOKENS, thoughts=THOUGHT_TOKENS)


def at_most(prompt: JudgePrompt, settings: Mapping[str, Any]) -> Usage:
    """The tokens that one call can take: every byte of text a token, audio doubled, the answer at its limit."""
    limits = [settings[name] for name in OUT_LIMITS if isinstance(settings.get(name), int)]
    audio = round(2 * prompt.seconds * AUDIO_TOKENS_PER_SECOND)
    return Usage(audio, _text_bytes(prompt), out=max(limits, default=OUT_TOKENS_AT_MOST))


def _text_bytes(prompt: JudgePrompt) -> int:
    texts = (prompt.system, *(part for part in prompt.parts if isinstance(part, str)))
    return sum(len(one.encode(errors="replace")) for one in texts)


@dataclass(frozen=True)
class CostEstimate:
    """What a run would take; re-asks and retries are not counted.

    Attributes:
        calls: that would be made.
        reused: questions that the log already answers.
        by_rule: verdicts that need no judge.
        skipped: pairs that cannot be judged.
        usage: expected tokens of the calls.
        dollars: of them; None without a price.

    """

    calls: int = 0
    reused: int = 0
    by_rule: int = 0
    skipped: int = 0
    usage: Usage = field(default_factory=Usage)
    dollars: float | None = None


class Budget:
    """Counts what is spent and promised; not for several threads (the coordinating thread keeps it).

    A question reserves the most that it can cost before it is asked and is settled with what it did cost, so that
    calls in flight cannot pass the limit together. Calls without an answer count as free.
    """

    def __init__(self, limit: float | None, price: Price | None) -> None:
        """A budget.

        Args:
            limit: dollars, None for none.
            price: needed if there is a limit.

        Raises:
            SetupError: a limit without a price, or one below 0.

        """
        if limit is not None and price is None:
            raise SetupError("The price of this judge is not known, so --max-cost cannot be kept; give --price IN,OUT.")
        if limit is not None and not limit >= 0:
            raise SetupError(f"--max-cost {limit} is not an amount of dollars.")
        self.limit = limit
        self.price = price
        self.spent = 0.0
        self.promised = 0.0

    def dollars(self, usage: Usage) -> float:
        """What tokens cost; 0 without a price."""
        return self.price.of(usage) if self.price else 0.0

    def admits(self, dollars: float) -> bool:
        """Whether that much more can be promised."""
        return self.limit is None or self.spent + self.promised + dollars <= self.limit

    def reserve(self, dollars: float) -> None:
        """Promise it."""
        self.promised += dollars

    def settle(self, reserved: float, dollars: float) -> None:
        """A promise comes due."""
        self.promised -= reserved
        self.spent += dollars


def counted(usage: Usage, guess: Usage, answers: int) -> Usage:
    """The usage that is charged: as the server counts, or the guess for each answer if it does not count."""
    if any(asdict(usage).values()) or not answers:
        return usage
    total = Usage()
    for _ in range(answers):
        total += guess
    return total
