"""From a folder of clips to items, and from an item to the row that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
import csv
import hashlib
import io
import json
import os
import sqlite3
import wave
from collections.abc import Iterator, Mapping
from contextlib import closing
from jwb_dh_v1.dataset.build.readers import load_json, read_annotations
from jwb_dh_v1.dataset.schema import BadAnnotation, checked
from jwb_dh_v1.dataset.pairs import VIDEOS
from jwb_dh_v1.dataset.rules import row_problems
from jwb_dh_v1.dataset.schema import POSE, SCHEMA_VERSION, annotation_columns, features
from jwb_dh_v1.errors import BadAudio, BadBox, DataNotFound, SetupError, Unreadable, VariableFrameRate

@dataclass(frozen=True)
class Item:
    """What will be one row.

    Attributes:
        sample_id: unique name in the dataset.
        identity_id: the person; splits never share one.
        video: the file whose bytes go into the row as they are.
        audio: the speech as a WAV or FLAC file; None: the video's own track.
        annotations: annotation files, in the order in which they are read; later ones win per column.
        columns: columns of the row that are known already (motion_text, transcript, speech, provenance, licence, ...).
        split: where it belongs, or None where the packer is to decide by identity.

    """

    sample_id: str
    identity_id: str
    video: Path
    audio: Path | None = None
    annotations: tuple[Path, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None


MAX_CLIP = 2**30  # bytes: a cell of a Parquet row cannot hold more than twice as much
# In the order in which they are read: what a person wrote wins over what a machine heard.
SIDECARS = (
    *(".whisperx.json", ".TextGrid", ".csv", ".words.csv", ".boxes.csv", ".keypoints.json", ".masks.json"),
    *(".txt", ".json"),
)
SOUNDS = (".wav", ".flac")
TABLE = "metadata.csv"
TOLD = ("motion_text", "speech", "licence", "provenance")  # columns of the table that go into the row as they are


# ------------------------------------------------------------------------------------------------------------- items


def items_in(folder: str | Path, columns: Mapping[str, Any] | None = None) -> Iterator[Item]:
    """The clips of a folder and of its sub-folders, with the files beside them, sorted by path.

    `<name>.mp4` (or another video ending) may have `<name>.wav` or `.flac`, and the annotation files of `SIDECARS`,
    e.g. `<name>.txt` (transcript), `<name>.words.csv`, `<name>.TextGrid`, `<name>.json` (columns of the schema).

    - `sample_id`: the path below the folder without ending, `/` as `-`: `anna/01.mp4` is `anna-01`.
    - `identity_id`: the first sub-folder; without one, the name up to its first `-` or `_`: `anna_01.mp4` is `anna`.
      `<name>.json` may tell another one (and is read for it here; the table below is quicker).
    - `metadata.csv` in the folder wins over both: `sample_id` and any of identity_id, motion_text, split, licence,
      provenance, speech. A line without its clip gives an item whose file is missing.

    Args:
        folder: where to look; hidden files and folders are passed over.
        columns: columns of every row, e.g. the licence; they win over files beside a clip, and the table over them.

    Raises:
        DataNotFound: no such folder, or no video in it.
        SetupError: `metadata.csv` has other columns, or a name twice.

    The names of one folder's files are held at a time (about 100 bytes each), and nothing else.

    """
    place = Path(folder)
    if not place.is_dir():
        raise DataNotFound(f"{place} is no folder of videos.")
    with closing(_table(place / TABLE)) as table:
        found = 0
        for item in _walk(place, dict(columns or {}), table):
            found += 1
            yield item
        for name, facts in table.execute("select name, facts from told where not used order by name"):
            found += 1
            sample_id = name.decode("utf-8", "surrogatepass")
            yield _item(place / f"{sample_id}.mp4", sample_id, "", (), None, dict(columns or {}), json.loads(facts))
    if not found:
        raise DataNotFound(f"{place} holds no video ({', '.join(VIDEOS)}).")


def _walk(place: Path, columns: dict[str, Any], table: sqlite3.Connection) -> Iterator[Item]:
    for root, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here, known = Path(root), set(names)
        parts = here.relative_to(place).parts
        for name in sorted(names):
            stem, ending = os.path.splitext(name)  # noqa: PTH122 - of a name, millions of times
            if ending.lower() not in VIDEOS or name.startswith("."):
                continue
            sample_id = "-".join([*parts, stem])
            person = parts[0] if parts else stem.replace("_", "-").split("-")[0] or stem
            beside = tuple(here / (stem + suffix) for suffix in SIDECARS if stem + suffix in known)
            sound = next((here / (stem + suffix) for suffix in SOUNDS if stem + suffix in known), None)
            told = table.execute("select facts from told where name = ?", [blob(sample_id)]).fetchone()
            if told is not None:
                table.execute("update told set used = 1 where name = ?", [blob(sample_id)])
            facts = json.loads(told[0]) if told else {}
            yield _item(here / name, sample_id, person, beside, sound, columns, facts)


def _item(
    video: Path,
    sample_id: str,
    person: str,
    beside: tuple[Path, ...],
    sound: Path | None,
    columns: dict[str, Any],
    facts: dict[str, str],
) -> Item:
    own = video.with_name(video.stem + ".json")
    if not facts.get("identity_id") and own in beside:
        person = _identity_in(own) or person
    told = {key: facts[key] for key in TOLD if facts.get(key)}
    return Item(
        sample_id=sample_id,
        identity_id=facts.get("identity_id") or person or sample_id,
        video=video,
        audio=sound,
        annotations=beside,
        columns={**columns, **told},
        split=facts.get("split") or None,
    )


def _identity_in(path: Path) -> str | None:
    """The person whom a clip's JSON names; a broken file is found out later, when the row is made."""
    try:
        told = load_json(path.read_text(encoding="utf-8-sig"), path.name)["identity_id"]
    except (OSError, ValueError, KeyError, TypeError, BadAnnotation):
        return None
    return told if isinstance(told, str) and told else None


