"""What failure signatures look at: quantities of one clip made of its rows, their means, and what is usual for them.

Most are a metric's own value. The others (`MEASURES`) are read from curves, coverage, status and facts, so that a run
without them says what it lacks. A mean is over clips, each counted once, with the interval of
`stats.means.mean_estimate` (clustered by identity); it can differ from the table's score,
which weighs clips by parts and may count lost clips.

When a clip goes wrong is read from its curves; frames are numbered from 0 in the clip that was scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.scoring.result import Result, Row
from jwb_dh_v1.stats.means import mean_estimate

Cell = tuple[str, str]
Rows = Mapping[Cell, Row]  # of one clip

SETS = frozenset({"fid", "fid_clean", "fvd", "e_fid"})  # distances of sets: no value for a clip
STILL = (
    0.2  # px between sampled frames: the teaser's frozen clips have at most 0.03, its real ones a peak of at least 4.1
)
SHAPE = frozenset({"LengthMismatch", "SizeMismatch", "TooShort", "TooSmall", "VariableFrameRate"})


@dataclass(frozen=True)
class Measure:
    """A quantity of one clip.

    Attributes:
        says: what it is, for people.
        needs: metric and what of its rows must be there, in words.
        of: rows of a clip and region -> value, None where the clip has none.
        metric: of whose direction and curve the measure is.
        range: smallest and largest possible value, None where open.

    """

    says: str
    needs: str
    of: Callable[[Rows, str], float | None]
    metric: str
    range: tuple[float | None, float | None] = (None, None)


def value(rows: Rows, metric: str, region: str) -> float | None:
    """The clip's own score, None unless it is ok."""
    row = rows.get((metric, region))
    return row.value if row is not None and row.status == "ok" else None


def curve(rows: Rows, metric: str, region: str) -> np.ndarray:
    """The finite part of the clip's curve; empty where there is none.

    RAFT stops at the pair that decides; of a curve of motion that ends before its clip nothing is told.
    """
    found = _entries(rows, metric, region)
    known = np.isfinite(found)
    return found[known] if known.all() or metric != "dynamic_degree" else np.empty(0)


def _entries(rows: Rows, metric: str, region: str) -> np.ndarray:
    row = rows.get((metric, region))
    return np.array(row.curve if row is not None and row.status == "ok" else (), np.float64)


def _peak_motion(rows: Rows, region: str) -> float | None:
    """The largest motion; where pairs were left out, the largest of the others if that is motion at all."""
    flow = _entries(rows, "dynamic_degree", region)
    largest = float(np.max(flow, where=np.isfinite(flow), initial=-np.inf))
    return largest if np.isfinite(largest) and (np.isfinite(flow).all() or largest >= STILL) else None


def _still_end(rows: Rows, region: str) -> float | None:
    """Share of the clip that is still at its end; 0 for a clip that never moves, which is another failure."""
    flow = curve(rows, "dynamic_degree", region)
    if len(flow) < 3:
        return None
    moving = np.flatnonzero(flow >= STILL)
    return float((len(flow) - 1 - moving[-1]) / len(flow)) if len(moving) else 0.0


def _thirds(rows: Rows, region: str) -> tuple[float, float] | None:
    likeness = curve(rows, "csim", region)
    third = len(likeness) // 3
    return (float(likeness[:third].mean()), float(likeness[-third:].mean())) if third else None


def _csim_begin(rows: Rows, region: str) -> float | None:
    thirds = _thirds(rows, region)
    return thirds[0] if thirds else None


def _csim_end(rows: Rows, region: str) -> float | None:
    thirds = _thirds(rows, region)
    return thirds[1] if thirds else None


def _part_motion(rows: Rows, region: str) -> float | None:
    """Median motion of a part over that of the whole frame, each in pixels of its own picture at 256."""
    part, whole = curve(rows, "dynamic_degree", region), curve(rows, "dynamic_degree", "body")
    if not len(part) or not len(whole) or np.median(whole) < STILL:
        return None
    return float(np.median(part) / np.median(whole))


