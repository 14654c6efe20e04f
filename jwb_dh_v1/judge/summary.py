"""All statistics of one judge's log in one value: for the terminal, for `judge.json`, for the `evaluate` module."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeVar

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.judge.diagnosis import (
    PositionBias,
    RepeatAgreement,
    SwapConsistency,
    contradictions,
    position_bias,
    repeat_agreement,
    same_family_warning,
    swap_consistency,
)
from jwb_dh_v1.judge.question import Judged, Who
from jwb_dh_v1.judge.statistics import (
    Failures,
    RateComparison,
    WinRate,
    adjusted_win_rate,
    bradley_terry,
    compare,
    win_rate,
)
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.rating_models import AdjustedRate, BradleyTerry
from jwb_dh_v1.stats.significance import holm

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
ADJUSTED_SHIFT = 0.1  # AlpacaEval's threshold for a shift worth a warning


@dataclass(frozen=True)
class JudgeSummary:
    """What one judge's answers say, and how far to trust them.

    Attributes:
        backend, model, rubric, settings: the judge; numbers of different ones are never mixed.
        served: number of answers by the model that the server named.
        rates: one per match (system against baseline).
        adjusted: by system and baseline, the rate at equal duration and loudness; absent where it cannot be fitted.
        comparisons: of systems against the same baseline, on shared samples; `holm` holds the p values together.
        ratings: Bradley-Terry, only where systems meet each other; with one shared baseline it says nothing new.
        position, swap, contradictions: of the judge; None where nothing can be said (`remarks` says why).
        repeats: its agreement with itself; None where no question was asked twice (`judge run --repeats 3`).
        remarks: sentences to read before the numbers.

    """

    backend: str
    model: str
    rubric: str
    settings: str
    served: dict[str, int]
    rates: tuple[WinRate, ...]
    adjusted: dict[str, AdjustedRate]
    comparisons: tuple[RateComparison, ...]
    holm: tuple[float, ...]
    ratings: BradleyTerry | None
    position: PositionBias | None
    swap: SwapConsistency | None
    repeats: RepeatAgreement | None
    contradictions: Estimate | None
    remarks: tuple[str, ...]

    def to_json(self) -> str:
        """As text; the same judgements give the same bytes."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def summarise(who: Who, found: Judged, failures: Failures = "drop", anchor: str | None = None) -> JudgeSummary:
    """The statistics of one judge.

    Args:
        who: the judge, as `question.judged` groups them.
        found: its judgements.
        failures: what a failed judgement counts as; the bounds are always given too.
        anchor: system at 1000 of the Bradley-Terry ratings; the most frequent baseline by default.

    Raises:
        NotApplicable: no pair was judged.

    """
    backend, model, rubric, settings = who
    remarks: list[str] = []
    matches: dict[tuple[str, str], list[Any]] = {}
    for one in found.judgements:
        matches.setdefault((one.system, one.baseline), []).append(one)
    if not matches:
        raise NotApplicable("The log holds no judgement.")
    rates, adjusted = [], {}
    for (system, baseline), ones in sorted(matches.items()):
        match = f"{system} against {baseline}"
        rate = _try(lambda ones=ones: win_rate(ones, failures), remarks, match)  # type: ignore[misc]
        if rate is not None:
            rates.append(rate)
        fit = _try(lambda ones=ones: adjusted_win_rate(ones), remarks, f"{match}, adjusted rate")  # type: ignore[misc]
        if fit is not None:
            adjusted[match] = fit
            if abs(fit.shift) > ADJUSTED_SHIFT:
                remarks.append(
                    f"{match}: at equal duration and loudness the win rate moves by {fit.shift:+.2f}; consider these "
                    "before the rate."
                )
        warning = same_family_warning(model, system)
        if warning:
            remarks.append(warning)
    if not rates:
        raise NotApplicable("; ".join(remarks) or "No pair was judged.")
    comparisons = _comparisons(found, sorted({system for system, _ in matches}), failures)
    if len(found.served) > 1:
        names = ", ".join(f"{name or 'unnamed'} ({count})" for name, count in sorted(found.served.items()))
        remarks.append(f"Several models answered: {names}. Level and rank may differ between them.")
    met = {name for match in matches for name in match}
    ratings = None
    if len(matches) > 1 and len({baseline for _, baseline in matches}) > 1 and len(met) > 2:
        most = max(sorted({b for _, b in matches}), key=lambda b: sum(one.baseline == b for one in found.judgements))
        ratings = _try(lambda: bradley_terry(found.judgements, anchor or most), remarks, "Bradley-Terry")
    position = _try(lambda: position_bias(found.heard), remarks, "position bias")
    if position is not None and position.p_value < 0.05:
        remarks.append(
            f"The judge prefers a position (p = {position.p_value:.2g}): with both orders the shift cancels, but rates "
            "are pulled towards one half."
        )
    return JudgeSummary(
        backend,
        model,
        rubric,
        settings,
        dict(sorted(found.served.items())),
        tuple(rates),
        adjusted,
        tuple(comparisons),
        tuple(holm([c.p_value for c in comparisons])),
        ratings,
        position,
        _try(lambda: swap_consistency(found.heard), remarks, "swap consistency"),
        repeat_agreement(found.heard),
        _try(lambda: contradictions(found.heard), remarks, "contradictions"),
        tuple(dict.fromkeys(remarks)),
    )


