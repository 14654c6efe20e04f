"""ArcFace embeddings of aligned faces: iresnet50 from a PyTorch checkpoint, or insightface's ONNX file.

Architecture and key names are those of deepinsight/insightface 7fadd42, `iresnet50` of
`recognition/arcface_torch/backbones/iresnet.py`. `w600k_r50.onnx` of the pack `buffalo_l` is such a network trained on
WebFace600K and exported, where weights have no names, so that it runs on ONNX Runtime. Both are called with the crops
as bytes. Crops are made as insightface makes them: SCRFD's five points, the similarity transform onto the template of
`python-package/insightface/utils/face_align.py`, `cv2.warpAffine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.checkpoint import filled, load_torch
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.scrfd import OnnxGraph, five_points

SIDE, WIDTH = 112, 512  # of a crop in pixels; of an embedding
DEPTHS = {64: 3, 128: 4, 256: 14, 512: 3}  # blocks by channels
BATCH = 16  # crops per forward pass
MIDDLE = 127.5  # RGB 0..255 goes to -1..1
# Where the left eye, right eye, nose, left and right corner of the mouth lie in a crop of 112 pixels.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


class _Block(nn.Module):
    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        aside: torch.Tensor = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out: torch.Tensor = self.bn3(self.conv2(x)) + aside
        return out


class ArcFace(nn.Module):
    """iresnet50, 43.6 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        before = 64
        for number, (channels, depth) in enumerate(DEPTHS.items(), 1):
            blocks = [_Block(before if i == 0 else channels, channels, 2 if i == 0 else 1) for i in range(depth)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = channels
        self.bn2 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before * (SIDE // 16) ** 2, WIDTH)
        self.features = nn.BatchNorm1d(WIDTH)

    def forward(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings, not normalised.

        Args:
            crops: uint8 [n, 112, 112, 3] RGB, aligned faces (`align`).

        Returns:
            float32 [n, 512]; norms of about 1200 for the seeded network.

        """
        device = self.fc.weight.device
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2).float()
            x = self.prelu(self.bn1(self.conv1((x - MIDDLE) / MIDDLE)))
            for number in range(1, len(DEPTHS) + 1):
                x = self.get_submodule(f"layer{number}")(x)
            found: np.ndarray = self.features(self.fc(self.bn2(x).flatten(1))).cpu().numpy()
        return found


class OnnxArcFace(nn.Module):
    """The same from an ONNX file; a module without parameters, so that it is moved and called as `ArcFace` is.

    Args:
        path: `w600k_r50.onnx`, or another face network from [n, 3, 112, 112] to [n, 512].
        device: where it runs, for good (`scrfd.OnnxGraph`).

    Raises:
        MissingPackage: `onnxruntime` is not installed (extra `dwpose`).
        SetupError: the graph is another network.

    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__()
        self._graph = OnnxGraph(path, device)
        # insightface's rule: networks that came from MXNet normalise their input themselves.
        self._raw = {"Sub", "Mul"} <= set(first_operations(path))
        found = self(np.zeros((2, SIDE, SIDE, 3), np.uint8)).shape
        if found != (2, WIDTH):
            raise SetupError(f"{path.name} is no face network: two crops gave {found} instead of (2, {WIDTH}).")

    def forward(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings as `ArcFace.forward`."""
        pictures = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), np.float32)
        if not self._raw:
            pictures = (pictures - np.float32(MIDDLE)) / np.float32(MIDDLE)
        return self._graph(pictures)[0]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The length-delimited fields of one number in a protocol buffer."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, at = _varint(data, at)
        if tag >> 3 == wanted and kind == 2:
            yield data[at : at + size]
        at += size


def first_operations(path: Path, n: int = 8) -> list[str]:
    """The types of an ONNX graph's first nodes; ONNX Runtime does not tell, and the package `onnx` is not needed."""
    graph, node, operation = 7, 1, 4  # field numbers in onnx.proto: ModelProto, GraphProto, NodeProto
    found: list[str] = []
    for content in _messages(memoryview(path.read_bytes()), graph):
        for entry in _messages(content, node):
            found += [bytes(name).decode() for name in _messages(entry, operation)]
            if len(found) == n:
                return found
    return found


def from_state(state: Mapping[str, torch.Tensor]) -> ArcFace:
    """The network, in eval mode on the CPU in float32, from the official state dict.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    return filled(ArcFace, state, "ArcFace iresnet50 checkpoint")


def load(path: Path, device: str = "cpu") -> ArcFace | OnnxArcFace:
    """The network of a verified file on a device: an ONNX graph (`w600k_r50.onnx`), or a checkpoint of iresnet50.

    Raises:
        MissingPackage, SetupError: as `OnnxArcFace` and `from_state`.

    """
    with path.open("rb") as file:
        onnx = file.read(1) == b"\x08"  # field 1 of a model, its version; archives of tensors begin with P or 0x80
    if onnx:
        return OnnxArcFace(path, device)
    return from_state(load_torch(path))


NETWORK = Network("arcface", lambda weights, device: load(weights["arcface"], device))


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turn, scale and shift (no mirroring) that bring points nearest to a target: Umeyama's least squares solution.

    Args:
        points, target: float [n, 2], x, y; the points must not all coincide.

    Returns:
        float64 [2, 3], to be applied to columns (x, y, 1).

    """
    # In two dimensions a similarity is z -> a z + b over complex numbers, and so linear.
    z, w = (p.astype(np.float64) @ np.array([1, 1j]) for p in (points, target))
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred).real
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(frame: np.ndarray, points: np.ndarray, size: int = SIDE) -> np.ndarray:
    """A face in ArcFace's position.

    Args:
        frame: uint8 [H, W, 3].
        points: float [5, 2], x, y in pixels of the frame, in the order of `five_points`.
        size: side of the crop in pixels.

    Returns:
        uint8 [size, size, 3]: bilinear, black where the frame ends.

    """
    matrix = similarity(points, TEMPLATE * np.float32(size / SIDE))
    crop: np.ndarray = cv2.warpAffine(np.ascontiguousarray(frame), matrix, (size, size), flags=cv2.INTER_LINEAR)
    return crop


def embeddings(clip: Clip) -> np.ndarray:
    """ArcFace embeddings of the person's face in every frame.

    Returns:
        float32 [T, 512], not normalised. Rows of NaN where no face is found.

    """

    def make() -> np.ndarray:
        points, net = five_points(clip), models_of(clip).get(NETWORK)
        found = np.full((len(clip), 512), np.nan, np.float32)
        at = 0
        for chunk in clip.chunks(BATCH):
            here = np.flatnonzero(np.isfinite(points[at : at + len(chunk)]).all(axis=(1, 2)))
            if len(here):
                found[at + here] = net(np.stack([align(chunk[i], points[at + i]) for i in here]))
            at += len(chunk)
        return found

    return clip.feature("arcface", make)
