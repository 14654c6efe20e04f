"""The teaser: a small real dataset in JWB-DH-V1's layout, made on the user's machine from media inside packages.

Four people in eight clips. One of them (Obama, White House statement of 14 July 2015) speaks with his own voice; the
others are silent videos onto which clean read speech is muxed (the opening of "A Tale of Two Cities", 1859), marked
`speech="muxed"`: their words are valid, their lips are not. The media are fetched by hash (`weights.FILES`) and never
redistributed; the cuts below fall into pauses of the speech, found with Whisper's word times and looked at by hand.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, DETECTOR_WEIGHTS, Detector, detector
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.dataset.build.systems import PARQUET, is_complete, write_manifest
from jwb_dh_v1.dataset.parquet import config_header
from jwb_dh_v1.dataset.parquet import write_rows
from jwb_dh_v1.dataset.schema import POSE, SCHEMA_VERSION, WORD_MOTION, annotation_columns
from jwb_dh_v1.dataset.build.systems import make_systems as make_systems
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.networks.whisper import Whisper, load_tiny_en
from jwb_dh_v1.media.video import portable_code, read_frames, write_mp4
from jwb_dh_v1.networks.weights import FILES, resolve_all
from jwb_dh_v1.files import sha256_of, write_atomically

VERSION = 4  # moves when any byte of the teaser can move
MANIFEST = "teaser.json"
RATE = 24000  # Hz: that of Obama's track; the read speech is brought down to it
WHISPER = ("whisper-tiny.en", "whisper-tiny.en/config.json", "whisper-tiny.en/tokenizer.json")


@dataclass(frozen=True)
class Cut:
    """One sample: `frames` frames of a video from frame `first` on, with speech.

    `spoken` is the span of `two-cities` in seconds that is muxed on, or None for the video's own sound.
    """

    sample_id: str
    identity_id: str
    media: str
    first: int
    frames: int
    text: str
    motion_text: str
    spoken: tuple[float, float] | None = None


# fmt: off
CUTS = (
    Cut("obama-1", "obama", "obama-speech", 0, 48, "Today, after two years of negotiations,",
        "A man in a dark suit speaks at a lectern, turns his head and lifts a hand; another man stands beside him."),
    Cut("obama-2", "obama", "obama-speech", 48, 46, "the United States, together with our international partners,",
        "A man in a dark suit speaks at a lectern and raises a hand in front of him; another man stands beside him."),
    Cut("pexels-1", "pexels-woman", "pexels-woman", 0, 80,
        "it was the age of wisdom, it was the age of foolishness,",
        "A woman with long hair closes her eyes in grief and brings a hand to her mouth.", (4.93, 8.26)),
    Cut("pexels-2", "pexels-woman", "pexels-woman", 80, 72, "it was the spring of hope, it was the winter of despair,",
        "A woman with long hair weeps into her hand, then looks up and takes it to her cheek.", (17.5, 20.5)),
    Cut("pexels-3", "pexels-woman", "pexels-woman", 290, 72, "we had everything before us, we had nothing before us,",
        "A woman with long hair laughs and looks to the side.", (21.15, 24.1)),
    Cut("pyfeat-1", "pyfeat-man", "pyfeat-man", 0, 72, "it was the season of Light,",
        "A man in a black shirt faces the camera and begins to smile broadly.", (13.3, 15.0)),
    Cut("carphone-1", "carphone-man", "carphone", 0, 60, "it was the epoch of belief,",
        "A man in a dinner jacket talks in a moving car and raises his eyebrows.", (8.66, 10.5)),
    Cut("carphone-2", "carphone-man", "carphone", 60, 60, "it was the season of Darkness,",
        "A man in a dinner jacket talks in a moving car, moving and tilting his head.", (15.0, 16.9)),
)
# fmt: on
MEDIA = sorted({cut.media for cut in CUTS} | {"two-cities"})


def make_teaser(folder: Path, say: Callable[[str], None] = print) -> None:
    """Write the teaser into `folder`, which `datasets.load_dataset` opens by its name when that is `jwb-dh-v1`.

    A folder that is already complete is left alone. The same package versions write the same clips and sounds
    on every x86-64 processor; boxes and word times are what the networks find there.

    Args:
        folder: `.../jwb-dh-v1`; made where it is missing. Only files of the teaser in it are replaced.
        say: takes one line at a time about what is being done.

    Raises:
        MissingWeights, WrongHash: a medium or a network is not in the cache; `jwb-dh weights fetch` brings it.
        MissingPackage: the extra `lite` is not installed.

    """
    if teaser_is_complete(folder):
        say(f"teaser: {folder} is complete")
        return
    found = resolve_all([*MEDIA, *WHISPER, *DETECTOR_WEIGHTS["mediapipe"], *ANNOTATE_WEIGHTS])
    say(f"teaser: making {len(CUTS)} clips of {len({c.identity_id for c in CUTS})} people in {folder}")
    whisper = load_tiny_en(found)
    boxes = detector("mediapipe", found)
    rows = []
    for cut in CUTS:
        rows.append(make_row(cut, found, whisper, boxes))
        say(f"teaser: {cut.sample_id}: {cut.frames} frames, “{cut.text}”")
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / PARQUET).parent.mkdir(parents=True, exist_ok=True)
    write_rows(rows, folder / PARQUET)
    write_atomically(folder / "README.md", _card(sha256_of(folder / PARQUET)))
    write_manifest(folder, MANIFEST, _facts(), [PARQUET, "README.md"])
    say(f"teaser: {(folder / PARQUET).stat().st_size / 1e6:.1f} MB written")


def teaser_is_complete(folder: Path) -> bool:
    """Whether `folder` holds the teaser as this version makes it, unaltered."""
    return is_complete(folder, MANIFEST, _facts())


def _facts() -> dict[str, Any]:
    """What the teaser is made of and by."""
    from jwb_dh_v1.networks.detectors.mediapipe import MediaPipe

    return {
        "version": VERSION,
        "schema_version": SCHEMA_VERSION,
        "cuts": hashlib.sha256(repr(CUTS).encode()).hexdigest(),
        "annotations": MediaPipe.name,
        "sources": {name: FILES[name].sha256 for name in [*MEDIA, *WHISPER]},
    }


def make_media(cut: Cut, found: Mapping[str, Path]) -> tuple[bytes, bytes]:
    """The sound of a cut as a WAV file and its clip as an MP4 file: the same bytes on every x86-64 processor."""
    source = found[cut.media]
    rate = _rate(source)
    seconds = float(cut.frames / rate)
    begin, end = cut.spoken or (float(cut.first / rate), float(cut.first / rate) + seconds)
    with portable_code():
        speech = _speech(found["two-cities"] if cut.spoken else source)
    wav = speech.cut(begin, end).cut(0.0, seconds).wav()
    audio = _decoded(wav, cut.sample_id)  # the 16-bit samples that users get are also what is encoded into the MP4
    frames = read_frames(source)[cut.first : cut.first + cut.frames]
    with tempfile.TemporaryDirectory() as room:
        write_mp4(Path(room) / "clip.mp4", frames, rate, audio, portable=True)
        return wav, (Path(room) / "clip.mp4").read_bytes()


def make_row(cut: Cut, found: Mapping[str, Path], whisper: Whisper, boxes: Detector) -> dict[str, Any]:
    """One row of the teaser, as `schema.features` says but with key points as an array.

    Args:
        cut: what to make.
        found: verified paths of the media by name.
        whisper: gives the words their times.
        boxes: finds the person, with the weights for `full`.

    """
    wav, content = make_media(cut, found)
    audio = _decoded(wav, cut.sample_id)
    clip = Clip(content)  # what ships is annotated, not what it was made from
    width, height = clip.size
    if len(clip) != cut.frames:
        raise SetupError(f"{cut.sample_id} decodes to {len(clip)} frames, {cut.frames} were written.")
    annotations = boxes.detect([clip.frames], clip.fps, full=True)
    annotations.check(cut.frames, width, height)
    words = [
        {**asdict(w), "source": WHISPER[0], "motion": dict.fromkeys(WORD_MOTION)}
        for w in whisper.words(audio.mono(), cut.text)
    ]
    file = FILES[cut.media]
    licence, provenance = file.licence, str(file.sources[0])
    provenance += f", frames {cut.first}-{cut.first + cut.frames - 1}"
    if cut.spoken:
        licence += f"; speech: {FILES['two-cities'].licence}"
        provenance += f"; speech: {FILES['two-cities'].sources[0]}, {cut.spoken[0]:.2f}-{cut.spoken[1]:.2f} s"
    return {
        "schema_version": SCHEMA_VERSION,
        "sample_id": cut.sample_id,
        "identity_id": cut.identity_id,
        "video": {"bytes": content, "path": f"{cut.sample_id}.mp4"},
        "video_sha256": hashlib.sha256(content).hexdigest(),
        "audio": {"bytes": wav, "path": f"{cut.sample_id}.wav"},
        "fps": clip.fps,
        "num_frames": len(clip),
        "height": height,
        "width": width,
        "motion_text": cut.motion_text,
        "pose": dict.fromkeys(POSE),
        "transcript": {"text": cut.text, "language": "en", "words": words},
        **annotation_columns(annotations),
        "speech": "muxed" if cut.spoken else "own",
        "provenance": provenance,
        "licence": licence,
    }


def _rate(source: Path) -> Fraction:
    import av

    with av.open(str(source)) as container:
        return Fraction(container.streams.video[0].average_rate)


def _speech(source: Path) -> Audio:
    return Audio(_decoded(source, source.name).mono(RATE)[np.newaxis], RATE)


def _decoded(source: Path | bytes, name: str) -> Audio:
    audio = decode_audio(source)
    if audio is None:
        raise SetupError(f"{name} has no sound.")
    return audio


def _card(content: str) -> str:
    """The README of the folder; its YAML header is what `datasets` reads."""
    people = len({cut.identity_id for cut in CUTS})
    sources = "\n".join(
        f"| `{name}` | {FILES[name].sources[0]} | {FILES[name].licence} | `{FILES[name].sha256[:12]}` |"
        for name in MEDIA
    )
    return f"""---
pretty_name: JWB-DH-V1 teaser
license: other
language: [en]
size_categories: [n<1K]
tags: [video, audio, digital-human, avatar, benchmark]
configs:
{config_header("evaluation", "evaluation", "evaluation/*.parquet", content, default=True)}
---

# JWB-DH-V1 teaser

{len(CUTS)} clips of {people} people in the layout of JWB-DH-V1 (schema {SCHEMA_VERSION}).
`jwb-dh teaser` made them on this machine from media inside published packages. These are **not** the benchmark's data:
scores on them are for trying the tools, not for comparing with published ones.

- `speech` is `own` where the person's voice is heard, `muxed` where read speech was laid onto a silent clip: its
  words are valid, its lip sync is not.
- Word times are those of Whisper tiny.en for the given text. `motion` is not known (null).
- Boxes, key points and masks were found by the detector that `annotation_source` names; no one corrected them.

| medium | from | licence as stated there | sha256 |
|---|---|---|---|
{sources}

Do not pass the folder on before the rights in each medium are settled for your use.
"""
