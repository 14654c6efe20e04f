"""The `evaluate` side: classes that turn a row of a protocol into a module. Only `hf*.py` know `evaluate`.

A module is `metrics/<name>/<name>.py` with `import jwb_dh_v1.integrations.hf as hf` and a subclass of `hf.Module`
that names its metric. (evaluate takes the first module class in a script's namespace: never import `Module` itself
by name there.)
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np

from jwb_dh_v1.errors import JwbError, SampleError, SetupError
from jwb_dh_v1.integrations.hf_inputs import (
    MEMORY,
    InputError,
    annotations_in,
    clip_of,
    listed,
    media,
    same_length,
    shared_models,
)
from jwb_dh_v1.metrics import PROTOCOLS, Metric, protocol
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.scoring.plan import Plan, make_plan
from jwb_dh_v1.scoring.result import Result
from jwb_dh_v1.scoring.run import score
from jwb_dh_v1.version import __version__

CITATION = """@article{jwbdhv1,
  title={JWB-DH-V1: Benchmark for Joint Whole-Body Talking Avatar and Speech Generation Version 1},
  journal={arXiv preprint arXiv:2507.20987},
  year={2025}
}"""
INPUTS = """
Args:
    predictions: generated videos; paths, bytes, rows of a dataset (or of its Video column), or frames as uint8
        [T, H, W, 3].
    references: real videos in the same order (full-reference metrics).
    region: "body" (whole frame), "face" or "hands"; by default the first that the metric is defined on.
    protocol: "standard", "lite" or "paper"; by default the first of these that has the metric.
    annotations: one row with the dataset's column `boxes` (or `Annotations`, or None) per video: of the references
        where there are any, else of the predictions. Rows given as videos bring their own.
    boxes: what finds face and hands: "mediapipe", "dwpose" or "annotations"; by default "annotations" if these are
        passed, else the protocol's detector.
    device: "auto", "cpu", "cuda".
    return_samples: also return one entry per video.
    fps: frames per second of frames given as arrays.
    weights: your own weight files by name, instead of fetched ones.
    other_weights: take them even if their content is not the table's; `networks` then says so.

Returns:
    the score under the metric's name, with `n`, `skipped`, `failed` (numbers of videos), `ci95`, `coverage` (mean share
    of frames in which the region was seen), `note` (what to mind), `protocol`, `region`, `boxes`, `networks`,
    `higher_is_better`, `version` (of jwb-dh-v1), and `problems` (the reasons of skips and failures).
