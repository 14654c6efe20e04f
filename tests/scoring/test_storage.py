"""Runs written to object stores: the same bytes as in a local folder, resumed, merged, and told when there are two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from media import moving, write_mp4

from jwb_dh_v1 import Clip, Result, Sample, score
from jwb_dh_v1 import files as storage
from jwb_dh_v1.cli import main
from jwb_dh_v1.errors import AlreadyRunning, DataNotFound, MissingPackage, NotWritable, PlanMismatch, SetupError
from jwb_dh_v1.files import LocalFolder, RemoteFolder, below, folder_at, is_url
from jwb_dh_v1.scoring import run_folder
from jwb_dh_v1.scoring.executors import Execution, MissingShards
from jwb_dh_v1.scoring.run import merge

COUNT, SIZE = 8, 2
FILES = ("results.json", "samples.parquet")
CALL: dict[str, Any] = {"metrics": ("ssim", "psnr"), "regions": ("body",), "protocol": "paper",
                        "execution": Execution(shard_size=SIZE), "allow_failures": 1}  # fmt: skip
COMMAND = ["--protocol", "paper", "--regions", "body", "--metrics", "ssim", "psnr", "--shard-size", str(SIZE),
           "--allow-failures", "1"]  # fmt: skip
BUCKET = "runs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Generated and real clips; one generated file is broken."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(COUNT):
        frames = moving(8, 160, 120, seed=number)
        for side in ("real", "generated"):
            (root / side).mkdir(exist_ok=True)
        write_mp4(root / "real" / f"{number:02d}.mp4", frames, 8)
        write_mp4(root / "generated" / f"{number:02d}.mp4", frames, 8, crf=20 + number)
    (root / "generated" / "03.mp4").write_bytes(b"broken")
    return root / "generated", root / "real"


def samples(folders: tuple[Path, Path]) -> list[Sample]:
    generated, real = folders
    return [Sample(f"{n:02d}", Clip(generated / f"{n:02d}.mp4"), Clip(real / f"{n:02d}.mp4"), person_id=f"p{n % 5}")
            for n in range(COUNT)]  # fmt: skip


@pytest.fixture(scope="module")
def whole(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a local run, in a folder named `run`."""
    out = tmp_path_factory.mktemp("whole") / "run"
    score(samples(folders), out=out, **CALL)
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture
def memory() -> str:
    """A new place in this process's memory, whose last part is `run`."""
    return f"memory://{uuid.uuid4().hex}/run"


def outputs(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()  # other processes write there
    return {name: fs.cat_file(f"{root}/{name}") for name in FILES}


def files(url: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return sorted(path.partition(root.strip("/"))[2].strip("/") for path in fs.find(root))


def test_places_are_told_apart(tmp_path: Path) -> None:
    assert [is_url(out) for out in ("runs/a", "/a/b", "C:\\runs", Path("s3://a"), "a:b", "")] == [False] * 6
    assert all(
        is_url(out) for out in ("s3://b/r", "hf://datasets/a/b", "memory://x", "file:///x", "simplecache::s3://b")
    )
    assert (below("s3://b/r/", "x"), below("r", "x")) == ("s3://b/r/x", Path("r/x"))
    here = folder_at(f"file://{tmp_path}")
    assert isinstance(here, LocalFolder) and here.path == tmp_path
    assert (folder_at("memory://a/run/").name, folder_at("memory://a/run/").path) == ("run", None)
    with pytest.raises(SetupError, match="nothing://x is no place to write to: Protocol not known"):
        folder_at("nothing://x")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path]) -> None:
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(MissingPackage, match=r"s3:// needs one more package: Install s3fs"):
        score(samples(folders), out="s3://bucket/run", **CALL)


