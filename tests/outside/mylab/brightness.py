"""How far the brightness of each frame is from the reference's, and how far from its own mean."""

import numpy as np

from jwb_dh_v1.metrics import PROTOCOLS, REFERENCE, Metric, Protocol, Sample


def gap_curve(sample: Sample) -> np.ndarray:
    """Absolute difference of the mean grey level of each pair of frames, float64 [n], in [0, 255]."""
    pairs = (pair for chunk in sample.pairs() for pair in zip(*chunk, strict=True))
    return np.array([abs(ours.mean() - theirs.mean()) for ours, theirs in pairs])


def unrest_curve(sample: Sample) -> np.ndarray:
    """Distance of each frame's mean grey level from that of all frames, float64 [T], in [0, 255]."""
    levels = np.concatenate([chunk.mean(axis=(1, 2, 3)) for chunk in sample.generated.chunks()])
    return np.abs(levels - levels.mean())


TABLE = Protocol.of(
    "mylab/1",
    [
        Metric(
            "brightness_gap",
            curve=gap_curve,
            higher_is_better=False,
            range=(0, 255),
            needs=REFERENCE,
            same_boxes=True,
            unit="grey levels",
        ),
        Metric("brightness_unrest", curve=unrest_curve, higher_is_better=False, range=(0, 255), unit="grey levels"),
        PROTOCOLS["lite"].metrics["ssim"],
    ],
)
