"""What stands before gradio: only the paths that the page needs, bounded bodies, no addresses in place of files, and
one job per visitor. Gradio itself bounds single files only, fetches public addresses, and queues any number of jobs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from files import KEEP, KEEPER, WORK
from uploads import CLIPS, FILE_BYTES, MB

BODY = 256 * 1024  # bytes of a request that is no upload: paths, choices and a transcript
UPLOAD = min(3 * FILE_BYTES, 2 * CLIPS * FILE_BYTES)  # bytes of one upload request
FREE = 1024 * MB  # of the disk, left for others
PER_ADDRESS = int(os.environ.get("JWB_DEMO_PER_ADDRESS", "4"))  # jobs of one address at a time
HASH = re.compile("[0-9a-f]{64}")  # gradio names the folder of an upload by its content
TOOL = "x-jwb-tool"  # a header: this process's secret and the address of who asked a tool, see `as_tool`
SECRET = secrets.token_hex(16)
WORKERS = "work"  # concurrency_id of all events that score
JUDGES = "judge"  # and of those that ask a judge
GRADIO = "/gradio_api/"
READ = ("", "config", "theme.css", "favicon.ico", "robots.txt", "manifest.json", "pwa_icon")
READ_UNDER = ("assets/", "static/", "svelte/", "custom_component/")
API_READ = ("info", "openapi.json", "app_id", "startup-events", "queue/data", "upload_progress", "user", "login_check",
            "token", "mcp")  # fmt: skip
API_READ_UNDER = ("heartbeat/", "call/", "mcp/")
API_WRITE = ("queue/join", "cancel", "reset", "upload", "run/predict", "mcp")
API_WRITE_UNDER = ("call/", "mcp/")


class RequestFilter:
    """ASGI middleware; `blocks` is the gradio app whose queue is counted."""

    def __init__(self, app: Any, blocks: Any) -> None:
        self.app, self.blocks = app, blocks
        self._joining = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer it with one sentence."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # the page needs none
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if not allowed(path, method):
            await refuse(send, 404, "There is nothing here.")
            return
        if method != "POST":
            await self.app(scope, receive, send)
            return
        if path.removesuffix("/") == GRADIO + "upload":
            await self._upload(scope, receive, send)
            return
        body = await _body(receive, BODY, _length(scope))
        if body is None:
            await refuse(send, 413, f"The request is larger than {BODY // 1024} kB; send files by upload.")
            return
        try:
            found = json.loads(body or b"{}")
            addressed = next(_addresses(found), None)
        except (ValueError, RecursionError):
            await refuse(send, 400, "The request is no JSON that is understood here.")
            return
        if addressed is not None:
            await refuse(send, 400, "Files are taken by upload only: by no address, and by no path of this machine.")
            return
        if self._is_private(path):
            await refuse(send, 404, "There is nothing here.")
            return
        replay = _replay(body, receive)
        if not isinstance(found, dict) or not self._is_work(path, found):
            await self.app(scope, replay, send)
            return
        async with self._joining:  # counting and joining belong together
            # All calls of MCP tools come from one client within this process.
            session = None if is_tool(scope) else found.get("session_hash")
            problem = self._problem(session, address_of(scope))
            if problem:
                await refuse(send, 429, problem)
                return
            await self.app(scope, replay, send)

    async def _upload(self, scope: Any, receive: Any, send: Any) -> None:
        if _length(scope) > UPLOAD:
            await refuse(send, 413, f"An upload of more than {UPLOAD // MB} MB is not taken.")
            return
        if shutil.disk_usage(WORK.parent).free < FREE:
            await refuse(send, 507, "The disk is full; try again later.")
            return
        seen = 0

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # A body without a length that goes on and on ends here; gradio then removes what it has written.
            return message if seen <= UPLOAD else {"type": "http.disconnect"}

        answer: list[bytes] = []

        async def noted(message: Any) -> None:
            """Note where gradio put the files before the visitor knows it."""
            answer.append(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                with suppress(ValueError):
                    paths = json.loads(b"".join(answer))
                    KEEPER.hold(paths if isinstance(paths, list) else [])
            await send(message)

        await self.app(scope, counted, noted)

    def _named(self, path: str) -> list[Any]:
        """The functions that a path of the API calls by name."""
        if not path.startswith(GRADIO + "call/"):
            return []
        name = path.removeprefix(GRADIO + "call/").strip("/").removeprefix("v2/")
        return [fn for fn in self.blocks.fns.values() if fn.api_name == name]

    def _is_private(self, path: str) -> bool:
        return any(fn.api_visibility == "private" for fn in self._named(path))

    def _is_work(self, path: str, body: dict[str, Any]) -> bool:
        """Whether a request starts a job."""
        found = self._named(path)
        number = body.get("fn_index")
        if path.startswith(GRADIO + "queue/join") and isinstance(number, int) and number in self.blocks.fns:
            found = [self.blocks.fns[number]]
        return any(fn.concurrency_id in (WORKERS, JUDGES) for fn in found)

    def _problem(self, session: Any, address: str) -> str:
        queue = self.blocks._queue
        ours = (WORKERS, JUDGES)
        lines = [queue.event_queue_per_concurrency_id[name].queue for name in ours
                 if name in queue.event_queue_per_concurrency_id]  # fmt: skip
        running = [batch for batch in queue.active_jobs if batch]
        jobs = [job for batch in [*lines, *running] for job in batch if job.concurrency_id in ours]
        if session and any(job.session_hash == session for job in jobs):
            return "You have a job that waits or runs; wait for its result first."
        if sum(address_of(job.request.scope) == address for job in jobs) >= PER_ADDRESS:
            return f"{PER_ADDRESS} jobs from your address wait or run; wait for their results first."
        return ""


def allowed(path: str, method: str) -> bool:
    """Whether the page or its API needs this path."""
    if path.startswith(GRADIO):
        rest = path.removeprefix(GRADIO).removesuffix("/")
        if rest.startswith("file="):  # gradio would also stream what lies at any public address
            place = Path(os.path.normpath(rest.removeprefix("file=")))
            return method in {"GET", "HEAD"} and place.is_relative_to(WORK)
        names, under = (API_WRITE, API_WRITE_UNDER) if method == "POST" else (API_READ, API_READ_UNDER)
        return method in {"GET", "HEAD", "POST", "OPTIONS"} and (rest in names or rest.startswith(under))
    rest = path.strip("/")
    return method in {"GET", "HEAD"} and (rest in READ or rest.startswith(READ_UNDER))


def _addresses(value: Any) -> Iterator[str]:
    """What stands for a file in a request and is no upload: addresses, paths of this machine, streams."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("path") is not None and not uploaded(item["path"]):
                yield str(item["path"])
            if item.get("is_stream"):
                yield "stream"
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def uploaded(path: Any) -> bool:
    """Whether a path is one that gradio gave to an upload (`WORK/<sha256>/name`), or an example's."""
    if not isinstance(path, str) or "\0" in path:
        return False
    place = Path(os.path.normpath(path))
    if not place.is_relative_to(WORK):
        return False
    first, *rest = place.relative_to(WORK).parts or ("",)
    return (len(rest) == 1 and HASH.fullmatch(first) is not None) or place in KEEP


