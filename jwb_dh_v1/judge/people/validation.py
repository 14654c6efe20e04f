"""Is the judge right? Its verdicts against people's ratings of the same pairs.

What is compared is the *pair*: one sample of one system against one baseline. The judge's verdict of a pair is the sign
of its mean over orders and repeats (a verdict that does not survive the swap is a tie); people's is the plurality of
their choices, a tie where two or three choices share the most votes. Win rates use the means themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.judge.people.ratings import LEAST_PASSED, Rating, panel_of
from jwb_dh_v1.judge.statistics import Judgement, pairs_of
from jwb_dh_v1.stats.agreement import (
    CODES,
    Agreement,
    SystemLevel,
    agreement,
    alpha,
    coincidences,
    corrected,
    kendall_w,
    plurality,
    system_level,
)
from jwb_dh_v1.stats.calibration import Calibrated, calibrated
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.rates import rate_estimate

Key = tuple[str, str, str]  # sample, system, baseline


@dataclass(frozen=True)
class RatingCounts:
    """What the numbers stand on.

    Attributes:
        ratings, checks: rows of the file, and attention checks among them.
        inattentive: verdicts left out as their row or their rater failed the checks.
        excluded_raters: who was left out whole, with the share of checks passed.
        raters, rated: people that count, and pairs they rated.
        judged, judge_failed: pairs with a verdict of the judge; judgements without an answer.
        shared: pairs with both.

    """

    ratings: int
    checks: int
    inattentive: int
    excluded_raters: Mapping[str, float]
    raters: int
    rated: int
    judged: int
    judge_failed: int
    shared: int


@dataclass(frozen=True)
class Ceiling:
    """Leave one rater out: each rater, and the judge, against the plurality of the others (pairs with two or more).

    Attributes:
        human: rater against the rest, over pairs x raters; no judge can be expected to do better by much.
        judge: the judge against the same rests. Compare with this one: a rest of two ties more often than all three.
        lead: raw agreement of the judge minus that of the raters; below 0 the judge is a worse rater than people are.

    """

    human: Agreement
    judge: Agreement
    lead: Estimate


@dataclass(frozen=True)
class Validation:
    """How a judge and people agree.

    Attributes:
        counts: what the numbers stand on.
        majority: people's plurality (rows of the table) against the judge (columns).
        raters: each rater against the judge.
        ceiling: None where no pair was rated twice.
        alpha: Krippendorff's ordinal alpha of the raters, None where it is not defined; alpha_by_category likewise.
        concordance: Kendall's W of the raters' win rates over the matches that all of them rated; None with fewer than
            two raters or matches.
        systems: win rates by people and judge; None with fewer than three systems.
        calibrated: prediction-powered win rate by "system vs baseline", where people rated two identities or more.

    """

    counts: RatingCounts
    majority: Agreement
    raters: Mapping[str, Agreement]
    ceiling: Ceiling | None
    alpha: Estimate | None
    alpha_by_category: Mapping[str, Estimate | None]
    concordance: float | None
    systems: SystemLevel | None
    calibrated: Mapping[str, Calibrated]

    def to_json(self) -> str:
        """All of it; the same input gives the same text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def rows(self) -> list[tuple[str, str, str]]:
        """(subject, measure, value in words) for a table."""
        rows = [("counts", name.replace("_", " "), str(n)) for name, n in asdict(self.counts).items() if n != {}]
        rows += _agreement_rows("judge, majority", self.majority)
        if self.ceiling:
            rows += _agreement_rows("rater, the rest", self.ceiling.human)
            rows += _agreement_rows("judge, the rest", self.ceiling.judge)
            rows.append(("judge, the rest", "lead over raters", _said(self.ceiling.lead)))
        rows += [(f"judge, rater {name}", "agreement", _said(one.raw)) for name, one in self.raters.items()]
        rows.append(("raters", "Krippendorff alpha", _said(self.alpha)))
        rows += [("raters", f"alpha, {name}", _said(one)) for name, one in self.alpha_by_category.items()]
        if self.concordance is not None:
            rows.append(("raters", "Kendall W, systems", f"{self.concordance:.3f}"))
        if self.systems:
            for name, one in self.systems.correlations.items():
                value = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}], p = {one.p_value:.3g}"
                rows.append((f"{len(self.systems.human)} systems", name, value))
            if self.systems.note:
                rows.append((f"{len(self.systems.human)} systems", "note", self.systems.note))
        for name, found in self.calibrated.items():
            rows += [(name, "win rate, people", _said(found.human)), (name, "win rate, judge", _said(found.judge))]
            rows.append((name, "win rate, calibrated", _said(found.rate)))
        return rows


def _agreement_rows(subject: str, one: Agreement) -> list[tuple[str, str, str]]:
    measures = {"agreement": one.raw, "decisive": one.decisive, "kappa": one.kappa, "weighted kappa": one.quadratic}
    return [(subject, name, _said(value)) for name, value in measures.items()]


def _said(one: Estimate | None) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}], n = {one.n}" if one else "not defined"


