"""Word error rate of texts: errors of one clip, statistics of many. No sound, no network.

WER = (S + D + I) / N: substituted, deleted and inserted units of the shortest edit from the reference to what was
heard, over the N units of the reference (Levenshtein; jiwer counts). A unit is a word between white space, or a
character in languages written without spaces. Both texts are normalised first, see `wer_profiles`.
"""

from __future__ import annotations

import statistics
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.metrics.state import Mean
from jwb_dh_v1.metrics.wer_profiles import PROFILES, Profile, Unit, profile_of, unit_of
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.means import mean_estimate

__all__ = ["PROFILES", "Corpus", "Counts", "Errors", "Profile", "compression_ratio", "corpus", "corpus_of", "errors",
           "profile_of", "unit_of"]  # fmt: skip

# openai/whisper takes a text of a higher ratio for a loop (transcribe.py, compression_ratio_threshold).
LOOPING = 2.4
LOOP = 5  # units


@dataclass(frozen=True)
class Counts:
    """Edits from the reference to what was heard."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    hits: int = 0

    @property
    def units(self) -> int:
        """N, the length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """S + D + I."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """(S + D + I) / N; may pass 1.

        Raises:
            NotApplicable: the reference is empty.

        """
        if not self.units:
            raise NotApplicable("the transcript has no words")
        return self.errors / self.units

    def __add__(self, other: Counts) -> Counts:
        """Sum."""
        return Counts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.hits + other.hits,
        )


@dataclass(frozen=True)
class Errors:
    """What was heard in one clip against what should have been said.

    Attributes:
        reference, hypothesis: normalised, with one space between units (also between characters).
        unit: what `counts` counts.
        words, characters: edits by words, and by characters without white space.
        alignment: (`equal`, `substitute`, `delete` or `insert`, units of the reference, units heard) in order.
        hallucination: the recogniser seems to have looped: what was heard compresses by more than 2.4 and by more than
            the reference does (see `loops`), or some five units in a row are heard at least twice and more often than
            they stand in the reference.
        language: of the reference.
        profile: how the texts were normalised.

    """

    reference: str
    hypothesis: str
    unit: Unit
    words: Counts
    characters: Counts
    alignment: tuple[tuple[str, str, str], ...]
    hallucination: bool
    language: str
    profile: Profile

    @property
    def counts(self) -> Counts:
        """The edits by the language's unit."""
        return self.words if self.unit == "word" else self.characters

    @property
    def rate(self) -> float:
        """The clip's WER, or CER where characters are counted; may pass 1.

        Raises:
            NotApplicable: the reference is empty.

        """
        return self.counts.rate

    @property
    def capped(self) -> float:
        """`rate`, at most 1: a second figure, never the score."""
        return min(1.0, self.rate)

    @property
    def empty_hypothesis(self) -> bool:
        """Whether nothing was heard: all units are deleted, the rate is 1."""
        return not self.hypothesis

    def facts(self) -> dict[str, Any]:
        """All of it for JSON, with `wer` for the rate and `words` for N, in whatever unit.

        Raises:
            NotApplicable: the reference is empty.

        """
        flags = {"empty_hypothesis": self.empty_hypothesis, "hallucination": self.hallucination}
        return {
            "wer": self.rate,
            "capped": self.capped,
            "substitutions": self.counts.substitutions,
            "deletions": self.counts.deletions,
            "insertions": self.counts.insertions,
            "hits": self.counts.hits,
            "words": self.counts.units,
            "unit": self.unit,
            "word_rate": self.words.rate,
            "character_rate": self.characters.rate,
            "reference": self.reference,
            "hypothesis": self.hypothesis,
            "alignment": [list(step) for step in self.alignment],
            "flags": [flag for flag, is_set in flags.items() if is_set],
            "profile": self.profile.version,
        }


