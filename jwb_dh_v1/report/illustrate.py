"""Pictures for a report: what needs the clips themselves, made in one pass over the samples, within limits of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.metrics.sample import Sample


class Noted(Protocol):
    """Something on the page that can say why it has no pictures."""

    note: str


class NotShown(Exception):
    """A picture that would not be of what was scored; the text says why."""


@dataclass
class ByteBudget:
    """Bytes that pictures of one kind may still take in the page."""

    left: int


@dataclass(frozen=True)
class Task:
    """Pictures of one sample: where the reason goes if there are none, how they are made, and from which room.

    `make` gets a sample whose clips may be decoded without being kept, and returns the bytes that it adds to the page.
    """

    sample_id: str
    holder: Noted
    make: Callable[[Sample], int]
    room: ByteBudget


def illustrate(tasks: Sequence[Task], samples: Iterable[Sample] | None) -> None:
    """Make all pictures. Samples are gone through once; only those shown are decoded.

    A picture that cannot be made (no samples given, a file that is gone, no detector) leaves a note instead.
    """
    wanted: dict[str, list[Task]] = {}
    for task in tasks:
        wanted.setdefault(task.sample_id, []).append(task)
        task.holder.note = "No pictures: the samples were not given to the report."
    for sample in samples or ():
        if not wanted:
            break
        for task in wanted.pop(sample.id, ()):
            task.holder.note = ""
            if task.room.left <= 0:
                task.holder.note = "No pictures: the report would become too large."
                continue
            try:
                task.room.left -= task.make(_passing(sample))
            except (JwbError, OSError, NotShown) as error:
                task.holder.note = f"No pictures: {error}"
    if samples is not None:
        for left in wanted.values():
            for task in left:
                task.holder.note = "No pictures: the samples given to the report do not hold this one."


def require_same(sample: Sample, sha256: str) -> None:
    """Refuse a file that is not the one that was scored.

    Raises:
        NotShown: it is another.

    """
    if sha256 and sample.generated.sha256 != sha256:
        raise NotShown("the file is not the one that was scored.")


def _passing(sample: Sample) -> Sample:
    """The sample with twins of its clips: frames that they decode go away with them."""
    sample = replace(sample, generated=sample.generated.uncached_copy())
    if sample.reference is not None:
        reference = sample.reference.uncached_copy()
        reference.models = reference.models or sample.generated.models
        sample = replace(sample, reference=reference)
    return sample
