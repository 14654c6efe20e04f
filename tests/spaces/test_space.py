"""The demo Space driven from scripts: the core's numbers, its schema, one job per visitor, files that go away."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the Space needs gradio: pip install -e '.[demo]'")

from gradio_client import Client, handle_file
from space_server import DEMO, Server, Visitor, given, running, shorter

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.scoring.run import score

pytestmark = pytest.mark.teaser
METRICS = ["psnr", "ssim", "motion_smoothness"]


@pytest.fixture(scope="module")
def real(teaser_dir: Path) -> dict[str, Any]:
    """A row of the teaser."""
    from jwb_dh_v1.dataset.load import load_dataset

    rows: Any = load_dataset(str(teaser_dir), split="evaluation", streaming=True)
    return next(row for row in rows if row["sample_id"] == "obama-2")


@pytest.fixture(scope="module")
def clips(real: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A generated clip and its reference."""
    folder = tmp_path_factory.mktemp("clips")
    source = real["video"]["bytes"]
    return shorter(source, folder / "blurred.mp4", 2), shorter(source, folder / "copy.mp4", 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("space"), {"JWB_DEMO_PER_ADDRESS": "3"}) as found:
        yield found


@pytest.fixture
def visitor(server: Server) -> Visitor:
    return Visitor(server)


def test_client_gets_the_cores_numbers(server: Server, clips: tuple[Path, Path]) -> None:
    client = Client(server.url, verbose=False)
    answer = client.predict(
        video=handle_file(clips[0]), reference=handle_file(clips[1]), regions=["body", "face"], metrics=METRICS,
        api_name="/score",
    )  # fmt: skip
    ours = score([Sample("blurred", Clip(clips[0]), Clip(clips[1]))], METRICS, ["body", "face"], protocol="lite")
    assert {(s["metric"], s["region"]): s["value"] for s in answer["scores"]} == {
        (s.metric, s.region): s.value for s in ours.scores
    }
    assert len(ours.scores) == 6
    assert ours["psnr", "body"].value is not None
    curves = {(r["metric"], r["region"]): r["curve"] for r in answer["samples"]}
    assert all(curves[row.metric, row.region] == list(row.curve) for row in ours.rows())
    assert answer["plan"]["protocol"] == "lite/1"
    client.close()
    assert left_after(server) == set(), "uploads and drawings go with the session"


def left_after(server: Server, seconds: float = 60) -> set[str]:
    """What is left when the server has had some time: gradio looks for closed pages every 15 seconds."""
    end = time.monotonic() + seconds
    while server.left() and time.monotonic() < end:
        time.sleep(0.2)
    return server.left()


