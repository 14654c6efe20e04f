"""I3D (inflated Inception-v1, Carreira & Zisserman 2017) trained on Kinetics-400: the network of FVD.

The architecture is the paper's figure 3; sizes and key names are those of `i3d_pretrained_400.pt` (VideoGPT, TATS,
cd-fvd, JunyaoHu/common_metrics_on_video_quality). FVD takes its 400 logits, before the softmax. Convolutions and max
pools pad as TensorFlow's "SAME", with zeros, the larger half behind.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from jwb_dh_v1.networks.checkpoint import load_torch
from jwb_dh_v1.networks.network import Network

SIDE = 224  # pixels per side of the input
CLASSES = 400
SHORTEST = 9  # frames: after three halvings the last pool needs two steps in time
EPS = 1e-5

Triple = tuple[int, int, int]

# name: input channels, then those of the branches: 1x1; 1x1 -> 3x3x3; 1x1 -> 3x3x3; max pool -> 1x1.
MIXED: Mapping[str, tuple[int, int, int, int, int, int, int]] = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


def _same(x: torch.Tensor, kernel: Triple, stride: Triple) -> torch.Tensor:
    """Zeros around `x` so that each side comes out as ceil(side / stride)."""
    pad: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):  # functional.pad: last axis first
        total = max(k - (size % s or s), 0)
        pad += [total // 2, total - total // 2]
    return functional.pad(x, pad) if any(pad) else x


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        # At stride 1 "SAME" is the symmetric padding, which the convolution does without a copy.
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        padding = kernel // 2 if stride == 1 else 0
        self.conv3d = nn.Conv3d(inside, outside, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(outside, eps=EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride != (1, 1, 1):
            x = _same(x, self.kernel, self.stride)
        return functional.relu(self.bn(self.conv3d(x)))


class _Pool(nn.Module):
    """Max pool over zero padding; its inputs come from ReLUs, so that a padded zero never wins over a pixel."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool3d(_same(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Inception block of four branches."""

    def __init__(self, inside: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = _Unit(inside, b0)
        self.b1a, self.b1b = _Unit(inside, b1a), _Unit(b1a, b1b, 3)
        self.b2a, self.b2b = _Unit(inside, b2a), _Unit(b2a, b2b, 3)
        self.b3b = _Unit(inside, b3b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = functional.max_pool3d(x, 3, stride=1, padding=1)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class _Logits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv3d(x)
        return out


class InceptionI3d(nn.Module):
    """I3D for RGB, float32 [n, 3, T, 224, 224] in [-1, 1] -> logits float32 [n, 400], averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        for name in ("Mixed_3b", "Mixed_3c"):
            self.add_module(name, _Mixed(*MIXED[name]))
        self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
        for name in ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"):
            self.add_module(name, _Mixed(*MIXED[name]))
        self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
        for name in ("Mixed_5b", "Mixed_5c"):
            self.add_module(name, _Mixed(*MIXED[name]))
        self.AvgPool3d_6a_7x7 = nn.AvgPool3d((2, 7, 7), stride=1)
        self.logits = _Logits()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.

        Raises:
            ValueError: fewer than 9 frames, or another size than 224 x 224.

        """
        if x.shape[2] < SHORTEST or x.shape[3:] != (SIDE, SIDE):
            raise ValueError(f"I3D takes {SHORTEST} or more frames of {SIDE} x {SIDE}, not {tuple(x.shape[2:])}.")
        for layer in self.children():  # they were made in the order in which they are applied
            x = layer(x)
        return x.mean(dim=(2, 3, 4))


class TorchScriptI3d(nn.Module):
    """The same call for `i3d_torchscript.pt` of StyleGAN-V: no rescaling or resizing in the graph, logits out.

    That graph is the authors' in paper/1. The file is not ours to ship and could not be had here: tests check how it is
    called, not its numbers. JunyaoHu's README finds it within 0.1 % of the TensorFlow original on constant videos.
    """

    def __init__(self, graph: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, 400]."""
        out: torch.Tensor = self.graph(x, rescale=False, resize=False, return_features=True)
        return out


def i3d(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """`InceptionI3d` with the 344 tensors of `i3d_pretrained_400.pt`, eval.

    On two CPU cores a clip of 16 frames takes 0.65 s; folded batch norms gain nothing and channels-last loses 40 %.

    Raises:
        RuntimeError: the tensors are those of another network.

    """
    net = InceptionI3d()
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def load_i3d(path: Path) -> nn.Module:
    """I3D from either of its two public files, told apart by their content, on the CPU.

    A TorchScript file is a program: hand in verified files only (`weights.resolve`).
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any("/code/" in name for name in archive.namelist())
        if scripted:
            graph = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return TorchScriptI3d(graph.eval())
    return i3d(load_torch(path))


NETWORK = Network("i3d", lambda weights, _: load_i3d(weights["i3d"]), channels_last=True, half=True)
