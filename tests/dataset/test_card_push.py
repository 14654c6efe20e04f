"""The card tells what the data are and keeps its text; a push sends what its plan says, and only what was checked."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from jwb_dh_v1.dataset.build.push import fill_card, open_decisions, plan_push, push, size_category, write_card
from jwb_dh_v1.dataset.check import check
from jwb_dh_v1.dataset.schema import features
from jwb_dh_v1.errors import DataNotFound, SetupError

push_module = sys.modules["jwb_dh_v1.dataset.build.push"]  # the room's own name is the function
CARD = Path(__file__).parents[2] / "dataset_card.md"
SHORT = """---
pretty_name: Ours
license: other
extra_gated_fields:
  I agree: checkbox
configs:
- config_name: evaluation
  drop_labels: true
- config_name: gone
  data_files: gone/*.parquet
dataset_info:
- config_name: gone
  features: []
size_categories: [1M<n<10M]
---

# Title

Text with `---` and\ttabs:  
---
not: a header
---
"""


def write(folder: Path, name: str, ids: list[str], language: str | None = "en") -> None:
    """A shard whose rows know little."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features().arrow_schema
    empty = {"transcript": {"text": None, "language": language, "words": []}, "licence": "ours"}
    columns = []
    for column in schema:
        values = ids if column.name == "sample_id" else [empty.get(column.name)] * len(ids)
        kind = column.type
        if isinstance(kind, pa.ExtensionType):
            columns.append(pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type)))
        else:
            columns.append(pa.array(values, kind))
    parquet.write_table(pa.Table.from_arrays(columns, schema=schema), path)


def header(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "jwb-dh-v1"
    write(place, "evaluation/evaluation-00000-of-00002.parquet", ["a", "b"])
    write(place, "evaluation/evaluation-00001-of-00002.parquet", ["c"], "zh")
    write(place, "train/000/train-00000-of-00001.parquet", ["d", "e", "f"], None)
    write(place, "teaser/teaser-00000-of-00001.parquet", ["a"])
    (tmp_path / "card.md").write_text(SHORT)
    return place


def test_the_header_is_what_the_data_are(folder: Path):
    told = header(fill_card(folder, folder.parent / "card.md"))
    assert [(c["config_name"], c.get("default"), c["data_files"]) for c in told["configs"]] == [
        ("evaluation", True, [{"split": "evaluation", "path": "evaluation/*.parquet"}]),
        ("train", None, [{"split": "train", "path": "train/*/*.parquet"}]),
        ("teaser", None, [{"split": "evaluation", "path": "teaser/*.parquet"}]),
    ]
    assert told["configs"][0]["drop_labels"] is True
    infos = {info["config_name"]: info for info in told["dataset_info"]}
    assert {name: info["splits"][0]["num_examples"] for name, info in infos.items()} == {
        "evaluation": 3,
        "train": 3,
        "teaser": 1,
    }
    sizes = [path.stat().st_size for path in folder.glob("evaluation/*")]
    assert infos["evaluation"]["download_size"] == sum(sizes)
    assert (told["language"], told["size_categories"]) == (["en", "zh"], ["n<1K"])
    assert (told["license"], told["extra_gated_fields"]) == ("other", {"I agree": "checkbox"})


def test_the_header_holds_the_features_of_the_schema(folder: Path):
    from datasets import Features

    told = header(fill_card(folder, folder.parent / "card.md"))
    for info in told["dataset_info"]:
        assert Features._from_yaml_list(info["features"]) == features()


@pytest.mark.parametrize("card", ["short", "ours"])
def test_the_text_stays_and_a_filled_card_is_full(folder: Path, card: str):
    place = folder.parent / "card.md" if card == "short" else CARD
    before = place.read_bytes().decode()
    filled = fill_card(folder, place)
    body = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
    assert body.sub("", filled, count=1) == body.sub("", before, count=1)
    (folder.parent / "again.md").write_text(filled)
    assert fill_card(folder, folder.parent / "again.md") == filled
    assert place.read_bytes().decode() == before  # nothing is written


def test_windows_line_ends_stay(folder: Path):
    place = folder.parent / "card.md"
    place.write_bytes(SHORT.replace("\n", "\r\n").encode())
    filled = fill_card(folder, place)
    assert filled.count("\n") == filled.count("\r\n")
    assert filled.endswith("# Title\r\n\r\nText with `---` and\ttabs:  \r\n---\r\nnot: a header\r\n---\r\n")


