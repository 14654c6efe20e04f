"""Run a user's model over the samples of a dataset: prompts in, `<sample_id>.mp4` out, resumable.

What comes out is a folder that `jwb-dh score` takes as it is.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jwb_dh_v1.dataset.prompts import Failure, Prompt, UnsafeName, failure, locked, read_prompt, safe_name
from jwb_dh_v1.errors import BadAudio, DataNotFound, NoFrames, SampleError, SetupError, Unreadable
from jwb_dh_v1.media.audio import Audio
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.media.video import write_mp4

SUMMARY, STAGE = "generated.json", ".unfinished"
TAIL = 2000  # characters of a traceback that are kept
# What a prompt is made of; the annotation columns are never read.
COLUMNS = ("schema_version", "sample_id", "video", "audio", "fps", "num_frames", "height", "width", "motion_text",
           "pose", "transcript")  # fmt: skip

Frames = np.ndarray
Output = Frames | str | Path | bytes | tuple[Frames, float] | tuple[Frames, float, Audio | None]
Function = Callable[[Prompt], Output]
Rows = Iterable[Mapping[str, Any]]
Outcome = tuple[str, Literal["made", "kept"] | Failure]
Spread = Callable[[Function, Rows, Path], Iterator[Outcome]]


class FunctionFailed(SampleError):
    """The user's function raised; the message holds type and text, the record also the end of the traceback."""


class BadOutput(SampleError):
    """The user's function returned something that is no video."""


@dataclass(frozen=True)
class Generated:
    """What a run gave.

    Attributes:
        folder: where the videos are.
        made: samples whose video was made by this run.
        kept: samples whose video was there and whole.
        failures: samples without a video.
        complete: no more failures than were allowed.

    """

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    failures: tuple[Failure, ...]
    complete: bool


def generate(
    fn: Function,
    data: str | Path | Rows,
    out: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    executor: str = "local",
    workers: int = 1,
    on_sample: Callable[[str], None] = lambda name: None,
    allow_failures: int = 0,
) -> Generated:
    """Call `fn` once per sample and write what it returns as `out/<sample_id>.mp4`.

    Whole videos that are in `out` already are kept and their samples are not given to `fn`: the same call goes on
    where it was stopped (use another folder for another model). Each video appears in one step when it is whole. A
    sample that fails is recorded and the run goes on; the next call tries it again. `out/generated.json` sums up.

    Args:
        fn: the model. It takes a `Prompt` and returns one of
            - frames, uint8 [T, H, W, 3] RGB: shown at the prompt's frame rate, with the prompt's audio;
            - (frames, fps): with the prompt's audio;
            - (frames, fps, audio): with this `Audio`, or without sound for None;
            - the path or the bytes of an MP4, which is copied as it is (no sound is added).
        data: a dataset folder or Hub name for `load_dataset`, a plain folder of real videos, or rows.
        out: the folder.
        split: of the dataset; `evaluation` by default.
        limit: only the first so many samples.
        executor: `local`, or `ray` (tasks of 1 CPU; all nodes must see `out`; `fn` must pickle).
        workers: calls of `fn` at a time; local ones are threads of this process, 1 being the calling thread itself.
        on_sample: called with each sample's id when it is done, kept or failed, in the data's order.
        allow_failures: `complete` in spite of so many failures.

    Raises:
        DataNotFound: there are no such data.
        MissingPackage: `ray` is not installed.
        AlreadyRunning, SetupError: the folder cannot be written to; no such executor; the rows have another schema.

    """
    folder = Path(out)
    if executor not in {"local", "ray"} or workers < 1 or (limit is not None and limit < 1):
        raise SetupError("executor is 'local' or 'ray', workers and limit are at least 1.")
    spread = _ray(workers) if executor == "ray" else _local(workers)
    begun = time.time()
    done: dict[str, list[str]] = {"made": [], "kept": []}
    failures: list[Failure] = []
    with locked(folder):
        shutil.rmtree(folder / STAGE, ignore_errors=True)  # what a killed run was writing
        (folder / STAGE).mkdir()
        (folder / SUMMARY).unlink(missing_ok=True)
        results = spread(fn, islice(_rows(data, split), limit), folder.resolve())
        for sample_id, outcome in _once(results):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                done[outcome].append(sample_id)
            on_sample(sample_id)
        shutil.rmtree(folder / STAGE, ignore_errors=True)
        if not failures and not any(done.values()):
            raise DataNotFound("There are no samples to generate.")
        complete = len(failures) <= allow_failures
        _summarise(folder, fn, done, failures, complete, time.time() - begun)
    return Generated(folder, tuple(done["made"]), tuple(done["kept"]), tuple(failures), complete)


