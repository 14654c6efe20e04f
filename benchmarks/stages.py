"""Where time goes: exclusive wall time by stage, for the benchmarks.

A stage entered inside another one stops the outer one's clock, so that the stages of a thread add up to its time. The
package itself holds no clocks; its functions are wrapped from here while a benchmark runs.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any
from unittest.mock import patch

WHOLE = "clips decoded"  # counted only: in this process or in the one that decodes ahead
# "module:attribute" (a class's method with a dot) -> stage. Decoding is generators' work: timed while they run.
PACKAGE = {
    "jwb_dh_v1.media.clip:_decode": "decode",
    "jwb_dh_v1.media.worker:Decoder.wait": "decode",  # waiting for the process that decodes ahead
    "jwb_dh_v1.media.clip:probe": "open and hash",
    "jwb_dh_v1.networks.weights:sha256_of": "open and hash",
    "jwb_dh_v1.metrics.region:cut": "crop",
    "jwb_dh_v1.metrics.sample:crop": "crop",
    "jwb_dh_v1.networks.dino:pictures": "resize",
    "jwb_dh_v1.networks.clip_image:pictures": "resize",
    "jwb_dh_v1.networks.musiq:pictures": "resize",
    "jwb_dh_v1.networks.musiq:multiscale_patches": "resize",
    "jwb_dh_v1.metrics.fidelity.fid:pytorch_input": "resize",
    "jwb_dh_v1.metrics.fidelity.fid:clean_input": "resize",
    "jwb_dh_v1.metrics.fidelity.fvd:fvd_input": "resize",
    "jwb_dh_v1.metrics.fidelity.fvd:paper_fvd_input": "resize",
    "jwb_dh_v1.metrics.fidelity.fid:paper_input": "resize",
    "jwb_dh_v1.metrics.fidelity.fid:canny": "resize",
    "jwb_dh_v1.networks.mobilenet:_picture": "resize",
    "jwb_dh_v1.networks.dlib_face:_descriptors": "dlib",
    "jwb_dh_v1.networks.face_mesh:read_mesh": "face mesh",
    "jwb_dh_v1.networks.detectors.mediapipe:MediaPipe._look": "detector",
    "jwb_dh_v1.networks.arcface:align": "resize",
    "jwb_dh_v1.networks.deep3d:align": "resize",
    "jwb_dh_v1.metrics.fidelity.pixel:ssim_index": "pixel metrics",
    "jwb_dh_v1.metrics.fidelity.pixel:psnr_db": "pixel metrics",
    "jwb_dh_v1.metrics.fidelity.csim:pixel_cosine": "pixel metrics",
    "jwb_dh_v1.networks.raft:flows": "RAFT",
    "jwb_dh_v1.networks.amt:middle": "AMT-S",
    "jwb_dh_v1.metrics.quality.dynamic_degree:_dis": "DIS flow",
    "jwb_dh_v1.metrics.quality.motion_smoothness:dis_middle": "DIS flow",
    "jwb_dh_v1.metrics.quality.dynamic_degree:top_motion": "statistics",
    "jwb_dh_v1.metrics.fidelity.fid:frechet_distance": "statistics",
    "jwb_dh_v1.metrics.state:frechet_distance": "statistics",
    "jwb_dh_v1.metrics.state:FeatureStatistics.of": "statistics",
    "jwb_dh_v1.metrics.state:FeatureStatistics.__add__": "statistics",
    "jwb_dh_v1.scoring.aggregator:Aggregator.result": "statistics",
    "jwb_dh_v1.scoring.run:resolve_all": "weights hashed",
    "jwb_dh_v1.files:LocalFolder.write": "results to disk",
    "jwb_dh_v1.scoring.run:parquet_bytes": "results to disk",
    "jwb_dh_v1.scoring.shard:ShardResult.to_bytes": "results to disk",
    "jwb_dh_v1.scoring.run:finished": "results to disk",
}
TABLES = {"jwb_dh_v1.metrics.fidelity.fid:RESIZE": "resize"}  # functions by name, taken before they can be wrapped
NETWORKS = {  # name in NetworkPool -> stage; RAFT and AMT-S are timed above
    "dino-vitb16": "DINO",
    "clip-vit-b-32": "CLIP B/32",
    "clip-vit-l-14": "CLIP L/14",
    "laion-aesthetic-l14": "LAION head",
    "musiq-spaq": "MUSIQ",
    "inception-2015": "Inception 2015",
    "inception-v3": "Inception v3",
    "i3d": "I3D",
    "arcface": "ArcFace",
    "deep3d": "Deep3D",
    "mobilenet-v2": "MobileNetV2",
}
REST = "the rest"


class Stages:
    """Exclusive seconds and calls by stage, over all threads.

    Attributes:
        seconds, calls: by stage.
        missing: what was to be wrapped and is not there (the package has changed); its time is in another stage.

    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.missing: list[str] = []
        self._local = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str, count: bool = True) -> Iterator[None]:
        """Count the time until the end of the block, without that of stages inside it."""
        stack = self._local.__dict__.setdefault("stack", [])
        inner = [0.0]
        stack.append(inner)
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            stack.pop()
            if stack:
                stack[-1][0] += spent
            with self._lock:
                self.seconds[stage] += spent - inner[0]
            if count:
                self._count(stage)

    def _count(self, stage: str) -> None:
        with self._lock:
            self.calls[stage] += 1

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The function with its time counted; of a generator the time in which it works."""
        if isgeneratorfunction(function):

            @wraps(function)
            def steps(*args: Any, **named: Any) -> Iterator[Any]:
                inside, end = function(*args, **named), object()
                self._count(stage)
                while True:
                    with self(stage, count=False):
                        item = next(inside, end)
                    if item is end:
                        return
                    yield item

            return steps

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            with self(stage):
                return function(*args, **named)

        return call

    @contextmanager
    def package(self, models: Any = None, networks: dict[str, str] = NETWORKS) -> Iterator[None]:
        """While the block runs, the package's own functions (and the networks of a pool) are timed."""
        with ExitStack() as stack:
            for place, stage in PACKAGE.items():
                module, _, name = place.partition(":")
                home: Any = importlib.import_module(module)
                *classes, last = name.split(".")
                for part in classes:
                    home = getattr(home, part, None)
                raw = vars(home).get(last) if home is not None else None
                if raw is None:
                    self.missing.append(place)
                    continue
                made: Any = self.timed(raw.__func__ if isinstance(raw, classmethod) else raw, stage)
                if classes:
                    made = classmethod(made) if isinstance(raw, classmethod) else made
                    stack.enter_context(patch.object(home, last, made))
                    continue
                for other in [m for n, m in sys.modules.items() if n.startswith("jwb_dh_v1")]:
                    for alias in [key for key, value in vars(other).items() if value is raw]:  # `from ... import`
                        stack.enter_context(patch.object(other, alias, made))
            for place, stage in TABLES.items():
                module, _, name = place.partition(":")
                table = getattr(importlib.import_module(module), name)
                stack.enter_context(patch.dict(table, {key: self.timed(f, stage) for key, f in table.items()}))
            stack.enter_context(self._counted_decodes())
            for network, stage in networks.items():
                net = models._networks.get(network) if models is not None else None
                if net is not None:
                    stack.enter_context(patch.object(net, "forward", self.timed(net.forward, stage)))
            yield

    @contextmanager
    def _counted_decodes(self) -> Iterator[None]:
        """Count clips read from the first frame on: here, and by the answers of the process that decodes ahead."""
        from jwb_dh_v1.media import clip
        from jwb_dh_v1.media import worker as decoding

        here, there = clip._decode, decoding.Decoder._take

        def decode(*args: Any, **named: Any) -> Iterator[Any]:
            self._count(WHOLE)
            yield from here(*args, **named)

        def take(decoder: Any, request: Any, message: dict[str, Any], file: int | None) -> None:
            op = request.facts["op"]
            if file is not None and (op == "frames" or (op == "next" and request.facts["at"] == 0)):
                self._count(WHOLE)
            there(decoder, request, message, file)

        with patch.object(clip, "_decode", decode), patch.object(decoding.Decoder, "_take", take):
            yield

    def table(self, wall: float) -> str:
        """A Markdown table, longest stage first; what no stage holds is `the rest` of the wall time."""
        rows = sorted(self.seconds.items(), key=lambda item: -item[1])
        rest = wall - sum(self.seconds.values())
        lines = ["| stage | seconds | share | calls |", "|---|---|---|---|"]
        lines += [f"| {s} | {v:.2f} | {v / wall:.1%} | {self.calls[s]} |" for s, v in rows]
        lines.append(f"| {REST} | {rest:.2f} | {rest / wall:.1%} | |")
        if self.missing:
            lines.append(f"\nNot found to be timed (inside other stages): {', '.join(self.missing)}")
        return "\n".join(lines)
