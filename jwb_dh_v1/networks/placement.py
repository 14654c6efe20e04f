"""Networks brought to a device: memory order, folded norms, precision, and the way of matrix products on the CPU.

PyTorch gives `linear` in float32 to MKL, which leaves processors of other makers than Intel far below their rate: on
two cores of an AMD EPYC 160 GFLOPS, where oneDNN reaches 320 with the same float32 arithmetic. PyTorch gives every
convolution to oneDNN, and a convolution with a 1 x 1 kernel is a `linear`. So the modules are replaced, the functions
stay what they are, up to the order of additions. Figures are in `benchmarks/RESULTS.md`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from jwb_dh_v1.networks.network import Network, Precision

Net = TypeVar("Net", bound=nn.Module)


def placed(network: Network[Any], net: Net, device: torch.device, precision: Precision = "fp32") -> Net:
    """A loaded network on the device, treated as its declaration says."""
    if network.fold_norms:
        fold_norms(net)
    if network.channels_last:
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                order = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
                module.weight.data = module.weight.data.contiguous(memory_format=order)
    net = net.to(device)
    if network.onednn and device.type == "cpu":
        net = by_onednn(net)
    if network.half and precision != "fp32":
        half = torch.bfloat16 if precision == "bf16" else torch.float16
        net.forward = torch.autocast(device.type, half)(net.forward)
    return net


def fold_norms(net: nn.Module) -> None:
    """Fold each batch norm into the convolution before it: the same function (features move by under 2e-5).

    With channels-last this took MobileNetV2 from 17 to 5 ms a frame on two CPU cores (batch 8, passive waiting).
    """
    for block in net.modules():
        names = list(block._modules)
        for first, second in pairwise(names):
            conv, norm = block._modules[first], block._modules[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                block._modules[first] = fuse_conv_bn_eval(conv, norm)
                block._modules[second] = nn.Identity()


def by_onednn(net: Net) -> Net:
    """The network, its linear layers and self-attention replaced in place by `Linear` and `SelfAttention`."""
    for name, child in list(net.named_children()):
        if isinstance(child, nn.MultiheadAttention):
            setattr(net, name, SelfAttention(child))
        elif isinstance(child, nn.Linear):
            setattr(net, name, Linear(child.weight, child.bias))
        else:
            by_onednn(child)
    return net


class Linear(nn.Module):
    """`nn.Linear` as a convolution of a picture that is one pixel wide.

    Args:
        weight: float32 [m, k].
        bias: float32 [m], or None.

    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        # Channels-last with a kernel of 1 x 1: the memory stays as it is.
        self.weight = nn.Parameter(weight.detach()[:, :, None, None], requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [..., k] to [..., m]."""
        rows = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, k, n, 1], channels-last in memory
        out = functional.conv2d(rows, self.weight, self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of tokens to themselves, batch first, without masks and without the weights."""

    def __init__(self, given: nn.MultiheadAttention) -> None:
        super().__init__()
        plain = given.batch_first and given._qkv_same_embed_dim and given.bias_k is None and not given.add_zero_attn
        if not plain or given.in_proj_weight is None:
            raise ValueError("Only plain self-attention with the batch first can be replaced.")
        self.heads = given.num_heads
        self.qkv = Linear(given.in_proj_weight, given.in_proj_bias)
        self.out = Linear(given.out_proj.weight, given.out_proj.bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """float32 [n, t, d] to the same shape, and None for the weights.

        Raises:
            ValueError: it is asked for what it does not do.

        """
        if query is not key or query is not value or need_weights or attn_mask is not None:
            raise ValueError("This is self-attention without masks and without the weights.")
        n, tokens, width = query.shape
        q, k, v = self.qkv(query).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width)), None
