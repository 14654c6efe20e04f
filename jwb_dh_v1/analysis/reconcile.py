"""The benchmark's published tables against the per-video files that its authors published beside them.

Source: deepreasonings/WholeBodyBenchmark b70702d, README (three tables) and the folders `SCres` and `FIDres`. For each
of the 288 cells one rule says how the authors came to the number; the rule is ours to name, the arithmetic is that of
`policy.py`. Where no rule gives the published digits, both numbers are shown.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from jwb_dh_v1.errors import DataNotFound
from jwb_dh_v1.metrics.policy import Policy, aggregate

Verdict = Literal["reproduced", "last digit", "not reproducible", "no data"]

NUMBERS = {"Step": "1", "Hun": "2", "Wan": "3", "OpenS": "4-mp4", "Ha3/w": "5", "Ha3/wo": "6"}  # EchoMimicV2: no files
# our region -> their name in SCres, in FIDres
PARTS = {"body": ("raw", "wholebody"), "face": ("face", "face"), "hands": ("hand", "hand")}
VBENCH = ("subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree", "aesthetic_quality",
          "imaging_quality")  # fmt: skip
COLUMNS = {name: name for name in VBENCH} | {
    "fid": "FID", "fvd": "FVD", "ssim": "SSIM", "psnr": "PSNR", "e_fid": "E-FID", "csim": "CSIM"
}  # fmt: skip
LOWER = {"fid", "fvd", "e_fid"}
# Means of Open-Sora 2's non-zero rows over a number of clips that no file holds; it explains all six columns at once.
HIDDEN = {("OpenS", "face"): 13, ("OpenS", "hands"): 36}
TYPED = ("Ha3/wo", "face")  # a summary row of four-digit numbers that no per-video file gives


@dataclass(frozen=True)
class Published:
    """One cell of the published tables (arXiv 2507.20987).

    Attributes:
        text: as printed, a percentage for five of the VBench dimensions.
        verdict: whether the authors' own per-video files give it, as `reconcile` found on their commit b70702d.

    """

    region: str
    system: str
    metric: str
    text: str
    verdict: str

    @property
    def number(self) -> float:
        """The printed number."""
        return float(self.text.rstrip("%"))

    @property
    def unit(self) -> float:
        """One in the last printed digit."""
        return 10.0 ** -len(self.text.rstrip("%").partition(".")[2])


@dataclass(frozen=True)
class Reconciled:
    """A published cell, what the files give (in the printed scale; None without files), and how that was computed."""

    published: Published
    recomputed: float | None
    rule: str

    @property
    def verdict(self) -> Verdict:
        """Whether the files give the printed digits."""
        if self.recomputed is None:
            return "no data"
        gap = abs(self.recomputed - self.published.number)
        # Half a unit is what rounding allows; 1e-9 because binary fractions are no decimals.
        if gap <= self.published.unit / 2 + 1e-9:
            return "reproduced"
        return "last digit" if gap <= self.published.unit + 1e-9 else "not reproducible"


def published() -> Iterator[Published]:
    """The 288 cells of the three tables: 3 regions x 8 systems x 12 metrics."""
    text = (files("jwb_dh_v1.analysis") / "published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        yield Published(row["region"], row["system"], row["metric"], row["published"], row["verdict"])


def reconcile(folder: str | Path) -> list[Reconciled]:
    """Recompute every published cell.

    Args:
        folder: a checkout of the authors' repository, or any folder with their `SCres` and `FIDres`.

    Raises:
        DataNotFound: the folder lacks them.

    """
    root = Path(folder)
    if not ((root / "SCres").is_dir() and (root / "FIDres").is_dir()):
        raise DataNotFound(f"{root} has no folders SCres and FIDres; give a checkout of the authors' repository.")
    return [Reconciled(cell, *_recompute(root, cell)) for cell in published()]


def _recompute(root: Path, cell: Published) -> tuple[float | None, str]:
    key = NUMBERS.get(cell.system)
    if key is None:
        return None, "the authors' repository has no per-video file"
    if cell.metric in VBENCH:
        value, rule = _vbench(root, cell, key)
        return (value if cell.metric == "imaging_quality" else 100 * value), rule
    return _paired(root, cell, key)


def _vbench(root: Path, cell: Published, key: str) -> tuple[float, str]:
    part = PARTS[cell.region][0]
    if (cell.system, cell.region) == TYPED:
        name = "all_models_summary.csv"
        rows = [r for r in _rows(root / "SCres" / name) if r["Model"] == key and r["Type"] == part]
        return float(rows[0][cell.metric]), f"the row typed into {name}"
    name = f"{key}_{part}_filtered.csv"
    values = _column(root / "SCres" / name, cell.metric)
    scored = [v for v in values if v != 0]  # a failed clip has 0 in the file
    if (cell.system, cell.region) in HIDDEN:
        clips = HIDDEN[cell.system, cell.region]
        mean = (
            aggregate(scored, clips - len(scored), "zero", True)
            if clips >= len(scored)
            else aggregate(values, 0, "strict", True)
        )
        return mean.value(), f"zero: {name}, over {clips} clips (the file has {len(values)})"
    mean = aggregate(scored, len(values) - len(scored), "zero", True)
    return mean.value(), f"zero: {name}, {len(values)} clips, {len(values) - len(scored)} of them 0"


def _paired(root: Path, cell: Published, key: str) -> tuple[float | None, str]:
    part, column, higher = PARTS[cell.region][1], COLUMNS[cell.metric], cell.metric not in LOWER
    policy: Policy = "strict"
    if cell.system == "OpenS" and part != "wholebody":
        key = "4"  # the values before failed rows were filled in
    path = root / "FIDres" / f"{key}-{part}-score.csv"
    if not path.exists():
        return None, "the authors' repository has no per-video file"
    values, lost, worst = _column(path, column), 0, None
    if cell.system == "OpenS" and part == "wholebody":
        filled = [ssim == 0 for ssim in _column(path, "SSIM")]  # failed rows: SSIM, PSNR, CSIM 0 and the worst distance
        policy, lost, worst = "worst", sum(filled), max(values)
        values = [v for v, is_filled in zip(values, filled, strict=True) if not is_filled]
    mean = aggregate(values, lost, policy, higher, worst)
    return mean.value(), f"{policy}: {path.name}, {len(values)} clips" + (
        f" and {lost} without a score" if lost else ""
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as handle:
        return list(csv.DictReader(handle))


def _column(path: Path, name: str) -> list[float]:
    """A column's numbers, without the files' last row of averages."""
    rows = _rows(path)
    first = next(iter(rows[0]))
    return [float(row[name]) for row in rows if row[first].strip().lower() != "average" and row[name] != ""]
