"""The protocols: three tables from a metric's name to what is computed. A new metric is a function and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics import (
    consistency,
    distribution,
    expression,
    frechet,
    identity,
    motion,
    pixel,
    smoothness,
    speech,
    vbench,
)
from jwb_dh_v1.metrics.policy import Policy
from jwb_dh_v1.metrics.region import REGIONS, CropRule, Region
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import State

MOBILENET = "MobileNetV2 (ImageNet)"


@dataclass(frozen=True)
class Metric:
    """One way to score.

    Attributes:
        name: the field's name, snake case.
        sample: the score of one sample (clip part) as a state.
        higher_is_better: direction.
        range: smallest and largest possible value (inf where open).
        needs: of `reference`, `transcript`.
        weights: names in `weights.FILES`.
        networks: what looks at the frames, in words; shown beside every score.
        regions: where it applies.
        curve: one number per frame or pair, for plots.
        facts: details of one sample, for tables.
        same_boxes: whether both clips are cut by the reference's boxes (metrics that compare pixels in place); else
            each by its own.
        unit: of the value.
        failures: what clips without a score count as, unless the run says otherwise (`results/policy.py`).

    """

    name: str
    sample: Callable[[Sample], State]
    higher_is_better: bool
    range: tuple[float, float]
    needs: frozenset[str] = frozenset()
    weights: tuple[str, ...] = ()
    networks: str = "none"
    regions: tuple[Region, ...] = REGIONS
    curve: Callable[[Sample], np.ndarray] | None = None
    facts: Callable[[Sample], dict[str, Any]] | None = None
    same_boxes: bool = False
    unit: str = ""
    failures: Policy = "strict"


@dataclass(frozen=True)
class Protocol:
    """A table of metrics under one name; the number after `/` moves whenever a score can move.

    Attributes:
        name: e.g. `lite/1`.
        rule: how parts are cut out (`region.py`).
        boxes: the detector it uses unless told otherwise.
        metrics: by name.
        absent: metrics of the benchmark that it does not have, and why.

    """

    name: str
    rule: CropRule
    boxes: str
    metrics: Mapping[str, Metric]
    absent: Mapping[str, str] = field(default_factory=dict)


REFERENCE = frozenset({"reference"})
INF = float("inf")


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


# fmt: off
_SSIM = Metric("ssim", pixel.ssim, True, (-1, 1), REFERENCE, curve=pixel.ssim_curve, same_boxes=True)
_PSNR = Metric("psnr", pixel.psnr, True, (0, 100), REFERENCE, curve=pixel.psnr_curve, same_boxes=True, unit="dB")

# VBench's six, first frame to last; the authors ran VBench on their crops.
_VBENCH = (
    Metric("subject_consistency", vbench.subject, True, (0, 1), weights=("dino-vitb16",), networks="DINO ViT-B/16",
           curve=vbench.subject_curve),
    Metric("background_consistency", vbench.background, True, (0, 1), weights=("clip-vit-b-32",),
           networks="CLIP ViT-B/32", curve=vbench.background_curve),
    Metric("motion_smoothness", smoothness.smoothness, True, (0, 1), weights=("amt-s",), networks="AMT-S",
           curve=smoothness.amt_curve),
    Metric("dynamic_degree", motion.dynamic, True, (0, 1), weights=("raft",), networks="RAFT (things)",
           curve=motion.raft_seen),
    Metric("aesthetic_quality", vbench.aesthetic, True, (-INF, INF), weights=("clip-vit-l-14", "laion-aesthetic-l14"),
           networks="CLIP ViT-L/14, LAION aesthetic head", curve=vbench.aesthetic_curve),
    Metric("imaging_quality", vbench.imaging, True, (-INF, INF), weights=("musiq-spaq",), networks="MUSIQ (SPAQ)",
           curve=vbench.imaging_curve),
)
_SC, _BC, _MS, _DD, _AQ, _IQ = (replace(metric, failures="zero") for metric in _VBENCH)  # as the authors count them
_WER = Metric("wer", speech.wer, False, (0, INF), frozenset({"transcript"}),
              ("whisper-large-v3", "whisper-large-v3/config.json", "whisper-large-v3/generation_config.json",
               "whisper-large-v3/tokenizer.json"),
              "Whisper large-v3", ("speech",), facts=speech.wer_facts)
_PAPER_DD = replace(_DD, sample=motion.paper_dynamic, curve=motion.paper_raft_seen)

PROTOCOLS: Mapping[str, Protocol] = {
    "standard": Protocol("standard/1", "track", "mediapipe", _table(
        *_VBENCH,
        Metric("fid", distribution.fid, False, (0, INF), REFERENCE, ("inception-2015",),
               "Inception 2015-12-05 (as pytorch-fid)"),
        Metric("fid_clean", distribution.fid_clean, False, (0, INF), REFERENCE, ("inception-2015",),
               "Inception 2015-12-05 (as clean-fid)"),
        Metric("fvd", distribution.fvd, False, (0, INF), REFERENCE, ("i3d",), "I3D (Kinetics-400)"),
        Metric("e_fid", expression.efid, False, (0, INF), REFERENCE, ("scrfd", "deep3d"),
               "SCRFD-10G, Deep3DFaceRecon expression (64)", ("body", "face"), facts=expression.efid_facts),
        _SSIM,
        _PSNR,
        Metric("csim", identity.csim, True, (-1, 1), REFERENCE, ("scrfd", "arcface"),
               "SCRFD-10G, ArcFace ResNet-50 (WebFace600K)", ("body", "face"), identity.csim_curve,
               identity.csim_facts),
        _WER,
    )),
    "paper": Protocol("paper/1", "paper", "dwpose", _table(
        _SC, _BC, _MS, _PAPER_DD, _AQ, _IQ,
        Metric("fid", distribution.paper_fid, False, (0, INF), REFERENCE, ("inception-v3",),
               "Inception v3 (torchvision)"),
        Metric("fvd", distribution.paper_fvd, False, (-0.0008, INF), REFERENCE, ("i3d",),
               "I3D (Kinetics-400), inputs in [0, 1]"),
        Metric("e_fid", distribution.paper_efid, False, (0, INF), REFERENCE, ("inception-v3",),
               "Inception v3 (torchvision) on Canny edges"),
        Metric("ssim", pixel.paper_ssim, True, (-1, 1), REFERENCE, curve=pixel.paper_ssim_curve),
        Metric("psnr", pixel.paper_psnr, True, (0, INF), REFERENCE, curve=pixel.paper_psnr_curve, unit="dB"),
        Metric("csim", pixel.paper_csim, True, (0, 1), REFERENCE, curve=pixel.paper_csim_curve),
        replace(_WER, networks="Whisper large-v3 (assumed: the authors' speech protocol is not public)"),
    )),
    "lite": Protocol("lite/1", "track", "mediapipe", _table(
        Metric("subject_consistency", consistency.lite_subject, True, (0, 1), weights=("mobilenet-v2",),
               networks=MOBILENET, curve=consistency.lite_subject_curve),
        Metric("background_consistency", consistency.lite_background, True, (0, 1), weights=("mobilenet-v2",),
               networks=MOBILENET, curve=consistency.lite_background_curve),
        Metric("motion_smoothness", smoothness.lite_smoothness, True, (0, 1),
               networks="interpolation by DIS optical flow (OpenCV)", curve=smoothness.lite_smoothness_curve),
        Metric("dynamic_degree", motion.lite_dynamic, True, (0, 1), networks="DIS optical flow (OpenCV)",
               curve=motion.dis_curve),
        Metric("fid", frechet.lite_fid, False, (0, INF), REFERENCE, ("mobilenet-v2",), MOBILENET),
        Metric("fvd", frechet.lite_fvd, False, (0, INF), REFERENCE, ("mobilenet-v2",),
               "MobileNetV2 (ImageNet), means and steps over 16 frames"),
        Metric("e_fid", expression.lite_efid, False, (0, INF), REFERENCE, ("face-mesh",),
               "MediaPipe face mesh, 16 distances", ("face",), facts=expression.lite_efid_facts),
        _SSIM,
        _PSNR,
        Metric("csim", identity.lite_csim, True, (-INF, 1), REFERENCE, ("dlib-face", "dlib-5-points"),
               "dlib face ResNet, distance rescaled to a cosine", ("face",), identity.lite_csim_curve),
        Metric("wer", speech.lite_wer, False, (0, INF), frozenset({"transcript"}),
               ("whisper-tiny.en", "whisper-tiny.en/config.json", "whisper-tiny.en/tokenizer.json"),
               "Whisper tiny.en", ("speech",), facts=speech.lite_wer_facts),
    ), {
        "aesthetic_quality": "no small network of the registries judges pictures as CLIP and LAION's head do",
        "imaging_quality": "no small network of the registries judges pictures as MUSIQ does",
    }),
}
# fmt: on


def protocol(name: str) -> Protocol:
    """The protocol of that name, with or without its number.

    Raises:
        SetupError: no such protocol, or another number than this version computes.

    """
    for short, found in PROTOCOLS.items():
        if name in {short, found.name}:
            return found
    names = ", ".join(found.name for found in PROTOCOLS.values())
    raise SetupError(f"There is no protocol {name!r}; this version has {names}.")
