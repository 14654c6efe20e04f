"""Annotate a folder of bare clips: boxes, key points, masks and words, so that any data can be scored by region.

Each clip gets a JSON file with the annotation columns of the dataset's schema (`data/schema.py`), which the packer
reads; `coverage.json` says how much was found.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
import json
import os
import platform
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from multiprocessing import get_context
import numpy as np
from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, DETECTOR_WEIGHTS
from jwb_dh_v1.media.annotations import PARTS, Annotations
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.dataset.prompts import UnsafeName, failure, locked
from jwb_dh_v1.dataset.prompts import first_frame, from_first_frame
from jwb_dh_v1.dataset.schema import SCHEMA_VERSION, WORD_MOTION, annotation_columns
from jwb_dh_v1.dataset.build.teaser import WHISPER
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve_all
from jwb_dh_v1.files import replaced_when_whole, sha256_of

if TYPE_CHECKING:
    from rich.console import Console
    from jwb_dh_v1.parallel import RayOptions
    from jwb_dh_v1.networks.whisper import Word

SHARES = ("body", "face", "left_hand", "right_hand", "hands")
MOST = 40  # clips in the printed table


@dataclass(frozen=True)
class ClipCoverage:
    """What was found in one clip.

    Attributes:
        name: path below the folder, without the ending.
        state: `made`, `kept` (annotated before, by the same detector and from the same bytes) or `failed`.
        frames: number of frames.
        body, face, left_hand, right_hand: share of frames in which the part was seen; `hands`: either hand.
        words: number of words heard.
        speech: `found`, or why the transcript is null: `no audio track`, `silent` (below -60 dBFS), `no words heard`,
            `no sure words` (noise or music), `not asked for`.
        language: of the words, or None.
        error, message: the type and text of what went wrong.
        source, video_sha256, file_sha256: by whom and from which bytes the annotation file was made, and its content.

    """

    name: str
    state: str
    frames: int = 0
    body: float = 0.0
    face: float = 0.0
    left_hand: float = 0.0
    right_hand: float = 0.0
    hands: float = 0.0
    words: int = 0
    speech: str = ""
    language: str | None = None
    error: str = ""
    message: str = ""
    source: str = ""
    video_sha256: str = ""
    file_sha256: str = ""


@dataclass(frozen=True)
class Coverage:
    """What was found in a folder: `clips` in order of their names, annotated by `source`, heard by `listener`."""

    folder: Path
    source: str
    listener: str | None
    clips: tuple[ClipCoverage, ...]

    @property
    def failed(self) -> tuple[ClipCoverage, ...]:
        """The clips without annotations."""
        return tuple(clip for clip in self.clips if clip.state == "failed")

    def totals(self) -> dict[str, Any]:
        """Counts of clips, failures by type, languages and speech; shares over all frames that were read."""
        frames = sum(clip.frames for clip in self.clips)
        seen = {part: sum(getattr(clip, part) * clip.frames for clip in self.clips) for part in SHARES}
        good = [clip for clip in self.clips if clip.state != "failed"]
        return {
            "clips": len(self.clips),
            "annotated": len(good),
            "failed": dict(Counter(clip.error for clip in self.failed)),
            "frames": frames,
            **{part: seen[part] / frames if frames else 0.0 for part in SHARES},
            "speech": dict(Counter(clip.speech for clip in good)),
            "languages": dict(Counter(clip.language for clip in good if clip.language)),
        }


def print_coverage(coverage: Coverage, console: Console) -> None:
    """Print a table of a folder's clips (of many, the failed ones and those with the least face) and its totals."""
    from rich.table import Table
    from rich.text import Text

    def share(value: float) -> str:
        return f"{100 * value:.0f} %"

    shown = coverage.clips
    if len(shown) > MOST:
        shown = tuple(sorted(shown, key=lambda clip: (clip.state != "failed", clip.face, clip.body))[:MOST])
    table = Table(caption=f"boxes by {coverage.source}, words by {coverage.listener or 'nobody'}")
    table.add_column("clip", overflow="fold")
    for title in ("frames", "body", "face", "hands"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("speech", overflow="fold")
    for clip in shown:
        if clip.state == "failed":
            told = Text(f"{clip.error}: {clip.message}", style="red")
            table.add_row(Text(clip.name), "", "", "", "", told)
        else:
            heard = f"{clip.words} words ({clip.language})" if clip.words else clip.speech
            cells = [share(value) for value in (clip.body, clip.face, clip.hands)]
            table.add_row(Text(clip.name), str(clip.frames), *cells, heard)
    whole = coverage.totals()
    table.add_section()
    cells = [share(whole[part]) for part in ("body", "face", "hands")]
    heard = ", ".join(f"{count} {told}" for told, count in whole["speech"].items())
    table.add_row(f"{whole['annotated']} of {whole['clips']} clips", str(whole["frames"]), *cells, heard)
    console.print(table)
    if len(coverage.clips) > MOST:
        console.print(f"{MOST} of {len(coverage.clips)} clips shown: failed ones, then those with the least face.")
    for error, count in whole["failed"].items():
        console.print(f"{count} failed: {error}", style="red", markup=False)


RATE = 16000  # Hz, what Whisper hears
PART = 30.0  # seconds of words that are trusted or not as one, about a window of Whisper's
COVERAGE = "coverage.json"
LOG = ".coverage.jsonl"
NOT_ASKED = "not asked for"


def annotate(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    boxes: str = "mediapipe",
    speech: bool = True,
    workers: int | None = None,
    executor: str = "local",
    ray: RayOptions | None = None,
    models: NetworkPool | None = None,
    on_clip: Callable[[ClipCoverage], None] = lambda clip: None,
) -> Coverage:
    """Annotate the main person and the speech of every video below a folder.

    `<name>.json` holds columns of a row: schema_version, num_frames, height, width, boxes, box_scores, keypoints,
    mask_rle (`counts` as text), annotation_source and transcript.
    A box is null where the part is not seen. Key points are rounded to 0.01 (pixels and score); one that is not seen is
    [0, 0, 0], and the column is null where the detector makes none. Whisper tiny.en knows English only: other languages
    come out as wrong English words. Where there is no sound, only silence or no sure word, the transcript is null and
    the coverage says why.

    The same call again goes on where it was stopped: a clip stays as it is if its file is whole and of this detector,
    these bytes and this schema. `coverage.json` is written last.

    Args:
        folder: of videos, searched with its subfolders.
        out: where `<name>.json` go, in the same subfolders; None: beside the videos.
        boxes: the detector, `mediapipe` or `dwpose` (which makes no masks).
        speech: whether to listen.
        workers: processes; each holds its own networks and the frames of one clip (0.5 GB at most, longer clips are
            decoded in chunks). By default this process alone, and on Ray as many as the cluster has CPUs.
        executor: `local`, processes of this machine; or `ray`, tasks of a cluster whose nodes all see clips and `out`
            and have the weights where this one has them.
        ray: which cluster, and the size of a task.
        models: networks of an earlier call; they must hold the weights for all of this.
        on_clip: called with each clip's coverage when it is done.

    Raises:
        DataNotFound: no such folder, or no video in it.
        MissingWeights, MissingPackage: the detector, Whisper or Ray is not ready; nothing was done.
        AlreadyRunning, SetupError: `out` cannot be written to; a worker died.

    """
    source, target = Path(folder), Path(folder if out is None else out)
    if executor not in {"local", "ray"}:
        raise SetupError(f"There is no executor {executor!r}; there are local, ray.")
    clips = _clips(source)
    if models is None:
        if boxes not in DETECTOR_WEIGHTS:
            raise SetupError(f"No detector is named {boxes!r}; there are {', '.join(DETECTOR_WEIGHTS)}.")
        names = [*DETECTOR_WEIGHTS[boxes], *(ANNOTATE_WEIGHTS if boxes == "mediapipe" else ())]
        models = NetworkPool(resolve_all([*names, *(WHISPER if speech else ())]), boxes=boxes, keypoints=True)
    elif models.boxes != boxes:
        raise SetupError(f"These models find boxes by {models.boxes}, the call asks for {boxes}.")
    name = models.detector.name  # a missing package is said before the first decode
    found: list[ClipCoverage] = []
    with locked(target), _log(target) as (known, note):
        work: dict[str, Work] = {}
        for clip, path in clips:
            if clip in work or clip == "coverage":
                error = UnsafeName(f"The annotations of {path.name} would have the name of another file; rename it.")
                found.append(_failed(clip, error))
                on_clip(found[-1])
            else:
                work[clip] = (clip, path, target / f"{clip}.json", speech, known.get(clip))
        todo = list(work.values())
        results = _in_ray(models, todo, workers, ray) if executor == "ray" else _spread(models, todo, workers or 1)
        for coverage in results:
            found.append(coverage)
            note(coverage)
            on_clip(coverage)
        found.sort(key=lambda clip: clip.name)
        whole = Coverage(target, name, WHISPER[0] if speech else None, tuple(found))
        facts = {"annotation_source": name, "listener": whole.listener, "totals": whole.totals()}
        rows = [asdict(clip) for clip in found]
        _write(target / COVERAGE, [json.dumps({**facts, "clips": rows}, indent=1, ensure_ascii=False)])
    return whole


@contextmanager
def _log(folder: Path) -> Iterator[tuple[dict[str, ClipCoverage], Callable[[ClipCoverage], None]]]:
    """What earlier calls made, and a way to note what this one makes, which a kill cannot undo."""
    log = folder / LOG
    entries: list[Any] = []
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent, or not ours
        entries = list(json.loads((folder / COVERAGE).read_text(encoding="utf-8"))["clips"])
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        with suppress(ValueError):  # cut short by a kill
            entries.append(json.loads(line))
    known = {}
    for entry in entries:
        with suppress(TypeError):  # of another version
            clip = ClipCoverage(**entry)
            if clip.state != "failed":
                known[clip.name] = clip
    with log.open("a", encoding="utf-8") as handle:
        handle.write("\n")

        def note(clip: ClipCoverage) -> None:
            handle.write(json.dumps(asdict(clip)) + "\n")
            handle.flush()

        yield known, note
    log.unlink()


def _clips(folder: Path) -> list[tuple[str, Path]]:
    """Names (paths below the folder, without ending) and videos, sorted; hidden files and folders are left out."""
    from jwb_dh_v1.dataset.pairs import VIDEOS

    if not folder.is_dir():
        raise DataNotFound(f"{folder} is no folder of videos.")
    below = ((path.relative_to(folder), path) for path in folder.rglob("*") if path.suffix.lower() in VIDEOS)
    found = [
        (inner.with_suffix("").as_posix(), path)
        for inner, path in below
        if not any(part.startswith(".") for part in inner.parts)
    ]
    if not found:
        raise DataNotFound(f"{folder} and its subfolders hold no video ({', '.join(VIDEOS)}).")
    return sorted(found)


# A clip's name, its video, its annotation file, whether to listen, and what is known from an earlier call.
Work = tuple[str, Path, Path, bool, ClipCoverage | None]


def _spread(models: NetworkPool, work: list[Work], workers: int) -> Iterator[ClipCoverage]:
    """The coverage of each clip, as they are done."""
    if workers == 1:
        yield from (_one(models, item) for item in work)
        return
    # Spawned: a forked process would inherit the networks without the threads that run them.
    start = partial(_start, models.weights, models.boxes)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start) as pool:
        try:
            for future in as_completed([pool.submit(_in_worker, item) for item in work]):
                yield future.result()
        except BrokenProcessPool:
            raise SetupError("A worker died (out of memory?); the same call with fewer workers goes on.") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _in_ray(
    models: NetworkPool, work: list[Work], workers: int | None, options: RayOptions | None
) -> Iterator[ClipCoverage]:
    """The coverage of each clip, as they are done by tasks of a Ray cluster, whose processes keep their networks."""
    from jwb_dh_v1.parallel import RayOptions, connected, same_threads, ray_map

    options = options or RayOptions()
    task, calls = partial(_in_task, models.weights, models.boxes), ((item[0], (item,)) for item in work)
    with connected(options) as ray:
        for name, coverage in ray_map(ray, task, calls, options, most=workers, env=same_threads()):
            yield _failed(name, coverage) if isinstance(coverage, Exception) else coverage  # it ended its workers


