"""Do intervals cover what they say? Simulation with a known truth, for every engine and for few and many identities.

Half of the (log) variance lies between identities, each with one to three clips. `--run-slow` draws 2,000 times (the
tables in the docstrings and in benchmarks/RESULTS.md are its output, shown with -s); the quick part draws 300 times.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from jwb_dh_v1.metrics import feature_statistics
from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, Frechet
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.means import mean_estimate
from jwb_dh_v1.stats.paired import paired

IDENTITIES = (2, 4, 6, 10, 30, 100)
QUICK, SLOW = 300, 2000
INFINITE = math.inf


def latent(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal numbers [n], half of whose variance is the identity's, and the identity of each."""
    who = np.repeat(np.arange(groups), rng.integers(1, 4, groups))
    return (rng.normal(size=groups)[who] + rng.normal(size=len(who))) / math.sqrt(2), who


def uniform(z: np.ndarray) -> np.ndarray:
    return np.asarray(stats.norm.cdf(z))


def rate(p: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda z: (uniform(z) < p).astype(float)


# What the numbers are made of, the metric's range, and their true mean.
SHAPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[float, float], float]] = {
    "normal": (lambda z: 0.7 + 0.05 * z, (-1, 1), 0.7),
    "exponential": (lambda z: -0.02 * np.log1p(-uniform(z)), (0, 1), 0.02),
    "lognormal": (lambda z: 0.01 * np.exp(1.2 * z), (0, INFINITE), 0.01 * math.exp(0.72)),
    "half zeros": (
        lambda z: np.where(z < 0, 0, 0.1 * np.exp(stats.norm.ppf(np.clip(2 * uniform(z) - 1, 1e-12, 1 - 1e-12)))),
        (0, INFINITE),
        0.05 * math.exp(0.5),
    ),
    "three values": (lambda z: np.select([uniform(z) < 0.2, uniform(z) < 0.5], [0, 0.5], 1.0), (0, 1), 0.65),
    "rate 0.5": (rate(0.5), (0, 1), 0.5),
    "rate 0.95": (rate(0.95), (0, 1), 0.95),
    "rate 0.99": (rate(0.99), (0, 1), 0.99),
}


def simulated(draw: Callable[[np.random.Generator], tuple[Estimate, float]], draws: int) -> tuple[float, float, float]:
    """Share of intervals that cover the truth among those given, share that is given, and share of width 0."""
    rng = np.random.default_rng(11)
    found = [draw(rng) for _ in range(draws)]
    given = [(e.ends, truth) for e, truth in found if e.interval]
    covers = sum(low <= truth <= high for (low, high), truth in given)
    flat = sum(low == high for (low, high), _ in given)
    return covers / max(1, len(given)), len(given) / draws, flat / max(1, len(given))


def least(given: float, draws: int, wanted: float) -> float:
    """What a coverage of `wanted` stays above in all but one of 1,000 simulations of so many intervals."""
    n = max(1, round(given * draws))
    return wanted - 3.1 * math.sqrt(wanted * (1 - wanted) / n)


def of_shape(shape: str, groups: int) -> Callable[[np.random.Generator], tuple[Estimate, float]]:
    numbers, bounds, truth = SHAPES[shape]

    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        z, who = latent(rng, groups)
        return mean_estimate(numbers(z), [str(w) for w in who], bounds=bounds), truth

    return draw


def check_mean(shape: str, groups: int, draws: int) -> None:
    covers, given, flat = simulated(of_shape(shape, groups), draws)
    print(f"\n{shape:13} {groups:4} identities: covers {covers:.3f} of {given:.3f} given")
    assert flat == 0
    few_valued = shape.startswith(("rate", "three"))
    bounded = SHAPES[shape][1][1] < INFINITE
    if not few_valued and (groups < 3 or (groups < 6 and not bounded)):
        assert given == 0
        return
    # 0.93 is the aim. Clips that differ by orders of magnitude reach it from 10 or 30 identities on, as said in
    # stats/means.py: 0.90 is what they have below.
    wanted = 0.90 if groups < 30 and shape in ("lognormal", "half zeros") else 0.93
    assert given > 0.5
    assert covers >= least(given, draws, wanted)


@pytest.mark.parametrize("groups", IDENTITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_means_and_rates(shape: str, groups: int) -> None:
    check_mean(shape, groups, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("groups", IDENTITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_means_and_rates_in_full(shape: str, groups: int) -> None:
    check_mean(shape, groups, SLOW)


def test_a_mean_of_parts_is_covered_with_unequal_weights() -> None:
    """Micro WER: clips count by their words, long clips being worse."""

    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        z, who = latent(rng, 30)
        words = rng.integers(3, 30, len(z))
        errors = rng.binomial(words, np.clip(0.1 + 0.05 * z + 0.004 * words, 0, 1))
        # E[errors] / E[words], the clipping (of 1 in 500 clips) left aside.
        truth = 0.1 + 0.004 * float(np.mean(np.arange(3, 30) ** 2)) / float(np.mean(np.arange(3, 30)))
        return mean_estimate(errors / words, [str(w) for w in who], words, (0, INFINITE)), truth

    covers, given, _ = simulated(draw, QUICK)
    assert given == 1
    assert covers >= least(given, QUICK, 0.93)


# Two systems on the same clips, by two correlated standard normal numbers: their scores, range and true difference.
PAIRS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], float, float]] = {
    "normal": (lambda z: 0.75 + 0.05 * z, lambda z: 0.7 + 0.05 * z, 1, 0.05),
    "exponential": (lambda z: -0.02 * np.log1p(-uniform(z)), np.zeros_like, 1, 0.02),
    "lognormal": (lambda z: 0.02 * np.exp(1.2 * z), lambda z: 0.01 * np.exp(1.2 * z), INFINITE, 0.01 * math.exp(0.72)),
    "rates 0.5, 0.5": (rate(0.5), rate(0.5), 1, 0.0),
    "rates 0.95, 0.9": (rate(0.95), rate(0.9), 1, 0.05),
    "rates 0.99, 0.95": (rate(0.99), rate(0.95), 1, 0.04),
}