"""
Columns = dict[str, list[Any]]  # encoded inputs by feature
AT_ONCE = 8  # videos per write: pyarrow holds up to 2 GB of bytes in one column of a batch


class Base(evaluate.Metric):  # type: ignore[misc]
    """What the modules have in common: inputs that are checked before `evaluate` sees them, and one-sentence errors.

    Subclasses say how an input goes through Arrow (`_encode`) and what happens before and after (`_ready`, whose
    keyword arguments are those of `compute`).
    """

    metric = ""
    missing = "{metric} compares with references: pass references= in the order of predictions=."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held: dict[str, Any] = {}  # inputs that Arrow cannot hold, by the path that stands for them
        super().__init__(*args, **kwargs)

    @property
    def name(self) -> str:
        """The metric's name; evaluate would make `efid` of `EFID`."""
        return self.metric

    def _encode(self, column: str, item: Any) -> Any:
        """One input as the column's feature takes it.

        Raises:
            InputError: it is of no kind that the column takes.

        """
        raise NotImplementedError

    def _ready(self, count: int) -> Callable[[Columns], dict[str, Any]]:
        """Do all that may fail before the inputs are used; what is returned makes the answer of the encoded columns.

        Args:
            count: how many inputs there are.

        """
        raise NotImplementedError

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Keep one pair until `compute`."""
        ours, theirs = kwargs.pop("predictions", prediction), kwargs.pop("references", reference)  # from `combine`
        self.add_batch(
            predictions=None if ours is None else [ours], references=None if theirs is None else [theirs], **kwargs
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Keep some pairs until `compute`."""
        self._known(kwargs, ())
        with self._undone():
            columns = self._columns(predictions, references)
        self._write(columns)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> Any:
        """Score what is given here and what was added before; see the module's `inputs_description`."""
        self._known(kwargs, tuple(inspect.signature(self._ready).parameters)[1:])
        columns: Columns = {}
        with self._undone():
            if predictions is not None or references is not None:
                columns = self._columns(predictions, references)
            elif self.writer is None:
                raise InputError(f"There is nothing to score: pass predictions= to {self.metric}, or add some first.")
            ready = self._ready(len(self) + len(columns.get("predictions", ())), **kwargs)
        if columns:
            self._write(columns)
        answer = super().compute(ready=ready, beside=references)
        self._held.clear()
        if isinstance(answer, JwbError):
            raise answer
        return answer

    def _compute(self, ready: Callable[[Columns], dict[str, Any]], beside: Any, **columns: Any) -> Any:
        """The answer, or the error: raised here it would leave evaluate's file behind, and locked."""
        try:
            if beside is not None and "references" not in columns:
                columns["beside"] = listed("references", beside)  # of a metric that does not look at them
            return ready(columns)
        except JwbError as error:
            return error

    def _known(self, kwargs: Mapping[str, Any], names: tuple[str, ...]) -> None:
        for name in kwargs:
            if name not in names:
                known = ", ".join(["predictions", "references", *names])
                raise InputError(f"{self.metric} has no argument {name!r} here; there are {known}.")

    def _columns(self, predictions: Any, references: Any) -> Columns:
        """The checked and encoded inputs by feature."""
        if predictions is None:
            raise InputError(f"{self.metric} scores what was generated: pass predictions=.")
        given = {"predictions": listed("predictions", predictions)}
        if "references" in self._feature_names():
            if references is None:
                raise InputError(self.missing.format(metric=self.metric))
            given["references"] = listed("references", references)
            same_length("predictions", given["predictions"], "references", given["references"])
        if not given["predictions"]:
            raise InputError(f"predictions= is empty: there is nothing to score for {self.metric}.")
        return {name: [self._encode(name, item) for item in items] for name, items in given.items()}

    def _write(self, columns: Columns) -> None:
        for at in range(0, len(columns["predictions"]), AT_ONCE):
            super().add_batch(**{name: items[at : at + AT_ONCE] for name, items in columns.items()})

    def _hold(self, item: Any) -> str:
        """Keep something in this process; no file has the name that stands for it."""
        if self.num_process > 1:
            raise InputError("Arrays and whole rows stay in their process: with num_process > 1 pass paths or bytes.")
        key = f"\0{len(self._held)}"
        self._held[key] = item
        return key

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """After an error nothing is held that was not before."""
        before = dict(self._held)
        try:
            yield
        except BaseException:
            self._held = before
            raise


class Videos(Base):
    """A module whose features are `datasets` Videos."""

    def _encode(self, column: str, item: Any) -> Any:
        source, row = media(item)
        if row is None and isinstance(source, dict):
            return source
        return {"bytes": None, "path": self._hold((source, row))}

    def _decode(self, encoded: Mapping[str, Any]) -> tuple[Any, Any]:
        """What `Clip` takes, and the row that its annotations come with."""
        held = self._held.get(encoded["path"])
        return (encoded, None) if held is None else held


