"""Ranks and aggregates against oracles and by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_runs import (
    result_of,
    written,
)
from scipy import stats

from jwb_dh_v1.analysis.leaderboard import leaderboard, to_html
from jwb_dh_v1.analysis.rank_aggregation import Column, ranks, standings, summary, tau
from jwb_dh_v1.scoring.result import Score


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
