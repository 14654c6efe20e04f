"""Golden numbers of prediction-powered inference by its authors' package.

    python make_ppi.py      (numpy 2.4.6, ppi-python 0.2.3; writes ppi.json beside itself)

Each case holds its own data, so that no test depends on a random generator: y of a judge and, for the first n items,
of people. `one` is lambda 1, `all` lambda (N - n) / N, which makes the estimate
mean(judge, all N) + mean(human - judge, labelled n). Intervals are the package's 95 % normal intervals.
"""

import json
from pathlib import Path

import numpy as np
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

CASES = {"good judge": (60, 300, 0.5, 0.0), "lenient judge": (40, 200, 0.5, 0.8), "noise": (120, 150, 30.0, 0.0)}


def case(n: int, total: int, noise: float, shift: float, rng: np.random.Generator) -> dict[str, object]:
    quality = 0.3 + rng.standard_normal(total)

    def verdict(extra: float, spread: float) -> np.ndarray:
        heard = quality + extra + spread * rng.standard_normal(total)
        return np.where(heard > 0.4, 1.0, np.where(heard < -0.4, 0.0, 0.5))

    judge = (verdict(shift, noise) + verdict(shift, noise)) / 2
    human = np.mean([verdict(0, 0.5) for _ in range(3)], axis=0)[:n]
    found: dict[str, object] = {"judge": judge.tolist(), "human": human.tolist()}
    for name, weight in (("one", 1.0), ("all", (total - n) / total)):
        arguments = (human, judge[:n], judge[n:])
        low, high = ppi_mean_ci(*arguments, alpha=0.05, lam=weight)
        value = ppi_mean_pointestimate(*arguments, lam=weight)
        found[name] = {"weight": weight, "value": float(np.ravel(value)[0])}
        found[name] |= {"low": float(np.ravel(low)[0]), "high": float(np.ravel(high)[0])}
    return found


if __name__ == "__main__":
    rng = np.random.default_rng(20260)
    document = {name: case(*numbers, rng) for name, numbers in CASES.items()}
    Path(__file__).with_name("ppi.json").write_text(json.dumps(document) + "\n")
