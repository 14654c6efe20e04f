"""What the judge on loopback hears and writes: its rule, its spoilt answers, and the two wire formats."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import wave
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RATE = 16000
THRESHOLDS = (0.02, 0.1, 0.5)  # brightness; a tone of 358 Hz, 809 Hz, 1841 Hz
TIE = 0.1


def wav(samples: Any, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of 16 bits from samples, -1 to 1."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.asarray(samples) * 32767).astype("<i2").tobytes())
    return data.getvalue()


def tone(hertz: float, seconds: float = 0.25, gain: float = 0.3) -> bytes:
    """A sine wave as a WAV file."""
    return wav(gain * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE))


def samples_of(data: bytes) -> np.ndarray:
    """The samples of a WAV file, -1 to 1. ValueError if it is not mono, 16 kHz, 16 bit."""
    with wave.open(io.BytesIO(data)) as file:
        form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if form != (RATE, 1, 2):
            raise ValueError(f"not mono, 16 kHz, 16 bit: {form}")
        count = file.getnframes()
        samples = np.frombuffer(file.readframes(count), "<i2")
    if len(samples) != count:
        raise ValueError("the file ends before its samples")
    return samples / np.float32(32768)


def brightness(data: bytes) -> float:
    """Of a WAV file, 0 to 4; 0 for silence."""
    samples = samples_of(data)
    energy = float(samples @ samples)
    steps = np.diff(samples)
    return float(steps @ steps) / energy if energy else 0.0


def verdict_on(first: bytes, second: bytes) -> dict[str, Any]:
    """The answer to two WAV files by the rule above."""
    one, two = brightness(first), brightness(second)
    scores = [sum(value >= limit for limit in THRESHOLDS) for value in (one, two)]
    winner = "1" if one > two else "2"
    if abs(one - two) <= TIE * max(one, two):
        winner, scores = "tie", [min(scores)] * 2
    return {
        "reasoning_1": f"brightness {one:.4f}",
        "reasoning_2": f"brightness {two:.4f}",
        "comparison": "the brighter one is better",
        "score_1": scores[0],
        "score_2": scores[1],
        "winner": winner,
    }


def spoilt(verdict: dict[str, Any], fault: str) -> str:
    """The text of an answer."""
    if fault == "out_of_range":
        verdict = {**verdict, "score_1": 7}
    elif fault == "missing":
        verdict = {key: value for key, value in verdict.items() if key != "winner"}
    text = json.dumps(verdict, indent=1)
    if fault == "fenced":
        return f"Here is my judgement:\n```json\n{text}\n```\n"
    if fault == "invalid":
        return text.replace('",', '"')
    if fault in ("truncated", "filtered"):
        return text[: len(text) // 2]
    return "" if fault in ("blocked", "empty") else text


def gemini_answer(text: str, model: str, fault: str, tokens: Mapping[str, int]) -> dict[str, Any]:
    usage = {
        "promptTokenCount": tokens["text"] + tokens["audio"],
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": tokens["text"]},
            {"modality": "AUDIO", "tokenCount": tokens["audio"]},
        ],
        "candidatesTokenCount": tokens["out"],
        "thoughtsTokenCount": tokens["thoughts"],
        "totalTokenCount": sum(tokens.values()),
    }
    answer: dict[str, Any] = {"usageMetadata": usage, "modelVersion": model, "responseId": "r"}
    if fault == "blocked":
        return {**answer, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    if fault == "empty":
        return {**answer, "candidates": []}
    finish = {"filtered": "SAFETY", "refusal": "RECITATION", "truncated": "MAX_TOKENS"}.get(fault, "STOP")
    # Cut by the limit of tokens, a thinking model may have written nothing yet; the SDK's text is '' then.
    content = {"role": "model"} if fault == "refusal" else {"role": "model", "parts": [{"text": text}]}
    return {**answer, "candidates": [{"content": content, "finishReason": finish, "index": 0}]}


def openai_answer(text: str, model: str, fault: str, tokens: Mapping[str, int]) -> dict[str, Any]:
    usage = {
        "prompt_tokens": tokens["text"] + tokens["audio"],
        "completion_tokens": tokens["out"] + tokens["thoughts"],
        "total_tokens": sum(tokens.values()),
        "prompt_tokens_details": {"audio_tokens": tokens["audio"], "cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens["thoughts"]},
    }
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if fault == "refusal":
        message |= {"content": None, "refusal": "I cannot help with that."}
    finish = {"blocked": "content_filter", "filtered": "content_filter", "truncated": "length"}.get(fault, "stop")
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "usage": usage}
    return {**answer, "choices": [] if fault == "empty" else [choice]}


def read_gemini(path: str, body: dict[str, Any]) -> tuple[str, list[str], list[bytes]]:
    """Model, texts and sounds; the sounds in `body` become their hashes."""
    texts = [part["text"] for part in body.get("systemInstruction", {}).get("parts", [])]
    sounds = []
    for content in body["contents"]:
        for part in content["parts"]:
            if "text" in part:
                texts.append(part["text"])
                continue
            data = part["inlineData"]
            kind = data.get("mimeType", data.get("mime_type"))  # the real server takes both, the SDK sends the second
            if kind != "audio/wav":
                raise ValueError(f"not audio/wav: {kind}")
            sounds.append(_decoded(data["data"]))
            data["data"] = hashlib.sha256(sounds[-1]).hexdigest()
    return path.rpartition("/models/")[2].removesuffix(":generateContent"), texts, sounds


def read_openai(path: str, body: dict[str, Any]) -> tuple[str, list[str], list[bytes]]:
    """As `read_gemini`."""
    texts, sounds = [], []
    for message in body["messages"]:
        if isinstance(message["content"], str):
            texts.append(message["content"])
            continue
        for part in message["content"]:
            if part["type"] == "text":
                texts.append(part["text"])
                continue
            sound = part["input_audio"]
            if sound["format"] != "wav":
                raise ValueError(f"not wav: {sound['format']}")
            sounds.append(_decoded(sound["data"]))
            sound["data"] = hashlib.sha256(sounds[-1]).hexdigest()
    return body["model"], texts, sounds


def _decoded(data: str) -> bytes:
    return base64.b64decode(data.translate(str.maketrans("-_", "+/")), validate=True)


def content_key(model: str, texts: Sequence[str], sounds: Sequence[str]) -> str:
    """What `answered` and `verdicts` count by; `sounds` are sha256 in hex, the system text is the first of `texts`."""
    return hashlib.sha256(json.dumps([model, list(texts), list(sounds)]).encode()).hexdigest()[:32]
