"""What the benchmarks share: the machine in words, networks with seeded weights, and short clips of the teaser."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import cv2
import numpy as np

from jwb_dh_v1 import Clip, Sample
from jwb_dh_v1.errors import MissingWeights
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.media.video import write_mp4
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.networks import scrfd
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import resolve

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from goldens import seeded_file

NAMED = ("jwb-dh-v1", "torch", "numpy", "scipy", "opencv-python-headless", "decord", "av")


class FixedFace:
    """Takes SCRFD's place (no seeded weights make it find a face): one face in the middle of every frame."""

    def faces(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Its box and five points."""
        height, width = frame.shape[:2]
        middle, size = np.array([width / 2, height / 2]), min(width, height) / 3
        points = middle + size * np.array([[-0.3, -0.3], [0.3, -0.3], [0, 0.1], [-0.25, 0.4], [0.25, 0.4]])
        box = np.concatenate([middle - size, middle + size, [1]])
        return box[None].astype(np.float32), points[None].astype(np.float32)


def header(*packages: str) -> str:
    """Date, machine and versions, one line each; the load says how quiet the machine was."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    found = [f"{name} {_version(name)}" for name in (*NAMED, *packages)]
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores ({cpu or platform.processor()}), {memory:.0f} GB, "
        f"load {load:.1f} at the start, Python {platform.python_version()}\n{', '.join(found)}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def matmul_rate() -> float:
    """This machine's float32 rate in TFLOPS: the best of five products of 2048 x 2048."""
    import torch

    a = torch.randn(2048, 2048)
    best = 1e9
    for _ in range(5):
        begun = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048**3 / best / 1e12


def weight_file(name: str, folder: Path) -> Path:
    """The real file if it is here, else one with seeded weights."""
    try:
        return resolve(name)
    except MissingWeights:
        return seeded_file(name, folder)


def video_metrics(protocol: str) -> list[str]:
    """A protocol's metrics without WER, whose network looks at no frame."""
    return [name for name in PROTOCOLS[protocol].metrics if name != "wer"]


def weight_files(protocols: Iterable[str], folder: Path, metrics: Iterable[str] | None = None) -> dict[str, Path]:
    """All weights that the protocols' video metrics need, real or seeded; for SCRFD an empty file (see `FixedFace`)."""
    chosen = [(p, m) for p in protocols for m in video_metrics(p) if metrics is None or m in metrics]
    names = {w for p, m in chosen for w in PROTOCOLS[p].metrics[m].weights}
    files = {name: weight_file(name, folder) for name in sorted(names - {"scrfd"})}
    if "scrfd" in names:
        files["scrfd"] = folder / "scrfd.onnx"
        files["scrfd"].touch()
    return files


def networks(files: dict[str, Path], boxes: str = "annotations", precision: str = "fp32") -> NetworkPool:
    """`NetworkPool` on the CPU with every network of `files` loaded."""
    models = NetworkPool(files, "cpu", boxes, precision=precision)  # type: ignore[arg-type]
    if "scrfd" in files:
        models.put(scrfd.NETWORK, FixedFace())  # type: ignore[arg-type]
    models.preload(files, "annotations")
    return models


def without_memory(models: NetworkPool) -> NetworkPool:
    """A twin with the same networks that remembers no clip."""
    twin = NetworkPool(models.weights, "cpu", models.boxes, models.keypoints, models.precision)
    twin._networks.update(models._networks)
    vars(twin).update({"detector": models.detector} if "detector" in vars(models) else {})
    return twin


# The teaser's clips with the frame from which on a hand is seen (pexels, obama); the first two show face and hand.
STARTS = {"pexels-2": 10, "obama-1": 12, "pexels-1": 59, "obama-2": 28, "pyfeat-1": 0, "pexels-3": 0, "carphone-1": 0,
          "carphone-2": 0}  # fmt: skip


def teaser_pairs(clips: int, frames: int, folder: Path) -> tuple[list[Sample], int]:
    """Short clips of the teaser against their blurred selves, as H.264 files, with the dataset's boxes and key points.

    Args:
        clips: how many, in the order of `STARTS`.
        frames: of each; 0 for all.
        folder: for the files.

    Returns:
        The samples, and how many frames the whole clips have together.

    """
    import pyarrow.parquet as pq

    from jwb_dh_v1.dataset.schema import annotations_of

    (file,) = sorted(teaser_folder().glob("evaluation/*.parquet"))
    rows = {row["sample_id"]: row for row in pq.read_table(file).to_pylist()}
    samples, whole = [], 0
    for name in list(STARTS)[:clips]:
        row = rows[name]
        pictures = Clip(row["video"]).frames
        whole += len(pictures)
        count = min(frames or len(pictures), len(pictures))
        first = min(STARTS[name], len(pictures) - count)
        pictures = pictures[first : first + count]
        real, made = folder / f"{name}-real.mp4", folder / f"{name}-made.mp4"
        write_mp4(real, pictures, row["fps"])
        write_mp4(made, (cv2.GaussianBlur(picture, (0, 0), len(picture) / 72) for picture in pictures), row["fps"])
        given = part_of(annotations_of(row), slice(first, first + count))
        samples.append(Sample(name, Clip(made), Clip(real, annotations=given), person_id=row["identity_id"]))
    return samples, whole


def part_of(given: Annotations | None, moments: slice) -> Annotations:
    """The annotations of some of a clip's frames."""
    assert given is not None
    return replace(
        given,
        boxes={part: boxes[moments] for part, boxes in given.boxes.items()},
        scores={part: scores[moments] for part, scores in given.scores.items()},
        keypoints=None if given.keypoints is None else given.keypoints[moments],
        masks=None,
    )


def teaser_folder() -> Path:
    """The teaser: `JWB_TEASER`, or `jwb-dh-v1` beside the caller."""
    folder = Path(os.environ.get("JWB_TEASER", "jwb-dh-v1"))
    if not folder.is_dir():
        sys.exit("These clips come from the teaser: run `jwb-dh teaser` first, or set JWB_TEASER to its folder.")
    return folder
