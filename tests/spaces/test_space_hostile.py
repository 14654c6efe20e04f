"""Requests that mean harm, all to one running demo Space: each is refused in one sentence and leaves nothing behind."""

from __future__ import annotations

import http.client
import io
import json
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install -e '.[demo]'")

from space_server import DEMO, Server, Visitor, given, running, write_video
from test_space import clips, real  # noqa: F401 - fixtures

pytestmark = pytest.mark.teaser
CANARY = "canary-5e1f0c"


class _Listener(BaseHTTPRequestHandler):
    hits: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.hits.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CANARY.encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def listener() -> Iterator[str]:
    """A server on loopback that no request may reach."""
    server = HTTPServer(("127.0.0.1", 0), _Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("space"), {"GEMINI_API_KEY": CANARY}) as found:
        yield found


@pytest.fixture
def visitor(server: Server) -> Visitor:
    return Visitor(server)


def packed(*entries: tuple[str, bytes], mode: int = 0, level: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED) as archive:
        for name, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = archive.compression
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


BOMB = packed(("a.mp4", bytes(8 << 20)), level=9)
LYING = BOMB.replace((8 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))  # sizes in its headers
PLAIN = b"PK\x01\x02\x14\x03\x14\x00\x00\x00"  # an entry of the directory, whose last two bytes are flags
ENCRYPTED = packed(("a.mp4", b"x")).replace(
    b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
)
ZIPS = {
    "bomb": (BOMB, "unpacks to too much"),
    "bomb-with-lying-headers": (LYING, "cannot be unpacked"),
    "symlink": (packed(("a.mp4", b"/etc/hostname"), mode=stat.S_IFLNK | 0o777), "link"),
    "device": (packed(("a.mp4", b""), mode=stat.S_IFCHR | 0o666), "link"),
    "absolute": (packed(("/clips/a.mp4", b"x")), "outside"),
    "dot-dot": (packed(("../../a.mp4", b"x")), "outside"),
    "backslash": (packed(("..\\a.mp4", b"x")), "outside"),
    "drive": (packed(("C:\\a.mp4", b"x")), "outside"),
    "deep": (packed(("a/b/c/d.mp4", b"x")), "too deep"),
    "zip-in-zip": (packed(("a.zip", BOMB)), "is not taken"),
    "program": (packed(("a.exe", b"MZ")), "is not taken"),
    "many-entries": (packed(*((f"{n}.mp4", b"x") for n in range(101))), "more than 100"),
    "many-videos": (packed(*((f"{n}.mp4", b"x") for n in range(21))), "at most 20"),
    "same-name": (packed(("a/a.mp4", b"x"), ("b/A.mp4", b"y")), "Two files are named"),
    "same-stem": (packed(("a.mp4", b"x"), ("a.mov", b"y")), "Two videos are named"),
    "hidden": (packed((".a.mp4", b"x")), "no name for a file"),
    "encrypted": (ENCRYPTED, "encrypted"),
    "no-zip": (b"PK\x03\x04 and nothing more", "cannot be unpacked"),
    "html-name": (packed(("<img src=x onerror=alert(1)>.mp4", b"x")), "&lt;img"),
    "text-only": (packed(("a.txt", b"hello")), "no video"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_hostile_zip(visitor: Visitor, name: str) -> None:
    content, sentence = ZIPS[name]
    said, answer = visitor.batch(visitor.upload(f"{name}.zip", content))
    refused(visitor, said, answer, sentence)


def refused(visitor: Visitor, said: str, answer: Any, sentence: str) -> None:
    """One sentence, without a trace, a path or a secret, and nothing is left but what the sweeper takes."""
    text = json.dumps(answer, ensure_ascii=False)
    assert said in {"error", "refused"}, text
    assert sentence in text
    for secret in (CANARY, "Traceback", str(visitor.server.work), "/usr/", "root:", "<img"):
        assert secret not in text
    assert visitor.made() == visitor.before
    assert not list(visitor.server.temporary.rglob("*.mp4"))
    assert not _Listener.hits


NAMES = {
    "path-etc": "/etc/hostname",
    "path-traversal": "{work}/../../../../../../etc/hostname",
    "path-traversal-in-upload": "{work}/" + "0" * 64 + "/../../../../../../../etc/hostname",
    "path-of-the-app": str(DEMO / "app.py"),
    "path-of-proc": "/proc/self/environ",
    "path-relative": "app.py",
    "path-null": "a\0.mp4",
    "path-of-a-run": "{work}/runs/x/a.mp4",
    "url-loopback": "{listener}/a.mp4",
    "url-loopback-name": "http://localhost:1/a.mp4",
    "url-metadata": "http://169.254.169.254/latest/meta-data/a.mp4",
    "url-decimal": "http://2130706433/a.mp4",
    "url-six": "http://[::1]/a.mp4",
    "url-with-user": "http://user@127.0.0.1/a.mp4",
    "url-public": "https://example.com/a.mp4",
    "url-file": "file:///etc/passwd",
    "url-data": "data:video/mp4;base64,AAAA",
    "url-ftp": "ftp://127.0.0.1/a.mp4",
    "url-concat": "concat:/etc/passwd|/etc/hostname",
    "url-bare": "//127.0.0.1/a.mp4",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("endpoint", ["score", "baseline", "batch", "judge"])
def test_hostile_path(visitor: Visitor, listener: str, name: str, endpoint: str) -> None:
    file = given(NAMES[name].format(work=visitor.server.work, listener=listener), url=listener + "/url")
    calls = {
        "score": lambda: visitor.score(file),
        "baseline": lambda: visitor.score(None, baseline=file),
        "batch": lambda: visitor.call("batch", [file], None, ["body"], ["ssim"], "lite"),
        "judge": lambda: visitor.call("judge", file, file, "hello", "gemini", "", "key", ""),
    }
    refused(visitor, *calls[endpoint](), "Files are taken by upload only")


def video_bytes(folder: Path, *args: Any, **more: Any) -> bytes:
    return write_video(folder / "made.mp4", *args, **more).read_bytes()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n#EXT-X-ENDLIST\n"
HUGE_GIF = b"GIF89a" + (60000).to_bytes(2, "little") * 2 + b"\xf0\0\0" + bytes(6) + b"," + bytes(4) + \
    (60000).to_bytes(2, "little") * 2 + b"\0\x02\x02L\x01\0;"  # fmt: skip
FILES = {
    "empty": ("a.mp4", lambda _: b"", "empty"),
    "text-as-video": ("a.mp4", lambda _: b"hello there\n" * 99, "as a video"),
    "program": ("a.exe", lambda _: b"MZ", "is no video"),
    "no-ending": ("hostname", lambda _: b"x", "is no video"),
    "traversal-in-name": ("../../../evil.mp4", lambda _: b"x", "as a video"),
    "html-in-name": ("<img src=x onerror=alert(1)>.mp4", lambda _: b"x", "as a video"),
    "playlist": ("a.mp4", lambda _: PLAYLIST, "as a video"),
    "sound-only": ("a.mp4", lambda _: b"RIFF" + bytes(40), "as a video"),
    "truncated": ("a.mp4", lambda f: video_bytes(f, 30)[:-900], ""),
    "too-wide": ("a.mp4", lambda f: video_bytes(f, 2, (4096, 32)), "4096 x 32"),
    "too-small": ("a.mp4", lambda f: video_bytes(f, 20, (12, 12)), "at least 16"),
    "too-many-frames": ("a.mp4", lambda f: video_bytes(f, 901, (16, 16)), "more than 900 frames"),
    "too-long": ("a.mp4", lambda f: video_bytes(f, 70, (16, 16), fps=1), "longer than 60 s"),
    "huge-canvas": ("a.gif", lambda _: HUGE_GIF, "beyond all measure"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(visitor: Visitor, tmp_path: Path, name: str) -> None:
    title, content, sentence = FILES[name]
    path = visitor.upload(title, content(tmp_path))
    assert Path(path).parent.parent == visitor.server.work, "an upload's name moves it nowhere"
    refused(visitor, *visitor.score(given(path)), sentence)


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-metric": ({"metrics": ["rm -rf /"]}, "not in the list"),
    "unknown-region": ({"regions": ["../body"]}, "not in the list"),
    "unknown-protocol": ({"protocol": "../paper"}, "not in the list"),
    "no-region": ({"regions": []}, "at least one region"),
    "metric-without-reference": ({"metrics": ["ssim"]}, "without a reference"),
    "long-transcript": ({"text": "word " * 5000}, "longer than 20000"),
    "stream": ({"video": {"is_stream": True}}, "upload only"),
    "path-is-a-list": ({"video": {"path": ["/etc/hostname"]}}, "upload only"),
}


@pytest.mark.parametrize("name", ASKED)
def test_hostile_question(visitor: Visitor, clips: tuple[Path, Path], name: str) -> None:  # noqa: F811
    asked, sentence = ASKED[name]
    file = given(visitor.upload("a.mp4", clips[0].read_bytes())) | asked.get("video", {})
    answer = visitor.score(file, **{key: value for key, value in asked.items() if key != "video"})
    refused(visitor, *answer, sentence)


@pytest.mark.parametrize("path", [
    "/gradio_api/file=/etc/hostname", f"/gradio_api/file={DEMO}/app.py", "/gradio_api/file=app.py",
    "/gradio_api/file=../../etc/hostname", "/gradio_api/file=http://127.0.0.1:1/", "/gradio_api/proxy=http://127.0.0.1:1/",
    "/gradio_api/vibe-code/", "/monitoring", "/monitoring/summary", "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/dev/reload", "/gradio_api/runs", "/gradio_api/file/etc/hostname", "/static/../../../../etc/hostname",
    "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/hostname", "/gradio_api/stream/x/1/1/playlist.m3u8",
])  # fmt: skip
def test_hostile_address(visitor: Visitor, path: str) -> None:
    answer = visitor.http.get(visitor.server.url + path)
    assert answer.status_code in {403, 404}
    assert Path("/etc/hostname").read_text().strip() not in answer.text
    assert "Traceback" not in answer.text


def test_hostile_bodies(visitor: Visitor) -> None:
    url = visitor.server.url + "/gradio_api/"
    post = visitor.http.post

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"[" * 65536

    answers = {
        "enormous": post(url + "call/score", content=b'{"data": ["' + b"x" * 2**20 + b'"]}'),
        "endless": post(url + "call/score", content=endless()),
        "deep": post(url + "call/score", content=b"[" * 100_000 + b"]" * 100_000),
        "no JSON": post(url + "call/score", content=b"\xff\xfe{"),
        "past the queue": post(url + "run/score", json={"data": []}),
        "another function": post(url + "component_server", json={"fn_name": "x"}),
        "vibe": post(url + "vibe-edit/", json={"prompt": "x"}),
        "private": post(url + "call/show", json={"data": [{"folder": "/etc"}]}),
        "put": visitor.http.put(url + "upload", content=b"x"),
        "no form": post(url + "upload", content=b"x"),
    }
    found = {name: answer.status_code for name, answer in answers.items()}
    assert found == {"enormous": 413, "endless": 413, "deep": 400, "no JSON": 400, "past the queue": 404,
                     "another function": 404, "vibe": 404, "private": 404, "put": 404, "no form": 400}  # fmt: skip
    assert all("Traceback" not in answer.text for answer in answers.values())
    assert "larger than 256 kB" in answers["enormous"].json()["detail"]


def test_oversized_upload_leaves_nothing(visitor: Visitor) -> None:
    def large() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        for _ in range(101):
            yield bytes(1 << 20)
        yield b"\r\n--x--\r\n"

    before = visitor.server.left()
    form = {"content-type": "multipart/form-data; boundary=x"}
    answer = visitor.http.post(visitor.server.url + "/gradio_api/upload", content=large(), headers=form)
    assert answer.status_code == 413
    assert visitor.server.left() == before
    lying = http.client.HTTPConnection(visitor.server.url.removeprefix("http://"), timeout=20)
    lying.putrequest("POST", "/gradio_api/upload")
    for name, value in {**form, "content-length": str(1 << 40)}.items():
        lying.putheader(name, value)
    lying.endheaders()
    assert lying.getresponse().status == 413
    lying.close()


def test_judge_takes_no_key_of_the_host_and_no_address(
    visitor: Visitor,
    real: dict[str, Any],  # noqa: F811
    listener: str,
    server: Server,
) -> None:
    path = given(visitor.upload("a.mp4", real["video"]["bytes"]))
    refused(visitor, *visitor.call("judge", path, path, "hi", "gemini", "", " ", ""), "your own key")
    path = given(visitor.upload("a.mp4", real["video"]["bytes"]))
    mine = "sk-mine-77aa"
    said, answer = visitor.call("judge", path, path, "hi", "openai", "gpt-x", mine, listener)
    refused(visitor, said, answer, "Only the providers' own addresses")
    assert mine not in json.dumps(answer)
    path = given(visitor.upload("a.mp4", real["video"]["bytes"]))
    said, answer = visitor.call("judge", path, path, "hi", "openai", "gpt-x", mine, "")
    assert said == "complete", answer  # the same sound twice: a tie by rule, without a call
    assert answer[0]["outcome"] == "tie"
    assert mine not in server.log.read_text()


def test_log_holds_no_trace_of_what_was_refused(server: Server) -> None:
    log = server.log.read_text()
    assert CANARY not in log
    assert "error " not in log.lower().replace("exceptions.error ", ""), "nothing unforeseen happened"
