"""The grouped jackknife: intervals of a statistic of whole sets, such as a Fréchet distance.

Resampling with replacement lowers the rank of a covariance and so raises every distance; leaving groups out does not.
A distance of finite sets is biased upwards, and leaving groups out cannot see that: the interval covers the expected
value of the distance *between sets of this size and composition*, not the distance of the populations.

Coverage of 95 % intervals in simulation, 200 draws of one to three clips per identity, 64 dimensions, 1 and 8 frames a
clip: 0.94-0.96 at 4 identities, 0.96-0.985 at 6, 0.975-0.99 at 10, 0.96-0.98 at 30, 0.97 at 100; 0.89 at 2,
where none is given. By a subset (256 dimensions, 128 rows kept of 800): 1.00, with twice the width that is needed.
(`pytest tests/stats/test_coverage.py --run-slow -k distances -s`)

Source: F. M. T. A. Busing, E. Meijer and R. van der Leeden, Statistics and Computing 9 (1999) 3 (delete-m_j: groups of
unequal size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

GROUPS = 20


def grouped(labels: Sequence[str]) -> list[frozenset[str]]:
    """Distinct labels (identities) in at most 20 groups, each of every 20th in alphabetical order."""
    names = sorted(set(labels))
    return [frozenset(names[i::GROUPS]) for i in range(min(GROUPS, len(names)))]


def pseudo_values(value: float, left: Sequence[float] | np.ndarray, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """What each group contributes to a statistic, float64 [g]: h_j D - (h_j - 1) D(-j) with h_j = n / m_j.

    Moved by a constant so that their mean, weighted by size, is D: the bias that they could be corrected by is kept.

    Args:
        value: D, of all rows.
        left: D(-j), float [g], without group j.
        sizes: m_j, rows of group j, [g]; their sum is n.

    """
    m = np.asarray(sizes, np.float64)
    h = m.sum() / m
    found = h * value - (h - 1) * np.asarray(left, np.float64)
    return np.asarray(found - (m * found).sum() / m.sum() + value)


def standard_error(value: float, left: Sequence[float] | np.ndarray, sizes: Sequence[int] | np.ndarray) -> float:
    """Standard error by the delete-m_j jackknife: the variance is 1 / g sum (pseudo_j - D)**2 / (h_j - 1)."""
    m = np.asarray(sizes, np.float64)
    return math.sqrt(float(np.mean((pseudo_values(value, left, sizes) - value) ** 2 / (m.sum() / m - 1))))


def t_quantile(groups: int, level: float = 0.95) -> float:
    """Two-sided quantile of Student's t with groups - 1 degrees of freedom."""
    return float(stats.t.ppf((1 + level) / 2, groups - 1))
