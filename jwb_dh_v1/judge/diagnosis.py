"""Is the judge to be trusted? Position bias, swap consistency, controls, contradictions, and a judge of one's own kin.

Rates come with the intervals of `rates.rate_estimate`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from jwb_dh_v1.errors import NotApplicable
from jwb_dh_v1.judge.statistics import Judgement
from jwb_dh_v1.stats.agreement import CODES, coincidences, corrected, kappa
from jwb_dh_v1.stats.estimate import Estimate
from jwb_dh_v1.stats.rates import rate_estimate

# Families by the words of a model id. A family is who trained it: what they share is data and taste.
FAMILIES = {
    "Google": ("gemini", "gemma", "google", "chirp", "veo", "lyria"),
    "OpenAI": ("gpt", "openai", "chatgpt", "sora", "o1", "o3", "o4"),
    "Alibaba": (
        "qwen",
        "qwen2",
        "qwen3",
        "cosyvoice",
        "cosyvoice2",
        "cosyvoice3",
        "fun",
        "funaudiollm",
        "wan",
        "tongyi",
    ),
    "StepFun": ("step", "stepfun"),
    "Tencent": ("hunyuan", "hunyuanvideo", "hunyuancustom", "tencent"),
    "ByteDance": ("seed", "bytedance", "doubao", "omnihuman", "latentsync"),
    "Moonshot": ("kimi", "moonshot", "moonshotai"),
    "MiniMax": ("minimax", "hailuo"),
    "Mistral": ("voxtral", "mistral", "mistralai", "ministral"),
    "Meta": ("llama", "meta", "facebook", "audiobox"),
    "Microsoft": ("phi", "microsoft", "vibevoice"),
    "xAI": ("grok", "xai"),
    "NVIDIA": ("nvidia", "flamingo", "nemotron"),
}


def _key(one: Judgement) -> tuple[str, str, str, str]:
    return one.system, one.baseline, one.sample_id, one.identity_id


def _by_pair(judgements: Sequence[Judgement]) -> dict[tuple[str, str, str, str], dict[str, list[Judgement]]]:
    """Answered judgements by pair, then by order."""
    groups: dict[tuple[str, str, str, str], dict[str, list[Judgement]]] = {}
    for one in judgements:
        if one.outcome is not None:
            groups.setdefault(_key(one), {}).setdefault(one.order, []).append(one)
    return groups


@dataclass(frozen=True)
class PositionBias:
    """How often the clip heard first is picked.

    Attributes:
        first_rate: first / (first + second) over decisive verdicts; 1/2 is without bias. None if all are ties.
        first, second, ties: counts of verdicts.
        leaning_first, leaning_second: pairs for the sign test.
        p_value: exact two-sided binomial test of the two numbers before against 1/2.
        method: what the test is about, in words.

    """

    first_rate: Estimate | None
    first: int
    second: int
    ties: int
    leaning_first: int
    leaning_second: int
    p_value: float
    method: str


def position_bias(judgements: Sequence[Judgement]) -> PositionBias:
    """First-position rate and the exact sign test of it.

    Where pairs were heard in both orders only these count, and each leans to the first or second position by the sum,
    over its two orders, of the mean verdict (+1 first, -1 second, 0 tie). Quality cancels in that sum, so a judge
    without position bias leans either way equally often, whatever the systems: a sign test over pairs. (A binomial
    test over single verdicts would be wrong there: the two verdicts of a pair depend on each other.)
    With one order per pair the verdicts themselves are tested; that needs an order drawn at random, as in EmergentTTS.

    Raises:
        NotApplicable: no answered judgement.

    """
    groups = _by_pair(judgements)
    if not groups:
        raise NotApplicable("There is no answered judgement.")
    both = {key: orders for key, orders in groups.items() if len(orders) == 2}
    used = both or groups
    verdicts = [one for orders in used.values() for group in orders.values() for one in group]
    picks = [one.first or 0 for one in verdicts]
    leans = [
        round(sum(sum(one.first or 0 for one in group) / len(group) for group in orders.values()), 9)
        for orders in used.values()
    ]
    ahead, behind = sum(lean > 0 for lean in leans), sum(lean < 0 for lean in leans)
    rate = None
    if any(picks):
        rate = rate_estimate([p == 1 for p in picks], [one.identity_id for one in verdicts], [abs(p) for p in picks])
    p_value = float(stats.binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
    kind = "pairs heard in both orders" if both else "pairs heard in one order, taken as drawn at random"
    return PositionBias(
        rate,
        picks.count(1),
        picks.count(-1),
        picks.count(0),
        ahead,
        behind,
        p_value,
        f"exact sign test over {len(used)} {kind}",
    )


@dataclass(frozen=True)
class SwapConsistency:
    """Whether a verdict survives the swap of the two clips.

    Attributes:
        decisive: share with the same winner, among pairs with a winner in both orders; None without such pairs.
        all: share with the same verdict (win, tie or loss), among all pairs heard in both orders.
        to_first, to_second: pairs whose winner follows the position.
        one_tie: pairs with a tie in one order and a winner in the other.

    """

    decisive: Estimate | None
    all: Estimate
    to_first: int
    to_second: int
    one_tie: int


def swap_consistency(judgements: Sequence[Judgement]) -> SwapConsistency:
    """Consistency over the swap; repeats are matched by their number.

    Raises:
        NotApplicable: nothing was heard in both orders.

    """
    halves: dict[tuple[object, ...], dict[str, Judgement]] = {}
    for one in judgements:
        if one.outcome is not None:
            halves.setdefault((*_key(one), one.repeat), {})[one.order] = one
    pairs = [(two["system_first"], two["baseline_first"]) for _, two in sorted(halves.items()) if len(two) == 2]
    if not pairs:
        raise NotApplicable("No pair was judged in both orders; judge with order 'both'.")
    same = [a.outcome == b.outcome for a, b in pairs]
    clear = [a.outcome != "tie" and b.outcome != "tie" for a, b in pairs]
    identities = [a.identity_id for a, _ in pairs]
    decisive = None
    if any(clear):
        decisive = rate_estimate([s and c for s, c in zip(same, clear, strict=True)], identities, clear)
    firsts = [(a.first, b.first) for a, b in pairs]
    return SwapConsistency(
        decisive,
        rate_estimate(same, identities),
        to_first=firsts.count((1, 1)),
        to_second=firsts.count((-1, -1)),
        one_tie=sum((a == 0) != (b == 0) for a, b in firsts),
    )


@dataclass(frozen=True)
class RepeatAgreement:
    """Whether the judge gives the same verdict when it is asked the same question again.

    Attributes:
        same: share of equal verdicts among pairs of answers to one question (pair of clips, in one order).
        kappa: the same corrected for chance; repeats are interchangeable, so that chance is the square of the shares
            of win, tie and loss (Scott's pi; Fleiss' kappa with three or more). None where all verdicts are one.
        questions: with two answers or more; n of both estimates.

    """

    same: Estimate
    kappa: Estimate | None
    questions: int


def repeat_agreement(judgements: Sequence[Judgement]) -> RepeatAgreement | None:
    """Self-agreement over repeats; None where no question was answered twice.

    A temperature of 0 is no promise of equal answers: served models batch and route as they like.
    """
    groups = {
        (*key, order): answers
        for key, orders in _by_pair(judgements).items()
        for order, answers in orders.items()
        if len(answers) > 1
    }
    if not groups:
        return None
    votes = np.array([[sum(CODES[one.outcome or ""] == code for one in group) for code in range(3)]
                      for group in groups.values()])  # fmt: skip
    number = votes.sum(axis=1)
    equal = (votes * (votes - 1)).sum(axis=1) / (number * (number - 1))
    identities = [key[3] for key in groups]
    chance_corrected = corrected(coincidences(votes), identities, kappa)
    return RepeatAgreement(rate_estimate(equal.tolist(), identities), chance_corrected, len(groups))


@dataclass(frozen=True)
class Control:
    """Verdicts on pairs whose right answer is known.

    Attributes:
        expected: the right outcome.
        rate: share of answered judgements with it.
        first, second: how many of the others picked the clip heard first, or second (of all with a winner).
        failed: judgements without an answer.

    """

    expected: Literal["win", "tie", "loss"]
    rate: Estimate
    first: int
    second: int
    failed: int


def identical_control(judgements: Sequence[Judgement]) -> Control:
    """The same clip twice: a tie is right, and a winner can only come from position or chance.

    Give the copy a name of its own as `system`. Raises NotApplicable without an answered judgement.
    """
    return _control(judgements, "tie")


def degraded_control(judgements: Sequence[Judgement]) -> Control:
    """The clip, badly damaged (as `system`), against itself: a loss is right; expect 0.95 or more.

    Raises NotApplicable without an answered judgement.
    """
    return _control(judgements, "loss")


def _control(judgements: Sequence[Judgement], expected: Literal["tie", "loss"]) -> Control:
    answered = [one for one in judgements if one.outcome is not None]
    picks = [one.first for one in answered]
    right = [one.outcome == expected for one in answered]
    rate = rate_estimate(right, [one.identity_id for one in answered])
    return Control(expected, rate, picks.count(1), picks.count(-1), len(judgements) - len(answered))


def contradictions(judgements: Sequence[Judgement]) -> Estimate:
    """Share of judgements whose winner has the lower score (a tie never contradicts), where both scores are known.

    Raises:
        NotApplicable: no judgement has both scores.

    """
    wrong, identities = [], []
    for one in judgements:
        if one.outcome is not None and one.score_system is not None and one.score_baseline is not None:
            lead = one.score_system - one.score_baseline
            wrong.append((one.outcome == "win" and lead < 0) or (one.outcome == "loss" and lead > 0))
            identities.append(one.identity_id)
    return rate_estimate(wrong, identities)


def family_of(model: str) -> str | None:
    """Who trained a model, by the words of its id; None if the id says nothing.

    >>> family_of("models/gemini-2.5-pro")
    'Google'

    """
    # A version glued to a name ("Qwen2.5", "Wan2.1", "phi4") is not part of it.
    words = set(re.findall(r"[a-z]+", model.lower())) | set(re.findall(r"[a-z0-9]+", model.lower()))
    found = [name for name, marks in FAMILIES.items() if words & set(marks)]
    return found[0] if found else None


def same_family_warning(judge: str, system: str) -> str | None:
    """A sentence if judge and system come from one family, else None.

    Judges rate their own kin higher: by about 13 points of win rate in a re-analysis of MT-Bench.
    """
    family = family_of(judge)
    if family is None or family != family_of(system):
        return None
    return (
        f"The judge {judge} and the system {system} are both of {family}: judges tend to favour their own family "
        "(by about 13 points of win rate in one study); confirm with a judge of another family or with people."
    )
