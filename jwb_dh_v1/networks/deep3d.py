"""Deep3DFaceRecon's regression network, from a face to the coefficients of a 3-D face model, and its alignment.

Definition: sicxu/Deep3DFaceRecon_pytorch 9167c71, `models/networks.py` (`ReconNetWrapper` with `resnet50` and
`use_last_fc=False`), `models/bfm.py` (order of the coefficients), `util/preprocess.py` and `test.py` (alignment).
Nothing of the face model itself is needed: E-FID uses the coefficients as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet50

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.networks.checkpoint import filled, load_torch
from jwb_dh_v1.networks.network import Network

SIDE = 224  # pixels of the network's picture
RESCALE = 102.0  # pixels per unit of `STANDARD_FACE` in that picture; the eyes are then 63 pixels apart
WIDTH = 2048  # ResNet-50's features
PARTS = {"identity": 80, "expression": 64, "texture": 80, "angle": 3, "gamma": 27, "shift": 2, "depth": 1}
EXPRESSION = slice(80, 144)

# Left eye, right eye, nose tip, left and right corner of the mouth of the standard face, left and right as seen in the
# picture: x to the right, y up, z towards the viewer. The numbers of `similarity_Lm3D_all.mat` (reduced from 68 points
# by `util/load_mats.py`), as hpc203/3DDFA-V3-opencv-dnn 2daeede `cpp/det_face_landmarks.h` and others print them.
STANDARD_FACE = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.0032535, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)


def pose(points: np.ndarray, height: int) -> tuple[float, float, float]:
    """Where and how large a face is: the least-squares affine camera from the standard face to the picture.

    Args:
        points: float [5, 2], x, y in pixels (y down), in the order of `STANDARD_FACE`.
        height: of the picture in pixels.

    Returns:
        Pixels per unit (the mean length of the camera's two rows), and where the standard face's origin falls: x in
        pixels, and y in pixels above the centre of the lowest row.

    """
    up = np.column_stack([points[:, 0], height - 1 - points[:, 1]]).astype(np.float64)
    camera = np.linalg.lstsq(np.column_stack([STANDARD_FACE, np.ones(5)]), up, rcond=None)[0]
    scale = float(np.linalg.norm(camera[:3], axis=0).mean())
    return scale, float(camera[3, 0]), float(camera[3, 1])


def align(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A face at the network's size and place; it is shifted and scaled, not turned.

    The whole picture is resized (Pillow's antialiased bicubic) and cut; sizes and corners are truncated to whole
    pixels, as in `resize_n_crop_img`. One axis after the other, so that only what the cut shows is resized twice; the
    numbers are those of Pillow's own two passes, width first (Pillow 13 turns them round for tall pictures).

    Args:
        frame: uint8 [H, W, 3] RGB.
        points: float [5, 2], x, y in pixels; time and memory grow with 1 / their distance (see `pose`).

    Returns:
        uint8 [224, 224, 3] RGB, black where the picture ends.

    """
    height, width = frame.shape[:2]
    scale, x, y = pose(points, height)
    factor = RESCALE / scale
    wide, high = max(1, int(width * factor)), max(1, int(height * factor))
    left = int(wide / 2 - SIDE / 2 + (x - width / 2) * factor)
    top = int(high / 2 - SIDE / 2 + (height / 2 - y) * factor)
    bicubic = Image.Resampling.BICUBIC
    strip = Image.fromarray(np.ascontiguousarray(frame)).resize((wide, height), bicubic)
    strip = strip.crop((left, 0, left + SIDE, height)).resize((SIDE, high), bicubic)
    return np.asarray(strip.crop((0, top, SIDE, top + SIDE)))


def picture(crops: np.ndarray) -> torch.Tensor:
    """What the network sees: uint8 [n, 224, 224, 3] RGB -> float32 [n, 3, 224, 224] in [0, 1]."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


class Deep3D(nn.Module):
    """ResNet-50 and one linear head per group of coefficients, 24.0 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50(weights=None)
        self.backbone.fc = nn.Identity()
        self.final_layers = nn.ModuleList(nn.Conv2d(WIDTH, size, 1) for size in PARTS.values())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The coefficients of faces.

        Args:
            pictures: float32 [n, 3, 224, 224], RGB in [0, 1], aligned.

        Returns:
            float32 [n, 257] in the order of `PARTS`. Expression is in standard deviations of the face model's basis.

        """
        features = self.backbone(pictures)[:, :, None, None]
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)


def from_state(state: Mapping[str, torch.Tensor]) -> Deep3D:
    """The network, in eval mode on the CPU in float32, from the tensors under `net_recon` of an official checkpoint.

    Raises:
        SetupError: keys or shapes are those of another network.

    """
    return filled(Deep3D, state, "Deep3DFaceRecon network (ResNet-50 with 7 heads)")


def load(path: Path) -> Deep3D:
    """`from_state` of a verified `epoch_20.pth`; only tensors and plain values are unpickled.

    The file also holds the optimiser's tensors, which are read and dropped.

    Raises:
        SetupError: the file holds no such network.

    """
    held = load_torch(path)
    state = held.get("net_recon")
    if not isinstance(state, Mapping):
        raise SetupError(f"{path.name} holds no `net_recon`; expected is Deep3DFaceRecon_pytorch's epoch_20.pth.")
    return from_state(state)


NETWORK = Network("deep3d", lambda weights, _: load(weights["deep3d"]), channels_last=True)
