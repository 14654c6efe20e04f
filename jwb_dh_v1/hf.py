"""The `evaluate` side: one class that turns a row of a protocol into a module. The only file that knows `evaluate`.

A module is `metrics/<name>/<name>.py` with `import jwb_dh_v1.hf as hf` and a subclass of `hf.Module` that names its
metric. (evaluate takes the first module class in a script's namespace: never import `Module` itself by name there.)
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from jwb_dh_v1.benchmark import score
from jwb_dh_v1.clip import Clip
from jwb_dh_v1.errors import SampleError, SetupError
from jwb_dh_v1.metrics import PROTOCOLS, Metric, protocol
from jwb_dh_v1.models import Models
from jwb_dh_v1.plan import make_plan
from jwb_dh_v1.sample import Sample
from jwb_dh_v1.weights import fetch

CITATION = """@article{jwbdhv1,
  title={JWB-DH-V1: Benchmark for Joint Whole-Body Talking Avatar and Speech Generation Version 1},
  journal={arXiv preprint arXiv:2507.20987},
  year={2025}
}"""
INPUTS = """
Args:
    predictions: generated videos; paths, bytes, or rows of a datasets Video column.
    references: real videos in the same order (full-reference metrics).
    region: "body" (whole frame), "face" or "hands"; by default the first that the metric is defined on.
    protocol: "standard", "lite" or "paper"; by default the first of these that has the metric.
    boxes: detector of face and hands, "mediapipe" or "dwpose"; by default the protocol's.
    device: "auto", "cpu", "cuda".
    return_samples: also return one entry per video.

Returns:
    the score under the metric's name, with `n`, `skipped`, `failed` (numbers of videos), `ci95`, `coverage` (mean share
    of frames in which the region was seen), `note` (what to mind), `protocol`, `networks`, `higher_is_better`, and
    `problems` (the reasons of skips and failures).
"""


class Module(evaluate.Metric):  # type: ignore[misc]
    """An `evaluate` metric over videos; subclasses name their `metric`."""

    metric = ""

    def _variants(self) -> dict[str, Metric]:
        order = ("standard", "lite", "paper")
        return {name: m for name in order if (m := PROTOCOLS[name].metrics.get(self.metric)) is not None}

    def _info(self) -> Any:
        variants = self._variants()
        video = datasets.Video(decode=False)
        features = {"predictions": video}
        if any("reference" in metric.needs for metric in variants.values()):
            features["references"] = video
        lines = [f"{PROTOCOLS[name].name}: {metric.sample.__doc__}" for name, metric in variants.items()]
        return evaluate.MetricInfo(
            description="\n".join(lines),
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2507.20987"],
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> Any:
        """Score the videos given here or added before; see the module's `inputs_description`."""
        if references is None and predictions is not None and "references" in self.info.features:
            raise ValueError(f"{self.metric} compares with real videos: pass references= in the order of predictions=.")
        given = {"predictions": predictions, "references": references}
        return super().compute(**{k: v for k, v in given.items() if v is not None}, **kwargs)

    def _compute(
        self,
        predictions: list[Any],
        references: list[Any] | None = None,
        region: str | None = None,
        protocol: str | None = None,
        boxes: str | None = None,
        device: str = "auto",
        return_samples: bool = False,
    ) -> dict[str, Any]:
        name = protocol or next(iter(self._variants()))
        regions = _regions(name, self.metric, region)
        samples = [
            Sample(f"{number:06d}", Clip(video), Clip(references[number]) if references else None)
            for number, video in enumerate(predictions)
        ]
        result = score(
            samples,
            [self.metric],
            regions,
            protocol=name,
            boxes=boxes,
            device=device,
            models=self._models(name, regions, boxes, device),
        )
        found = result.scores[0]
        problems = [
            f"video {int(row.sample_id)}: {row.status}: {row.error}: {row.message}"
            for row in result.rows()
            if row.status != "ok"
        ]
        if found.n == 0:
            raise SampleError(f"{self.metric} could be computed for none of {len(samples)} videos; {problems[0]}")
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
            "networks": found.networks,
            "higher_is_better": found.higher_is_better,
            "problems": problems,
        }
        if return_samples:
            answer["samples"] = [
                {"video": int(r.sample_id), "value": r.value, "status": r.status, "curve": list(r.curve)}
                for r in result.rows()
            ]
        return answer

    def _models(self, name: str, regions: Any, boxes: str | None, device: str) -> Models:
        """The networks of this module's last call, if they are the same; missing weights are fetched."""
        plan = make_plan(name, [self.metric], regions, boxes)
        key = (tuple(plan.weights), plan.boxes, device)
        if getattr(self, "_loaded", (None, None))[0] != key:
            models = Models(fetch(plan.weights), device, plan.boxes.partition("/")[0], plan.needs_keypoints)
            self._loaded = (key, models)
        loaded: Models = self._loaded[1]
        return loaded


def _regions(name: str, metric: str, region: str | None) -> Any:
    """The region (the metric's first by default) as a list, refused in one sentence where the metric has none such."""
    table = protocol(name)
    if metric not in table.metrics:
        raise SetupError(f"{table.name} has no {metric}; it has {', '.join(table.metrics)}.")
    regions = table.metrics[metric].regions
    if region is None:
        return list(regions[:1])
    if region not in regions:
        raise SetupError(f"{metric} of {table.name} is defined on {', '.join(regions)}, not on {region!r}.")
    return [region]