def validate(
    judgements: Sequence[Judgement],
    ratings: Iterable[Rating],
    *,
    least_passed: float = LEAST_PASSED,
    **options: float,
) -> Validation:
    """Compare a judge with people.

    Args:
        judgements: of the judge; failed ones are counted and left out.
        ratings: item_id is the sample_id of the judgements; either way round of the systems.
        least_passed: a rater who passed a smaller share of the attention checks is left out.
        options: level, resamples, seed of `rates.rate_estimate`.

    Raises:
        NotApplicable: no pair has both a verdict of the judge and a rating.

    """
    pairs = pairs_of(judgements)
    judged: dict[Key, float] = {(p.sample_id, p.system, p.baseline): p.y for p in pairs}
    persons = {p.sample_id: p.identity_id for p in pairs}
    panel = panel_of(ratings, {(one.system, one.baseline) for one in judgements}, persons, least_passed)
    votes: dict[Key, dict[str, int]] = {}
    for rater, found in panel.judgements.items():
        for one in found:
            votes.setdefault((one.sample_id, one.system, one.baseline), {})[rater] = CODES[one.outcome or "tie"]
    shared = sorted(votes.keys() & judged.keys())
    if not shared:
        raise NotApplicable(
            f"None of the {len(votes)} rated pairs is among the {len(judged)} judged ones; "
            "item_id, system_a and system_b must be the judge's sample_id, system and baseline."
        )
    people = [persons[key[0]] for key in shared]
    counts = np.array([np.bincount(list(votes[key].values()), minlength=3) for key in shared])
    verdicts = np.array([int(np.sign(judged[key] - 0.5)) + 1 for key in shared])
    raters = {}
    for rater in panel.judgements:
        mine = [i for i, key in enumerate(shared) if rater in votes[key]]
        if mine:
            codes = [votes[shared[i]][rater] for i in mine]
            raters[rater] = agreement(codes, verdicts[mine], [people[i] for i in mine], **options)
    every = sorted(votes)
    return Validation(
        RatingCounts(
            ratings=panel.rows,
            checks=panel.checks,
            inattentive=panel.failed_rows + panel.excluded_rows,
            excluded_raters=panel.excluded,
            raters=len(panel.judgements),
            rated=len(votes),
            judged=len(judged),
            judge_failed=sum(one.outcome is None for one in judgements),
            shared=len(shared),
        ),
        agreement(plurality(counts), verdicts, people, **options),
        raters,
        _ceiling(counts, verdicts, people, **options),
        _alpha(every, votes, persons, **options),
        {
            name: _alpha([key for key in every if panel.categories[key] == name], votes, persons, **options)
            for name in sorted(set(panel.categories.values()) - {""})
        },
        _concordance(votes),
        _systems(shared, votes, judged, people, **options),
        _calibrated(judged, votes, persons, **options),
    )


def _ceiling(counts: np.ndarray, judge: np.ndarray, people: Sequence[str], **options: float) -> Ceiling | None:
    item, code = np.nonzero((counts.sum(axis=1) > 1)[:, None] & (counts > 0))
    if not len(item):
        return None
    times = counts[item, code]  # raters of one choice have the same rest
    item, code = np.repeat(item, times), np.repeat(code, times)
    rest = plurality(counts[item] - np.eye(3, dtype=int)[code])
    names = [people[int(i)] for i in item]
    lead = ((judge[item] == rest).astype(float) - (code == rest) + 1) / 2
    return Ceiling(
        agreement(rest, code, names, **options),
        agreement(rest, judge[item], names, **options),
        rate_estimate(lead, names, **options).scaled(2, -1),  # type: ignore[arg-type]
    )


def _alpha(
    keys: Sequence[Key], votes: Mapping[Key, Mapping[str, int]], persons: Mapping[str, str], **options: float
) -> Estimate | None:
    counts = np.array([np.bincount(list(votes[key].values()), minlength=3) for key in keys]).reshape(-1, 3)
    names = [persons.get(key[0], key[0]) for key in keys]
    return corrected(coincidences(counts), names, alpha, **({"level": options["level"]} if "level" in options else {}))


def _concordance(votes: Mapping[Key, Mapping[str, int]]) -> float | None:
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for (_, *match), by_rater in votes.items():
        for rater, code in by_rater.items():
            found.setdefault(rater, {}).setdefault((match[0], match[1]), []).append(code / 2)
    matches = sorted({(key[1], key[2]) for key in votes})
    complete = [[float(np.mean(one[match])) for match in matches] for one in found.values() if len(one) == len(matches)]
    if len(complete) < 2 or len(matches) < 2:
        return None
    value = kendall_w(np.array(complete))
    return None if np.isnan(value) else value


def _name(key: Key, one_baseline: bool) -> str:
    return key[1] if one_baseline else f"{key[1]} vs {key[2]}"


def _systems(
    keys: Sequence[Key],
    votes: Mapping[Key, Mapping[str, int]],
    judged: Mapping[Key, float],
    people: Sequence[str],
    **options: float,
) -> SystemLevel | None:
    one_baseline = len({key[2] for key in keys}) == 1
    names = [_name(key, one_baseline) for key in keys]
    if len(set(names)) < 3:
        return None
    human = [float(np.mean(list(votes[key].values()))) / 2 for key in keys]
    return system_level(names, human, [judged[key] for key in keys], people, **options)  # type: ignore[arg-type]


def _calibrated(
    judged: Mapping[Key, float], votes: Mapping[Key, Mapping[str, int]], persons: Mapping[str, str], **options: float
) -> dict[str, Calibrated]:
    result = {}
    for match in sorted({(key[1], key[2]) for key in judged.keys() & votes.keys()}):
        keys = [key for key in sorted(judged) if key[1:] == match]
        human = [float(np.mean(list(votes[key].values()))) / 2 if key in votes else np.nan for key in keys]
        names = [persons[key[0]] for key in keys]
        if len({name for name, y in zip(names, human, strict=True) if np.isfinite(y)}) > 1:
            result[f"{match[0]} vs {match[1]}"] = calibrated([judged[key] for key in keys], human, names, **options)
    return result
