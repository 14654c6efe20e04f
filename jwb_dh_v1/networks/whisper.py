"""Whisper as `lite/1` hears with it: transcription and word times.

The architecture is `transformers`' own. Decoding is plain greedy, as openai/whisper `decoding.py` at temperature 0
without timestamps and without its fallbacks. Word times follow openai/whisper `timing.py`: dynamic time warping over
the cross-attention of the alignment heads; `_fit` then takes the pauses out. `whisper_large.py` has the decoding of
`standard/1`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.media.audio import is_silent
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.ctranslate2 import whisper_network
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of

NAME = "whisper-tiny.en"
FILES = (NAME, f"{NAME}/config.json", f"{NAME}/tokenizer.json")
RATE = 16000
WINDOW = 30 * RATE  # the encoder always sees 30 s
FRAME = 320  # samples per encoder position: two hops of 10 ms
LONGEST = 224  # tokens of a window, as openai/whisper: half of the text context


@dataclass(frozen=True)
class Word:
    """A spoken word: `start` and `end` in seconds after the first sample, `score` 0..1.

    The score is the geometric mean of the probabilities that the model gave the word's tokens, as they are written.
    """

    word: str
    start: float
    end: float
    score: float | None = None


def load_tiny_en(weights: Mapping[str, Path], device: str = "cpu") -> Whisper:
    """Whisper tiny.en of the verified files `FILES`."""
    network, tokenizer = whisper_network(*(weights[name] for name in FILES))
    # Its steps are too small to share: two threads take as long as one, ten times as long on a busy machine.
    return Whisper(network, tokenizer, device, threads=1, name="Whisper tiny.en")


@contextmanager
def inference(threads: int | None = None) -> Iterator[None]:
    """PyTorch without gradients, on some CPU threads; afterwards it has those it had."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def primary(language: str) -> str:
    """The language of a tag: `zh` of `zh-CN`, `en` of `EN_us`."""
    return re.split("[-_]", language.strip().lower())[0]


