"""`jwb-dh judge` and `jwb-dh wer` from the command line, with the real SDKs and a real server on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge_server import JudgeServer
from judge_wires import tone

from jwb_dh_v1.cli import main
from jwb_dh_v1.judge.log import records

KEY = "loopback-key-0123456789"  # long enough to be scrubbed, and to be searched for
LOWEST = 400.0


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's key for both SDKs, and a terminal wide enough for whole tables."""
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def make_set(folder: Path, pairs: int, brighter: int = 3) -> tuple[Path, Path, Path]:
    """System, baseline, texts: the system is the brighter one in 3 of 4 pairs; every pair has its own pitch."""
    mine, theirs, texts = (folder / name for name in ("mine", "theirs", "texts"))
    for place in (mine, theirs, texts):
        place.mkdir(parents=True)
    for i in range(pairs):
        low, high = tone(LOWEST + i, 0.1), tone(2 * LOWEST + 2 * i, 0.1)
        (mine / f"{i:04d}.wav").write_bytes(high if i % 4 < brighter else low)
        (theirs / f"{i:04d}.wav").write_bytes(low if i % 4 < brighter else high)
        (texts / f"{i:04d}.txt").write_text(f"Sentence number {i}.", encoding="utf-8")
    return mine, theirs, texts


def arguments(server: JudgeServer, made: tuple[Path, Path, Path], out: Path, *more: str) -> list[str]:
    mine, theirs, texts = (str(path) for path in made)
    return ["judge", "run", mine, "--baseline", theirs, "--data", texts, "--out", str(out), "--base-url", server.url,
            "--concurrency", "8", *more]  # fmt: skip


