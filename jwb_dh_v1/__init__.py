"""JWB-DH-V1: evaluation of joint whole-body talking-avatar and speech generation (arXiv 2507.20987).

Public names are imported on first use, so that `import jwb_dh_v1` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.version import __version__ as __version__

if TYPE_CHECKING:
    from jwb_dh_v1.dataset.generate import generate as generate
    from jwb_dh_v1.dataset.load import load_dataset as load_dataset
    from jwb_dh_v1.media.clip import Clip as Clip
    from jwb_dh_v1.metrics import PROTOCOLS as PROTOCOLS
    from jwb_dh_v1.metrics.sample import Sample as Sample
    from jwb_dh_v1.scoring.result import Result as Result
    from jwb_dh_v1.scoring.run import score as score

_HOME = {
    "Clip": "jwb_dh_v1.media.clip",
    "PROTOCOLS": "jwb_dh_v1.metrics",
    "Result": "jwb_dh_v1.scoring.result",
    "Sample": "jwb_dh_v1.metrics.sample",
    "generate": "jwb_dh_v1.dataset.generate",
    "load_dataset": "jwb_dh_v1.dataset.load",
    "score": "jwb_dh_v1.scoring.run",
}
__all__ = ["PROTOCOLS", "Clip", "Result", "Sample", "__version__", "generate", "load_dataset", "score"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
