"""Which runs may be put side by side. Every command that shows two runs in one table asks here.

Two runs are comparable when everything that could have moved a score they share is equal: protocol, data, box source,
weights, failure policy, precision. The metrics and regions need not be the same; then

- a weight that only one run names is no difference (a metric that the other did not score needs it), unless the other
  scored the same cells or more;
- the box source `none` (only whole frames were scored) goes with any other, as whole frames do not depend on boxes.

Whoever wrote a `results.json` may have left something out: a weight whose sha256 a run does not give though its scores
need it differs from every other, and so do data that are not recorded, another direction, unit or policy of a metric,
and another number of samples. Comparability is not transitive, so all pairs are asked.

The decoder, the package's version, those of others and the device are remarks, not refusals: decoders give equal
pixels on our test clips, and the number after a protocol's `/` moves whenever a release moves a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.scoring.result import Result

if TYPE_CHECKING:
    from jwb_dh_v1.scoring.plan import Plan

REFUSED = ("protocol", "declarations", "data", "boxes", "failures", "precision")
REMARKED = ("decoder", "version")
CROPPED = {"face", "hands"}
NOT_RECORDED = "not recorded"


def cells(result: Result) -> set[tuple[str, str]]:
    """The (metric, region) pairs that a run scored."""
    return {(score.metric, score.region) for score in result.scores}


def differing(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """What forbids to put two runs side by side: key -> both values; empty where nothing does.

    Weights are listed one by one, as `weights.NAME`; what differs between two scores as `unit of METRIC` and the like.
    """
    found: dict[str, tuple[str, str]] = {}
    for key in REFUSED:
        ours, theirs = a.plan.get(key), b.plan.get(key)
        if key == "protocol":
            ours, theirs = a.protocol, b.protocol
        if key == "data" and not (ours and theirs):
            found[key] = (str(ours or NOT_RECORDED), str(theirs or NOT_RECORDED))
        elif ours != theirs and not (key == "boxes" and _whole_frames_only(a, b)):
            found[key] = (str(ours), str(theirs))
    return found | _weights(a, b) | _contradictions(a, b)


def _weights(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    ours, theirs = (dict(run.plan.get("weights") or {}) for run in (a, b))
    needs = tuple(needed_weights(run) for run in (a, b))
    lacking = {name for names, w in zip(needs, (ours, theirs), strict=True) for name in names or () if not w.get(name)}
    found = {}
    for name in sorted({*ours, *theirs, *lacking}):
        if None in needs or (name in ours and name in theirs):
            differs = ours.get(name) != theirs.get(name)
        else:  # explained by a cell that only this run has?
            differs = cells(a) <= cells(b) if name in ours else cells(b) <= cells(a)
        if differs or name in lacking:
            found[f"weights.{name}"] = (_sha(ours.get(name)), _sha(theirs.get(name)))
    return found


def _sha(value: str | None) -> str:
    return str(value or NOT_RECORDED)[:12]


def _contradictions(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """What runs of equal plans cannot differ in, unless a file was changed or another version wrote it."""
    found: dict[str, tuple[str, str]] = {}
    others = {(score.metric, score.region): score for score in b.scores}
    for score in a.scores:
        other = others.get((score.metric, score.region))
        if other is None:
            continue
        for key in ("higher_is_better", "unit", "failures"):
            ours, theirs = getattr(score, key), getattr(other, key)
            if ours != theirs and (key != "failures" or None not in (score.value, other.value)):
                found.setdefault(f"{key} of {score.metric}", (str(ours), str(theirs)))
        sizes = tuple(str(s.n + s.skipped + s.failed) for s in (score, other))
        if sizes[0] != sizes[1]:
            found.setdefault("number of samples", (sizes[0], sizes[1]))
    return found


def _whole_frames_only(a: Result, b: Result) -> bool:
    """Whether one run used no boxes at all, so that the cells both have are of whole frames."""
    return any(run.plan.get("boxes") == "none" and not CROPPED & {region for _, region in cells(run)} for run in (a, b))


def needed_weights(result: Result) -> frozenset[str] | None:
    """The weights without whose sha256 the scores cannot be placed; None for a protocol this version does not know."""
    try:
        return frozenset(expected_plan(result).weights)
    except SetupError:
        return None


def expected_plan(result: Result) -> Plan:
    """The plan as this version makes it for the same cells, boxes, failures and precision.

    Raises:
        SetupError: this version has no such protocol, metric, region, detector, policy or precision.

    """
    from jwb_dh_v1.metrics.region import REGIONS

    plan, there = result.plan, cells(result)
    boxes = str(plan.get("boxes")).partition("/")[0]
    return _planned(
        result.protocol,
        tuple(dict.fromkeys(score.metric for score in result.scores)),
        tuple(region for region in REGIONS if region in {r for _, r in there}),
        None if boxes == "none" else boxes,
        plan.get("failures") or "protocol",
        plan.get("precision") or "fp32",
    )


@lru_cache(maxsize=1024)
def _planned(protocol: str, metrics: Any, regions: Any, boxes: str | None, failures: Any, precision: Any) -> Plan:
    from jwb_dh_v1.scoring.plan import make_plan

    return make_plan(protocol, metrics, regions, boxes, failures=failures, precision=precision)


def comparable(a: Result, b: Result) -> bool:
    """Whether nothing forbids to put two runs side by side (`differing` says what)."""
    return not differing(a, b)


def require_comparable(results: Sequence[Result]) -> list[str]:
    """Refuse runs that cannot be put side by side; remarks, one sentence each, on what differs without forbidding it.

    Raises:
        SetupError: there are none.
        PlanMismatch: names two runs, what differs, and both values.

    """
    if not results:
        raise SetupError("There is no run to compare.")
    for (first, a), (second, b) in combinations(zip(labels(results), results, strict=True), 2):
        if found := differing(a, b):
            said = "; ".join(f"{key}: {ours!r} and {theirs!r}" for key, (ours, theirs) in found.items())
            raise PlanMismatch(
                f"{first} and {second} cannot be put side by side ({said}). Only runs of one protocol, data set, "
                "box source, failure policy, precision and set of weights can be; score one of them again."
            )
    notes = []
    for key in REMARKED:
        values = sorted({str(result.plan.get(key)) for result in results})
        if len(values) > 1:
            notes.append(f"The systems were scored with different {key} (see their plans): {', '.join(values)}.")
    if packages := _packages(results):
        notes.append(f"The systems were scored with different versions of packages: {', '.join(packages)}.")
    if len({result.device.partition(":")[0] for result in results}) > 1:
        notes.append("The systems were scored on different kinds of devices.")
    if str(results[0].plan.get("data")).startswith("ids:"):
        notes.append("Of the samples only the names are recorded; that they hold the same is taken on trust.")
    notes += [f"{name} is incomplete." for name, r in zip(labels(results), results, strict=True) if not r.complete]
    return notes


def _packages(results: Sequence[Result], most: int = 6) -> list[str]:
    """`numpy 1.26 and 2.1`, for every package of which two runs had different versions (or only one had it)."""
    found = []
    for name in sorted({name for result in results for name in result.versions}):
        versions = sorted({str(result.versions.get(name) or "none") for result in results})
        found += [f"{name} {' and '.join(versions)}"] if len(versions) > 1 else []
    return found[:most] + ([f"{len(found) - most} more"] if len(found) > most else [])


def labels(results: Sequence[Result]) -> list[str]:
    """A name for each run: its own, with its folder or number where several have it."""
    names = [result.name for result in results]
    folders = [str(result.folder) if result.folder else "" for result in results]
    found = []
    for i, name in enumerate(names):
        if names.count(name) > 1:
            alone = folders[i] and folders.count(folders[i]) == 1
            name = folders[i] if alone else f"{name} #{names[:i].count(name) + 1}"
        found.append(name)
    return found
