"""What is done to both texts before words are counted: one profile per practice of the field.

What papers call WER differs in this and in the mean over clips, and both move it by several points: a profile fixes the
two and is named with every number. The benchmark's own normalisation and mean are unpublished; `jwb_v1` is our choice
for them.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Literal

from jwb_dh_v1.errors import SetupError

Unit = Literal["word", "character"]

# Languages that Whisper splits by character (openai/whisper, whisper/tokenizer.py, split_to_word_tokens).
WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
# What seed-tts-eval removes besides string.punctuation: `zhon.hanzi.punctuation` of zhon 2.0.2, whose version it does
# not pin; zhon 1.1.5 lacks the full-width full stop (U+FF0E) only.
ZHON = (
    "＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "–—‘’‛“”„‟…‧﹏﹑﹔·．！？｡。"
)
SEED_TTS_REMOVES = frozenset(ZHON + string.punctuation) - {"'"}


def base(language: str) -> str:
    """The language without script or country: `zh` of `zh-TW`, `zh_Hans` and `ZH`."""
    return language.replace("_", "-").partition("-")[0].lower()


def unit_of(language: str) -> Unit:
    """What is counted in a language: characters where words are written without spaces (as Whisper has it)."""
    return "character" if base(language) in WITHOUT_SPACES else "word"


@dataclass(frozen=True)
class Profile:
    """One practice of counting word errors; one of your own is made like those of `PROFILES`.

    Attributes:
        name: stands beside every number.
        normalise: (text, language) -> text; what is left is split at white space.
        headline: `macro`: mean of the clips' rates, every clip counts alike; `micro`: all errors over all units.
        packages: whose versions can change the text.

    """

    name: str
    normalise: Callable[[str, str], str]
    headline: Literal["macro", "micro"] = "macro"
    packages: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Name and number, with the versions of the packages that normalise."""
        return ", ".join([f"{self.name}/1", *(f"{package} {version(package)}" for package in self.packages)])


@cache
def _english(keep_fillers: bool) -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    normaliser = EnglishTextNormalizer()
    if keep_fillers:
        normaliser.ignore_patterns = r"(?!)"  # matches nothing
    return normaliser


def _emergent(text: str, language: str, keep_fillers: bool = False) -> str:
    """EmergentTTS-Eval in English; other languages by Whisper's rule for them, but with their marks kept.

    English (boson-ai/EmergentTTS-Eval-public, utils_eval.py): lower case, no `<|...|>` tags, no space before
    `!,.?;:`, Whisper's English normaliser, then no tokens that hold only punctuation (Unicode P). Its Chinese branch
    takes out the spaces and then compares "words" by the English rules; it is not followed.

    Others: Whisper's basic normaliser replaces marks (Unicode M), which are vowels and tones of Thai, Lao, Burmese or
    Hindi; here they stay.
    """
    if base(language) != "en":
        text = re.sub(r"[<\[][^>\]]*[>\]]|\([^)]+\)", "", text.lower())
        text = unicodedata.normalize("NFKC", text)
        return "".join(" " if unicodedata.category(c)[0] in "SP" else c for c in text).lower()
    text = re.sub(r"\s+", " ", re.sub(r"<\|.*?\|>", " ", text.lower()))
    text = re.sub(r" ([!,.?;:])", r"\1", text)
    tokens = _english(keep_fillers)(text).split()
    return " ".join(token for token in tokens if any(unicodedata.category(c)[0] != "P" for c in token))


def _seed_tts(text: str, language: str) -> str:
    """seed-tts-eval (BytedanceSpeech/seed-tts-eval, run_wer.py): no punctuation but `'`; lower case, not in Chinese.

    Marks go without leaving a space ("twenty-two" is one word); `’` is a mark and `'` is not. Other languages, which
    it does not know, go by the rule for English or, where characters are counted, for Chinese.
    """
    text = "".join(c for c in text if c not in SEED_TTS_REMOVES)
    return text if unit_of(language) == "character" else text.lower()


@cache
def _basic() -> Any:
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer()


def _whisper_basic(text: str, language: str) -> str:
    return str(_basic()(text))


def _as_it_is(text: str, language: str) -> str:
    return text


_WHISPER = ("whisper-normalizer",)
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            # The benchmark gives no normalisation and no mean: those of the protocol whose judge it uses.
            Profile("jwb_v1", _emergent, "macro", _WHISPER),
            Profile("emergent", _emergent, "macro", _WHISPER),
            # The English normaliser drops hmm, mm, mhm, mmm, uh, um, which tests of paralinguistic sounds ask for.
            Profile("emergent_fillers", partial(_emergent, keep_fillers=True), "macro", _WHISPER),
            Profile("seed_tts", _seed_tts, "macro"),
            # VERSA (versa/corpus_metrics/whisper_wer.py): counts of every clip for the user to add up.
            Profile("whisper_basic", _whisper_basic, "micro", _WHISPER),
            # As `evaluate`'s wer.
            Profile("none", _as_it_is, "micro"),
        )
    }
)


def profile_of(profile: str | Profile) -> Profile:
    """The profile of that name, or the given one.

    Raises:
        SetupError: there is none of that name.

    """
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise SetupError(f"There is no WER profile {profile!r}; there are {', '.join(PROFILES)}.")
    return PROFILES[profile]
