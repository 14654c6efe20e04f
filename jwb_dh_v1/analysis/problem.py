"""What a check of a submission finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """Something about a submission.

    Attributes:
        rule: which check found it: `schema`, `protocol`, `plan`, `weights`, `own weights`, `data`, `n`, `complete`,
            `value`, `rows`, `tampered`, `name`, `duplicate`.
        message: one sentence.
        severe: whether it stands against publishing; else it is something to know.

    """

    rule: str
    message: str
    severe: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}" + ("" if self.severe else " (note)")


def listed(items: Iterable[Any], most: int = 6) -> str:
    """The first few in alphabetical order, and how many more there are."""
    names = sorted(map(str, items))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
