"""Intervals of a run's scores: the bootstrap over identities by its definition, whatever the memory it may take."""

import numpy as np
import pytest

from jwb_dh_v1.stats import intervals
from jwb_dh_v1.stats.intervals import BOOTSTRAPS, bootstrap_interval


@pytest.mark.parametrize("drawn", [1, 50, 777, 10**9])
def test_pieces_of_the_draw_change_no_bit(monkeypatch, drawn):
    rng = np.random.default_rng(1)
    identities = [f"p{i}" for i in rng.integers(0, 37, 101)]
    values, weights = rng.random(101), rng.integers(1, 3, 101).astype(float)
    names, place = np.unique(identities, return_inverse=True)
    people = np.random.default_rng(0).integers(0, len(names), (BOOTSTRAPS, len(names)))  # all at once
    tops, bottoms = (np.bincount(place, column)[people].sum(axis=1) for column in (values * weights, weights))
    monkeypatch.setattr(intervals, "DRAWN", drawn)
    interval, method = bootstrap_interval(values, weights, identities)
    assert interval == tuple(np.quantile(tops / bottoms, [0.025, 0.975]))
    assert method == f"bootstrap over {len(names)} identities, {BOOTSTRAPS} resamples, seed 0"


def test_the_interval_of_a_mean_is_about_the_normal_one():
    values = np.random.default_rng(2).normal(5, 2, 400)
    (low, high), _ = bootstrap_interval(values, np.ones(400), [str(i) for i in range(400)])
    error = values.std() / 20
    # 1,000 resamples know a quantile of 2.5 % to about 0.1 standard errors; four times that.
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.4 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.4 * error)


def test_where_there_is_none():
    assert bootstrap_interval(np.ones(2), np.ones(2), ["a", "a"]) == (None, "none: fewer than two identities")
    assert bootstrap_interval(np.array([1, np.inf]), np.ones(2), ["a", "b"])[1] == "none: infinite values"
