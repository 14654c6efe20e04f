"""The win rate by people, made more precise by a judge's verdicts on items that no one rated.

Sources: A. N. Angelopoulos et al., Science 382 (2023) 669 (prediction-powered inference) and arXiv 2311.01453 (the
judge's weight); T. Tango, Stat. Med. 17 (1998) 891 (the least variance, see `intervals`). Golden numbers of the
authors' own package are in tests/golden/judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.stats.estimate import LEVEL, Estimate
from jwb_dh_v1.stats.rates import rate_estimate


@dataclass(frozen=True)
class Calibrated:
    """A win rate by people, made more precise by the judge's verdicts on items that no one rated.

    Attributes:
        rate: prediction-powered.
        human: by people alone, on the items they rated; take it where its interval is narrower (the judge is noise).
        judge: by the judge alone, on all its items, off by what the judge gets wrong on average.
        labelled, judged: items that people rated, and all.
        weight: of the judge, 0 to 1.

    """

    rate: Estimate
    human: Estimate
    judge: Estimate
    labelled: int
    judged: int
    weight: float


def calibrated(
    judge: Sequence[float],
    human: Sequence[float],
    identities: Sequence[str],
    weight: float | None = None,
    **options: float,
) -> Calibrated:
    """Prediction-powered win rate: mean(human) + w (mean(judge, unlabelled) - mean(judge, labelled)).

    With w = (N - n) / N, the default, this is mean(judge, all N) + mean(human - judge, the n labelled). Unbiased for
    any judge and any fixed w, *if the labelled items were drawn at random from all*. Interval: the variance sums the
    influence of all items of an identity, times G / (G - 1) and with t quantiles, G the identities with a label; the
    part of the labelled items is at least (1 + w)**2 / 16 / (n**2 / z**2 + 2 n), a quarter of the least in
    `rates.rate_estimate` (with G for n where they are all equal): few labels without a difference do not make a judge
    certain, but such a judge differs by half steps.

    Args:
        judge: y of every item the judge saw, [N].
        human: y by people, NaN where no one rated, [N].
        identities: [N].
        weight: of the judge; 1 is the first paper's estimate (mean over the unlabelled only).
        options: level, resamples, seed of `rates.rate_estimate`.

    Raises:
        NotApplicable: fewer than two identities with a label.

    """
    f, y = np.asarray(judge, dtype=np.float64), np.asarray(human, dtype=np.float64)
    names, place = np.unique(np.asarray(identities, dtype=str), return_inverse=True)
    labelled = np.isfinite(y)
    groups = len(np.unique(place[labelled]))
    if groups < 2:
        raise NotApplicable("People rated items of fewer than two identities; rate more.")
    n, rest = int(labelled.sum()), int((~labelled).sum())
    w = (rest / (n + rest) if weight is None else weight) if rest else 0.0
    rectified = y[labelled] - w * f[labelled]
    value = rectified.mean() + (w * f[~labelled].mean() if rest else 0.0)
    own, other = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(own, place[labelled], (rectified - rectified.mean()) / n)
    if rest:
        np.add.at(other, place[~labelled], w * (f[~labelled] - f[~labelled].mean()) / rest)
    level = options.get("level", LEVEL)
    more = groups / (groups - 1)
    shown = more * float(own @ own)
    count = n if shown > 1e-12 else groups
    least = ((1 + w) / 4) ** 2 / (count**2 / stats.norm.ppf((1 + level) / 2) ** 2 + 2 * count)
    variance = more * float((own + other) @ (own + other)) + max(0.0, least - shown)
    half = stats.t.ppf((1 + level) / 2, groups - 1) * math.sqrt(variance)
    value = float(np.clip(value, 0, 1))
    method = f"prediction-powered, weight {w:.3g}, robust over {len(names)} identities ({groups} rated), t quantile"
    known = [str(names[i]) for i in place[labelled]]
    return Calibrated(
        Estimate(value, max(0.0, value - half), min(1.0, value + half), len(f), len(names), method),
        rate_estimate(y[labelled], known, **options),  # type: ignore[arg-type]
        rate_estimate(f, identities, **options),  # type: ignore[arg-type]
        n,
        n + rest,
        w,
    )