def errors(reference: str, hypothesis: str | None, profile: str | Profile = "jwb_v1", language: str = "en") -> Errors:
    """Compare what was heard with what should have been said.

    Args:
        reference: the transcript. Without any unit the result has counts, but no rate.
        hypothesis: the words heard; None (no audio, nothing generated) counts as nothing heard: all deletions.
        profile: name in `PROFILES`, or your own.
        language: ISO 639-1 of the reference.

    Raises:
        SetupError: no such profile.

    """
    rules, unit = profile_of(profile), unit_of(language)
    hypothesis = hypothesis or ""
    texts = [rules.normalise(text, language) for text in (reference, hypothesis)]
    words = [text.split() for text in texts]
    characters = [_characters(text) for text in texts]
    said, heard = words if unit == "word" else characters
    edits = {"word": _process(*words), "character": _process(*characters)}
    return Errors(
        " ".join(said),
        " ".join(heard),
        unit,
        _counts(edits["word"]),
        _counts(edits["character"]),
        tuple(
            (
                step.type,
                " ".join(said[step.ref_start_idx : step.ref_end_idx]),
                " ".join(heard[step.hyp_start_idx : step.hyp_end_idx]),
            )
            for step in edits[unit].alignments[0]
        ),
        loops(reference, hypothesis) or _repeats(said, heard),
        language,
        rules,
    )


def _characters(text: str) -> list[str]:
    """Code points, without white space and invisible ones (zero-width spaces stand between words of Thai)."""
    return [c for c in text if not c.isspace() and unicodedata.category(c) != "Cf"]


def _process(said: list[str], heard: list[str]) -> Any:
    import jiwer

    return jiwer.process_words(" ".join(said), " ".join(heard))


def _counts(edits: Any) -> Counts:
    return Counts(edits.substitutions, edits.deletions, edits.insertions, edits.hits)


def compression_ratio(text: str) -> float:
    """Bytes of the text (UTF-8) per byte of it after zlib, as openai/whisper has it (utils.py)."""
    content = text.encode("utf-8", "replace")
    return len(content) / len(zlib.compress(content))


def loops(reference: str, hypothesis: str) -> bool:
    """Whether what was heard compresses by more than 2.4, and by more than the reference does (both as they came)."""
    ratio = compression_ratio(hypothesis.strip())
    return ratio > LOOPING and ratio > compression_ratio(reference.strip())


def _repeats(said: list[str], heard: list[str]) -> bool:
    """Whether some five units in a row are heard twice or more, and more often than they stand in the reference."""
    wanted, found = (Counter(zip(*(units[i:] for i in range(LOOP)), strict=False)) for units in (said, heard))
    return any(times > max(1, wanted[run]) for run, times in found.items())


@dataclass(frozen=True)
class Corpus:
    """Statistics of many clips. Rates are None where no clip has a reference.

    Attributes:
        profile: how the texts were normalised, and which of `macro` and `micro` is the headline.
        n: clips with a reference.
        macro: mean of the clips' rates; `macro_estimate` has its interval.
        micro: all errors over all units (words and characters mixed where languages are: see `by_language`).
        median: of the clips' rates.
        over_half: share of clips with a rate above 0.5.
        capped: macro with every clip's rate at most 1.
        produced: macro over the clips in which something was heard.
        word_rate, character_rate: micro by words and by characters (without white space), whatever the language.
        counts: sums of the edits.
        shares: of substitutions, deletions and insertions in all errors; None without an error.
        empty_references, insertions_on_empty_references: clips left out, and what was heard in them.
        empty_hypotheses: clips in which nothing was heard; they count as all deletions.
        hallucinations: clips whose recogniser seems to have looped.
        by_language: n, unit, macro and micro of every language.

    """

    profile: Profile
    n: int
    macro: float | None
    micro: float | None
    macro_estimate: Estimate | None
    micro_estimate: Estimate | None
    median: float | None
    over_half: float | None
    capped: float | None
    produced: float | None
    word_rate: float | None
    character_rate: float | None
    counts: Counts
    shares: tuple[float, float, float] | None
    empty_references: int
    insertions_on_empty_references: int
    empty_hypotheses: int
    hallucinations: int
    by_language: Mapping[str, Mapping[str, Any]]

    @property
    def value(self) -> float | None:
        """The profile's WER."""
        return self.macro if self.profile.headline == "macro" else self.micro

    @property
    def estimate(self) -> Estimate | None:
        """The profile's WER with its interval."""
        return self.macro_estimate if self.profile.headline == "macro" else self.micro_estimate


