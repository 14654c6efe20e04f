"""WER: whether the words can be understood, by the ear of a speech recogniser."""

from __future__ import annotations

from functools import cache
from typing import Any

from jwb_dh_v1 import features
from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.state import Mean


@cache
def _normaliser() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Whisper's English normalisation, without tokens that hold no letter or digit (it leaves "." of "...")."""
    return " ".join(word for word in _normaliser()(text).split() if any(c.isalnum() for c in word))


def word_errors(reference: str, hypothesis: str) -> dict[str, Any]:
    """Word errors after Whisper's English normalisation.

    Returns:
        `wer` (errors per reference word, may pass 1), `substitutions`, `deletions`, `insertions`, `words` (of the
        reference), and both normalised texts.

    Raises:
        NotApplicable: the reference has no words.

    """
    import jiwer

    said, heard = (normalise(text) for text in (reference, hypothesis))
    if not said:
        raise NotApplicable("the transcript has no words")
    out = jiwer.process_words(said, heard)
    return {
        "wer": (out.substitutions + out.deletions + out.insertions) / len(said.split()),
        "substitutions": out.substitutions,
        "deletions": out.deletions,
        "insertions": out.insertions,
        "words": len(said.split()),
        "reference": said,
        "hypothesis": heard,
    }


def lite_wer_facts(sample: Sample) -> dict[str, Any]:
    """Errors, words and both texts of one clip, by Whisper tiny.en; a silent track is heard as no words at all."""
    if sample.transcript is None:
        raise NotApplicable("there is no transcript")
    if sample.language != "en":
        raise NotApplicable(f"Whisper tiny.en hears English only, the transcript is in {sample.language!r}")
    heard = "" if sample.generated.speech.silent else features.whisper_text(sample.generated)
    return word_errors(sample.transcript, heard)


def lite_wer(sample: Sample) -> Mean:
    """Word error rate of one clip; the mean over clips weighs every clip alike (macro)."""
    return Mean.of(lite_wer_facts(sample)["wer"])
