"""Imaging quality: are the frames sharp, clean and well exposed? VBench's, by MUSIQ.

Definition: Vchitect/VBench 45e79ec, `imaging_quality.py`: a hundredth of its `video_results`. A set's number is the
mean over clips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jwb_dh_v1.metrics.metric import INF, Metric
from jwb_dh_v1.metrics.sample import Sample


def imaging_curve(sample: Sample) -> np.ndarray:
    """MUSIQ's score of every frame divided by 100, float64 [T], usually 0.3 to 0.8, bounded by nothing.

    The paper's tables and VBench's `video_results` print the score before the division, VBench's aggregate the one
    after it; here there is one scale, the aggregate's.

    Raises:
        TooSmall: frames so thin (one side more than 256 times the other) that MUSIQ's smallest scale would be empty.
            Any other size is scored, down to a single pixel: the scales are enlarged and patches filled up.

    """
    from jwb_dh_v1.networks import musiq  # here, because it imports torch

    return musiq.scores(sample.generated).astype(np.float64) / 100


IMAGING = Metric(
    "imaging_quality",
    curve=imaging_curve,
    higher_is_better=True,
    range=(-INF, INF),
    weights=("musiq-spaq",),
    networks="MUSIQ (SPAQ)",
)
METRICS = {"standard": (IMAGING,), "paper": (replace(IMAGING, failures="zero"),)}  # as the authors count failures
