"""dlib's face recognition network: who a person is, for `lite/1`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.errors import MissingPackage
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of


def load(weights: Mapping[str, Path], device: str) -> tuple[Any, Any]:
    """The network and the 5-point shape predictor that places a face for it; both run on the CPU.

    Raises:
        MissingPackage: `dlib` is not installed (extra `lite`).

    """
    try:
        import dlib
    except ImportError:
        raise MissingPackage('CSIM of lite/1 needs dlib: pip install "jwb-dh-v1[lite]".') from None
    return (
        dlib.face_recognition_model_v1(str(weights["dlib-face"])),
        dlib.shape_predictor(str(weights["dlib-5-points"])),
    )


NETWORK = Network("dlib-face", load)


def descriptors(clip: Clip, indices: np.ndarray, margin: float) -> np.ndarray:
    """dlib's 128-d face descriptors of some frames of a face part, whose window is `margin` times the face.

    Distances below 0.6 mean the same person (dlib's own threshold). float32 [n, 128].
    """
    key = ("dlib-face", indices.tobytes())
    return clip.feature(key, lambda: _descriptors(clip, indices, margin))


def _descriptors(clip: Clip, indices: np.ndarray, margin: float) -> np.ndarray:
    import dlib

    net, shape = models_of(clip).get(NETWORK)
    width, height = clip.size
    half = width / margin / 2
    box = dlib.rectangle(
        round(width / 2 - half), round(height / 2 - half), round(width / 2 + half), round(height / 2 + half)
    )
    frames = [np.ascontiguousarray(frame) for frame in clip.take(indices)]
    chips = [dlib.get_face_chip(frame, shape(frame, box), 150, 0.25) for frame in frames]
    return np.array([net.compute_face_descriptor(chip) for chip in chips], np.float32)
