"""What the judges behind an HTTP API share: keys, addresses, waiting times, and what a status code means.

Keys are secrets: `Secret` keeps one out of every text that leaves a backend. An SDK's exception may quote it (servers
echo a wrong key in their message), so that none of them is ever chained: a backend builds its own error inside the
`except` block and raises it outside.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from jwb_dh_v1.errors import JudgeUnavailable, SetupError
from jwb_dh_v1.judge.request import CallFailed

LONGEST = 300  # characters of a server's own text that an error quotes
AGAIN = (408, 425, 429)  # and everything from 500 on


class Secret:
    """An API key that hides itself.

    Args:
        given: the key, or None to look into the environment.
        names: environment variables, the strongest first.
        default: what is sent without any; None if there has to be one.

    Raises:
        JudgeUnavailable: there is none, or it holds characters that no header can carry (a line break of a file).

    """

    def __init__(self, given: str | None, names: tuple[str, ...], default: str | None = None) -> None:
        found = next((value for value in (given, *map(os.environ.get, names)) if value and value.strip()), None)
        self.known = found is not None
        key = (found or default or "").strip()
        if not key:
            raise JudgeUnavailable(f"The judge needs an API key: set {' or '.join(reversed(names))} in the environment")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise JudgeUnavailable(f"The API key in {' or '.join(reversed(names))} holds spaces or other characters")
        self.value = key

    def __repr__(self) -> str:
        return "Secret(***)"

    def out_of(self, text: str) -> str:
        """The text without the key, in one line, of at most `LONGEST` characters."""
        hidden = text.replace(self.value, "***") if self.known else text
        return " ".join(hidden.split())[:LONGEST]


def address(url: str | None) -> str | None:
    """A base URL without its last slash; None stays None.

    Raises:
        SetupError: it is not http(s), or holds a user, a query or a fragment (places of secrets).

    """
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SetupError("The judge's base URL has to begin with http:// or https:// and a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SetupError("The judge's base URL may hold no user, password, query or fragment; keys are set otherwise")
    return url.rstrip("/")


def broken_connection() -> tuple[type[Exception], ...]:
    """What httpx and httpx2, whichever the SDK uses, raise on timeouts, resets and answers cut in the middle."""
    found = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).RequestError)
        except ImportError:
            continue
    return tuple(found)


def waiting_time(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or an HTTP date) ask for; None without either."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def refusal(code: int, text: str, *, model: str, after: float | None, keys: str) -> CallFailed | JudgeUnavailable:
    """What a status code other than 200 means.

    Args:
        code: of HTTP.
        text: the server's own words, free of the key.
        model: the id that was asked for.
        after: seconds that the server asks to wait.
        keys: environment variables that hold the key.

    """
    said = f"the judge's server answered {code}: {text}"
    if code == 404:
        return JudgeUnavailable(
            f"There is no judge {model!r} at this address; retired ids end like this. Choose another with --model, or "
            f"check --base-url ({said})"
        )
    if code in (401, 402, 403) or (code == 400 and "api key" in text.lower()):  # Google's word for a wrong one is 400
        return JudgeUnavailable(f"The judge {model!r} may not be asked with the key in {keys} ({said})")
    return CallFailed(said[0].upper() + said[1:], retry=code in AGAIN or code >= 500, after=after)
