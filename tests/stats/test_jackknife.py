"""The jackknife of groups of unequal size against closed forms."""

import numpy as np
import pytest

from jwb_dh_v1.stats.jackknife import grouped, pseudo_values, standard_error


def test_of_a_mean_it_is_the_textbook_standard_error():
    values = np.random.default_rng(1).normal(size=12)
    left = [np.delete(values, i).mean() for i in range(12)]
    assert standard_error(values.mean(), left, [1] * 12) == pytest.approx(values.std(ddof=1) / 12**0.5, rel=1e-12)
    assert pseudo_values(values.mean(), left, [1] * 12) == pytest.approx(values, rel=1e-10)


def test_groups_of_unequal_size_contribute_their_own_means():
    """For a mean of rows the pseudo-value of a group is its mean, whatever its size (Busing et al., formula 8)."""
    rng = np.random.default_rng(2)
    groups = [rng.normal(size=m) for m in (2, 12, 4, 8, 3)]
    rows = np.concatenate(groups)
    left = [np.concatenate([g for g in groups if g is not one]).mean() for one in groups]
    sizes = [len(g) for g in groups]
    assert pseudo_values(rows.mean(), left, sizes) == pytest.approx([g.mean() for g in groups], rel=1e-10)
    n, m = sum(sizes), np.array(sizes)
    spread = np.mean([(g.mean() - rows.mean()) ** 2 * k / (n - k) for g, k in zip(groups, m, strict=True)])
    assert standard_error(rows.mean(), left, sizes) == pytest.approx(spread**0.5, rel=1e-10)


def test_groups_are_even_and_do_not_depend_on_the_order():
    names = [f"p{i:02d}" for i in range(45)]
    groups = grouped(names[::-1] + names)
    assert len(groups) == 20 and sorted(len(g) for g in groups) == [2] * 15 + [3] * 5
    assert frozenset.union(*groups) == set(names)
