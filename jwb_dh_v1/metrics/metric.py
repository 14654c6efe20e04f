"""A metric: its facts and one function, declared with keywords in the file that holds the function.

A metric file ends with `METRICS`, a table from protocols to what they compute; nothing else has to know the file:

    METRICS = {"standard": (SSIM,), "lite": (SSIM,)}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.metrics.feature_statistics import Frechet
from jwb_dh_v1.metrics.policy import Policy
from jwb_dh_v1.metrics.region import REGIONS, Region
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.metrics.state import Mean, State

REFERENCE = frozenset({"reference"})
TRANSCRIPT = frozenset({"transcript"})
INF = math.inf


def plain_mean(curve: np.ndarray) -> float:
    """NumPy's mean."""
    return float(curve.mean())


def exact_mean(curve: np.ndarray) -> float:
    """The mean from the correctly rounded sum, which does not depend on the order."""
    return math.fsum(curve) / len(curve)


@dataclass(frozen=True)
class Metric:
    """One way to score.

    Attributes:
        name: the field's name, snake case.
        function: the score of one sample (clip part) as a state; by default the mean of `curve`.
        higher_is_better: direction.
        range: smallest and largest possible value (inf where open).
        needs: of `reference`, `transcript`.
        weights: names in `weights.FILES`.
        networks: what looks at the frames, in words; shown next to every score.
        regions: where it applies.
        curve: one number per frame or pair, for plots.
        average: how the curve becomes the value where there is no `function`.
        facts: details of one sample, for tables.
        of_sets: whether it is a distance between the set of generated and the set of real clips; a single clip has no
            value then, and the features of the real clips can be kept (`jwb-dh data stats`).
        same_boxes: whether both clips are cut by the reference's boxes (metrics that compare pixels in place); else
            each by its own.
        unit: of the value.
        failures: what clips without a score count as, unless the run says otherwise (`metrics/policy.py`).
        page: the metric on whose page this one is described, if it has none of its own.

    Raises:
        SetupError: neither a function nor a curve, or a name that is not snake case.

    """

    name: str
    function: Callable[[Sample], State] | None = None
    _: KW_ONLY
    higher_is_better: bool
    range: tuple[float, float]
    needs: frozenset[str] = frozenset()
    weights: tuple[str, ...] = ()
    networks: str = "none"
    regions: tuple[Region, ...] = REGIONS
    curve: Callable[[Sample], np.ndarray] | None = None
    average: Callable[[np.ndarray], float] = plain_mean
    facts: Callable[[Sample], dict[str, Any]] | None = None
    of_sets: bool = False
    same_boxes: bool = False
    unit: str = ""
    failures: Policy = "strict"
    page: str = ""

    def __post_init__(self) -> None:
        if self.function is None and self.curve is None:
            raise SetupError(f"The metric {self.name!r} has neither a function nor a curve.")
        if not (self.name.isidentifier() and self.name == self.name.lower()):  # names of columns, files and tasks
            raise SetupError(f"{self.name!r} is not a name for a metric: use lower case, digits and underscores.")

    def score(self, sample: Sample) -> State:
        """The score of one sample (clip part); errors are those of the function or the curve."""
        if self.function is not None:
            return self.function(sample)
        assert self.curve is not None
        return Mean.of(self.average(self.curve(sample)))

    @property
    def description(self) -> str:
        """What the function, or else the curve, says of itself."""
        return (self.function or self.curve).__doc__ or ""

    def declaration(self) -> dict[str, Any]:
        """The facts that JSON can hold, functions by their names: what tells two tables of one name apart."""
        functions = {
            key: f"{made.__module__}:{made.__qualname__}"
            for key in ("function", "curve", "facts", "average")
            if (made := getattr(self, key)) is not None
        }
        return {
            "name": self.name,
            "higher_is_better": self.higher_is_better,
            "range": [str(bound) for bound in self.range],
            "needs": sorted(self.needs),
            "weights": list(self.weights),
            "networks": self.networks,
            "regions": list(self.regions),
            "of_sets": self.of_sets,
            "same_boxes": self.same_boxes,
            "unit": self.unit,
            "failures": self.failures,
            **functions,
        }


Declared = Mapping[str, tuple[Metric, ...]]  # a metric file's METRICS: what it adds to which protocol


def set_metric(name: str, function: Callable[[Sample], Frechet], **facts: Any) -> Metric:
    """A Fréchet distance between the generated and the real set: lower is better, from 0 up, with references."""
    return Metric(name, function, higher_is_better=False, range=(0, INF), needs=REFERENCE, of_sets=True, **facts)