_models: NetworkPool | None = None  # of a worker process, which has nowhere else to keep its networks


def _start(weights: Mapping[str, Path], boxes: str) -> None:
    global _models
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
    _models = NetworkPool(weights, boxes=boxes, keypoints=True)


def _in_worker(item: Work) -> ClipCoverage:
    assert _models is not None
    return _one(_models, item)


def _in_task(weights: Mapping[str, Path], boxes: str, item: Work) -> ClipCoverage:
    if _models is None or (_models.weights, _models.boxes) != (weights, boxes):
        lacking = [str(path) for path in weights.values() if not path.is_file()]
        if lacking:
            raise SetupError(f"{platform.node()} has no {lacking[0]}; put the weights where all nodes see them.")
        _start(weights, boxes)
    return _in_worker(item)


def _one(models: NetworkPool, item: Work) -> ClipCoverage:
    """Annotate one clip, unless that is done; what is wrong with it is in the result."""
    name, path, target, speech, known = item
    source = f"{models.detector.name}, schema {SCHEMA_VERSION}"
    try:
        clip = Clip(path)
        if known is not None and (known.source, known.video_sha256) == (source, clip.sha256):
            listened = not speech or known.speech != NOT_ASKED
            if listened and target.is_file() and sha256_of(target) == known.file_sha256:
                return replace(known, state="kept")
        annotations = models.detector.detect(clip.chunks(), clip.fps, full=True)
        frames, (width, height) = len(clip), clip.size
        annotations.check(frames, width, height)
        clip.release()
        transcript, told = _listen(models, clip, path) if speech else (None, NOT_ASKED)
        row = {"schema_version": SCHEMA_VERSION, "num_frames": frames, "height": height, "width": width}
        _write(target, _json({**row, "transcript": transcript}, annotations))
    except Exception as error:  # noqa: BLE001 - one clip's trouble is kept from the others
        return _failed(name, error)
    seen = {part: np.isfinite(annotations.boxes[part][:, 0]) for part in PARTS}
    seen["hands"] = seen["left_hand"] | seen["right_hand"]
    shares: dict[str, Any] = {part: float(seen[part].mean()) for part in SHARES}
    return ClipCoverage(
        name,
        "made",
        frames,
        **shares,
        words=len(transcript["words"]) if transcript else 0,
        speech=told,
        language=transcript["language"] if transcript else None,
        source=source,
        video_sha256=clip.sha256,
        file_sha256=sha256_of(target),
    )


