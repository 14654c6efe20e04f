"""The plan: everything that can change a number, fixed before the first decode. One plan per output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jwb_dh_v1.errors import MissingWeights, SetupError
from jwb_dh_v1.media.clip import decoder_name
from jwb_dh_v1.metrics import Protocol, protocol
from jwb_dh_v1.metrics.policy import POLICIES, Policy
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
        protocol: name with number.
        cells: (metric, region) in the order of the table.
        boxes: detector with number, `annotations`, or `none` where only whole frames are scored.
        weights: sha256 of every file by name.
        data: what the samples come from, by content or revision.
        decoder: name and version.
        failures: what samples without a score count as; `protocol`: what the protocol says for each metric.
        precision: of the feature networks (`NetworkPool`).
        version: of this package.

    """

    protocol: str
    cells: tuple[Cell, ...]
    boxes: str
    weights: Mapping[str, str]
    data: str
    decoder: str
    failures: Policy | Literal["protocol"] = "protocol"
    precision: Precision = "fp32"
    version: str = __version__

    @property
    def table(self) -> Protocol:
        """The protocol's metrics."""
        return protocol(self.protocol)

    @property
    def needs_keypoints(self) -> bool:
        """Whether crops are made from key points (the authors' rule)."""
        return self.table.rule == "paper" and self.boxes not in {"none", "annotations"}

    def pool(self, paths: Mapping[str, Path], device: str = "auto") -> NetworkPool:
        """The networks that this plan needs, from verified files by name; each is loaded when it is first used."""
        boxes = self.boxes.partition("/")[0]
        return NetworkPool(paths, device, boxes, self.needs_keypoints, self.precision)


def make_plan(
    protocol_name: str,
    metrics: Sequence[str] | None = None,
    regions: Sequence[Region] = REGIONS,
    boxes: str | None = None,
    data: str = "",
    failures: Policy | Literal["protocol"] = "protocol",
    precision: Precision = "fp32",
) -> Plan:
    """Choose the cells and the weights they need.

    Args:
        protocol_name: `standard`, `paper` or `lite`, with or without number.
        metrics: names; all of the protocol by default.
        regions: of body, face, hands. Speech metrics do not depend on them.
        boxes: `mediapipe`, `dwpose` or `annotations`; the protocol's own choice by default.
        data: fingerprint of the samples.
        failures: `strict`, `zero` or `worst` for all metrics, see `results/policy.py`.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        SetupError: an unknown protocol, metric, region, detector, policy or precision, or nothing left to score.

    """
    table = protocol(protocol_name)
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
    return Plan(table.name, cells, source, weights, data, decoder_name(), failures, precision)


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
