"""Results of others: files that are none, scores against their rows, names, own weights, duplicates."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_runs import (
    BASE,
    HOSTILE,
    changed,
    other_weights,
    result_of,
    written,
)

from jwb_dh_v1 import Result
from jwb_dh_v1.analysis.find_results import read_result
from jwb_dh_v1.analysis.leaderboard import leaderboard, to_html
from jwb_dh_v1.analysis.submission import SubmissionProblem, check_submission, same_name, unsafe_name
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.scoring.result import Row, parquet_bytes, rows_table

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
    "'name' is not text": lambda d: d.update(name=5),
    "different protocols": lambda d: d["plan"].update(protocol="paper/1"),
    "'plan.weights' does not name texts": lambda d: d["plan"].update(weights=["x"]),
    "'plan.data' is not text": lambda d: d["plan"].update(data={"a": 1}),
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
    with pytest.raises(SetupError, match="not a results file"):
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


def severe(problems: Sequence[SubmissionProblem]) -> set[str]:
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
    from jwb_dh_v1.dataset.pairs import _fingerprint

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
