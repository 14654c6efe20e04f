"""Each rule of `diagnose` with its evidence taken away, properties of all rules, moments."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_diagnoses import CLIPS, GOLDEN, HEALTHY, MOVING, SAID, STANDING, STOPPING, SYSTEMS, made, told

from jwb_dh_v1.analysis.diagnosis.clip_statistics import STILL, change_point, first_still, metric_of, moment
from jwb_dh_v1.analysis.diagnosis.diagnose import diagnose
from jwb_dh_v1.analysis.diagnosis.failure_rules import RULES
from jwb_dh_v1.errors import PlanMismatch
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.scoring.result import Result, Row, rows_table
from jwb_dh_v1.stats.estimate import Estimate


@pytest.fixture(scope="module")
def golden() -> dict[str, Result]:
    return {system: Result.load(GOLDEN / system) for system in SYSTEMS}


# Each rule with its evidence taken away -------------------------------------------------------------------------------


GARBLE = ["x"] * len(SAID)
HALF = [*SAID[:4], *GARBLE[4:]]
# rule -> what shows it, and for each piece of that evidence a value with which the finding must go
CASES: dict[str, dict[str, tuple[Any, Any]]] = {
    "copy of the reference": {"ssim body": (1.0, 0.97), "psnr body": (100.0, 40.0)},
    "coded again": {"ssim body": (0.9, 0.8), "psnr body": (31.0, 20.0), "flow body": (MOVING, STANDING)},
    "frozen": {"dynamic_degree body": (0.0, 1.0), "subject_consistency body": (0.99999, 0.97),
               "motion_smoothness body": (0.99999, 0.993), "flow body": (STANDING, MOVING)},
    "stops on the way": {"flow body": (STOPPING, MOVING)},
    "too little motion": {"dynamic_degree body": (0.0, 1.0), "motion_smoothness body": (0.9985, 0.993),
                          "subject_consistency body": (0.97, 0.9999)},
    "stiff face": {"flow face": (STANDING, MOVING), "csim begin": (0.85, -0.9)},
    "another person": {"csim begin": (0.0, 0.9), "csim end": (0.0, 0.9), "psnr body": (8.0, 31.0)},
    "person changes on the way": {"csim begin": (0.85, 0.1), "csim end": (0.0, 0.85), "flow body": (MOVING, STANDING)},
    "identity drift (whole picture)": {"subject_consistency body": (0.9, 0.97), "fvd body": (400.0, 50.0)},
    "identity drift (face)": {"subject_consistency face": (0.9, 0.96), "fvd face": (400.0, 50.0)},
    "over-fitted to the face": {"subject_consistency body": (0.92, 0.97), "subject_consistency face": (0.97, 0.93)},
    "face worse than the rest": {"psnr face": (24.0, 31.0), "psnr body": (31.0, 21.0), "flow body": (MOVING, STANDING)},
    "hands worse than the rest": {"psnr hands": (24.0, 31.0), "psnr body": (31.0, 21.0),
                                  "flow body": (MOVING, STANDING)},
    "face lost": {"coverage face": (0.4, 1.0)},
    "hands lost": {"hands": ("skipped", "ok")},
    "soft pictures": {"ssim body": (0.7, 0.9), "psnr body": (25.0, 12.0), "fid body": (170.0, 40.0),
                      "csim begin": (0.6, -0.9), "flow body": (MOVING, STANDING)},
    "out of step": {"ssim body": (0.7, 0.9), "fid body": (40.0, 170.0), "csim begin": (0.85, 0.0),
                    "flow body": (MOVING, STANDING)},
    "jerky": {"motion_smoothness body": (0.97, 0.993)},
    "unstable background": {"background_consistency body": (0.9, 0.97), "subject_consistency face": (0.96, 0.9)},
    "no speech": {"heard": ([], SAID), "floor": (0.0, 1.0)},
    "other words": {"heard": (GARBLE, SAID), "floor": (0.0, 0.9)},
    "unintelligible": {"heard": (HALF, SAID), "floor": (0.0, 0.4)},
    "pleasant but unintelligible": {"heard": (GARBLE, SAID), "win rate": (0.7, 0.3), "floor": (0.0, 0.9)},
    "wrong length or size": {"error": ("LengthMismatch", "")},
    "failed clips": {"error": ("Unreadable", "LengthMismatch")},
}  # fmt: skip


def test_a_healthy_run_has_no_failure() -> None:
    found = diagnose(made())
    assert told(found) == ([], ["coded again"])
    assert "hands)" in " ".join(found.not_judged)


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == set(CASES) | {"identity drift (hands)"}
    assert len({rule.name for rule in RULES}) == len(RULES)
    causes = {name for rule in RULES for name in rule.inside}
    assert causes <= {rule.name for rule in RULES}


@pytest.mark.parametrize("rule", CASES)
def test_a_finding_goes_when_any_of_its_evidence_goes(rule: str) -> None:
    bad = {knob: values[0] for knob, values in CASES[rule].items()}
    finding = diagnose(made(bad))[rule]
    assert finding.scope == "run"
    assert len(finding.clips) in {0, len(CLIPS)} and (finding.clips or rule == "pleasant but unintelligible")
    for knob, (_, cured) in CASES[rule].items():
        assert rule not in diagnose(made(bad | {knob: cured})), knob


@pytest.mark.parametrize("rule", [rule.name for rule in RULES if rule.clipwise and rule.name in CASES])
def test_a_few_bad_clips_are_found_by_name(rule: str) -> None:
    if rule in {"coded again", "pleasant but unintelligible"}:
        return  # the healthy clips are coded again; the win rate is the whole run's
    finding = diagnose(made({knob: values[0] for knob, values in CASES[rule].items()}, clips=3))[rule]
    assert {clip.sample_id for clip in finding.clips} == set(CLIPS[:3])
    assert finding.scope == ("run" if rule in {"failed clips", "wrong length or size"} else "clips")


def test_hands_drift_against_a_run() -> None:
    other = made()
    bad = {"subject_consistency hands": 0.7, "fvd hands": 300.0}
    assert "identity drift (hands)" in diagnose(made(bad), other)
    assert "identity drift (hands)" not in diagnose(made(bad | {"fvd hands": 60.0}), other)
    assert "identity drift (hands)" not in diagnose(made(bad | {"subject_consistency hands": 0.95}), other)
    assert "needs" in diagnose(made(bad)).not_judged["identity drift (hands)"]


def _without(result: Result, metric: str) -> Result:
    rows = [row for row in result.rows() if row.metric != metric]
    scores = tuple(score for score in result.scores if score.metric != metric)
    return replace(result, samples=rows_table(rows), scores=scores)


@pytest.mark.parametrize("rule", CASES)
def test_without_a_metric_a_rule_is_not_judged_and_names_it(rule: str) -> None:
    if rule in {"failed clips", "wrong length or size"}:
        return  # they need no metric
    run = made({knob: values[0] for knob, values in CASES[rule].items()})
    required = next(r for r in RULES if r.name == rule).conditions
    for condition in required:
        metric = metric_of(condition.measure)
        found = diagnose(_without(run, metric))
        if condition.optional:
            needed = {metric_of(c.measure) for c in required if not c.optional}
            if metric not in needed:
                assert rule in found
                assert metric in " ".join(found[rule].missing)
        else:
            assert rule not in found
            assert metric in found.not_judged[rule]


def test_the_win_rate_may_be_given() -> None:
    run = _without(made({"heard": GARBLE}), "lalm_win_rate")
    assert "lalm_win_rate" in diagnose(run).not_judged["pleasant but unintelligible"]
    found = diagnose(run, win_rate=Estimate(0.7, 0.6, 0.8, 50, 10, "Wilson"))["pleasant but unintelligible"]
    assert found.evidence[-1].strength == pytest.approx(2.0)
    assert "pleasant but unintelligible" not in diagnose(run, win_rate=Estimate(0.4, 0.3, 0.5, 50, 10, "Wilson"))


# Properties -----------------------------------------------------------------------------------------------------------


def test_a_metric_that_is_perfect_everywhere_adds_no_finding(golden: dict[str, Result]) -> None:
    """Metrics whose perfect score is no symptom: those that no rule wants to be too good."""
    for system in SYSTEMS:
        run = golden[system]
        before = {f.rule for f in diagnose(run).findings}
        for metric in ("imaging_quality", "aesthetic_quality", "lpips"):
            rows = [replace(r, metric=metric, value=1.0) for r in run.rows() if r.metric == "ssim" and r.status == "ok"]
            score = replace(run["ssim", "body"], metric=metric, value=1.0)
            more = replace(run, samples=rows_table([*run.rows(), *rows]), scores=(*run.scores, score))
            assert {f.rule for f in diagnose(more).findings} == before


DIRECTION = {name: m.higher_is_better for name, m in PROTOCOLS["lite"].metrics.items()} | {"lalm_win_rate": True}


def test_a_better_score_adds_no_finding_of_a_rule_that_wants_it_bad() -> None:
    """Random runs: better by a constant in one metric, no new finding unless too good is what the rule is about."""
    rng = np.random.default_rng(0)
    knobs = {"ssim body": 0.1, "psnr body": 8.0, "psnr face": 8.0, "subject_consistency body": 0.02,
             "subject_consistency face": 0.02, "background_consistency body": 0.02, "motion_smoothness body": 0.004,
             "fid body": -80.0, "fvd body": -200.0, "fvd face": -200.0}  # fmt: skip
    tried = added = 0
    for _ in range(10):
        start = {k: HEALTHY[k] - step * rng.uniform(-0.5, 3) for k, step in knobs.items()}
        before = {f.rule for f in diagnose(made(start)).findings}
        for knob, step in knobs.items():
            metric = knob.split()[0]
            new = {f.rule for f in diagnose(made(start | {knob: start[knob] + step})).findings} - before
            for rule in (r for r in RULES if r.name in new):
                wants = {c.side for c in rule.conditions if metric_of(c.measure) == metric}
                too_good = "above" if DIRECTION[metric] else "below"
                # A gap between two parts gets worse when the better part gets better.
                gap = any(
                    c.measure in {"psnr_gap", "sc_gap"} and metric_of(c.measure) == metric for c in rule.conditions
                )
                assert too_good in wants or gap, (rule.name, knob)
                added += 1
            tried += 1
    assert tried == 100 and added > 0  # otherwise nothing was looked at


def test_one_identity_gives_possible_findings_only() -> None:
    found = diagnose(made({"csim begin": 0.0, "csim end": 0.0, "psnr body": 8.0}, people=1))
    assert found["another person"].grade == "possible"
    assert found["another person"].strength is None
    assert any("One identity" in note for note in found.notes)


def test_nothing_scored_says_what_is_needed() -> None:
    empty = Result("empty", "standard/1", True, (), {}, {}, "cpu", rows_table([]))
    found = diagnose(empty)
    assert not found.findings
    assert set(found.not_judged) == {rule.name for rule in RULES}
    assert "could not be judged" in found.headline


def test_other_protocols_need_a_run_to_compare_with() -> None:
    run = replace(made({"motion_smoothness body": 0.9}), protocol="standard/1")
    assert "--against" in diagnose(run).not_judged["jerky"]
    assert "jerky" in diagnose(run, replace(made(), protocol="standard/1"))
    with pytest.raises(PlanMismatch, match="protocol"):
        diagnose(run, made())


def test_the_paper_protocols_csim_is_no_face() -> None:
    run = replace(made({"csim begin": 0.0, "csim end": 0.0, "psnr body": 8.0}), protocol="paper/1")
    assert "compares pixels" in diagnose(run).not_judged["another person"]


# Moments --------------------------------------------------------------------------------------------------------------


def test_moments_in_frames_and_seconds() -> None:
    found = diagnose(made({"flow body": STOPPING}), fps=25.0)["stops on the way"]
    at = found.clips[0].moment
    assert at is not None and at.frame is not None and at.seconds is not None
    assert (at.kind, at.frame) == ("from here on", 20)  # 4 of 8 pairs of 40 frames
    assert at.seconds == pytest.approx(20 / 25)
    assert at.text == "from frame 20 (0.80 s) on"
    changes = diagnose(made({"csim begin": 0.85, "csim end": 0.0}), fps={"c00": 10.0})["person changes on the way"]
    by_clip = {clip.sample_id: clip.moment for clip in changes.clips}
    assert {(m.frame, m.kind) for m in by_clip.values() if m} == {(21, "from here on")}  # point 8 of 0..15
    assert by_clip["c00"] is not None and by_clip["c00"].seconds == pytest.approx(2.1)
    assert by_clip["c01"] is not None and by_clip["c01"].seconds is None


@pytest.mark.parametrize("at", [2, 3, 10, 28])
def test_change_point_is_the_split(at: int) -> None:
    noise = np.random.default_rng(at).normal(0, 0.05, 30)
    assert change_point((np.arange(30) >= at) + noise) == at
    assert change_point((np.arange(30) < at) + noise) is None  # a fall is no worsening
    assert change_point(noise) is None


def test_moment_throughout_worst_and_unknown_length() -> None:
    def rows(values: list[float], frames: int = 0) -> dict[tuple[str, str], Row]:
        made_rows = {("csim", "face"): Row("c", "p", "csim", "face", 0.1, 1, 1.0, "ok", curve=tuple(values))}
        if frames:
            made_rows["ssim", "body"] = Row("c", "p", "ssim", "body", 0.1, 1, 1.0, "ok", curve=(0.1,) * frames)
        return made_rows

    flat = moment(rows([0.1] * 10, 91), "csim", "face", True, 0.2)
    assert flat is not None and flat.text == "throughout"
    dip = moment(rows([0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 91), "csim", "face", True)
    assert dip is not None and (dip.kind, dip.frame, dip.text) == ("worst here", 30, "worst at frame 30")
    unknown = moment(rows([0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]), "csim", "face", True)
    assert unknown is not None and unknown.frame is None and "33 %" in unknown.text
    assert moment(rows([]), "csim", "face", True) is None
    assert moment(rows([math.nan] * 5), "csim", "face", True) is None
    assert first_still({}, "body") is None


def test_frozen_clips_stand_still_throughout(golden: dict[str, Result]) -> None:
    clips = diagnose(golden["frozen"])["frozen"].clips
    assert [clip.moment.text for clip in clips if clip.moment] == ["throughout"] * 8
    assert all(clip.values["peak_motion/body"] < STILL for clip in clips)
