"""A model of VBench's processing (Vchitect/VBench 45e79ec): six passes over the clips, each decoding anew.

See `originals.py` for what this is a model of and what is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import decord
import numpy as np
import torch
from stages import Stages
from torch.nn import functional
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from jwb_dh_v1.networks import amt, clip_image, dino, musiq, raft
from jwb_dh_v1.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD


class Vbench:
    """VBench's six dimensions on files. Each network is loaded when first used and dropped by `drop`.

    Args:
        files: weights by name.
        stages: takes the times; loading stands under `load`.

    Attributes:
        loading: CPU seconds of loading.

    """

    def __init__(self, files: dict[str, Path], stages: Stages) -> None:
        self.files, self.stages = files, stages
        self._nets: dict[str, Any] = {}
        self.loading = 0.0

    def drop(self) -> None:
        """Forget the networks, as VBench does after each dimension."""
        self._nets = {}

    def net(self, load: Callable[[Path], Any], name: str) -> Any:
        """A network, loaded by `load` from the file of that name unless it is here."""
        if name not in self._nets:
            begun = time.process_time()
            with self.stages("load"):
                self._nets[name] = load(self.files[name])
            self.loading += time.process_time() - begun
        return self._nets[name]

    # Reading

    def by_decord(self, path: Path) -> np.ndarray:
        """All frames by decord on one thread, uint8 [T, H, W, 3] RGB."""
        with self.stages("decode"):
            reader = decord.VideoReader(str(path), num_threads=1)
            frames: np.ndarray = reader.get_batch(range(len(reader))).asnumpy()
        return frames

    def _tensor(self, path: Path) -> torch.Tensor:
        """VBench's `load_video`: float32 [T, 3, H, W] in 0..255."""
        frames = self.by_decord(path)
        with self.stages("resize"):
            return torch.Tensor(frames).permute(0, 3, 1, 2)

    def by_opencv(self, path: Path, count: int | None = None) -> tuple[list[np.ndarray], float]:
        """Frames as BGR by OpenCV, all or the first, and the frame rate."""
        with self.stages("decode"):
            video, frames = cv2.VideoCapture(str(path)), []
            while count is None or len(frames) < count:
                good, frame = video.read()
                if not good:
                    break
                frames.append(frame)
            fps = video.get(cv2.CAP_PROP_FPS)
            video.release()
        return frames, fps

    def subject_consistency(self, path: Path) -> float:
        """DINO frame by frame."""
        net = self.net(dino.load, "dino-vitb16")
        pictures = self._tensor(path)
        with self.stages("resize"):
            pictures = _transform(InterpolationMode.BILINEAR, False, (IMAGENET_MEAN, IMAGENET_STD))(pictures)
        found = []
        for picture in pictures:
            with torch.no_grad(), self.stages("DINO"):
                found.append(functional.normalize(net(picture[None]), dim=-1, p=2))
        return self._similar(found)

    def background_consistency(self, path: Path) -> float:
        """CLIP ViT-B/32 on all frames at once; the graph for a gradient is kept, as there."""
        net = self.net(clip_image.load, "clip-vit-b-32").requires_grad_(True)
        pictures = self._tensor(path)
        with self.stages("resize"):
            pictures = _transform(InterpolationMode.BICUBIC, True, (clip_image.MEAN, clip_image.STD))(pictures)
        with self.stages("CLIP B/32"):
            found = functional.normalize(net(pictures), dim=-1, p=2).detach()
        return self._similar(list(found[:, None]))

    def _similar(self, found: list[torch.Tensor]) -> float:
        """Mean of the cosines with the frame before and the first, each read back by itself."""
        with self.stages("statistics"):
            scores = [
                sum(max(0.0, functional.cosine_similarity(other, now).item()) for other in (before, found[0])) / 2
                for before, now in pairwise(found)
            ]
        return sum(scores) / len(scores)

    def aesthetic_quality(self, path: Path) -> float:
        """CLIP ViT-L/14 in batches of 32, LAION's head."""
        net, head = self.net(clip_image.load, "clip-vit-l-14"), self.net(clip_image.load_aesthetic_head,
                                                                          "laion-aesthetic-l14")  # fmt: skip
        pictures = self._tensor(path)
        with self.stages("resize"):
            pictures = _transform(InterpolationMode.BICUBIC, True, (clip_image.MEAN, clip_image.STD))(pictures)
        scores = []
        for batch in pictures.split(32):
            with torch.no_grad(), self.stages("CLIP L/14"):
                scores.append(head(functional.normalize(net(batch), dim=-1, p=2))[:, 0] / 10)
        return float(torch.cat(scores).mean())

    def imaging_quality(self, path: Path) -> float:
        """MUSIQ frame by frame, its smaller scales filled up to 49 and 144 tokens, with a graph for a gradient."""
        net = self.net(musiq.load, "musiq-spaq").requires_grad_(True)
        pictures = self._tensor(path)
        with self.stages("resize"):
            height, width = pictures.shape[2:]
            if max(height, width) > 512:
                scale = 512 / max(height, width)
                size = [int(scale * height), int(scale * width)]
                pictures = transforms.Resize(size, InterpolationMode.BILINEAR, antialias=False)(pictures)
            pictures = pictures / 255
        total = 0.0
        for picture in pictures:
            with self.stages("resize"):
                patches, positions, scales = musiq.multiscale_patches(picture[None])
            with self.stages("MUSIQ"):
                total += float(_padded_musiq(net, patches, positions, scales).detach())
        return total / len(pictures) / 100

    def motion_smoothness(self, path: Path) -> float | None:
        """AMT-S on pairs of frames, all of them padded and held as float32."""
        net = self.net(amt.load, "amt-s")
        frames = [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in self.by_opencv(path)[0]]
        height, width = frames[0].shape[:2]
        if min(height, width) < 113:
            return None  # NaN made black, or an exception; neither counts here
        with self.stages("resize"):
            inputs = [amt.pad(torch.tensor(f.transpose(2, 0, 1))[None].float() / 255) for f in frames[::2]]
        top, left = ((size - side) // 2 for size, side in zip(inputs[0].shape[2:], (height, width), strict=True))
        made = []
        for before, after in pairwise(inputs):
            with torch.no_grad(), self.stages("AMT-S"):
                made.append(net(before, after)[0, :, top : top + height, left : left + width])
        with self.stages("statistics"):
            gaps = [cv2.absdiff(seen, amt.grey_levels(guess)).mean() for seen, guess in zip(frames[1::2], made)]  # noqa: B905
        return float((255 - np.mean(gaps)) / 255)

    def dynamic_degree(self, path: Path) -> float | None:
        """RAFT on each pair of sampled frames by itself, the flow brought to full size at every update."""
        net = self.net(raft.load, "raft")
        frames, fps = self.by_opencv(path)
        if min(frames[0].shape[:2]) < 121:
            return None  # NaN or an exception there
        with self.stages("resize"):
            levels = [
                torch.from_numpy(cv2.cvtColor(f, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).float()[None] for f in frames
            ]
        levels = levels[:: max(1, round(fps / 8))]
        scores = []
        for first, second in pairwise(levels):
            with torch.no_grad(), self.stages("RAFT"):
                pair = (raft.scaled(raft.padded(picture)) for picture in (first, second))
                flow = net(*pair, num_flow_updates=20)[-1][0].permute(1, 2, 0).numpy()
            with self.stages("statistics"):
                lengths = np.sqrt(np.square(flow[:, :, 0]) + np.square(flow[:, :, 1])).flatten()
                scores.append(abs(np.sort(-lengths))[: int(lengths.size * 0.05)].mean())
        above = sum(score > 6 * min(frames[0].shape[:2]) / 256 for score in scores)
        return float(above >= max(1, round(4 * len(levels) / 16)))


def _transform(
    mode: InterpolationMode, crop: bool, statistics: tuple[Any, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """VBench's `dino_transform` and `clip_transform`."""
    steps: list[Any] = [transforms.Resize(224, interpolation=mode, antialias=False)]
    steps += [transforms.CenterCrop(224)] if crop else []
    steps += [transforms.Lambda(lambda x: x.float().div(255.0)), transforms.Normalize(*statistics)]
    composed: Callable[[torch.Tensor], torch.Tensor] = transforms.Compose(steps)
    return composed


def colour(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _padded_musiq(
    net: musiq.Musiq, patches: torch.Tensor, positions: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """MUSIQ on one picture with masked tokens, which cost time and change nothing."""
    parts, places, levels, masks = [], [], [], [torch.ones(1, dtype=torch.bool)]
    for scale, full in ((0, 49), (1, 144), (2, 0)):
        own = scales == scale
        spare = max(0, full - int(own.sum()))
        parts.append(torch.cat([patches[0, own], patches.new_zeros(spare, *patches.shape[2:])]))
        places.append(functional.pad(positions[own], (0, spare)))
        levels.append(functional.pad(scales[own], (0, spare), value=scale))
        masks.append(torch.arange(len(parts[-1])) < int(own.sum()))
    tokens, seen = net.tokens(torch.cat(parts))[None], torch.cat(masks)
    body = net.transformer_encoder
    x = tokens + body.posembed_input["position_emb"][0, torch.cat(places)]
    x = torch.cat([body.cls, x + body.scaleembed_input["scale_emb"][torch.cat(levels)]], dim=1)
    for block in body.transformer.values():
        y, own = block.norm1(x), block.attention
        q, k, v = (part(y).view(len(seen), 6, 64).transpose(0, 1) for part in (own.query, own.key, own.value))
        weights = (q @ k.transpose(1, 2) / 8).masked_fill(~seen, -1000.0).softmax(dim=-1)
        x = x + own.out((weights @ v).transpose(0, 1).reshape(1, len(seen), 384))
        x = x + block.mlp(block.norm2(x))
    out: torch.Tensor = net.head(body.encoder_norm(x[:, 0]))[0, 0]
    return out