def _length(scope: Any) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 1 << 62
    return 0


def as_tool(address: str) -> str:
    """The value of the header `TOOL`: a tool passes on a call of a visitor at this address."""
    return f"{SECRET} {address}"


def is_tool(scope: Any) -> bool:
    """Whether a request comes from this process's own MCP tools."""
    return any(name == TOOL.encode() and _secret(value) for name, value in scope["headers"])


def _secret(value: bytes) -> bool:
    return secrets.compare_digest(value.partition(b" ")[0], SECRET.encode())


def address_of(scope: Any) -> str:
    """Who asks. On a Space the proxy in front adds the visitor's address as the last one."""
    for name, value in scope["headers"]:
        if name == TOOL.encode() and _secret(value):
            return value.decode("latin-1").partition(" ")[2]
    if os.environ.get("SPACE_ID"):
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                return value.decode("latin-1").split(",")[-1].strip()
    return (scope.get("client") or ("?",))[0]


async def _body(receive: Any, most: int, length: int) -> bytes | None:
    """The whole body, or None as soon as it is too large."""
    if length > most:
        return None
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Any) -> Any:
    sent = False

    async def again() -> Any:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def refuse(send: Any, status: int, sentence: str) -> None:
    """Answer with a status and one sentence, as gradio's clients read it."""
    content = json.dumps({"detail": sentence, "error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
