"""The networks of a plan, loaded when first used, and a bounded memory of features by content.

One `NetworkPool` serves all clips of a process. References that several systems share, or copies of one file, are
looked at once: features are remembered under the clip's hash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import numpy as np

from jwb_dh_v1.errors import MissingPackage, SetupError
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.networks.detectors import Detector, detector

if TYPE_CHECKING:
    import torch

    from jwb_dh_v1.media.clip import Clip
    from jwb_dh_v1.networks.arcface import ArcFace, OnnxArcFace
    from jwb_dh_v1.networks.detectors.litert import Model
    from jwb_dh_v1.networks.scrfd import Scrfd
    from jwb_dh_v1.networks.whisper import Whisper
    from jwb_dh_v1.networks.whisper_large import LargeWhisper

T = TypeVar("T")
Net = TypeVar("Net", bound="torch.nn.Module")
Precision = Literal["fp32", "bf16", "fp16"]
CACHE_BYTES = 256 * 2**20
# where the network of a weight file lives in `NetworkPool`; files that are not here serve one that is, or the detector
HOMES = {
    "mobilenet-v2": "mobilenet",
    "dlib-face": "dlib_face",
    "whisper-tiny.en": "whisper",
    "whisper-large-v3": "whisper_large",
    "dino-vitb16": "dino",
    "clip-vit-b-32": "clip_b32",
    "clip-vit-l-14": "clip_l14",
    "laion-aesthetic-l14": "laion",
    "raft": "raft",
    "amt-s": "amt",
    "musiq-spaq": "musiq",
    "inception-2015": "inception_fid",
    "inception-v3": "inception_v3",
    "i3d": "i3d",
    "scrfd": "scrfd",
    "arcface": "arcface",
    "deep3d": "deep3d",
    "face-mesh": "face_mesh",
}


class FeatureStore(Protocol):
    """Features that were computed before (`scoring.reference_features`)."""

    def get(self, key: Any) -> Any | None:
        """Those of this key, or None."""
        ...


class NetworkPool:
    """Networks on one device.

    Args:
        weights: verified files by name (`weights.resolve_all`).
        device: `cpu`, `cuda`, `cuda:1` or `auto` (CUDA where torch sees it).
        boxes: `mediapipe`, `dwpose`, or `annotations` (the boxes that came with the references).
        keypoints: whether the crops need key points (the paper protocol's do).
        precision: `fp32`, or `bf16` or `fp16` for the networks of consistency, aesthetics, FID and FVD (torch's
            autocast). The others, whose outputs are numbers to be read rather than directions, stay in float32.

    """

    def __init__(
        self,
        weights: Mapping[str, Path] | None = None,
        device: str = "auto",
        boxes: str = "mediapipe",
        keypoints: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        self.weights = dict(weights or {})
        self._device = device
        self.boxes = boxes
        self.keypoints = keypoints
        self.precision = precision
        self.stored: FeatureStore | None = None  # features kept beside the dataset
        self._known: OrderedDict[Any, Any] = OrderedDict()
        self._bytes = 0

    def preload(self, names: Iterable[str], boxes: str) -> None:
        """Load what a plan needs, so that a missing package or a wrong file stops the run before the first decode."""
        if boxes not in {"none", "annotations"} and self.detector.name != boxes:
            raise SetupError(f"The plan's boxes are {boxes}, this version's detector is {self.detector.name}.")
        _ = self.device  # a device that is not there is said now
        for name in names:
            if name in HOMES:
                getattr(self, HOMES[name])

    def remember(self, key: Any, make: Callable[[], T]) -> T:
        """`make()`, or what it gave before for this key; the oldest entries go when 256 MB are reached."""
        if key in self._known:
            self._known.move_to_end(key)
            return cast(T, self._known[key])
        kept = self.stored.get(key) if self.stored is not None else None
        value = make() if kept is None else cast(T, kept)
        self._known[key] = value
        self._bytes += _size(value)
        while self._bytes > CACHE_BYTES and len(self._known) > 1:
            _, old = self._known.popitem(last=False)
            self._bytes -= _size(old)
        return value

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

    def _placed(self, net: Net) -> Net:
        """A feature network on the device, in the precision asked for."""
        import torch

        net = self._products(net.to(self.device))
        if self.precision != "fp32":
            half = torch.bfloat16 if self.precision == "bf16" else torch.float16
            net.forward = torch.autocast(self.device.type, half)(net.forward)
        return net

    def _products(self, net: Net) -> Net:
        """Matrix products in the way that is the fastest on the device."""
        from jwb_dh_v1.networks.onednn import by_onednn

        return by_onednn(net) if self.device.type == "cpu" else net

    @cached_property
    def detector(self) -> Detector:
        """The detector that `boxes` names."""
        return detector(self.boxes, self.weights)

    @cached_property
    def mobilenet(self) -> torch.nn.Module:
        """MobileNetV2 (torchvision IMAGENET1K_V1) up to the pooled 1280 features, channels-last, eval."""
        from torchvision.models import mobilenet_v2

        from jwb_dh_v1.networks.weights import load_torch

        net = mobilenet_v2(weights=None)
        net.load_state_dict(load_torch(self.weights["mobilenet-v2"]))
        features: torch.nn.Module = net.features.eval()
        return self._channels_last(features)

    @cached_property
    def dino(self) -> torch.nn.Module:
        """DINO v1 ViT-B/16 in float32, for VBench's subject consistency."""
        from jwb_dh_v1.networks.dino import load

        return self._placed(load(self.weights["dino-vitb16"]))

    @cached_property
    def clip_b32(self) -> torch.nn.Module:
        """CLIP ViT-B/32's image tower in float32, for VBench's background consistency."""
        from jwb_dh_v1.networks.clip_image import load

        return self._placed(load(self.weights["clip-vit-b-32"]))

    @cached_property
    def clip_l14(self) -> torch.nn.Module:
        """CLIP ViT-L/14's image tower in float32, for VBench's aesthetic quality."""
        from jwb_dh_v1.networks.clip_image import load

        return self._placed(load(self.weights["clip-vit-l-14"]))

    @cached_property
    def laion(self) -> torch.nn.Linear:
        """LAION's linear aesthetic head on ViT-L/14 embeddings."""
        from jwb_dh_v1.networks.clip_image import load_aesthetic_head

        head: torch.nn.Linear = load_aesthetic_head(self.weights["laion-aesthetic-l14"]).to(self.device)
        return head

    @cached_property
    def raft(self) -> torch.nn.Module:
        """RAFT (trained on FlyingThings), for VBench's dynamic degree."""
        from jwb_dh_v1.networks.raft import load

        net: torch.nn.Module = load(self.weights["raft"]).to(self.device)
        return net

    @cached_property
    def amt(self) -> torch.nn.Module:
        """AMT-S, for VBench's motion smoothness."""
        from jwb_dh_v1.networks.amt import load

        return load(self.weights["amt-s"]).to(self.device)

    @cached_property
    def musiq(self) -> torch.nn.Module:
        """MUSIQ (trained on SPAQ), for VBench's imaging quality."""
        from jwb_dh_v1.networks.musiq import load

        return self._products(load(self.weights["musiq-spaq"]).to(self.device))

    @cached_property
    def inception_fid(self) -> torch.nn.Module:
        """The 2015 Inception of FID up to its pooled 2048 features, channels-last, eval."""
        from jwb_dh_v1.networks.inception import inception_fid
        from jwb_dh_v1.networks.weights import load_torch

        return self._channels_last(inception_fid(load_torch(self.weights["inception-2015"])))

    @cached_property
    def inception_v3(self) -> torch.nn.Module:
        """torchvision's Inception v3 up to its pooled 2048 features, channels-last, eval."""
        from jwb_dh_v1.networks.inception import inception_v3
        from jwb_dh_v1.networks.weights import load_torch

        return self._channels_last(inception_v3(load_torch(self.weights["inception-v3"])))

    def _channels_last(self, net: Net) -> Net:
        """A convolutional network with folded norms, in the memory order that suits it."""
        _fold_norms(net)
        return self._placed(_laid_out(net))

    @cached_property
    def i3d(self) -> torch.nn.Module:
        """I3D (Kinetics-400) up to its 400 logits, eval."""
        from jwb_dh_v1.networks.i3d import load_i3d

        return self._placed(_laid_out(load_i3d(self.weights["i3d"])))

    @cached_property
    def scrfd(self) -> Scrfd:
        """SCRFD, which finds faces and their five points."""
        from jwb_dh_v1.networks.scrfd import Scrfd

        return Scrfd(self.weights["scrfd"], str(self.device))

    @cached_property
    def arcface(self) -> ArcFace | OnnxArcFace:
        """ArcFace (ResNet-50), which tells people apart."""
        from jwb_dh_v1.networks.arcface import load

        return load(self.weights["arcface"], str(self.device)).to(self.device)

    @cached_property
    def deep3d(self) -> torch.nn.Module:
        """Deep3DFaceRecon's regression network: 257 coefficients of a face."""
        from jwb_dh_v1.networks.deep3d import load

        return _laid_out(load(self.weights["deep3d"])).to(self.device)

    @cached_property
    def face_mesh(self) -> Model:
        """MediaPipe's face mesh: 468 points of a face; on the CPU."""
        from jwb_dh_v1.networks.detectors.litert import Model

        return Model(self.weights["face-mesh"])

    @cached_property
    def dlib_face(self) -> tuple[Any, Any]:
        """dlib's face recognition network and its 5-point shape predictor."""
        try:
            import dlib
        except ImportError:
            raise MissingPackage('CSIM of lite/1 needs dlib: pip install "jwb-dh-v1[lite]".') from None
        return (
            dlib.face_recognition_model_v1(str(self.weights["dlib-face"])),
            dlib.shape_predictor(str(self.weights["dlib-5-points"])),
        )

    @cached_property
    def whisper(self) -> Whisper:
        """Whisper tiny.en in float32."""
        from jwb_dh_v1.networks.whisper import load_tiny_en

        return load_tiny_en(self.weights, str(self.device))

    @cached_property
    def whisper_large(self) -> LargeWhisper:
        """Whisper large-v3 in float32."""
        from jwb_dh_v1.networks.whisper_large import load_large

        return load_large(self.weights, str(self.device))


def _laid_out(net: Net) -> Net:
    """The weights of convolutions with the channels last in memory, the faster order on a CPU."""
    import torch

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            order = torch.channels_last if isinstance(module, torch.nn.Conv2d) else torch.channels_last_3d
            module.weight.data = module.weight.data.contiguous(memory_format=order)
    return net


def _fold_norms(net: torch.nn.Module) -> None:
    """Fold each batch norm into the convolution before it: the same function (features move by under 2e-5).

    With channels-last this took MobileNetV2 from 17 to 5 ms a frame on two CPU cores (batch 8, passive waiting).
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for block in net.modules():
        names = list(block._modules)
        for first, second in pairwise(names):
            conv, norm = block._modules[first], block._modules[second]
            if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                block._modules[first] = fuse_conv_bn_eval(conv, norm)
                block._modules[second] = torch.nn.Identity()


def _size(value: object) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Annotations):
        arrays = [*value.boxes.values(), *value.scores.values(), value.keypoints]
        return sum(a.nbytes for a in arrays if a is not None)
    return len(value) if isinstance(value, str) else 64