def test_the_hash_moves_with_the_content_and_is_the_manifests(folder: Path):
    def hashes() -> list[str]:
        return [config["description"] for config in header(fill_card(folder, folder.parent / "card.md"))["configs"]]

    before = hashes()
    assert all(re.fullmatch("content sha256 [0-9a-f]{64}", line) for line in before)
    write(folder, "train/000/train-00000-of-00001.parquet", ["d", "e", "g"], None)
    after = hashes()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    files = {"train/000/train-00000-of-00001.parquet": {"sha256": "0" * 64, "rows": 3, "bytes": 1}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    assert hashes()[1] not in (before[1], after[1])
    assert hashes()[0] == before[0]  # not in the manifest: read


def test_a_folder_made_again_is_not_taken_for_the_old_one(tmp_path: Path):
    import datasets

    found = []
    for name in ("one", "other"):
        place = tmp_path / name / "jwb-dh-v1"
        write(place, "evaluation/evaluation-00000-of-00001.parquet", [name])
        write_card(place, CARD)
        for how in ({"cache_dir": str(tmp_path / "cache")}, {"streaming": True}):
            found.append([row["sample_id"] for row in datasets.load_dataset(str(place), split="evaluation", **how)])
    assert found == [["one"], ["one"], ["other"], ["other"]]


@pytest.mark.teaser
def test_the_teaser_loads_under_the_full_card(teaser_dir: Path, tmp_path: Path):
    import datasets

    place = tmp_path / "jwb-dh-v1"
    (place / "evaluation").mkdir(parents=True)
    shard = next(teaser_dir.glob("evaluation/*.parquet"))
    (place / "evaluation" / shard.name).symlink_to(shard)
    write_card(place, CARD)
    told = datasets.load_dataset_builder(str(place), cache_dir=str(tmp_path / "cache")).info
    assert told.features == features()
    assert told.splits["evaluation"].num_examples == 8
    streams = [datasets.load_dataset(str(at), split="evaluation", streaming=True) for at in (place, teaser_dir)]
    whole = datasets.load_dataset(str(place), split="evaluation", cache_dir=str(tmp_path / "cache"))
    for ours, theirs, kept in zip(*streams, whole, strict=True):
        assert ours["video"]["bytes"] == theirs["video"]["bytes"] == kept["video"]["bytes"]
        assert np.array_equal(ours["keypoints"], theirs["keypoints"])
        assert {k: v for k, v in ours.items() if k != "keypoints"} == {
            k: v for k, v in theirs.items() if k != "keypoints"
        }


def test_what_cannot_be_filled_is_said(folder: Path):
    with pytest.raises(DataNotFound, match=r"nothing\.md"):
        fill_card(folder, folder / "nothing.md")
    (folder.parent / "list.md").write_text("---\n- a\n---\n")
    with pytest.raises(SetupError, match="no YAML mapping"):
        fill_card(folder, folder.parent / "list.md")
    (folder.parent / "broken.md").write_text("---\na: [\n---\n")
    with pytest.raises(SetupError, match="no YAML mapping"):
        fill_card(folder, folder.parent / "broken.md")
    write(folder, "loose.parquet", ["z"])
    with pytest.raises(SetupError, match="in no folder named as its split"):
        fill_card(folder, CARD)
    (folder / "loose.parquet").unlink()
    (folder / "train/000/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(SetupError, match="cannot be read"):
        fill_card(folder, CARD)
    with pytest.raises(DataNotFound, match="no Parquet shard"):
        fill_card(folder / "evaluation" / "nowhere", CARD)


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (20_000, "10K<n<100K"), (2_000_000, "1M<n<10M"), (10**10, "n>1B")],
)
def test_size_categories_are_the_hubs(rows: int, name: str):
    assert size_category(rows) == name


def test_our_card_has_what_the_hub_asks_for_and_leaves_decisions_open():
    text = CARD.read_text(encoding="utf-8")
    told = header(text)
    assert [config["config_name"] for config in told["configs"]] == ["evaluation", "train", "teaser"]
    assert [config.get("default", False) for config in told["configs"]] == [True, False, False]
    assert told["license"] == "other"
    assert told["extra_gated_fields"]
    assert open_decisions(text) >= 3
    described = set(re.findall(r"`([a-z_0-9]+)`", text))
    assert set(features()) <= described


# -------------------------------------------------------------------------------------------------------------- push


