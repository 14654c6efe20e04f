"""`stats/`: features of the real clips for the metrics that compare sets, computed once and kept beside the dataset.

What is kept are features (a few numbers per frame), not moments: a generated clip that fails must not count its
reference, and 2048 x 2048 sums per clip would be larger than its frames' features. An entry is found by what it was
computed from - content and windows of a clip, and the network's name for it - so that it serves any subset of the
clips, other metrics that read the same features, and a generated clip that is a copy of a real one.

`stats/<protocol>-<number>/<region>.npz` is a zip of float arrays and one `about.json`, which says for each metric what
its numbers depend on (`facts`); the plan hash is the sha256 of that. Whatever does not agree is not used.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jwb_dh_v1.errors import DataNotFound, SetupError, typed
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.protocols import Protocol
from jwb_dh_v1.metrics.region import REGIONS, Region
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.scoring.plan import Plan, make_plan, with_own

T = TypeVar("T")

FOLDER, ABOUT = "stats", "about.json"
SCHEMA = "jwb-dh-v1/stats/1"


def facts(plan: Plan, metric: str, region: str, models: NetworkPool) -> dict[str, Any]:
    """Everything that can change a metric's features of a real clip on one region, as JSON.

    The content of the clips is not among it, because it is part of every entry's name. Device, the CPU's instructions
    and package versions are: features agree to the last bit only where all of them are the same.
    """
    from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS, DETECTOR_WEIGHTS
    from jwb_dh_v1.scoring.aggregator import versions_here

    names = set(plan.table.metrics[metric].weights)
    if region != "body":
        names |= {*DETECTOR_WEIGHTS.get(plan.boxes.partition("/")[0], ()), *ANNOTATE_WEIGHTS}
    return {
        "protocol": plan.protocol,
        "metric": metric,
        "region": region,
        "boxes": "none" if region == "body" else plan.boxes,
        "weights": {name: sha for name, sha in sorted(plan.weights.items()) if name in names},
        "decoder": plan.decoder,
        "precision": plan.precision,
        "device": _device(models),
        "versions": versions_here(),
    }


def _device(models: NetworkPool) -> str:
    import torch

    if models.device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return f"{models.device.type} {torch.cuda.get_device_name(models.device)}"


def plan_hash(of: Mapping[str, Any]) -> str:
    """sha256 of facts."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def entry(key: Any) -> str:
    """The name of an entry: sha256 of (content key of the clip, name of the features), as in `NetworkPool.remember`."""
    return hashlib.sha256(repr(key).encode()).hexdigest()


def path_of(folder: str | Path, protocol: str, region: str) -> Path:
    """Where the features of a region are kept."""
    return Path(folder) / FOLDER / protocol.replace("/", "-") / f"{region}.npz"


# Writing


