"""A Hub on loopback for tests: git repositories served by `olah`, behind a proxy that measures and misbehaves.

`olah` speaks the Hub's HTTP API for local git repositories, but answers a request for a range with the whole file. The
proxy in front of it cuts the range out, as the Hub's storage does, counts what is asked for and sent, and can be told
to fail. Clients run in processes of their own, because huggingface_hub reads its environment when it is imported.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "ORG/jwb-dh-v1"
SHARD = r"GET .*/resolve/.*\.parquet"
KEPT = ("content-type", "etag", "x-repo-commit", "x-error-code", "x-error-message", "location", "link")


@dataclass
class Fault:
    """What happens to the next `times` requests that `where` is found in (as `METHOD /path`).

    `kind`: a status to answer with; `drop` (the connection closes without an answer); `truncate` (it closes in the
    middle of the body); `short` (half of the body, and a header that calls it the whole).
    """

    kind: int | str
    times: int
    where: str = SHARD
    headers: Mapping[str, str] = field(default_factory=dict)
    hits: int = 0


@dataclass(frozen=True)
class Request:
    """One request as the proxy saw it; `sent` is the bytes of the body that left."""

    method: str
    path: str
    status: int
    sent: int
    faulty: bool


class Hub:
    """The server, its faults and its log. `url` is what HF_ENDPOINT has to be."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.files: dict[str, tuple[dict[str, str], bytes]] = {}
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def fails(self, *faults: Fault) -> Iterator[list[Request]]:
        """The faults are on; the requests made meanwhile arrive in the list that is given."""
        with self.lock:
            self.faults, self.log = list(faults), []
        try:
            yield self.log
        finally:
            with self.lock:
                self.faults, self.log = [], []

    def watched(self) -> Any:
        """`fails` without a fault."""
        return self.fails()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request, counted."""
        with self.lock:
            for fault in self.faults:
                if fault.hits < fault.times and re.search(fault.where, f"{method} {path}"):
                    fault.hits += 1
                    return fault
        return None

    def environment(self, home: Path) -> dict[str, str]:
        """Of a client: this Hub, an empty cache, and nothing of the machine's own settings."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",  # olah has no Xet storage
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "no_proxy": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET

    def _answer(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.hub.fault_for(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == "drop":
            self._note(0, 0, True)
            self._hang_up()
            return
        if isinstance(kind, int):
            assert fault is not None
            status, headers, body = kind, dict(fault.headers), b"no"
        else:
            status, headers, body = self._ranged(*self._upstream(asked))
        size = len(body)
        if kind in ("truncate", "short"):
            body = body[: size // 2]
        if kind == "short":
            size = len(body)
        if self.command == "HEAD":
            size, body = int(headers.get("content-length", size)), b""
        self._note(status, len(body), fault is not None)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # a client that was killed
            self.close_connection = True
        if kind == "truncate":
            self._hang_up()

    def _upstream(self, asked: bytes) -> tuple[int, dict[str, str], bytes]:
        """What olah says; files, which belong to a commit, are asked for once."""
        key = f"{self.command} {self.path}"
        if key in self.hub.files:
            return 200, *self.hub.files[key]
        connection = http.client.HTTPConnection("127.0.0.1", self.hub.upstream, timeout=60)
        passed = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "authorization", "host")}
        connection.request(self.command, self.path, asked, passed)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        headers = {k.lower(): v for k, v in response.getheaders() if k.lower() in (*KEPT, "content-length")}
        if response.status == 200 and self.command == "GET" and "/resolve/" in self.path:
            self.hub.files[key] = headers, body
        return response.status, headers, body

    def _ranged(self, status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Cut the range out that was asked for: `bytes=first-last`, `bytes=first-` or `bytes=-count`."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if status != 200 or wanted is None or self.command != "GET":
            return status, headers, body
        whole = len(body)
        first, last = wanted.groups()
        start, stop = (int(first), int(last) + 1 if last else whole) if first else (whole - int(last), whole)
        stop = min(stop, whole)
        if start >= stop:
            return 416, {"Content-Range": f"bytes */{whole}"}, b""
        headers = {**headers, "Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{stop - 1}/{whole}"}
        return 206, headers, body[start:stop]

    def _note(self, status: int, sent: int, faulty: bool) -> None:
        with self.hub.lock:
            self.hub.log.append(Request(self.command, self.path, status, sent, faulty))

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def hub(room: Path, repositories: Path) -> Iterator[Hub]:
    """Serve `repositories/datasets/ORG/NAME`, each a git repository.

    Args:
        room: an empty folder for the server's own files.
        repositories: what is served.

    Raises:
        RuntimeError: the server does not come up; the message is what it said.

    """
    room.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"""
[basic]
host = "127.0.0.1"
port = {port}
repos-path = "{room / "repos"}"
mirrors-path = ["{repositories}"]
[accessibility]
offline = true
"""
    (room / "olah.toml").write_text(settings)
    said = room / "olah.txt"
    with said.open("wb") as out:
        command = [sys.executable, "-m", "olah.server", "-c", "olah.toml", "--log-path", str(room / "logs")]
        process = subprocess.Popen(command, cwd=room, stdout=out, stderr=subprocess.STDOUT)
    served = Hub(port)
    thread = threading.Thread(target=served.server.serve_forever, daemon=True)
    try:
        _wait(process, port, said)
        thread.start()
        yield served
    finally:
        if thread.is_alive():
            served.server.shutdown()
        served.server.server_close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"olah did not start:\n{said.read_text(errors='replace')[-2000:]}")


def commit(repository: Path, files: Path, tag: str) -> None:
    """Make the content of a folder the next commit of a repository (made where it is missing), with a tag."""
    repository.mkdir(parents=True, exist_ok=True)
    if not (repository / ".git").exists():
        _git(repository, "init", "--quiet", "--initial-branch=main")
    for old in repository.iterdir():
        if old.name != ".git":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(files, repository, dirs_exist_ok=True)
    _git(repository, "add", "--all")
    _git(repository, "commit", "--quiet", "--message", tag)
    _git(repository, "tag", tag)


def _git(repository: Path, *arguments: str) -> None:
    who = {f"GIT_{role}_{part}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "-C", str(repository), *arguments], env={**os.environ, **who, **quiet}, check=True)


def shards(teaser: Path, folder: Path, count: int, rows: slice = slice(None)) -> None:
    """The teaser's rows again, in `count` shards of equal length with one row per row group, and its card."""
    from pyarrow import parquet

    from jwb_dh_v1.dataset.schema import features

    assert features().arrow_schema  # the extension types are known now
    table = parquet.read_table(next((teaser / "evaluation").glob("*.parquet")))
    size = table.num_rows // count
    (folder / "evaluation").mkdir(parents=True)
    for index in range(count)[rows]:
        path = folder / "evaluation" / f"evaluation-{index:05}-of-{count:05}.parquet"
        parquet.write_table(table.slice(index * size, size), path, row_group_size=1, write_page_index=True)
    shutil.copy(teaser / "README.md", folder)