def _gap(metric: str) -> Callable[[Rows, str], float | None]:
    def gap(rows: Rows, region: str) -> float | None:
        whole, part = value(rows, metric, "body"), value(rows, metric, region)
        return part - whole if part is not None and whole is not None and math.isfinite(part + whole) else None

    return gap


def _found(rows: Rows, region: str) -> float | None:
    """How much of the time that the part is seen in the real clip it is also found in the generated one.

    SSIM cuts both clips by the real clip's boxes, subject consistency by the generated clip's own.
    """
    real, own = rows.get(("ssim", region)), rows.get(("subject_consistency", region))
    if real is None or own is None or real.status != "ok" or not real.coverage:
        return None
    return min(1.0, (own.coverage or 0.0) / real.coverage) if own.status == "ok" else 0.0


def _facts(rows: Rows) -> dict[str, object]:
    row = rows.get(("wer", "speech"))
    return json.loads(row.facts) if row is not None and row.status == "ok" and row.facts else {}


def _number(facts: Mapping[str, object], key: str) -> float | None:
    found = facts.get(key)
    return float(found) if isinstance(found, int | float) else None


def _above_floor(rows: Rows, region: str) -> float | None:
    rate, floor = value(rows, "wer", region), _number(_facts(rows), "floor")
    return None if rate is None or floor is None else rate - floor


def _floor(rows: Rows, region: str) -> float | None:
    return _number(_facts(rows), "floor")


def _units(facts: Mapping[str, object]) -> float:
    return _number(facts, "words") or _number(facts, "units") or 0.0


def _right(rows: Rows, region: str) -> float | None:
    facts = _facts(rows)
    wrong = [_number(facts, key) for key in ("substitutions", "deletions")]
    if not _units(facts) or None in wrong:
        return None
    return 1 - sum(w for w in wrong if w is not None) / _units(facts)


def _heard(rows: Rows, region: str) -> float | None:
    facts = _facts(rows)
    return float(bool(str(facts["hypothesis"]).strip())) if "hypothesis" in facts and _units(facts) else None


def _failed(rows: Rows, region: str) -> float | None:
    return float(any(r.status == "failed" and r.error not in SHAPE for r in rows.values())) if rows else None


def _misshaped(rows: Rows, region: str) -> float | None:
    return float(any(r.status == "failed" and r.error in SHAPE for r in rows.values())) if rows else None


FLOW, FLOOR = "the whole curve of dynamic_degree", "wer with the real clips' rate (its floor)"
SHARE, POSITIVE = (0.0, 1.0), (0.0, None)
SEEN = (0.0, 1024.0)  # no motion is longer than a picture of 256 px on its shorter side and thrice that on the other
MEASURES: Mapping[str, Measure] = {
    "peak_motion": Measure("largest motion (px at 256)", FLOW, _peak_motion, "dynamic_degree", SEEN),
    "still_end": Measure("share of the clip that is still at its end", FLOW, _still_end, "dynamic_degree", SHARE),
    "part_motion": Measure("motion of the part over that of the body", FLOW, _part_motion, "dynamic_degree", POSITIVE),
    "csim_begin": Measure("CSIM in the first third", "the curve of csim", _csim_begin, "csim", (None, 1.0)),
    "csim_end": Measure("CSIM in the last third", "the curve of csim", _csim_end, "csim", (None, 1.0)),
    "sc_gap": Measure(
        "subject consistency of the part minus the body's", "subject_consistency on the part and on the body",
        _gap("subject_consistency"), "subject_consistency", (-1.0, 1.0)),
    "psnr_gap": Measure(
        "PSNR of the part minus the body's (dB)", "psnr on the part and on the body",
        _gap("psnr"), "psnr", (-100.0, 100.0)),
    "found": Measure(
        "share of the part's time in the real clip in which it is found", "coverage of ssim and subject_consistency",
        _found, "subject_consistency", SHARE),
    "wer_above_floor": Measure("WER minus that of the real clip", FLOOR, _above_floor, "wer"),
    "wer_floor": Measure("WER of the real clip", FLOOR, _floor, "wer", POSITIVE),
    "words_right": Measure("share of the words that are heard right", "the facts of wer", _right, "wer", SHARE),
    "words_heard": Measure("share of clips in which a word is heard", "the facts of wer", _heard, "wer", SHARE),
    "failed": Measure("share of clips that could not be scored", "rows of samples", _failed, "failed", SHARE),
    "misshaped": Measure(
        "share of clips of a wrong length, size or rate", "rows of samples", _misshaped, "failed", SHARE),
}  # fmt: skip