def write_stats(
    data: str | Path,
    protocol: str | Protocol = "standard",
    metrics: Sequence[str] | None = None,
    regions: Sequence[Region] = REGIONS,
    *,
    split: str = "evaluation",
    boxes: str | None = None,
    device: str = "auto",
    weights: Mapping[str, Path] | None = None,
    other_weights: bool = False,
    on_clip: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Compute the features of all real clips and write them below `data`.

    Args:
        data: a local dataset or a plain folder of real videos.
        protocol, regions, boxes, device, weights, other_weights: as `jwb_dh_v1.score` takes them.
        metrics: distances of sets; all that the protocol has by default.
        split: of the dataset.
        on_clip: called with each clip's name when it is done.

    Returns:
        The files, one per region; a file of before is replaced when all clips are done.

    Raises:
        DataNotFound: no such folder.
        SetupError: weights are not here, or another metric was asked for.

    """
    from jwb_dh_v1.metrics import protocol as table_of
    from jwb_dh_v1.networks.weights import resolve_all

    if not Path(data).is_dir():
        raise DataNotFound(f"{data} is no folder; features are kept beside a local dataset.")
    table = table_of(protocol)
    known = [metric.name for metric in table.metrics.values() if metric.of_sets]
    if wrong := [name for name in metrics or () if name not in known]:
        raise SetupError(f"{wrong[0]} compares no sets; features are kept for {', '.join(known)}.")
    plan = with_own(make_plan(table, metrics or known, regions, boxes), weights)
    files = resolve_all(plan.weights, weights, other_weights)
    models = _Listening(files, device, plan.boxes.partition("/")[0], plan.needs_keypoints)
    models.preload(plan.weights, plan.boxes)
    chosen = dict.fromkeys(region for _, region in plan.cells)
    paths = {region: path_of(data, plan.protocol, region) for region in chosen}
    parts = {region: path.with_suffix(".part") for region, path in paths.items()}
    zips: dict[str, zipfile.ZipFile] = {}
    entries: dict[tuple[str, str], dict[str, None]] = {cell: {} for cell in plan.cells}
    try:
        for region, part in parts.items():
            part.parent.mkdir(parents=True, exist_ok=True)
            zips[region] = zipfile.ZipFile(part, "w")
        for sample in _references(Path(data), split):
            sample.generated.models = models
            for metric, region in plan.cells:
                for name, array in _features(sample, plan, metric, region, models).items():
                    entries[metric, region][name] = None
                    if name not in zips[region].NameToInfo:
                        zips[region].writestr(name, _npy(array))
            sample.generated.release()
            on_clip(sample.id)
        for region, archive in zips.items():
            about: dict[str, Any] = {"schema": SCHEMA, "metrics": {}}
            for metric in (name for name, where in plan.cells if where == region):
                made = facts(plan, metric, region, models)
                found = {"plan_hash": plan_hash(made), "facts": made, "entries": [*entries[metric, region]]}
                about["metrics"][metric] = found
            archive.writestr(ABOUT, json.dumps(about, indent=1, sort_keys=True))
    finally:
        for archive in zips.values():
            archive.close()
    return [part.replace(paths[region]) for region, part in parts.items()]


def _references(data: Path, split: str) -> Iterator[Sample]:
    """The real clips, each as its own counterpart."""
    from jwb_dh_v1.dataset.load import load_dataset
    from jwb_dh_v1.dataset.pairs import videos_in
    from jwb_dh_v1.dataset.schema import annotations_of

    if not any(data.rglob("*.parquet")):
        for name, path in videos_in(data).items():
            clip = Clip(path)
            yield Sample(name, clip, clip)
        return
    for row in load_dataset(str(data), split=split, streaming=True):
        clip = Clip(row["video"], annotations=partial(annotations_of, row))
        yield Sample(row["sample_id"], clip, clip, person_id=row["identity_id"])


class _Listening(NetworkPool):
    """Networks that note which features they are asked for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked: dict[Any, Any] = {}
        self._depth = 0

    def remember(self, key: Any, make: Callable[[], T]) -> T:
        """As `NetworkPool.remember`; what a feature is made of (boxes, points) is not noted."""
        self._depth += 1
        try:
            value = super().remember(key, make)
        finally:
            self._depth -= 1
        if self._depth == 0:
            self.asked[key] = value
        return value


def _features(sample: Sample, plan: Plan, metric: str, region: str, models: _Listening) -> dict[str, np.ndarray]:
    """The arrays that a metric reads of a clip, by entry; none where the clip cannot be scored (a run will say why)."""
    sample.generated.release()  # else what an earlier metric read is not asked for again
    models.asked = {}
    scored = plan.table.metrics[metric]
    try:
        for part in sample.crop(region, plan.table.rule, scored.same_boxes):  # type: ignore[arg-type]
            scored.score(part)
    except SetupError:
        raise
    except Exception as error:  # noqa: BLE001 - as in `score_shard`, one clip's trouble is not the others'
        typed(error)
    return {entry(key): value for key, value in models.asked.items() if isinstance(value, np.ndarray)}


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


# Reading


class Stored:
    """Features found by what they were computed from, for `NetworkPool.stored`.

    Attributes:
        served: how many were given out.

    """

    def __init__(self, places: Mapping[str, tuple[Path, zipfile.ZipFile]], say: Callable[[str], None]) -> None:
        self._places = dict(places)
        self._say = say
        self.served = 0

    def __len__(self) -> int:
        """How many features there are."""
        return len(self._places)

    def get(self, key: Any) -> np.ndarray | None:
        """The features of this key of `NetworkPool.remember`, or None; what is damaged counts as not there."""
        path, archive = self._places.get(name := entry(key), (None, None))
        if archive is None:
            return None
        try:
            found = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            self._say(f"{path} is damaged and no longer used: {error}")
            self._places = {n: place for n, place in self._places.items() if place[0] != path}
            return None
        self.served += 1
        return found


def open_stats(
    data: str | Path, plan: Plan, models: NetworkPool, say: Callable[[str], None] = lambda text: None
) -> Stored | None:
    """The features kept beside a local dataset that are the very bits this run would compute; None without any.

    Args:
        data: as `score` was given it; what is no folder with `stats/` has none.
        plan: of the run, with the hashes of the user's own weights.
        models: networks of the run.
        say: told in one sentence each what is used and what is not, and why.

    """
    places: dict[str, tuple[Path, zipfile.ZipFile]] = {}
    for region in dict.fromkeys(region for metric, region in plan.cells if plan.table.metrics[metric].of_sets):
        path = path_of(data, plan.protocol, region)
        if not path.is_file():
            continue
        try:
            archive = zipfile.ZipFile(path)
            about = json.loads(archive.read(ABOUT))
            made = {name: (dict(one["facts"]), str(one["plan_hash"]), list(one["entries"]))
                    for name, one in about["metrics"].items()}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            say(f"{path} is damaged and not used: {error}")
            continue
        for metric in (name for name, where in plan.cells if where == region and name in made):
            theirs, promised, names = made[metric]
            ours = facts(plan, metric, region, models)
            if promised == plan_hash(ours) == plan_hash(theirs):
                places |= {name: (path, archive) for name in names if name in archive.NameToInfo}
            else:
                say(f"{path} is not used for {metric}: {_difference(theirs, ours)}.")
    if not places:
        return None
    say(f"{len(places)} features of real clips come from {Path(data) / FOLDER}.")
    return Stored(places, say)


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    for key, value in ours.items():
        if theirs.get(key) != value:
            return f"it was made with {key} {theirs.get(key)}, this run has {value}"
    return "its plan hash is not that of what it says"