class Module(Videos):
    """A metric over videos; subclasses name their `metric`."""

    missing = "{metric} compares with real videos: pass references= in the order of predictions=."

    def _variants(self) -> dict[str, Metric]:
        order = ("standard", "lite", "paper")
        return {name: m for name in order if (m := PROTOCOLS[name].metrics.get(self.metric)) is not None}

    def _info(self) -> Any:
        variants = self._variants()
        video = datasets.Video(decode=False)
        features = {"predictions": video}
        if any("reference" in metric.needs for metric in variants.values()):
            features["references"] = video
        lines = [f"{PROTOCOLS[name].name}: {metric.description}" for name, metric in variants.items()]
        return evaluate.MetricInfo(
            description="\n".join(lines),
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2507.20987"],
        )

    def _ready(
        self,
        count: int,
        region: str | None = None,
        protocol: str | None = None,
        annotations: Any = None,
        boxes: str | None = None,
        device: str = "auto",
        return_samples: bool = False,
        fps: float | None = None,
        weights: Mapping[str, Any] | None = None,
        other_weights: bool = False,
    ) -> Callable[[Columns], dict[str, Any]]:
        rows = None if annotations is None else annotations_in(annotations)
        if rows is not None:
            same_length("videos", count, "annotations", rows)
            boxes = boxes or "annotations"
        if fps is None and any(isinstance(source, np.ndarray) for source, _ in self._held.values()):
            raise InputError("Frames given as an array need their rate: pass fps=.")
        name = protocol or next(iter(self._variants()))
        plan = make_plan(name, [self.metric], regions_of(name, self.metric, region), boxes)
        given = {name: Path(path) for name, path in (weights or {}).items()}
        # Held by the module, so that its networks stay loaded as long as it is used.
        self._models = models = shared_models(plan, device, given, other_weights)

        def answer(columns: Columns) -> dict[str, Any]:
            samples = self._samples(columns, plan, rows, fps)
            result = score(
                samples,
                [self.metric],
                [region for _, region in plan.cells],  # type: ignore[misc]
                protocol=plan.protocol,
                boxes=None if plan.boxes == "none" else plan.boxes.partition("/")[0],
                device=device,
                weights=given,
                other_weights=other_weights,
                models=models,
            )
            return self._told(result, len(samples), return_samples)

        return answer

    def _samples(self, columns: Columns, plan: Plan, rows: list[Any] | None, fps: float | None) -> list[Sample]:
        MEMORY.begin()
        ours = [self._decode(encoded) for encoded in columns["predictions"]]
        theirs = [self._decode(encoded) for encoded in columns.get("references", [])]
        if not theirs and plan.boxes == "annotations":
            # The boxes of real videos also serve metrics that do not look at these.
            theirs = [media(item) for item in columns.get("beside", [])]
        if theirs:
            same_length("predictions", ours, "references", theirs)
        if rows is None:
            rows = [row for _, row in theirs or ours]
        samples = []
        for number, (source, own) in enumerate(ours):
            reference = clip_of(theirs[number][0], rows[number], fps) if theirs else None
            generated = clip_of(source, own if theirs else rows[number], fps)
            samples.append(Sample(f"{number:06d}", generated, reference))
        return samples

    def _told(self, result: Result, count: int, return_samples: bool) -> dict[str, Any]:
        found = result.scores[0]
        problems = [
            f"video {int(row.sample_id)}: {row.status}: {row.error}: {row.message}"
            for row in result.rows()
            if row.status != "ok"
        ]
        if found.n == 0:
            raise SampleError(f"{self.metric} could be computed for none of {count} videos; {problems[0]}")
        if found.value is None:
            raise SampleError(
                f"{self.metric} of {result.protocol} is a distance between two sets, and {found.n} video(s) of this "
                "length give fewer than two features on a side: pass more videos, or longer ones."
            )
        answer: dict[str, Any] = {
            self.metric: found.value,
            "n": found.n,
            "skipped": found.skipped,
            "failed": found.failed,
            "ci95": found.ci95,
            "coverage": found.coverage,
            "note": found.note,
            "protocol": result.protocol,
            "region": found.region,
            "boxes": result.plan["boxes"],
            "networks": found.networks,
            "higher_is_better": found.higher_is_better,
            "version": __version__,
            "problems": problems,
        }
        if return_samples:
            answer["samples"] = [
                {
                    "video": int(row.sample_id),
                    "value": row.value,
                    "status": row.status,
                    "coverage": row.coverage,
                    "curve": list(row.curve),
                    "facts": json.loads(row.facts) if row.facts else {},
                }
                for row in result.rows()
            ]
        return answer


def regions_of(name: str, metric: str, region: str | None) -> Any:
    """The region (the metric's first by default) as a list, refused in one sentence where the metric has none such."""
    table = protocol(name)
    if metric not in table.metrics:
        why = table.absent.get(metric)
        raise SetupError(f"{table.name} has no {metric}" + (f": {why}." if why else "."))
    regions = table.metrics[metric].regions
    if region is None:
        return list(regions[:1])
    if region not in regions:
        raise SetupError(f"{metric} of {table.name} is defined on {', '.join(regions)}, not on {region!r}.")
    return [region]
