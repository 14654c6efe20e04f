"""Runs as `score` leaves them, with made up values: for tests of what is done with results."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1 import Result
from jwb_dh_v1.analysis.leaderboard import Leaderboard
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.state import Mean, Rate
from jwb_dh_v1.scoring.aggregator import Aggregator
from jwb_dh_v1.scoring.plan import make_plan
from jwb_dh_v1.scoring.result import Row, parquet_bytes, rows_table
from jwb_dh_v1.scoring.shard import ShardResult

Cell = tuple[str, str]
DATA = "hub ORG/jwb-dh-v1@v1.0.0:" + "ab" * 32
METRICS = ("subject_consistency", "dynamic_degree", "ssim", "psnr", "csim", "wer")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e|&\"'"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def result_of(
    name: str,
    seed: int = 0,
    *,
    protocol: str = "lite",
    metrics: Sequence[str] = METRICS,
    regions: Sequence[str] = ("body", "face"),
    boxes: str = "mediapipe",
    data: str = DATA,
    lost: Mapping[Cell, Mapping[int, str]] | None = None,
    values: Mapping[Cell, Sequence[float]] | None = None,
    samples: int = 8,
    allow: int = 100,
    failures: Any = "protocol",
    shift: float = 0.0,
) -> Result:
    """A run as `score` leaves it, with made up values; `lost` has clips that are skipped or failed."""
    rng = np.random.default_rng(seed)
    plan = make_plan(protocol, metrics, regions, boxes, data, failures)  # type: ignore[arg-type]
    rows, states = [], {}
    for cell in plan.cells:
        metric = plan.table.metrics[cell[0]]
        for i in range(samples):
            row = Row(f"clip-{i}", f"person-{i // 2}", *cell, None, 0, None, "skipped", sha256=f"{seed:032x}{i:032x}")
            value = float(np.clip(rng.uniform(0.2, 0.7) + shift, 0, 1))
            if values and cell in values:
                value = values[cell][i]
            status = (lost or {}).get(cell, {}).get(i, "ok")
            if status != "ok":
                rows.append(replace(row, status=status, error="TooShort", message="made up"))
                continue
            rate = metric.name == "dynamic_degree"
            state = Rate.of(value > 0.4) if rate else Mean.of(value)
            parts = 2 if cell[1] == "hands" and i % 2 else 1
            state = state + state if parts == 2 else state
            rows.append(replace(row, value=state.value(), n=parts, coverage=1 - i / 16, status="ok"))
            states[cell] = states[cell] + state if cell in states else state
    collected = Aggregator(plan)
    collected.take(rows_table(rows), states, {})
    return collected.result(name, "cpu", allow)


def written(folder: Path, result: Result) -> Path:
    """The files of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(result.to_json(), encoding="utf-8")
    (folder / "samples.parquet").write_bytes(parquet_bytes(result.samples))
    (folder / "plan.json").write_text(json.dumps({**result.plan, "shard_size": 64}))
    return folder


def changed(result: Result, **plan: Any) -> Result:
    return replace(result, plan={**result.plan, **plan}, protocol=str(plan.get("protocol", result.protocol)))


def other_weights(result: Result) -> Result:
    return changed(result, weights={**result.plan["weights"], "mobilenet-v2": "e" * 64})


BASE = result_of("base")
DIFFERENT: dict[str, Result] = {
    "weights.mobilenet-v2": other_weights(result_of("other", 1)),
    "data": result_of("other", 1, data=DATA.replace("v1.0.0", "v1.0.1")),
    "boxes": result_of("other", 1, boxes="annotations"),
    "protocol": result_of("other", 1, protocol="standard", metrics=("ssim", "psnr"), boxes="mediapipe"),
    "precision": changed(result_of("other", 1), precision="bf16"),
    "failures": result_of("other", 1, failures="zero"),
}


def together(board: Leaderboard) -> set[frozenset[str]]:
    """The pairs of systems that stand in one table."""
    return {frozenset(pair) for group in board.groups for pair in itertools.combinations(group.names, 2)}


def made(
    name: str,
    scores: Mapping[Cell, Sequence[float | str]],
    people: Sequence[str],
    states: Mapping[Cell, Sequence[Frechet]] | None = None,
    out: Path | None = None,
    data: str = "parquet:abc",
    metrics: Sequence[str] = ("ssim", "psnr"),
) -> Result:
    """A run as `score` leaves it; a score is a number, `skipped`, `failed`, or `absent` (failed, its row is lost)."""
    plan = make_plan("standard", [*metrics, *({m for m, _ in states or {}})], boxes="annotations", data=data)
    plan = replace(plan, cells=tuple(cell for cell in plan.cells if cell in scores or cell in (states or {})))
    rows, total = [], {}
    for cell in plan.cells:
        for i, person in enumerate(people):
            value = None if states and cell in states else scores[cell][i]
            if value == "absent":
                continue
            row = Row(f"clip-{i:04d}", person, *cell, None, 0, None, str(value))
            state = states[cell][i] if states and cell in states else None
            if state is not None or not isinstance(value, str):
                row = replace(row, value=value, n=1, coverage=1.0, status="ok")
                state = state or Mean.of(value)
                total[cell] = total[cell] + state if cell in total else state
            rows.append(row)
    collected = Aggregator(plan)
    collected.take(rows_table(rows), total, {})
    result = with_all_counted(collected.result(name, "cpu", 0), len(people))
    if out is not None:
        (out / "shards").mkdir(parents=True)
        (out / "shards" / "000000.npz").write_bytes(ShardResult(rows, total, {}).to_bytes())
        result = replace(result, folder=out)
    return result


def with_all_counted(result: Result, samples: int) -> Result:
    """The same with clips that have no row counted as failed: two runs of one data set have equally many."""
    return replace(
        result, scores=tuple(replace(s, failed=samples - s.n - s.skipped) for s in result.scores)
    )  # fmt: skip


def clustered(rng: np.random.Generator, people: int, each: int, skewed: bool) -> np.ndarray:
    """Differences of mean 0: half of their variance between identities, half within."""
    if skewed:
        return np.repeat(rng.exponential(1, people) - 1, each) + rng.exponential(1, people * each) - 1
    return np.repeat(rng.standard_normal(people), each) + rng.standard_normal(people * each)
