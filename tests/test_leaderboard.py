"""The leaderboard and its submissions: what may share a table, ranks against oracles, hostile files, and the page."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from jwb_dh_v1 import Result
from jwb_dh_v1.errors import DataNotFound, PlanMismatch, SetupError
from jwb_dh_v1.plan import Plan, make_plan
from jwb_dh_v1.results import Row, Score, parquet_bytes, rows_table
from jwb_dh_v1.results.ablate import ablate
from jwb_dh_v1.results.compare import compare
from jwb_dh_v1.results.export import to_csv, to_latex, to_markdown
from jwb_dh_v1.results.leaderboard import Leaderboard, leaderboard, published_tables, to_html, write_leaderboard
from jwb_dh_v1.results.reading import apart, read_result, require_one_table
from jwb_dh_v1.results.reconcile import published
from jwb_dh_v1.results.standings import Column, ranks, standings, summary, tau
from jwb_dh_v1.results.submission import Problem, check_submission, same_name, unsafe_name
from jwb_dh_v1.state import Mean, Rate
from jwb_dh_v1.totals import Totals

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
    collected = Totals(plan)
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
    return replace(result, plan={**result.plan, **plan})


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


# --------------------------------------------------------------------------------------- what may share a column


def together(board: Leaderboard) -> set[frozenset[str]]:
    """The pairs of systems that stand in one table."""
    return {frozenset(pair) for group in board.groups for pair in itertools.combinations(group.names, 2)}


def test_equal_settings_share_a_table(tmp_path: Path) -> None:
    for i, name in enumerate(("base", "other")):
        written(tmp_path / "deep" / "er" / name, result_of(name, i))
    board = leaderboard([tmp_path])
    assert together(board) == {frozenset(("base", "other"))} and not board.refused
    assert [table.region for table in board.groups[0].tables] == ["body", "face", "speech"]
    assert require_one_table([result_of("a"), result_of("b", 1)]) == []
    assert "other" in to_csv([BASE, result_of("other", 1)])


@pytest.mark.parametrize("key", DIFFERENT)
@pytest.mark.parametrize(
    "put",
    [require_one_table, to_csv, to_latex, to_markdown, compare, ablate],
    ids=lambda f: f.__name__,
)
def test_no_function_puts_different_runs_into_one_column(key: str, put: Callable[[Any], Any]) -> None:
    for runs in ([BASE, DIFFERENT[key]], [DIFFERENT[key], BASE], [BASE, result_of("third", 2), DIFFERENT[key]]):
        with pytest.raises(PlanMismatch, match=re.escape(key)):
            put(runs)


@pytest.mark.parametrize("key", DIFFERENT)
def test_the_leaderboard_keeps_different_runs_apart_and_says_why(key: str, tmp_path: Path) -> None:
    for run in (BASE, DIFFERENT[key], result_of("third", 2)):
        written(tmp_path / run.name, run)
    board = leaderboard([tmp_path])
    assert together(board) == {frozenset(("base", "third"))}
    assert len(board.groups) == 2
    titles = [group.title for group in board.groups]
    assert len(set(titles)) == 2
    if key != "protocol":  # which begins every title
        assert all(key in dict(group.apart) for group in board.groups)
    page = to_html(board)
    for body in re.findall(r"<tbody>.*?</tbody>", page, re.DOTALL):
        assert not ("base" in body and "other" in body)
    document = json.loads(board.to_json())
    assert [[s["name"] for s in g["systems"]] for g in document["groups"]] == [list(g.names) for g in board.groups]


def test_a_run_that_hides_its_weights_shares_nothing() -> None:
    """With fewer cells than the other, an absent hash would pass for one that was not needed."""
    few = result_of("few", 1, metrics=("subject_consistency",), regions=("body",))
    assert few.plan["weights"] and not apart(BASE, few)
    bare = changed(few, weights={})
    assert apart(BASE, bare) == {"weights.mobilenet-v2": (BASE.plan["weights"]["mobilenet-v2"][:12], "not recorded")}
    with pytest.raises(PlanMismatch, match="not recorded"):
        require_one_table([BASE, bare])
    assert "weights.mobilenet-v2" in apart(changed(few, weights={"mobilenet-v2": ""}), BASE)


def test_of_protocols_that_are_not_known_all_weights_must_be_equal() -> None:
    def foreign(run: Result, **plan: Any) -> Result:
        return replace(run, protocol="lite/9", plan={**run.plan, "protocol": "lite/9", **plan})

    few = result_of("few", 1, metrics=("ssim",), regions=("body",))
    assert not apart(foreign(BASE), foreign(result_of("b", 1)))
    assert "weights.mobilenet-v2" in apart(foreign(BASE), foreign(few))
    assert "protocol" in apart(BASE, foreign(BASE))


def test_contradictions_within_one_setting_are_kept_apart() -> None:
    turned = replace(BASE, scores=tuple(replace(s, higher_is_better=not s.higher_is_better) for s in BASE.scores))
    assert "higher_is_better of ssim" in apart(BASE, turned)
    assert apart(BASE, result_of("b", samples=6)) == {"number of samples": ("8", "6")}
    filled = replace(BASE, scores=tuple(replace(s, failures="worst") for s in BASE.scores))
    assert "failures of ssim" in apart(BASE, filled)


def test_comparability_is_not_transitive(tmp_path: Path) -> None:
    """A run of SSIM alone goes with two that must not meet: it stands in both tables."""
    whole = result_of("whole", 3, metrics=("ssim",), regions=("body",), boxes=None)  # type: ignore[arg-type]
    for run in (BASE, DIFFERENT["weights.mobilenet-v2"], DIFFERENT["boxes"], whole):
        written(
            tmp_path / run.name / str(run.plan["boxes"])[:4] / run.plan["weights"].get("mobilenet-v2", "x")[:4], run
        )
    board = leaderboard([tmp_path])
    assert len(board.groups) == 3
    for group in board.groups:
        assert "whole" in group.names and len(group.runs) == 2
        assert all(not apart(a, b) for a, b in itertools.combinations(group.runs, 2))


def test_every_run_is_in_a_table_with_all_pairs_comparable_whatever_comes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        chosen = [m for m in METRICS if rng.random() < 0.6] or ["ssim"]
        run = result_of(f"run-{i}", i, metrics=chosen, regions=("body",) if rng.random() < 0.5 else ("body", "face"),
                        boxes=str(rng.choice(["mediapipe", "annotations"])))  # fmt: skip
        if "mobilenet-v2" in run.plan["weights"] and rng.random() < 0.4:
            run = other_weights(run)
        written(tmp_path / run.name, run)
    board = leaderboard([tmp_path])
    assert {name for group in board.groups for name in group.names} == {f"run-{i}" for i in range(24)}
    for group in board.groups:
        assert all(not apart(a, b) for a, b in itertools.combinations(group.runs, 2))
    sets = [frozenset(map(id, group.runs)) for group in board.groups]
    assert not any(a < b for a, b in itertools.permutations(sets, 2))  # no table is a part of another
    assert leaderboard([tmp_path]).to_json() == board.to_json()


# ------------------------------------------------------------------------------------------------ ranks, aggregates


def score(value: float | None, ci95: tuple[float, float] | None = None, higher: bool = True) -> Score:
    return Score("m", "body", value, 5 if value is not None else 0, 0, 0, ci95, "", higher, (None, None), "", 1.0, "")


@pytest.mark.parametrize("higher", [True, False])
def test_rank_ranges_are_those_of_all_values_in_the_intervals(higher: bool) -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        middle = rng.integers(0, 8, 5).astype(float)
        half = rng.integers(0, 4, 5).astype(float)
        scores = [score(m, (m - h, m + h), higher) for m, h in zip(middle, half, strict=True)]
        found = standings(scores, [True] * 5)
        sign = -1 if higher else 1
        possible = np.array([
            stats.rankdata(sign * (middle + half * np.array(corner)), method="min")
            for corner in itertools.product((-1, 1), repeat=5)
        ])  # fmt: skip
        assert [s.rank for s in found if s] == stats.rankdata(sign * middle, method="min").tolist()
        assert [s.low for s in found if s] == possible.min(axis=0).tolist()
        # The worst place among equals: what is not surely worse may be before.
        worst = np.array([
            stats.rankdata(sign * (middle + half * np.array(corner)), method="max")
            for corner in itertools.product((-1, 1), repeat=5)
        ])  # fmt: skip
        assert [s.high for s in found if s] == worst.max(axis=0).tolist()


def test_ties_share_missing_have_none_and_no_interval_leaves_all_open() -> None:
    row = [
        score(2.0, (2, 2)),
        score(2.0 + 1e-13, (2, 2)),
        None,
        score(None),
        score(1.0),
        score(math.inf),
        score(9, (9, 9)),
    ]
    found = standings(row, [True] * 6 + [False])
    assert [s and s.rank for s in found] == [2, 2, None, None, 4, 1, None]
    assert found[0] is not None and (found[0].low, found[0].high, found[0].text) == (1, 4, "2 (1–4)")
    assert found[4] is not None and found[4].text == "4 (?)"


def column(metric: str, values: Sequence[float | None], higher: bool = True) -> Column:
    scores = tuple(score(v, None if v is None else (v - 0.1, v + 0.1), higher) for v in values)
    return Column(metric, "body", higher, "", 2, scores, standings(scores, [True] * len(values)))


def test_aggregates_by_hand() -> None:
    columns = [column("a", [3, 2, 1]), column("b", [1, 2, 3], higher=False), column("c", [1, 1, 4])]
    found = summary(columns, [True] * 3)
    values = {a.name: a.values for a in found.aggregates}
    assert values["mean_rank"] == pytest.approx([4.5 / 3, 6.5 / 3, 7 / 3])
    assert values["geometric_rank"] == pytest.approx([2.5 ** (1 / 3), 10 ** (1 / 3), 9 ** (1 / 3)])
    assert values["worst_rank"] == (2.5, 2.5, 3)
    z = [stats.zscore(row) for row in ([3, 2, 1], [-1, -2, -3], [1, 1, 4])]
    assert values["mean_z"] == pytest.approx(np.mean(z, axis=0))
    assert values["borda"] == pytest.approx([4.5 / 6, 2.5 / 6, 2 / 6])
    by_name = {a.name: a for a in found.aggregates}
    assert by_name["mean_rank"].ranks == (1, 2, 3) and by_name["mean_rank"].tau == 1
    assert by_name["mean_z"].ranks == (1, 2, 3) and by_name["mean_z"].tau == 1
    assert by_name["worst_rank"].ranks == (1, 1, 3) and by_name["worst_rank"].moves == (0, 1, 0)
    assert by_name["worst_rank"].tau == pytest.approx(2 / math.sqrt(6))


def test_borda_without_gaps_is_the_mean_rank_in_other_units() -> None:
    rng = np.random.default_rng(1)
    columns = [column(f"m{i}", [*rng.integers(0, 5, 6).astype(float)]) for i in range(7)]
    values = {a.name: np.array(a.values, float) for a in summary(columns, [True] * 6).aggregates}
    assert values["borda"] == pytest.approx((6 - values["mean_rank"]) / 5)


def test_missing_is_never_zero_and_one_run_with_one_metric_moves_nobody() -> None:
    full = [column("a", [3, 2, 1]), column("b", [1, 2, 3])]
    before = summary(full, [True] * 3)
    wide = [column("a", [3, 2, 1, 9]), column("b", [1, 2, 3, None])]
    after = summary(wide, [True] * 4)
    assert after.core == before.core and after.lacking[3] == (("b", "body"),)
    for old, new in zip(before.aggregates[:4], after.aggregates[:4], strict=True):
        assert new.values == (*old.values, None) and new.ranks[3] is None
    borda = after.aggregates[4]
    assert borda.ranks == (2, 2, 2, 1) and borda.moves == (0, 0, 0, None)  # a newcomer moves no one
    assert borda.values[3] == 1 and borda.values[:3] == pytest.approx((2 / 5, 2 / 5, 2 / 5))
    rare = summary([*wide, column("c", [None, None, None, 1])], [True] * 4)
    assert rare.left_out == ((("c", "body"), "1 of 4 systems have a value"),)


def test_infinite_values_have_ranks_but_no_mean_z() -> None:
    found = summary([column("a", [math.inf, 2, 1])], [True] * 3)
    by_name = {a.name: a for a in found.aggregates}
    assert by_name["mean_rank"].ranks == (1, 2, 3)
    assert by_name["mean_z"].values == (None,) * 3 and by_name["mean_z"].why == "a value is infinite"


def test_fid_counts_once() -> None:
    both = summary([column("fid", [1, 2], False), column("fid_clean", [2, 1], False)], [True, True])
    assert both.core == (("fid", "body"),) and both.aggregates[0].ranks == (1, 2)
    assert summary([column("fid_clean", [2, 1], False)], [True, True]).core == (("fid_clean", "body"),)


def test_tau_is_not_defined_for_one_or_for_equals() -> None:
    assert tau([1, None], True, [1, 2], True) is None
    assert tau([1, 1], True, [1, 2], True) is None
    assert tau([1, 2, None], True, [1, 2, 3], False) == -1
    assert ranks([None, 1, 1, 0], True) == [None, 1, 1, 3]


def test_incomplete_runs_and_missing_cells_are_shown_as_what_they_are(tmp_path: Path) -> None:
    cell = ("ssim", "body")
    written(tmp_path / "a", result_of("a", 1))
    written(tmp_path / "b", result_of("b", 2, lost={("csim", "face"): dict.fromkeys(range(8), "skipped")}))
    written(tmp_path / "c", result_of("c", 3, lost={cell: dict.fromkeys(range(7), "failed")}, allow=0, shift=0.3))
    group = leaderboard([tmp_path]).groups[0]
    assert group.names[2] == "c" and group.ranked == (True, True, False)
    assert any("c is incomplete" in note for note in group.notes)
    for table in group.tables:
        assert all(col.standings[2] is None for col in table.columns)
        assert all(a.values[2] is None for a in table.summary.aggregates)
        page = to_html(leaderboard([tmp_path]))
    face = {col.metric: col for col in group.tables[1].columns}
    place = group.names.index("b")
    missing = face["csim"].scores[place]
    assert missing is not None and missing.value is None and face["csim"].standings[place] is None
    assert "no value" in page and "n 0, 8 skipped" in page and '<span class="lost">7 failed</span>' in page
    body = {col.metric: col for col in group.tables[0].columns}
    assert "of 1 to 8 clips" in body["ssim"].note


# ------------------------------------------------------------------------------------------------ published numbers


def test_published_rows_are_a_table_of_their_own(tmp_path: Path) -> None:
    tables = published_tables()
    cells = [(t.region, system, metric, text) for t in tables for system, row in t.rows
             for metric, (text, _) in zip(t.metrics, row, strict=True)]  # fmt: skip
    assert cells == [(c.region, c.system, c.metric, c.text) for c in published()] and len(cells) == 288
    written(tmp_path / "Wan", result_of("Wan", protocol="paper", metrics=("ssim", "psnr"), boxes="annotations"))
    board = leaderboard([tmp_path])
    assert [group.names for group in board.groups] == [("Wan",)]
    page = to_html(board)
    ours, theirs = page.split('<h2 id="published">')
    assert "As published, not recomputed" in theirs and "93.45%" in theirs and "93.45%" not in ours
    tables_of_runs = re.findall(r"<tbody>.*?</tbody>", ours, re.DOTALL)
    assert tables_of_runs and not any("Hun" in table for table in tables_of_runs)
    assert "rank" not in "".join(re.findall(r"<tbody>.*?</tbody>", theirs, re.DOTALL))


def test_verdicts_are_shown_where_they_are_known() -> None:
    text = "region,system,metric,published,verdict\nbody,A,fid,1.0,reproduced\nbody,A,ssim,2%,not reproducible\n"
    (table,) = published_tables(text)
    assert table.rows == (("A", (("1.0", "reproduced"), ("2%", "not reproducible"))),)
    page = to_html(Leaderboard((), (table,), (), 0))
    assert "✓" in page and "✗ other digits (1)" in page


# ------------------------------------------------------------------------------------------------------ bad files


def test_reading_alone_gives_what_loading_gives(tmp_path: Path) -> None:
    run = result_of("a", values={("psnr", "body"): [math.inf] * 8})
    folder = written(tmp_path / "a", replace(run, scores=run.scores))
    assert read_result(folder) == Result.load(folder)
    assert read_result(folder)["psnr", "body"].value == math.inf
    (folder / "samples.parquet").unlink()
    assert read_result(folder / "results.json").to_json() == run.to_json()


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "its schema is 'x'": lambda d: d.update(schema="x"),
    "'plan' is missing": lambda d: d.pop("plan"),
    "'name' is no text": lambda d: d.update(name=5),
    "different protocols": lambda d: d["plan"].update(protocol="paper/1"),
    "'plan.weights' does not name texts": lambda d: d["plan"].update(weights=["x"]),
    "'plan.data' is no text": lambda d: d["plan"].update(data={"a": 1}),
    "'0.5' in": lambda d: d["scores"][0].update(value="0.5"),
    "True in": lambda d: d["scores"][0].update(value=True),
    "'n' of": lambda d: d["scores"][0].update(n=-1),
    "'failed' of": lambda d: d["scores"][0].update(failed=1.5),
    "which no score has": lambda d: d["scores"][0].update(rank=1),
    "several scores for": lambda d: d["scores"].append(d["scores"][0]),
    "the interval of": lambda d: d["scores"][0].update(ci95=[0.1]),
    "has an end without number": lambda d: d["scores"][0].update(ci95=[0.1, None]),
    "neither true nor false": lambda d: d["scores"][0].update(higher_is_better="yes"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_files_that_contradict_themselves_are_refused_by_name(said: str, tmp_path: Path) -> None:
    written(tmp_path / "good", result_of("good"))
    document = json.loads(result_of("bad").to_json())
    BROKEN[said](document)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text(json.dumps(document))
    with pytest.raises(SetupError, match=re.escape(said)):
        read_result(tmp_path / "bad")
    board = leaderboard([tmp_path])
    assert [group.names for group in board.groups] == [("good",)]
    assert len(board.refused) == 1 and said in board.refused[0][1] and "bad" in board.refused[0][0]
    assert [p.rule for p in check_submission(tmp_path / "bad")] == ["schema"]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": NaN}', '{"a": 1, "a": 2}', "\ud800", "9" * 5000]
)
def test_files_that_are_no_results_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SetupError, match="no results file"):
        read_result(tmp_path)
    assert len(leaderboard([tmp_path]).refused) == 1


def test_huge_files_are_not_read_and_missing_ones_are_said(tmp_path: Path) -> None:
    with (tmp_path / "results.json").open("wb") as handle:
        handle.truncate(2**34)
    with pytest.raises(SetupError, match="MB"):
        read_result(tmp_path)
    with pytest.raises(DataNotFound, match="is not there"):
        read_result(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataNotFound, match=r"no results\.json in any"):
        leaderboard([tmp_path / "empty"])
    with pytest.raises(DataNotFound, match="no folder, no file, and no Hub dataset"):
        leaderboard([tmp_path / "nothing"])


def test_the_same_file_twice_stands_there_once(tmp_path: Path) -> None:
    written(tmp_path / "a", BASE)
    written(tmp_path / "b", BASE)
    board = leaderboard([tmp_path, tmp_path / "a", tmp_path / "a" / "results.json"])
    assert [group.names for group in board.groups] == [("base",)]
    assert len(board.refused) == 1 and "holds what" in board.refused[0][1]


def test_two_systems_of_one_name_have_two_rows(tmp_path: Path) -> None:
    for i in range(2):
        written(tmp_path / str(i), result_of("same", i))
    assert len(set(leaderboard([tmp_path]).groups[0].names)) == 2


# ----------------------------------------------------------------------------------------------------- submissions


def severe(problems: Sequence[Problem]) -> set[str]:
    return {problem.rule for problem in problems if problem.severe}


def everything() -> Result:
    lost = {("ssim", "body"): {1: "skipped"}, ("csim", "face"): {0: "skipped", 1: "skipped"}}
    return result_of("mine", regions=("body", "face", "hands"), lost=lost)


def test_an_honest_submission_passes(tmp_path: Path) -> None:
    folder = written(tmp_path / "mine", everything())
    assert check_submission(folder, samples=8) == []
    assert severe(check_submission(folder, samples=9)) == {"n"}


@pytest.mark.parametrize("failures", ["zero", "worst", "strict"])
def test_scores_with_lost_clips_are_computed_again_under_each_policy(failures: str, tmp_path: Path) -> None:
    lost = {
        ("ssim", "body"): {1: "skipped", 2: "failed"},
        ("dynamic_degree", "face"): {0: "skipped"},
        ("wer", "speech"): {3: "failed"},
    }
    run = result_of("mine", lost=lost, failures=failures)
    assert severe(check_submission(written(tmp_path / "a", run), samples=8)) == set()


def _score_with(run: Result, **change: Any) -> Result:
    return replace(run, scores=(replace(run.scores[0], **change), *run.scores[1:]))


CHEATS: dict[str, tuple[str, Callable[[Result], Result]]] = {
    "a better value": ("tampered", lambda r: _score_with(r, value=(r.scores[0].value or 0) + 1e-6)),
    "a narrower interval": ("tampered", lambda r: _score_with(r, ci95=(r.scores[0].value, r.scores[0].value))),
    "an interval kept back": ("tampered", lambda r: _score_with(r, ci95=None)),
    "another coverage": ("tampered", lambda r: _score_with(r, coverage=1.0)),
    "fewer skips": ("tampered", lambda r: _score_with(r, n=6, skipped=2)),
    "out of range": ("value", lambda r: _score_with(r, value=1.5)),
    "a value of nothing": ("value", lambda r: _score_with(r, n=0, skipped=8)),
    "an interval backwards": ("value", lambda r: _score_with(r, ci95=(0.6, 0.4))),
    "fewer samples": ("n", lambda r: _score_with(r, n=5)),
    "turned around": ("protocol", lambda r: _score_with(r, higher_is_better=False)),
    "another network": ("protocol", lambda r: _score_with(r, networks="DINOv9")),
    "an unknown protocol": ("protocol", lambda r: replace(changed(r, protocol="lite/9"), protocol="lite/9")),
    "an unknown metric": ("protocol", lambda r: _score_with(r, metric="beauty")),
    "incomplete": ("complete", lambda r: replace(r, complete=False)),
    "cells": ("plan", lambda r: changed(r, cells=r.plan["cells"][1:])),
    "no precision": ("plan", lambda r: replace(r, plan={k: v for k, v in r.plan.items() if k != "precision"})),
    "other boxes": ("plan", lambda r: changed(r, boxes="none")),
    "hidden weights": ("weights", lambda r: other_weights(r)),
    "no hash": ("weights", lambda r: changed(r, weights={})),
    "no data": ("data", lambda r: changed(r, data="")),
    "names only": ("data", lambda r: changed(r, data="ids:" + "0" * 64)),
    "a branch": ("data", lambda r: changed(r, data="hub ORG/x@main:" + "0" * 64)),
    "a hostile name": ("name", lambda r: replace(r, name=HOSTILE)),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_are_found(cheat: str, tmp_path: Path) -> None:
    rule, do = CHEATS[cheat]
    honest = everything()
    folder = written(tmp_path / "mine", honest)
    (folder / "plan.json").unlink()  # or it would tell on the plan's changes as well
    (folder / "results.json").write_text(do(honest).to_json(), encoding="utf-8")
    assert rule in severe(check_submission(folder, samples=8))


def _rows(folder: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = pq.read_table(folder / "samples.parquet").to_pylist()
    change(rows)
    made = [Row(**{**row, "curve": tuple(row["curve"])}) for row in rows]
    (folder / "samples.parquet").write_bytes(parquet_bytes(rows_table(made)))


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("tampered", lambda rows: rows[0].update(value=rows[0]["value"] + 1e-6)),
        ("tampered", lambda rows: [row.update(value=None) for row in rows if row["metric"] == "ssim"]),
        ("tampered", lambda rows: rows[0].update(value=None)),
        ("tampered", lambda rows: rows[0].update(status="skipped")),
        ("tampered", lambda rows: rows[0].update(n=0)),
        ("rows", lambda rows: rows.append(rows[0])),
        ("rows", lambda rows: rows.pop(0)),
        ("rows", lambda rows: rows.append({**rows[0], "metric": "beauty"})),
        ("rows", lambda rows: rows[0].update(sha256="f" * 64)),
    ],
)
def test_rows_that_do_not_give_the_scores_are_found(rule: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    folder = written(tmp_path / "mine", everything())
    _rows(folder, change)
    assert rule in severe(check_submission(folder, samples=8))


def test_files_beside_the_results_are_looked_at(tmp_path: Path) -> None:
    folder = written(tmp_path / "mine", everything())
    (folder / "plan.json").write_text(json.dumps({**everything().plan, "boxes": "annotations"}))
    (folder / "samples.parquet").write_bytes(b"PAR1 no")
    assert severe(check_submission(folder)) == {"tampered", "rows"}
    (folder / "plan.json").write_text("[")
    (folder / "samples.parquet").unlink()
    assert severe(check_submission(folder)) == {"plan", "rows"}


def test_own_weights_are_marked_not_forbidden(tmp_path: Path) -> None:
    honest = everything()
    own = other_weights(honest)
    marked = tuple(
        replace(s, networks=f"{s.networks}; own weights: mobilenet-v2 {'e' * 12}") if "MobileNet" in s.networks else s
        for s in own.scores
    )
    problems = check_submission(written(tmp_path / "mine", replace(own, scores=marked)), samples=8)
    assert severe(problems) == set() and [p.rule for p in problems] == ["own weights"]
    group = leaderboard([tmp_path]).groups[0]
    assert group.own_weights == (True,) and "own weights" in to_html(leaderboard([tmp_path]))


def test_duplicates_and_shared_files_are_found(tmp_path: Path) -> None:
    mine, theirs = everything(), result_of("MINE ", 5)
    problems = check_submission(written(tmp_path / "mine", mine), others=[theirs, replace(mine, name="else")])
    assert [p.rule for p in problems if p.severe] == ["duplicate", "duplicate"]
    assert check_submission(tmp_path / "mine", others=[read_result(tmp_path / "mine")]) == []
    _rows(tmp_path / "mine", lambda rows: [row.update(sha256="a" * 64) for row in rows])
    (note,) = check_submission(tmp_path / "mine")
    assert not note.severe and "8 samples share" in note.message and str(note).endswith("(note)")


@pytest.mark.teaser
def test_the_split_itself_says_what_must_be_there(teaser_dir: Path, tmp_path: Path) -> None:
    from jwb_dh_v1.data.pairs import _fingerprint

    table = pq.read_table(next((teaser_dir / "evaluation").glob("*.parquet")), columns=["sample_id"])
    names = table["sample_id"].to_pylist()
    run = result_of("mine", samples=len(names), data=_fingerprint(str(teaser_dir), "evaluation", None, names))
    rows = [
        Row(**{**row, "curve": (), "sample_id": names[int(row["sample_id"][5:])]}) for row in run.samples.to_pylist()
    ]
    folder = written(tmp_path / "mine", replace(run, samples=rows_table(rows)))
    assert check_submission(folder, data=teaser_dir) == []
    other = result_of("other", samples=len(names))
    assert severe(check_submission(written(tmp_path / "other", other), data=teaser_dir)) == {"data"}
    fewer = result_of("fewer", samples=len(names) - 1, data=run.plan["data"])
    assert severe(check_submission(written(tmp_path / "fewer", fewer), data=teaser_dir)) == {"data", "n"}


@pytest.mark.parametrize("name", ["Step-Video-TI2V", "Hallo3 (with pose)", "wan 2.1", "模型", "Ré_sumé: 3"])
def test_safe_names(name: str) -> None:
    assert unsafe_name(name) == ""


@pytest.mark.parametrize(
    "name", ["", " a", "a\n", "a" * 81, "<b>", "a|b", "=1+1", "-rf", "a\u202eb", "a\u200bb", "../a", "$x$", "100%"]
)
def test_unsafe_names(name: str) -> None:
    assert unsafe_name(name)


def test_names_that_look_alike_are_the_same() -> None:
    assert same_name("Wan 2.1", "ｗａｎ-2.1") and not same_name("Wan 2.1", "Wan 2.2") and not same_name("?", "!")


# ---------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """Elements and attributes; raises where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> at {self.getpos()}"


