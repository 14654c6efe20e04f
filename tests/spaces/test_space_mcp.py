"""The demo Space as an MCP server, asked by the real `mcp` client over streamable HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install -e '.[demo]'")
pytest.importorskip("mcp", reason="the MCP server needs the package mcp: pip install 'mcp>=1.21,<2'")

import anyio
from judge_server import JudgeServer
from judge_wires import tone
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from space_server import Server, Visitor, running, write_video

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.scoring.run import score

pytestmark = pytest.mark.teaser
CALLS = 5  # at once; more than one address may have by default


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    extra = {"JWB_DEMO_ALLOW_BASE_URL": "1"}
    with running(tmp_path_factory.mktemp("space"), extra) as found:
        yield found


@pytest.fixture
def visitor(server: Server) -> Visitor:
    return Visitor(server)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return tuple(write_video(folder / f"{c}.mp4", 20, codec=c) for c in ("mpeg4", "libx264"))  # type: ignore[return-value]


def ask(server: Server, work: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    """What a client of its own gets."""

    async def run() -> Any:
        address = server.url + "/gradio_api/mcp/"
        async with streamablehttp_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return await work(session)

    return anyio.run(run)


def call(server: Server, name: str, arguments: dict[str, Any]) -> tuple[bool, Any]:
    """Whether a tool worked, and its answer: JSON, or the sentence that says why not."""
    answer = ask(server, lambda session: session.call_tool(name, arguments))
    (content,) = answer.content
    return not answer.isError, content.text if answer.isError else json.loads(content.text)


def test_each_endpoint_is_a_tool_with_a_schema(server: Server) -> None:
    from jsonschema import Draft202012Validator

    tools = {tool.name: tool for tool in ask(server, lambda session: session.list_tools()).tools}
    assert set(tools) == {"score", "batch", "wer", "judge", "leaderboard"}
    for tool in tools.values():
        Draft202012Validator.check_schema(tool.inputSchema)
        assert tool.description
        assert all(told["description"] and told["type"] for told in tool.inputSchema["properties"].values()), tool.name
    assert tools["score"].inputSchema["required"] == ["video"]
    files = [n for n, told in tools["score"].inputSchema["properties"].items() if "/upload" in told["description"]]
    assert files == ["video", "reference", "baseline"]


def test_a_tool_gives_the_cores_numbers(server: Server, visitor: Visitor, clips: tuple[Path, Path]) -> None:
    ours = score([Sample("mpeg4", Clip(clips[0]), Clip(clips[1]))], ["ssim", "psnr"], ["body"], protocol="lite")
    core = {score.metric: score.value for score in ours.scores}
    asked = {"regions": ["body"], "metrics": ["ssim", "psnr"]}

    def upload(clip: Path) -> str:
        return visitor.upload(clip.name, clip.read_bytes())

    ways = [
        lambda clip: upload(clip),  # the path that the upload gave
        lambda clip: f"{server.url}/gradio_api/file={upload(clip)}",  # and its address
        lambda clip: "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode(),
    ]
    for way in ways:
        worked, answer = call(server, "score", {"video": way(clips[0]), "reference": way(clips[1]), **asked})
        assert worked, answer
        assert {score["metric"]: score["value"] for score in answer["scores"]} == core
        assert server.left() == set(), "a tool's files go with its call"
    pair = {"generated": [upload(clips[0])], "references": [visitor.upload("mpeg4.mp4", clips[1].read_bytes())]}
    worked, answer = call(server, "batch", {**pair, **asked})
    assert worked, answer
    assert {score["metric"]: score["value"] for score in answer["scores"]} == core
    assert server.left() == set()


def test_several_calls_wait_for_each_other(server: Server, visitor: Visitor, clips: tuple[Path, Path]) -> None:
    """All tools share one client in the server: its calls are told apart, and one's end takes no file of another."""
    path = [visitor.upload(f"{n}.mp4", clips[n % 2].read_bytes()) for n in range(CALLS)]
    answers: list[Any] = [None] * CALLS

    async def together(session: ClientSession) -> None:
        async def one(n: int) -> None:
            asked = {"video": path[n], "regions": ["body"], "metrics": ["motion_smoothness"]}
            answers[n] = await session.call_tool("score", asked)

        async with anyio.create_task_group() as group:
            for n in range(CALLS):
                group.start_soon(one, n)

    ask(server, together)
    told = sorted(answer.content[0].text for answer in answers if answer.isError)
    assert all("jobs from your address wait or run" in text for text in told), told
    assert len(told) == 1, "as many as one address may have"
    again = next(n for n in range(CALLS) if answers[n].isError)
    worked, answer = call(
        server, "score", {"video": path[again], "regions": ["body"], "metrics": ["motion_smoothness"]}
    )
    assert worked, answer
    assert server.left() == set()


FOREIGN = {
    "path": "/etc/hostname",
    "app": "{url}/gradio_api/file=/etc/hostname",
    "traversal": "{url}/gradio_api/file={work}/../../../../../../etc/hostname",
    "encoded": "{url}/gradio_api/file=%2Fetc%2Fhostname",
    "elsewhere": "http://127.0.0.1:1/a.mp4",
    "file": "file:///etc/hostname",
    "bad-data": "data:video/mp4;base64,%%%",
    "text": "data:text/html;base64," + base64.b64encode(b"<img src=x>").decode(),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("tool", ["score", "batch"])
def test_only_uploads_are_files(server: Server, name: str, tool: str) -> None:
    file = FOREIGN[name].format(url=server.url, work=server.work)
    worked, said = call(server, tool, {"video": file} if tool == "score" else {"generated": [file]})
    assert not worked
    for secret in (Path("/etc/hostname").read_text().strip(), "Traceback", str(server.work), "<img"):
        assert secret not in said


def test_a_judge_takes_the_callers_key(server: Server, visitor: Visitor) -> None:
    key = "sk-tool-2323"
    with JudgeServer("", key=key) as judge:
        two = {name: visitor.upload(f"{name}.wav", tone(f)) for name, f in (("recording", 1841), ("baseline", 358))}
        asked = {"transcript": "hello", "provider": "gemini", "base_url": judge.url}
        worked, answer = call(server, "judge", {**two, **asked, "key": key})
        assert worked, answer
        assert (answer["outcome"], len(judge.requests)) == ("win", 2)
        two = {name: visitor.upload(f"{name}.wav", tone(f)) for name, f in (("recording", 1841), ("baseline", 358))}
        worked, answer = call(server, "judge", {**two, **asked, "key": "wrong-" + key})
        assert not worked
        assert answer.startswith("The provider does not accept this key") and key not in answer
    assert key not in server.log.read_text()


def test_the_servers_secret_cannot_be_guessed(server: Server, visitor: Visitor, clips: tuple[Path, Path]) -> None:
    """A caller who pretends to be the server's own client stays who they are: one job per session."""
    config = httpx.get(server.url + "/config").json()
    number = next(d["id"] for d in config["dependencies"] if d["api_name"] == "score")
    path = visitor.upload("a.mp4", clips[0].read_bytes())
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = [file, None, "", None, ["body"], ["motion_smoothness"], "lite"]
    body = {"data": data, "fn_index": number, "session_hash": "forger"}
    headers = {"x-jwb-tool": "guess 10.0.0.1"}
    answers = [httpx.post(server.url + "/gradio_api/queue/join", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    with httpx.stream("GET", f"{server.url}/gradio_api/queue/data?session_hash=forger", timeout=60) as lines:
        assert any("process_completed" in line for line in lines.iter_lines())
