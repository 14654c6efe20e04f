"""Damaged videos through `Clip`: every one ends in frames or in a typed error, without crash, hang or leak.

    python benchmarks/fuzz.py [--videos 5000] [--seed 0] [--isolated] [--only NUMBER --keep FILE]

Real clips of the teaser's media and tiny ones of every codec at hand are cut, flipped, spliced and given wrong atom
sizes, by seed; beside them lie files that are no video at all. Child processes read facts, frames and sound of one
file after the other. A child that crashes, or takes longer than the limit, is noted with the number that makes the file
again, and replaced. With `--isolated` the run's own decoding process (`jwb_dh_v1.media.worker`) stands between: there a
crash or a hang is a typed error as well. The exit code is 1 on an untyped error, a wrong number of frames or a leak; on
a crash or a hang too if isolated (without isolation they are the libraries' own, and reported).
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT = 20.0  # seconds for a file
BATCH = 500  # files for a child; memory and open files are compared over them
LAST = 100  # of a batch; it is read twice, and what is held at least during the last files of each time is compared
GROWTH = 40  # MB a process; seen: 0 to 36, all of it fragments between threads (none with MALLOC_ARENA_MAX=1)
MEMORY = 8 << 30  # bytes of address space of a child: a header may promise any picture
WORDS = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ATOMS = (b"ftyp", b"moov", b"mdat", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"stsc", b"stsz", b"stco",
         b"ctts", b"stss", b"elst", b"tkhd", b"mvhd", b"mdhd", b"hdlr", b"avcC", b"esds", b"LIST", b"idx1", b"avih",
         b"strh", b"strf")  # fmt: skip
TINY = tuple(
    line.split()
    for line in """\
    libx264 mp4 aac         |libx264 mov pcm_s16le      |libx264 matroska libopus   |libx264 mpegts aac
    libx264 flv aac         |mpeg4 avi libmp3lame       |mpeg4 mp4 aac              |libvpx webm libopus
    libvpx-vp9 webm libopus |libsvtav1 mp4 aac          |libx265 mp4 aac            |mjpeg avi pcm_s16le
    mjpeg mov               |ffv1 matroska              |prores mov                 |gif gif
    flv flv                 |- mp3 libmp3lame           |- wav pcm_s16le            |- ogg libopus""".replace(
        "|", "\n"
    ).splitlines()
)  # codec of the pictures (-: none), container, codec of the sound


def tiny(path: Path, codec: str, container: str, sound: str = "") -> None:
    """Twelve frames of 96 x 64 in one codec and container, with a tone."""
    import av

    with av.open(str(path), "w", format=container) as out:
        stream = None if codec == "-" else out.add_stream(codec, rate=12)
        if stream is not None:
            stream.width, stream.height = 96, 64
            forms = {"mjpeg": "yuvj420p", "gif": "rgb8", "prores": "yuv422p10le"}
            stream.pix_fmt = forms.get(codec, "yuv420p")
        track = out.add_stream(sound, rate=48000, layout="mono") if sound else None
        ramp = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
        for number in range(12 if stream is not None else 0):
            picture = np.stack([np.roll(ramp, 5 * number, 1), ramp, ramp[::-1]], -1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)))
        if stream is not None:
            out.mux(stream.encode(None))
        if track is not None:
            tone = (8000 * np.sin(np.arange(48000) / 20)).astype(np.int16)
            fifo, convert = av.AudioFifo(), av.AudioResampler(track.codec_context.format.name, "mono", 48000)
            frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            frame.sample_rate = 48000
            for block in convert.resample(frame):
                fifo.write(block)
            for block in fifo.read_many(track.codec_context.frame_size or 1024, partial=True):
                out.mux(track.encode(block))
            out.mux(track.encode(None))


def sources(room: Path) -> dict[str, bytes]:
    """The whole files by name: tiny ones, the first frames of the teaser's media small, and the media themselves."""
    import av

    from jwb_dh_v1.errors import JwbError
    from jwb_dh_v1.media.audio import decode_audio
    from jwb_dh_v1.media.clip import Clip
    from jwb_dh_v1.media.video import write_mp4
    from jwb_dh_v1.networks.weights import FILES, resolve

    found = {}
    for codec, container, *sound in TINY:
        path = room / f"{codec.strip('-')}-{container}"
        try:
            tiny(path, codec, container, *sound)
        except (av.error.FFmpegError, ValueError) as error:
            print(f"left out: {codec} in {container} ({error})")
            continue
        found[path.name] = path.read_bytes()
    for name, file in FILES.items():
        if file.kind != "media":
            continue
        try:
            path = resolve(name)
            clip = Clip(path)
            small = np.stack([next(clip.chunks(16))[:, ::4, ::4]])[0]
            write_mp4(room / f"small-{name}", small, clip.fps, decode_audio(path), preset="ultrafast")
        except JwbError:
            continue  # not here, or a picture or a sound
        found[f"small-{name}"] = (room / f"small-{name}").read_bytes()
        if path.stat().st_size < 1 << 20:
            found[name] = path.read_bytes()
    png = room / "one.png"
    import cv2

    cv2.imwrite(str(png), np.zeros((64, 96, 3), np.uint8))
    found["png"] = png.read_bytes()
    return found


