"""Run folders of version 0.1.0 can be read: report, compare, leaderboard, diagnose, export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jwb_dh_v1 import Result
from jwb_dh_v1.analysis import compare, leaderboard, read_result, to_markdown
from jwb_dh_v1.analysis.diagnosis import diagnose
from jwb_dh_v1.report import write_comparison, write_report

RUNS = Path(__file__).parents[1] / "golden" / "runs-0.1.0"
NAMES = ("copy", "blurred")


@pytest.fixture(scope="module")
def runs() -> dict[str, Result]:
    return {name: Result.load(RUNS / name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_as_it_was_written(name: str, runs: dict[str, Result]) -> None:
    content = (RUNS / name / "results.json").read_text(encoding="utf-8")
    assert runs[name].to_json() == content
    assert read_result(RUNS / name).to_json() == content
    assert "bootstrap over 4 identities" in content  # intervals of then, under their own name


def test_they_compare(runs: dict[str, Result]) -> None:
    found = compare([runs[name] for name in NAMES])
    ssim = found["blurred", "ssim", "body"]
    assert ssim.difference is not None and ssim.difference.value < 0
    assert diagnose(runs["blurred"]).findings


def test_they_stand_on_a_leaderboard_and_in_a_table(runs: dict[str, Result], tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copytree(RUNS / name, tmp_path / name)
    board = json.loads(leaderboard([tmp_path]).to_json())
    assert all(name in json.dumps(board) for name in NAMES)
    assert "blurred" in to_markdown(list(runs.values()))


def test_their_reports_are_made(runs: dict[str, Result], tmp_path: Path) -> None:
    write_report(runs["copy"], None, tmp_path / "copy.html")
    write_comparison(list(runs.values()), tmp_path / "both.html")
    assert "blurred" in (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "0.975" in (tmp_path / "copy.html").read_text(encoding="utf-8")  # subject consistency of the body, 0.97472
