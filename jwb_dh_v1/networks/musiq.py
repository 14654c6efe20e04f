"""MUSIQ, the multi-scale image quality transformer: the network of VBench's imaging quality (trained on SPAQ).

Ke et al. 2021, "MUSIQ: Multi-scale Image Quality Transformer" (arXiv 2108.05997), written from the paper and from
google-research/google-research `musiq/model` (Apache-2.0), with the key names of `musiq_spaq_ckpt-358bb6af.pth`. Where
that checkpoint's users differ from Google's code, VBench's numbers decide: the two smaller scales are bicubic without
antialias (Google: Gaussian), and the GELU is exact (Google: by tanh).

The original fills the two smaller scales up to 49 and 144 tokens, masked by attention logits of -1000. Those have a
weight of exactly 0 in float32 and only the class token is read, so the fillers are left out here (16:9: 256 tokens
instead of 337).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jwb_dh_v1.errors import TooSmall
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.networks.checkpoint import filled, load_torch
from jwb_dh_v1.networks.network import Network
from jwb_dh_v1.networks.pool import models_of
from jwb_dh_v1.networks.preprocessing import BATCH, resize

LONGER = 512  # imaging quality looks at nothing larger
PATCH = 32  # pixels per side
SCALES = 224, 384  # longer sides of the smaller pictures; the picture itself is the third
GRID = 10  # cells per side of the position table
WIDTH, DEPTH, HEADS, MLP = 384, 14, 6, 1152
STEM = 64  # channels of the convolutions on a patch; four times as many leave them, at a quarter of its sides


def scaled_shape(height: int, width: int, longer: int) -> tuple[int, int]:
    """(height, width) with the longer side at `longer`, rounded as Python does.

    Raises:
        TooSmall: nothing is left of the shorter side, which the original cannot handle either.

    """
    ratio = longer / max(height, width)
    shape = round(height * ratio), round(width * ratio)
    if min(shape) < 1:
        raise TooSmall(f"The picture is too thin: with its longer side at {longer} px nothing is left of the other.")
    return shape


def cells(count: int) -> torch.Tensor:
    """The cell of the position table for each of `count` patches in a line, int64 [count], in 0..9.

    Patch i is in cell floor(10 i / count): nearest-neighbour resizing of the table, without half-pixel centres.
    """
    return torch.arange(count) * GRID // count


def cut(picture: torch.Tensor) -> torch.Tensor:
    """Patches in reading order, float32 [n, rows * columns, 3, 32, 32], of a picture float32 [n, 3, H, W].

    What is missing to whole patches is filled with zeros, half of it (rounded down) above and to the left.
    """
    n, _, height, width = picture.shape
    rows, columns = math.ceil(height / PATCH), math.ceil(width / PATCH)
    down, across = rows * PATCH - height, columns * PATCH - width
    full = functional.pad(picture, (across // 2, across - across // 2, down // 2, down - down // 2))
    full = full.view(n, 3, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)
    return full.reshape(n, rows * columns, 3, PATCH, PATCH)


def multiscale_patches(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the network sees: patches of the picture at longer sides 224 and 384 and as it is.

    Args:
        pictures: float32 [n, 3, H, W] RGB in 0..1, any size that `scaled_shape` accepts.

    Returns:
        patches: float32 [n, t, 3, 32, 32], -1..1 and a little beyond where the cubic kernel overshoots;
        positions: int64 [t], row by row in the position table, 0..99;
        scales: int64 [t], 0, 1 or 2.

    """
    pictures = (pictures - 0.5) * 2  # before the patches are filled up: the filling is grey
    height, width = pictures.shape[2:]
    pyramid = [
        functional.interpolate(
            pictures, scaled_shape(height, width, longer), mode="bicubic", align_corners=False, antialias=False
        )
        for longer in SCALES
    ]
    patches, positions, scales = [], [], []
    for scale, picture in enumerate([*pyramid, pictures]):
        patches.append(cut(picture))
        rows, columns = (cells(math.ceil(side / PATCH)) for side in picture.shape[2:])
        positions.append((rows[:, None] * GRID + columns).flatten())
        scales.append(torch.full_like(positions[-1], scale))
    device = pictures.device
    return torch.cat(patches, dim=1), torch.cat(positions).to(device), torch.cat(scales).to(device)


