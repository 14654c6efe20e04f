"""Runs with made up symptoms for the tests of `diagnose`, and where the six systems' stored runs are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.analysis.diagnosis.clip_statistics import SETS
from jwb_dh_v1.analysis.diagnosis.diagnose import Diagnosis
from jwb_dh_v1.scoring.result import Result, Row, Score, rows_table

GOLDEN = Path(__file__).parent / "golden" / "systems"
SYSTEMS = ("copy", "recompressed", "blurred", "frozen", "swapped", "garbled")


def told(diagnosis: Diagnosis) -> tuple[list[str], list[str]]:
    return [f.rule for f in diagnosis.failures], [f.rule for f in diagnosis.findings if f.kind == "note"]


CLIPS = [f"c{i:02d}" for i in range(12)]
FRAMES = 40
MOVING = [5.0, 6.0, 7.0, 5.0, 6.0, 5.0, 7.0, 6.0]
STOPPING = [5.0, 6.0, 7.0, 5.0, 0.0, 0.01, 0.0, 0.0]
STANDING = [0.01, 0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 0.0]
SAID = ["it", "was", "the", "age", "of", "wisdom", "and", "it", "was"]

# What a run consists of. It has no failure: the pictures are the real ones coded again.
HEALTHY: dict[str, Any] = {
    "ssim body": 0.9, "ssim face": 0.9, "ssim hands": 0.9, "psnr body": 31.0, "psnr face": 31.0, "psnr hands": 31.0,
    "subject_consistency body": 0.97, "subject_consistency face": 0.96, "subject_consistency hands": 0.9,
    "background_consistency body": 0.97, "motion_smoothness body": 0.993, "dynamic_degree body": 1.0,
    "fid body": 40.0, "fvd body": 50.0, "fvd face": 50.0, "fvd hands": 60.0, "csim begin": 0.85, "csim end": 0.85,
    "flow body": MOVING, "flow face": MOVING, "coverage face": 1.0, "hands": "ok", "heard": SAID, "floor": 0.0,
    "error": "", "win rate": 0.4,
}  # fmt: skip


def made(changed: Mapping[str, Any] | None = None, clips: int = len(CLIPS), people: int = 6) -> Result:
    """A run of lite/1 with these values in its first clips, and the healthy ones in the others."""
    rows: list[Row] = []
    used: dict[tuple[str, str], float] = {}
    for i, sample in enumerate(CLIPS):
        v = HEALTHY | (dict(changed or {}) if i < clips else {})
        person = f"p{i % people}"
        wobble = 1e-6 * i

        def put(metric: str, region: str, value: float | None, row_person: str = person, sample: str = sample,
                **more: Any) -> None:  # fmt: skip
            used[metric, region] = value or 0.0
            facts = {"value": value, "n": 1, "coverage": 1.0, "status": "ok"} | more
            rows.append(Row(sample, row_person, metric, region, **facts))

        for key in ("ssim", "psnr", "subject_consistency", "background_consistency", "motion_smoothness"):
            for region in ("body", "face", "hands"):
                if f"{key} {region}" not in v or v[f"{key} {region}"] is None:
                    continue
                value = v[f"{key} {region}"] - (0 if key in {"ssim", "psnr"} and v["ssim body"] == 1 else wobble)
                more: dict[str, Any] = {"curve": (value,) * FRAMES} if key in {"ssim", "psnr"} else {}
                if key == "subject_consistency" and region == "face":
                    more |= {"coverage": v["coverage face"]}
                if key == "subject_consistency" and region == "hands" and v["hands"] != "ok":
                    value, more = None, {"status": "skipped", "coverage": None, "n": 0}
                put(key, region, value, **more)
        put("dynamic_degree", "body", v["dynamic_degree body"], curve=tuple(v["flow body"]))
        put("dynamic_degree", "face", v["dynamic_degree body"], curve=tuple(v["flow face"]))
        if v["csim begin"] is not None:
            likeness = np.repeat([v["csim begin"], v["csim end"]], 8) - wobble
            put("csim", "face", float(likeness.mean()), curve=tuple(likeness.tolist()))
        if v["error"]:
            rows.append(Row(sample, person, "psnr", "body", None, 0, None, "failed", v["error"], "it is so"))
        hits = sum(a == b for a, b in zip(SAID, v["heard"], strict=False))
        facts = {"words": len(SAID), "substitutions": len(SAID) - hits, "deletions": 0, "insertions": 0,
                 "hypothesis": " ".join(v["heard"]), "floor": v["floor"]}  # fmt: skip
        put("wer", "speech", (len(SAID) - hits) / len(SAID), facts=json.dumps(facts))
        put("lalm_win_rate", "speech", v["win rate"])
        for key in ("fid body", "fvd body", "fvd face", "fvd hands"):
            used[tuple(key.split())] = v[key]  # type: ignore[index]
    if changed:  # distances are of the whole run
        used |= {tuple(k.split()): x for k, x in changed.items() if k.split()[0] in SETS}  # type: ignore[misc]
    scores = tuple(_score(metric, region, value) for (metric, region), value in used.items() if value is not None)
    return Result("made", "lite/1", True, scores, {"data": "x", "boxes": "none"}, {}, "cpu", rows_table(rows))


def _score(metric: str, region: str, value: float) -> Score:
    lower = metric in {"fid", "fvd", "wer"}
    ci = (0.9 * value, 1.1 * value) if metric in SETS else None
    return Score(metric, region, value, len(CLIPS), 0, 0, ci, "", not lower, (None, None), "", 1.0, "none")