def corpus(clips: Sequence[Errors], identities: Sequence[str] | None = None) -> Corpus:
    """Sum up clips of one profile; their order does not matter.

    Args:
        clips: of `errors`; those without a reference are counted and left out.
        identities: the person of each clip, resampled for the intervals; by default every clip is its own.

    Raises:
        ValueError: no clip, clips of several profiles, or another number of identities.

    """
    profiles = {clip.profile for clip in clips}
    if len(profiles) != 1:
        names = ", ".join(sorted(profile.name for profile in profiles)) or "no clip at all"
        raise ValueError(f"Clips of one profile can be summed up; these are of: {names}.")
    people = [str(i) for i in range(len(clips))] if identities is None else list(identities)
    if len(people) != len(clips):
        raise ValueError(f"There are {len(clips)} clips and {len(people)} identities.")
    used = [clip for clip in clips if clip.counts.units]
    empty = [clip for clip in clips if not clip.counts.units]
    rates = [clip.rate for clip in used]
    counts = sum((clip.counts for clip in used), Counts())
    people = [person for person, clip in zip(people, clips, strict=True) if clip.counts.units]
    units = np.array([clip.counts.units for clip in used], dtype=float)
    kinds = (counts.substitutions, counts.deletions, counts.insertions)
    return Corpus(
        profile=profiles.pop(),
        n=len(used),
        macro=_mean(rates),
        micro=_micro(clip.counts for clip in used),
        macro_estimate=mean_estimate(rates, people, bounds=(0, None)) if used else None,
        micro_estimate=mean_estimate(rates, people, units, (0, None)) if used else None,
        median=statistics.median(rates) if rates else None,
        over_half=_mean([float(rate > 0.5) for rate in rates]),
        capped=_mean([clip.capped for clip in used]),
        produced=_mean([clip.rate for clip in used if not clip.empty_hypothesis]),
        word_rate=_micro(clip.words for clip in used),
        character_rate=_micro(clip.characters for clip in used),
        counts=counts,
        shares=(kinds[0] / counts.errors, kinds[1] / counts.errors, kinds[2] / counts.errors)
        if counts.errors
        else None,
        empty_references=len(empty),
        insertions_on_empty_references=sum(clip.counts.insertions for clip in empty),
        empty_hypotheses=sum(clip.empty_hypothesis for clip in used),
        hallucinations=sum(clip.hallucination for clip in used),
        by_language={
            language: {
                "n": len(own := [clip for clip in used if clip.language == language]),
                "unit": unit_of(language),
                "macro": _mean([clip.rate for clip in own]),
                "micro": _micro(clip.counts for clip in own),
            }
            for language in sorted({clip.language for clip in used})
        },
    )


def corpus_of(
    references: Sequence[str],
    hypotheses: Sequence[str | None],
    languages: str | Sequence[str] = "en",
    profile: str | Profile = "jwb_v1",
    identities: Sequence[str] | None = None,
) -> Corpus:
    """Statistics of texts: `errors` of every pair, then `corpus`.

    Args:
        references, hypotheses: in the same order; None where nothing was generated.
        languages: ISO 639-1, one for all or one each.
        profile, identities: as there.

    Raises:
        ValueError: no text, or lists of different length.
        SetupError: no such profile.

    """
    rules = profile_of(profile)
    tongues = [languages] * len(references) if isinstance(languages, str) else list(languages)
    if not len(references) == len(hypotheses) == len(tongues):
        raise ValueError(
            f"There are {len(references)} references, {len(hypotheses)} hypotheses and {len(tongues)} languages."
        )
    texts = zip(references, hypotheses, tongues, strict=True)
    return corpus([errors(said, heard, rules, tongue) for said, heard, tongue in texts], identities)


def _mean(values: list[float]) -> float | None:
    return sum((Mean.of(value) for value in values), Mean()).value() if values else None


def _micro(counts: Iterable[Counts]) -> float | None:
    total = sum(counts, Counts())
    return total.rate if total.units else None
