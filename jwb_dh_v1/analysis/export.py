"""A run's scores in the forms that others read: the Hub's two, CSV, LaTeX and Markdown.

What cannot be compared is not exported together: tables of several runs ask `require_comparable`, and a task of a
Hub benchmark, which all the world's runs share, has the protocol in its name and takes only runs made as the protocol
says. A missing value is left out or empty, never 0.

Sources: Hub documentation "Evaluation results" (eval.yaml, .eval_results), "Model cards" (model-index).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jwb_dh_v1.analysis.comparable import expected_plan, labels, require_comparable
from jwb_dh_v1.analysis.export_text import FRAMEWORK, setting, to_latex, to_markdown
from jwb_dh_v1.analysis.wording import printable, title
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.files import spreadsheet_safe
from jwb_dh_v1.scoring.result import Result, Score
from jwb_dh_v1.version import __version__

TASK = "image-to-video"
COLUMNS = ("system", "protocol", "region", "metric", "value", "ci_low", "ci_high", "n", "skipped", "failed", "coverage",
           "higher_is_better", "unit", "failures", "complete", "data", "boxes", "precision", "weights", "version",
           "ci_method", "networks", "note")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the Hub


def task_id(metric: str, region: str, protocol: str) -> str:
    """A task's name: `fid_face_standard_1`. The protocol is part of it, so that no two share a leaderboard column."""
    return f"{metric}_{region}_{protocol}".replace("/", "_").replace("-", "_")


def eval_yaml(
    protocol_name: str = "standard",
    *,
    name: str = "JWB-DH-V1",
    description: str = "Talking, gesturing, whole-body digital humans: video and speech metrics by region.",
    config: str = "evaluation",
    split: str = "evaluation",
) -> str:
    """`eval.yaml` for the dataset's repository: a task per metric and region of a protocol.

    Raises:
        SetupError: no such protocol.

    """
    from jwb_dh_v1.metrics import protocol

    table = protocol(protocol_name)
    ids = [task_id(m.name, region, table.name) for m in table.metrics.values() for region in m.regions]
    return _yaml({
        "name": name,
        "description": f"{description} Protocol {table.name} of the package {FRAMEWORK} {__version__}.",
        "evaluation_framework": FRAMEWORK,
        "tasks": [{"id": one, "config": config, "split": split} for one in ids],
    })  # fmt: skip


def to_eval_results(
    result: Result,
    dataset_id: str,
    revision: str,
    *,
    data: str | None = None,
    date: str | None = None,
    source_url: str | None = None,
    source_name: str | None = None,
) -> str:
    """`.eval_results/*.yaml` of a model's repository: one entry per score that has a finite value.

    Args:
        result: a complete run, made as its protocol says.
        dataset_id: of the benchmark on the Hub.
        revision: the dataset's commit (40 hex digits) or tag that was scored.
        data: the fingerprint of that revision as `plan.data` has it. Needed for runs on a local copy, which do not
            know their revision; runs on the Hub's own copy must name it themselves.
        date: ISO 8601; without it the Hub takes the commit's.
        source_url, source_name: where the run's files lie.

    Raises:
        PlanMismatch: the run is not what others under this task are: another dataset or revision, own weights, boxes,
            precision or failure policy that are not the protocol's, or incomplete; the message names it.
        SetupError: its protocol is not known to this version, or a name without a URL.

    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    require_benchmark(result, dataset_id, revision, data)
    if source_name and not source_url:
        raise SetupError("The Hub shows a source's name only with its URL; give source_url as well.")
    entries = [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=task_id(score.metric, score.region, result.protocol),
            value=score.value,
            dataset_revision=revision,
            date=date,
            source_url=source_url,
            source_name=source_name,
            notes=_notes(result, score),
        )
        for score in _finite(result)
    ]
    return _yaml(eval_result_entries_to_yaml(entries))


def require_benchmark(result: Result, dataset_id: str, revision: str, data: str | None = None) -> None:
    """Refuse a run that may not stand in a column which everyone's runs share. See `to_eval_results`."""
    expected = expected_plan(result)
    plan: Mapping[str, Any] = result.plan
    found = str(plan.get("data") or "not recorded")
    wanted = f"hub {dataset_id}@{revision}:"
    if found.startswith("hub ") or data is None:
        if not found.startswith(wanted):
            raise PlanMismatch(
                f"The run's data are {found!r}, not {wanted!r}...; score with --data {dataset_id} --revision "
                f"{revision}, or give the fingerprint of that revision."
            )
    elif found != data:
        raise PlanMismatch(f"The run's data are {found!r}, the revision's are {data!r}.")
    if not re.fullmatch(r"[0-9a-f]{40}|v\d[\w.]*", revision):
        raise PlanMismatch(f"{revision!r} is no commit (40 hex digits) and no tag like v1.0.0: a branch moves.")
    default = expected.table.boxes
    boxes = {"none", f"{default}/1", default}
    for key, ours, theirs in (
        ("protocol", result.protocol, expected.protocol),
        ("boxes", plan.get("boxes") in boxes, True),
        ("failures", plan.get("failures"), "protocol"),
        ("precision", plan.get("precision"), "fp32"),
        ("complete", result.complete, True),
    ):
        if ours != theirs:
            said = plan.get(key) if key == "boxes" else ours
            raise PlanMismatch(f"{result.name}: {key} is {said!r}, which is not the benchmark's; score it again.")
    weights: Mapping[str, str] = plan.get("weights") or {}
    if other := [name for name, sha in expected.weights.items() if weights.get(name) != sha]:
        raise PlanMismatch(f"{result.name} was scored with other weights than the benchmark's: {', '.join(other)}.")