class _Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(STEM, STEM, 1, bias=False)
        self.gn1 = nn.GroupNorm(32, STEM, eps=1e-4)
        self.conv2 = nn.Conv2d(STEM, STEM, 3, padding=1, bias=False)
        self.gn2 = nn.GroupNorm(32, STEM, eps=1e-4)
        self.conv3 = nn.Conv2d(STEM, 4 * STEM, 1, bias=False)
        self.gn3 = nn.GroupNorm(32, 4 * STEM, eps=1e-4)
        self.conv_proj = nn.Conv2d(STEM, 4 * STEM, 1, bias=False)
        self.gn_proj = nn.GroupNorm(32, 4 * STEM, eps=1e-4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.gn1(self.conv1(x)))
        y = functional.relu(self.gn2(self.conv2(y)))
        return functional.relu(self.gn_proj(self.conv_proj(x)) + self.gn3(self.conv3(y)))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, _ = x.shape
        query, key, value = (
            part(x).view(n, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(n, tokens, WIDTH))
        return out


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, MLP)
        self.fc2 = nn.Linear(MLP, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention = _Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = _Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, GRID * GRID, WIDTH)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(1 + len(SCALES), WIDTH)})
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": _Block() for i in range(DEPTH)})
        self.encoder_norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        x = x + self.posembed_input["position_emb"][0, positions] + self.scaleembed_input["scale_emb"][scales]
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.transformer.values():
            x = block(x)
        out: torch.Tensor = self.encoder_norm(x[:, 0])
        return out


class Musiq(nn.Module):
    """MUSIQ with one output, 27.1 million parameters; `from_state` standardises the convolutions' weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_root = nn.Conv2d(3, STEM, 7, 2, bias=False)
        self.gn_root = nn.GroupNorm(32, STEM, eps=1e-6)
        self.block1 = _Bottleneck()
        self.embedding = nn.Linear(4 * STEM * (PATCH // 4) ** 2, WIDTH)
        self.transformer_encoder = _Encoder()
        self.head = nn.Linear(WIDTH, 1)

    def tokens(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches float32 [m, 3, 32, 32] as vectors, float32 [m, 384]."""
        # TensorFlow's SAME: of 5 missing columns 2 go to the left, and the pool's one to the right.
        patches = patches.contiguous(memory_format=torch.channels_last)  # a quarter faster on a CPU
        x = functional.relu(self.gn_root(self.conv_root(functional.pad(patches, (2, 3, 2, 3)))))
        x = self.block1(functional.max_pool2d(x, 3, 2, ceil_mode=True))
        out: torch.Tensor = self.embedding(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as in TensorFlow
        return out

    def forward(self, patches: torch.Tensor, positions: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Scores of pictures given as by `multiscale_patches`.

        Returns:
            float32 [n], 0..100 in training, bounded by nothing.

        """
        tokens = torch.stack([self.tokens(one) for one in patches])  # a picture's activations are 25 MB a layer
        out: torch.Tensor = self.head(self.transformer_encoder(tokens, positions, scales))[:, 0]
        return out


def standardise(weight: torch.Tensor) -> torch.Tensor:
    """A convolution's weights with mean 0 and deviation 1 over each output channel (weight standardisation)."""
    weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    return weight / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5)


def from_state(state: Mapping[str, torch.Tensor], name: str = "This") -> Musiq:
    """The network, in eval mode on the CPU in float32.

    Args:
        state: the checkpoint's tensors, plain or as `{"params": tensors}`.
        name: what to call it in the error.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    tensors: Mapping[str, torch.Tensor] = state.get("params", state)  # type: ignore[assignment]
    net = filled(Musiq, tensors, "MUSIQ checkpoint with one output (SPAQ)", name)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            # Once, not for each batch; not in place, for these tensors are the caller's.
            module.weight = nn.Parameter(standardise(module.weight), requires_grad=False)
    return net


def load(path: Path) -> Musiq:
    """`from_state` of a verified `musiq_spaq_ckpt-358bb6af.pth`."""
    return from_state(load_torch(path), path.name)


NETWORK = Network("musiq-spaq", lambda weights, _: load(weights["musiq-spaq"]), onednn=True)


def longer_shape(height: int, width: int) -> tuple[int, int]:
    """(height, width) that VBench shows to MUSIQ: a longer side above 512 becomes 512, both sides are truncated.

    Raises:
        TooSmall: nothing is left of the shorter side in MUSIQ's smallest scale, as the longer one is at least 448 times
            as long (or more than 256 times, if it exceeds 512 px and the first resize truncates).

    """
    scale = min(1.0, LONGER / max(height, width))
    shape = int(scale * height), int(scale * width)
    scaled_shape(*shape, min(SCALES))
    return shape


def pictures(frames: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """What MUSIQ's scales are made of: longer side to 512 at most, bilinearly (VBench's mode `longer`).

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        device: where to resize.

    Returns:
        float32 [n, 3, h, w] in 0..1; h and w as `longer_shape`.

    """
    return resize(frames, "bilinear", device, longer_shape(*frames.shape[1:3])) / 255


def scores(clip: Clip) -> np.ndarray:
    """MUSIQ scores of every frame, float32 [T], trained to be in 0..100.

    Raises:
        TooSmall: as `longer_shape`.

    """

    return clip.feature("musiq-spaq", lambda: scores_of(models_of(clip).get(NETWORK), clip.chunks(BATCH)))


def scores_of(net: nn.Module, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """`scores` of frames given in batches, uint8 [n, H, W, 3] RGB each."""
    device = next(net.parameters()).device
    with torch.inference_mode():
        found = [net(*multiscale_patches(pictures(chunk, device))).cpu().numpy() for chunk in chunks]
    return np.concatenate(found)