def _failed(name: str, error: Exception) -> ClipCoverage:
    told = failure(name, error)
    return ClipCoverage(name, "failed", error=told.error, message=told.message)


def _listen(models: NetworkPool, clip: Clip, path: Path) -> tuple[dict[str, Any] | None, str]:
    """The transcript with words, and `found` or the reason why there is none."""
    from jwb_dh_v1.networks import whisper

    audio = clip.audio
    if audio is None or audio.silent:
        return None, "no audio track" if audio is None else "silent"
    seconds = len(clip) / clip.fps
    _, begin = first_frame(path)
    words = models.get(whisper.NETWORK).words(from_first_frame(audio, begin).mono(RATE)[: round(seconds * RATE)])
    sure = [word for _, part in groupby(words, lambda word: word.start // PART) for word in _sure(list(part))]
    if not sure:
        return None, "no sure words" if words else "no words heard"
    rows = [{**asdict(word), "source": WHISPER[0], "motion": dict.fromkeys(WORD_MOTION)} for word in sure]
    return {"text": " ".join(word.word for word in sure), "language": "en", "words": rows}, "found"


def _sure(words: list[Word]) -> list[Word]:
    """The words of a stretch, or none of them if Whisper guessed (noise: `you`) or fell into a loop (a tone).

    The limits are those beyond which openai/whisper `transcribe.py` tries again. Measured: mean log probability -0.19
    and more on the teaser's speech, -1.1 to -4.7 on noise and a chord; a tone of 4 s is one word 100 times.
    """
    text = " ".join(word.word for word in words).encode()
    guessed = float(np.mean([np.log(max(word.score or 0.0, 1e-12)) for word in words])) < -1.0
    return [] if guessed or len(text) / len(zlib.compress(text)) > 2.4 else words


def _json(row: Mapping[str, Any], annotations: Annotations) -> Iterator[str]:
    """The file's text in pieces: as one, the key points of a long clip would take gigabytes as Python numbers."""
    columns = annotation_columns(annotations)
    points = columns.pop("keypoints")
    masks = columns["mask_rle"]
    if masks is not None:
        columns["mask_rle"] = [{"size": mask["size"], "counts": mask["counts"].decode("ascii")} for mask in masks]
    yield json.dumps({**row, **columns}, ensure_ascii=False)[:-1] + ', "keypoints": '
    if points is None:
        yield "null}"
        return
    for number, frame in enumerate(points):
        yield (", " if number else "[") + json.dumps(np.round(frame.astype(np.float64), 2).tolist())
    yield "]}"


def _write(path: Path, pieces: Iterable[str]) -> None:
    """Write a file in one step; a full or read-only disk stops the run, for it concerns every clip."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_whole(path) as partial_file, partial_file.open("w", encoding="utf-8") as handle:
            handle.writelines(pieces)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}.") from error