def blob(name: str) -> bytes:
    """The bytes of a name, valid Unicode or not."""
    return name.encode("utf-8", "surrogatepass")  # names of files need not be text


def _table(path: Path) -> sqlite3.Connection:
    """`metadata.csv` by name, on disk (SQLite's own temporary file) rather than in memory."""
    table = sqlite3.connect("")
    table.execute("create table told (name blob primary key, facts text, used int) without rowid")
    if not path.is_file():
        return table
    allowed = {"sample_id", "identity_id", "split", *TOLD}
    with path.open(encoding="utf-8-sig", newline="") as handle:
        lines = csv.DictReader(handle, strict=True)
        try:
            header = set(lines.fieldnames or ())
            if "sample_id" not in header or header - allowed:
                raise SetupError(
                    f"{path} has the columns {', '.join(sorted(header)) or 'of nothing'}; expected sample_id and any "
                    f"of {', '.join(sorted(allowed - {'sample_id'}))}."
                )
            for line in lines:
                name = line.pop("sample_id")
                if None in line or None in line.values():
                    raise SetupError(f"{path}: line {lines.line_num} has another number of cells than the header.")
                table.execute("insert into told values (?, ?, 0)", [blob(name), json.dumps(line)])
        except sqlite3.IntegrityError:
            raise SetupError(f"{path}: line {lines.line_num}: {name} is there twice.") from None
        except (csv.Error, UnicodeDecodeError) as error:
            raise SetupError(f"{path} is no CSV in UTF-8: line {lines.line_num + 1}: {error}.") from None
    return table


# -------------------------------------------------------------------------------------------------------------- rows