def to_model_index(
    result: Result,
    dataset_id: str,
    *,
    dataset_name: str = "JWB-DH-V1",
    config: str | None = None,
    split: str | None = "evaluation",
    revision: str | None = None,
) -> str:
    """The legacy `model-index` as the YAML of a model card's header, without its fences.

    Raises:
        PlanMismatch: the run names another Hub dataset or revision.

    """
    from huggingface_hub import EvalResult, ModelCardData

    found = str(result.plan.get("data"))
    if found.startswith("hub ") and not found.startswith(f"hub {dataset_id}@{revision or ''}"):
        raise PlanMismatch(f"The run's data are {found!r}, not {dataset_id}@{revision}.")
    results = [
        EvalResult(
            task_type=TASK,
            task_name=result.protocol,
            dataset_type=dataset_id,
            dataset_name=f"{dataset_name} ({result.protocol})",
            dataset_config=config,
            dataset_split=split,
            dataset_revision=revision,
            dataset_args={"protocol": result.protocol, **setting(result)},
            metric_type=score.metric,
            metric_name=f"{title(score.metric)}, {score.region} ({result.protocol}, n {score.n})",
            metric_value=score.value,
            metric_config=task_id(score.metric, score.region, result.protocol),
            metric_args={"region": score.region, "n": score.n, "skipped": score.skipped, "failed": score.failed,
                         "ci95": list(score.ci95) if score.ci95 else None},
        )
        for score in _finite(result)
    ]  # fmt: skip
    if not results:
        raise SetupError(f"{result.name} has no score with a finite value; there is nothing to export.")
    card = ModelCardData(model_name=printable(result.name, 120), eval_results=results)
    return str(card.to_yaml(original_order=["model-index"]))


def _finite(result: Result) -> list[Score]:
    return [score for score in result.scores if score.value is not None and math.isfinite(score.value)]


def _notes(result: Result, score: Score) -> str:
    ci95 = f"95 % interval {score.ci95[0]:.6g} to {score.ci95[1]:.6g}, " if score.ci95 else ""
    lost = f", {score.skipped} skipped, {score.failed} failed" if score.skipped or score.failed else ""
    made = ", ".join(f"{key} {value}" for key, value in setting(result).items() if key != "version")
    return f"{result.protocol}, {ci95}n {score.n}{lost}, {made}, {FRAMEWORK} {result.plan.get('version')}"


def _yaml(content: Any) -> str:
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))


# ---------------------------------------------------------------------------------------------------- CSV


def to_csv(results: Sequence[Result]) -> str:
    """Long form: a line per system, metric and region, with all digits and what they depend on.

    Infinite values are `inf`; missing ones are empty. Texts that a spreadsheet would compute begin with `'`.

    Raises:
        PlanMismatch: two of the runs cannot be put into one column.

    """
    require_comparable(results)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name, result in zip(labels(results), results, strict=True):
        weights: Mapping[str, str] = result.plan.get("weights") or {}
        shared = {"system": name, "protocol": result.protocol, "complete": result.complete, **setting(result),
                  "weights": " ".join(f"{key}={sha}" for key, sha in sorted(weights.items()))}  # fmt: skip
        for score in result.scores:
            facts = {key: value for key, value in asdict(score).items() if key in COLUMNS}
            low, high = score.ci95 or (None, None)
            writer.writerow({k: _harmless(v) for k, v in {**shared, **facts, "ci_low": low, "ci_high": high}.items()})
    return out.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return spreadsheet_safe(printable(value, 100_000))


FORMATS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "csv": to_csv,
    "latex": to_latex,
    "markdown": to_markdown,
}
