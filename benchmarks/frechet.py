"""The Fréchet distance against pytorch-fid's own function (scipy's sqrtm), from the same features to the same number.

    python benchmarks/frechet.py

Features are draws of two shifted, correlated Gaussians; both sides start from float64 features, so that the peer's mean
and covariance and our exact sums are counted too. Each line is one process of work in one run; ratios are of that run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from pytorch_fid.fid_score import calculate_frechet_distance

from jwb_dh_v1.state import Moments, frechet_distance

WIDTH = 2048
REPEATS = {16: 5, 10_000: 1}


def timed(work: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Shortest wall time in seconds, and the result."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        value = work()
        times.append(time.perf_counter() - begun)
    return min(times), value


def main() -> None:
    """Print seconds, ratio and difference for few and for many samples."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
    for n, repeats in REPEATS.items():
        ours_in = np.abs(random.normal(size=(n, WIDTH)) @ mix)
        theirs_in = np.abs(random.normal(size=(n, WIDTH)) @ mix + 0.05)

        def ours(a: np.ndarray = ours_in, b: np.ndarray = theirs_in) -> float:
            return frechet_distance(Moments.of(a), Moments.of(b))

        def peer(a: np.ndarray = ours_in, b: np.ndarray = theirs_in) -> float:
            sides = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b)]
            return float(calculate_frechet_distance(*sides[0], *sides[1]))

        quick, value = timed(ours, repeats)
        slow, expected = timed(peer, 1)
        print(
            f"{n} x {WIDTH}: ours {quick:.4f} s, pytorch-fid {slow:.2f} s, {slow / quick:.0f} times; "
            f"{value:.6f} and {expected:.6f}, difference {abs(value - expected):.1e}"
        )


if __name__ == "__main__":
    main()
