"""What is wrong with a run, from its scores alone: the rules of `failure_rules.py` with their evidence.

A rule holds for a run when every condition holds for the run's means, and for a clip when those hold that a single
clip can show (distances of sets cannot). A rule that only some clips show is a finding of those clips. A rule whose
measures are missing is listed with what it needs; it is never passed over.

Strength says how sure a finding is: the distance of a mean from its bound in units of the half of its 95 % interval
that points there, the smallest of all conditions. Above 1 the interval lies beyond the bound: `clear`. Otherwise, and
where there is no interval, `possible`.

`diagnose_published` holds the rules against the eight published systems, of which only means are known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from jwb_dh_v1.analysis.comparable import labels, require_comparable
from jwb_dh_v1.analysis.diagnosis.clip_statistics import (
    SETS,
    DiagnosedRun,
    Measured,
    Moment,
    Rows,
    clip_value,
    first_still,
    metric_of,
    moment,
    said,
    usual,
)
from jwb_dh_v1.analysis.diagnosis.failure_rules import BY_DEFINITION, PUBLISHED, RULES, TEASER, Condition, Rule
from jwb_dh_v1.analysis.reconcile import LOWER, VBENCH, published
from jwb_dh_v1.analysis.wording import number
from jwb_dh_v1.scoring.result import Result, _plain
from jwb_dh_v1.stats.estimate import Estimate

SCHEMA = "jwb-dh-v1/diagnosis/1"
WIN_RATE = "lalm_win_rate"


@dataclass(frozen=True)
class Evidence:
    """One condition of a finding with what was measured.

    Attributes:
        value, low, high: mean over the run's clips, or a distance of sets, with its 95 % interval where it has one.
        n: clips.
        bound, why: what the value lies beyond (`side`) and where that comes from.
        strength: see the module; infinite where the value cannot vary or the bound holds by definition.

    """

    measure: str
    region: str
    value: float
    low: float | None
    high: float | None
    n: int
    side: str
    bound: float
    why: str
    strength: float | None

    @property
    def text(self) -> str:
        """For people: `CSIM on face -0.01 [-0.18, 0.15] below 0.2 (n 8)`."""
        digits = _digits(self.value, self.bound)
        between = ""
        if self.low is not None and self.high is not None and self.high > self.low:
            between = f" [{number(self.low, digits)}, {number(self.high, digits)}]"
        place = "" if self.region == "any" else f" on {self.region}"
        count = f" (n {self.n})" if self.n else ""
        value, bound = number(self.value, digits), number(self.bound, digits)
        return f"{said(self.measure)}{place} {value}{between} {self.side} {bound}{count}"


@dataclass(frozen=True)
class ClipFinding:
    """A clip that shows a finding: its values by `measure/region`, and when it goes wrong, if a curve says so."""

    sample_id: str
    values: Mapping[str, float]
    moment: Moment | None


@dataclass(frozen=True)
class Finding:
    """A rule that holds.

    Attributes:
        scope: `run` (the means show it) or `clips` (only `clips` do).
        strength, grade: see the module; of a finding of clips there is no strength, and it is `clear`.
        clips: those that show it, worst first.
        of: clips that could show it.
        missing: measures that would have been looked at as well.
        explained_by: a finding that this one follows from.

    """

    rule: str
    kind: str
    scope: Literal["run", "clips"]
    strength: float | None
    grade: Literal["clear", "possible"]
    sentence: str
    look: str
    evidence: tuple[Evidence, ...]
    clips: tuple[ClipFinding, ...]
    of: int
    missing: tuple[str, ...] = ()
    explained_by: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings of a run, the ones to look at first in front.

    Attributes:
        relative_to: what is usual was read from this.
        not_judged: rule -> what it needs.
            notes: what to mind, one sentence each.
        clips: in the run; 0 for published rows.

    """

    name: str
    protocol: str
    relative_to: str
    findings: tuple[Finding, ...]
    not_judged: Mapping[str, str]
    notes: tuple[str, ...] = ()
    clips: int = 0

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Findings that are failures and do not follow from another one."""
        return tuple(f for f in self.findings if f.kind == "failure" and not f.explained_by)

    @property
    def headline(self) -> str:
        """The finding to look at first, in one sentence."""
        if not self.findings:
            return "No rule holds" + (f"; {len(self.not_judged)} could not be judged." if self.not_judged else ".")
        first = self.findings[0]
        where = "" if first.scope == "run" else f" ({len(first.clips)} of {first.of} clips)"
        return f"{first.rule}{where}: {first.sentence}"

    @property
    def by_clip(self) -> dict[str, tuple[str, ...]]:
        """Sample id -> names of the rules that it shows; clips without any are left out."""
        found: dict[str, tuple[str, ...]] = {}
        for finding in self.findings:
            for clip in finding.clips:
                found[clip.sample_id] = (*found.get(clip.sample_id, ()), finding.rule)
        return dict(sorted(found.items()))

    def __getitem__(self, rule: str) -> Finding:
        """Return the finding of a rule."""
        for finding in self.findings:
            if finding.rule == rule:
                return finding
        raise KeyError(f"{rule!r} was not found in {self.name}")

    def __contains__(self, rule: object) -> bool:
        """Whether a rule holds."""
        return any(finding.rule == rule for finding in self.findings)

    def to_json(self) -> str:
        """All of it; infinite values are the string `inf` or `-inf`."""
        document = {"schema": SCHEMA, **asdict(self), "headline": self.headline, "by_clip": self.by_clip}
        for told, finding in zip(document["findings"], self.findings, strict=True):
            for one, clip in zip(told["clips"], finding.clips, strict=True):
                one["moment"] = asdict(clip.moment) | {"text": clip.moment.text} if clip.moment else None
        return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def diagnose(
    result: Result,
    against: Result | None = None,
    *,
    win_rate: Estimate | None = None,
    fps: float | Mapping[str, float] | None = None,
) -> Diagnosis:
    """Hold a run against the rules.

    Args:
        result: of `score` or `Result.load`.
        against: a run of the same plan whose clips say what is usual: the real clips scored as a system, or another
            system. Without it lite/1 has the teaser's real clips (`failure_rules.TEASER`); the others have nothing.
        win_rate: of the judge over the baseline, if the run was judged.
        fps: frames per second, of all clips or by sample id, to give moments in seconds.

    Raises:
        PlanMismatch: the two runs cannot be put side by side, see `comparable.py`.

    """
    notes = require_comparable([result, against]) if against else []
    run, other = DiagnosedRun(result), DiagnosedRun(against) if against else None
    given = Measured(win_rate.value, win_rate.low, win_rate.high, win_rate.n) if win_rate else None
    bounds = _Bounds(run, other, labels([result, against])[1] if against else "")
    found: list[Finding] = []
    not_judged: dict[str, str] = {}
    for rule in RULES:
        judged = _judge(rule, run, bounds, given, fps)
        if isinstance(judged, str):
            not_judged[rule.name] = judged
        elif judged:
            found.append(judged)
    if not result.complete:
        notes.append("The run is incomplete: more clips failed than were allowed.")
    if other is None and result.protocol.startswith("lite/"):
        notes.append("What is usual was measured on eight real clips of the teaser; --against RUN takes it from a run.")
    if found and len(set(run.identities.values())) < 2:
        notes.append("One identity gives no intervals: every finding that needs one is no more than possible.")
    return Diagnosis(
        result.name, result.protocol, bounds.source, in_order(found), not_judged, tuple(notes), len(run.clips)
    )


class _Bounds:
    """What is usual, by measure and region, and where it was read."""

    def __init__(self, run: DiagnosedRun, other: DiagnosedRun | None, label: str) -> None:
        self.other, self.label, self.lite = other, label, run.protocol.startswith("lite/")
        teaser = "the teaser's real clips" if self.lite else ""
        self.source = f"the clips of {label}" if other else teaser or "nothing: only bounds that need no other run"

    def of(self, condition: Condition) -> tuple[float, str] | str:
        """A condition's bound with its reason, or what is needed to have one."""
        if isinstance(condition.bound, int | float):
            return float(condition.bound), condition.why
        cell = condition.measure, condition.region
        at = 0 if condition.bound == "low" else 1
        needs = f"--against RUN, to know what is usual for {said(cell[0]).lower()} on {cell[1]}"
        if self.other is not None:
            found = usual(self.other, *cell)
            # The real clips are no measure for a distance from themselves.
            if not isinstance(found, str) and not (cell[0] in SETS and found[1] < 1e-3):
                return found[at], f"{('lowest', 'highest')[at]} of {self.label}"
            needs = found if isinstance(found, str) else f"a run to compare with that is no copy, for {said(cell[0])}"
        if self.lite and cell in TEASER:
            return TEASER[cell][at], f"{('lowest', 'highest')[at]} of the teaser's real clips (sets: coded at CRF 35)"
        return needs


