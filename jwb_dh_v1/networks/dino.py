"""DINO v1 ViT-B/16: the picture feature of VBench's subject consistency.

Architecture and key names are those of facebookresearch/dino `vision_transformer.py`, `vit_base(patch_size=16)`, so
that `dino_vitbase16_pretrain.pth` loads as it is. There is a file of our own because of the position embedding, which
is resized in a way that timm and transformers do not follow: the sampling step comes from a scale factor with 0.1 cells
added, not from the output size. That moves the features of every picture that is not 224 x 224.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from jwb_dh_v1.networks.checkpoint import filled

WIDTH, DEPTH, HEADS, PATCH = 768, 12, 12, 16
GRID = 14  # cells per side that the position embedding was trained for: 224 / 16
EPS = 1e-6  # DINO's own; PyTorch's default is 1e-5


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, _ = x.shape
        query, key, value = self.qkv(x).view(n, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, WIDTH))
        return out


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=EPS)
        self.attn = _Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=EPS)
        self.mlp = _Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class _Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


class Dino(nn.Module):
    """DINO v1 ViT-B/16, 85.8 million parameters, without a head."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, WIDTH))
        self.patch_embed = _Patches()
        self.blocks = nn.Sequential(*(_Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, eps=EPS)

    def positions(self, height: int, width: int) -> torch.Tensor:
        """The position embedding for pictures of a size in pixels, float32 [1, 1 + H // 16 * (W // 16), 768].

        The trained table where the picture has its 196 cells and is square, else resized with the cubic kernel, as
        facebookresearch/dino `interpolate_pos_encoding` does.
        """
        rows, columns = height // PATCH, width // PATCH
        if rows * columns == GRID * GRID and height == width:
            return self.pos_embed
        table = self.pos_embed[:, 1:].reshape(1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
        # 0.1 keeps the number of cells from being rounded down; it also becomes part of the sampling step, because
        # PyTorch takes the step from a scale factor that it was given.
        table = functional.interpolate(
            table,
            scale_factor=((rows + 0.1) / GRID, (columns + 0.1) / GRID),
            mode="bicubic",
            align_corners=False,
            recompute_scale_factor=False,
        )
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The class token after the last norm.

        Args:
            pictures: float32 [n, 3, H, W], ImageNet-normalised RGB, both sides at least 16. What is left over of a
                side that is no multiple of 16 is not seen.

        Returns:
            float32 [n, 768]; norms of about 28 for the seeded network.

        """
        n, _, height, width = pictures.shape
        x = torch.cat([self.cls_token.expand(n, -1, -1), self.patch_embed(pictures)], dim=1)
        x = self.blocks(x + self.positions(height, width))
        out: torch.Tensor = self.norm(x)[:, 0]  # the norm is per token, so that only one has to be kept
        return out


def from_state(state: Mapping[str, torch.Tensor]) -> Dino:
    """The network, in eval mode on the CPU in float32, from the official state dict.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    return filled(Dino, state, "DINO ViT-B/16 checkpoint")


def load(path: Path) -> Dino:
    """`from_state` of a verified `dino_vitbase16_pretrain.pth` (`weights.load_torch`: only tensors are unpickled)."""
    from jwb_dh_v1.networks.weights import load_torch

    return from_state(load_torch(path))
