"""The pool of networks: each is loaded once, features are remembered by content.

One `NetworkPool` serves all clips of a process. References that several systems share, or copies of one file, are
looked at once: features are remembered under the clip's hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.networks.detectors import Detector, detector
from jwb_dh_v1.networks.memory import Memory
from jwb_dh_v1.networks.network import Network, Precision, network_of

if TYPE_CHECKING:
    import torch

    from jwb_dh_v1.media.clip import Clip

T = TypeVar("T")
CACHE_BYTES = 256 * 2**20


def models_of(clip: Clip) -> NetworkPool:
    """The networks that the clip was given."""
    if clip.models is None:
        raise TypeError("This clip has no models; pass Clip(..., models=NetworkPool(...)).")
    return cast(NetworkPool, clip.models)


class FeatureStore(Protocol):
    """Features that were computed before (`scoring.reference_features`)."""

    def get(self, key: Any) -> Any | None:
        """Those of this key, or None."""
        ...


def device_name(device: object) -> str:
    """`auto`, or torch's name of a device, from such a name, a `torch.device`, or the number of a CUDA device."""
    return f"cuda:{device}" if isinstance(device, int) else str(device)


class NetworkPool:
    """Networks on one device.

    Args:
        weights: verified files by name (`weights.resolve_all`).
        device: `cpu`, `cuda`, `cuda:1`, a `torch.device`, the number of a CUDA device, or `auto` (CUDA where torch
            sees it).
        boxes: `mediapipe`, `dwpose`, or `annotations` (the boxes that came with the references).
        keypoints: whether the crops need key points (the paper protocol's do).
        precision: `fp32`, or `bf16` or `fp16` for the networks of consistency, aesthetics, FID and FVD (torch's
            autocast). The others, whose outputs are numbers to be read rather than directions, stay in float32.

    """

    def __init__(
        self,
        weights: Mapping[str, Path] | None = None,
        device: object = "auto",
        boxes: str = "mediapipe",
        keypoints: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        self.weights = dict(weights or {})
        self._device = device_name(device)
        self.boxes = boxes
        self.keypoints = keypoints
        self.precision = precision
        self.stored: FeatureStore | None = None  # features kept beside the dataset
        self._features = Memory(CACHE_BYTES)
        self._networks: dict[str, Any] = {}

    def get(self, network: Network[T]) -> T:
        """The network, loaded and placed when it is first asked for."""
        if network.name not in self._networks:
            self.put(network, self._placed(network))
        return cast(T, self._networks[network.name])

    def put(self, network: Network[T], loaded: T) -> None:
        """Let a network that is loaded already (by another pool, or by other means) serve as this one."""
        self._networks[network.name] = loaded

    def _placed(self, network: Network[T]) -> T:
        import torch

        loaded = network.load(self.weights, str(self.device))
        if isinstance(loaded, torch.nn.Module):
            from jwb_dh_v1.networks.placement import placed

            return cast(T, placed(network, loaded, self.device, self.precision))
        return loaded

    def preload(self, names: Iterable[str], boxes: str) -> None:
        """Load what a plan needs, so that a missing package or a wrong file stops the run before the first decode."""
        if boxes not in {"none", "annotations"} and self.detector.name != boxes:
            raise SetupError(f"The plan's boxes are {boxes}, this version's detector is {self.detector.name}.")
        _ = self.device  # a device that is not there is said now
        for network in map(network_of, names):
            if network is not None:
                self.get(network)

    def remember(self, key: Any, make: Callable[[], T]) -> T:
        """`make()`, or what it gave before for this key; the least recently used go when 256 MB are reached."""

        def stored_or_made() -> T:
            kept = self.stored.get(key) if self.stored is not None else None
            return make() if kept is None else cast(T, kept)

        self._features.begin()
        return self._features.get(key, stored_or_made)

    def annotations(self, clip: Clip) -> Annotations:
        """Boxes by this plan's detector; those that came with the clip serve if the same detector made them."""
        given = clip.provided_annotations
        same = given is not None and given.source == self.detector.name
        if given is not None and same and (given.keypoints is not None or not self.keypoints):
            return given
        make = lambda: self.detector.detect(clip.chunks(), clip.fps, full=self.keypoints)  # noqa: E731
        return clip.feature(("annotations", self.detector.name, self.keypoints), make)

    @cached_property
    def device(self) -> torch.device:
        """The device networks run on.

        Raises:
            SetupError: CUDA was asked for and is not there, or there is no such device.

        """
        import torch

        name = self._device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda"):
            if not torch.cuda.is_available():
                raise SetupError(f"--device {name}: torch sees no CUDA device; use --device cpu.")
            torch.backends.cudnn.allow_tf32 = False  # convolutions otherwise round to 10 bits, without being asked
        try:
            return torch.device(name)
        except RuntimeError:
            raise SetupError(f"--device {name}: torch knows no such device; use auto, cpu, cuda or cuda:1.") from None

    @cached_property
    def detector(self) -> Detector:
        """The detector that `boxes` names."""
        return detector(self.boxes, self.weights)
