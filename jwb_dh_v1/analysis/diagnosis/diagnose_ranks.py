"""The signatures held against the eight published systems, of which only means are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jwb_dh_v1.analysis.diagnosis.clip_statistics import Measured, metric_of, said
from jwb_dh_v1.analysis.diagnosis.diagnose import Diagnosis, Finding, evidence_of, in_order
from jwb_dh_v1.analysis.diagnosis.failure_rules import PUBLISHED, RULES, Condition
from jwb_dh_v1.analysis.reconcile import LOWER, VBENCH, published

ONE_CLIP = "a score per clip: ranks among systems are not enough"


class _Row:
    """A system of the published tables, as far as rules ask of it."""

    protocol = "paper/1"

    def __init__(self, values: Mapping[tuple[str, str], float]) -> None:
        self.values = values

    def measure(self, name: str, region: str) -> Measured | str:
        """A printed score (a share where it is printed in percent), or what is needed."""
        found = self.values.get((name, region))
        if name == "sc_gap" and ("subject_consistency", region) in self.values:
            found = self.values["subject_consistency", region] - self.values["subject_consistency", "body"]
        elif name == "zeros" and ("motion_smoothness", region) in self.values:
            found = 1 - self.values["motion_smoothness", region]
        elif name == "csim":
            found = None  # of pixels, not of faces
        return f"{said(name).lower()} on {region}" if found is None else Measured(found, None, None, 0)


def diagnose_published() -> dict[str, Diagnosis]:
    """Findings on the eight published systems, by rank among them: `low` and `high` are the outer quarters.

    Only rules that ranks can show are judged. No interval can be given, so that every finding is `possible`.
    """
    systems: dict[str, dict[tuple[str, str], float]] = {}
    for cell in published():
        scale = 100 if cell.metric in VBENCH and cell.text.endswith("%") else 1
        systems.setdefault(cell.system, {})[cell.metric, cell.region] = cell.number / scale
    rows = {name: _Row(values) for name, values in systems.items()}
    return {name: _ranked(name, row, rows) for name, row in rows.items()}


def _ranked(name: str, row: _Row, rows: Mapping[str, _Row]) -> Diagnosis:
    found: list[Finding] = []
    not_judged: dict[str, str] = {}
    for rule in (*PUBLISHED, *RULES):
        if not rule.relative and rule not in PUBLISHED:
            not_judged[rule.name] = f"needs {ONE_CLIP}"
            continue
        evidence, missing, holds = [], [], True
        for condition in rule.conditions:
            measured = row.measure(condition.measure, condition.region)
            if isinstance(measured, str):
                if not condition.optional:
                    missing.append(measured)
                continue
            bound, why = _quarter(condition, rows)
            holds = holds and condition.holds(measured.value, bound)
            evidence.append(evidence_of(condition, measured, bound, why))
        if missing:
            not_judged[rule.name] = "needs " + "; ".join(missing)
        elif holds:  # whatever else ranks say of means that are mostly zeros, the zeros are why
            because = PUBLISHED[0].name if found and found[0].rule == PUBLISHED[0].name else ""
            found.append(Finding(rule.name, rule.kind, "run", None, "possible", rule.sentence, rule.look,
                                 tuple(evidence), (), 0, (), because))  # fmt: skip
    note = "Ranks among eight systems, without intervals; clips without a score are zeros in these means."
    return Diagnosis(name, "paper/1", "the published eight systems", in_order(found), not_judged, (note,))


def _quarter(condition: Condition, rows: Mapping[str, _Row]) -> tuple[float, str]:
    if isinstance(condition.bound, int | float):
        return float(condition.bound), condition.why
    measured = [row.measure(condition.measure, condition.region) for row in rows.values()]
    values = [one.value for one in measured if isinstance(one, Measured)]
    bound = float(np.quantile(values, 0.25 if condition.bound == "low" else 0.75))
    direction = "worst" if (condition.bound == "high") == (metric_of(condition.measure) in LOWER) else "best"
    return bound, f"the {direction} quarter of the published eight systems"