def metric_of(measure: str) -> str:
    """The metric that a measure is read from."""
    return MEASURES[measure].metric if measure in MEASURES else measure


def said(measure: str) -> str:
    """A measure's name for people."""
    if measure == "zeros":  # of published rows alone
        return "share of zeros in the mean"
    return MEASURES[measure].says if measure in MEASURES else title(measure)


@dataclass(frozen=True)
class Measured:
    """A measure of a run: its mean over clips, or a distance of sets.

    Attributes:
        low, high: 95 % interval, None where there is none (one identity, infinite values, no interval of a distance).
        n: clips.
        by_clip: sample id -> value; empty for distances of sets and published rows.

    """

    value: float
    low: float | None
    high: float | None
    n: int
    by_clip: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)


def mean(
    by_clip: Mapping[str, float],
    identities: Mapping[str, str],
    limits: tuple[float | None, float | None] = (None, None),
) -> Measured:
    """The mean over clips with its interval over identities, cut off where no value can be."""
    found = mean_estimate(list(by_clip.values()), [identities[sample] for sample in by_clip], bounds=limits)
    return Measured(found.value, found.low, found.high, found.n, by_clip)


class DiagnosedRun:
    """A result by clip; measures are made once."""

    def __init__(self, result: Result) -> None:
        self.result, self.protocol = result, result.protocol
        self.clips: dict[str, dict[Cell, Row]] = {}
        for row in result.rows() if result.samples is not None else ():
            self.clips.setdefault(row.sample_id, {})[row.metric, row.region] = row
        self.identities = {s: next(iter(rows.values())).identity_id for s, rows in self.clips.items()}
        self._made: dict[Cell, Measured | str] = {}

    def measure(self, name: str, region: str) -> Measured | str:
        """A measure of all clips, or what is needed to have it."""
        key = name, region
        if key not in self._made:
            self._made[key] = self._make(name, region)
        return self._made[key]

    def _make(self, name: str, region: str) -> Measured | str:
        if name in SETS:
            for score in self.result.scores:
                if (score.metric, score.region) == (name, region) and score.value is not None:
                    low, high = score.ci95 or (None, None)
                    return Measured(score.value, low, high, score.n)
            return f"{name} on {region}"
        if metric_of(name) == "csim" and self.protocol.startswith("paper/"):
            return "a csim of faces (that of the paper protocol compares pixels)"
        by_clip = {
            sample: found
            for sample, rows in self.clips.items()
            if (found := clip_value(rows, name, region)) is not None
        }
        if not by_clip:
            return f"{MEASURES[name].needs} ({region})" if name in MEASURES else f"{name} on {region}"
        limits = MEASURES[name].range if name in MEASURES else self._range(name, region)
        return mean(by_clip, self.identities, limits)

    def _range(self, name: str, region: str) -> tuple[float | None, float | None]:
        return next((s.range for s in self.result.scores if (s.metric, s.region) == (name, region)), (None, None))


def clip_value(rows: Rows, name: str, region: str) -> float | None:
    """A measure of one clip."""
    return MEASURES[name].of(rows, region) if name in MEASURES else value(rows, name, region)


def usual(run: DiagnosedRun, name: str, region: str) -> tuple[float, float] | str:
    """What is usual in a run, lowest and highest: of its clips the 5 % and 95 % quantiles, the outer neighbours taken.

    Distances of sets and the dynamic degree (0 or 1 for a clip) have their score's interval instead. Or what is needed.
    """
    found = run.measure(name, region)
    if isinstance(found, str):
        return found
    if name in SETS or name == "dynamic_degree":
        if found.low is None or found.high is None:
            return f"an interval of {name} on {region} in the run to compare with"
        return found.low, found.high
    values = list(found.by_clip.values())
    low, high = np.quantile(values, 0.05, method="lower"), np.quantile(values, 0.95, method="higher")
    return float(low), float(high)


