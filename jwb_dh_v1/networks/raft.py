"""RAFT (large): optical flow for VBench's dynamic degree.

The layers are torchvision's `raft_large`; weights are the authors' `raft-things.pth` (princeton-vl/RAFT, Teed and Deng
2020), under its own key names or under torchvision's (`raft_large_C_T_V1`, the same numbers converted). What runs is
VBench's call: 20 updates, and the flow on the padded picture. A feature map is computed once per frame, where the
original computes it for each of the two pairs that a frame belongs to; only the last flow is brought to full size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.optical_flow import RAFT, raft_large

from jwb_dh_v1.networks.checkpoint import filled, load_torch
from jwb_dh_v1.networks.network import Network

UPDATES = 20
CELL = 8  # pixels per side of a cell of the coarse flow
HIDDEN = 128  # channels of the recurrent state, and of the context

# From the authors' names to torchvision's, in order; blocks before the whole encoder, whose layers share their names.
RENAMES = [
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"(_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"(_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"(_encoder)\.conv2\.", r"\1.conv."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
]


def torchvision_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of `raft-things.pth` under torchvision's names.

    The file was saved from a `DataParallel`, hence `module.`; `norm3` is a second name of `downsample.1`.
    """
    found = {}
    for name, value in state.items():
        if ".norm3." in name:
            continue
        name = name.removeprefix("module.")
        for pattern, new in RENAMES:
            name = re.sub(pattern, new, name)
        found[name] = value
    return found


def from_state(state: Mapping[str, torch.Tensor]) -> RAFT:
    """The network, in eval mode on the CPU in float32, from the authors' or torchvision's state dict.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    if any(name.removeprefix("module.").startswith("fnet.") for name in state):
        state = torchvision_names(state)
    make = partial(raft_large, weights=None, progress=False)
    return filled(make, state, "RAFT (large) checkpoint such as raft-things.pth")


def load(path: Path) -> RAFT:
    """`from_state` of a verified `raft-things.pth`."""
    return from_state(load_torch(path))


NETWORK = Network("raft", lambda weights, _: load(weights["raft"]))


def padded(picture: torch.Tensor) -> torch.Tensor:
    """A picture [1, 3, H, W] with its border repeated to multiples of 8; an odd rest goes to the right and bottom."""
    down, right = (-side % CELL for side in picture.shape[2:])
    return functional.pad(picture, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")


def scaled(picture: torch.Tensor) -> torch.Tensor:
    """Grey levels 0..255 as -1..1."""
    return 2 * (picture / 255) - 1


@torch.inference_mode()
def flows(net: RAFT, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The flow from each frame to the next, for n frames n - 1 times.

    One pair is in memory at a time; most of it is the correlation of all cells with all cells, 1.33 (HW / 64)^2
    numbers: 1.1 GB at 1280 x 720, 5.7 GB at 1920 x 1080.

    Args:
        net: what `from_state` gives, on the device to compute on.
        frames: uint8 [H, W, 3] RGB, both sides at least 121: with less the coarsest correlations are a single row or
            column, of which the authors' code makes NaN, and torchvision's numbers where it is a row.

    Yields:
        float32 [8 ceil(H / 8), 8 ceil(W / 8), 2]: to the right and down in pixels.

    """
    device = next(net.parameters()).device
    last = None
    for frame in frames:
        levels = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float()
        picture = scaled(padded(levels))
        features = net.feature_encoder(picture)
        if last is not None:
            yield _flow(net, *last, features).permute(1, 2, 0).cpu().numpy()
        last = picture, features


def _flow(net: RAFT, picture: torch.Tensor, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The flow [2, H, W] from a picture with these features to one with features `target` [1, 256, H / 8, W / 8]."""
    correlations = net.corr_block
    correlations.corr_pyramid = _correlations(features, target)
    hidden, context = net.context_encoder(picture).split(HIDDEN, dim=1)
    hidden, context = hidden.tanh(), context.relu()
    rows, columns = (torch.arange(n, device=picture.device, dtype=torch.float32) for n in features.shape[2:])
    start = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]
    now = start
    for _ in range(UPDATES):
        hidden, change = net.update_block(hidden, context, correlations.index_pyramid(now), now - start)
        now = now + change
    correlations.corr_pyramid = []  # else the next pair's would be made beside it
    return _full_size((now - start)[0], net.mask_predictor(hidden)[0])


def _correlations(features: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    """Correlations of every cell with every cell at four scales, [hw, 1, h, w] and halved three times.

    torchvision's `build_pyramid` divides the whole volume by sqrt(256) and needs it twice for that. To divide one
    factor gives the same bits, 16 being a power of two.
    """
    _, channels, height, width = features.shape
    volume = (features[0].flatten(1) / channels**0.5).T @ target[0].flatten(1)
    pyramid = [volume.view(-1, 1, height, width)]
    for _ in range(3):
        pyramid.append(functional.avg_pool2d(pyramid[-1], 2))
    return pyramid


def _full_size(flow: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A flow [2, h, w] in cells as [2, 8 h, 8 w] in pixels: each a weighted mean of the 3 x 3 cells around it."""
    _, height, width = flow.shape
    weights = mask.view(1, 9, CELL, CELL, height, width).softmax(dim=1)
    around = functional.unfold(CELL * flow[None], 3, padding=1).view(2, 9, 1, 1, height, width)
    fine = (weights * around).sum(dim=1)  # [2, 8, 8, h, w]
    return fine.permute(0, 3, 1, 4, 2).reshape(2, CELL * height, CELL * width)
