"""How far a command is: a bar with rate and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def counting(
    what: str, total: int | None = None, unit: str = "clips", console: Any = None
) -> Iterator[Callable[[str], None]]:
    """A progress bar with rate and time left; the yielded function takes the name of each thing that is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TextColumn("elapsed"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        task = progress.add_task(what, total=total, rate="")

        def done(name: str) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=1, rate=f"{60 * speed:.1f} {unit}/min" if speed else "")

        yield done
