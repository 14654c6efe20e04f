"""What the demo shows of a result: the report's radar, and files that a spreadsheet does not run."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from jwb_dh_v1 import Result
from jwb_dh_v1.report.charts import radar_svgs

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "spaces" / "demo"))
import views  # noqa: E402

SYSTEM = ROOT / "tests" / "golden" / "systems" / "blurred"


def test_the_demo_draws_the_reports_radar() -> None:
    """One drawing of one system, with every score at its own place: SSIM 0.9 is drawn at 0.9 on both pages."""
    document = json.loads((SYSTEM / "results.json").read_text(encoding="utf-8"))
    (report,) = radar_svgs([Result.load(SYSTEM)])
    assert report in views.radars(document)
    assert "PSNR" in views.radars(document).rpartition("Without such a scale")[2]  # decibels have none


def test_without_three_scores_there_is_no_radar() -> None:
    document = json.loads((SYSTEM / "results.json").read_text(encoding="utf-8"))
    document["scores"] = [s for s in document["scores"] if s["metric"] in ("ssim", "csim", "fid")]
    assert views.radars(document) == '<p class="faint">A radar needs three scores between 0 and 1.</p>'


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_name_that_a_spreadsheet_would_run_is_text(first: str, tmp_path: Path) -> None:
    name = f'{first}HYPERLINK("http://127.0.0.1")'
    row = {"sample_id": name, "metric": "ssim", "value": 0.5, "curve": [], "facts": ""}
    _, path = views.downloads({"samples": [row], "scores": []}, tmp_path)
    with Path(path).open(encoding="utf-8", newline="") as file:
        (found,) = csv.DictReader(file)
    assert found["sample_id"] == "'" + name and found["value"] == "0.5"