class Whisper:
    """Hears English speech, greedily and without chance: the same samples give the same words.

    Args:
        model: `transformers.WhisperForConditionalGeneration` with alignment heads and `no_timestamps_token_id` in its
            generation config; made with `attn_implementation="eager"` where `words` is wanted.
        tokenizer: `tokenizers.Tokenizer` of the model.
        device: where to run.
        threads: CPU threads of PyTorch while it hears; None leaves them as they are.
        name: what errors call it.

    """

    def __init__(
        self, model: Any, tokenizer: Any, device: str = "cpu", threads: int | None = None, name: str = "Whisper"
    ) -> None:
        from transformers import WhisperFeatureExtractor

        self.name = name
        self.model = model.eval().to(device)
        self.tokenizer = tokenizer
        self.device = device
        self.threads = threads
        self.features = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        self.settings: Any = model.generation_config
        self.prompt = [self.settings.decoder_start_token_id]
        if self.settings.is_multilingual:
            self.prompt += [tokenizer.token_to_id("<|en|>"), tokenizer.token_to_id("<|transcribe|>")]
        self.prompt.append(self.settings.no_timestamps_token_id)

    def transcribe(self, samples: np.ndarray, language: str = "en") -> str:
        """The words of float32 [n] samples at 16 kHz, as Whisper writes them; "" for silence (below -60 dBFS).

        Speech beyond 30 s is cut at its quietest moments and the pieces are heard one by one.

        Raises:
            NotApplicable: the language is not English.

        """
        if primary(language) != "en":
            raise NotApplicable(f"{self.name} hears English only, not {language!r}")
        with inference(self.threads):
            heard = [self.tokenizer.decode(self._tokens(self._encode(piece))) for _, piece in _windows(samples)]
        return " ".join(text.strip() for text in heard).strip()

    def words(self, samples: np.ndarray, text: str | None = None) -> list[Word]:
        """The words of float32 [n] samples at 16 kHz with times: within [0, n / 16000], in order, without overlap.

        Args:
            samples: the speech.
            text: what is said, where it is known: its words get the times, whatever would have been heard. For one
                window (30 s) only.

        Raises:
            ValueError: a text is given for more than 30 s.

        """
        if text is not None and len(samples) > WINDOW:
            raise ValueError(f"A known text can be aligned to {WINDOW // RATE} s, not {len(samples) / RATE:.1f} s.")
        given = None if text is None else self.tokenizer.encode(f" {text.strip()}", add_special_tokens=False).ids
        found: list[Word] = []
        with inference(self.threads):
            for begin, piece in _windows(samples):
                encoded = self._encode(piece)
                tokens = self._tokens(encoded) if given is None else given
                words = _fit(self._align(encoded, tokens, len(piece)), piece) if tokens else []
                found += [Word(w.word, begin / RATE + w.start, begin / RATE + w.end, w.score) for w in words]
        return found

    def _encode(self, piece: np.ndarray) -> Any:
        mel = self.features(piece, sampling_rate=RATE, return_tensors="pt").input_features
        return self.model.get_encoder()(mel.to(self.device, self.model.dtype))

    def _tokens(self, encoded: Any) -> list[int]:
        """Greedy decoding of one window; only text tokens are returned."""
        import torch

        end = self.settings.eos_token_id
        tokens: list[int] = []
        fed, past = torch.tensor([self.prompt], device=self.device), None
        while len(tokens) < LONGEST:
            out = self.model(encoder_outputs=encoded, decoder_input_ids=fed, past_key_values=past, use_cache=True)
            chance, past = out.logits[0, -1], out.past_key_values
            chance[self.settings.suppress_tokens] = -torch.inf
            if not tokens:
                chance[self.settings.begin_suppress_tokens] = -torch.inf
            tokens.append(int(chance.argmax()))
            if tokens[-1] == end:
                break
            fed = torch.tensor([tokens[-1:]], device=self.device)
        return [token for token in tokens if token < end]

    def _align(self, encoded: Any, tokens: list[int], samples: int) -> list[Word]:
        """Times of given tokens by the cross-attention of one forward pass."""
        import torch

        fed = torch.tensor([[*self.prompt, *tokens, self.settings.eos_token_id]], device=self.device)
        out = self.model(encoder_outputs=encoded, decoder_input_ids=fed, output_attentions=True)
        first = len(self.prompt) - 1  # the row that says the first token
        chance = out.logits[0, first:-2].float().softmax(-1).cpu().numpy()[range(len(tokens)), tokens]
        heads = torch.stack([out.cross_attentions[layer][0, head] for layer, head in self.settings.alignment_heads])
        weights = heads[:, :, : max(1, -(-samples // FRAME))].float().cpu().numpy()
        weights /= weights.sum(-1, keepdims=True)  # the padding after the piece gets no share
        weights = (weights - weights.mean(1, keepdims=True)) / (weights.std(1, keepdims=True) + 1e-9)
        # Row k attends to what it is about to say, token k; the row after the last token to the end of the speech.
        onsets = _onsets(-_median(weights, 7).mean(0)[first:-1]) * FRAME / RATE
        words, at = [], 0
        for text, spoken, count in self._split(tokens):
            score = float(np.exp(np.log(np.maximum(chance[at : at + spoken], 1e-12)).mean()))
            words.append(Word(text, float(onsets[at]), float(onsets[at + spoken]), score))
            at += count
        return words

    def _split(self, tokens: list[int]) -> list[tuple[str, int, int]]:
        """Words as written, each with its number of spoken tokens and of tokens with the punctuation after it.

        Punctuation is not spoken: what it attends to is the pause.
        """
        words: list[tuple[str, int, int]] = []
        held: list[int] = []
        for place, token in enumerate(tokens, 1):
            held.append(token)
            text = self.tokenizer.decode(held)
            if "\ufffd" in text and place < len(tokens):  # a character that is spread over several tokens
                continue
            spoken = len(held) if re.search(r"\w", text) else 0
            if not words or (spoken and text.startswith(" ")):
                words.append((text.strip(), len(held), len(held)))
            else:
                before, said, count = words[-1]
                words[-1] = (before + text.strip(), count + spoken if spoken else said, count + len(held))
            held = []
        return words


def _windows(samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of up to 30 s with their first sample's index, cut at the quietest 0.2 s of the last third."""
    begin = 0
    while len(samples) - begin > WINDOW:
        energy = np.square(samples[begin + 2 * WINDOW // 3 : begin + WINDOW], dtype=np.float64)
        total = np.concatenate([[0.0], np.cumsum(energy)])
        width = RATE // 5
        end = begin + 2 * WINDOW // 3 + int(np.argmin(total[width:] - total[:-width])) + width // 2
        if not is_silent(samples[begin:end]):
            yield begin, samples[begin:end]
        begin = end
    if not is_silent(samples[begin:]):
        yield begin, samples[begin:]


def _median(values: np.ndarray, width: int) -> np.ndarray:
    """Running median along the last axis, edges mirrored."""
    if values.shape[-1] <= width // 2:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(width // 2, width // 2)], mode="reflect")
    middle: np.ndarray = np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)
    return middle


def _onsets(cost: np.ndarray) -> np.ndarray:
    """Dynamic time warping of tokens [m] to frames [n]: the frame at which each token begins, int [m]."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((rows + 1, columns + 1), np.int8)  # 0 both, 1 next token, 2 next frame
    for j in range(1, columns + 1):
        for i in range(1, rows + 1):
            ways = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
            best = 0 if ways[0] < ways[1] and ways[0] < ways[2] else 1 if ways[1] < ways[2] else 2
            step[i, j] = best
            total[i, j] = cost[i - 1, j - 1] + ways[best]
    onsets = np.zeros(rows, np.int64)
    i, j = rows, columns
    while i > 0 and j > 0:
        onsets[i - 1] = j - 1
        move = step[i, j]
        i, j = i - (move != 2), j - (move != 1)
    return onsets


def _fit(words: list[Word], piece: np.ndarray) -> list[Word]:
    """Fit words to what is loud: attention tells where a word is, loudness where it begins and ends.

    In steps of 10 ms, words shrink out of quiet steps and grow over loud ones that belong to nobody. Quiet is what is
    nearer to the piece's noise floor than to its loud parts, between 30 and 18 dB below the latter; a word that is
    quiet throughout keeps its times. Every word gets at least one step.
    """
    hop = RATE // 100
    power = np.square(np.pad(piece, (0, -len(piece) % hop)), dtype=np.float64).reshape(-1, hop).mean(1)
    level = 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-12)
    low, high = np.percentile(level[power > 0], [5, 95])  # digital silence was padded on: it is no noise floor
    loud = level > np.clip(low + (high - low) / 4, high - 30, high - 18)
    spans: list[list[int]] = []
    for word in words:
        after = spans[-1][1] if spans else 0
        begin = min(max(round(word.start * 100), after), len(loud) - 1)
        end = max(begin + 1, round(word.end * 100))
        inside = begin + np.flatnonzero(loud[begin:end])
        if len(inside):
            # No word holds a pause of 0.3 s: of the parts on its sides the one with more sound is the word.
            parts = np.split(inside, np.flatnonzero(np.diff(inside) > 30) + 1)
            part = max(parts, key=lambda steps: float(power[steps].sum()))
            begin, end = int(part[0]), int(part[-1]) + 1
        spans.append([begin, end])
    for k, span in enumerate(spans):
        limit = spans[k + 1][0] if k + 1 < len(spans) else len(loud)
        while span[1] < limit and loud[span[1]]:
            span[1] += 1
    for k, span in enumerate(spans):
        limit = spans[k - 1][1] if k else 0
        while span[0] > limit and loud[span[0] - 1]:
            span[0] -= 1
    last = len(piece) / RATE
    return [Word(w.word, a / 100, min(b / 100, last), w.score) for w, (a, b) in zip(words, spans, strict=True)]


NETWORK = Network(NAME, load_tiny_en)


def text_of(clip: Clip) -> str:
    """The words Whisper tiny.en hears in the clip's audio track; equal audio is heard once.

    Raises:
        NotApplicable: the clip has no audio track.
        BadAudio: the track cannot be decoded.

    """
    return heard(clip, NAME, "en", lambda samples: models_of(clip).get(NETWORK).transcribe(samples))


def heard(clip: Clip, name: str, language: str, hear: Callable[[np.ndarray], str]) -> str:
    """What `hear` makes of the clip's audio track at 16 kHz, remembered by network, language and the sound itself."""
    samples = clip.speech.mono(16000)
    key = (name, language, hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest())
    return clip.memo(key, lambda: models_of(clip).remember(key, lambda: hear(samples)))
