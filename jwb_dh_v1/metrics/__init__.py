"""What is scored, how, and what comes out: samples, metrics, protocols and states.

A metric is one file: a function and, at its end, `METRICS`, which says in which protocols it is computed. Framework
files are in this folder, metric files in `quality/` (the generated clip alone), `fidelity/` (against real clips) and
`speech/`.

Example:
    >>> from jwb_dh_v1 import Clip, Sample
    >>> ssim = PROTOCOLS["lite"].metrics["ssim"]
    >>> sample = Sample("a", Clip("generated/a.mp4"), Clip("real/a.mp4"))  # doctest: +SKIP
    >>> ssim.score(sample).value()  # doctest: +SKIP

"""

from jwb_dh_v1.metrics.metric import REFERENCE, Metric
from jwb_dh_v1.metrics.protocols import PROTOCOLS, Protocol, protocol
from jwb_dh_v1.metrics.region import REGIONS
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean, Rate

__all__ = [
    "PROTOCOLS", "REFERENCE", "REGIONS", "Mean", "Metric", "Protocol", "Rate", "Sample",
    "protocol",
]  # fmt: skip