def _judge(
    rule: Rule, run: DiagnosedRun, bounds: _Bounds, win_rate: Measured | None, fps: float | Mapping[str, float] | None
) -> Finding | str | None:
    """The finding of a rule, what it needs, or None where it does not hold."""
    evidence: list[Evidence] = []
    used: list[tuple[Condition, float]] = []
    missing: list[str] = []
    holds = True
    for condition in rule.conditions:
        measured = run.measure(condition.measure, condition.region)
        if condition.measure == WIN_RATE and win_rate is not None:
            measured = win_rate
        bound = bounds.of(condition)
        lacking = measured if isinstance(measured, str) else bound if isinstance(bound, str) else ""
        if lacking:
            missing.append(lacking)
            if not condition.optional:
                return _needs(rule, run, bounds, win_rate)
            continue
        assert not isinstance(measured, str) and not isinstance(bound, str)
        used.append((condition, bound[0]))
        holds = holds and condition.holds(measured.value, bound[0])
        evidence.append(evidence_of(condition, measured, *bound))
    clips, possible = _clips(rule, run, used, fps) if holds or rule.clipwise else ((), 0)
    if not holds and not (clips and rule.clipwise):
        return None
    strengths = [one.strength for one in evidence]
    strength = min((s for s in strengths if s is not None), default=None) if None not in strengths else None
    if not holds:
        strength = None
    grade: Literal["clear", "possible"] = "possible" if holds and (strength is None or strength <= 1) else "clear"
    return Finding(rule.name, rule.kind, "run" if holds else "clips", strength, grade, rule.sentence, rule.look,
                   tuple(evidence), clips, possible, tuple(missing))  # fmt: skip


