"""The judge of an archived log: it knows its answers and gives no new ones, so that nothing can be paid for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.log import digest, records
from jwb_dh_v1.judge.request import Answer, CallFailed, JudgePrompt


@dataclass
class Replay:
    """A backend with the name, model and settings of a log, so that the log's answers fit its questions."""

    name: str
    model: str
    settings: Mapping[str, Any]

    def ask(self, prompt: JudgePrompt) -> Answer:
        """Never an answer."""
        raise CallFailed("the log holds no answer to this question; it was not asked", retry=False)

    def close(self) -> None:
        """Nothing is open."""


def replay(log: str | Path, model: str | None = None) -> Replay:
    """The one judge of a log, or the one of that model.

    Raises:
        SetupError: the log holds several, or none of that model.

    """
    askers = {}
    for record in records(log):
        if model in (None, record["model"]):
            settings = dict(record["settings"])
            askers[record["backend"], record["model"], digest(settings)] = settings
    if not askers:
        raise SetupError(f"{log} holds no answer" + (f" of {model}." if model else "."))
    if len(askers) > 1:
        names = ", ".join(sorted({f"{name} {model}" for name, model, _ in askers}))
        raise SetupError(f"{log} holds answers of {len(askers)} judges or settings ({names}); choose one by its model.")
    ((name, named, _), settings), *_ = askers.items()
    return Replay(name, named, settings)


@contextmanager
def copied(log: str | Path) -> Iterator[Path]:
    """A copy of a log that may be written to and goes away: an archive is never changed by looking things up in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(log, Path(folder) / "log.jsonl"))