def no_key_in(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


@pytest.mark.teaser
@pytest.mark.parametrize("pairs", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_pairs_with_faults_and_a_kill(tmp_path: Path, pairs: int) -> None:
    """30 % faults and a SIGKILL: each pair is judged once or failed with its reason; no logged answer is paid twice."""
    made = make_set(tmp_path / "data", pairs)
    out = tmp_path / "out"
    log = out / "log.jsonl"
    enough = pairs // 3
    with JudgeServer("random:0.3", key=KEY, seed=5) as server:
        command = [sys.executable, "-m", "jwb_dh_v1.cli", *arguments(server, made, out)]
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        victim = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 240
        while not log.exists() or log.read_bytes().count(b"\n") < enough:
            assert victim.poll() is None, victim.stderr.read().decode()[-2000:]  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "it took longer than 4 minutes"
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        kept = [r for r in map(_json, log.read_bytes().splitlines()) if r]
        kept_answers = sum(r["status"] != "api_error" for r in kept)
        assert enough <= len(kept) < 2 * pairs
        # What was on its way when the kill came may be lost: one question for each call in flight. (Counted by the two
        # sounds in their order, as a question that is asked again has another text.)
        paid = {request.sounds for request in server.requests if request.key in server.answered}
        assert len(paid) - kept_answers <= 8
        again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
        assert again.returncode in (0, 1), again.stderr[-2000:]
        logged = {r["key"]: r for r in records(log)}
        assert len(logged) == 2 * pairs  # two orders of each pair, each exactly once
        for key, first in ((r["key"], r) for r in kept if r["status"] != "api_error"):
            assert logged[key] == first  # what was paid for before the kill stands as it was
        asked = sum(server.answered.values())
        # A third run pays for nothing that has an answer.
        third = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
        assert third.returncode in (0, 1), third.stderr[-2000:]
        without = sum(r["status"] == "api_error" for r in logged.values())
        assert sum(server.answered.values()) - asked <= 2 * without
    told = json.loads((out / "judge.json").read_text(encoding="utf-8"))
    (rate,) = told["rates"]
    assert rate["wins"] + rate["ties"] + rate["losses"] + rate["failed"] == 2 * pairs
    failed = [r for r in {r["key"]: r for r in records(log)}.values() if r["status"] != "ok"]
    assert rate["failed"] == len(failed) and all(r["reason"] for r in failed)
    # The server's rule is exact, and 3 of 4 systems are the brighter: each judged answer says so.
    assert abs(rate["rate"]["value"] - 0.75) < 0.05  # failed pairs are dropped at random
    assert rate["rate"]["low"] < 0.75 < rate["rate"]["high"]
    no_key_in(tmp_path)
    assert KEY not in again.stdout + again.stderr + third.stdout + third.stderr


def _json(line: bytes) -> dict[str, object] | None:
    """A record, or None for a line that the kill cut off."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Twelve pairs, nine of which the system wins."""
    return make_set(tmp_path_factory.mktemp("small"), 12)


def test_both_wire_formats_agree(tmp_path: Path, small: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]):
    told = {}
    for judge, model in (("gemini", "gemini-2.5-pro"), ("openai", "some-audio-model")):
        with JudgeServer(key=KEY) as server:
            place = server.url if judge == "gemini" else server.openai_url
            command = arguments(server, small, tmp_path / judge, "--judge", judge, "--model", model)
            command[command.index("--base-url") + 1] = place
            assert main(command) == 0
        told[judge] = json.loads((tmp_path / judge / "judge.json").read_text(encoding="utf-8"))
        assert told[judge]["model"] == model and told[judge]["served"] == {model: 24}
    assert told["gemini"]["rates"][0]["rate"] == told["openai"]["rates"][0]["rate"]
    assert told["gemini"]["rates"][0]["rate"]["value"] == 0.75
    shown = capsys.readouterr().out
    assert "0.750 [" in shown and "same winner after the swap" in shown
    no_key_in(tmp_path)


def test_dry_run_asks_nothing_and_needs_no_key(tmp_path, small, capsys, monkeypatch):
    monkeypatch.delenv("GEMINI_API_KEY")
    with JudgeServer(key=KEY) as server:
        assert main(arguments(server, small, tmp_path / "out", "--dry-run")) == 0
        assert server.requests == []
    assert "24 calls to gemini-2.5-pro" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_missing_key_and_a_retired_model_name_the_setting(tmp_path, small, capsys, monkeypatch):
    with JudgeServer("always:404", key=KEY) as server:
        assert main(arguments(server, small, tmp_path / "retired")) == 2
        assert len(server.requests) == 1  # one call is enough to know
    assert "--model" in capsys.readouterr().err
    monkeypatch.delenv("GEMINI_API_KEY")
    with JudgeServer(key=KEY) as server:
        assert main(arguments(server, small, tmp_path / "no_key")) == 2
    assert "GEMINI_API_KEY" in capsys.readouterr().err


def test_another_served_model_is_refused_before_a_score(tmp_path, small, capsys):
    with JudgeServer(key=KEY, served="gemini-3.8-flash") as server:
        assert main(arguments(server, small, tmp_path / "out")) == 2
        assert len(server.requests) == 1
        error = capsys.readouterr().err
        assert "gemini-3.8-flash" in error and "--serve-check" in error
        assert not (tmp_path / "out" / "judge.json").exists()
        assert main(arguments(server, small, tmp_path / "out", "--serve-check", "gemini-3.8*")) == 0
    told = json.loads((tmp_path / "out" / "judge.json").read_text(encoding="utf-8"))
    assert told["served"] == {"gemini-3.8-flash": 24}


def test_a_budget_is_a_hard_stop(tmp_path, small, capsys):
    with JudgeServer(key=KEY) as server:
        assert main(arguments(server, small, tmp_path / "out", "--max-cost", "0.18")) == 1
        spent = sum(server.answered.values())
        assert 0 < spent < 24
    told = json.loads((tmp_path / "out" / "judge.json").read_text(encoding="utf-8"))
    assert "max-cost" in told["stopped"]
    assert "max-cost" in capsys.readouterr().out


def test_replay_and_stats_need_no_server(tmp_path, small, capsys):
    out = tmp_path / "out"
    with JudgeServer("random:0.3", key=KEY) as server:
        main(arguments(server, small, out))
    first = json.loads((out / "judge.json").read_text(encoding="utf-8"))
    before = (out / "log.jsonl").read_bytes()
    mine, theirs, texts = (str(path) for path in small)
    log = str(out / "log.jsonl")
    code = main(["judge", "replay", log, mine, "--baseline", theirs, "--data", texts, "--out", str(tmp_path / "again")])
    assert code == int(first["lost_pairs"] > 0)
    second = json.loads((tmp_path / "again" / "judge.json").read_text(encoding="utf-8"))
    assert second["rates"] == first["rates"] and second["position"] == first["position"]
    assert (out / "log.jsonl").read_bytes() == before
    assert main(["judge", "stats", str(out), "--json", str(tmp_path / "stats.json")]) == 0
    (stats,) = json.loads((tmp_path / "stats.json").read_text(encoding="utf-8"))
    assert stats["rates"] == first["rates"]
    assert main(["judge", "stats", str(tmp_path / "nowhere")]) == 2
    assert "judge run" in capsys.readouterr().err


def test_validate_with_people(tmp_path, small, capsys):
    """People who agree with the server's rule but once: the agreement is known in advance."""
    from jwb_dh_v1.judge.people.ratings import Rating, write_ratings

    with JudgeServer(key=KEY) as server:
        assert main(arguments(server, small, tmp_path / "out")) == 0
    ratings = [
        Rating(f"{i:04d}", "mine", "theirs", "ab", rater, "a" if (i % 4 < 3) != (i == 0) else "b")
        for i in range(12)
        for rater in ("r1", "r2", "r3")
    ]
    write_ratings(tmp_path / "ratings.csv", ratings)
    command = ["judge", "validate", str(tmp_path / "out"), str(tmp_path / "ratings.csv")]
    assert main([*command, "--json", str(tmp_path / "v.json")]) == 0
    (told,) = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert told["majority"]["raw"]["value"] == pytest.approx(11 / 12, abs=1e-12)
    assert "0.917" in capsys.readouterr().out


def test_wer_of_words_heard_elsewhere(tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one small step for man", encoding="utf-8")
    (texts / "b.txt").write_text("it was", encoding="utf-8")
    (tmp_path / "heard.tsv").write_text("a\tone small step for a man\nb\tit is\n", encoding="utf-8")
    command = ["wer", "--heard", str(tmp_path / "heard.tsv"), "--data", str(texts), "--profile", "none"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "0.2857" in shown  # micro: 2 errors of 7 words
    assert "0.3500" in shown  # macro: (1/5 + 1/2) / 2
    assert main(["wer", "--heard", str(tmp_path / "no"), "--data", str(texts)]) == 2
