"""AMT-S: predicts the frame between two frames, for VBench's motion smoothness.

Written from the paper (Li et al., "AMT: All-Pairs Multi-Field Transforms for Efficient Frame Interpolation", CVPR 2023)
with the constants and key names of the small model of MCG-NKU/AMT, so that the published `amt-s.pth` loads as it is.
Those weights are CC BY-NC 4.0: this package neither holds nor fetches them, the user supplies the file.

Two encoders see both frames: one for matching at 1/8 of the size, one for content at 1/2 to 1/16. From coarse to fine,
decoders guess the flows from the middle frame to either side, and at each size the flows are corrected by how well the
matching features agree around the places they point at. Three pairs of flows give three pictures, which are blended.

A frame is encoded anew for each of the two pairs that it belongs to: the mean over both frames of a pair is taken off
before encoding, and neither PReLU nor the zeros around the picture are blind to such a shift.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jwb_dh_v1.errors import NotFinite
from jwb_dh_v1.networks.checkpoint import filled, load_torch
from jwb_dh_v1.networks.network import Network

SIDES = 16  # height and width of what the network sees are multiples of this
SMALLEST = 128  # below, the coarsest of the matching levels is one cell wide, and places in it are 0 / 0
LEVELS, RADIUS = 4, 3  # matching: sizes of the other picture, and cells looked at to every side
MATCHING = 84  # channels of the matching features
CONTENT = 20, 32, 44, 56  # channels of the content features at 1/2, 1/4, 1/8, 1/16
SIDE = 20  # channels of a residual block that get convolutions of their own
FIELDS = 3  # pairs of flows at the end
# Matching scores computed at once. All of one direction are 0.8 GB at 720p, 4.2 GB at 1080p. Computing them anew for
# each of three uses costs 20 % of the time at 480 x 832 and none at 720p, where it takes 1.3 GB instead of 3.4 GB.
SLICE = 2**22


class _Bottleneck(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        inner = width // 4
        self.conv1 = nn.Conv2d(into, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1)
        self.conv3 = nn.Conv2d(inner, width, 1)
        self.downsample = nn.Sequential(nn.Conv2d(into, width, 1, stride)) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for conv in (self.conv1, self.conv2, self.conv3):
            y = functional.relu(functional.instance_norm(conv(y)))
        if self.downsample is not None:
            x = functional.instance_norm(self.downsample(x))
        return functional.relu(x + y)


class _Matcher(nn.Module):
    """Matching features at 1/8 of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(_Bottleneck(32, 32, 1), _Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(_Bottleneck(32, 64, 2), _Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(_Bottleneck(64, 96, 2), _Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, MATCHING, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(functional.instance_norm(self.conv1(x)))
        out: torch.Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return out


def _conv(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1), nn.PReLU(out))


class _Content(nn.Module):
    """Content features at 1/2, 1/4, 1/8 and 1/16 of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid1, self.pyramid2, self.pyramid3, self.pyramid4 = (
            nn.Sequential(_conv(into, out, 2), _conv(out, out))
            for into, out in zip((3, *CONTENT), CONTENT, strict=False)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for level in (self.pyramid1, self.pyramid2, self.pyramid3, self.pyramid4):
            x = level(x)
            found.append(x)
        return found


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(SIDE, SIDE)
        self.conv3, self.conv4 = _conv(width, width), _conv(SIDE, SIDE)
        self.conv5 = nn.Conv2d(width, width, 3, 1, 1)
        self.prelu = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            y = whole(y)
            y = torch.cat([y[:, :-SIDE], side(y[:, -SIDE:])], dim=1)
        out: torch.Tensor = self.prelu(x + self.conv5(y))
        return out


class _Decoder(nn.Module):
    """Doubles the size."""

    def __init__(self, into: int, width: int, out: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            _conv(into, width), _Residual(width), nn.ConvTranspose2d(width, out, 4, stride=2, padding=1)
        )

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.convblock(torch.cat(parts, dim=1))
        return out


def _head(into: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, width, 3, 1, 1), nn.LeakyReLU(0.1), nn.Conv2d(width, out, 3, 1, 1))


class _Update(nn.Module):
    """Corrects both flows and the middle frame's features, at 1/8 of the size."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, 1, 3)
        self.convf2 = nn.Conv2d(40, 20, 3, 1, 1)
        self.conv = nn.Conv2d(84, 68, 3, 1, 1)
        self.gru = _head(68 + 4 + features, 76, 76)  # the key's name; there is no recurrence in it
        self.feat_head = _head(76, 76, features)
        self.flow_head = _head(76, 76, 4)

    def forward(
        self, features: torch.Tensor, flows: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bend = nn.LeakyReLU(0.1)
        matched = bend(self.convc1(scores))
        moved = bend(self.convf2(bend(self.convf1(flows))))
        known = bend(self.conv(torch.cat([matched, moved], dim=1)))
        state = self.gru(torch.cat([known, flows, features], dim=1))
        return self.feat_head(state), self.flow_head(state)


def _resize(x: torch.Tensor, factor: float) -> torch.Tensor:
    if factor == 1:
        return x
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _resize_flow(flow: torch.Tensor, factor: float) -> torch.Tensor:
    return factor * _resize(flow, factor)


def _warp(x: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """`x` read where the flow (in pixels) points, the border repeated beyond it; [n, c, h, w]."""
    height, width = x.shape[2:]
    across = torch.linspace(-1, 1, width, device=x.device)
    down = torch.linspace(-1, 1, height, device=x.device)
    places = torch.stack(
        [across[None, None, :] + flow[:, 0] * (2 / (width - 1)), down[None, :, None] + flow[:, 1] * (2 / (height - 1))],
        dim=-1,
    )
    return functional.grid_sample(x, places, mode="bilinear", padding_mode="border", align_corners=True)


def _scores(own: torch.Tensor, other: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """How well each place of one picture matches those of another around the place that its flow points at.

    Args:
        own, other: matching features, float32 [n, c, h, w].
        flow: float32 [n, 2, h, w] in cells.

    Returns:
        float32 [n, 4 * 49, h, w]: dot products / sqrt(c), read bilinearly, 0 outside; by level, then x, then y.

    """
    n, channels, height, width = own.shape
    cells = height * width
    queries = own.flatten(2).transpose(1, 2) / channels**0.5
    pyramid = [other]
    for _ in range(LEVELS - 1):
        pyramid.append(functional.avg_pool2d(pyramid[-1], 2))  # a mean of dot products is the product with the mean
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32, device=own.device)
    # The outer of the two window axes moves x, as in RAFT's code, where this comes from.
    window = torch.cartesian_prod(steps, steps)
    across = torch.arange(width, device=own.device).expand(height, -1)
    down = torch.arange(height, device=own.device)[:, None].expand(-1, width)
    centres = (torch.stack([across, down]) + flow).flatten(2).transpose(1, 2)
    found = own.new_empty(n, cells, LEVELS, len(window))
    rows = max(1, SLICE // cells)
    for picture in range(n):
        for start in range(0, cells, rows):
            part = slice(start, start + rows)
            for level, target in enumerate(pyramid):
                high, wide = target.shape[2:]
                scores = (queries[picture, part] @ target[picture].flatten(1)).view(-1, 1, high, wide)
                places = centres[picture, part, None] / 2**level + window
                places = places * (2 / places.new_tensor([wide - 1, high - 1])) - 1
                found[picture, part, level] = functional.grid_sample(scores, places[:, None], align_corners=True)[
                    :, 0, 0
                ]
    return found.flatten(2).transpose(1, 2).reshape(n, -1, height, width)


class AmtS(nn.Module):
    """AMT-S, 3.0 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = CONTENT
        self.feat_encoder = _Matcher()
        self.encoder = _Content()
        # Into a decoder: features of the middle frame and of both others, and both flows; at first, the time instead.
        self.decoder4 = _Decoder(2 * sixteenth + 1, 2 * sixteenth, 4 + eighth)
        self.decoder3 = _Decoder(3 * eighth + 4, 3 * eighth, 4 + quarter)
        self.decoder2 = _Decoder(3 * quarter + 4, 3 * quarter, 4 + half)
        self.decoder1 = _Decoder(3 * half + 4, 3 * half, 8 * FIELDS)
        self.update4, self.update3, self.update2 = _Update(eighth), _Update(quarter), _Update(half)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FIELDS, 6 * FIELDS, 3, 1, 1), nn.PReLU(6 * FIELDS), nn.Conv2d(6 * FIELDS, 3, 3, 1, 1)
        )

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The pictures half-way between two.

        Args:
            before, after: float32 [n, 3, H, W] RGB in [0, 1]; H and W are multiples of 16 and at least 128.

        Returns:
            float32 [n, 3, H, W] in [0, 1].

        """
        n, _, height, width = before.shape
        if height % SIDES or width % SIDES or min(height, width) < SMALLEST:
            raise ValueError(f"AMT-S takes sides that are multiples of {SIDES} from {SMALLEST} on: {height}, {width}")
        # The mean is the pair's, so that a frame's features belong to one pair and both pairs encode it. Shared, they
        # were 0.3 % off at means of 0.4626 and 0.4620 (seeded weights), and 4.5 % of the predicted grey levels moved.
        mean = torch.cat([before, after], dim=2).mean(dim=(1, 2, 3), keepdim=True)
        before, after = before - mean, after - mean
        matches = self.feat_encoder(torch.cat([before, after]))  # its norms are per picture, so that both go in one
        own, other = matches[:n], matches[n:]
        contents = [(level[:n], level[n:]) for level in self.encoder(torch.cat([before, after]))]

        half_way = before.new_full((n, 1, height // 16, width // 16), 0.5)
        found = self.decoder4(*contents[3], half_way)
        coarse = found.new_zeros(())
        stages = (
            (1, self.update4, self.decoder3, contents[2]),
            (2, self.update3, self.decoder2, contents[1]),
            (4, self.update2, self.decoder1, contents[0]),
        )
        for size, update, decoder, (first, last) in stages:
            flows, features = coarse + found[:, :4], found[:, 4:]
            small = _resize_flow(flows, 1 / size)
            # The flow from the middle to one side, twice as long, leads there from the other side.
            scores = torch.cat([_scores(own, other, 2 * small[:, 2:]), _scores(other, own, 2 * small[:, :2])], dim=1)
            more_features, more_flows = update(_resize(features, 1 / size), small, scores)
            features, flows = features + _resize(more_features, size), flows + _resize_flow(more_flows, size)
            found = decoder(features, _warp(first, flows[:, :2]), _warp(last, flows[:, 2:]), flows)
            coarse = _resize_flow(flows, 2)
        to_before, to_after, share, rest = found.split([2 * FIELDS, 2 * FIELDS, FIELDS, 3 * FIELDS], dim=1)
        flows = torch.cat([to_before.unflatten(1, (FIELDS, 2)), to_after.unflatten(1, (FIELDS, 2))], dim=2)
        flows = (flows + coarse[:, None]).flatten(0, 1)
        before, after, mean = (x.repeat_interleave(FIELDS, dim=0) for x in (before, after, mean))
        share, rest = share.sigmoid().reshape(-1, 1, height, width), rest.reshape(-1, 3, height, width)
        pictures = share * _warp(before, flows[:, :2]) + (1 - share) * _warp(after, flows[:, 2:]) + mean + rest
        pictures = pictures.unflatten(0, (n, FIELDS))
        out: torch.Tensor = pictures.mean(dim=1) + self.comb_block(pictures.flatten(1, 2))
        return out.clamp(0, 1)


def pad(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [n, c, h, w] with their border repeated, so that the sides are multiples of 16; evenly on both sides."""
    height, width = pictures.shape[2:]
    down, across = -height % SIDES, -width % SIDES
    margins = (across // 2, across - across // 2, down // 2, down - down // 2)
    return functional.pad(pictures, margins, mode="replicate")


def grey_levels(picture: torch.Tensor) -> np.ndarray:
    """A picture [3, h, w] in [0, 1] as VBench writes it: grey levels cut off, not rounded; uint8 [h, w, 3]."""
    levels: np.ndarray = (picture * 255).permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    return levels


def middle(net: nn.Module, before: np.ndarray, after: np.ndarray, device: torch.device) -> np.ndarray:
    """The frame that the network expects between two.

    Args:
        net: `AmtS`, or whatever takes and gives the same.
        before, after: uint8 [h, w, 3] RGB.
        device: where the network is.

    Returns:
        uint8 [h, w, 3] RGB.

    Raises:
        NotFinite: the network gave NaN (which a cast would turn into a black pixel).

    """
    height, width, _ = before.shape
    with torch.inference_mode():
        pair = torch.from_numpy(np.stack([before, after])).to(device).permute(0, 3, 1, 2).float() / 255
        padded = pad(pair)
        top, left = (padded.shape[2] - height) // 2, (padded.shape[3] - width) // 2
        picture = net(padded[:1], padded[1:])[0, :, top : top + height, left : left + width]
        if not torch.isfinite(picture).all():
            raise NotFinite(f"AMT-S gave NaN for a pair of frames of {width} x {height}.")
        return grey_levels(picture)


def from_state(state: Mapping[str, torch.Tensor]) -> AmtS:
    """The network, in eval mode on the CPU in float32, from the official tensors, bare or under `state_dict`.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    tensors = typing.cast(Mapping[str, torch.Tensor], state.get("state_dict", state))
    return filled(AmtS, tensors, "AMT-S checkpoint")


def load(path: Path) -> AmtS:
    """`from_state` of a verified `amt-s.pth`."""
    # The published file's dict was made by calling typing.OrderedDict, whose name stands in the pickle for that reason.
    with torch.serialization.safe_globals([typing.OrderedDict]):
        return from_state(load_torch(path))


NETWORK = Network("amt-s", lambda weights, _: load(weights["amt-s"]))
