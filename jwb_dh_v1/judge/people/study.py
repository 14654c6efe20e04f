"""Who rates what next, in which order, and when an attention check is due: the rating page without its page.

Nothing is kept but the CSV of `ratings`: a rater who comes back (another day, another process) goes on where the file
says. The next pair is one of those with the fewest ratings that the rater has not rated, the first of them in the
rater's own shuffled order; its clips change places with the item's last rating, or as the rater's own shuffled half and
half says. Half of the checks play one clip twice (right: equal), half a clip beside its copy under noise as loud as it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jwb_dh_v1.errors import SampleError, SetupError
from jwb_dh_v1.files import locked
from jwb_dh_v1.judge.people.ratings import Rating, append_rating, read_ratings
from jwb_dh_v1.media.audio import Audio, decode_audio

Choice = Literal["first", "second", "tie"]
CHECK = "check:"
RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
HELD_S = 1800.0  # a pair that someone has open counts as rated for so long


@dataclass(frozen=True)
class RatingItem:
    """A pair of clips to rate.

    Attributes:
        item_id: the judge's sample_id.
        text: what is said; shown to raters.
        system_a, system_b: never shown.
        wav_a, wav_b: sound files or their bytes, played at the level they have (bring them to one loudness before).
        category: for the report.

    """

    item_id: str
    text: str
    system_a: str
    system_b: str
    wav_a: str | Path | bytes
    wav_b: str | Path | bytes
    category: str = ""


@dataclass(frozen=True)
class Trial:
    """What one rater is shown: two sounds of an item, and what is written down about them.

    Attributes:
        item: of which the sounds are; kind says which ones.
        item_id: as written; starts with `check:` for a check.
        order: `ab` if wav_a (of a check: the clean clip) comes first.
        number, total: of this trial among those of the rater, from 1.

    """

    item: RatingItem
    item_id: str
    kind: Literal["pair", "identical", "degraded"]
    order: Literal["ab", "ba"]
    number: int
    total: int


def _rng(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class Study:
    """A set of items to be rated into one CSV; for many threads, and many processes.

    Args:
        items: to rate; all are decoded once to see that they can be played.
        out_csv: appended to; made with the first rating.
        seed: of every order, together with the rater's code.
        per_rater: pairs for each rater; None for all.
        checks: attention checks for each rater, identical and degraded in turn.
        raters: the codes that may rate; None for anyone.

    Raises:
        SetupError: no items, one twice, a system against itself, or an out_csv that cannot be used.
        SampleError: a clip that cannot be decoded.

    """

    def __init__(
        self,
        items: Sequence[RatingItem],
        out_csv: str | Path,
        *,
        seed: int = 0,
        per_rater: int | None = None,
        checks: int = 2,
        raters: Collection[str] | None = None,
    ) -> None:
        self._items = {self._key(one.item_id, one.system_a, one.system_b): one for one in items}
        if not items or len(self._items) < len(items):
            raise SetupError("There is nothing to rate." if not items else "An item is there twice.")
        for one in items:
            if one.system_a == one.system_b or one.item_id.startswith(CHECK):
                raise SetupError(f"Item {one.item_id!r} is no pair of two systems; checks are made by the page itself.")
            for source in (one.wav_a, one.wav_b):
                _decoded(source)
        self._csv = Path(out_csv)
        if not self._csv.parent.is_dir():
            raise SetupError(f"The folder {self._csv.parent} of {self._csv.name} is not there.")
        self._seed, self._checks = seed, checks
        self._pairs = min(per_rater or len(items), len(items))
        self._raters = None if raters is None else frozenset(raters)
        self._lock = threading.Lock()
        self._open: dict[str, tuple[tuple[str, ...], str, float]] = {}  # rater: key, order, since
        self._ratings()

    @staticmethod
    def _key(item_id: str, *systems: str) -> tuple[str, ...]:
        return (item_id, *sorted(systems))

    def _ratings(self) -> list[Rating]:
        with locked(Path(f"{self._csv}.lock"), wait=-1):
            return read_ratings(self._csv) if self._csv.exists() and self._csv.stat().st_size else []

    def admit(self, rater: str) -> str:
        """The code as it is written, of what someone typed.

        Raises:
            SampleError: no code, or not one of those invited; the message is for the rater.

        """
        code = rater.strip()
        if not RATER.fullmatch(code):
            raise SampleError("Please give your rater code: letters, digits, dot, dash, underscore; 40 at most.")
        if self._raters is not None and code not in self._raters:
            raise SampleError("This rater code is not known; please check it.")
        return code

    def next(self, rater: str) -> Trial | None:
        """What the rater is shown next; None when all is done."""
        with self._lock:
            ratings = self._ratings()
            mine = [one for one in ratings if one.rater_id == rater]
            checked = sum(one.is_check for one in mine)
            rated = {self._key(one.item_id, one.system_a, one.system_b) for one in mine} & self._items.keys()
            self._open.pop(rater, None)
            number, total = checked + len(rated) + 1, self._pairs + self._checks
            rng = _rng(self._seed, rater)
            keys = sorted(self._items)
            order = rng.permutation(len(keys))
            sides = rng.permutation(np.arange(len(keys)) % 2)
            due = np.sort(rng.integers(1, self._pairs + 1, self._checks))
            if checked < self._checks and len(rated) >= due[checked]:
                return self._check(rater, checked, number, total)
            if len(rated) >= self._pairs:
                return None
            now = time.monotonic()
            shown = [(self._key(one.item_id, one.system_a, one.system_b), self._side(one)) for one in ratings]
            there = {(one.rater_id, key) for one, (key, _) in zip(ratings, shown, strict=True)}
            for other, (key, side, since) in self._open.items():
                if now - since < HELD_S and (other, key) not in there:
                    shown.append((key, side))
            load = {key: 0 for key in keys}
            lead = {key: 0 for key in keys}  # how often `ab` more than `ba`
            for key, side in shown:
                if key in load:
                    load[key] += 1
                    lead[key] += 1 if side == "ab" else -1
            at = min((i for i in order if keys[i] not in rated), key=lambda i: load[keys[i]])
            key = keys[at]
            first_a = lead[key] < 0 or (lead[key] == 0 and bool(sides[at]))
            self._open[rater] = (key, "ab" if first_a else "ba", now)
            item = self._items[key]
            return Trial(item, item.item_id, "pair", "ab" if first_a else "ba", number, total)

    def _side(self, one: Rating) -> str:
        """The order of a row in terms of the item, should the row name the systems the other way round."""
        item = self._items.get(self._key(one.item_id, one.system_a, one.system_b))
        same = item is None or item.system_a == one.system_a
        return one.order_shown if same else one.order_shown[::-1]

    def _check(self, rater: str, index: int, number: int, total: int) -> Trial:
        rng = _rng(self._seed, rater, "check", index)
        item = self._items[sorted(self._items)[rng.integers(len(self._items))]]
        # The rater's first check is of either kind, so that half of all checks are where everyone does one.
        kind: Literal["identical", "degraded"] = (
            "identical" if (index + _rng(self._seed, rater, "kind").integers(2)) % 2 else "degraded"
        )
        name = f"{CHECK}{index + 1}:{kind}:{item.item_id}"
        return Trial(item, name, kind, "ab" if rng.integers(2) else "ba", number, total)

    def sounds(self, trial: Trial) -> tuple[bytes, bytes]:
        """The two WAV files of a trial, as they are shown; made anew, so that no tag of the source is in them."""
        clean = _decoded(trial.item.wav_a)
        if trial.kind == "pair":
            other = _decoded(trial.item.wav_b)
        else:
            other = clean if trial.kind == "identical" else degraded(clean)
        a, b = clean.wav(), other.wav()
        return (a, b) if trial.order == "ab" else (b, a)

    def rate(
        self,
        rater: str,
        trial: Trial,
        choice: Choice,
        *,
        confidence: float | None = None,
        rationale: str = "",
        rt_ms: float | None = None,
    ) -> bool:
        """Write one rating down; False if the rater had rated this pair already (in another window)."""
        better: Literal["a", "b", "tie"] = "tie"
        if choice != "tie":
            better = "a" if (choice == "first") == (trial.order == "ab") else "b"
        item, check = trial.item, trial.kind != "pair"
        rating = Rating(
            trial.item_id,
            item.system_a,
            item.system_a if check else item.system_b,
            trial.order,
            rater,
            better,
            category=item.category,
            confidence=confidence,
            rt_ms=rt_ms,
            rationale=rationale,
            attention_pass=(better == ("tie" if trial.kind == "identical" else "a")) if check else None,
        )
        return append_rating(self._csv, rating)


def _decoded(source: str | Path | bytes) -> Audio:
    audio = decode_audio(source)
    if audio is None or not audio.samples.size:
        raise SampleError(f"{'A clip' if isinstance(source, bytes) else source} has no sound.")
    return audio


def degraded(audio: Audio) -> Audio:
    """The sound under white noise of its own RMS, brought back to its RMS: no one should prefer it."""
    level = float(np.sqrt(np.mean(np.square(audio.samples, dtype=np.float64))))
    noise = np.random.default_rng(0).standard_normal(audio.samples.shape) * max(level, 1e-3)
    mixed = (audio.samples + noise) / np.sqrt(2)
    return Audio(np.clip(mixed, -1, 1).astype(np.float32), audio.rate)
