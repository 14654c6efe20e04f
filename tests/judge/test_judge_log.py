"""The append-only log: what is written stays, whatever is torn, full, or written at once."""

import json
import os
import subprocess
import sys
import threading

import pytest

from jwb_dh_v1.errors import AlreadyRunning, SetupError
from jwb_dh_v1.judge import log as log_module
from jwb_dh_v1.judge.log import Log, digest, records, scrub

# --- the log ---------------------------------------------------------------------------------------------------------


def line(key="k", status="ok", source="judge", sample="s", **more):
    return {"key": key, "status": status, "source": source, "system": "A", "sample_id": sample, **more}


def test_what_is_appended_is_found_again(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    with Log(path) as log:
        for i in range(50):
            log.append(line(f"k{i}", raw_text="ü\u2028\ud800" * i, n=i))
        assert log.find("k7")["n"] == 7 and log.find("nothing") is None
    with Log(path) as log:
        assert len(log) == 50
        assert all(log.find(f"k{i}")["raw_text"] == "ü\u2028\ud800" * i for i in range(50))
        assert log.holds(line("k3")) and not log.holds(line("k3", sample="other"))
    assert [one["n"] for one in records(path)] == list(range(50))
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 50


def test_an_api_error_is_asked_again_and_the_first_answer_stays(tmp_path):
    with Log(tmp_path / "log") as log:
        log.append(line(status="api_error"))
        assert log.find("k") is None and len(log) == 0
        log.append(line(status="blocked", n=1))
        log.append(line(status="api_error"))
        log.append(line(status="ok", n=2))
        log.append(line("rule key", source="rule"))
        assert log.find("k")["n"] == 1 and log.find("rule key") is None and len(log) == 1
    with Log(tmp_path / "log") as log:
        assert log.find("k")["n"] == 1 and log.holds(line("rule key"))


def test_each_line_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    path, sizes, real = tmp_path / "log", [], os.fsync

    def watched(handle):
        real(handle)
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
            sizes.append(path.stat().st_size)

    monkeypatch.setattr(log_module.os, "fsync", watched)
    with Log(path) as log:
        for i in range(20):
            log.append(line(f"k{i}"))
            assert len(sizes) == i + 1 and sizes[-1] == path.stat().st_size
    assert len(set(sizes)) == 20


def test_threads_do_not_mix_their_lines(tmp_path):
    with Log(tmp_path / "log") as log:

        def work(name):
            for i in range(40):
                log.append(line(f"{name}-{i}", raw_text=name * 3000))
                assert log.find(f"{name}-{i}")["raw_text"] == name * 3000

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(log) == 320
    assert len(list(records(tmp_path / "log"))) == 320


def test_a_line_torn_at_any_byte_costs_that_line_only(tmp_path):
    path = tmp_path / "log"
    with Log(path) as log:
        log.append(line("one"))
        start = path.stat().st_size
        log.append(line("two", raw_text='{"winner": "1"}\n' * 3))
    whole = path.read_bytes()
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = ["one", "two"] if end >= len(whole) - 1 else ["one"]
        assert [one["key"] for one in records(path)] == kept
        with Log(path, write=False) as log:
            assert len(log) == len(kept) and all(log.find(key)["key"] == key for key in kept)
        assert path.read_bytes() == whole[:end]
        with Log(path) as log:
            assert len(log) == len(kept)
            log.append(line("three"))
            assert log.find("three")
        assert [one["key"] for one in records(path)] == [*kept, "three"]
        aside = path.with_name("log.torn")
        lost = whole[start:end] if start < end < len(whole) - 1 else None
        assert (aside.read_bytes() == lost + b"\n") if lost else not aside.exists()
        aside.unlink(missing_ok=True)


def test_a_long_torn_line_is_moved_whole(tmp_path):
    path = tmp_path / "log"
    with Log(path) as log:
        log.append(line("one"))
    torn = b'{"key": "' + b"x" * 200_000
    path.write_bytes(path.read_bytes() + torn)
    with Log(path) as log:
        assert len(log) == 1
    assert (tmp_path / "log.torn").read_bytes() == torn + b"\n"
    path.write_bytes(torn)  # and nothing else
    with Log(path) as log:
        assert len(log) == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "bad", [b"{", b"null", b"[]", b'{"key": "k"}', b"\x00" * 40, b"\xff\xfe", b"", b'{"key":"k","status":"ok"}']
)
def test_a_bad_line_in_the_middle_is_named(tmp_path, bad):
    path = tmp_path / "log"
    with Log(path) as log:
        log.append(line("one"))
        log.append(line("two"))
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + bad + b"\n" + second)
    for attempt in (lambda: Log(path), lambda: Log(path, write=False), lambda: list(records(path))):
        with pytest.raises(SetupError, match=r"Line 2 of .*log is no record"):
            attempt()
    assert path.read_bytes() == first + bad + b"\n" + second
    path.write_bytes(first)
    with Log(path) as log:  # the failed openings left no lock behind
        assert len(log) == 1


def test_a_log_of_another_format_is_refused(tmp_path):
    (tmp_path / "log").write_text(json.dumps({**line(), "format": 99}) + "\n")
    with pytest.raises(SetupError, match="another version"):
        Log(tmp_path / "log")


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "log"
    code = "import sys; from jwb_dh_v1.judge.log import Log; Log(sys.argv[1])"
    with Log(path) as log:
        log.append(line())
        with pytest.raises(AlreadyRunning, match="Another process"):
            Log(path)
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert done.returncode == 1 and "AlreadyRunning" in done.stderr
        with Log(path, write=False) as reader:
            assert len(reader) == 1
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0


def test_reading_makes_no_file(tmp_path):
    with Log(tmp_path / "none", write=False) as log:
        assert len(log) == 0 and log.find("k") is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(SetupError, match="cannot be read"):
        list(records(tmp_path / "none"))


def test_a_place_that_is_no_file_is_a_typed_error(tmp_path):
    with pytest.raises(SetupError, match="cannot be opened"):
        Log(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be opened"):
        Log(tmp_path / "file" / "log")


FULL = """
import resource, sys
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.log import Log
log, n = Log(sys.argv[1]), 0
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    while True:
        log.append({"key": f"k{n}", "status": "ok", "source": "judge", "raw_text": "x" * 333})
        n += 1
except SetupError as error:
    print(n, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs file size limits")
def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    count, message = done.stdout.split(" ", 1)
    assert "cannot be written" in message and int(count) > 5
    assert path.read_bytes().endswith(b"}\n") and len(list(records(path))) == int(count)


def test_keys_of_the_environment_are_never_written(tmp_path, monkeypatch):
    secret = "AIzaFake/Key+1234567890"
    monkeypatch.setenv("SOME_API_KEY", secret + "\n")
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    monkeypatch.setenv("HF_TOKEN", "hf_fake_token_0123456789")
    with Log(tmp_path / "log") as log:
        wrote = log.append(
            line(
                raw_text=f"url?key={secret}&x EMPTY",
                reason="AIzaFake%2FKey%2B1234567890",
                reasoning={"a": [{secret: "hf_fake_token_0123456789"}]},
            )
        )
    content = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()).decode()
    assert "AIzaFake" not in content and "hf_fake" not in content
    assert wrote["raw_text"] == "url?key=[key]&x EMPTY" and wrote["reasoning"] == {"a": [{"[key]": "[key]"}]}
    assert scrub(7) == 7 and scrub("Tokens and keys") == "Tokens and keys"


def test_a_digest_does_not_hang_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1}) != digest({"a": 1, "b": [None, 2]})
