"""The sum of a run's shards, and the scores it makes: values, intervals, notes, versions."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics import Metric
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.policy import impute, imputed_value
from jwb_dh_v1.metrics.state import Mean, Rate, State, WordErrorState, add
from jwb_dh_v1.networks.weights import FILES
from jwb_dh_v1.scoring.plan import Cell, Plan
from jwb_dh_v1.scoring.result import Result, Score
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.means import mean_estimate
from jwb_dh_v1.version import __version__

PACKAGES = ("numpy", "scipy", "torch", "torchvision", "opencv-python-headless", "decord", "av", "transformers",
            "jiwer", "whisper-normalizer", "dlib-bin", "ai-edge-litert", "onnxruntime")  # fmt: skip


class Aggregator:
    """Shards added up in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tables: list[Any] = []
        self.states: dict[Cell, State] = {}
        self.seconds: dict[str, float] = {}

    def take(self, table: Any, states: Mapping[Cell, State], seconds: Mapping[str, float]) -> None:
        """Add a shard; the order of calls is the order of the rows."""
        self.tables.append(table)
        for cell, state in states.items():
            self.states[cell] = add(self.states.get(cell), state)
        for key, spent in seconds.items():
            self.seconds[key] = self.seconds.get(key, 0.0) + spent

    def result(self, name: str, device: str, allow_failures: int) -> Result:
        """The scores of all shards so far.

        Raises:
            SetupError: there was none.

        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.tables:
            raise SetupError("There are no samples to score.")
        table = pa.concat_tables(self.tables).combine_chunks()
        failed = table.filter(pc.field("status") == "failed")["sample_id"].unique()
        complete = len(failed) <= allow_failures
        scores = tuple(self._score(table, metric, region) for metric, region in self.plan.cells)
        return Result(name, self.plan.protocol, complete, scores, self.plan.facts(), versions_here(), device, table)

    def _score(self, table: Any, name: str, region: str) -> Score:
        import pyarrow.compute as pc

        metric = self.plan.table.metrics[name]
        rows = table.filter((pc.field("metric") == name) & (pc.field("region") == region))
        status = np.array(rows["status"].to_pylist(), dtype=object)
        ok, lost = (rows.filter(e) for e in (pc.field("status") == "ok", pc.field("status") != "ok"))
        state = self.states.get((name, region))
        policy = metric.failures if self.plan.failures == "protocol" else self.plan.failures
        filler = None
        # Distances of sets and rates of errors have no clip's value to fill in.
        if isinstance(state, Mean) or (isinstance(state, Rate) and metric.higher_is_better):
            worst = (min if metric.higher_is_better else max)(ok["value"].to_pylist())
            filler = imputed_value(policy, metric.higher_is_better, worst)
            state = impute(state, lost.num_rows, filler)
        value = state.value() if state is not None else math.nan
        if state is None:
            estimate = Estimate(value, None, None, 0, 0, "none: no sample")
        elif isinstance(state, Frechet):
            estimate = state.estimate()
        else:
            values, weights = (ok[c].to_numpy(zero_copy_only=False).astype(np.float64) for c in ("value", "n"))
            identities = ok["identity_id"].to_pylist()
            if filler is not None:
                values, weights = (np.append(v, np.full(lost.num_rows, f)) for v, f in ((values, filler), (weights, 1)))
                identities += lost["identity_id"].to_pylist()
            estimate = mean_estimate(values, identities, weights, metric.range)
        coverage = ok["coverage"].to_pylist()
        low, high = metric.range
        return Score(
            metric=name,
            region=region,
            value=None if math.isnan(value) else value,
            n=ok.num_rows,
            skipped=int((status == "skipped").sum()),
            failed=int((status == "failed").sum()),
            ci95=estimate.interval,
            ci_method=estimate.method,
            higher_is_better=metric.higher_is_better,
            range=(None if math.isinf(low) else low, None if math.isinf(high) else high),
            unit=metric.unit,
            coverage=math.fsum(coverage) / len(coverage) if coverage else None,
            networks=metric.networks + self._own(metric),
            failures="strict" if filler is None else policy,
            note=_note(state),
        )

    def _own(self, metric: Metric) -> str:
        """Which of a metric's weights are not the table's."""
        own = [name for name in metric.weights if self.plan.weights.get(name) != FILES[name].sha256]
        hashes = ", ".join(f"{name} {self.plan.weights[name][:12]}" for name in own)
        return f"; own weights: {hashes}" if own else ""


def _note(state: State | None) -> str:
    """What to mind about a distance between few features; what stands beside a word error rate."""
    if isinstance(state, WordErrorState):
        return _word_note(state)
    if not isinstance(state, Frechet) or state.generated.rows is None or state.reference.rows is None:
        return ""
    ours, theirs, width = state.generated.n, state.reference.n, state.generated.rows.shape[1]
    return (
        f"biased upwards by its few features ({ours} and {theirs} in {width} dimensions); compare it only with sets of "
        "the same size"
    )


def _word_note(state: WordErrorState) -> str:
    """Micro rate with its counts, the real clips' rate, and clips that were not understood at all."""
    unit = {0: "words", state.n: "characters"}.get(state.by_character, "words and characters")
    counts = f"{state.substitutions} substituted, {state.deletions} deleted, {state.insertions} inserted"
    said = [f"mean of clips; over all {state.units} {unit} {state.micro:.3f} ({counts})"]
    if state.reference_wer.n:
        said.append(f"the real clips have {state.reference_wer.value():.3f} (n {state.reference_wer.n})")
    if state.unheard:
        without = f", without them {state.produced:.3f}" if state.unheard < state.n else ""
        said.append(f"clips in which no word was heard: {state.unheard}{without}")
    if state.hallucinations:
        said.append(f"clips in which the recogniser seems to loop: {state.hallucinations}")
    return "; ".join(said)


def versions_here() -> dict[str, str]:
    """Versions of this package and of those whose change could move a number."""
    found = {"jwb-dh-v1": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # optional: the plan did not need it, or it would have stopped earlier
    return found | {"instructions": instructions()}


def instructions() -> str:
    """The processor's instructions, as far as they can move a number.

    With AVX2 and with AVX-512 the scores of lite/1 agree to 1e-9. Without AVX2, OpenCV's warps round differently (no
    fused multiplication): now and then a hand's window moves by a pixel, and its scores by 1e-3.
    """
    import cv2

    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return platform.machine().lower()
    return "AVX2" if "*AVX2" in cv2.getCPUFeaturesLine().split() else "SSE4"  # what is missing has a question mark
