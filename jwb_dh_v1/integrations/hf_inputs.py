"""What `evaluate` modules are given, and what the modules of one process share: decoded frames and loaded networks."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jwb_dh_v1.dataset.schema import ANNOTATIONS, annotations_of
from jwb_dh_v1.errors import BadBox, SetupError, Unreadable
from jwb_dh_v1.media.annotations import Annotations
from jwb_dh_v1.media.audio import Audio, decode_audio
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.media.probe import VideoInfo
from jwb_dh_v1.networks.memory import Memory
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.networks.weights import FILES, fetch, own_hashes, resolve
from jwb_dh_v1.scoring.plan import Plan

T = TypeVar("T")
MEMORY_BYTES = 512 * 2**20  # of decoded frames, per process; a clip of more is decoded by each module
OF_A_ROW = ("schema_version", "width", "height", *ANNOTATIONS)


class InputError(SetupError, ValueError):
    """What a module was given cannot be used; nothing was scored."""


MEMORY = Memory(MEMORY_BYTES)


class SharedClip(Clip):
    """A file's clip whose facts and frames are looked up by content before the file is opened."""

    def _probe(self) -> VideoInfo:
        try:
            content = self.sha256
        except Unreadable:
            return super()._probe()  # it says why
        return MEMORY.get(("info", content), super()._probe)

    @property
    def frames(self) -> np.ndarray:
        """All frames, uint8 [T, H, W, 3] RGB, shared by the clips of this content: not to be changed."""
        if self._frames is None:
            self._frames = MEMORY.get(("frames", self.sha256), self._decoded)
        return self._frames

    def _decoded(self) -> np.ndarray:
        return super().frames


_MODELS: weakref.WeakValueDictionary[Any, NetworkPool] = weakref.WeakValueDictionary()


def shared_models(plan: Plan, device: str, given: Mapping[str, Path], other: bool) -> NetworkPool:
    """The networks of a plan on a device, shared by the modules that hold them; missing weights are fetched.

    Args:
        plan: its weights and boxes.
        device: as for `NetworkPool`.
        given: the user's own weight files by name.
        other: take them even if their content is not the table's.

    Raises:
        InputError: an unknown device or name of a file.
        SetupError: weights, packages or the device are missing.

    """
    import torch

    if unknown := [name for name in given if name not in FILES]:
        raise InputError(f"No weight file is named {unknown[0]!r}; `jwb-dh weights list` shows the names.")
    try:
        torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        raise InputError(f"There is no device {device!r}; pass device= auto, cpu, cuda, or cuda:1.") from None
    paths = fetch([name for name in plan.weights if name not in given])
    paths |= {name: resolve(name, given, other) for name in plan.weights if name in given}
    own = tuple(sorted(own_hashes(plan.weights, given).items()))
    key = (plan.boxes, plan.needs_keypoints, device, own)
    models = _MODELS.get(key)
    if models is None:
        models = _MODELS[key] = plan.pool(paths, device)
    models.weights.update(paths)
    models.preload(plan.weights, plan.boxes)
    return models


def listed(name: str, given: Any) -> list[Any]:
    """Several inputs as a list.

    Raises:
        InputError: it is one thing rather than several.

    """
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | bytearray | Mapping)
    if not several:
        raise InputError(f"{name}= takes a list with one entry per video, not a single {type(given).__name__}.")
    return list(given)


def plain(item: Any) -> dict[str, Any] | None:
    """A path, bytes, or `{"bytes", "path"}` as the struct of a `datasets` Video; None for anything else.

    Only one of the two is set: `datasets` would prefer a file that happens to lie at a row's path to the row's bytes.
    """
    if isinstance(item, str | Path):
        return {"bytes": None, "path": str(item)}
    if isinstance(item, bytes | bytearray):
        return {"bytes": bytes(item), "path": None}
    if isinstance(item, Mapping) and item.get("bytes") is not None:
        return {"bytes": bytes(item["bytes"]), "path": None}
    if isinstance(item, Mapping) and item.get("path") is not None:
        return {"bytes": None, "path": str(item["path"])}
    source = getattr(item, "_hf_encoded", None)  # a torchcodec decoder as `datasets` makes it remembers its source
    return plain(source) if isinstance(source, Mapping) else None


