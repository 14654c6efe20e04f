"""A judge behind any chat endpoint of OpenAI's form that takes audio: OpenAI's own, vLLM, SGLang and others.

One request to `/chat/completions` with the sounds as `input_audio` parts (base64 of a WAV file), through the `openai`
package (extra `judge`), whose own retries are off.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jwb_dh_v1.errors import JudgeUnavailable, MissingPackage, SetupError
from jwb_dh_v1.judge.backends.wire import Secret, address, broken_connection, refusal, waiting_time
from jwb_dh_v1.judge.request import Answer, CallFailed, Finish, JudgePrompt, Usage

KEY = "OPENAI_API_KEY"
JsonMode = Literal["json_schema", "json_object", "none"]


class OpenAICompatible:
    """One model of one endpoint. Thread-safe; makes one HTTP request per `ask`.

    Which server it is changes no answer's key: a model that moves to another port is still the same judge. So
    `base_url` is no part of `settings`.

    Args:
        model: id, as the server knows it.
        base_url: such as `http://127.0.0.1:8000/v1`; None is OPENAI_BASE_URL, or OpenAI's own.
        api_key: None takes OPENAI_API_KEY from the environment; another server than OpenAI's may do without.
        temperature: None sends none.
        max_tokens: limit of the answer; None sends none.
        json_mode: how the server is held to JSON: `json_schema` (vLLM), `json_object`, or `none` (OpenAI's audio models
            refuse both others; the prompt asks for JSON anyway).
        timeout_s: seconds without a byte after which a call has failed.

    Raises:
        MissingPackage: openai is not installed.
        JudgeUnavailable: OpenAI's own server and no key.
        SetupError: a base URL or a mode that there is not.

    """

    name = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 4096,
        json_mode: JsonMode = "none",
        timeout_s: float = 120.0,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingPackage("This judge needs the package openai: pip install 'jwb-dh-v1[judge]'") from None
        if json_mode not in get_args(JsonMode):
            raise SetupError(f"There is no JSON mode {json_mode!r}; choose {', '.join(get_args(JsonMode))}")
        url = address(base_url or os.environ.get("OPENAI_BASE_URL") or None)
        self.model = model
        numbers = {"temperature": temperature, "max_tokens": max_tokens}
        self._sent: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
        self.settings: Mapping[str, Any] = {**numbers, "json_mode": json_mode}
        self._key = Secret(api_key, (KEY,), default=None if url is None else "none")
        self._status_error: type[Exception] = openai.APIStatusError
        self._broken: tuple[type[Exception], ...] = (
            openai.APIError,
            *broken_connection(),
            ValueError,
        )  # ValueError: the body is no JSON
        self._client: Any = openai.OpenAI(api_key=self._key.value, base_url=url, timeout=timeout_s, max_retries=0)

    def ask(self, prompt: JudgePrompt) -> Answer:
        """One call; see `Backend.ask`."""
        failure: Exception
        try:
            reply = self._client.chat.completions.create(
                model=self.model, messages=_messages(prompt), **self._sent, **_form(self.settings["json_mode"], prompt)
            )
        except self._status_error as error:
            failure = self._refused(error)
        except self._broken as error:
            cause = error.__cause__ or error  # the SDK's own text is only "Connection error."
            said = self._key.out_of(f"{type(cause).__name__}: {cause}")
            failure = CallFailed(f"The connection to the judge broke ({said})", retry=True)
        else:
            if hasattr(reply, "choices"):
                return answer_of(reply)
            # The SDK hands on a body of another type (a proxy's page of HTML) as a string.
            failure = CallFailed(f"The judge's server sent no answer: {self._key.out_of(str(reply))}", retry=True)
        raise failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refused(self, error: Any) -> CallFailed | JudgeUnavailable:
        body = error.body if isinstance(error.body, dict) else {}
        said = self._key.out_of(str(body.get("message") or error.message))
        if error.code == "insufficient_quota":  # comes as a 429, and no wait helps
            return JudgeUnavailable(f"The account of {KEY} has no credit left ({said})")
        after = waiting_time(error.response.headers)
        return refusal(error.status_code, said, model=self.model, after=after, keys=KEY)


def answer_of(reply: Any) -> Answer:
    """An answer from a `ChatCompletion`. `out` is without the thoughts, which OpenAI counts in."""
    choice = (reply.choices or [None])[0]
    message = choice.message if choice is not None else None
    text = (message.content if message is not None else None) or ""
    refused = getattr(message, "refusal", None)
    finish: Finish = "stop"
    reason = "no choices" if choice is None else str(choice.finish_reason or "")
    if refused:
        finish, reason = "blocked", "refusal"
        text = text or str(refused)
    elif reason == "content_filter":
        finish = "blocked"
    elif reason == "length":
        finish = "truncated"
    return Answer(text, str(reply.model or ""), finish, reason, _usage(reply.usage))


def _usage(counts: Any) -> Usage:
    if counts is None:
        return Usage()
    audio = getattr(counts.prompt_tokens_details, "audio_tokens", None) or 0
    thoughts = getattr(counts.completion_tokens_details, "reasoning_tokens", None) or 0
    return Usage(
        audio_in=audio,
        text_in=max(0, (counts.prompt_tokens or 0) - audio),
        out=max(0, (counts.completion_tokens or 0) - thoughts),
        thoughts=thoughts,
    )


def _messages(prompt: JudgePrompt) -> Any:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "input_audio", "input_audio": {"data": base64.b64encode(part).decode(), "format": "wav"}}
        for part in prompt.parts
    ]
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]


def _form(mode: JsonMode, prompt: JudgePrompt) -> dict[str, Any]:
    if mode == "none":
        return {}
    if mode == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "verdict", "schema": dict(prompt.schema)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
