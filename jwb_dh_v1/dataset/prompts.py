"""What a model under test is given: first frame, texts and speech of each sample, as values or as files.

File names are sample ids. Samples are paired with generated videos by name, so an id is never rewritten: one that is no
file name on every system (`safe_name`) fails its sample.
"""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1 import files
from jwb_dh_v1.dataset.schema import POSE, check_version
from jwb_dh_v1.errors import (
    BadAudio,
    DataNotFound,
    JwbError,
    NoFrames,
    NotAVideo,
    SampleError,
    SetupError,
    SizeMismatch,
    Unexpected,
    Unreadable,
)
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.probe import open_container, probe

LONGEST = 200  # bytes of an id: most file systems take 255, endings and temporary names need some
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself


class UnsafeName(SampleError):
    """A sample's id cannot be a file's name, or another sample has the same."""


@dataclass(frozen=True)
class Failure:
    """A sample that was not done: `error` is the type's name, `traceback` the end of it where a function raised."""

    sample_id: str
    error: str
    message: str
    traceback: str = ""


def failure(sample_id: str, error: Exception) -> Failure:
    """An exception as a `Failure`; what is none of ours becomes `Unexpected`, with its place.

    Raises:
        SetupError: the error itself, where it is one: it concerns all samples.

    """
    if isinstance(error, SetupError):
        raise error
    if not isinstance(error, JwbError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        error = Unexpected(f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
    return Failure(sample_id, type(error).__name__, str(error))


def safe_name(sample_id: Any) -> str:
    r"""The id itself, if it is a file name on Linux, macOS and Windows alike; scripts other than Latin are welcome.

    Raises:
        UnsafeName: no text, empty, over 200 bytes, one of `/ \ : * ? " < > |` or a control character in it, a dot in
            front (hidden, `..`), a dot or space at the end, or a name of a Windows device (`con`, `nul.x`, `com1`).

    """
    try:
        size = len(sample_id.encode())
    except (AttributeError, UnicodeEncodeError):  # no string, or half a surrogate pair
        size = 0
    good = 0 < size <= LONGEST and not FORBIDDEN.search(sample_id) and not DEVICES.fullmatch(sample_id)
    if not good or sample_id[0] == "." or sample_id[-1] in ". ":
        raise UnsafeName(f"{sample_id!r:.80} cannot name a file on every system; rename the sample.")
    return str(sample_id)


def locked(folder: Path) -> AbstractContextManager[None]:
    """Make a folder and keep other processes of this package from writing to it; errors as `files.locked`."""
    return files.locked(folder / ".lock", f"Another process is writing to {folder}; wait for it or choose another one.")


MANIFEST, FAILURES, LOG = "manifest.jsonl", "failures.jsonl", ".manifest.jsonl"
ENDINGS = ((b"RIFF", ".wav"), (b"RF64", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"))


@dataclass(frozen=True, eq=False)
class Prompt:
    """One sample as a model under test sees it.

    Attributes:
        sample_id: name of the sample and of the video to be made.
        first_frame: uint8 [H, W, 3] RGB, as displayed.
        motion_text: what the person does, or None.
        pose: the parts of that text where they are known: posture, hand_gesture, leg_stance; else None.
        transcript: what the person says, or None.
        language: of the transcript, ISO 639-1, or None.
        audio: the speech from the first frame on, or None.
        fps, num_frames, width, height: of the real video; a generated one is compared with it frame by frame.

    """

    sample_id: str
    first_frame: np.ndarray
    motion_text: str | None
    pose: Mapping[str, str | None]
    transcript: str | None
    language: str | None
    audio: Audio | None
    fps: float
    num_frames: int
    width: int
    height: int


def read_prompt(row: Mapping[str, Any]) -> Prompt:
    """A row of the dataset as a prompt; of its video one frame is decoded.

    Args:
        row: `sample_id` and `video` are needed. Without `audio` the sound of the video serves, without `fps` and size
            the video's own facts. Media are bytes, a path, or `{"bytes": ..., "path": ...}`.

    Raises:
        UnsafeName: see `safe_name`.
        Unreadable, NotAVideo, NoFrames, BadAudio: the video or the audio cannot be read.
        SizeMismatch: the video is not of the size that the row tells.
        SetupError: the row has another schema.

    """
    check_version(row.get("schema_version"))
    name = safe_name(row.get("sample_id"))
    video = _media(row.get("video"))
    if video is None:
        raise Unreadable(f"{name} has no video.")
    picture, begin = first_frame(video)
    columns = [row.get(key) or 0 for key in ("fps", "num_frames", "width", "height")]
    if min(columns) <= 0:
        info = probe(video)
        columns = [info.fps, info.frames, info.width, info.height]
    fps, frames, width, height = columns
    if picture.shape[:2] != (height, width):
        raise SizeMismatch(f"The video of {name} is {picture.shape[1]}x{picture.shape[0]}, its row {width}x{height}.")
    given = _media(row.get("audio"))
    audio = decode_audio(video if given is None else given)
    if audio is not None:
        audio = from_first_frame(audio, begin if given is None else audio.start)
    elif given is not None:
        raise BadAudio(f"The audio of {name} holds no sound.")
    text, language = _spoken(row)
    pose = {part: _text((row.get("pose") or {}).get(part)) for part in POSE}
    return Prompt(
        name,
        picture,
        _text(row.get("motion_text")),
        pose,
        text,
        language,
        audio,
        float(fps),
        int(frames),
        int(width),
        int(height),
    )


def first_frame(source: bytes | Path) -> tuple[np.ndarray, float]:
    """The first frame of a video as displayed, uint8 [H, W, 3] RGB, and when it is shown, in seconds on the container's
    clock (not always 0); nothing after it is decoded.

    Raises:
        Unreadable, NotAVideo, NoFrames: there is none.

    """
    import av

    with open_container(source) as container:
        if not container.streams.video:
            raise NotAVideo("The file has no video stream.")
        try:
            for frame in container.decode(video=0):
                upright: np.ndarray = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                return np.ascontiguousarray(upright), float(frame.time or 0.0)
        except av.error.FFmpegError as error:
            raise NoFrames(f"The first frame cannot be decoded: {error}.") from None
    raise NoFrames("The video stream holds no frame that can be decoded.")


def from_first_frame(audio: Audio, begin: float) -> Audio:
    """The sound from the first frame on, shown at `begin` seconds: a late track gets silence in front, an early one is
    cut; the result starts at 0.
    """
    shift = round((audio.start - begin) * audio.rate)
    samples = np.pad(audio.samples, [(0, 0), (max(0, shift), 0)])
    return Audio(samples[:, max(0, -shift) :], audio.rate)


def write_prompts(
    rows: Iterable[Mapping[str, Any]], out: str | Path, *, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Write what a model's own inference script needs, one set of files per sample.

    - `images/<id>.png`: the first frame, lossless.
    - `motion/<id>.txt`: the motion text, then each known part of the pose, a line each.
    - `speech/<id>.txt`: the transcript. `speech/<id>.wav` (`.flac`, ...): the row's audio bytes as they are; where the
      row has none, the sound of its video as 16-bit WAV from the first frame on.
    - `manifest.jsonl`, written last: a line per sample with sample_id, identity_id, image, audio (paths below `out`),
      transcript, language, motion_text, pose, fps, num_frames, width, height, seconds, row_sha256. What is not known is
      null and has no file.
    - `failures.jsonl`: a line per sample that could not be written, with sample_id, error and message.

    The same call again goes on where it was stopped; a sample whose row changed is written again.

    Args:
        rows: rows of the dataset, streamed or not; each is read once.
        out: the folder.
        say: takes one line at a time about what is being done.

    Returns:
        The path of the manifest.

    Raises:
        DataNotFound: there are no rows.
        AlreadyRunning, SetupError: the folder cannot be written to; the rows have another schema.

    """
    folder = Path(out)
    with locked(folder):
        known = {entry["sample_id"]: entry for name in (MANIFEST, LOG) for entry in _lines(folder / name)}
        entries: list[dict[str, Any]] = []
        failures: list[Failure] = []
        seen: set[str] = set()
        kept = 0
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write("\n")  # a line that a kill cut short ends here
            for row in rows:
                sample_id = row.get("sample_id")
                try:
                    # Some file systems take "A" and "a" for one name.
                    if safe_name(sample_id).casefold() in seen:
                        raise UnsafeName(f"Another sample is named {sample_id!r}, but for upper and lower case.")
                    seen.add(str(sample_id).casefold())
                    digest = _digest(row)
                    entry = known.get(sample_id)
                    if entry is not None and entry.get("row_sha256") == digest and _files_are_there(folder, entry):
                        kept += 1
                    else:
                        entry = _write(folder, row, digest)
                        log.write(json.dumps(entry, ensure_ascii=False) + "\n")
                        log.flush()
                except Exception as error:  # noqa: BLE001 - one sample's trouble is kept from the others
                    failures.append(failure(str(sample_id), error))
                    say(f"prompts: {failures[-1].sample_id:.80}: {failures[-1].error}: {failures[-1].message}")
                    continue
                entries.append(entry)
        if not entries and not failures:
            raise DataNotFound("There are no rows to write prompts of.")
        facts = [{"sample_id": f.sample_id, "error": f.error, "message": f.message} for f in failures]
        _save(folder / FAILURES, _jsonl(facts))
        _save(folder / MANIFEST, _jsonl(entries))
        (folder / LOG).unlink()
    say(f"prompts: {len(entries)} samples in {folder} ({kept} were there), {len(failures)} failed")
    return folder / MANIFEST


def _write(folder: Path, row: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Write the files of one sample; its line in the manifest."""
    import cv2

    prompt = read_prompt(row)
    name = prompt.sample_id
    good, png = cv2.imencode(".png", prompt.first_frame[..., ::-1])
    if not good:
        raise NoFrames(f"The first frame of {name} cannot be written as PNG.")
    image, audio = f"images/{name}.png", None
    _save(folder / image, png.tobytes())
    motion = [text for text in (prompt.motion_text, *prompt.pose.values()) if text]
    if motion:
        _save(folder / f"motion/{name}.txt", ("\n".join(motion) + "\n").encode())
    if prompt.transcript:
        _save(folder / f"speech/{name}.txt", (prompt.transcript + "\n").encode())
    if prompt.audio is not None:
        given = _media(row.get("audio"))
        content = prompt.audio.wav() if given is None else given.read_bytes() if isinstance(given, Path) else given
        audio = f"speech/{name}{_ending(content)}"
        _save(folder / audio, content)
    return {
        "sample_id": name,
        "identity_id": row.get("identity_id"),
        "image": image,
        "audio": audio,
        **{k: v for k, v in asdict(prompt).items() if k not in {"sample_id", "first_frame", "audio"}},
        "seconds": prompt.num_frames / prompt.fps,
        "row_sha256": digest,
    }


def _save(path: Path, content: bytes) -> None:
    """Write a file in one step; a full or read-only disk stops the run, for it concerns every sample."""
    from jwb_dh_v1.files import write_atomically

    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}.") from error


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON Lines file; nothing of one that is not there."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a kill cut it short
                continue
            if isinstance(entry, dict) and "sample_id" in entry:
                yield entry


def _files_are_there(folder: Path, entry: Mapping[str, Any]) -> bool:
    name = entry["sample_id"]
    files = [entry["image"], entry["audio"]]
    files += [f"speech/{name}.txt" if entry["transcript"] else None]
    files += [f"motion/{name}.txt" if entry["motion_text"] or any(entry["pose"].values()) else None]
    return all((folder / file).is_file() for file in files if file)


def _digest(row: Mapping[str, Any]) -> str:
    """SHA-256 over all that a prompt is made of."""
    from jwb_dh_v1.files import sha256_of

    digest = hashlib.sha256()
    for key in ("video", "audio"):
        media = _media(row.get(key))
        if isinstance(media, Path):
            try:
                digest.update(sha256_of(media).encode())
            except OSError as error:
                raise Unreadable(f"{media} cannot be read: {error.strerror or error}.") from None
        else:
            digest.update(hashlib.sha256(media or b"").digest())
    keys = ("identity_id", "motion_text", "pose", "fps", "num_frames", "width", "height")
    facts = [[row.get(key) for key in keys], _spoken(row)]
    digest.update(json.dumps(facts, default=str).encode())
    return digest.hexdigest()


def _media(value: Any) -> bytes | Path | None:
    """A media cell of a row: bytes, a path, or nothing."""
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None or isinstance(value, bytes | Path):
        return value
    if isinstance(value, str):
        return Path(value)
    raise Unreadable(f"Media are bytes or a path, not {type(value).__name__}; load the data without decoding them.")


def _spoken(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Transcript and language."""
    transcript = row.get("transcript")
    if isinstance(transcript, Mapping):
        return _text(transcript.get("text")), transcript.get("language")
    return _text(transcript), None


def _text(value: Any) -> str | None:
    return str(value).strip() or None if value is not None else None


def _ending(content: bytes) -> str:
    """The file ending of some audio, by its first bytes."""
    for mark, ending in ENDINGS:
        if content.startswith(mark):
            return ending
    if content[4:8] == b"ftyp":
        return ".m4a"
    return ".mp3" if content[:1] == b"\xff" and content[1:2] >= b"\xe0" else ".bin"
