"""A judge of either wire in front of the loopback server, and its failures."""

from __future__ import annotations

import pytest
from judge_wires import tone

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.backends import backend
from jwb_dh_v1.judge.request import CallFailed, JudgePrompt
from jwb_dh_v1.judge.rubric import SCHEMA

KEY = "AIzaSECRET-0123456789-abcdefghijklmnop"
WIRES = ("gemini", "openai")
ENVIRONMENT = ("GOOGLE_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")


DARK, BRIGHT = tone(300), tone(3000)


def prompt(first=DARK, second=BRIGHT, text="Compare."):
    return JudgePrompt("You judge.", (text, first, "And now", second), SCHEMA, 0.5)


def judge(wire, server, **settings):
    url = server.url if wire == "gemini" else server.openai_url
    model = "gemini-2.5-pro" if wire == "gemini" else "audio-model"
    return backend(wire, model, api_key=KEY, base_url=url, **settings)


def failure(ask, *arguments):
    with pytest.raises((CallFailed, SetupError)) as caught:
        ask(*arguments)
    return caught.value
