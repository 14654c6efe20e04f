"""A submission's scores computed again from its rows; distances of sets in `submission_sets.py`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.analysis.comparable import cells
from jwb_dh_v1.analysis.problem import Problem, listed
from jwb_dh_v1.analysis.submission_sets import check_sets
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics.policy import imputed_value
from jwb_dh_v1.scoring.result import Result, Score
from jwb_dh_v1.stats.means import mean_estimate

EQUAL = 1e-12  # relative: a clip of two hands holds the rounded mean of two numbers


def check_rows(result: Result, names: Sequence[str] | None) -> list[Problem]:
    """The rows against the scores: each is there once, and what can be computed from them is what stands there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jwb_dh_v1.scoring.result import _schema

    path = (result.folder or Path()) / "samples.parquet"
    if not path.is_file():
        return [Problem("rows", "samples.parquet is missing: no score can be computed again")]
    try:
        schema = _schema()
        table = pq.read_table(path, columns=[n for n in schema.names if n not in ("curve", "facts", "message")])
        kept = pa.schema([schema.field(name) for name in table.column_names])
        rows = table.cast(kept).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return [Problem("rows", f"samples.parquet cannot be read: {(str(error).splitlines() or [''])[0]}")]
    by_cell: dict[tuple[str, str], dict[str, dict[str, Any]]] = {cell: {} for cell in sorted(cells(result))}
    twice = 0
    for row in rows:
        cell = by_cell.setdefault((row["metric"], row["region"]), {})
        twice += row["sample_id"] in cell
        cell[row["sample_id"]] = row
    found = [Problem("rows", f"{twice} rows stand there twice")] if twice else []
    if extra := by_cell.keys() - cells(result):
        found.append(
            Problem("rows", f"there are rows of cells without a score: {listed(' on '.join(c) for c in extra)}")
        )
    ids = set(chain.from_iterable(by_cell.values()))
    if names is not None and ids != set(names):
        found.append(Problem("data", f"{len(ids ^ set(names))} samples are in the rows or the split, not in both"))
    if len({(row["sample_id"], row["identity_id"], row["sha256"]) for row in rows}) > len(ids):
        found.append(Problem("rows", "a sample has several identities or generated files"))
    files = Counter(sha for _, sha in {(row["sample_id"], row["sha256"]) for row in rows} if sha)
    if same := sum(count for count in files.values() if count > 1):
        found.append(Problem("rows", f"{same} samples share their generated file with another", severe=False))
    sets: list[Score] = []
    for score in result.scores:
        cell = by_cell[score.metric, score.region]
        if len(cell) != len(ids):
            found.append(
                Problem("rows", f"{len(ids) - len(cell)} rows of {score.metric} on {score.region} are missing")
            )
            continue
        said, computed = _recomputed(result, score, list(cell.values()))
        found += [Problem("tampered", f"{score.metric} on {score.region}: {text}") for text in said]
        if not computed and not said and score.value is not None:
            sets.append(score)
    of = {(s.metric, s.region): [r for r in by_cell[s.metric, s.region].values() if r["status"] == "ok"] for s in sets}
    return found + check_sets(result, sets, of)


def _recomputed(result: Result, score: Score, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """How a score differs from what its rows give, and whether its value could be computed."""
    counts = Counter(row["status"] for row in rows)
    if counts != +Counter(ok=score.n, skipped=score.skipped, failed=score.failed):
        return [f"the rows are {dict(counts)}, the score counts {score.n} ok"], False
    ok = [row for row in rows if row["status"] == "ok"]
    if not ok:
        return ([] if score.value is None else ["a value without a row"]), score.value is None
    if any(not row["n"] or row["n"] < 1 or row["coverage"] is None for row in ok):
        return ["a row without parts"], False
    said = []
    coverage = math.fsum(row["coverage"] for row in ok) / len(ok)
    if score.coverage is None or not math.isclose(score.coverage, coverage, rel_tol=EQUAL):
        said.append(f"coverage {score.coverage}, its rows give {coverage}")
    values = [row["value"] for row in ok]
    if all(value is None for value in values):
        from jwb_dh_v1.metrics import protocol

        metric = _try(lambda: protocol(result.protocol).metrics[score.metric])
        curved = metric is not None and metric.curve is not None  # only metrics of single clips have curves
        return ([*said, "its rows have no values"] if curved or score.region == "speech" else said), False
    if any(value is None or math.isnan(value) or value == -math.inf for value in values):
        return [*said, "some of its rows have no value"], False
    return said + _mean(score, ok, [row for row in rows if row["status"] != "ok"]), True


def _try(action: Any) -> Any:
    try:
        return action()
    except (SetupError, KeyError):
        return None


def _mean(score: Score, ok: Sequence[Mapping[str, Any]], lost: Sequence[Mapping[str, Any]]) -> list[str]:
    """The mean over parts (a rate is one of zeros and ones), with what lost clips count as, and its interval."""
    values, weights = [row["value"] for row in ok], [row["n"] for row in ok]
    identities = [row["identity_id"] for row in ok]
    worst = (min if score.higher_is_better else max)(values)
    if score.failures not in ("strict", "zero", "worst"):
        return [f"no policy is named {score.failures!r}"]
    filler = imputed_value(score.failures, score.higher_is_better, worst)  # type: ignore[arg-type]
    if filler is not None:
        values += [filler] * len(lost)
        weights += [1] * len(lost)
        identities += [row["identity_id"] for row in lost]
    if math.inf in values:
        mean = math.inf
    else:
        total = sum((Fraction(v) * w for v, w in zip(values, weights, strict=True)), Fraction())
        mean = float(total / sum(weights))
    found = []
    if score.value is None or not math.isclose(score.value, mean, rel_tol=EQUAL, abs_tol=EQUAL):
        found.append(f"value {score.value}, its rows give {mean!r}")
    interval = mean_estimate(values, identities, weights, score.range).interval
    same = (interval is None) == (score.ci95 is None) and np.allclose(interval or 0, score.ci95 or 0, 1e-9, 1e-12)
    if not same:
        found.append(f"interval {score.ci95}, its rows give {interval}")
    return found
