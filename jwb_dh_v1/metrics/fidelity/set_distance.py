"""What the distances of sets share: a network over a batch, and one sample's Fréchet state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet
from jwb_dh_v1.metrics.sample import Sample

if TYPE_CHECKING:
    import torch


def run_network(net: torch.nn.Module, x: torch.Tensor, device: torch.device) -> np.ndarray:
    """A network's answer to one batch, float32."""
    import torch

    with torch.inference_mode():
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # as the Inceptions' weights lie
        found: np.ndarray = net(x.to(device)).float().cpu().numpy()
    return found


def reference_of(sample: Sample) -> Clip:
    """The clip to compare with.

    Raises:
        NotApplicable: there is none.

    """
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    return sample.reference


def frechet_of(sample: Sample, features: Callable[[Clip], np.ndarray]) -> Frechet:
    """The state of one sample: `features` (Clip -> float [n, d]) of the generated clip and of its reference.

    Raises:
        NotApplicable: there is no reference.

    """
    reference = reference_of(sample)
    group = sample.person_id or sample.id
    return Frechet(
        FeatureStatistics.of(features(sample.generated), group), FeatureStatistics.of(features(reference), group)
    )