def _once(results: Iterable[Outcome]) -> Iterator[Outcome]:
    """The results; of two samples whose videos have one name, the later one has failed."""
    seen: set[str] = set()
    for sample_id, outcome in results:
        if sample_id.casefold() in seen and not isinstance(outcome, Failure):
            text = f"Another sample is named {sample_id!r}, but for upper and lower case."
            outcome = failure(sample_id, UnsafeName(text))
        seen.add(sample_id.casefold())
        yield sample_id, outcome


def _rows(data: str | Path | Rows, split: str | None) -> Iterator[Mapping[str, Any]]:
    """The rows of a dataset or of a plain folder (as `pairs.pair` tells them apart), or those given."""
    if not isinstance(data, str | Path):
        yield from data
    elif Path(data).is_dir() and not any(Path(data).rglob("*.parquet")):
        from jwb_dh_v1.dataset.pairs import videos_in

        for name, path in videos_in(Path(data)).items():
            words = path.with_suffix(".txt")
            text = words.read_text(encoding="utf-8") if words.is_file() else None
            yield {"sample_id": name, "video": path, "transcript": text}
    else:
        from jwb_dh_v1.dataset.load import load_dataset

        yield from load_dataset(data, split=split or "evaluation", streaming=True, columns=COLUMNS)


def _local(workers: int) -> Spread:
    """Calls in this process."""

    def threads(fn: Function, rows: Rows, folder: Path) -> Iterator[Outcome]:
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[Outcome]] = deque()
            try:
                for row in rows:
                    waiting.append(pool.submit(_one, fn, row, folder))
                    if len(waiting) > workers:  # rows hold whole videos: read no further ahead
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    if workers > 1:
        return threads
    return lambda fn, rows, folder: (_one(fn, row, folder) for row in rows)


def _ray(workers: int) -> Spread:
    """Calls as Ray tasks, of the running cluster or of one that is started here and ended with the calls."""
    from jwb_dh_v1.parallel import RayOptions, connected, ray_map, ray_module

    ray_module()

    def tasks(fn: Function, rows: Rows, folder: Path) -> Iterator[Outcome]:
        options = RayOptions()
        calls = ((str(row.get("sample_id")), (dict(row), folder)) for row in rows)
        with connected(options) as ray:
            for sample_id, outcome in ray_map(ray, partial(_one, fn), calls, options, most=workers, ordered=True):
                # An error: the worker died, out of memory for example.
                yield (sample_id, failure(sample_id, outcome)) if isinstance(outcome, Exception) else outcome

    return tasks


def _one(fn: Function, row: Mapping[str, Any], folder: Path) -> Outcome:
    """Make one video, unless it is there. Depends on nothing but its arguments: every executor calls this."""
    sample_id = str(row.get("sample_id"))
    try:
        path = folder / f"{safe_name(row.get('sample_id'))}.mp4"
        if _is_whole(path):
            return sample_id, "kept"
        prompt = read_prompt(row)
        try:
            output = fn(prompt)
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to its sample
            tail = "".join(traceback.format_exception(error))[-TAIL:]
            return sample_id, Failure(sample_id, "FunctionFailed", f"{type(error).__name__}: {error}", tail)
        with tempfile.TemporaryDirectory(dir=folder / STAGE) as room:
            staged = Path(room) / path.name
            _write(output, prompt, staged)
            _ = Clip(staged).info  # what cannot be scored is said now
            staged.replace(path)
    except Exception as error:  # noqa: BLE001 - one sample's trouble is kept from the others
        return sample_id, failure(sample_id, error)
    return sample_id, "made"


