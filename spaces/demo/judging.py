"""Two recordings before a judge, and what comes of it in one sentence.

The core's sentences name environment variables and options of the command line, which a visitor of a page has not;
here they are said anew, from the status of the provider's answer.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from files import workplace
from uploads import Refused, shown

from jwb_dh_v1.analysis.wording import printable
from jwb_dh_v1.errors import JudgeModelMismatch, JwbError, NotApplicable
from jwb_dh_v1.judge.backends import PAPER
from jwb_dh_v1.media.audio import Audio, decode_audio

OPENAI = "https://api.openai.com/v1"
DOLLARS = 1.0  # of the visitor's money in one call, at most
WAIT = 10.0  # seconds; a provider that wants a longer pause is not asked again
CODE = re.compile(r"answered (\d{3}):")
SAID = {
    401: "The provider does not accept this key for {model}.",
    402: "The account of this key has no credit left.",
    404: "The provider has no model {model}: it may be mistyped, or retired. Name another one.",
    429: "The provider takes no more requests with this key for now{pause}.",
    500: "The provider cannot answer just now; try again later.",
}
UNUSABLE = {
    "blocked": "The provider's filter let no verdict on these recordings through",
    "truncated": "The judge's answer ended before its verdict",
    "parse_error": "The judge's answer holds no verdict that can be read",
    "out_of_range": "The judge's answer holds no verdict that can be read",
}
OUTCOMES = {
    "win": "The generated recording wins in both orders.",
    "loss": "The baseline wins in both orders.",
    "tie": "A tie in both orders.",
}
RULES = {
    "same_audio": "Both recordings are the same, which is a tie; the judge was not asked.",
    "no_speech": "Nothing is to be heard in the generated recording, so that it loses; the judge was not asked.",
}
ORDERS = {"system_first": "Generated first", "baseline_first": "Baseline first"}


def heard(path: Path) -> Audio:
    """A file's sound.

    Raises:
        NotApplicable: it has none.

    """
    audio: Audio | None = decode_audio(path)
    if audio is None:
        raise NotApplicable(f"{path.name} has no sound.")
    return audio


class Polite:
    """A backend that does not wait for long pauses, and remembers how long the last one was to be."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.after: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def ask(self, prompt: Any) -> Any:
        """One call, as of the backend."""
        from jwb_dh_v1.judge.request import CallFailed

        try:
            return self.backend.ask(prompt)
        except CallFailed as error:
            self.after = error.after
            if (error.after or 0) > WAIT:
                raise CallFailed(str(error), retry=False) from None
            raise


