"""Decoding in a process of its own: the same bytes, and files that hang or crash it, for real."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from media import moving, tone, write_mp4
from test_bad_input import cases

from jwb_dh_v1 import Clip, Sample, errors, score
from jwb_dh_v1.media import clip as clip_module
from jwb_dh_v1.media import worker as decoding
from jwb_dh_v1.media.worker import Decoder
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.scoring.executors import Execution
from jwb_dh_v1.scoring.plan import make_plan
from jwb_dh_v1.scoring.shard import score_shard

pytestmark = pytest.mark.skipif(not Decoder.here(), reason="no descriptors can be sent here")
PIXELS = ("ssim", "psnr")  # of paper/1, without weights
WAIT = 60  # seconds; what is waited for takes a fraction of one on an idle machine
SHORT = 10.0  # patience in tests of hangs: whole clips of these sizes take 0.05 s


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    for number in range(4):
        write_mp4(root / f"{number}.mp4", moving(40, 64, 48, seed=number), 25, tone(1.6), preset="ultrafast")
    os.mkfifo(root / "fifo.mp4")  # whoever opens it for reading waits for a writer, for ever
    return root


def samples(folder, *names):
    return [Sample(name, Clip(folder / f"{name}.mp4"), Clip(folder / "0.mp4")) for name in names]


def outcome(read):
    """What reading gives: a value, or the error's type and text."""
    try:
        found = read()
    except Exception as error:  # noqa: BLE001 - all of them are compared
        found = errors.typed(error)
        return type(found).__name__, str(found)
    if isinstance(found, np.ndarray):
        return found.dtype.str, found.shape, found.tobytes()
    return found if found is None or isinstance(found, str) else asdict(found)


def same(first, second):
    if isinstance(first, dict) and "samples" in first:
        return all(np.array_equal(first[key], second[key], equal_nan=True) for key in first)
    return first == second


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true):
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "this never happens"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------ the same bytes