def _needs(rule: Rule, run: DiagnosedRun, bounds: _Bounds, win_rate: Measured | None) -> str:
    """Everything that a rule lacks."""
    lacking: list[str] = []
    for c in rule.conditions:
        measured, bound = run.measure(c.measure, c.region), bounds.of(c)
        if not c.optional:
            lacking += [measured] if isinstance(measured, str) and not (c.measure == WIN_RATE and win_rate) else []
            lacking += [bound] if isinstance(bound, str) else []
    return "needs " + "; ".join(dict.fromkeys(lacking))


def evidence_of(condition: Condition, measured: Measured, bound: float, why: str) -> Evidence:
    """A condition with what was measured; see the module for the strength."""
    end = measured.high if condition.side == "below" else measured.low
    strength: float | None
    if why == BY_DEFINITION:
        strength = math.inf
    elif end is None:
        strength = None
    else:
        half, gap = abs(end - measured.value), abs(bound - measured.value)
        strength = gap / half if half > 1e-12 else math.inf
    if strength is not None and not condition.holds(measured.value, bound):
        strength = -strength
    return Evidence(condition.measure, condition.region, measured.value, measured.low, measured.high, measured.n,
                    condition.side, bound, why, strength)  # fmt: skip


def _clips(
    rule: Rule, run: DiagnosedRun, used: Sequence[tuple[Condition, float]], fps: float | Mapping[str, float] | None
) -> tuple[tuple[ClipFinding, ...], int]:
    """Clips that show a rule, worst first, and how many could have shown it."""
    alone = [(c, b) for c, b in used if c.measure not in SETS and c.measure != WIN_RATE]
    if len(alone) < sum(c.measure not in SETS for c, _ in used) or not alone:
        return (), 0
    found: dict[str, dict[str, float]] = {}
    possible, (first, _) = 0, alone[0]
    for sample, rows in run.clips.items():
        values = [(c, b, clip_value(rows, c.measure, c.region)) for c, b in alone]
        if any(v is None and not c.optional for c, _, v in values):
            continue
        possible += 1
        if all(v is None or c.holds(v, b) for c, b, v in values):
            found[sample] = {f"{c.measure}/{c.region}": v for c, _, v in values if v is not None}
    sign = -1 if first.side == "below" else 1
    key = f"{first.measure}/{first.region}"
    ordered = sorted(found, key=lambda sample: (-sign * found[sample].get(key, -math.inf * sign), sample))
    clips = [ClipFinding(s, found[s], _moment(rule, run, s, used, fps)) for s in ordered]
    return tuple(clips), possible


def _moment(
    rule: Rule,
    run: DiagnosedRun,
    sample: str,
    used: Sequence[tuple[Condition, float]],
    fps: float | Mapping[str, float] | None,
) -> Moment | None:
    if rule.moment is None:
        return None
    metric, region = rule.moment
    rows: Rows = run.clips[sample]
    if metric == "still":
        found = first_still(rows, region)
    else:
        higher = all(s.higher_is_better for s in run.result.scores if s.metric == metric)
        side = "below" if higher else "above"
        bounds = [b for c, b in used if (c.measure, c.region, c.side) == (metric, region, side)]
        found = moment(rows, metric, region, higher, bounds[0] if bounds else None)
    if found is not None and run.protocol.startswith("paper/"):
        found = replace(found, frame=None)  # pairs are of the first 16 frames, which are no clip
    rate = fps.get(sample) if isinstance(fps, Mapping) else fps
    if found is not None and rate and found.frame is not None:
        found = replace(found, seconds=found.frame / rate)
    return found


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """With what explains them; failures before notes, of the run before of clips, clear before possible."""
    inside = {rule.name: rule.inside for rule in RULES}
    names = [rule.name for rule in RULES]
    told = []
    for finding in findings:
        clips = {clip.sample_id for clip in finding.clips}
        causes = [
            other.rule
            for other in findings
            if other.rule in inside.get(finding.rule, ())
            and (other.scope == "run" or (clips and clips <= {clip.sample_id for clip in other.clips}))
        ]
        told.append(replace(finding, explained_by=finding.explained_by or (causes[0] if causes else "")))
    return tuple(
        sorted(told, key=lambda f: (bool(f.explained_by), f.kind == "note", f.scope != "run", f.grade != "clear",
                                    names.index(f.rule) if f.rule in names else -1))
    )  # fmt: skip