def check_paired(shape: str, groups: int, draws: int) -> None:
    ours, theirs, most, truth = PAIRS[shape]

    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        z, who = latent(rng, groups)
        other = (rng.normal(size=groups)[who] + rng.normal(size=len(z))) / math.sqrt(2)
        second = theirs(0.7 * z + math.sqrt(0.51) * other)
        found = paired(ours(z), second, [str(w) for w in who], (0, most), draws=10)
        assert not isinstance(found, str)
        return found, truth

    covers, given, flat = simulated(draw, draws)
    print(f"\npaired {shape:17} {groups:4} identities: covers {covers:.3f} of {given:.3f} given")
    assert flat == 0
    if not shape.startswith("rate") and (groups < 3 or (groups < 6 and most == INFINITE)):
        assert given == 0
        return
    # Below 0.93, as said in stats/paired.py: word error rates up to 10 identities, rates that rarely differ beyond 50.
    low = (shape == "lognormal" and groups <= 30) or (shape in ("rates 0.99, 0.95", "rates 0.95, 0.9") and groups > 50)
    assert given == 1
    assert covers >= least(given, draws, 0.90 if low else 0.93)


@pytest.mark.parametrize("groups", IDENTITIES)
@pytest.mark.parametrize("shape", PAIRS)
def test_paired_differences(shape: str, groups: int) -> None:
    check_paired(shape, groups, 150)


@pytest.mark.slow
@pytest.mark.parametrize("groups", IDENTITIES)
@pytest.mark.parametrize("shape", PAIRS)
def test_paired_differences_in_full(shape: str, groups: int) -> None:
    check_paired(shape, groups, SLOW)


def of_features(rng: np.random.Generator, groups: int, dims: int, frames: int) -> Frechet:
    """Two sets of features, shifted; identities have one, two or three clips in turn."""
    state = None
    for i in range(groups):
        base = 0.8 * rng.normal(size=dims)
        for _ in range(1 + i % 3):
            sides = [shift + base + 0.6 * rng.normal(size=(frames, dims)) for shift in (0.3, 0.0)]
            one = Frechet(*(FeatureStatistics.of(side, f"p{i:03d}") for side in sides))
            state = one if state is None else state + one
    assert state is not None
    return state


def check_distance(groups: int, dims: int, frames: int, draws: int) -> None:
    """The interval covers the expected distance of sets of this size, here the mean over the draws.

    That mean has an error of 1 / sqrt(draws) of a standard deviation, which the intervals (of 2 to 4 of them to each
    side) do not notice.
    """
    rng = np.random.default_rng(5)
    found = [of_features(rng, groups, dims, frames).estimate() for _ in range(draws)]
    expected = float(np.mean([e.value for e in found]))
    if groups < 4:
        assert all(e.interval is None and e.method.startswith("none: ") for e in found)
        return
    covers = float(np.mean([e.ends[0] <= expected <= e.ends[1] for e in found]))
    width = float(np.mean([(e.ends[1] - e.ends[0]) / 2 for e in found]) / np.std([e.value for e in found], ddof=1))
    print(
        f"\ndistance {dims} dims, {groups} identities, {frames} frames a clip: covers {covers:.3f}, half {width:.2f} sd"
    )
    assert covers >= least(1, draws, 0.93)
    assert width < 5


@pytest.mark.teaser
@pytest.mark.parametrize(("groups", "frames"), [(2, 4), (4, 1), (4, 4), (6, 4), (10, 4), (30, 2)])
def test_distances(groups: int, frames: int) -> None:
    check_distance(groups, 16, frames, 60)  # rows are kept in the second, sums with a subset in the others


@pytest.mark.teaser
def test_distances_by_a_subset_of_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    """As FID on a whole dataset: half as many rows as dimensions are kept of many more."""
    monkeypatch.setattr(feature_statistics, "SUBSET", 32 * 64)
    state = of_features(np.random.default_rng(0), 60, 64, 2)
    assert state.generated.rows is None and "of 60 identities" in state.estimate().method
    check_distance(60, 64, 2, 40)


@pytest.mark.slow
@pytest.mark.parametrize("groups", IDENTITIES)
@pytest.mark.parametrize("frames", [1, 8])
def test_distances_in_full(groups: int, frames: int) -> None:
    check_distance(groups, 64, frames, 200)


@pytest.mark.slow
def test_distances_by_a_subset_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_statistics, "SUBSET", 128 * 256)
    check_distance(200, 256, 2, 100)
