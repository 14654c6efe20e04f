"""The demo Space as visitors meet it: a process of its own, with its own temporary folder; and what they bring."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

DEMO = Path(__file__).parent.parent / "spaces" / "demo"


@dataclass(frozen=True)
class Server:
    """Where it listens, its work folder, its temporary folder, its log, and its process id."""

    url: str
    work: Path
    temporary: Path
    log: Path
    pid: int

    def left(self) -> set[str]:
        """Files under the work folder; gradio leaves empty ones at its top, which the sweeper takes."""
        files = (Path(top) / name for top, _, names in os.walk(self.work) for name in names)
        return {str(p.relative_to(self.work)) for p in files if p.parent != self.work or p.stat().st_size}


@contextmanager
def running(folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The app on a free port of loopback; it is stopped afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temporary = folder / "tmp"
    temporary.mkdir()
    (folder / "work").mkdir()
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_TEMP_DIR": str(folder / "work"),
        "TMPDIR": str(temporary),
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(extra or {}),
    }
    if not (extra or {}).get("JWB_DEMO_DATA"):
        environment.pop("JWB_DEMO_DATA", None)
    log = folder / "server.log"
    with log.open("wb") as handle:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=DEMO, env=environment, stdout=handle, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, log)
        (work,) = (folder / "work").resolve().iterdir()
        yield Server(url, work, temporary, log, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(360):  # three minutes: torch loads slowly on a busy machine
        if process.poll() is not None:
            raise RuntimeError(f"The app ended: {log.read_text()[-2000:]}")
        try:
            if httpx.get(url + "/config").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"The app does not answer: {log.read_text()[-2000:]}")


@dataclass
class Visitor:
    """A client without gradio's own library, which would repair what is sent."""

    server: Server
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))
    before: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.before = self.made()

    def made(self) -> set[str]:
        """What runs and results take."""
        return {name for name in self.server.left() if name.startswith(("runs", "shown"))}

    def upload(self, name: str, content: bytes) -> str:
        """The path that the server gives to an upload."""
        answer = self.http.post(self.server.url + "/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return str(answer.json()[0])

    def call(self, name: str, *data: Any) -> tuple[str, Any]:
        """`refused` by a status, or `error` or `complete` of the event, with what was said."""
        answer = self.http.post(f"{self.server.url}/gradio_api/call/{name}", json={"data": list(data)})
        if answer.status_code != 200:
            return "refused", answer.text
        lines = self.http.get(f"{self.server.url}/gradio_api/call/{name}/{answer.json()['event_id']}").text.splitlines()
        at = max(i for i, line in enumerate(lines) if line.startswith("event:"))
        return lines[at].removeprefix("event: "), json.loads(lines[at + 1].removeprefix("data: "))

    def score(self, video: Any, *, reference: Any = None, text: Any = "", baseline: Any = None,
              regions: Any = ("body",), metrics: Any = ("motion_smoothness",), protocol: Any = "lite",
              ) -> tuple[str, Any]:  # fmt: skip
        return self.call("score", video, reference, text, baseline, regions, metrics, protocol)

    def batch(self, *paths: str) -> tuple[str, Any]:
        return self.call("batch", [given(path) for path in paths], None, ["body"], ["motion_smoothness"], "lite")


def given(path: Any, **more: Any) -> dict[str, Any]:
    """A file as gradio's clients name it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def write_video(path: Path, frames: int, size: tuple[int, int] = (64, 48), fps: int = 25, codec: str = "mpeg4") -> Path:
    """Noise that moves, as a video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        picture = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shorter(source: bytes, target: Path, blur: int, frames: int = 20) -> Path:
    """The first frames of a clip, at half its size."""
    import av
    import cv2

    with av.open(io.BytesIO(source)) as given, av.open(str(target), "w") as made:
        video = given.streams.video[0]
        size = (video.width // 4 * 2, video.height // 4 * 2)
        stream = made.add_stream("libx264", rate=25, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _, frame in zip(range(frames), given.decode(video), strict=False):
            picture = cv2.resize(frame.to_ndarray(format="rgb24"), size, interpolation=cv2.INTER_AREA)
            picture = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode())
    return target
