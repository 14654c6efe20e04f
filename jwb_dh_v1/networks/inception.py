"""The two Inceptions behind "FID": the 2015 one of the FID paper, and torchvision's, which paper/1 takes in its place.

Both are torchvision's `Inception3`; the first with the differences that mseitzer/pytorch-fid `inception.py` found
between it and Google's graph `inception-2015-12-05` (Heusel et al. 2017): 1008 classes, no auxiliary head, average
pools that leave the padding out of the count, and in the last block a max pool in the pool branch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from jwb_dh_v1.networks.checkpoint import load_torch
from jwb_dh_v1.networks.network import Network

SIDE = 299  # pixels per side of the input
CHANNELS = 2048


def _average(x: torch.Tensor) -> torch.Tensor:
    """TensorFlow's "SAME" average pool: at the border it divides by the pixels that are there."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(InceptionA):  # type: ignore[misc]
    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_average(x)),
        ]


class _C(InceptionC):  # type: ignore[misc]
    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_average(x)),
        ]


class _E(InceptionE):  # type: ignore[misc]
    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(self._pool(x)),
        ]

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return _average(x)


class _ELast(_E):
    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, 3, stride=1, padding=1)


def inception_fid(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The 2015 Inception up to its global average pool, eval.

    float32 [n, 3, 299, 299] in [-1, 1] -> float32 [n, 2048] (not negative).

    Args:
        state: the 566 tensors of `pt_inception-2015-12-05-6726825d.pth`.

    Raises:
        RuntimeError: the tensors are those of another network.

    """
    blocks = [BasicConv2d, _A, InceptionB, _C, InceptionD, _E, InceptionAux]
    net = Inception3(num_classes=1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    net.Mixed_7c = _ELast(CHANNELS)
    return _finished(net, state)


def inception_v3(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """torchvision's `inception_v3` with `fc = Identity` and `transform_input=False`, as the benchmark's authors use it.

    float32 [n, 3, 299, 299] -> float32 [n, 2048], eval. The weights were trained on [-1, 1];
    paper/1 feeds ImageNet-normalised pixels (about -2.1 to 2.6), as the authors' FID_calculate.py does.

    Args:
        state: the 580 tensors of `inception_v3_google-0cc3c7bd.pth`; the auxiliary head's are not used.

    Raises:
        RuntimeError: the tensors are those of another network.

    """
    net = Inception3(aux_logits=False, transform_input=False, init_weights=False)
    return _finished(net, {key: value for key, value in state.items() if not key.startswith("AuxLogits.")})


def _finished(net: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    net.load_state_dict(state)
    net.fc = nn.Identity()
    return net.eval().requires_grad_(False)


FID = Network(
    "inception-2015",
    lambda weights, _: inception_fid(load_torch(weights["inception-2015"])),
    fold_norms=True,
    channels_last=True,
    half=True,
)
V3 = Network(
    "inception-v3",
    lambda weights, _: inception_v3(load_torch(weights["inception-v3"])),
    fold_norms=True,
    channels_last=True,
    half=True,
)