def test_batch_pairs_by_name_and_needs_no_reference(visitor: Visitor, clips: tuple[Path, Path]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("set/a.mp4", clips[0].read_bytes())
        archive.writestr("set/b.mp4", clips[1].read_bytes())
    reference = visitor.upload("a.mp4", clips[1].read_bytes())
    said, answer = visitor.call(
        "batch", [given(visitor.upload("mine.zip", buffer.getvalue()))], [given(reference)], ["body"], ["ssim"], "lite"
    )
    assert said == "complete", answer
    assert [row["sample_id"] for row in answer[0]["samples"]] == ["a"]
    assert answer[0]["remarks"][0] == "Not scored, because no reference has their name: b."
    ours = score([Sample("a", Clip(clips[0]), Clip(clips[1]))], ["ssim"], ["body"], protocol="lite")
    assert answer[0]["scores"][0]["value"] == ours["ssim", "body"].value
    said, answer = visitor.batch(visitor.upload("mine.zip", buffer.getvalue()))
    assert said == "complete", answer
    assert answer[0]["scores"][0]["n"] == 2
    assert left_after(visitor.server) == set(), "a bare request leaves nothing"


def test_speech_hears_what_the_core_hears(visitor: Visitor, real: dict[str, Any], whisper: Any) -> None:
    from jwb_dh_v1.media.audio import decode_audio
    from jwb_dh_v1.metrics.speech import word_errors

    source, text = real["video"]["bytes"], real["transcript"]["text"]
    said, answer = visitor.call("speech", given(visitor.upload("a.mp4", source)), text)
    assert said == "complete", answer
    audio = decode_audio(source)
    assert audio is not None
    assert answer[0] == json.loads(json.dumps(word_errors(text, whisper.transcribe(audio.mono(16000)))))
    assert answer[0]["wer"] < 0.5


def test_leaderboard_has_the_published_cells(visitor: Visitor) -> None:
    said, answer = visitor.call("leaderboard", "hands")
    assert said == "complete"
    assert len(answer[0]["data"]) == 8
    assert len(answer[0]["headers"]) == 14
    assert {cell[-1] for row in answer[0]["data"] for cell in row[1:-1]} <= set("✓≈✗·")


def test_schema_names_every_purpose(server: Server) -> None:
    named = httpx.get(server.url + "/gradio_api/info").json()["named_endpoints"]
    assert set(named) == {"/score", "/batch", "/speech", "/judge", "/leaderboard"}
    for name, endpoint in named.items():
        assert endpoint["description"], name
        assert all(p["parameter_name"] and p["type"] for p in endpoint["parameters"]), name
    defaults = {p["parameter_name"] for p in named["/score"]["parameters"] if p["parameter_has_default"]}
    assert defaults == {"reference", "transcript", "baseline", "regions", "metrics", "protocol"}


def test_one_job_per_visitor(visitor: Visitor, clips: tuple[Path, Path]) -> None:
    config = visitor.http.get(visitor.server.url + "/config").json()
    number = next(d["id"] for d in config["dependencies"] if d["api_name"] == "score")
    path = visitor.upload("a.mp4", clips[0].read_bytes())

    def join(session: str) -> httpx.Response:
        data = [given(path), None, "", None, ["body"], ["motion_smoothness"], "lite"]
        body = {"data": data, "fn_index": number, "session_hash": session}
        return visitor.http.post(visitor.server.url + "/gradio_api/queue/join", json=body)

    answers = [join("first"), join("first"), join("second"), join("third"), join("fourth")]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 200, 429]
    assert "You have a job" in answers[1].json()["detail"]
    assert "from your address" in answers[4].json()["detail"]
    for session in ("first", "second", "third"):  # take the results, so that the queue is empty again
        with visitor.http.stream("GET", f"{visitor.server.url}/gradio_api/queue/data?session_hash={session}") as lines:
            assert any("process_completed" in line for line in lines.iter_lines())
    path = visitor.upload("a.mp4", clips[0].read_bytes())
    assert visitor.score(given(path))[0] == "complete"


def test_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("space_files", DEMO / "files.py")
    assert spec is not None
    assert spec.loader is not None
    files = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(files)
    mine, shared, other = (files.WORK / name / "a.mp4" for name in "abc")
    for path in (mine, shared, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"x")
    files.KEEPER.use("me", mine, shared, outside)
    files.KEEPER.use("you", shared)
    files.KEEPER.hold([str(mine), str(mine)])
    files.KEEPER.use("me", mine)
    files.KEEPER.leave("me")
    assert mine.exists(), "another visitor has sent the same clip, and a job of theirs waits"
    files.KEEPER.use("they", mine)
    files.KEEPER.leave("they")
    assert [path.exists() for path in (mine, shared, other, outside)] == [False, True, True, True]
    assert not mine.parent.exists()
    files.KEEPER.sweep(time.time() + files.KEPT - 60)
    assert shared.exists()
    os.utime(other, (time.time(), time.time() + 600))
    files.KEEPER.sweep(time.time() + files.KEPT + 60)
    assert [path.exists() for path in (shared, other, outside)] == [False, True, True]
    with pytest.raises(ZeroDivisionError), files.workplace() as folder:
        (folder / "x").write_text("x")
        1 / 0  # noqa: B018
    assert not folder.exists()


def test_runs_stand_in_a_frame_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leaderboard's page is escaped whole, so that nothing in it can leave its frame."""
    import html

    monkeypatch.syspath_prepend(str(DEMO))
    import views

    runs = Path(__file__).parents[1] / "golden" / "systems"
    page = views.runs_page(str(runs))
    source = page.partition('srcdoc="')[2].partition('"')[0]
    assert "<" not in source and page.count("<iframe") == 1 and 'sandbox="allow-scripts"' in page
    inside = html.unescape(source)
    assert all(f">{name}<" in inside for name in ("copy", "swapped")) and "Content-Security-Policy" in inside
    assert views.runs_page(None) == ""
