"""Which runs may be put side by side. Every command that shows two runs in one table asks here.

Two runs are comparable when everything that could have moved a score they share is equal: protocol, data, box source,
weights, failure policy, precision. The metrics and regions need not be the same; then

- a weight that only one run names is no difference (a metric that the other did not score needs it), unless the other
  scored the same cells or more;
- the box source `none` (only whole frames were scored) goes with any other, as whole frames do not depend on boxes.

The decoder, the package's version, those of others and the device are remarks, not refusals: decoders give equal
pixels on our test clips, and the number after a protocol's `/` moves whenever a release moves a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.results import Result

REFUSED = ("protocol", "data", "boxes", "weights", "failures", "precision")
REMARKED = ("decoder", "version")
CROPPED = {"face", "hands"}


def cells(result: Result) -> set[tuple[str, str]]:
    """The (metric, region) pairs that a run scored."""
    return {(score.metric, score.region) for score in result.scores}


def differing(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    """What forbids to put two runs side by side: key -> both values; empty where nothing does.

    Weights are listed one by one, as `weights.NAME`. Data that a run does not record counts as different.
    """
    found: dict[str, tuple[str, str]] = {}
    for key in REFUSED:
        ours, theirs = a.plan.get(key), b.plan.get(key)
        if key == "protocol":
            ours, theirs = a.protocol, b.protocol
        if key == "weights":
            found |= _weights(a, b)
        elif key == "data" and not (ours and theirs):
            found[key] = (str(ours or "not recorded"), str(theirs or "not recorded"))
        elif ours != theirs and not (key == "boxes" and _whole_frames_only(a, b)):
            found[key] = (str(ours), str(theirs))
    return found


def _weights(a: Result, b: Result) -> dict[str, tuple[str, str]]:
    ours, theirs = (run.plan.get("weights") or {} for run in (a, b))
    found = {}
    for name in sorted({*ours, *theirs}):
        if name in ours and name in theirs:
            differs = ours[name] != theirs[name]
        else:  # explained by a cell that only this run has?
            differs = cells(a) <= cells(b) if name in ours else cells(b) <= cells(a)
        if differs:
            found[f"weights.{name}"] = (str(ours.get(name, "none"))[:12], str(theirs.get(name, "none"))[:12])
    return found


def _whole_frames_only(a: Result, b: Result) -> bool:
    """Whether one run used no boxes at all, so that the cells both have are of whole frames."""
    return any(run.plan.get("boxes") == "none" and not CROPPED & {region for _, region in cells(run)} for run in (a, b))


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
    if len({repr(sorted(result.versions.items())) for result in results}) > 1:
        notes.append("The systems were scored with different versions of packages.")
    if len({result.device.partition(":")[0] for result in results}) > 1:
        notes.append("The systems were scored on different kinds of devices.")
    if str(results[0].plan.get("data")).startswith("ids:"):
        notes.append("Of the samples only the names are recorded; that they hold the same is taken on trust.")
    notes += [f"{name} is incomplete." for name, r in zip(labels(results), results, strict=True) if not r.complete]
    return notes


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
