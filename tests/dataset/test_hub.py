"""The dataset on a Hub: streamed by `datasets` alone and by us, shared, resumed, and through a server that fails.

The server is real (`hub_server`); clients are processes of their own. Where a client has to wait before it tries
again, it writes down how long and waits a hundredth of it.
"""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import pytest
from hub_server import REPOSITORY, Fault, Hub
from pyarrow import parquet

from jwb_dh_v1.dataset import training

pytestmark = pytest.mark.teaser

SHARDS = 4
# What a client does before and after its test's lines. `rows` and `give` are for these lines; the process ends without
# the interpreter's farewell, in which pyarrow's threads abort now and then (apache/arrow#45214).
BEFORE = """
import json, os, pickle, sys, time
waits, sleep = [], time.sleep
def wait(seconds):
    waits.append(seconds)
    sleep(seconds / 100)
time.sleep = wait
def give(**found):
    pickle.dump({**found, "waits": [w for w in waits if w >= 0.9], "modules": list(sys.modules)}, open("found", "wb"))
    os._exit(0)
import datasets
"""
PLAIN = f"""
def load(**how):
    return datasets.load_dataset("{REPOSITORY}", **{{"split": "evaluation", "streaming": True, **how}})
"""
OURS = PLAIN.replace("datasets.load_dataset", "jwb_dh_v1.load_dataset").replace("\ndef", "\nimport jwb_dh_v1\ndef", 1)
ROWS = "give(rows=list(load()))"


class Client:
    """Runs code against the Hub in a process and a cache of its own."""

    def __init__(self, served: Hub, room: Path) -> None:
        self.served, self.room = served, room

    def start(self, *code: str, **variables: str) -> tuple[subprocess.Popen[str], Path]:
        room = self.room / f"client-{len(list(self.room.iterdir()))}"
        room.mkdir()
        environment = {**self.served.environment(room), **variables}
        command = [sys.executable, "-c", "\n".join([BEFORE, *map(textwrap.dedent, code)])]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=room, env=environment, **pipes), room

    def end(self, process: subprocess.Popen[str], room: Path) -> dict[str, Any]:
        said, _ = process.communicate(timeout=120)
        assert (room / "found").exists(), said[-3000:]
        return {**pickle.loads((room / "found").read_bytes()), "said": said}

    def run(self, *code: str, **variables: str) -> dict[str, Any]:
        return self.end(*self.start(*code, **variables))


@pytest.fixture(scope="module")
def served(teaser_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    room = tmp_path_factory.mktemp("hub")
    repository = room / "served" / "datasets" / REPOSITORY
    for tag, rows in (("v0.9.0", slice(0, 2)), ("v1.0.0", slice(None))):
        hub_server.shards(teaser_dir, room / tag, SHARDS, rows)
        hub_server.commit(repository, room / tag, tag)
    with hub_server.hub(room / "olah", room / "served") as served:
        yield served


@pytest.fixture
def client(served: Hub, tmp_path: Path) -> Client:
    return Client(served, tmp_path)


@pytest.fixture(scope="module")
def rows(teaser_dir: Path) -> list[dict[str, Any]]:
    """The teaser's rows as pyarrow alone reads them."""
    found: list[dict[str, Any]] = parquet.read_table(next(teaser_dir.glob("evaluation/*.parquet"))).to_pylist()
    return found


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["sample_id"] for row in rows]


def sent(log: list[hub_server.Request]) -> int:
    return sum(request.sent for request in log if request.path.endswith(".parquet"))


# ------------------------------------------------------------------------------------------------------ whole rows


def test_plain_datasets_streams_the_rows(served: Hub, client: Client, rows: list[dict[str, Any]]):
    with served.watched() as log:
        found = client.run(PLAIN, "rows = load()\ngive(rows=list(rows), shards=rows.num_shards)")
    assert found["rows"] == rows  # video and audio bytes, annotations, word times: everything
    assert found["shards"] == SHARDS
    assert found["waits"] == []
    assert not any(name.startswith("jwb_dh_v1") for name in found["modules"])
    assert len(log) < 12 + 4 * SHARDS


def test_ours_streams_loads_and_decodes_the_same(client: Client, rows: list[dict[str, Any]]):
    found = client.run(
        OURS,
        """
        from jwb_dh_v1.dataset.training import decode
        rows = list(load())
        shapes = [decode(row).frames.shape for row in rows]
        boxes = [decode(row).provided_annotations.boxes["face"].shape for row in rows]
        give(rows=rows, shapes=shapes, boxes=boxes, loaded=list(load(streaming=False)))
        """,
    )
    assert found["rows"] == rows
    assert found["loaded"] == rows
    assert found["shapes"] == [(row["num_frames"], row["height"], row["width"], 3) for row in rows]
    assert found["boxes"] == [(row["num_frames"], 4) for row in rows]


