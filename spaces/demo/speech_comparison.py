"""A video's speech beside a baseline's, as far as it goes without a judge: length, loudness, and the words heard.

Loudness is the integrated loudness of ITU-R BS.1770-4 of the mono signal at 16 kHz, as the judge measures it before it
brings both recordings to one level. Words are those of Whisper tiny.en, compared by the profile `jwb_v1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uploads import SOUNDS, Refused, check_sound

from jwb_dh_v1.analysis.wording import printable
from jwb_dh_v1.dataset.pairs import VIDEOS
from jwb_dh_v1.errors import MissingPackage, MissingWeights, NotApplicable
from jwb_dh_v1.judge.request import TARGET_LUFS, prepare
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.probe import open_container
from jwb_dh_v1.metrics.speech import word_errors

FILES = [*VIDEOS, *SOUNDS]
WORDS = ("wer", "substitutions", "deletions", "insertions", "words", "reference", "hypothesis", "flags")
LOUDER = 3.0  # LU that are worth a word
LONGER = 1.25  # ratio of lengths that is
whisper: list[Any] = []  # the recogniser, once it was loaded


def check(path: str) -> Path:
    """A baseline within the limits.

    Raises:
        Refused: as `check_sound`, or it has no sound.

    """
    found = check_sound(path, "the baseline")
    with open_container(found) as container:
        if not container.streams.audio:
            raise Refused(f"The baseline has no sound: {printable(found.name, 60)}.")
    return found


def recognise(audio: Audio) -> str:
    """The words Whisper tiny.en hears; none in silence."""
    if audio.silent:
        return ""
    if not whisper:
        from jwb_dh_v1.networks.weights import resolve_all
        from jwb_dh_v1.networks.whisper import load_tiny_en

        names = ("whisper-tiny.en", "whisper-tiny.en/config.json", "whisper-tiny.en/tokenizer.json")
        whisper.append(load_tiny_en(resolve_all(names)))
    return str(whisper[0].transcribe(audio.mono(16000)))


def compare(
    video: Path, baseline: Path, transcript: str | None, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Facts of both recordings.

    Args:
        video: the generated video; it may have no sound.
        baseline: a video or a sound.
        transcript: the words that should be heard; without them no words are compared.
        known: word errors of the video by the same recogniser, if they were computed before.

    Returns:
        `generated` and `baseline`, each with `seconds` (null: no sound), `lufs` (null: silent, or not measured),
        `silent`, and where words were compared those of `WORDS`; and `remarks`.

    """
    sounds = {"generated": decode_audio(video), "baseline": decode_audio(baseline)}
    facts: dict[str, Any] = {}
    notes: list[str] = []
    hashes = []
    for side, audio in sounds.items():
        facts[side] = {"seconds": None, "lufs": None, "silent": True}
        if audio is None:
            continue
        facts[side] = {"seconds": audio.duration, "lufs": None, "silent": audio.silent}
        try:
            ready = prepare(audio)
        except MissingPackage as error:
            notes.append(str(error))
            continue
        facts[side] |= {"lufs": ready.lufs, "silent": ready.silent}
        hashes.append(ready.sha256)
    if transcript:
        try:
            for side, audio in sounds.items():
                found = known if side == "generated" and known else None
                if found is None:
                    found = word_errors(transcript, None if audio is None else recognise(audio))
                facts[side] |= {name: found[name] for name in WORDS}
        except MissingWeights:
            notes.append("Words were not compared: the recogniser's weights are not on this machine.")
        except NotApplicable as error:
            notes.append(f"Words were not compared: {error}.")
    return facts | {"remarks": [*remarks(facts, hashes), *dict.fromkeys(notes)]}


def remarks(facts: Mapping[str, Any], hashes: Sequence[str]) -> list[str]:
    """What a listener should know before comparing the two; `hashes` are of the sounds as a judge hears them."""
    ours, theirs = facts["generated"], facts["baseline"]
    said = []
    if "wer" in ours and "wer" in theirs:
        one, two = ours["wer"], theirs["wer"]
        than = "as in" if one == two else "fewer than in" if one < two else "more than in"
        said.append(f"Word errors: {100 * one:.1f} % in the video, {than} the baseline ({100 * two:.1f} %).")
    if theirs["silent"]:
        return [*said, "Nothing is to be heard in the baseline: a judge would not be asked."]
    if ours["silent"]:
        return [*said, "Nothing is to be heard in the video: it loses, and a judge would not be asked."]
    if len(hashes) == 2 and hashes[0] == hashes[1]:
        return [*said, "Both have the same sound: a judge would not be asked, it is a tie."]
    if ours["lufs"] is not None and theirs["lufs"] is not None and abs(ours["lufs"] - theirs["lufs"]) >= LOUDER:
        more = "louder" if ours["lufs"] > theirs["lufs"] else "quieter"
        said.append(
            f"The video is {abs(ours['lufs'] - theirs['lufs']):.1f} LU {more} than the baseline; a judge hears both at "
            f"{TARGET_LUFS:g} LUFS."
        )
    longer = max(ours["seconds"], theirs["seconds"]) / max(min(ours["seconds"], theirs["seconds"]), 1e-3)
    if longer >= LONGER:
        said.append(
            f"The video's sound lasts {ours['seconds']:.1f} s, the baseline's {theirs['seconds']:.1f} s: "
            "do both read the same text?"
        )
    return said
