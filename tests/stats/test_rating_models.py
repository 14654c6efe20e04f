"""Bradley-Terry ratings of arrays: standard errors against statsmodels, coverage by simulation.

The values and the adjusted rate are tested on judgements, in tests/judge/test_judge_models.py.
"""

import math

import numpy as np
import pytest
from scipy import special, stats

from jwb_dh_v1.stats import rating_models


def test_bradley_terry_has_the_cluster_robust_errors_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(7)
    first = rng.choice(list("ABC"), 90)
    second = np.array([rng.choice([m for m in "ABC" if m != name]) for name in first])
    y, people = rng.choice([0, 0.5, 1], 90), rng.integers(0, 15, 90)
    x = np.stack([(first == m).astype(float) - (second == m) for m in "BC"], axis=1)
    fit = sm.GLM(y, x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": people, "use_correction": False})  # fmt: skip
    got = rating_models.bradley_terry(first, second, y, people.astype(str), "A").ratings
    half = stats.t.ppf(0.975, 14) * fit.bse * math.sqrt(15 / 14) * 400 / math.log(10)
    assert [(got[m].ends[1] - got[m].ends[0]) / 2 for m in "BC"] == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("people", [4, 10])
def test_bradley_terry_covers_with_few_people(people):
    """One pair per person and match; what has no interval (a system that never won) is left aside."""
    rng = np.random.default_rng(4)
    strength = {"A": 0.0, "B": 1.0, "C": -0.5}
    matches = [("A", "B"), ("A", "C"), ("B", "C")] * people
    first, second = zip(*matches, strict=True)
    names = [f"p{i // 3}" for i in range(3 * people)]
    chance = special.expit([strength[a] - strength[b] for a, b in matches])
    found = [rating_models.bradley_terry(first, second, rng.random(len(names)) < chance, names, "A").ratings["B"]
             for _ in range(400)]  # fmt: skip
    given = [one.ends for one in found if one.interval]
    true = 1000 + 400 / math.log(10)
    assert len(given) > 200
    assert np.mean([low <= true <= high for low, high in given]) >= 0.93 - 3 * 0.013
