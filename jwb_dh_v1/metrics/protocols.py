"""Protocols: tables from a metric's name to what is computed. Ours are made of the metric files' `METRICS`.

A metric file is found by its declaration alone: every module in a sub-folder of `metrics/` that has `METRICS`. Tables
from outside come as `package.module:TABLE` or through the entry point group `jwb_dh_v1.protocols`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics.metric import Declared, Metric
from jwb_dh_v1.metrics.region import CropRule

ENTRY_POINTS = "jwb_dh_v1.protocols"
NUMBERED = re.compile(r"[a-z][a-z0-9_-]*/[1-9]\d*")

# The order of result tables; metrics that are not named here follow by name.
ORDER = (
    "subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree", "aesthetic_quality",
    "imaging_quality", "fid", "fid_clean", "fvd", "e_fid", "ssim", "psnr", "csim", "wer",
)  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """A table of metrics under one name; the number after `/` moves whenever a score can move.

    Attributes:
        name: e.g. `lite/1`.
        rule: how parts are cut out (`region.py`).
        boxes: the detector it uses unless told otherwise.
        metrics: by name.
        absent: metrics of the benchmark that it does not have, and why.
        stand_in: whether its networks stand in for those that published numbers come from.

    """

    name: str
    rule: CropRule = "track"
    boxes: str = "mediapipe"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    stand_in: bool = False

    @classmethod
    def of(cls, name: str, metrics: Iterable[Metric], rule: CropRule = "track", boxes: str = "mediapipe") -> Protocol:
        """A protocol of one's own.

        Args:
            name: with its number, e.g. `mylab/1`.
            metrics: in the order of the result table.
            rule, boxes: see the class.

        Raises:
            SetupError: a name without a number or of a protocol of this package, a metric twice, or none.

        """
        listed = tuple(metrics)
        table = cls(name, rule, boxes, MappingProxyType({metric.name: metric for metric in listed}))
        if len(table.metrics) != len(listed):
            raise SetupError(f"{name} has two metrics of one name.")
        return _outside(table)

    @property
    def short(self) -> str:
        """The name without its number."""
        return self.name.partition("/")[0]

    @property
    def built_in(self) -> bool:
        """Whether this package brings it."""
        return PROTOCOLS.get(self.short) is self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the table declares: two tables of one name are told apart by it."""
        said = [self.rule, *(metric.declaration() for metric in self.metrics.values())]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def __reduce__(self) -> tuple[object, ...]:
        """Workers get ours by name and others whole, with dictionaries for the views, which cannot be pickled."""
        if self.built_in:
            return protocol, (self.name,)
        return Protocol, (self.name, self.rule, self.boxes, dict(self.metrics), dict(self.absent), self.stand_in)


def _declared() -> Iterator[Declared]:
    """`METRICS` of every metric file."""
    import jwb_dh_v1.metrics as room

    for folder in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
        if folder.ispkg:
            package = importlib.import_module(folder.name)
            for module in pkgutil.iter_modules(package.__path__, f"{folder.name}."):
                found = getattr(importlib.import_module(module.name), "METRICS", None)
                if found is not None:
                    yield found


def _place(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def _filled(*frames: Protocol) -> Mapping[str, Protocol]:
    found: dict[str, dict[str, Metric]] = {frame.short: {} for frame in frames}
    for table in _declared():
        for protocol, metrics in table.items():
            for metric in metrics:
                if found[protocol].setdefault(metric.name, metric) is not metric:
                    raise SetupError(f"{protocol} has two metrics {metric.name!r}.")
    sorted_by_place = {
        short: dict(sorted(table.items(), key=lambda row: _place(row[0]))) for short, table in found.items()
    }
    return MappingProxyType(
        {frame.short: replace(frame, metrics=MappingProxyType(sorted_by_place[frame.short])) for frame in frames}
    )


PROTOCOLS: Mapping[str, Protocol] = _filled(
    Protocol("standard/1"),
    Protocol("paper/1", "paper", "dwpose"),
    Protocol(
        "lite/1",
        absent=MappingProxyType(
            {
                "aesthetic_quality": "no small network of the registries judges pictures as CLIP and LAION's head do",
                "imaging_quality": "no small network of the registries judges pictures as MUSIQ does",
            }
        ),
        stand_in=True,
    ),
)


def described() -> list[str]:
    """The metrics of our protocols that have a page of their own, in the order of result tables."""
    rows = [metric for table in PROTOCOLS.values() for metric in table.metrics.values()]
    return sorted({metric.name for metric in rows if not metric.page}, key=_place)


def protocol(name: str | Protocol) -> Protocol:
    """The protocol that is meant: ours by its name, with or without number; another's as `package.module:TABLE`.

    A name that is not ours is looked for in the entry point group `jwb_dh_v1.protocols` of the installed packages,
    whose entries are named as their protocol without its number.

    Raises:
        SetupError: no such protocol, another number than this version computes, or a table that cannot be used.

    """
    if isinstance(name, Protocol):
        return name if name.built_in else _outside(name)
    for short, found in PROTOCOLS.items():
        if name in {short, found.name}:
            return found
    if ":" in name:
        return _imported(name)
    for offered in installed():
        if name in {offered.short, offered.name}:
            return offered
    names = ", ".join(found.name for found in (*PROTOCOLS.values(), *installed()))
    raise SetupError(f"There is no protocol {name!r}; this version has {names}.")


def installed() -> list[Protocol]:
    """The protocols of installed packages.

    Raises:
        SetupError: one cannot be imported, or is not a protocol.

    """
    from importlib.metadata import entry_points

    return [_imported(entry.value) for entry in sorted(entry_points(group=ENTRY_POINTS))]


def known(name: str) -> Protocol | None:
    """The protocol of that name, or None: who reads results may not have its table installed."""
    try:
        return protocol(name)
    except SetupError:
        return None


def _imported(place: str) -> Protocol:
    """The table at `package.module:TABLE`: a `Protocol`, and nothing else."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001 - code of the user's own runs here
        raise SetupError(
            f"The protocol {place} cannot be imported ({type(error).__name__}: {error}); install it, or name its "
            "folder in PYTHONPATH."
        ) from None
    if not isinstance(found, Protocol):
        raise SetupError(f"{place} is a {type(found).__name__}, not a jwb_dh_v1.metrics.Protocol.")
    return protocol(found)


def _outside(table: Protocol) -> Protocol:
    """A table from outside, if it can be used."""
    if table.short in PROTOCOLS:
        raise SetupError(
            f"{table.name!r} is a name of this package's own protocols; give yours another, such as 'mylab/1'."
        )
    if not NUMBERED.fullmatch(table.name):
        raise SetupError(f"{table.name!r} is not a name for a protocol: it needs a number, such as 'mylab/1'.")
    if not table.metrics:
        raise SetupError(f"{table.name} has no metrics.")
    if wrong := [key for key, metric in table.metrics.items() if key != metric.name]:
        raise SetupError(f"{table.name} has {table.metrics[wrong[0]].name!r} under the name {wrong[0]!r}.")
    return table