def test_a_revision_is_a_tag(served: Hub, client: Client, rows: list[dict[str, Any]]):
    # What the Hub says here; olah says that there is no such repository.
    unknown = Fault(404, 10, "/resolve/v7/", {"X-Error-Code": "RevisionNotFound"})
    with served.fails(unknown):
        found = client.run(
            OURS,
            """
            told = {tag: [row["sample_id"] for row in load(revision=tag, columns=["sample_id"])] for tag in
                    ("v0.9.0", "v1.0.0", None)}
            try:
                load(revision="v7")
            except jwb_dh_v1.errors.DataNotFound as error:
                give(told=told, error=str(error))
            """,
        )
    assert found["told"] == {"v0.9.0": ids(rows)[:4], "v1.0.0": ids(rows), None: ids(rows)}
    assert "Revision 'v7' doesn't exist" in found["error"]


def test_the_fingerprint_of_the_data_names_the_commit(client: Client, rows: list[dict[str, Any]]):
    """Two runs on two revisions with the same sample ids are not the same data."""
    found = client.run(
        f"""
        from pathlib import Path
        from jwb_dh_v1.dataset.pairs import pair
        Path("made").mkdir()
        Path("made/{ids(rows)[0]}.mp4").write_bytes(b"no video: nothing is opened here")
        told = {{tag: pair("made", "{REPOSITORY}", revision=tag).data for tag in ("v0.9.0", "v1.0.0", None)}}
        give(told=told)
        """,
    )
    commits = {tag: re.search(r"@([0-9a-f]{40}):", data) for tag, data in found["told"].items()}
    assert all(commits.values()), found["told"]
    assert commits["v0.9.0"][1] != commits["v1.0.0"][1] == commits[None][1]


def test_chosen_columns_do_not_fetch_the_videos(served: Hub, client: Client, rows: list[dict[str, Any]]):
    code = 'give(rows=list(load(columns=["sample_id", "num_frames", "boxes", "transcript"])))'
    wanted = [{name: row[name] for name in ("sample_id", "num_frames", "boxes", "transcript")} for row in rows]
    videos = sum(len(row["video"]["bytes"]) for row in rows)
    with served.watched() as log:
        assert client.run(OURS, code)["rows"] == wanted
        ours = sent(log)
    # The footers take 64 KiB a shard, whatever they hold; the videos are 1.9 MB.
    assert ours < SHARDS * 2**16 + 2**16 + 180_000 < videos / 3
    with served.watched() as log:
        assert client.run(PLAIN, code)["rows"] == wanted
    # `datasets` alone reads 5 MiB ahead and so fetches everything between the columns.
    assert sent(log) > videos


# ------------------------------------------------------------------------------------------------ nodes and workers


def example() -> str:
    """The lines of code in the module's docstring."""
    text = training.__doc__ or ""
    code = text[text.index("::\n") + 3 : text.index("\nNodes and")]
    return textwrap.dedent(code)


def test_two_nodes_with_two_workers_see_every_sample_once(client: Client, rows: list[dict[str, Any]]):
    """The example of `training`, as it is written there, on two nodes."""
    code = example()
    assert "rank=0, world_size=2" in code
    assert "num_workers=2" in code
    code = code.replace("    batch[", "    seen.append(batch); batch[")
    ends = 'give(seen=[(b["sample_id"], b["lengths"].tolist(), tuple(b["frames"][0].shape[-3:])) for b in seen])'
    nodes = [
        client.start("seen = []", code.replace("rank=0", f"rank={rank}"), ends, JWB_DATASET=REPOSITORY)
        for rank in (0, 1)
    ]
    seen: list[tuple[str, int]] = []
    for node in nodes:
        batches = client.end(*node)["seen"]
        assert len(batches) == 2  # two workers, one shard of two rows each
        seen += [pair for names, lengths, _ in batches for pair in zip(names, lengths, strict=True)]
    assert sorted(seen) == sorted((row["sample_id"], row["num_frames"]) for row in rows)


def test_a_killed_reader_goes_on_at_the_next_sample(client: Client, rows: list[dict[str, Any]]):
    code = (
        OURS,
        """
        rows, ids = load(), []
        if os.path.exists(os.environ["STATE"]):
            ids, state = pickle.load(open(os.environ["STATE"], "rb"))
            rows.load_state_dict(state)
        for row in rows:
            ids.append((row["sample_id"], len(row["video"]["bytes"])))
            with open("part", "wb") as file:
                pickle.dump((ids, rows.state_dict()), file)
            os.replace("part", os.environ["STATE"])
            sleep(float(os.environ["PACE"]))
        give(ids=ids)
        """,
    )
    state, done = client.room / "state", 0
    for wanted in (1, 4):  # within a shard, and after the second
        process, _ = client.start(*code, STATE=str(state), PACE="0.3")
        until = time.monotonic() + 60
        while done < wanted and time.monotonic() < until:
            time.sleep(0.02)
            done = len(pickle.loads(state.read_bytes())[0]) if state.exists() else 0
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        done = len(pickle.loads(state.read_bytes())[0])
        assert wanted <= done < len(rows)
    found = client.run(*code, STATE=str(state), PACE="0")
    assert found["ids"] == [(row["sample_id"], len(row["video"]["bytes"])) for row in rows]


