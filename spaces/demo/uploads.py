"""What users send: limits checked before anything is decoded, and zips unpacked with care."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from files import WORK

from jwb_dh_v1.analysis.wording import printable
from jwb_dh_v1.dataset.pairs import VIDEOS
from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.probe import VideoInfo, open_container, probe

MB = 2**20
FILE_BYTES = 100 * MB  # one upload
SECONDS = 60  # of a clip's pictures and of its sound
FRAMES = 900
SIDE = 1920  # longer side of the picture in pixels
PIXELS = 1920 * 1088
SMALLEST = 16  # shorter side in pixels
CLIPS = 20  # videos in a batch, on each side
BATCH_FRAMES = 4000  # of all generated videos of a batch
ENTRIES = 100  # in a zip
UNPACKED = 300 * MB  # of all entries of a zip, counted while they are read
RATIO = 30  # unpacked per packed byte of a zip; videos do not shrink
TEXT_BYTES = 20_000  # a transcript
TEXTS = (".txt",)
SOUNDS = (".wav", ".mp3", ".m4a", ".flac", ".ogg")


class Refused(JwbError):
    """An upload that is not taken; the message says why and what would be."""


def check_video(path: str | Path | None, what: str = "the video") -> VideoInfo:
    """A video's facts, if it is within the limits; it is not decoded (but for one frame, after its size is known).

    Raises:
        Refused: none was given, it is no video, or it is too large, long, wide, small or broken.

    """
    if not path:
        raise Refused(f"Choose {what} first.")
    path = Path(path)
    name = printable(path.name, 60)
    if not path.is_file():
        raise Refused(f"{name} is no longer here: files are deleted some time after their last use. Upload it again.")
    if path.stat().st_size > FILE_BYTES:
        raise Refused(f"{name} is larger than {FILE_BYTES // MB} MB.")
    if path.suffix.lower() not in VIDEOS:
        raise Refused(f"{name} is no video: its name must end in one of {', '.join(VIDEOS)}.")
    try:
        _check_streams(path, name)
        info = probe(path)
    except Refused:
        raise
    except JwbError as error:
        raise Refused(shown(error, path)) from None
    if info.fps <= 0 or info.frames / info.fps > SECONDS:
        raise Refused(f"{name} is longer than {SECONDS} s.")
    return info


def check_sound(path: str | Path | None, what: str = "a video or a sound") -> Path:
    """A file to be heard, within the limits. A video may be without sound.

    Raises:
        Refused: as `check_video`; a file that is no video has no sound.

    """
    if path and Path(path).suffix.lower() in VIDEOS:
        check_video(path)
        return Path(path)
    if not path:
        raise Refused(f"Choose {what} first.")
    path = Path(path)
    name = printable(path.name, 60)
    if path.suffix.lower() not in SOUNDS:
        raise Refused(f"{name} is neither video nor sound: its name must end in {', '.join((*VIDEOS, *SOUNDS))}.")
    if not path.is_file():
        raise Refused(f"{name} is no longer here. Upload it again.")
    if path.stat().st_size > FILE_BYTES:
        raise Refused(f"{name} is larger than {FILE_BYTES // MB} MB.")
    try:
        with open_container(path) as container:
            if not container.streams.audio:
                raise Refused(f"{name} has no sound.")
            _count(container, container.streams.audio[:1], name)
    except Refused:
        raise
    except JwbError as error:
        raise Refused(shown(error, path)) from None
    return path


def _check_streams(path: Path, name: str) -> None:
    """Picture size by the header, number of frames and length of sound by the packets: nothing is decoded for it."""
    with open_container(path) as container:
        if not container.streams.video:
            raise Refused(f"{name} has no video stream.")
        video = container.streams.video[0]
        width, height = video.codec_context.width, video.codec_context.height
        if not width or not height:
            raise Refused(f"{name} does not say how large its picture is, or it is beyond all measure.")
        if max(width, height) > SIDE or width * height > PIXELS:
            raise Refused(f"{name} is {width} x {height}: at most {SIDE} x {PIXELS // SIDE} are taken.")
        if min(width, height) < SMALLEST:
            raise Refused(f"{name} is {width} x {height}: at least {SMALLEST} pixels a side are needed.")
        _count(container, [video, *container.streams.audio[:1]], name)


def _count(container: Any, streams: Sequence[Any], name: str) -> None:
    """Stop at the first frame or second of sound too many."""
    import av

    frames, heard = 0, 0.0
    try:
        for packet in container.demux(streams):
            if packet.stream.type == "video":
                frames += packet.size > 0
            elif packet.size:
                length = float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0
                heard += length if length > 0 else 0.12  # the longest packet of Opus
            if frames > FRAMES:
                raise Refused(f"{name} has more than {FRAMES} frames.")
            if heard > SECONDS + 5:
                raise Refused(f"The sound of {name} is longer than {SECONDS} s.")
    except av.error.FFmpegError as error:
        raise Refused(f"{name} breaks off: {error.strerror}.") from None


def check_text(text: str | None) -> str | None:
    """A transcript without outer blanks, or None where there is none."""
    text = (text or "").strip()
    if len(text.encode("utf-8", "replace")) > TEXT_BYTES:
        raise Refused(f"The transcript is longer than {TEXT_BYTES} bytes.")
    return text or None


def shown(error: object, *paths: Path) -> str:
    """An error's sentence without any path of this machine."""
    text = str(error)
    for path in paths:
        text = text.replace(str(path), path.name)
    return printable(text.replace(str(WORK), "").replace(tempfile.gettempdir(), ""), 400)