@pytest.fixture(scope="module")
def weird(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    write_mp4(root / "reference.mp4", moving(), 25, tone(1.2))
    return cases(root, root / "reference.mp4")


def test_the_child_reads_as_this_process_does(weird):
    read = {
        "info": lambda clip: clip.info,
        "sha256": lambda clip: clip.sha256,
        "audio": lambda clip: clip.audio,
        "frames": lambda clip: clip.frames,
    }
    kinds = set()
    with Decoder() as decoder:
        for name, (path, _, _) in weird.items():
            here, there = Clip(path), Clip(path)
            there.decode_in_worker(decoder)
            for what, of in read.items():
                expected = outcome(lambda of=of, here=here: of(here))
                assert same(outcome(lambda of=of, there=there: of(there)), expected), (name, what)
                kinds.add(expected[0] if isinstance(expected, tuple) else type(expected).__name__)
            there.decode_in_worker(None)
    # The comparison has seen each kind of value and of trouble.
    assert kinds >= {"dict", "str", "|u1", "Unreadable", "NotAVideo", "Truncated", "NoFrames", "VariableFrameRate",
                     "BadAudio"}  # fmt: skip


def test_results_of_damaged_and_whole_clips_have_the_same_bytes(weird, tmp_path):
    names = ("missing", "truncated5", "text", "one_frame", "variable_rate", "odd_size", "nan_audio", "lost_reference")
    cut = [Sample(name, Clip(weird[name][0]), Clip(weird[name][1])) for name in names]
    whole = [Sample(f"{n}", Clip(weird["no_audio"][0].read_bytes()), Clip(weird["non_ascii"][0])) for n in range(2)]
    written = {}
    for isolate in (False, True):
        out = tmp_path / str(isolate)
        score(
            [*whole, *cut], PIXELS, ["body"], protocol="paper", out=out, name="x", execution=Execution(isolate=isolate)
        )
        written[isolate] = [(out / file).read_bytes() for file in ("results.json", "samples.parquet")]
    assert written[True] == written[False]


@pytest.mark.parametrize("form", [Path, Path.read_bytes], ids=["path", "bytes"])
def test_long_clips_come_in_chunks(folder, monkeypatch, form):
    expected = Clip(folder / "1.mp4").frames
    monkeypatch.setattr(clip_module, "FRAME_BUDGET", 0)
    with Decoder() as decoder:
        first, second = Clip(form(folder / "1.mp4")), Clip(form(folder / "1.mp4"))
        for clip in (first, second):
            clip.decode_in_worker(decoder)
        assert np.array_equal(next(first.chunks(3)), expected[:3])  # a reader that goes away early
        pairs = list(zip(first.chunks(7), second.chunks(7), strict=True))  # two that take turns
        for chunks in zip(*pairs, strict=True):
            assert [len(chunk) for chunk in chunks] == [7, 7, 7, 7, 7, 5]
            assert np.array_equal(np.concatenate(chunks), expected)
        assert decoder.answered["frames"] == 0


def test_frames_are_memory_as_any_other(folder):
    with Decoder() as decoder:
        clip = Clip(folder / "1.mp4")
        clip.decode_in_worker(decoder)
        frames = clip.frames
        frames[:] = 0
        clip.release()
        assert clip.frames.any()
    assert not frames.any()  # still there without the child


@pytest.mark.teaser
def test_the_teaser_scores_the_same(teaser_dir, systems_dir, tmp_path):
    from jwb_dh_v1.dataset.pairs import pair
    from jwb_dh_v1.networks.weights import resolve_all

    metrics = ["ssim", "dynamic_degree"]
    plan = make_plan("lite", metrics, ["body"])
    models = NetworkPool(resolve_all(plan.weights), "cpu")
    written = {}
    for isolate in (False, True):
        out = tmp_path / str(isolate)
        drawn = [s for s, _ in zip(pair(systems_dir / "swapped", teaser_dir), range(2), strict=False)]
        call = {"protocol": "lite", "models": models, "out": out, "name": "x", "execution": Execution(isolate=isolate)}
        score(drawn, metrics, ["body"], **call)
        written[isolate] = [(out / file).read_bytes() for file in ("results.json", "samples.parquet")]
    assert written[True] == written[False]


# ------------------------------------------------------------------------------------------------------- hangs, crashes


def rows_of(given, decoder=None):
    result = score_shard(given, make_plan("paper", PIXELS, ["body"]), NetworkPool(), decoder=decoder)
    return {(row.sample_id, row.metric): row for row in result.rows}


def check_only(rows, expected, error, text):
    """All rows are as expected but those of the samples on the FIFO, which are typed and say what happened."""
    assert rows.keys() >= expected.keys()
    for (name, metric), row in rows.items():
        if name.startswith("bad"):
            assert (row.status, row.error) == ("failed", error)
            assert text in row.message and "fifo.mp4" in row.message
        else:
            assert row == expected[name, metric]


def with_bad(folder):
    """A FIFO as generated clip, and as reference, among whole clips."""
    fifo = folder / "fifo.mp4"
    return [
        *samples(folder, "1", "2"),
        Sample("bad generated", Clip(fifo), Clip(folder / "0.mp4")),
        Sample("bad reference", Clip(folder / "0.mp4"), Clip(fifo)),
        *samples(folder, "3"),
    ]


@pytest.mark.teaser
def test_a_clip_that_hangs_fails_alone(folder, monkeypatch):
    monkeypatch.setenv("JWB_DECODE_TIMEOUT", str(SHORT))
    expected = rows_of(samples(folder, "1", "2", "3"))
    assert all(row.status == "ok" for row in expected.values())
    held, before = shared_memory(), len(list(Path("/proc/self/fd").iterdir()))  # in this order: the first collects
    begun = time.monotonic()
    with Decoder() as decoder:
        rows = rows_of(with_bad(folder), decoder)
        last = decoder.pid
    # Each of the two was waited for once, and not again for what else was to be fetched of it.
    assert 2 * SHORT <= time.monotonic() - begun < 2 * SHORT + WAIT
    check_only(rows, expected, "DecoderHung", "no progress in 10 s while its facts were read")
    assert rows["bad reference", "ssim"].message.startswith("the reference: ")
    assert not alive(last)
    assert (
        shared_memory() == held and len(list(Path("/proc/self/fd").iterdir())) == before
    )  # it has no name, and is unmapped


def shared_memory():
    """Mappings of frames that a decoder sent; clips of other tests may still hold some."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("memfd:jwb-dh")


@contextmanager
def killing(decoder, name, number=signal.SIGSEGV):
    """While inside, each child that is at this file gets a signal, as a fault in a decoder's code would give it."""
    over = threading.Event()
    killed = []

    def watch():
        while not over.wait(0.005):
            waiting, pid = list(decoder._waiting), decoder.pid
            if decoder._ready and pid not in {None, *killed} and waiting and waiting[0].clip.name == name:
                os.kill(pid, number)
                killed.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_a_clip_that_crashes_the_decoder_fails_alone(folder):
    expected = rows_of(samples(folder, "1", "2", "3"))
    with Decoder() as decoder, killing(decoder, "fifo.mp4") as killed:
        rows = rows_of(with_bad(folder), decoder)
    check_only(rows, expected, "DecoderCrashed", "crashed twice (SIGSEGV) while its facts were read")
    assert len(killed) == 4  # each clip twice: one death may be the memory's fault, or another clip's
    assert not any(alive(pid) for pid in killed)


def test_one_death_is_forgiven(folder, monkeypatch):
    expected = Clip(folder / "2.mp4").frames
    monkeypatch.setattr(clip_module, "FRAME_BUDGET", 0)
    with Decoder() as decoder:
        clip = Clip(folder / "2.mp4")
        clip.decode_in_worker(decoder)
        found = []
        for number, chunk in enumerate(clip.chunks(4)):
            found.append(chunk)
            if number in {2, 6}:  # two chunks, one death each
                os.kill(decoder.pid, signal.SIGKILL)
        assert np.array_equal(np.concatenate(found), expected)


def test_a_child_that_stands_still_is_ended(folder):
    with Decoder(patience=SHORT) as decoder:
        stopped, next_one = Clip(folder / "1.mp4"), Clip(folder / "2.mp4")
        for clip in (stopped, next_one):
            clip.decode_in_worker(decoder)
        assert len(stopped) == 40
        first = decoder.pid
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(errors.DecoderHung, match=r"1\.mp4: no progress in 10 s while its frames were read"):
            _ = stopped.frames
        begun = time.monotonic()
        with pytest.raises(errors.DecoderHung):  # remembered
            _ = stopped.frames
        assert time.monotonic() - begun < SHORT / 2
        assert not alive(first)
        assert np.array_equal(next_one.frames, Clip(folder / "2.mp4").frames)
        assert decoder.pid != first


def test_a_child_that_cannot_start_stops_the_run(folder, monkeypatch):
    clip = Clip(folder / "1.mp4")
    for executable, reason in [(shutil.which("false"), "exit code 1"), ("/nowhere/python", "cannot be started")]:
        monkeypatch.setattr(decoding, "get_executable", lambda executable=executable: executable)
        with Decoder() as decoder:
            clip.decode_in_worker(decoder)
            with pytest.raises(errors.SetupError, match=reason):
                _ = clip.info
            clip.decode_in_worker(None)


@pytest.mark.parametrize("given", ["0", "-1", "soon", "inf", "nan"])
def test_a_patience_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("JWB_DECODE_TIMEOUT", given)
    with pytest.raises(errors.SetupError, match="JWB_DECODE_TIMEOUT"):
        Decoder()


# --------------------------------------------------------------------------------------------------- ahead, once, gone


def test_the_next_sample_is_decoded_meanwhile_and_each_clip_once(folder, monkeypatch):
    drawn, waiting = [], []

    def stream():
        for sample in [replace(s, reference=Clip(folder / "0.mp4")) for s in samples(folder, "0", "1", "2", "3")]:
            drawn.append(sample.id)
            yield sample

    with Decoder() as decoder:
        for sample in decoder.ahead(stream()):
            waiting.append([(r.clip.name, r.facts["op"]) for r in decoder._waiting])
            assert len(drawn) == min(int(sample.id) + 2, 4)  # one is read ahead, no more
            for clip in (sample.generated, sample.reference):
                _ = clip.info, clip.sha256, clip.frames
        assert decoder.answered == {"info": 8, "sha256": 8, "frames": 8}
    # The first sample shows what is looked at: sound is not. From then on each next one is asked for in advance.
    ops = ("info", "sha256", "frames")
    ahead = [[(f"{n}.mp4", op) for op in ops] + [("0.mp4", op) for op in ops] for n in range(4)]
    assert waiting[0] == []
    assert waiting[1] == ahead[1] + ahead[2]
    assert waiting[2] == ahead[2] + ahead[3]
    assert waiting[3] == ahead[3]


def test_signals_to_the_group_are_not_for_the_child(folder):
    with Decoder() as decoder:
        clip = Clip(folder / "1.mp4")
        clip.decode_in_worker(decoder)
        before = clip.frames
        pid = decoder.pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        clip.release()
        assert np.array_equal(clip.frames, before)
        assert decoder.pid == pid
        assert os.getsid(pid) == pid  # Ctrl-C in a terminal goes elsewhere
    assert not alive(pid)


@pytest.mark.parametrize("hanging", [False, True])
def test_a_killed_run_leaves_no_process(folder, hanging):
    """Also of a script from standard input, which no child could import again."""
    script = f"""
import time
from jwb_dh_v1 import Clip
from jwb_dh_v1.media.worker import Decoder
decoder = Decoder()
clip, fifo = Clip({str(folder / "1.mp4")!r}), Clip({str(folder / "fifo.mp4")!r})
clip.decode_in_worker(decoder)
fifo.decode_in_worker(decoder)
print(len(clip), decoder.pid, flush=True)
if {hanging}:
    len(fifo)
time.sleep({WAIT})
"""
    process = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdin.write(script)
        process.stdin.close()
        frames, pid = map(int, process.stdout.readline().split())
        assert frames == 40
        assert alive(pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    until(lambda: not alive(pid))