def media(item: Any) -> tuple[Any, Mapping[str, Any] | None]:
    """The source of a clip (what `Clip` takes) and the row that its annotations come with.

    Raises:
        InputError: it is nothing that a clip can be made of.

    """
    if isinstance(item, Mapping) and "video" in item:
        source, _ = media(item["video"])
        known = {name: item[name] for name in OF_A_ROW if item.get(name) is not None}
        return source, known if "boxes" in known else None
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 4 or item.shape[-1] != 3:
            raise InputError(f"Frames must be uint8 [T, H, W, 3] in RGB, not {item.dtype} {list(item.shape)}.")
        return item, None
    found = plain(item)
    if found is None:
        raise InputError(
            f"A video is a path, bytes, a row of a dataset, or frames as a uint8 array [T, H, W, 3], not {_kind(item)}."
        )
    return found, None


def _kind(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"a row with {', '.join(map(str, item)) or 'nothing in it'}"
    return "None" if item is None else f"a {type(item).__name__}"


def annotations_in(given: Any) -> list[Mapping[str, Any] | Annotations | None]:
    """What was passed as `annotations=`, one entry per video.

    Raises:
        InputError: an entry is no row with boxes.

    """
    found = listed("annotations", given)
    for entry in found:
        if isinstance(entry, Mapping) and "boxes" not in entry:
            raise InputError(f"annotations= takes rows with a column 'boxes', this one is {_kind(entry)}.")
        if entry is not None and not isinstance(entry, Mapping | Annotations):
            raise InputError(f"annotations= takes rows of the dataset or Annotations, not {_kind(entry)}.")
    return found


def clip_of(source: Any, annotations: Mapping[str, Any] | Annotations | None, fps: float | None) -> Clip:
    """A clip that shares its frames.

    Args:
        source: see `media`.
        annotations: of this clip, as `annotations_in` gives them.
        fps: of frames given as an array.

    """

    def given() -> Annotations | None:
        return _checked(annotations, clip) if isinstance(annotations, Mapping) else annotations

    clip: Clip
    if isinstance(source, np.ndarray):
        clip = Clip(source, annotations=given, fps=float(fps or 0))
    else:
        clip = SharedClip(source, annotations=given)
    return clip


def _checked(row: Mapping[str, Any], clip: Clip) -> Annotations | None:
    """A row's annotations; boxes of a picture of another size would lie elsewhere in this one."""
    size = row.get("width"), row.get("height")
    if None not in size and size != clip.size:
        raise BadBox(f"The boxes are of {size[0]}x{size[1]} pixels, {clip.name} has {clip.size[0]}x{clip.size[1]}.")
    return annotations_of(row)


def same_length(first: str, ours: Sequence[Any] | int, second: str, theirs: Sequence[Any] | int) -> None:
    """Refuse two inputs that cannot belong together one by one.

    Raises:
        InputError: says how many there are of each.

    """
    n, m = (part if isinstance(part, int) else len(part) for part in (ours, theirs))
    if n != m:
        raise InputError(f"There are {n} {first} and {m} {second}; pass one of each per video, in the same order.")


def recording(item: Any) -> Any:
    """A recording as `media` gives its source; rows may hold a sound instead of a video."""
    if isinstance(item, Mapping) and "audio" in item and "video" not in item:
        item = item["audio"]
    source, _ = media(item)
    if isinstance(source, np.ndarray):
        raise InputError("Frames given as an array have no sound: pass the file.")
    return source


def sound_of(source: Mapping[str, Any]) -> Audio | None:
    """The sound of a recording; None without a track."""
    content = source["bytes"]
    return decode_audio(Path(source["path"]) if content is None else content)


def each_of(name: str, given: Any, count: int) -> list[str]:
    """One string for all, or one each."""
    if isinstance(given, str):
        return [given] * count
    found = listed(name, given)
    same_length("pairs", count, name, found)
    if wrong := [entry for entry in found if not isinstance(entry, str)]:
        raise InputError(f"{name}= takes strings, not a {type(wrong[0]).__name__}.")
    return found