def gather(files: Sequence[str] | None, folder: Path, endings: Sequence[str] = (*VIDEOS, *TEXTS)) -> list[Path]:
    """Put uploads, the content of zips among them, into a folder under their names.

    Raises:
        Refused: too many, two of one name, another kind of file, or a zip that is hostile or broken.

    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}

    def place(name: str) -> Path:
        path = folder / _safe_name(name, endings)
        if path.name.lower() in found:
            raise Refused(f"Two files are named {printable(path.name)}.")
        if len(found) == ENTRIES:
            raise Refused(f"There are more than {ENTRIES} files.")
        found[path.name.lower()] = path
        return path

    for file in files or ():
        source = Path(file)
        if source.suffix.lower() == ".zip":
            _unzip(source, place)
        elif source.is_file():
            target = place(source.name)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
        else:
            raise Refused(f"{printable(source.name)} is no longer here. Upload it again.")
    videos = [path for path in found.values() if path.suffix.lower() in VIDEOS]
    if len(videos) > CLIPS:
        raise Refused(f"There are {len(videos)} videos; at most {CLIPS} are scored at once.")
    return sorted(found.values())


def _safe_name(name: str, endings: Sequence[str]) -> str:
    base = PurePosixPath(name).name
    if not base or base.startswith(".") or not base.isprintable() or len(base.encode()) > 200:
        raise Refused(f"{printable(name)!r} is no name for a file here.")
    if PurePosixPath(base).suffix.lower() not in endings:
        raise Refused(f"{printable(base)} is not taken: only {', '.join(endings)} are.")
    return base


def _unzip(source: Path, place: Callable[[str], Path]) -> None:
    """Unpack a zip entry by entry; sizes are counted while reading, because headers may lie."""
    name = printable(source.name)
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(archive.infolist()) > ENTRIES:
                raise Refused(f"{name} holds more than {ENTRIES} entries.")
            total = 0
            for entry in entries:
                _check_entry(entry)
                with archive.open(entry) as packed, place(entry.filename).open("xb") as target:
                    here = 0
                    while block := packed.read(1 << 16):
                        here += len(block)
                        total += len(block)
                        if here > FILE_BYTES or total > UNPACKED or here > RATIO * max(entry.compress_size, 4096):
                            raise Refused(
                                f"{name} unpacks to too much: at most {FILE_BYTES // MB} MB a file, {UNPACKED // MB} "
                                f"MB in all, and {RATIO} times the packed size."
                            )
                        target.write(block)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error) as error:
        raise Refused(f"{name} cannot be unpacked: {printable(str(error), 120)}.") from None


def _check_entry(entry: zipfile.ZipInfo) -> None:
    path, shape = entry.filename, entry.external_attr >> 16
    if entry.flag_bits & 0x1:
        raise Refused(f"{printable(path)} is encrypted.")
    if stat.S_IFMT(shape) not in {0, stat.S_IFREG}:
        raise Refused(f"{printable(path)} is a link or a special file; only plain files are taken.")
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "\\")) or ".." in parts or ":" in path or "\0" in path:
        raise Refused(f"{printable(path)} points outside the zip.")
    if len(parts) > 2:
        raise Refused(f"{printable(path)} lies too deep: files at the top or in one folder are taken.")