def _digits(value: float, bound: float) -> int:
    """Digits that tell a value from its bound, two at least."""
    gap = abs(value - bound)
    if not math.isfinite(gap) or gap == 0:
        return 2
    return min(6, max(2 if abs(value) < 100 else 1, 1 - math.floor(math.log10(gap))))


ONE_CLIP = "a score per clip: ranks among systems are not enough"


class _Row:
    """A system of the published tables, as far as rules ask of it."""

    protocol = "paper/1"

    def __init__(self, values: Mapping[tuple[str, str], float]) -> None:
        self.values = values

    def measure(self, name: str, region: str) -> Measured | str:
        """A printed score (a share where it is printed in percent), or what is needed."""
        found = self.values.get((name, region))
        if name == "sc_gap" and ("subject_consistency", region) in self.values:
            found = self.values["subject_consistency", region] - self.values["subject_consistency", "body"]
        elif name == "zeros" and ("motion_smoothness", region) in self.values:
            found = 1 - self.values["motion_smoothness", region]
        elif name == "csim":
            found = None  # of pixels, not of faces
        return f"{said(name).lower()} on {region}" if found is None else Measured(found, None, None, 0)


def diagnose_published() -> dict[str, Diagnosis]:
    """Findings on the eight published systems, by rank among them: `low` and `high` are the outer quarters.

    Only rules that ranks can show are judged. No interval can be given, so that every finding is `possible`.
    """
    systems: dict[str, dict[tuple[str, str], float]] = {}
    for cell in published():
        scale = 100 if cell.metric in VBENCH and cell.text.endswith("%") else 1
        systems.setdefault(cell.system, {})[cell.metric, cell.region] = cell.number / scale
    rows = {name: _Row(values) for name, values in systems.items()}
    return {name: _ranked(name, row, rows) for name, row in rows.items()}


def _ranked(name: str, row: _Row, rows: Mapping[str, _Row]) -> Diagnosis:
    found: list[Finding] = []
    not_judged: dict[str, str] = {}
    for rule in (*PUBLISHED, *RULES):
        if not rule.relative and rule not in PUBLISHED:
            not_judged[rule.name] = f"needs {ONE_CLIP}"
            continue
        evidence, missing, holds = [], [], True
        for condition in rule.conditions:
            measured = row.measure(condition.measure, condition.region)
            if isinstance(measured, str):
                if not condition.optional:
                    missing.append(measured)
                continue
            bound, why = _quarter(condition, rows)
            holds = holds and condition.holds(measured.value, bound)
            evidence.append(evidence_of(condition, measured, bound, why))
        if missing:
            not_judged[rule.name] = "needs " + "; ".join(missing)
        elif holds:  # whatever else ranks say of means that are mostly zeros, the zeros are why
            because = PUBLISHED[0].name if found and found[0].rule == PUBLISHED[0].name else ""
            found.append(Finding(rule.name, rule.kind, "run", None, "possible", rule.sentence, rule.look,
                                 tuple(evidence), (), 0, (), because))  # fmt: skip
    note = "Ranks among eight systems, without intervals; clips without a score are zeros in these means."
    return Diagnosis(name, "paper/1", "the published eight systems", in_order(found), not_judged, (note,))


def _quarter(condition: Condition, rows: Mapping[str, _Row]) -> tuple[float, str]:
    if isinstance(condition.bound, int | float):
        return float(condition.bound), condition.why
    measured = [row.measure(condition.measure, condition.region) for row in rows.values()]
    values = [one.value for one in measured if isinstance(one, Measured)]
    bound = float(np.quantile(values, 0.25 if condition.bound == "low" else 0.75))
    direction = "worst" if (condition.bound == "high") == (metric_of(condition.measure) in LOWER) else "best"
    return bound, f"the {direction} quarter of the published eight systems"
