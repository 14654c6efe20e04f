"""The `evaluate` module of the word error rate: of texts, or of recordings that a recogniser hears."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import evaluate

from jwb_dh_v1.errors import NotApplicable, SampleError
from jwb_dh_v1.integrations.hf import CITATION, Base, Columns, regions_of
from jwb_dh_v1.integrations.hf_inputs import InputError, each_of, recording, sound_of
from jwb_dh_v1.metrics import protocol as table_of
from jwb_dh_v1.metrics.wer import Corpus, Errors, corpus, errors, profile_of
from jwb_dh_v1.networks.weights import fetch
from jwb_dh_v1.version import __version__

if TYPE_CHECKING:
    from jwb_dh_v1.networks.recognizers import Recognizer

INPUTS = """
Args:
    predictions: the words heard, as strings; or recordings (video or sound) to be heard: `pathlib` paths, bytes, rows
        of a dataset (or of its Video or Audio column), and with `asr=` also strings, which are paths then. None where
        nothing was generated: all words are missing.
    references: what should be said, as strings in the same order.
    profile: how texts are normalised and which mean is the score, see `jwb_dh_v1.metrics.wer.PROFILES`.
    language: ISO 639-1, one for all or one each.
    asr: who hears: "whisper-large-v3", "whisper-tiny.en", "faster-whisper:MODEL", or a function of samples (float32 at
        16 kHz) and language; by default the protocol's.
    protocol: "standard", "lite" or "paper"; names the recogniser.
    region: "speech", the only one.
    device: of the recogniser: "auto", "cpu", "cuda".
    return_samples: also return one entry per clip.
    weights: your own files of the recogniser by name.
    other_weights: take them even if their content is not the table's.

Returns:
    `wer` (the profile's mean: `macro`, over clips, or `micro`, over words), both of these and `median`;
    `substitutions`, `deletions`, `insertions`, `words` (of the references); `word_rate` and `character_rate`;
    `produced` (over clips in which something was heard); `n`, `skipped`, `failed` (numbers of clips); `ci95`,
    `empty_hypotheses`, `hallucinations`, `by_language`, `profile`, `asr`, `region`, `higher_is_better`,
    `version`, `problems`.
"""


class WordErrorRate(Base):
    """Word error rate of texts, or of recordings that a recogniser hears."""

    metric = "wer"
    missing = "{metric} compares with what should be said: pass references= with one text per prediction."
    _ear: tuple[Any, Recognizer] | None = None

    def _info(self) -> Any:
        text = datasets.Value("string")
        lines = [f"{name}/1: {table_of(name).metrics['wer'].networks}." for name in ("standard", "lite", "paper")]
        return evaluate.MetricInfo(
            description="Word errors per word that should be said.\n" + "\n".join(lines),
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://arxiv.org/abs/2507.20987"],
        )

    def _encode(self, column: str, item: Any) -> Any:
        if isinstance(item, str):
            return item
        if column == "references":
            raise InputError(f"references= of wer are texts, not a {type(item).__name__}.")
        return "" if item is None else self._hold(recording(item))

    def _ready(
        self,
        count: int,
        profile: Any = "jwb_v1",
        language: Any = "en",
        asr: Any = None,
        protocol: str | None = None,
        region: str | None = None,
        device: str = "auto",
        return_samples: bool = False,
        weights: Mapping[str, Any] | None = None,
        other_weights: bool = False,
    ) -> Callable[[Columns], dict[str, Any]]:
        regions_of(protocol or "standard", self.metric, region)
        rules, languages = profile_of(profile), each_of("language", language, count)
        paths = asr is not None  # what strings are
        ear = None
        if paths or self._held:
            asr = asr or table_of(protocol or "standard").metrics[self.metric].weights[0]
            ear = self._recogniser(asr, device, {name: Path(p) for name, p in (weights or {}).items()}, other_weights)

        def answer(columns: Columns) -> dict[str, Any]:
            clips: list[Errors | None] = []
            problems: dict[int, tuple[str, str]] = {}
            for number, (ours, said) in enumerate(zip(columns["predictions"], columns["references"], strict=True)):
                try:
                    if not errors(said, "", rules, languages[number]).counts.units:
                        raise NotApplicable("the transcript has no words")
                    heard = self._words(ours, paths, languages[number], ear)
                    clips.append(errors(said, heard, rules, languages[number]))
                except (SampleError, NotApplicable) as error:
                    status = "skipped" if isinstance(error, NotApplicable) else "failed"
                    problems[number] = status, f"{type(error).__name__}: {error}"
                    clips.append(None)
            return _told(clips, problems, ear, return_samples)

        return answer

    def _words(self, encoded: str, paths: bool, language: str, ear: Recognizer | None) -> str:
        """The words of one prediction: as they were given, or as they are heard."""
        held = self._held.get(encoded)
        if held is None and not paths:
            if os.path.isfile(encoded):  # noqa: PTH113 - False for what can be no path at all
                raise InputError(f"{encoded!r} is a file: pass asr= to have it heard; strings are texts otherwise.")
            return encoded
        if not encoded:
            return ""
        assert ear is not None
        audio = sound_of(held or {"bytes": None, "path": encoded})
        return "" if audio is None or audio.silent else ear.transcribe(audio.mono(16000), language)

    def _recogniser(self, asr: Any, device: str, given: Mapping[str, Path], other: bool) -> Recognizer:
        """The recogniser of the last call, if it is the same; missing weights are fetched."""
        from jwb_dh_v1.networks import whisper, whisper_large
        from jwb_dh_v1.networks.recognizers import recognizer

        key = (asr, device, given, other)
        if self._ear is None or self._ear[0] != key:
            files = {one.NAME: one.FILES for one in (whisper, whisper_large)}
            if isinstance(asr, str) and asr in files:
                fetch([name for name in files[asr] if name not in given])
            self._ear = key, recognizer(asr, device, given, other)
        return self._ear[1]


def _told(
    clips: list[Errors | None], problems: Mapping[int, tuple[str, str]], ear: Recognizer | None, return_samples: bool
) -> dict[str, Any]:
    told = [f"clip {number}: {status}: {why}" for number, (status, why) in problems.items()]
    used = [clip for clip in clips if clip is not None]
    if not used:
        raise SampleError(f"wer could be computed for none of {len(clips)} clips; {told[0]}")
    kinds = [status for status, _ in problems.values()]
    answer = _statistics(corpus(used)) | {
        "skipped": kinds.count("skipped"),
        "failed": kinds.count("failed"),
        "asr": ear.name if ear else None,
        "region": "speech",
        "higher_is_better": False,
        "version": __version__,
        "problems": told,
    }
    if return_samples:
        answer["samples"] = [
            {"clip": number, "value": clip.rate, "status": "ok", "facts": clip.facts()}
            if clip
            else {"clip": number, "value": None, "status": problems[number][0], "facts": {}}
            for number, clip in enumerate(clips)
        ]
    return answer


def _statistics(found: Corpus) -> dict[str, Any]:
    return {
        "wer": found.value,
        "n": found.n,
        "ci95": found.estimate.interval if found.estimate else None,
        "macro": found.macro,
        "micro": found.micro,
        "median": found.median,
        "substitutions": found.counts.substitutions,
        "deletions": found.counts.deletions,
        "insertions": found.counts.insertions,
        "words": found.counts.units,
        "word_rate": found.word_rate,
        "character_rate": found.character_rate,
        "produced": found.produced,
        "empty_hypotheses": found.empty_hypotheses,
        "hallucinations": found.hallucinations,
        "by_language": {language: dict(own) for language, own in found.by_language.items()},
        "profile": found.profile.version,
    }
