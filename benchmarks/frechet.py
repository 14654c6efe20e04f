"""The Fréchet distance against pytorch-fid's own function (scipy's sqrtm), from the same features to the same number.

    python benchmarks/frechet.py

Features are draws of two shifted, correlated Gaussians. The first ratio starts from float64 features, so that the
peer's mean and covariance and our exact sums are counted too; the second is of the distance alone. Ratios are of one
run, in wall time and in processor time; the latter says more on a machine with other work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from pytorch_fid.fid_score import calculate_frechet_distance

from jwb_dh_v1.metrics.feature_statistics import FeatureStatistics, frechet_distance

T = TypeVar("T")
WIDTH = 2048
REPEATS = {16: 5, 10_000: 1}


def timed(work: Callable[[], T], repeats: int = 1) -> tuple[float, float, T]:
    """Shortest wall time and processor time in seconds, and the result."""
    walls, cores = [], []
    for _ in range(repeats):
        begun = time.perf_counter(), time.process_time()
        value = work()
        walls.append(time.perf_counter() - begun[0])
        cores.append(time.process_time() - begun[1])
    return min(walls), min(cores), value


def main() -> None:
    """Print seconds, ratios and difference for few and for many samples."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
    for n, repeats in REPEATS.items():
        a = np.abs(random.normal(size=(n, WIDTH)) @ mix)
        b = np.abs(random.normal(size=(n, WIDTH)) @ mix + 0.05)
        our_sums = timed(lambda a=a, b=b: (FeatureStatistics.of(a), FeatureStatistics.of(b)), repeats)
        ours = timed(lambda sides=our_sums[2]: frechet_distance(*sides), repeats)
        peer_sums = timed(lambda a=a, b=b: [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b)])
        peer = timed(lambda s=peer_sums[2]: float(calculate_frechet_distance(*s[0], *s[1])))
        for place, kind in enumerate(("wall", "processor")):
            whole, theirs = our_sums[place] + ours[place], peer_sums[place] + peer[place]
            print(
                f"{n} x {WIDTH}, {kind} time: ours {our_sums[place]:.4f} + {ours[place]:.4f} s, pytorch-fid "
                f"{peer_sums[place]:.2f} + {peer[place]:.2f} s; {theirs / whole:.1f} times from features, "
                f"{peer[place] / ours[place]:.1f} times from moments"
            )
        print(f"{ours[2]:.6f} and {peer[2]:.6f}, difference {abs(ours[2] - peer[2]):.1e}")


if __name__ == "__main__":
    main()
