"""The judges that can be asked, by name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.judge.request import Backend

PAPER = "gemini-2.5-pro"
BACKENDS = {  # module and class, imported when asked for; the default model
    "gemini": ("gemini", "Gemini", PAPER),
    "openai": ("openai_compatible", "OpenAICompatible", None),
    "local": ("local", "LocalModel", None),
}


def backend(name: str, model: str | None = None, **settings: Any) -> Backend:
    """A judge.

    Args:
        name: `gemini`, `openai` (any endpoint of that form) or `local` (transformers).
        model: its id. Gemini's default is the paper's gemini-2.5-pro, which Google retires on 2026-12-01 (as read on
            2026-11-10): after that day its id answers 404 or is served by another model, and numbers of the paper
            cannot be had again. The others have no default.
        **settings: of `Gemini`, `OpenAICompatible` or `LocalModel`.

    Raises:
        SetupError: no such judge, setting or model.

    """
    if name not in BACKENDS:
        raise SetupError(f"There is no judge {name!r}; choose {', '.join(BACKENDS)}")
    module, kind, default = BACKENDS[name]
    chosen = model or default
    if chosen is None:
        raise SetupError(f"The judge {name!r} needs a model: set --model")
    make = getattr(importlib.import_module(f"jwb_dh_v1.judge.backends.{module}"), kind)
    known = [setting for setting in inspect.signature(make).parameters if setting != "model"]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise SetupError(f"The judge {name!r} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    made: Backend = make(chosen, **settings)
    return made
