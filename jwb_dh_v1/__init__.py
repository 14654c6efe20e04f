"""JWB-DH-V1: evaluation of joint whole-body talking-avatar and speech generation (arXiv 2507.20987).

Public names are imported on first use, so that `import jwb_dh_v1` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jwb_dh_v1.benchmark import score as score
    from jwb_dh_v1.clip import Clip as Clip
    from jwb_dh_v1.data.generate import generate as generate
    from jwb_dh_v1.data.load import load_dataset as load_dataset
    from jwb_dh_v1.metrics import PROTOCOLS as PROTOCOLS
    from jwb_dh_v1.results import Result as Result
    from jwb_dh_v1.sample import Sample as Sample

_HOME = {
    "Clip": "jwb_dh_v1.clip",
    "PROTOCOLS": "jwb_dh_v1.metrics",
    "Result": "jwb_dh_v1.results",
    "Sample": "jwb_dh_v1.sample",
    "generate": "jwb_dh_v1.data.generate",
    "load_dataset": "jwb_dh_v1.data.load",
    "score": "jwb_dh_v1.benchmark",
}
__all__ = ["PROTOCOLS", "Clip", "Result", "Sample", "__version__", "generate", "load_dataset", "score"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