def test_results_are_read_where_they_lie(
    folders: tuple[Path, Path], whole: dict[str, bytes], memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    score(samples(folders), out=memory, **CALL)
    found = Result.load(memory)
    assert found.folder is None and found.to_json().encode() == whole["results.json"]
    assert found.samples.num_rows == 2 * COUNT and sum(row.status == "failed" for row in found.rows()) == 2
    assert main(["report", memory]) == 0
    assert f"Report: {memory}/report.html" in capsys.readouterr().out
    fs, root = fsspec.core.url_to_fs(memory)
    assert b"</html>" in fs.cat_file(f"{root}/report.html")
    assert main(["export", memory, "--format", "csv"]) == 0
    assert "psnr" in capsys.readouterr().out
    fs.rm_file(f"{root}/samples.parquet")
    with pytest.raises(SetupError, match=r"run are damaged \(samples.parquet is missing"):
        Result.load(memory)
    with pytest.raises(DataNotFound, match=r"memory://nowhere/run holds no results.json"):
        Result.load("memory://nowhere/run")


def test_memory_gives_the_local_bytes_and_resumes(
    folders: tuple[Path, Path], whole: dict[str, bytes], memory: str
) -> None:
    result = score(samples(folders), out=memory, **CALL)
    shards = [f"shards/{n:06d}.npz" for n in range(COUNT // SIZE)]
    assert files(memory) == sorted([*FILES, "plan.json", "timings.json", *shards])  # and no claim is left
    assert outputs(memory) == whole
    assert (result.folder, result.name, result["psnr", "body"].n) == (None, "run", COUNT - 1)
    fs, root = fsspec.core.url_to_fs(memory)
    fs.rm_file(f"{root}/shards/000002.npz")
    fs.pipe_file(f"{root}/shards/000001.npz", fs.cat_file(f"{root}/shards/000001.npz")[:-10])  # half an object
    kept = fs.cat_file(f"{root}/shards/000000.npz")
    read: list[int] = []

    class Watched(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    ids = json.loads(whole["results.json"])["plan"]["data"]
    score(Watched(samples(folders)), out=memory, data=ids, **CALL)
    assert read == [2, 3, 4, 5]
    assert outputs(memory) == whole and fs.cat_file(f"{root}/shards/000000.npz") == kept
    with pytest.raises(PlanMismatch, match=r"memory://.* holds another plan \(shard_size: 2 there, 3 now\)"):
        score(samples(folders), out=memory, **{**CALL, "execution": Execution(shard_size=3)})
    fs.pipe_file(f"{root}/plan.json", fs.cat_file(f"{root}/plan.json").replace(b"paper", b"paxer"))
    with pytest.raises(PlanMismatch, match=r"plan\.json is damaged, and nothing else tells"):
        score(samples(folders), out=memory, **CALL)
    fs.rm_file(f"{root}/plan.json")
    with pytest.raises(PlanMismatch, match=r"plan\.json is missing, and nothing else tells"):
        score(samples(folders), out=memory, **CALL)


def test_ranges_in_memory_add_up(folders: tuple[Path, Path], whole: dict[str, bytes], memory: str) -> None:
    with pytest.raises(DataNotFound, match="holds no run in ranges"):
        merge(memory)
    score(samples(folders), out=memory, **{**CALL, "execution": Execution(shards=(2, 9), shard_size=SIZE)})
    with pytest.raises(MissingShards, match=r"2 shards in memory://.* are missing or damaged: 0:2\."):
        merge(memory)
    score(samples(folders), out=memory, **{**CALL, "execution": Execution(shards=(0, 2), shard_size=SIZE)})
    with pytest.raises(PlanMismatch, match="begun with name 'run'; here it is 'other'"):
        score(
            samples(folders),
            out=memory,
            name="other",
            **{**CALL, "execution": Execution(shards=(0, 2), shard_size=SIZE)},
        )
    assert merge(memory, allow_failures=1).complete
    assert outputs(memory) == whole


def test_a_second_run_is_told(folders: tuple[Path, Path], memory: str) -> None:
    class Nested(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            told = rf"shards 1:3 of memory://.* It is .*process {os.getpid()}, seen \d+ s ago; if it is over, delete"
            with pytest.raises(AlreadyRunning, match=told):
                score(
                    samples(folders),
                    out=memory,
                    data="fixed",
                    **{**CALL, "execution": Execution(shards=(2, 4), shard_size=SIZE)},
                )
            with pytest.raises(AlreadyRunning):
                score(samples(folders), out=memory, data="fixed", **CALL)
            with pytest.raises(AlreadyRunning):
                merge(memory)
            score(
                samples(folders),
                out=memory,
                data="fixed",
                **{**CALL, "execution": Execution(shards=(3, 4), shard_size=SIZE)},
            )  # another one's
            return super().__getitem__(index)

    score(
        Nested(samples(folders)),
        out=memory,
        data="fixed",
        **{**CALL, "execution": Execution(shards=(1, 3), shard_size=SIZE)},
    )
    score(
        samples(folders), out=memory, data="fixed", **{**CALL, "execution": Execution(shards=(0, 4), shard_size=SIZE)}
    )  # what is over holds nothing
    assert merge(memory, allow_failures=1)["psnr", "body"].n == COUNT - 1


def test_claims_end_with_their_process_or_their_time(memory: str) -> None:
    folder = RemoteFolder(memory)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = {"host": "here", "machine": run_folder._machine(), "process": os.getpid(), "seen": time.time()}
    claims = {
        "process over": ({**mine, "process": ended.pid}, True),
        "mine": (mine, False),
        "elsewhere": ({**mine, "machine": "another", "process": ended.pid}, False),
        "elsewhere, long ago": ({**mine, "machine": "another", "seen": time.time() - run_folder.EXPIRES - 1}, True),
        "a clock ahead": ({**mine, "machine": "another", "seen": time.time() + 10**6}, False),
    }
    for why, (claim, over) in claims.items():
        folder.write(".claims/0-4-x.json", json.dumps(claim).encode())
        with run_folder.lock_shards(folder, range(4, 9)):  # does not touch it
            pass
        assert len(folder.names(".claims")) == 1, why
        if over:
            with run_folder.lock_shards(folder, range(3, 5)):
                pass
            assert folder.names(".claims") == [], why
        else:
            with pytest.raises(AlreadyRunning), run_folder.lock_shards(folder, range(3, 5)):
                pass
            assert folder.names(".claims") == ["0-4-x.json"], why


def test_a_claim_is_renewed(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "BEAT", 0.02)
    folder = RemoteFolder(memory)
    with run_folder.lock_shards(folder, range(2)):
        (name,) = folder.names(".claims")
        seen = set()
        end = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < end:
            file = folder.open(f".claims/{name}")
            assert file is not None
            seen.add(json.loads(file.read())["seen"])
            time.sleep(0.01)
        assert len(seen) == 3
    time.sleep(0.1)
    assert folder.names(".claims") == []  # no late renewal


def test_of_two_that_start_together_not_both_go_on(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have laid down their claim before either looks: the worst case."""
    import threading

    together = threading.Barrier(2, timeout=60)
    names = RemoteFolder.names

    def after_both(self: RemoteFolder, folder: str) -> list[str]:
        together.wait()
        found = names(self, folder)
        together.wait()
        return found

    monkeypatch.setattr(RemoteFolder, "names", after_both)
    ended: list[str] = []

    def start() -> None:
        try:
            with run_folder.lock_shards(RemoteFolder(memory), range(5)):
                ended.append("went on")
        except AlreadyRunning:
            ended.append("told")

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 2 and "told" in ended  # the other one is told, too, unless the first has left by then


class Failing:
    """A store of which each operation fails so many times."""

    def __init__(self, url: str, times: int, error: Exception) -> None:
        self.inner, self.times, self.error, self.calls = RemoteFolder(url).fs, times, error, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls <= self.times:
                raise self.error
            return getattr(self.inner, name)(*args, **kwargs)

        return call


def test_a_failing_store_is_tried_again_and_then_told(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0, 0.0))
    folder = RemoteFolder(memory)
    folder.fs = Failing(memory, 3, OSError("slow down"))
    folder.write("a", b"1")
    assert folder.fs.calls == 4
    folder.fs = Failing(memory, 99, OSError("slow down"))
    with pytest.raises(NotWritable, match=r"memory://.*/run/b cannot be written: OSError: slow down"):
        folder.write("b", b"1")
    with pytest.raises(SetupError, match=r"/run/a cannot be read: OSError: slow down"):
        folder.open("a")  # not taken for absent: all would be scored again
    folder.fs = Failing(memory, 99, PermissionError("no"))
    with pytest.raises(NotWritable, match="PermissionError: no"):
        folder.write("b", b"1")
    assert folder.fs.calls == 1  # in vain to try again


@pytest.mark.teaser
def test_the_command_line_writes_its_report_there_too(
    folders: tuple[Path, Path], memory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    generated, real = map(str, folders)
    assert main(["score", generated, "--data", real, "--out", memory, *COMMAND]) == 0
    assert "report.html" in files(memory) and f"{memory}/results.json" in capsys.readouterr().out.replace("\n", "")
    both = f"{memory}/both"
    assert main(["score", generated, real, "--data", real, "--out", both, *COMMAND, "--no-report"]) == 0
    assert {"report.html", "generated/results.json", "real/results.json"} <= set(files(both))
    parts = f"{memory}/parts"
    for numbers in ("0:2", "2:"):
        assert main(["score", generated, "--data", real, "--out", parts, *COMMAND, "--shards", numbers]) == 0
    assert main(["merge", parts, "--allow-failures", "1"]) == 0
    assert "report.html" in files(parts)
    assert list(tmp_path.iterdir()) == []  # nothing went to a folder named `memory:`


# ------------------------------------------------------------------------------------------- a real server on loopback


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server on loopback; the environment in which its clients find it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (pip install s3fs)")
    server = pytest.importorskip("moto.server", reason='moto is not installed (pip install "moto[server]")')
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    env = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
           "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET)
        yield env
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        running.stop()


def start(folders: tuple[Path, Path], out: str) -> subprocess.Popen[str]:
    generated, real = map(str, folders)
    command = ["score", generated, "--data", real, "--out", out, *COMMAND, "--no-report"]
    program = f"import sys; sys.path[:0] = {sys.path!r}; from jwb_dh_v1.cli import main; sys.exit(main({command!r}))"
    return subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "HF_HUB_OFFLINE": "1"}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


@pytest.mark.slow
def test_s3_killed_in_the_middle_and_resumed(folders: tuple[Path, Path], s3: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL after the first shard that lies in the bucket; the next run finds the claim of a dead process."""
    local = start(folders, str(tmp_path / "run"))
    assert local.communicate(timeout=300)[0] is not None and local.returncode == 0
    out = f"s3://{BUCKET}/some/run"
    process = start(folders, out)
    end = time.monotonic() + 300
    while process.poll() is None and not any("shards/" in name for name in files(out)) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = files(out)
    assert 0 < sum("shards/" in name for name in left) < COUNT // SIZE and "results.json" not in left
    assert sum(".claims/" in name for name in left) == 1
    fs, root = fsspec.core.url_to_fs(out)
    before = {name: fs.info(f"{root}/{name}")["LastModified"] for name in left if "shards/" in name}
    again = start(folders, out)
    text, _ = again.communicate(timeout=300)
    assert again.returncode == 0, text
    assert outputs(out) == {name: (tmp_path / "run" / name).read_bytes() for name in FILES}
    fs.invalidate_cache()
    assert {name: fs.info(f"{root}/{name}")["LastModified"] for name in before} == before  # not scored twice
    assert not any(".claims/" in name for name in files(out))


def test_s3_creates_once_and_tells_a_missing_bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES", ())
    folder = RemoteFolder(f"s3://{BUCKET}/facts")
    for content in (b"first", b"second"):
        folder.create("plan.json", content)
    file = folder.open("plan.json")
    assert file is not None and file.read() == b"first"
    assert folder.open("nothing") is None and folder.names("nothing") == []
    with pytest.raises(NotWritable, match=r"s3://no-such-bucket/run/.* cannot be written"):
        RemoteFolder("s3://no-such-bucket/run").write("plan.json", b"")
    assert not fsspec.filesystem("s3").exists("no-such-bucket")