def _try(make: Callable[[], T], remarks: list[str], what: str) -> T | None:
    """A statistic, or a remark why there is none."""
    try:
        return make()
    except NotApplicable as reason:
        remarks.append(f"{what}: {reason}")
        return None


def _comparisons(found: Judged, systems: Sequence[str], failures: Failures) -> list[RateComparison]:
    made = []
    for a, b in combinations(systems, 2):
        try:
            made.append(compare(found.judgements, a, b, failures))
        except NotApplicable:
            continue  # they share no sample of one baseline: nothing to compare
    return made


def said(one: Estimate | None) -> str:
    """`0.612 [0.540, 0.681]`, or a dash."""
    if one is None:
        return "–"
    return f"{one.value:.3f}" + ("" if one.interval is None else f" [{one.low:.3f}, {one.high:.3f}]")


def print_summary(summary: JudgeSummary, console: Console) -> None:
    """Tables of win rates, comparisons, ratings and the judge's own reliability."""
    from rich.table import Table

    title = f"LALM win rate: {summary.model} ({summary.backend}), rubric {summary.rubric}"
    methods = " ".join(dict.fromkeys(f"Interval: {one.rate.method}." for one in summary.rates))
    rates = Table(title=title, caption=f"Ties count one half. Bounds: failed judgements as losses, as wins. {methods}")
    for column in ("system", "baseline", "win rate", "adjusted", "win/tie/loss", "failed", "bounds"):
        rates.add_column(column, overflow="fold")
    for one in summary.rates:
        fit = summary.adjusted.get(f"{one.system} against {one.baseline}")
        rates.add_row(
            one.system, one.baseline, said(one.rate), "–" if fit is None else said(fit.rate),
            f"{one.wins}/{one.ties}/{one.losses}", str(one.failed),
            f"{one.as_losses.value:.3f}–{one.as_wins.value:.3f}",
        )  # fmt: skip
    console.print(rates)
    if summary.comparisons:
        table = Table(title="system against system, on shared samples")
        for column in ("a", "b", "win rate a - b", "pairs", "p", "p (Holm)"):
            table.add_column(column)
        for pair, adjusted in zip(summary.comparisons, summary.holm, strict=True):
            table.add_row(
                pair.a, pair.b, said(pair.difference), str(pair.difference.n), f"{pair.p_value:.3g}", f"{adjusted:.3g}"
            )
        console.print(table)
    if summary.ratings:
        table = Table(title=f"Bradley-Terry ratings, {summary.ratings.anchor} = 1000")
        for column in ("system", "rating"):
            table.add_column(column)
        for name, rating in summary.ratings.ratings.items():
            between = "" if rating.interval is None else f" [{rating.low:.0f}, {rating.high:.0f}]"
            table.add_row(name, f"{rating.value:.0f}{between}")
        console.print(table)
    trust = Table(title="how far the judge can be trusted")
    for column in ("", "value", "from"):
        trust.add_column(column, overflow="fold")
    if summary.position:
        position = summary.position
        counts = f"{position.first} first, {position.second} second, {position.ties} ties"
        trust.add_row("picks the first", said(position.first_rate), f"{counts}; p = {position.p_value:.3g}")
    if summary.swap:
        trust.add_row("same winner after the swap", said(summary.swap.decisive), "pairs with a winner both times")
        trust.add_row("same verdict after the swap", said(summary.swap.all), "all pairs in both orders")
    if summary.repeats:
        asked = f"{summary.repeats.questions} questions asked again"
        trust.add_row("same verdict when asked again", said(summary.repeats.same), asked)
        trust.add_row("... corrected for chance (kappa)", said(summary.repeats.kappa), asked)
    if summary.contradictions:
        trust.add_row("winner has the lower score", said(summary.contradictions), "answers with both scores")
    if trust.row_count:
        console.print(trust)
    for remark in summary.remarks:
        console.print(remark, style="yellow", highlight=False, markup=False, soft_wrap=True)