def hostile_board(folder: Path) -> Leaderboard:
    for i, name in enumerate(("plain", HOSTILE, "=cmd|' /C calc'!A0", "long " * 60, "模型 Ünïcode")):
        run = result_of(name, i)
        plan = {**run.plan, "decoder": HOSTILE, HOSTILE: HOSTILE} if i == 1 else run.plan
        device = HOSTILE if i == 1 else "cpu"
        written(folder / f"run{i}", replace(run, name=name, plan=plan, device=device))
    bad = folder / "<b onclick=x>"
    bad.mkdir()
    (bad / "results.json").write_text('{"schema": "</code><script>alert(3)</script>"}')
    odd = tuple(replace(s, metric=HOSTILE, region=HOSTILE, unit=HOSTILE) for s in BASE.scores[:1])
    written(folder / "odd", replace(BASE, scores=odd, name="odd"))
    return leaderboard([folder])


def test_the_page_is_sound_and_nothing_of_a_file_becomes_markup(tmp_path: Path) -> None:
    board = hostile_board(tmp_path / "runs")
    assert len(board.refused) == 1
    first = write_leaderboard(board, tmp_path / "site")
    page = first[0].read_text(encoding="utf-8")
    assert first == write_leaderboard(leaderboard([tmp_path / "runs"]), tmp_path / "site")
    assert page == first[0].read_text(encoding="utf-8")  # no date, the same bytes
    found = Page(page)
    names = [tag for tag, _ in found.tags]
    assert names.count("script") == 1 and not {"img", "b onclick", "iframe", "link", "object"} & set(names)
    assert not [key for _, attrs in found.tags for key in attrs if key.startswith("on")]
    targets = [v for _, attrs in found.tags for k, v in attrs.items() if k in {"href", "src"}]
    assert targets and all(t and t.startswith("#") for t in targets)
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {t[1:] for t in targets if t} <= set(ids)
    assert "\u202e" not in page
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page
    assert json.loads(first[1].read_text(encoding="utf-8"))["schema"] == "jwb-dh-v1/leaderboard/1"
    scopes = [attrs.get("scope") for tag, attrs in found.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    for i, name in enumerate(("alpha", "beta", "gamma", "delta")):
        lost = {("csim", "face"): dict.fromkeys(range(8), "skipped")} if name == "beta" else {}
        written(folder / "runs" / name, result_of(name, i, lost=lost))
    written(folder / "runs" / "lost", result_of("lost", 9, lost={("ssim", "body"): {0: "failed"}}, allow=0))
    written(folder / "runs" / "boxes", DIFFERENT["boxes"])
    return write_leaderboard(leaderboard([folder / "runs"]), folder / "site")[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this system")
    with sync.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        yield found
        found.close()


def shown(table: Any, place: int) -> list[str]:
    """A column's values from top to bottom."""
    return [row.locator("th, td").nth(place).inner_text().split("\n")[0] for row in table.locator("tbody tr").all()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_looks(browser: Any, site: Path, width: int, scheme: str, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(site.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width  # tables scroll, the page does not
    assert page.locator("table.board thead button").count() > 10
    shots = Path(os.environ.get("JWB_ARTIFACTS") or tmp_path)
    page.screenshot(path=shots / f"leaderboard-{width}-{scheme}.png", full_page=True)
    assert not said
    context.close()


def test_sorting_by_mouse_and_keyboard_keeps_missing_values_last(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto(site.as_uri())
    face = page.locator("section").first.locator("table.board").nth(2)
    heads = face.locator("thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith("CSIM"))
    names = shown(face, 0)
    button = face.locator("thead th").nth(place).locator("button")
    button.click()
    values = shown(face, place)
    numbers = [float(v.replace("−", "-")) for v in values[:-1]]
    assert values[-1] == "–" and numbers == sorted(numbers, reverse=True)
    assert face.locator("thead th").nth(place).get_attribute("aria-sort") == "descending"
    assert face.locator("th[aria-sort]").count() == 1
    page.keyboard.press("Enter")  # the button has the focus
    values = shown(face, place)
    assert values[-1] == "–" and [float(v.replace("−", "-")) for v in values[:-1]] == sorted(numbers)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert face.locator("thead th").nth(place - 1).get_attribute("aria-sort") is not None
    face.locator("thead th").first.locator("button").click()
    assert shown(face, 0) == sorted(names)


def test_without_javascript_everything_is_there(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    assert page.locator("button").count() == 0
    body = page.locator("section").first.locator("table.board").first
    ranked = [float(v) for v in shown(body, 1)[:-1]]
    assert ranked == sorted(ranked) and shown(body, 0)[-1].startswith("lost")
    context.close()


def test_no_script_of_a_file_runs(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    ran: list[str] = []
    page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
    page.goto(write_leaderboard(hostile_board(tmp_path / "runs"), tmp_path / "site")[0].as_uri())
    for button in page.locator("thead button:visible").all()[:12]:
        button.click()
    assert not ran and page.locator("img").count() == 0


# ------------------------------------------------------------------------------------------------------------ the Hub


def test_results_on_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("olah", reason="the Hub on loopback needs olah")
    import hub_server

    source = tmp_path / "files"
    for i, name in enumerate(("a", "b")):
        written(source / "results" / name, result_of(name, i))
    (source / "README.md").write_text("results")
    hub_server.commit(tmp_path / "served" / "datasets" / "ORG" / "results", source, "v1")
    code = (
        "import sys; from pathlib import Path; from jwb_dh_v1.results.leaderboard import leaderboard, _from_hub\n"
        "board = leaderboard(['ORG/results@v1'])\n"
        "print(board.groups[0].names, sorted(p.name for p in _from_hub('ORG/results').rglob('*') if p.is_file()))\n"
        "try: leaderboard(['ORG/none'])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    with hub_server.hub(tmp_path / "olah", tmp_path / "served") as served, served.watched() as log:
        environment = served.environment(tmp_path)
        how: Any = {"capture_output": True, "text": True, "env": environment, "timeout": 120, "cwd": tmp_path}
        done = subprocess.run([sys.executable, "-c", code], **how)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    names, files = re.fullmatch(r"(\(.*?\)) (\[.*\])", lines[0]).groups()  # type: ignore[union-attr]
    assert set(names) >= set("ab") and files == "['results.json', 'results.json']"
    assert lines[1].startswith("DataNotFound ORG/none is no folder here, and cannot be had from the Hub")
    assert not any(request.path.endswith((".parquet", "README.md")) for request in log)


def test_plans_of_real_runs_are_accepted() -> None:
    """What `make_plan` gives is what the checks expect, for every protocol."""
    for protocol in ("standard", "paper", "lite"):
        plan = make_plan(protocol, data=DATA)
        assert isinstance(plan, Plan) and set(asdict(plan)) == set(BASE.plan)