def verdict(ours: Path, theirs: Path, text: str, provider: str, model: str, key: str, base_url: str) -> dict[str, Any]:
    """What a judge says of two recordings, asked once in each order. For the fields see `speech.judge_of`.

    Raises:
        Refused: it was not asked, or gave no verdict in either order; one sentence, without the key.

    """
    if provider not in {"gemini", "openai"}:
        raise Refused("The providers are gemini and openai.")
    if provider == "openai" and not model:
        raise Refused("Name the model: for openai there is none by default.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise Refused("This is no key: it holds spaces or characters that none has.")
    try:
        return _without(key, _ask(ours, theirs, text, provider, model, key, base_url))
    except JudgeModelMismatch as error:
        raise Refused(shown(error).replace(key, "***").partition(", or allow")[0] + ".") from None
    except Refused as error:
        raise Refused(str(error).replace(key, "***")) from None
    except JwbError as error:
        # "from None": the first error may quote the key in its trace.
        said = shown(error).replace(key, "***")
        raise Refused(sentence(said, model or PAPER, None)) from None


def _ask(ours: Path, theirs: Path, text: str, provider: str, model: str, key: str, base_url: str) -> dict[str, Any]:
    from jwb_dh_v1.judge import run
    from jwb_dh_v1.judge.backends import backend
    from jwb_dh_v1.judge.cost import price_of
    from jwb_dh_v1.judge.log import Log, records
    from jwb_dh_v1.judge.question import JudgeItem
    from jwb_dh_v1.judge.request import prepare

    address = base_url or (OPENAI if provider == "openai" else None)
    asked = Polite(backend(provider, model or None, api_key=key, base_url=address, timeout_s=60.0))
    try:
        two = [prepare(heard(path)) for path in (ours, theirs)]
        item = JudgeItem("clip", "clip", text, "en", "general", "generated", "baseline", *two)
        with workplace() as folder:
            log = Log(folder / "judge.jsonl")
            try:
                price = price_of(asked.name, asked.model)
                limit = DOLLARS if price else None  # without a price there are still but two short questions
                found = run.judge(
                    [item], asked, log, concurrency=2, retries=1, max_wait=WAIT, max_cost=limit, price=price
                )
            finally:
                log.close()
            lines = list(records(log.path))
    finally:
        asked.close()
    if found.skipped:
        raise Refused(f"This cannot be judged: {found.skipped[0][1]}.")
    if found.stopped and not lines:
        raise Refused(f"The judge was not asked: {found.stopped}.")
    names = ("order", "status", "reason", "winner", "score_1", "score_2", "reasoning", "model_served", "source")
    judgements = [{name: line.get(name) for name in names} | {"outcome": outcome_of(line)} for line in lines]
    if all(line["status"] != "ok" for line in lines):
        raise Refused(no_verdict(lines, asked.model, asked.after, found.dollars))
    outcomes = {entry["outcome"] for entry in judgements}
    outcome = outcomes.pop() if len(outcomes) == 1 and len(lines) == 2 else "unclear"
    return {
        "outcome": outcome,
        "sentence": summary(outcome, judgements),
        "judgements": judgements,
        "tokens": vars(found.usage),
        "dollars": found.dollars,
        "failed": dict(found.failed),
        "stopped": found.stopped,
        "provider": provider,
        "model": asked.model,
    }


def _without(key: str, value: Any) -> Any:
    """A JSON value whose texts do not hold the key, whatever the server wrote into them."""
    if isinstance(value, str):
        return value.replace(key, "***")
    if isinstance(value, dict):
        return {_without(key, name): _without(key, item) for name, item in value.items()}
    return [_without(key, item) for item in value] if isinstance(value, list) else value


def outcome_of(line: Mapping[str, Any]) -> str:
    """Who won, seen from the generated recording."""
    if line["status"] != "ok":
        return "no answer"
    if line["winner"] == "tie":
        return "tie"
    first = line["order"] == "system_first"
    return "win" if (line["winner"] == "1") == first else "loss"


def sentence(said: str, model: str, after: float | None) -> str:
    """What a refusal means; `said` is the core's sentence, `after` the seconds that the provider wants to wait."""
    code = int(found[1]) if (found := CODE.search(said)) else 402 if "no credit left" in said else 0
    wrong_key = code == 403 or (code == 400 and "api key" in said.lower())  # Google's word for a wrong one is 400
    meaning = SAID.get(401 if wrong_key else 500 if code >= 500 else code)
    if meaning is None:
        return said.rstrip(".") + "."
    pause = f"; it wants a pause of {after:.0f} s" if after else "; try again later"
    words = said[found.end() :].strip(" ).") if found else ""
    return meaning.format(model=model, pause=pause) + (f" It says: {words} ({code})." if words else "")


def no_verdict(
    lines: Sequence[Mapping[str, Any]], model: str, after: float | None, dollars: float | None
) -> str:  # fmt: skip
    """Why there is no verdict in either order."""
    line = lines[0]
    if line["status"] == "api_error":
        return sentence(line["reason"], model, after)
    spent = f" ${dollars:.2g} was spent." if dollars else ""
    return f"{UNUSABLE[line['status']]} ({printable(line['reason'], 200)}).{spent}"


def summary(outcome: str, judgements: Sequence[Mapping[str, Any]]) -> str:
    """The verdict in one sentence."""
    if judgements[0]["source"] == "rule":
        return RULES[judgements[0]["reason"]]
    if outcome in OUTCOMES:
        return OUTCOMES[outcome]
    each = ", ".join(f"{ORDERS[entry['order']].lower()}: {entry['outcome']}" for entry in judgements)
    return f"Unclear: the verdict hangs on which recording is heard first ({each})."


def told(found: Mapping[str, Any] | None) -> str:
    """A verdict as HTML: the sentence, and scores and reasons of each order."""
    if not found:
        return ""
    parts = [f"<h3>{html.escape(found['sentence'])}</h3>"]
    for entry in found["judgements"]:
        if entry["source"] == "rule":
            continue
        one, two = entry["score_1"], entry["score_2"]
        scores = (one, two) if entry["order"] == "system_first" else (two, one)
        said = f"{ORDERS[entry['order']]}: {entry['outcome']}"
        said += "" if None in scores else f"; generated {scores[0]}, baseline {scores[1]}"
        reasons = " ".join(str(text) for text in (entry["reasoning"] or {}).values())
        parts.append(f"<p><b>{html.escape(said)}.</b> {html.escape(printable(reasons or entry['reason'], 1500))}</p>")
    cost = "unknown" if found["dollars"] is None else f"${found['dollars']:.2g}"
    parts.append(f'<p class="faint">{html.escape(printable(str(found["model"]), 80))}; cost: {cost}.</p>')
    return f'<section class="words" aria-label="Verdict">{"".join(parts)}</section>'