@dataclass(frozen=True)
class Moment:
    """Where in a clip it goes wrong.

    Attributes:
        kind: `throughout`, `from here on` or `worst here`.
        metric, region: whose curve it was read from.
        share: position in the clip, 0..1.
        frame: number of the frame, None where the clip's length is not known from any curve.
        seconds: None unless the frame rate was given.

    """

    kind: str
    metric: str
    region: str
    share: float
    frame: int | None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """For people: `from frame 31 on (65 %)`."""
        if self.kind == "throughout":
            return "throughout"
        at = f"frame {self.frame}" if self.frame is not None else f"{100 * self.share:.0f} % of its length"
        at += f" ({self.seconds:.2f} s)" if self.seconds is not None else ""
        return f"from {at} on" if self.kind == "from here on" else f"worst at {at}"


def moment(rows: Rows, metric: str, region: str, higher_is_better: bool, bound: float | None = None) -> Moment | None:
    """Read a moment from a curve; None where the clip has none.

    Throughout: nine tenths of the curve lie beyond the bound, if there is one. Else the split into two parts whose
    means differ most in units of the spread inside them (CUSUM), if the later part is worse and by more than twice
    that spread; neighbouring frames are alike, so that no p value could be given. Else the worst entry.
    """
    values = curve(rows, metric, region)
    if not len(values):
        return None
    bad = -values if higher_is_better else values
    at, kind = int(np.argmax(bad)), "worst here"
    split = change_point(bad)
    if bound is not None and np.mean(bad > (-bound if higher_is_better else bound)) >= 0.9:
        kind = "throughout"
    elif split is not None:
        at, kind = split, "from here on"
    frames = frames_of(rows)
    share = at / max(1, len(values) - 1)
    if frames is None:
        return Moment(kind, metric, region, share, None)
    # An entry per pair of frames, sampled or not, belongs to its later frame.
    points = len(values) + (metric in {"dynamic_degree", "subject_consistency", "background_consistency"})
    frame = round((at + points - len(values)) * (frames - 1) / max(1, points - 1))
    return Moment(kind, metric, region, frame / max(1, frames - 1), frame)


def frames_of(rows: Rows) -> int | None:
    """Number of frames that both clips have: the points of SSIM or PSNR of the whole frame."""
    return max((len(curve(rows, m, "body")) for m in ("ssim", "psnr")), default=0) or None


def change_point(values: np.ndarray) -> int | None:
    """Where values rise for good, the first index of the later part; None where they do not. See `moment`."""
    n = len(values)
    if n < 6:
        return None
    k = np.arange(2, n - 1)  # two entries at least on either side
    sums = np.cumsum(values)
    rise = (sums[-1] - sums[k - 1]) / (n - k) - sums[k - 1] / k
    best = int(k[np.argmax(rise * np.sqrt(k * (n - k) / n))])
    before, after = values[:best], values[best:]
    spread = math.sqrt((before.var() * len(before) + after.var() * len(after)) / n)
    return best if after.mean() - before.mean() > 2 * spread + 1e-9 else None


def first_still(rows: Rows, region: str) -> Moment | None:
    """From where on nothing moves until the end of the clip."""
    flow = curve(rows, "dynamic_degree", region)
    moving = np.flatnonzero(flow >= STILL)
    if not len(flow) or (len(moving) and moving[-1] == len(flow) - 1):
        return None
    if not len(moving):
        return Moment("throughout", "dynamic_degree", region, 0.0, 0)
    at, frames = int(moving[-1]) + 1, frames_of(rows)
    frame = round(at * (frames - 1) / len(flow)) if frames else None
    return Moment("from here on", "dynamic_degree", region, at / len(flow), frame)