# ----------------------------------------------------------------------------------------------------- bad servers


@pytest.mark.parametrize(
    ("kind", "headers", "longest"),
    [("drop", {}, 2), ("truncate", {}, 2), (500, {}, 2), (429, {"Retry-After": "40"}, 41)],
)
def test_nothing_is_lost_when_the_server_fails_now_and_then(
    served: Hub, client: Client, rows: list[dict[str, Any]], kind: int | str, headers: dict[str, str], longest: int
):
    """Twice on the first ranges of the shards, and once while the repository is looked at."""
    faults = [Fault(kind, 2, headers=headers), Fault(kind, 1, where="-00002-of-", headers=headers)]
    if kind != "truncate":  # an answer of a few hundred bytes comes whole or not at all
        faults.append(Fault(kind, 1, where="GET /api/datasets/.*/tree/", headers=headers))
    with served.fails(*faults) as log:
        found = client.run(OURS, ROWS)
    assert found["rows"] == rows
    assert [fault.hits for fault in faults] == [fault.times for fault in faults]
    assert sum(request.faulty for request in log) == sum(fault.times for fault in faults)
    # One wait after each failure; what the server asks for is honoured.
    assert len(found["waits"]) == len([request for request in log if request.faulty])
    assert max(found["waits"]) == longest


def test_a_server_that_stays_down_ends_in_an_error(served: Hub, client: Client):
    """`datasets` tries 20 times to read, and each time huggingface_hub 6 times; the constants bound it."""
    code = (
        OURS,
        """
        datasets.config.STREAMING_READ_MAX_RETRIES = 2
        rows = load(columns=["sample_id"])
        ids = []
        try:
            for row in rows:
                ids.append(row["sample_id"])
        except Exception as error:
            give(ids=ids, error=f"{type(error).__name__}: {error}")
        """,
    )
    with served.fails(Fault("drop", 10**6, where="GET .*-00001-of-")) as log:
        found = client.run(*code)
    assert found["ids"] == ["obama-1", "obama-2"]  # the first shard, and no sample is passed over
    assert found["error"] == "ConnectionError: Server Disconnected"
    assert sum(request.faulty for request in log) == 2 * 6
    with served.fails(Fault(500, 10**6)) as log:
        found = client.run(
            OURS,
            """
            try:
                load()
            except jwb_dh_v1.errors.DataNotFound as error:
                give(error=str(error))
            """,
        )
    assert "ORG/jwb-dh-v1 cannot be loaded: Server error '500" in found["error"]
    assert sum(request.faulty for request in log) == 6


def test_half_a_body_that_calls_itself_whole_is_no_row(served: Hub, client: Client, rows: list[dict[str, Any]]):
    """No retry can help here, as nothing tells that bytes are missing; but no wrong row may come of it."""
    code = (
        OURS,
        """
        ids = []
        try:
            for row in load():
                ids.append(row["sample_id"])
        except Exception as error:
            give(ids=ids, error=f"{type(error).__name__}: {error}")
        """,
    )
    with served.fails(Fault("short", 10**6, where="GET .*-00001-of-")):
        found = client.run(*code)
    assert found["ids"] == ids(rows)[:2]
    assert re.search("evaluation-00001-of-00004.parquet", found["said"])  # `datasets` logs which file it was


# ------------------------------------------------------------------------------------------------------ gated data


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", ["(HEAD|GET) ", hub_server.SHARD])
def test_gated_data_say_how_to_get_access(served: Hub, client: Client, status: int, where: str):
    message = f"Access to dataset {REPOSITORY} is restricted."
    headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": message}
    code = """
        try:
            jwb_dh_v1.load_dataset(split="evaluation", streaming=True)
        except jwb_dh_v1.errors.DataNotFound as error:
            give(error=str(error))
        """
    with served.fails(Fault(status, 10**6, where, headers)) as log:
        found = client.run("import jwb_dh_v1, jwb_dh_v1.errors", code, JWB_DATASET=REPOSITORY)
    assert found["error"].startswith(f"{REPOSITORY} cannot be loaded: ")
    assert f"https://huggingface.co/datasets/{REPOSITORY}" in found["error"]
    assert all(word in found["error"] for word in ("accept the terms", "hf auth login", "HF_TOKEN"))
    assert "\n" not in found["error"]
    assert found["waits"] == []  # no use trying again
    assert Counter(request.status for request in log)[status] <= 4