@pytest.fixture
def ready(teaser_dir: Path, tmp_path: Path) -> Path:
    """The teaser with a card, and beside it what must not be sent."""
    place = tmp_path / "jwb-dh-v1"
    (place / "evaluation").mkdir(parents=True)
    shard = next(teaser_dir.glob("evaluation/*.parquet"))
    (place / "evaluation" / shard.name).write_bytes(shard.read_bytes())
    write_card(place, CARD)
    for name in (".packing/state.json", "evaluation/.hidden", ".git/config", "evaluation/.1.part", "half.part"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("x")
    return place


@pytest.mark.teaser
def test_a_dry_run_shows_the_plan_and_needs_no_network(ready: Path):
    shard = next(ready.glob("evaluation/*.parquet"))
    plan = [("README.md", (ready / "README.md").stat().st_size), (f"evaluation/{shard.name}", shard.stat().st_size)]
    assert plan_push(ready, "ORG/jwb-dh-v1") == plan
    code = (
        "import socket, sys; socket.socket.connect = lambda *_: sys.exit('connected');"
        "from jwb_dh_v1.dataset.build.push import push;"
        f"push({str(ready)!r}, 'ORG/jwb-dh-v1', revision='next', say=print)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("2 files, 0.00")
    assert said[0].endswith(" GB, 8 rows, to ORG/jwb-dh-v1 (next)")
    assert [line.split() for line in said[1:3]] == [[f"{size:,}", name] for name, size in plan]
    assert "README.md still holds" in said[3]
    assert said[4:] == ["dry run: nothing was sent"]


@pytest.mark.teaser
def test_what_should_not_be_sent_is_refused(ready: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("jwb-dh-v1", "a/b/c", "a/--"):
        with pytest.raises(SetupError, match=r"names no owner|no name of a repository"):
            push(ready, name)
    with pytest.raises(SetupError, match="settle these before the data are public"):
        push(ready, "ORG/jwb-dh-v1", private=False)
    monkeypatch.setattr(push_module, "MAX_BYTES", 1000)
    with pytest.raises(SetupError, match="more shards"):
        push(ready, "ORG/jwb-dh-v1")
    monkeypatch.undo()
    monkeypatch.setattr(push_module, "MAX_FILES", 1)
    with pytest.raises(SetupError, match="fewer shards"):
        push(ready, "ORG/jwb-dh-v1")
    monkeypatch.undo()
    write(ready, "evaluation/more.parquet", ["a"])
    with pytest.raises(SetupError, match=r"breaks 1 rules \(schema-version\).*Nothing was sent"):
        push(ready, "ORG/jwb-dh-v1", dry_run=False)
    assert not check(ready, decode="none").ok
    (ready / "README.md").unlink()
    with pytest.raises(SetupError, match="jwb-dh data card"):
        push(ready, "ORG/jwb-dh-v1")


class Recorder(BaseHTTPRequestHandler):
    """As much of the Hub as a push of small files asks for; it writes down what it was sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.server.seen.append((self.path, lines))  # type: ignore[attr-defined]
        host = f"http://127.0.0.1:{self.server.server_port}"
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path.endswith("/repos/create"):
            return self.answer({"url": f"{host}/datasets/ORG/jwb-dh-v1", "name": "ORG/jwb-dh-v1"})
        if "/preupload/" in self.path:
            wanted = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            return self.answer({"files": wanted})
        if "/commit/" in self.path:
            place = f"{host}/datasets/ORG/jwb-dh-v1/commit/{'0' * 40}"
            return self.answer({"commitUrl": place, "commitOid": "0" * 40, "success": True})
        return self.answer({})

    def do_GET(self) -> None:
        self.answer({"id": "ORG/jwb-dh-v1", "sha": "0" * 40, "siblings": [], "private": self.server.private})  # type: ignore[attr-defined]

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def recorder() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen, server.private = [], True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def pushed(place: Path, server: ThreadingHTTPServer, token: str, tmp_path: Path) -> Any:
    """Its own process: huggingface_hub reads its endpoint once, when it is imported."""
    code = (
        "from jwb_dh_v1.dataset.build.push import push;"
        f"push({str(place)!r}, 'ORG/jwb-dh-v1', revision='next', dry_run=False, say=print)"
    )
    environment = {
        "PATH": "",
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.teaser
def test_a_push_sends_the_plan_to_a_private_repository(ready: Path, recorder: Any, tmp_path: Path):
    done = pushed(ready, recorder, "hf_right", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("sent: http://127.0.0.1")
    asked = {path: lines for path, lines in recorder.seen}
    (create,) = asked["/api/repos/create"]
    assert create["type"] == "dataset"
    assert create.get("private") is True or create["visibility"] == "private"  # before and from huggingface_hub 2
    assert f"{create['organization']}/{create['name']}" == "ORG/jwb-dh-v1"
    assert "/api/datasets/ORG/jwb-dh-v1/branch/next" in asked
    commits = [lines for path, lines in recorder.seen if path.startswith("/api/datasets/ORG/jwb-dh-v1/commit/next")]
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for lines in commits
        for line in lines
        if line["key"] == "file"
    }
    assert [(name, len(content)) for name, content in sorted(sent.items())] == plan_push(ready, "ORG/jwb-dh-v1")
    assert all(content == (ready / name).read_bytes() for name, content in sent.items())


@pytest.mark.teaser
def test_a_repository_that_is_public_gets_nothing_while_decisions_are_open(ready: Path, recorder: Any, tmp_path: Path):
    recorder.private = False
    done = pushed(ready, recorder, "hf_right", tmp_path)
    assert re.search(r"SetupError: README\.md holds \d+ times 'DECISION", done.stderr.strip().splitlines()[-1])
    assert [path for path, _ in recorder.seen] == ["/api/repos/create"]
    text = (ready / "README.md").read_text().replace("DECISION FOR THE OWNER", "Decided")
    (ready / "README.md").write_text(text)
    assert pushed(ready, recorder, "hf_right", tmp_path).returncode == 0


@pytest.mark.teaser
def test_a_token_without_the_right_is_told_in_a_sentence(ready: Path, recorder: Any, tmp_path: Path):
    done = pushed(ready, recorder, "hf_wrong", tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("jwb_dh_v1.errors.SetupError: ORG/jwb-dh-v1: ")
    assert last.endswith("`hf auth login`.")
    recorder.shutdown()
    recorder.server_close()
    done = pushed(ready, recorder, "hf_right", tmp_path)
    assert "DataNotFound: The Hub cannot be reached" in done.stderr.strip().splitlines()[-1]
