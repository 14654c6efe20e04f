"""What networks see in a clip: Clip -> array, each computed once per clip (part) and in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, cast

import cv2
import numpy as np

from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.pool import NetworkPool

View = Literal["whole", "centre"]
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
BATCH = 8  # on two CPU cores larger batches leave the cache and are slower


def models_of(clip: Clip) -> NetworkPool:
    """The networks that the clip was given."""
    if clip.models is None:
        raise TypeError("This clip has no models; pass Clip(..., models=NetworkPool(...)).")
    return cast(NetworkPool, clip.models)


def mobilenet(clip: Clip, view: View = "whole") -> np.ndarray:
    """Pooled MobileNetV2 features of every frame, float32 [T, 1280].

    Args:
        clip: the clip part.
        view: `whole`: the frame squeezed to 224 x 224; `centre`: shorter side to 224, then the centre square.
            The same picture for a square clip, and then computed once.

    """
    width, height = clip.size
    if width == height:
        view = "whole"
    return clip.feature(("mobilenet-v2", view), lambda: _mobilenet(clip, view))


def _mobilenet(clip: Clip, view: View) -> np.ndarray:
    import torch

    models = models_of(clip)
    net, device = models.mobilenet, models.device
    found = []
    with torch.inference_mode():
        for chunk in clip.chunks(BATCH):
            pictures = np.stack([_picture(frame, view) for frame in chunk])
            batch = torch.from_numpy((pictures / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD).to(device)
            # [n, H, W, C] seen as [n, C, H, W] is already channels-last in memory.
            found.append(net(batch.permute(0, 3, 1, 2)).mean(dim=(2, 3)).float().cpu().numpy())
    return np.concatenate(found)


def _picture(frame: np.ndarray, view: View, side: int = 224) -> np.ndarray:
    height, width = frame.shape[:2]
    if view == "centre":
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        frame = frame[top : top + short, left : left + short]
    if frame.shape[:2] == (side, side):
        return frame
    how = cv2.INTER_AREA if frame.shape[0] > side else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(frame, (side, side), interpolation=how)
    return resized


def dlib_identity(clip: Clip, indices: np.ndarray, margin: float) -> np.ndarray:
    """dlib's 128-d face descriptors of some frames of a face part, whose window is `margin` times the face.

    Distances below 0.6 mean the same person (dlib's own threshold). float32 [n, 128].
    """
    key = ("dlib-face", indices.tobytes())
    return clip.feature(key, lambda: _dlib_identity(clip, indices, margin))


def _dlib_identity(clip: Clip, indices: np.ndarray, margin: float) -> np.ndarray:
    import dlib

    net, shape = models_of(clip).dlib_face
    width, height = clip.size
    half = width / margin / 2
    box = dlib.rectangle(
        round(width / 2 - half), round(height / 2 - half), round(width / 2 + half), round(height / 2 + half)
    )
    frames = [np.ascontiguousarray(frame) for frame in clip.take(indices)]
    chips = [dlib.get_face_chip(frame, shape(frame, box), 150, 0.25) for frame in frames]
    return np.array([net.compute_face_descriptor(chip) for chip in chips], np.float32)


def whisper_text(clip: Clip) -> str:
    """The words Whisper tiny.en hears in the clip's audio track; equal audio is heard once.

    Raises:
        NotApplicable: the clip has no audio track.
        BadAudio: the track cannot be decoded.

    """
    return _heard(clip, "whisper-tiny.en", "en", lambda samples: models_of(clip).whisper.transcribe(samples))


def large_whisper_text(clip: Clip, language: str) -> str:
    """The words Whisper large-v3 hears in the clip's audio track, in a language (ISO 639-1); equal audio is heard once.

    Raises:
        NotApplicable: the clip has no audio track, or Whisper does not know the language.
        BadAudio: the track cannot be decoded.

    """
    hear = lambda samples: models_of(clip).whisper_large.transcribe(samples, language)  # noqa: E731
    return _heard(clip, "whisper-large-v3", language, hear)


def _heard(clip: Clip, name: str, language: str, hear: Callable[[np.ndarray], str]) -> str:
    samples = clip.speech.mono(16000)
    key = (name, language, hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest())
    return clip.memo(key, lambda: models_of(clip).remember(key, lambda: hear(samples)))
