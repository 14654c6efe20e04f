"""What is scored, how, and what comes out: samples, metrics, protocols and states.

A metric is one file: a function and, at its end, `METRICS`, which says in which protocols it is computed. Framework
files are in this folder, metric files in `quality/` (the generated clip alone), `fidelity/` (against real clips) and
`speech/`.

    from jwb_dh_v1 import Clip, Sample
    from jwb_dh_v1.metrics import PROTOCOLS

    ssim = PROTOCOLS["lite"].metrics["ssim"]
    print(ssim.score(Sample("a", Clip("generated/a.mp4"), Clip("real/a.mp4"))).value())
"""

from jwb_dh_v1.metrics.metric import INF, REFERENCE, TRANSCRIPT, Metric
from jwb_dh_v1.metrics.protocols import PROTOCOLS, Protocol, protocol
from jwb_dh_v1.metrics.region import REGIONS
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean, Rate

__all__ = [
    "INF", "PROTOCOLS", "REFERENCE", "REGIONS", "TRANSCRIPT", "Mean", "Metric", "Protocol", "Rate", "Sample",
    "protocol",
]  # fmt: skip