def _is_whole(path: Path) -> bool:
    try:
        return path.exists() and len(Clip(path)) > 0
    except SampleError:
        return False


def _write(output: Any, prompt: Prompt, path: Path) -> None:
    """What the function returned as a file.

    Raises:
        BadOutput, NoFrames, BadAudio, Unreadable: it is no video.

    """
    from av.error import FFmpegError

    if isinstance(output, str | Path):
        try:
            output = Path(output).read_bytes()
        except (OSError, ValueError) as error:
            raise Unreadable(f"{str(output)[:200]}, which the function named, cannot be read: {error}.") from None
    if isinstance(output, bytes):
        if output and output[4:8] not in {b"ftyp", b"moov", b"mdat", b"wide", b"free"}:
            raise BadOutput("The function gave a file that is no MP4; let it give frames, or write an MP4.")
        path.write_bytes(output)
        return
    frames, fps, audio = _parts(output, prompt)
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        what = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else f"a {type(frames).__name__}"
        raise BadOutput(f"The function gave {what}; frames are a NumPy array, uint8 [T, H, W, 3] RGB.")
    if not frames.size:
        raise NoFrames(f"The function gave no frame (shape {frames.shape}).")
    if audio is not None and not (audio.samples.ndim == 2 and np.isfinite(audio.samples).all()):
        raise BadAudio("The function gave audio that is not [channels, n], or holds NaN or infinite samples.")
    try:
        write_mp4(path, frames, fps, audio)
    except (FFmpegError, ValueError) as error:
        raise BadOutput(f"What the function gave cannot be encoded: {error}") from error


def _parts(output: Any, prompt: Prompt) -> tuple[Any, float, Audio | None]:
    """Frames, frame rate and audio of an output that is no file."""
    if not isinstance(output, tuple):
        return output, prompt.fps, _writable(prompt.audio)
    if len(output) not in {2, 3}:
        raise BadOutput(f"The function gave {len(output)} values; (frames, fps) or (frames, fps, audio) are expected.")
    audio = output[2] if len(output) == 3 else _writable(prompt.audio)
    if audio is not None and not isinstance(audio, Audio):
        raise BadOutput(
            f"The function gave a {type(audio).__name__} as audio; it is a jwb_dh_v1.media.audio.Audio or None."
        )
    try:
        fps = float(output[1])
    except (TypeError, ValueError):
        fps = 0.0
    if not 0 < fps <= 1000:
        raise BadOutput(f"The function gave {output[1]!r:.40} frames a second; above 0 and at most 1000 are expected.")
    return output[0], fps, audio


def _writable(audio: Audio | None) -> Audio | None:
    """The prompt's audio in one or two channels, which is what an MP4 of ours holds."""
    if audio is None or audio.samples.shape[0] <= 2:
        return audio
    return Audio(audio.samples.mean(axis=0, keepdims=True), audio.rate, audio.start)


def _summarise(
    folder: Path, fn: Function, done: Mapping[str, list[str]], failures: list[Failure], complete: bool, seconds: float
) -> None:
    from jwb_dh_v1.files import write_atomically
    from jwb_dh_v1.version import __version__

    facts = {
        "complete": complete,
        "function": f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}",
        "package": f"jwb-dh-v1 {__version__}",
        "seconds": round(seconds, 3),
        "samples": sum(len(names) for names in done.values()) + len(failures),
        "made": done["made"],
        "kept": done["kept"],
        "failures": [asdict(one) for one in failures],
    }
    write_atomically(folder / SUMMARY, (json.dumps(facts, indent=1) + "\n").encode())
