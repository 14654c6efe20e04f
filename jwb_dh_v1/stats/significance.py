"""Tests over identities: sign flips, the smallest p they can give, and Holm's correction; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 20_000  # of random signs
NO_DIFFERENCE = "no clip differs"


def sign_flip_test(differences: np.ndarray, identities: Sequence[str], seed: int = 0, draws: int = 100_000) -> float:
    """Two-sided p that the differences are symmetric about 0, flipping whole identities.

    Exact (all 2**G signs) up to 16 identities with a difference, else (1 + hits) / (1 + draws) of random signs.
    """
    _, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    sums = np.abs(np.bincount(place, differences).round(12))
    observed = abs(float(np.sum(differences))) - 1e-9
    sums = sums[sums > 0]
    if len(sums) <= 16:
        signs = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1) * 2 - 1
        return float(np.mean(np.abs(signs @ sums) >= observed))
    kinds, counts = np.unique(sums, return_counts=True)
    rng = np.random.default_rng(seed)
    totals = np.zeros(draws)
    for kind, count in zip(kinds, counts, strict=True):
        totals += kind * (2 * rng.binomial(count, 0.5, draws) - count)
    return float((1 + np.sum(np.abs(totals) >= observed)) / (1 + draws))


def flip(
    differences: np.ndarray, identities: Sequence[str], draws: int, seed: int = 0, noun: str = "identities"
) -> tuple[float, str]:
    """p of `sign_flip_test` in units of the largest difference, and how it was made."""
    largest = float(np.abs(differences).max(initial=0))
    if largest == 0:
        return 1.0, NO_DIFFERENCE
    p = sign_flip_test(differences / largest, identities, seed, draws)
    groups = len(set(identities))
    return p, f"sign flips of {groups} {noun}, " + ("exact" if groups <= 16 else f"{draws} draws, seed {seed}")


def smallest_p(identities: int, draws: int = DRAWS) -> float:
    """The smallest p that sign flips of so many identities can give: both signs of all differences alike."""
    if identities == 0:
        return 1.0
    return 2.0 ** (1 - identities) if identities <= 16 else 1 / (1 + draws)


def holm(p_values: Sequence[float], smallest: Sequence[float] | None = None) -> list[float]:
    """Holm's step-down adjustment: p values that hold for all the tests together.

    A test of few signs cannot go below its smallest p, so that below it there is nothing to correct for: the chance
    that any of the tests is at or below x is at most x times the number of those that can be.

    Args:
        p_values: one per test.
        smallest: the smallest p that each could have given (Tarone's correction); 0 by default.

    Sources: S. Holm, Scand. J. Statist. 6 (1979) 65; R. E. Tarone, Biometrics 46 (1990) 515.

    """
    least = [0.0] * len(p_values) if smallest is None else list(smallest)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found, worst = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        p = float(p_values[i])
        able = sum(least[j] <= p * (1 + 1e-12) for j in order[place:])
        worst = max(worst, min(1.0, p * able))
        found[i] = worst
    return found
