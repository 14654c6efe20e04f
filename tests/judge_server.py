"""A judge on loopback for tests: a real HTTP server that speaks Gemini's and OpenAI's wire formats, and misbehaves.

It decodes the recordings it is sent and judges them by a stated rule, so that verdicts depend on sound and order:
**the brighter recording wins**. Brightness is the energy of the first difference over the energy of the signal (0 to 4;
4 sin²(pi f / rate) for a tone), which no gain changes; within 10 % it is a tie. Scores are its place among THRESHOLDS.

What goes wrong is a *fault*, `name` or `name:value`:

- statuses: `429:3` (with the server's own delay: RetryInfo for Gemini, retry-after for OpenAI), `429-header:3`
  (retry-after for both), `429-ms:250`, `429-date:3`, `429-bare` (no delay), `quota`, `400`, `400-key`, `400-field`,
  `401`, `402`, `403`, `404`, `408`, `500`, `502`, `503`, `504`; every message quotes the key that it was sent;
- connections: `timeout:2` (silence for 2 s, then the end), `reset` (before the answer), `cut` (in the middle of it);
- bodies: `html` (a proxy's page), `garbage` (JSON that is none);
- answers: `blocked` (the prompt), `filtered` (the answer), `refusal`, `truncated`, `fenced`, `invalid`, `missing`,
  `out_of_range`, `empty` (no candidates), `other_model:ID`.

Which request gets which one: a sequence for the first requests, a mapping by request number (from 0), or a text:
`503,503` (a sequence), `always:404`, `random:0.3` (of RANDOM) or `random:0.3:429,reset`. Random faults follow from
seed, content and how often that content was asked before, not from the order in which threads arrive.

As a program: `python tests/judge_server.py --port-file F --faults random:0.3`, for tests that kill their client;
`GET /stats` tells what was asked and answered.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import wave
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from judge_wires import (
    RATE,
    content_key,
    gemini_answer,
    openai_answer,
    read_gemini,
    read_openai,
    samples_of,
    spoilt,
    verdict_on,
)

RANDOM = ["429", "503", "500", "reset", "cut", "blocked", "truncated", "fenced", "invalid", "out_of_range", "empty"]
PAID = {"blocked", "filtered", "refusal", "truncated", "fenced", "invalid", "missing", "out_of_range", "other_model"}
GRPC = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
GRPC |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


@dataclass
class Request:
    """One request as the server saw it.

    Attributes:
        number: from 0, in the order of arrival.
        wire: `gemini` or `openai`.
        model: that was asked for.
        key: of the content: model, all texts, all sounds, in order.
        texts: the system text first.
        sounds: sha256 of each WAV file, in order.
        body: as it came, with each sound replaced by its sha256.
        headers: names in lower case.
        fault: as above; empty if none.
        status: that was sent; 0 if none.
        sent: the whole answer left.

    """

    number: int
    wire: str
    path: str
    model: str
    key: str
    texts: tuple[str, ...]
    sounds: tuple[str, ...]
    body: dict[str, Any]
    headers: dict[str, str]
    fault: str = ""
    status: int = 0
    sent: bool = False


@dataclass
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class JudgeServer:
    """The server; runs while its context is entered.

    Args:
        faults: see above.
        seed: of random faults.
        key: the only key that is right; None takes any that is there.
        served: id of the model that is said to have answered; None is the one that was asked for.
        delay: seconds that a `429` without value asks for.
        slow: seconds of a `timeout` without value.
        latency: seconds that every answer takes.
        port: 0 takes a free one.

    Attributes:
        url: `http://127.0.0.1:PORT`; Gemini's base URL. OpenAI's is `openai_url`.
        requests: all of them.
        answered: by content key, how many whole answers were paid for (status 200 and a model that ran).
        verdicts: by content key, how many of these hold a usable verdict.
        most_at_once: the largest number of requests in work at one time.

    """

    def __init__(
        self,
        faults: str | Sequence[str] | Mapping[int, str] = "",
        *,
        seed: int = 0,
        key: str | None = None,
        served: str | None = None,
        delay: float = 0.02,
        slow: float = 30.0,
        latency: float = 0.0,
        port: int = 0,
    ) -> None:
        self.faults = _planned(faults)
        self.seed, self.key, self.served = seed, key, served
        self.delay, self.slow, self.latency = delay, slow, latency
        self.requests: list[Request] = []
        self.answered: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"judge": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.openai_url = f"{self.url}/v1"

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def stats(self) -> dict[str, Any]:
        """Counts, as `GET /stats` sends them."""
        with self.lock:
            return {
                "requests": len(self.requests),
                "answered": dict(self.answered),
                "verdicts": dict(self.verdicts),
                "faults": dict(Counter(request.fault for request in self.requests)),
                "most_at_once": self.most_at_once,
            }

    def fault_of(self, number: int, key: str, before: int) -> str:
        """The fault of a request: its number, its content, how often that was asked before."""
        if not isinstance(self.faults, tuple):
            return self.faults.get(number, "")
        share, kinds = self.faults
        draw = hashlib.sha256(f"{self.seed} {key} {before}".encode()).digest()
        if int.from_bytes(draw[:8], "big") >= share * 2**64:
            return ""
        return kinds[int.from_bytes(draw[8:16], "big") % len(kinds)]

    def reply(self, request: Request, sounds: Sequence[bytes], key: str) -> Reply:
        """What is sent, by the request's fault."""
        name, _, value = request.fault.partition(":")
        if len(sounds) != 2:
            return self._error(request, 400, f"{len(sounds)} recordings instead of 2", key)
        if not key or (self.key is not None and key != self.key):
            name = "400-key" if request.wire == "gemini" else "401"
        if name[:3].isdigit() or name == "quota":
            return self._status(request, name, value, key)
        if name == "html":
            return Reply(200, b"<html><body>Please wait</body></html>", {"content-type": "text/html"})
        if name == "garbage":
            return Reply(200, b'{"candidates": [{"con', {"content-type": "application/json"})
        try:
            verdict = verdict_on(*sounds)
            seconds = sum(len(samples_of(sound)) for sound in sounds) / RATE
        except (ValueError, EOFError, wave.Error) as error:
            return self._error(request, 400, str(error), key)
        text = spoilt(verdict, name)
        model = (value or "another-model") if name == "other_model" else self.served or request.model
        tokens = {
            "text": sum(map(len, request.texts)) // 4,
            "audio": int(32 * seconds),
            "out": len(text) // 4,
            "thoughts": 17,
        }
        make = gemini_answer if request.wire == "gemini" else openai_answer
        return Reply(200, json.dumps(make(text, model, name, tokens)).encode(), {"content-type": "application/json"})

    def _status(self, request: Request, name: str, value: str, key: str) -> Reply:
        seconds = float(value or self.delay)
        status = 429 if name == "quota" else int(name[:3])
        details: list[dict[str, Any]] = []
        headers = {}
        if name == "429" and request.wire == "gemini":
            details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds:g}s"}]
        elif name in ("429", "429-header"):
            headers["retry-after"] = f"{seconds:g}"
        elif name == "429-ms":
            headers["retry-after-ms"] = f"{seconds:g}"
        elif name == "429-date":
            headers["retry-after"] = formatdate(time.time() + seconds, usegmt=True)
        code = None
        message = f"Fault {name}."
        if name == "400-key":
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            message = "API key not valid. Please pass a valid API key."
        elif name == "400-field":
            message = 'Invalid JSON payload received. Unknown name "systemInstruction": Cannot find field.'
        elif name == "quota":
            code = "insufficient_quota"
        return self._error(request, status, message, key, details, code, headers)

    def _error(
        self,
        request: Request,
        status: int,
        message: str,
        key: str,
        details: Sequence[Mapping[str, Any]] = (),
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        message = f"{message} You sent the key {key}."
        error: dict[str, Any]
        if request.wire == "gemini":
            error = {"code": status, "message": message, "status": GRPC.get(status, "UNKNOWN"), "details": details}
        else:
            error = {"message": message, "type": "error", "param": None, "code": code}
        return Reply(
            status, json.dumps({"error": error}).encode(), {"content-type": "application/json", **(headers or {})}
        )


def _planned(faults: str | Sequence[str] | Mapping[int, str]) -> dict[int, str] | tuple[float, Sequence[str]]:
    """Faults by request number, or a share and the kinds."""
    if isinstance(faults, str):
        mode, _, rest = faults.partition(":")
        if mode == "random":
            share, _, kinds = rest.partition(":")
            return float(share), kinds.split(",") if kinds else RANDOM
        if mode == "always":
            return 1.0, [rest]
        faults = faults.split(",") if faults else []
    return dict(faults) if isinstance(faults, Mapping) else dict(enumerate(faults))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that went away is what tests do
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    judge: JudgeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/stats":
            self._send(Reply(200, json.dumps(self.judge.stats()).encode(), {"content-type": "application/json"}))
        else:
            self._send(Reply(404, b""))

    def do_POST(self) -> None:
        judge = self.judge
        raw = self.rfile.read(int(self.headers["content-length"]))
        wire = "openai" if self.path == "/v1/chat/completions" else "gemini"
        if wire == "gemini" and not (
            self.path.startswith(("/v1/models/", "/v1beta/models/")) and self.path.endswith(":generateContent")
        ):
            self._send(Reply(404, b"{}", {"content-type": "application/json"}))
            return
        try:
            body = json.loads(raw)
            model, texts, sounds = (read_openai if wire == "openai" else read_gemini)(self.path, body)
        except (ValueError, KeyError, TypeError) as error:  # it is no request of this form
            text = json.dumps({"error": {"code": 400, "message": f"{type(error).__name__}: {error}"}})
            self._send(Reply(400, text.encode(), {"content-type": "application/json"}))
            return
        hashes = tuple(hashlib.sha256(sound).hexdigest() for sound in sounds)
        headers = {name.lower(): value for name, value in self.headers.items()}
        key = content_key(model, texts, hashes)
        with judge.lock:
            number, before = len(judge.requests), judge.asked[key]
            request = Request(number, wire, self.path, model, key, tuple(texts), hashes, body, headers)
            request.fault = judge.fault_of(number, key, before)
            judge.requests.append(request)
            judge.asked[key] += 1
            judge.at_once += 1
            judge.most_at_once = max(judge.most_at_once, judge.at_once)
        try:
            self._answer(request, sounds)
        finally:
            with judge.lock:
                judge.at_once -= 1

    def _answer(self, request: Request, sounds: Sequence[bytes]) -> None:
        judge = self.judge
        name, _, value = request.fault.partition(":")
        if judge.latency:
            judge.closing.wait(judge.latency)
        if name == "timeout":
            judge.closing.wait(float(value or judge.slow))
            self._reset()
        if name == "reset":
            self._reset()
        key = request.headers.get("x-goog-api-key", "")
        if request.wire == "openai":
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
        reply = judge.reply(request, sounds, key)
        request.status = reply.status
        if name == "cut":
            self._send(reply, len(reply.body) // 2)
            self._reset()
        with judge.lock:  # before it leaves: who has the answer can rely on the count
            request.sent = True
            if reply.status == 200 and (not name or name in PAID):
                judge.answered[request.key] += 1
                judge.verdicts[request.key] += name in ("", "fenced")
        self._send(reply)

    def _send(self, reply: Reply, length: int | None = None) -> None:
        """The head with the whole length, and as much of the body, in one piece."""
        headers = {**reply.headers, "content-length": str(len(reply.body))}
        lines = [f"HTTP/1.1 {reply.status} Status", *(f"{name}: {text}" for name, text in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + reply.body[:length])

    def _reset(self) -> NoReturn:
        """End the connection with RST, which only a socket sends that is closed before it is shut down."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        raise ConnectionResetError


@contextmanager
def judge_process(folder: Path, *arguments: str) -> Iterator[str]:
    """The server as a process of its own; gives its URL. `arguments` as of the program, without --port-file."""
    port_file = folder / "judge-port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--port-file", str(port_file), *arguments]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while not port_file.exists():
            assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.terminate()
        process.wait(10)


def stats_of(url: str) -> dict[str, Any]:
    """`JudgeServer.stats` of a server in another process."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/stats", timeout=10) as reply:
        return dict(json.load(reply))


def main() -> None:
    parser = argparse.ArgumentParser(description="A judge on loopback that misbehaves.")
    parser.add_argument("--port-file", type=Path, required=True, help="where the port is written")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key")
    parser.add_argument("--served")
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--slow", type=float, default=30.0)
    parser.add_argument("--latency", type=float, default=0.0)
    given = vars(parser.parse_args())
    port_file = given.pop("port_file")
    judge = JudgeServer(given.pop("faults"), **given)
    part = port_file.with_name(port_file.name + ".part")
    part.write_text(str(judge.server.server_address[1]))
    part.replace(port_file)
    judge.server.serve_forever()


if __name__ == "__main__":
    main()
