"""Spaces as they are published: whole, pinned, no secrets, the same bytes each time, and sent as planned.

That they run is shown in `test_publish_fresh.py`.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jwb_dh_v1.cli.publish import add_commands
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.integrations.publish import METRICS, NAMES, Space, assemble, chosen, write

ROOT = Path(__file__).parents[2]
LOCAL = re.compile(rb"/(?:home|work|opt|Users)/\w|/root/|/tmp/\w|[A-Z]:\\\\")


@cache
def space(name: str) -> Space:
    """A Space of this checkout."""
    return assemble(name, "acme", ROOT)


def copied(tmp_path: Path) -> Path:
    """As much of the checkout as the Space of SSIM is made of."""
    root = tmp_path / "checkout"
    for folder in ("jwb_dh_v1", "spaces", "metrics/ssim"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "constraints.txt", "pyproject.toml", "metrics/README.md"):
        shutil.copy(ROOT / file, root / file)
    return root


def command(*arguments: str) -> int:
    """`jwb-dh publish ...` in this process."""
    import argparse

    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["publish", *arguments])
    return int(args.run(args))


# ------------------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("name", NAMES)
def test_the_header_is_what_a_space_needs(name: str, tmp_path: Path):
    from huggingface_hub import RepoCard, SpaceCardData

    (tmp_path / "README.md").write_bytes(space(name).files["README.md"])
    card = RepoCard.load(tmp_path / "README.md")
    told = SpaceCardData(**card.data.to_dict())
    assert (told.sdk, told.app_file, told.sdk_version) == ("gradio", "app.py", "6.31.0")
    assert told.title and re.fullmatch(r"3\.\d\d", told.python_version)
    assert "evaluate" in told.tags and ("metric" in told.tags) == (name != "demo")
    assert card.text.strip().startswith("# ")
    assert space(name).repo_id == f"acme/{'jwb-dh-v1' if name == 'demo' else name}"
    assert space(name).tag == ("" if name == "demo" else "v0.4.6")


@pytest.mark.parametrize("name", NAMES)
def test_all_that_the_page_imports_is_there_or_pinned(name: str):
    from packaging.requirements import Requirement

    files = space(name).files
    lines = [line for line in files["requirements.txt"].decode().splitlines() if not line.startswith("#")]
    pinned = {}
    for line in lines:
        one = Requirement(line)
        assert [s.operator for s in one.specifier] == ["=="] and "*" not in str(one.specifier), line
        pinned[one.name] = one
    assert len(pinned) == len(lines)
    assert {"torch", "gradio", "evaluate", "ai-edge-litert", "dlib-bin", "decord"} <= set(pinned)
    assert ("mcp" in pinned["gradio"].extras) == (name == "demo")
    here = {path.removesuffix(".py") for path in files if path.endswith(".py") and "/" not in path} | {"jwb_dh_v1"}
    brought = {"gradio", "evaluate", "numpy", "cv2", "av", "starlette", "PIL", "matplotlib", "spaces", "torch"}
    for path in (path for path in files if path.endswith(".py") and "/" not in path):
        for node in ast.walk(ast.parse(files[path])):
            roots = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            roots += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for root in (root.partition(".")[0] for root in roots):
                assert root in here | brought | set(sys.stdlib_module_names), f"{path} imports {root}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_local_and_nothing_secret(name: str):
    files = space(name).files
    for path, content in files.items():
        assert not (found := LOCAL.findall(content)), f"{path}: {found}"
        assert not re.search(r"(^|/)(\.|__pycache__)|\.pyc$|~$", path), path
    assert "simple/" not in files["requirements.txt"].decode() and "://" not in files["requirements.txt"].decode()
    assert space(name).size < 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_links_hold_on_the_hub(name: str):
    for page in ("README.md", "METRICS.md"):
        text = space(name).files.get(page, b"").decode()
        targets = re.findall(r"\[[^\]\n]*\]\(([^)\s]+)\)", text)
        assert all(re.match(r"https://|#", target) for target in targets)
        ours = [target.rpartition("/acme/")[2] for target in targets if "/acme/" in target]
        assert all(target.partition("/")[0] in METRICS for target in ours)
        assert '"metrics/' not in text and '"ORG/' not in text
    text = space(name).files["README.md"].decode()
    assert f'evaluate.load("acme/{name}")' in text or (name == "demo" and 'Client("acme/jwb-dh-v1")' in text)


def test_the_same_checkout_gives_the_same_bytes(tmp_path: Path):
    root = copied(tmp_path)
    (root / "jwb_dh_v1" / "__pycache__").mkdir()
    (root / "jwb_dh_v1" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"1")
    (root / "spaces" / "metric" / ".gradio").mkdir()
    (root / "spaces" / "metric" / ".gradio" / "flagged.csv").write_text("1")
    (root / "jwb_dh_v1" / "media" / "clip.py").touch()
    again = assemble("ssim", "acme", root)
    assert again.files == space("ssim").files and again.sha256 == space("ssim").sha256
    (root / "jwb_dh_v1" / "media" / "clip.py").write_text("1")
    assert assemble("ssim", "acme", root).sha256 != again.sha256
    assert assemble("ssim", "other", ROOT).sha256 != again.sha256


def test_what_is_written_is_the_space_and_evaluate_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)  # else every load is counted on a server
    for name in METRICS:
        place = write(space(name), tmp_path)
        found = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        assert found == space(name).files
        assert evaluate.load(str(place)).name == name
    with pytest.raises(SetupError, match="not empty"):
        write(space("ssim"), tmp_path)


def test_what_cannot_be_published_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(match: str, name: str = "ssim", owner: str = "acme") -> None:
        with pytest.raises(SetupError, match=match):
            assemble(name, owner, root)

    assert {path.parent.name for path in (ROOT / "metrics").glob("*/README.md")} == set(METRICS)
    assert chosen(["all"]) == list(NAMES) and chosen(["demo", "fid"]) == ["fid", "demo"]
    root = tmp_path / "nothing"
    refused("name a checkout")
    root = copied(tmp_path)
    refused("There is no Space 'fids'", "fids")
    refused("no owner on the Hub", owner="a/b")
    place = root / "metrics" / "ssim" / "README.md"
    card = place.read_text()
    for old, new, match in [
        ("](../README.md)", "](../../tests/metrics/test_pixel.py)", "in no Space"),
        ("sdk_version: 6.31.0", "sdk_version: 5.0.0", "must say gradio, 6.31.0"),
        ("title: SSIM\n", "", "lacks title"),
        ("---\ntitle", "title", "no YAML header"),
        ("title: SSIM", "title: [", "no YAML"),
        ("# SSIM", "# SSIM hf_" + "a" * 30, "looks like a key"),
        ("# SSIM", f"# SSIM {root.resolve()}/x", "folder of this machine"),
    ]:
        assert old in card
        place.write_text(card.replace(old, new))
        refused(match)
    place.write_text(card + "\nopen-sesame-1\n")
    assemble("ssim", "acme", root)
    monkeypatch.setenv("MY_API_KEY", "open-sesame-1")
    refused("looks like a key")
    place.write_text(card)
    (root / "spaces" / "metric" / "weights.pt").write_bytes(b"1")
    refused("not what a Space is made of")
    (root / "spaces" / "metric" / "weights.pt").unlink()
    (tmp_path / "private.txt").write_text("1")
    (root / "spaces" / "metric" / "linked.txt").symlink_to(tmp_path / "private.txt")
    refused("not what a Space is made of")
    (root / "spaces" / "metric" / "linked.txt").unlink()
    pins = (root / "constraints.txt").read_text()
    (root / "constraints.txt").write_text(re.sub("^av==.*$", "", pins, flags=re.MULTILINE))
    refused("no version of av")
    (root / "constraints.txt").write_text(re.sub("^av==.*$", "av==1.0", pins, flags=re.MULTILINE))
    refused("asks for av>=14")


def test_a_dry_run_shows_the_plan_and_needs_no_network(tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    monkeypatch.setenv("COLUMNS", "160")
    given = ("--owner", "acme", "--source", str(ROOT), "--dry-run", "--offline")
    assert command("all", *given) == 0
    said = capsys.readouterr().out
    for one in map(space, NAMES):
        (line,) = [line for line in said.splitlines() if re.search(rf"\b{one.repo_id} ", line)]
        assert f"{one.size:,}" in line and f" {len(one.files)} " in line and one.sha256[:16] in line
        assert "not asked" in line and one.tag in line
    assert said.rstrip().endswith("nothing was sent")
    assert command("ssim", *given, "--files", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    for path, content in space("ssim").files.items():
        assert f"{hashlib.sha256(content).hexdigest()[:16]} {len(content):>9,} acme/ssim/{path}\n" in said
    assert (tmp_path / "ssim" / "ssim.py").is_file()
    with pytest.raises(SetupError, match="--dry-run"):
        command("ssim", "--owner", "acme", "--source", str(ROOT), "--offline")


# ---------------------------------------------------------------------------------------------------------------- push


class Recorder(BaseHTTPRequestHandler):
    """As much of the Hub as a Space's push asks for: a repository, its files by commit, its tags."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        path, hub = self.path, self.server
        hub.seen.append(("POST", path, lines))  # type: ignore[attr-defined]
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer({"error": "Invalid username or password."}, 401)
        host = f"http://127.0.0.1:{hub.server_port}"
        if path.endswith("/repos/create"):
            hub.made = True  # type: ignore[attr-defined]
            return self.answer({"url": f"{host}/spaces/acme/ssim", "name": "acme/ssim"})
        if "/preupload/" in path:
            # As the Hub does, it tells what it has, so that files which did not change are left out.
            held = {name: git(content) for name, content in hub.files.items()}  # type: ignore[attr-defined]
            return self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False,
                                           "oid": held.get(f["path"])} for f in lines[0]["files"]]})  # fmt: skip
        if "/commit/" in path:
            for line in lines:
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])  # type: ignore[attr-defined]
                if line["key"] == "deletedFile":
                    del hub.files[line["value"]["path"]]  # type: ignore[attr-defined]
            hub.commits += 1  # type: ignore[attr-defined]
            oid = f"{hub.commits:040x}"  # type: ignore[attr-defined]
            return self.answer({"commitUrl": f"{host}/spaces/acme/ssim/commit/{oid}", "commitOid": oid})
        if "/tag/" in path:
            hub.tags[lines[0]["tag"]] = path.rpartition("/")[2]  # type: ignore[attr-defined]
        return self.answer({})

    def do_GET(self) -> None:
        hub = self.server
        if self.path.endswith("/refs"):
            tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in hub.tags.items()]  # type: ignore[attr-defined]
            return self.answer({"branches": [], "converts": [], "tags": tags})
        if not hub.made:  # type: ignore[attr-defined]
            return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        files = {**hub.files, ".gitattributes": b"* text"}  # type: ignore[attr-defined]
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": git(content)} for name, content in files.items()
        ]
        sha = f"{hub.commits:040x}"  # type: ignore[attr-defined]
        return self.answer({"id": "acme/ssim", "sha": sha, "siblings": siblings, "private": True})

    def do_DELETE(self) -> None:
        self.server.seen.append(("DELETE", self.path, []))  # type: ignore[attr-defined]
        self.server.tags.pop(self.path.rpartition("/")[2])  # type: ignore[attr-defined]
        self.answer({})

    def answer(self, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def git(content: bytes) -> str:
    """Git's own name of a content, by git's rule."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@pytest.fixture
def recorder() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen, server.files, server.tags, server.made, server.commits = [], {}, {}, False, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def published(arguments: list[str], server: Any, tmp_path: Path, token: str = "hf_right") -> Any:
    """Its own process: huggingface_hub reads its endpoint once, when it is imported."""
    code = (
        "import argparse, sys\n"
        "from jwb_dh_v1.cli.publish import add_commands\n"
        "from jwb_dh_v1.errors import JwbError\n"
        "parser = argparse.ArgumentParser()\n"
        "add_commands(parser.add_subparsers())\n"
        "args = parser.parse_args(sys.argv[1:])\n"
        "try: args.run(args)\n"
        "except JwbError as error: sys.exit(f'{type(error).__name__}: {error}')\n"
    )
    environment = {
        "PATH": "",
        "HOME": str(tmp_path),
        "COLUMNS": "160",
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
        **({"HF_TOKEN": token} if token else {}),
    }
    command = [sys.executable, "-c", code, "publish", "--owner", "acme", "--source", str(ROOT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.teaser
def test_a_push_sends_the_space_and_moves_the_tag(recorder: Any, tmp_path: Path):
    plan = published(["ssim", "--dry-run"], recorder, tmp_path)
    assert plan.returncode == 0 and f"{len(space('ssim').files)} new" in plan.stdout, plan.stderr
    assert not recorder.seen
    done = published(["ssim"], recorder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert recorder.files == dict(space("ssim").files)
    created = next(lines[0] for _, path, lines in recorder.seen if path.endswith("/repos/create"))
    assert (created["type"], created["sdk"]) == ("space", "gradio")
    assert created.get("private") is True or created["visibility"] == "private"
    assert (recorder.commits, recorder.tags) == (1, {"v0.4.6": f"{1:040x}"})
    assert "as here" in published(["ssim", "--dry-run"], recorder, tmp_path).stdout
    recorder.files["jwb_dh_v1/old.py"] = b"1"
    recorder.files["ssim.py"] = b"2"
    del recorder.files["LICENSE"]
    assert "1 new, 1 changed, 1 gone" in published(["ssim", "--dry-run"], recorder, tmp_path).stdout
    assert published(["ssim"], recorder, tmp_path).returncode == 0
    assert recorder.files == dict(space("ssim").files)
    assert (recorder.commits, recorder.tags) == (2, {"v0.4.6": f"{2:040x}"})
    recorder.files["ssim.py"] = b"3"
    branch = published(["ssim", "--revision", "next"], recorder, tmp_path)
    assert branch.returncode == 0, branch.stderr
    assert [path for _, path, _ in recorder.seen if "/commit/" in path][-1] == "/api/spaces/acme/ssim/commit/next"
    assert recorder.tags == {"v0.4.6": f"{2:040x}"}


def test_a_push_that_cannot_be_is_one_sentence(recorder: Any, tmp_path: Path):
    none = published(["ssim"], recorder, tmp_path, "")
    assert none.returncode == 1 and not recorder.seen
    assert none.stderr == (
        "SetupError: There is no token of the Hub: log in by `hf auth login` (one that may write), or set HF_TOKEN. "
        "Nothing was sent.\n"
    )
    wrong = published(["ssim"], recorder, tmp_path, "hf_wrong")
    assert re.fullmatch(r"SetupError: acme/ssim: .*`hf auth login`\.\n", wrong.stderr)
    recorder.shutdown()
    recorder.server_close()
    gone = published(["ssim"], recorder, tmp_path)
    assert gone.stderr.startswith(f"{DataNotFound.__name__}: The Hub cannot be reached")
    plan = published(["ssim", "--dry-run"], recorder, tmp_path)
    assert plan.returncode == 0 and "cannot be reached" in re.sub(r"[\s│]+", " ", plan.stdout)
