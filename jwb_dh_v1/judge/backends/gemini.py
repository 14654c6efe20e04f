"""Gemini as the judge, through google-genai 2 or 3 (extra `judge`) and the Gemini Developer API.

The paper's judge is gemini-2.5-pro at temperature 0, top-p 0.9 and a thinking budget of 256 tokens. Google retires it
on 2026-12-01 (as read on 2026-11-10; its page had said 2026-06-17 before): then the id answers 404, or is silently
served by another model. So `Answer.model_served` has to be checked by who asks.

Not every family takes the same settings: Gemini 2.5 has a thinking *budget* in tokens, Gemini 3 and later a thinking
*level* in words, and their makers ask to leave temperature and top-p alone. Never both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jwb_dh_v1.errors import JudgeUnavailable, MissingPackage, SetupError
from jwb_dh_v1.judge.backends.wire import Secret, address, broken_connection, refusal, waiting_time
from jwb_dh_v1.judge.request import Answer, CallFailed, Finish, JudgePrompt, Usage

KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")  # the SDK's own order
KEY_NAMES = "GEMINI_API_KEY or GOOGLE_API_KEY"
BUDGETS = {  # smallest and largest number of thinking tokens
    "gemini-2.5-pro": (128, 32768),
    "gemini-2.5-flash-lite": (512, 24576),
    "gemini-2.5-flash": (1, 24576),
}
LEVELS = ("minimal", "low", "medium", "high", "xhigh")
INLINE = 20_000_000  # bytes of one request with its sounds inside, as documented
UNFILTERED = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
TRUNCATED = {"MAX_TOKENS", "CONTINUATION"}
BLOCKED = {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "MODEL_ARMOR"}


class Gemini:
    """One Gemini model. Thread-safe; makes one HTTP request per `ask`.

    Args:
        model: id, such as `gemini-2.5-pro`; without `models/`.
        api_key: the key; None takes GOOGLE_API_KEY or else GEMINI_API_KEY from the environment.
        base_url: another server (a proxy, a test); None is Google's.
        api_version: `v1beta` takes every field that is sent here; the SDK's own default is v1 since its version 3, and
            v1 refused the system text at least until August 2025.
        temperature: None is the family's: 0 up to Gemini 2.5, not sent from Gemini 3 on.
        top_p: None is the family's: 0.9 up to Gemini 2.5, not sent from Gemini 3 on.
        thinking_budget: tokens, Gemini 2.5 only; None is 256 there (the paper's; 512 for flash-lite). -1 lets the
            model choose; 0 turns thinking off where the model can do that.
        thinking_level: `minimal` to `xhigh`, Gemini 3 and later only; None is `low` there.
        max_output_tokens: limit of the answer and the thoughts together.
        timeout_s: seconds without a byte after which a call has failed.
        inline_limit: largest request, in bytes; longer ones fail before they are sent.

    Raises:
        MissingPackage: google-genai is not installed.
        JudgeUnavailable: no key.
        SetupError: a setting that the model's family does not take.

    """

    name = "gemini"

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        api_version: str = "v1beta",
        temperature: float | None = None,
        top_p: float | None = None,
        thinking_budget: int | None = None,
        thinking_level: str | None = None,
        max_output_tokens: int = 8192,
        timeout_s: float = 120.0,
        inline_limit: int = INLINE,
    ) -> None:
        try:
            from google import genai
            from google.genai import errors
        except ImportError:
            raise MissingPackage("The Gemini judge needs google-genai: pip install 'jwb-dh-v1[judge]'") from None
        self.model = model.removeprefix("models/")
        sampling = _sampling(self.model, temperature, top_p)
        self._thinking = _thinking(self.model, thinking_budget, thinking_level)
        self._sampling = {**sampling, "max_output_tokens": max_output_tokens}
        self.settings: Mapping[str, Any] = {"api_version": api_version, **self._sampling, **self._thinking}
        self._inline_limit = inline_limit
        self._key = Secret(api_key, KEYS)
        self._api_error: type[Exception] = errors.APIError
        # ValueError: the body is no JSON, or not of the form that the SDK knows.
        self._broken: tuple[type[Exception], ...] = (*broken_connection(), ValueError)
        # The client is held: one that is collected closes its connections under the call. No `retry_options` means no
        # retries, and vertexai=False keeps a variable of the environment from choosing another API.
        self._client: Any = genai.Client(
            vertexai=False,
            api_key=self._key.value,
            http_options={"base_url": address(base_url), "api_version": api_version, "timeout": round(timeout_s * 1e3)},
        )

    def ask(self, prompt: JudgePrompt) -> Answer:
        """One call; see `Backend.ask`. A prompt that is over `inline_limit` fails unsent, for good."""
        size = request_size(prompt)
        if size > self._inline_limit:
            limit = self._inline_limit
            raise CallFailed(f"The clips are too long: {size} bytes, where inline_limit is {limit}", retry=False)
        failure: Exception
        try:
            reply = self._client.models.generate_content(
                model=self.model, contents=_contents(prompt), config=self._config(prompt)
            )
        except self._api_error as error:
            failure = self._refused(error)
        except self._broken as error:
            said = self._key.out_of(f"{type(error).__name__}: {error}")
            failure = CallFailed(f"The connection to the judge broke ({said})", retry=True)
        else:
            return answer_of(reply)
        raise failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _config(self, prompt: JudgePrompt) -> Any:
        from google.genai import types

        return types.GenerateContentConfig.model_validate(
            {
                **self._sampling,
                "system_instruction": prompt.system,
                "response_mime_type": "application/json",
                "response_json_schema": dict(prompt.schema),
                "safety_settings": [
                    {"category": f"HARM_CATEGORY_{name}", "threshold": "BLOCK_NONE"} for name in UNFILTERED
                ],
                "thinking_config": self._thinking or None,
                "automatic_function_calling": {"disable": True},
            }
        )

    def _refused(self, error: Any) -> CallFailed | JudgeUnavailable:
        body = error.details if isinstance(error.details, dict) else {}
        inner = body.get("error", body)
        notes = inner.get("details") if isinstance(inner, dict) else None
        notes = [note for note in notes or [] if isinstance(note, dict)]
        said = self._key.out_of(f"{error.status or ''} {error.message or ''}")
        code = int(error.code)
        if code == 400 and "Unknown name" in said:
            return JudgeUnavailable(f"Gemini's API {self.settings['api_version']} does not know a field ({said})")
        if code == 400 and error.status == "FAILED_PRECONDITION":  # billing is off, or the country is not served
            return JudgeUnavailable(f"Gemini may not be asked from here ({said})")
        return refusal(code, said, model=self.model, after=_after(notes, error.response), keys=KEY_NAMES)


def request_size(prompt: JudgePrompt) -> int:
    """Bytes of the request's body: texts as they are, sounds in base64 (4 for 3), and 4 kB for the rest."""
    texts = [prompt.system, str(prompt.schema), *(part for part in prompt.parts if isinstance(part, str))]
    sounds = (4 * ((len(part) + 2) // 3) for part in prompt.parts if isinstance(part, bytes))
    return sum(len(text.encode()) for text in texts) + sum(sounds) + 4096


def answer_of(reply: Any) -> Answer:
    """An answer from google-genai's `GenerateContentResponse`. Thoughts are no part of the text."""
    candidate = (reply.candidates or [None])[0]
    content = candidate.content if candidate is not None else None
    parts = (content.parts if content is not None else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    feedback = reply.prompt_feedback
    finish: Finish = "stop"
    if feedback is not None and feedback.block_reason:
        finish, reason = "blocked", _word(feedback.block_reason)
    elif candidate is None:
        reason = "no candidates"
    else:
        reason = _word(candidate.finish_reason) if candidate.finish_reason else ""
        finish = "truncated" if reason in TRUNCATED else "blocked" if reason in BLOCKED else "stop"
    return Answer(text, reply.model_version or "", finish, reason, _usage(reply.usage_metadata))


def _usage(counts: Any) -> Usage:
    if counts is None:
        return Usage()
    by_modality = counts.prompt_tokens_details or []
    audio = sum(part.token_count or 0 for part in by_modality if part.modality and _word(part.modality) == "AUDIO")
    return Usage(
        audio_in=audio,
        text_in=max(0, (counts.prompt_token_count or 0) - audio),
        out=counts.candidates_token_count or 0,
        thoughts=counts.thoughts_token_count or 0,
    )


def _word(value: Any) -> str:
    """The server's own word for a member of one of the SDK's enumerations."""
    return str(getattr(value, "value", value))


def _contents(prompt: JudgePrompt) -> Any:
    from google.genai import types

    parts = [
        types.Part(text=part) if isinstance(part, str) else types.Part.from_bytes(data=part, mime_type="audio/wav")
        for part in prompt.parts
    ]
    return [types.Content(role="user", parts=parts)]


def _after(notes: list[dict[str, Any]], response: Any) -> float | None:
    """Seconds that the server asks to wait: `RetryInfo` (`3.5s`) in the body, or the header; the SDK reads neither."""
    for note in notes:
        seconds = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(note.get("retryDelay", "")))
        if seconds:
            return float(seconds[1])
    return waiting_time(getattr(response, "headers", None) or {})


def _generation(model: str) -> tuple[int, int] | None:
    """(2, 5) for gemini-2.5-pro, (3, 0) for gemini-3-pro; None for an alias such as gemini-flash-latest."""
    found = re.match(r"gemini-(\d+)(?:\.(\d+))?(?=-|$)", model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _sampling(model: str, temperature: float | None, top_p: float | None) -> dict[str, float]:
    """Temperature and top-p as they are sent: those that were asked for, else the paper's, where they are taken."""
    generation = _generation(model)
    takes = generation is not None and generation < (3, 0)
    wanted = {"temperature": (temperature, 0.0), "top_p": (top_p, 0.9)}
    return {
        name: float(paper if given is None else given)
        for name, (given, paper) in wanted.items()
        if takes or given is not None
    }


def _thinking(model: str, budget: int | None, level: str | None) -> dict[str, Any]:
    """The one setting of thinking that the family takes."""
    generation = _generation(model)
    limits = next((value for name, value in BUDGETS.items() if model.startswith(name)), None)
    if generation is not None and generation >= (3, 0):
        if budget is not None:
            raise SetupError(f"{model} takes a thinking level ({', '.join(LEVELS)}), no thinking budget")
        if level is not None and level not in LEVELS:
            raise SetupError(f"There is no thinking level {level!r}; choose {', '.join(LEVELS)}")
        return {"thinking_level": level or "low"}
    if level is not None:
        raise SetupError(f"{model} takes no thinking level; thinking levels begin with Gemini 3")
    if limits is None:
        return {} if budget is None else {"thinking_budget": budget}
    least, most = limits
    budget = max(256, least) if budget is None else budget
    special = (-1,) if model.startswith("gemini-2.5-pro") else (-1, 0)
    if not (least <= budget <= most or budget in special):
        others = " or ".join(map(str, special))
        raise SetupError(f"The thinking budget of {model} is {least} to {most} tokens or {others}, not {budget}")
    return {"thinking_budget": budget}
