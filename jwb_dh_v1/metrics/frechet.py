"""Fréchet distances between the generated and the reference set."""

from __future__ import annotations

from jwb_dh_v1 import features
from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.state import Frechet, Moments


def lite_fid(sample: Sample) -> Frechet:
    """FID's formula on pooled MobileNetV2 features of all frames of all clips (in FID: the 2015 Inception)."""
    if sample.reference is None:
        raise NotApplicable("there is no reference to compare with")
    group = sample.identity or sample.id
    return Frechet(
        Moments.of(features.mobilenet(sample.generated), group),
        Moments.of(features.mobilenet(sample.reference), group),
    )
