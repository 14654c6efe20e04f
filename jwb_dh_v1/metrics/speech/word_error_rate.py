"""WER: whether the words can be understood, by the ear of a speech recogniser.

Texts are compared by the profile `jwb_v1` (`wer_profiles.py`). A clip without sound, or with a silent track, said none
of its words: all are deleted, WER 1. The recogniser's own errors are in every value, so the real clip is heard by the
same ear, and its WER is reported next to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jwb_dh_v1.errors import NotApplicable, SampleError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.metric import INF, TRANSCRIPT, Metric
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean, WordErrorState
from jwb_dh_v1.metrics.wer import Errors, errors
from jwb_dh_v1.metrics.wer_profiles import base
from jwb_dh_v1.networks import whisper, whisper_large

Recognize = Callable[[Clip, str], str]  # clip and language -> the words heard


def word_errors(reference: str, hypothesis: str | None, language: str = "en") -> dict[str, Any]:
    """The facts of one clip's word errors by the profile `jwb_v1`: see `Errors.facts`.

    Raises:
        NotApplicable: the reference has no words.

    """
    return errors(reference, hypothesis, language=language).facts()


def lite_wer(sample: Sample) -> WordErrorState:
    """Word errors as Whisper tiny.en hears the clip; it hears English only.

    Raises:
        NotApplicable: no transcript, one without words, or another language than English (unless the words heard were
            given).
        BadAudio: the sound cannot be decoded.

    """
    return _words(*_measure(sample, _tiny)[:2])


def lite_wer_facts(sample: Sample) -> dict[str, Any]:
    """`Errors.facts` and what `_facts` adds, by Whisper tiny.en."""
    return _facts(sample, _tiny)


def wer(sample: Sample) -> WordErrorState:
    """Word errors as Whisper large-v3 hears the clip, told the transcript's language.

    Raises:
        NotApplicable: no transcript, or one without words.
        BadAudio: the sound cannot be decoded.

    """
    return _words(*_measure(sample, _large)[:2])


def wer_facts(sample: Sample) -> dict[str, Any]:
    """`Errors.facts` and what `_facts` adds, by Whisper large-v3."""
    return _facts(sample, _large)


def _tiny(clip: Clip, language: str) -> str:
    return whisper.text_of(clip)


def _large(clip: Clip, language: str) -> str:
    return whisper_large.text_of(clip, language)


def _facts(sample: Sample, recognize: Recognize) -> dict[str, Any]:
    """The errors' facts, the words heard, the flag `no_speech` for a missing or silent track, the real clip's WER.

    `given` says that the words heard came with the sample; there is no WER of the real clip then, as no recognizer was
    asked.
    """
    found, reference_wer, heard = _measure(sample, recognize)
    facts = found.facts()
    given = sample.hypothesis is not None
    if not given and _mute(sample.generated):
        facts["flags"].append("no_speech")
    return facts | {"heard": heard, "given": given, "floor": reference_wer.value() if reference_wer.n else None}


def _measure(sample: Sample, recognize: Recognize) -> tuple[Errors, Mean, str]:
    """Errors of the generated clip, the real clip's rate if it can be had, and the words as they were heard."""
    if sample.transcript is None:
        raise NotApplicable("there is no transcript")
    said, language = sample.transcript, base(sample.language)
    if not errors(said, "", language=language).counts.units:
        raise NotApplicable("the transcript has no words")
    if sample.hypothesis is not None:
        return errors(said, sample.hypothesis, language=language), Mean(), sample.hypothesis
    if recognize is _tiny and language != "en":  # silent clips would be all that is scored in another language
        raise NotApplicable(f"Whisper tiny.en hears English only, the transcript is in {sample.language!r}")
    heard = "" if _mute(sample.generated) else recognize(sample.generated, language)
    return errors(said, heard, language=language), _reference_wer(sample, said, recognize, language), heard


def _mute(clip: Clip) -> bool:
    return clip.audio is None or clip.audio.silent


def _reference_wer(sample: Sample, said: str, recognize: Recognize, language: str) -> Mean:
    """The real clip's rate; nothing where it says nothing or cannot be heard, which is not the sample's fault."""
    try:
        if sample.reference is None or _mute(sample.reference):
            return Mean()
        return Mean.of(errors(said, recognize(sample.reference, language), language=language).rate)
    except (SampleError, NotApplicable):
        return Mean()


def _words(found: Errors, reference_wer: Mean) -> WordErrorState:
    rate, counts = Mean.of(found.rate), found.counts
    return WordErrorState(
        rate.total,
        rate.n,
        reference_wer=reference_wer,
        substitutions=counts.substitutions,
        deletions=counts.deletions,
        insertions=counts.insertions,
        units=counts.units,
        by_character=int(found.unit == "character"),
        unheard=int(found.empty_hypothesis),
        hallucinations=int(found.hallucination),
    )


WER = Metric(
    "wer",
    wer,
    higher_is_better=False,
    range=(0, INF),
    needs=TRANSCRIPT,
    weights=(
        "whisper-large-v3",
        "whisper-large-v3/config.json",
        "whisper-large-v3/generation_config.json",
        "whisper-large-v3/tokenizer.json",
    ),
    networks="Whisper large-v3",
    regions=("speech",),
    facts=wer_facts,
)
METRICS = {
    "standard": (WER,),
    "paper": (replace(WER, networks="Whisper large-v3 (assumed: the authors' speech protocol is not public)"),),
    "lite": (
        replace(
            WER,
            function=lite_wer,
            weights=("whisper-tiny.en", "whisper-tiny.en/config.json", "whisper-tiny.en/tokenizer.json"),
            networks="Whisper tiny.en",
            facts=lite_wer_facts,
        ),
    ),
}