def row_of(item: Item) -> dict[str, Any]:
    """The row of one clip: its bytes, its facts, its sound, and what is told about it.

    The sound is the given file (16-bit WAV and FLAC as they are, others decoded), else the video's own track as 16-bit
    WAV from the first frame on, else null. `speech` is `own` where there is sound and nothing else is told. What
    `item.columns` holds wins over annotation files. A transcript without text gets that of its words.

    Raises:
        SampleError: the clip cannot be opened, is cut, empty or of uneven rate; its sound cannot be decoded; an
            annotation is not what the schema says (`BadAnnotation`, `BadBox`).

    """
    from jwb_dh_v1.media.clip import Clip

    try:
        item.sample_id.encode(), item.identity_id.encode()
    except UnicodeEncodeError:
        raise BadAnnotation(f"{item.sample_id!r} is no text; give the file a name in UTF-8.") from None
    content = _content(item.video)
    clip = Clip(content)
    info = clip.info
    if not info.fps > 0:
        raise VariableFrameRate(f"{item.video.name} does not say how many frames a second it has.")
    told: dict[str, Any] = {}
    for path in item.annotations:
        _merge(told, read_annotations(path, info))
    _merge(told, checked(item.columns, info, item.sample_id))
    wav = _sound(item, clip, content)
    transcript = {"text": None, "language": None, "words": None, **told.pop("transcript", {})}
    if not transcript["text"] and transcript["words"]:
        transcript["text"] = " ".join(word["word"] for word in transcript["words"])
    unknown = set(told) - set(features())
    if unknown:
        raise BadAnnotation(f"{item.sample_id}: no column is named {min(unknown)!r}.")
    row = {
        **dict.fromkeys(features()),
        "pose": dict.fromkeys(POSE),
        **annotation_columns(None),
        "speech": None if wav is None else "own",
    }
    _merge(row, told)
    row |= {
        "schema_version": SCHEMA_VERSION,
        "sample_id": item.sample_id,
        "identity_id": item.identity_id,
        "video": {"bytes": content, "path": f"{item.sample_id}{item.video.suffix.lower()}"},
        "video_sha256": hashlib.sha256(content).hexdigest(),
        "audio": wav,
        "fps": info.fps,
        "num_frames": info.frames,
        "height": info.height,
        "width": info.width,
        "transcript": transcript,
    }
    # What `data check` would find is not packed. Terms are the owner's to settle, and the hash is a second old.
    for rule, message in row_problems({key: value for key, value in row.items() if key != "video"}):
        if rule != "licence":
            kind = BadBox if rule.startswith(("box", "mask", "keypoints")) else BadAnnotation
            raise kind(f"{item.sample_id}: {rule}: {message}.")
    return row


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_CLIP:
            raise Unreadable(f"{path.name} has more than 1 GiB, which is no clip; cut it into shorter ones.")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{str(path)[:200]} cannot be read: {error.strerror or error}.") from None


def _merge(row: dict[str, Any], columns: Mapping[str, Any]) -> None:
    """Put columns into a row; those with parts (transcript, boxes, ...) part by part."""
    for key, value in columns.items():
        if isinstance(value, Mapping) and isinstance(row.get(key), Mapping):
            row[key] = {**row[key], **{part: told for part, told in value.items() if told is not None}}
        elif value is not None:
            row[key] = dict(value) if isinstance(value, Mapping) else value


def _sound(item: Item, clip: Any, content: bytes) -> dict[str, Any] | None:
    from jwb_dh_v1.media.audio import decode_audio

    if item.audio is None:
        audio = clip.audio
        if audio is None:
            return None
        late = audio.start - _first_frame(content)
        if late * clip.fps >= len(clip):
            raise BadAudio(f"The sound of {item.video.name} begins {late:g} s after the pictures, when they are over.")
        return {"bytes": _moved(audio, late).wav(), "path": f"{item.sample_id}.wav"}
    given = _content(item.audio)
    audio = decode_audio(given)
    if audio is None:
        raise BadAudio(f"{item.audio.name} holds no sound.")
    suffix = item.audio.suffix.lower()
    if suffix != ".flac" and not _is_wav16(given):
        given, suffix = audio.wav(), ".wav"
    return {"bytes": given, "path": f"{item.sample_id}{suffix}"}


def _moved(audio: Any, late: float) -> Any:
    """The track from the first frame on, where its first sample is `late` seconds after that (or before: cut off)."""
    import numpy as np

    shift = round(late * audio.rate)
    samples = np.pad(audio.samples, ((0, 0), (shift, 0))) if shift > 0 else audio.samples[:, -shift:]
    return type(audio)(samples, audio.rate)


def _first_frame(content: bytes) -> float:
    """When the first frame is shown, on the container's clock: not 0 in MPEG transport streams."""
    from jwb_dh_v1.media.probe import open_container

    with open_container(content) as container:
        stream = container.streams.video[0]
        return float((stream.start_time or 0) * stream.time_base)


def _is_wav16(content: bytes) -> bool:
    try:
        with wave.open(io.BytesIO(content)) as file:
            return bool(file.getsampwidth() == 2)
    except (wave.Error, EOFError):
        return False
