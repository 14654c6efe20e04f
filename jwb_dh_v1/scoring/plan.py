"""The plan: everything that can change a number, fixed before the first decode. One plan per output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from jwb_dh_v1.errors import MissingWeights, PlanMismatch, SetupError
from jwb_dh_v1.media.clip import decoder_name
from jwb_dh_v1.metrics.metric import Metric
from jwb_dh_v1.metrics.policy import POLICIES, Policy
from jwb_dh_v1.metrics.protocols import Protocol, protocol
from jwb_dh_v1.metrics.region import REGIONS, Region
from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, DETECTOR_WEIGHTS
from jwb_dh_v1.networks.network import Precision
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import FILES, own_hashes, resolve, resolve_all
from jwb_dh_v1.version import __version__

Cell = tuple[str, str]  # metric, region


@dataclass(frozen=True)
class Plan:
    """Everything that can change a number. One plan per output folder.

    Attributes:
        table: the protocol.
        cells: (metric, region) in the order of the table.
        boxes: detector with number, `annotations`, or `none` where only whole frames are scored.
        weights: sha256 of every file by name.
        data: what the samples come from, by content or revision.
        decoder: name and version.
        failures: what samples without a score count as; `protocol`: what the protocol says for each metric.
        precision: of the feature networks (`NetworkPool`).
        version: of this package.

    """

    table: Protocol
    cells: tuple[Cell, ...]
    boxes: str
    weights: Mapping[str, str]
    data: str
    decoder: str
    failures: Policy | Literal["protocol"] = "protocol"
    precision: Precision = "fp32"
    version: str = __version__

    @property
    def protocol(self) -> str:
        """The protocol's name with its number."""
        return self.table.name

    def facts(self) -> dict[str, Any]:
        """The plan as it is written down: the protocol by its name, one from outside by what it declares as well."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "table"}
        own = {} if self.table.built_in else {"declarations": self.table.fingerprint}
        return {"protocol": self.protocol, **found, **own}

    @classmethod
    def from_facts(cls, found: Mapping[str, Any], table: Protocol) -> Plan:
        """The plan that `facts` gave, possibly by way of JSON.

        Raises:
            PlanMismatch: the protocol has other declarations now.

        """
        told = {field.name: found[field.name] for field in fields(cls) if field.name != "table"}
        plan = cls(table, **told | {"cells": tuple((metric, region) for metric, region in found["cells"])})
        now = plan.facts().get("declarations")
        if table.name != found["protocol"] or now != found.get("declarations"):
            raise PlanMismatch(
                f"The run was made by another {found['protocol']}: the table that is here declares other metrics."
            )
        return plan

    @property
    def needs_keypoints(self) -> bool:
        """Whether crops are made from key points (the authors' rule)."""
        return self.table.rule == "paper" and self.boxes not in {"none", "annotations"}

    def pool(self, paths: Mapping[str, Path], device: str = "auto") -> NetworkPool:
        """The networks that this plan needs, from verified files by name; each is loaded when it is first used."""
        boxes = self.boxes.partition("/")[0]
        return NetworkPool(paths, device, boxes, self.needs_keypoints, self.precision)


def make_plan(
    protocol_name: str | Protocol,
    metrics: Sequence[str | Metric] | None = None,
    regions: Sequence[Region] = REGIONS,
    boxes: str | None = None,
    data: str = "",
    failures: Policy | Literal["protocol"] = "protocol",
    precision: Precision = "fp32",
) -> Plan:
    """Choose the cells and the weights they need.

    Args:
        protocol_name: `standard`, `paper` or `lite`, with or without number; a table, `package.module:TABLE`, or the
            name of an installed one; with metrics that are objects, a name for the protocol that they make.
        metrics: names, all of the protocol by default; or `Metric` objects, which make a protocol of their own.
        regions: of body, face, hands. Speech metrics do not depend on them.
        boxes: `mediapipe`, `dwpose` or `annotations`; the protocol's own choice by default.
        data: fingerprint of the samples.
        failures: `strict`, `zero` or `worst` for all metrics, see `metrics/policy.py`.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        SetupError: an unknown protocol, metric, region, detector, policy or precision, or nothing left to score.

    """
    metrics, regions = _listed(metrics), _listed(regions) or ()
    table, metrics = _table(protocol_name, metrics)
    unknown = [m for m in metrics or () if m not in table.metrics]
    if unknown and unknown[0] in table.absent:
        raise SetupError(f"{table.name} has no {unknown[0]}: {table.absent[unknown[0]]}.")
    if unknown:
        raise SetupError(f"{table.name} has no metric {unknown[0]!r}; it has {', '.join(table.metrics)}.")
    if wrong := [r for r in regions if r not in REGIONS]:
        raise SetupError(f"There is no region {wrong[0]!r}; there are {', '.join(REGIONS)}.")
    if failures not in {"protocol", *POLICIES}:
        raise SetupError(f"There is no policy {failures!r} for failures; there are protocol, {', '.join(POLICIES)}.")
    if precision not in {"fp32", "bf16", "fp16"}:
        raise SetupError(f"There is no precision {precision!r}; there are fp32, bf16, fp16.")
    chosen = [m for name, m in table.metrics.items() if metrics is None or name in metrics]
    cells = tuple((m.name, r) for m in chosen for r in m.regions if r in regions or r == "speech")
    if not cells:
        raise SetupError("Nothing to score: none of these metrics applies to these regions.")
    boxes = boxes or table.boxes
    names = {weight for m in chosen if any(name == m.name for name, _ in cells) for weight in m.weights}
    source = "none"
    if any(region in {"face", "hands"} for _, region in cells):
        source = boxes
        if boxes != "annotations":
            if boxes not in DETECTOR_WEIGHTS:
                known = ", ".join(DETECTOR_WEIGHTS)
                raise SetupError(f"There is no box source {boxes!r}; there are {known}, annotations.")
            names |= set(DETECTOR_WEIGHTS[boxes])
            if boxes == "mediapipe" and table.rule == "paper":
                names |= set(ANNOTATE_WEIGHTS)
            source = f"{boxes}/1"
    weights = {name: FILES[name].sha256 for name in sorted(names)}
    return Plan(table, cells, source, weights, data, decoder_name(), failures, precision)


def _listed(names: Any) -> Any:
    """One name (or metric) is a list of one: `score(samples, "csim", "face")`."""
    return [names] if isinstance(names, str | Metric) else names


def _table(name: str | Protocol, metrics: Sequence[str | Metric] | None) -> tuple[Protocol, list[str] | None]:
    """The one place where a protocol is looked for, and the names of the metrics that are wanted of it."""
    names = [metric for metric in metrics or () if isinstance(metric, str)]
    objects = [metric for metric in metrics or () if isinstance(metric, Metric)]
    if not objects:
        return protocol(name), None if metrics is None else names
    if names:
        raise SetupError(
            f"{names[0]!r} is a name, {objects[0].name} a metric of your own: pass PROTOCOLS['standard'].metrics[...] "
            "in place of the name."
        )
    made = Protocol.of(name if isinstance(name, str) else name.name, objects)
    return made, list(made.metrics)


def with_own(plan: Plan, given: Mapping[str, Path] | None = None) -> Plan:
    """The plan with the sha256 of the user's own files where these are not the table's."""
    return replace(plan, weights={**plan.weights, **own_hashes(plan.weights, given)})


def without_missing(
    plan: Plan, given: Mapping[str, Path] | None = None, other: bool = False
) -> tuple[Plan, dict[str, list[str]]]:
    """The plan without the metrics whose weights are not here, and which weights each of those lacks.

    Raises:
        MissingWeights: the detector's own weights are not here, or no metric is left.
        WrongHash: a file is here but its content is another.

    """
    lacking: dict[str, list[str]] = {}
    for name in dict.fromkeys(metric for metric, _ in plan.cells):
        for weight in plan.table.metrics[name].weights:
            try:
                resolve(weight, given, other)
            except MissingWeights:
                lacking.setdefault(name, []).append(weight)
    cells = tuple(cell for cell in plan.cells if cell[0] not in lacking)
    if not cells:
        resolve_all(plan.weights, given, other)
    left = {weight for name, _ in cells for weight in plan.table.metrics[name].weights}
    of_metrics = {weight for metric in plan.table.metrics.values() for weight in metric.weights}
    weights = {name: sha for name, sha in plan.weights.items() if name in left or name not in of_metrics}
    return replace(plan, cells=cells, weights=weights), lacking