def damaged(whole: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The file of a number: (what was done to what, content)."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(sorted(whole))
    content = bytearray(whole[name])
    how = rng.choices(("flip", "head", "cut", "swap", "splice", "atom", "word", "repeat", "drop", "noise", "empty"),
                      (6, 6, 4, 4, 4, 6, 6, 2, 2, 1, 0.2))[0]  # fmt: skip
    size = len(content)
    if how in {"flip", "head"}:
        reach = size if how == "flip" else min(size, 4096)
        at_end = how == "head" and rng.random() < 0.5  # many files have their index at the end
        for _ in range(rng.choice((1, 1, 2, 5, 20, 100))):
            place = rng.randrange(reach)
            content[size - 1 - place if at_end else place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[rng.randrange(size) :]
    elif how == "swap":
        block = rng.choice((16, 256, 2048))
        one, other = (rng.randrange(max(1, size - block)) for _ in range(2))
        content[one : one + block], content[other : other + block] = content[other : other + block], content[one : one + block]  # noqa: E501 # fmt: skip
    elif how == "splice":
        other = whole[rng.choice(sorted(whole))]
        content[rng.randrange(size) :] = other[rng.randrange(len(other)) :]
    elif how == "atom":
        places = [at for atom in ATOMS for at in _places(content, atom) if at >= 4]
        for at in rng.sample(places, min(len(places), rng.randint(1, 3))):
            old = struct.unpack_from(">I", content, at - 4)[0]
            struct.pack_into(">I", content, at - 4, rng.choice((*WORDS, old - 1, old + 1, old * 2, old // 2, size)) & 0xFFFFFFFF)  # noqa: E501 # fmt: skip
    elif how == "word":
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(max(1, min(size, 65536) - 4))
            if rng.random() < 0.5:
                at = max(0, size - 5 - at)
            content[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(WORDS))
    elif how in {"repeat", "drop"}:
        at, length = rng.randrange(size), rng.choice((1, 7, 188, 4096))
        content[at : at + length] = content[at : at + length] * 2 if how == "repeat" else b""
    elif how == "noise":
        content = bytearray(content[: rng.choice((0, 32, 64))] + rng.randbytes(rng.randint(1, 20000)))
    else:
        content = bytearray()
    return f"{how} {name}", bytes(content)


def _places(content: bytearray, atom: bytes) -> list[int]:
    found, at = [], content.find(atom)
    while at >= 0:
        found.append(at)
        at = content.find(atom, at + 1)
    return found


def examine(path: Path, decoder: object | None) -> str:
    """Facts, frames and sound of a file: `frames`, the error's name, or (a violation) `UNTYPED ...`."""
    from jwb_dh_v1.errors import SampleError
    from jwb_dh_v1.media.clip import Clip

    said = []
    clip = Clip(path)
    if decoder is not None:
        clip.decode_in_worker(decoder)  # type: ignore[arg-type]
    for step in ("frames", "sound"):
        try:
            if step == "sound":
                _ = clip.audio
                continue
            seen = 0
            for chunk in clip.chunks(8):
                if chunk.dtype != np.uint8 or chunk.shape[1:] != (clip.size[1], clip.size[0], 3):
                    return f"UNTYPED frames {chunk.dtype} {chunk.shape} of {clip.info}"
                seen += len(chunk)
            said.append("frames" if seen == clip.info.frames > 0 else f"UNTYPED {seen} of {clip.info.frames} frames")
        except SampleError as error:
            said.append(f"{type(error).__name__}{' ' + str(error) if type(error).__name__ == 'Unexpected' else ''}")
        except Exception as error:  # noqa: BLE001 - what is looked for
            said.append(f"UNTYPED {type(error).__name__}: {error}")
    if decoder is not None:
        clip.decode_in_worker(None)
    return said[0] if len(said) == 1 or said[0] == said[1] else f"{said[0]}, sound {said[1]}"


def child(room: Path, seed: int, numbers: range, isolated: bool) -> None:
    """Examine files one after the other; a line before and a line after each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    whole = {path.name: path.read_bytes() for path in sorted((room / "whole").iterdir())}
    path = room / f"now-{os.getpid()}.mp4"
    decoder = None
    if isolated:
        from jwb_dh_v1.media.worker import Decoder

        decoder = Decoder(patience=LIMIT)
    again = list(numbers) if len(numbers) == BATCH else []
    for turn, number in enumerate([*numbers, *again]):
        path.write_bytes(damaged(whole, seed, number)[1])
        print(f"begin {number}", flush=True)
        outcome = examine(path, decoder).replace("\n", " ")
        held = [_held("self")] + ([_held(str(decoder.pid))] if decoder is not None and decoder.pid else [])
        print(
            "done" if turn < len(numbers) else "again", number, *map(sum, zip(*held, strict=True)), outcome, flush=True
        )
    path.unlink()


def _held(process: str) -> tuple[int, int, int]:
    """MB of memory, open files and threads of a process."""
    place = Path("/proc") / process
    pages = int((place / "statm").read_text().split()[1])
    return pages * 4096 >> 20, len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))


class Report:
    """What was seen."""

    def __init__(self) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.broken: list[str] = []  # violations
        self.library: list[str] = []  # crashes and hangs
        self.grown: list[tuple[int, ...]] = []  # MB, files, threads over a whole batch
        self.slowest = (0.0, -1)


def batch(room: Path, seed: int, numbers: range, isolated: bool, report: Report) -> int:
    """Run one child; the number to go on with."""
    command = [sys.executable, __file__, "--child", str(room), str(seed), str(numbers.start), str(numbers.stop)]
    command += ["--isolated"] if isolated else []
    with (
        (room / "stderr").open("wb") as noise,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise) as process,
    ):
        assert process.stdout is not None
        handle, rest, now, since = process.stdout.fileno(), b"", -1, time.monotonic()
        seen: list[tuple[int, int, int]] = []
        while True:
            patience = 4 * LIMIT if isolated or now < 0 else LIMIT  # isolated, the decoder's own patience comes first
            if not select.select([handle], [], [], max(0.0, since + patience - time.monotonic()))[0]:
                process.kill()
                report.outcomes["hang"] += 1
                report.library.append(f"file {now} hangs")
                return now + 1 if now >= 0 else numbers.stop
            received = os.read(handle, 1 << 16)
            if not received:
                break
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                word, number, *facts = line.decode(errors="replace").split(" ", 5)
                now, spent, since = int(number), time.monotonic() - since, time.monotonic()
                if word != "begin":
                    report.slowest = max(report.slowest, (spent, now))
                    seen.append((int(facts[0]), int(facts[1]), int(facts[2])))
                if word == "done":
                    outcome = facts[3]
                    if "UNTYPED" in outcome or "Unexpected" in outcome:
                        report.broken.append(f"file {now}: {outcome}")
                        outcome = "untyped"
                    report.outcomes[outcome] += 1
        code = process.wait()
    if len(seen) == 2 * BATCH:
        first, last = (zip(*seen[at - LAST : at], strict=True) for at in (BATCH, 2 * BATCH))
        report.grown.append(tuple(min(after) - min(before) for before, after in zip(first, last, strict=True)))
    if code:
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        report.outcomes[f"crash {name}"] += 1
        report.library.append(f"file {now} ends its process: {name}")
        return max(now, numbers.start) + 1
    return numbers.stop


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isolated", action="store_true", help="through the run's decoding process")
    parser.add_argument("--only", type=int, help="make the file of this number, and say what becomes of it")
    parser.add_argument("--keep", type=Path, help="where to")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        room, *numbers = args.child
        child(Path(room), int(numbers[0]), range(int(numbers[1]), int(numbers[2])), args.isolated)
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        room = Path(folder)
        (room / "made").mkdir()
        (room / "whole").mkdir()
        whole = sources(room / "made")
        for name, content in whole.items():
            (room / "whole" / name).write_bytes(content)
        if args.only is not None:
            what, content = damaged(whole, args.seed, args.only)
            (args.keep or room / "kept").write_bytes(content)
            print(f"file {args.only}: {what}, {len(content)} bytes")
        report, begun = Report(), time.monotonic()
        at, stop = (0, args.videos) if args.only is None else (args.only, args.only + 1)
        while at < stop:
            at = batch(room, args.seed, range(at, min(stop, at + BATCH)), args.isolated, report)
        for line in [*report.library, *report.broken]:
            print(f"{line} ({damaged(whole, args.seed, int(line.split()[1].rstrip(':')))[0]})")
    for outcome, times in report.outcomes.most_common():
        print(f"{times:6d}  {outcome}")
    if report.grown:
        worst = [max(values) for values in zip(*report.grown, strict=True)]
        print(
            f"growth of a child that reads {BATCH} files again, worst of {len(report.grown)}: {worst[0]} MB, "
            f"{worst[1]} open files, {worst[2]} threads"
        )
        if worst[0] > GROWTH * (1 + args.isolated) or worst[1] > 0:
            report.broken.append("leak")
    print(f"{report.outcomes.total()} files of {len(whole)} kinds, {len(report.library)} crashes and hangs, "
          f"{len(report.broken)} violations, slowest {report.slowest[0]:.1f} s (file {report.slowest[1]}), "
          f"{time.monotonic() - begun:.0f} s, seed {args.seed}")  # fmt: skip
    return 1 if report.broken or (args.isolated and report.library) else 0


if __name__ == "__main__":
    sys.exit(main())
