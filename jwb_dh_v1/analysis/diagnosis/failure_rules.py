"""The failure signatures of the benchmark as a table, and the numbers that they hold scores against.

A bound is one of two kinds.

- A number in the rule, with its reason beside it: it follows from the metric's definition (a still clip cannot move),
  from the network's own scale (dlib's threshold), or was measured on the teaser's six systems under lite/1 on
  2026-11-22 and lies between those that have the failure and those that do not. None was fitted to the further
  systems on which the rules were tried once they stood: pictures 12 frames late, a clip that stops, a cut to another
  person, silence (all told; tests/analysis/test_diagnose.py, slow). Blur of half the strength (sigma = height / 144)
  was not told from coding: the rules call it `coded again`, possible, at strength 0.1.
- `LOW` or `HIGH`: below or above what is usual. That is, in this order: the clips of the run given to compare with
  (the range of its clips without the outer 5 % on each side, `measures.usual`); for lite/1 the teaser's real clips,
  scored as the system `copy` (`TEASER`); for published rows the quarters of the eight systems. Without any of these
  the rule is not judged. The other protocols have no range of their own yet: nobody has published what real clips
  score under them.

Distances of sets (FID, FVD) are no failure as long as lossy coding explains them: their `HIGH` is the upper end of the
95 % interval of the teaser coded at CRF 35. They shrink as sets grow, so for much larger sets that is generous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jwb_dh_v1.analysis.diagnosis.clip_statistics import STILL, Cell

LOW: Literal["low"] = "low"
HIGH: Literal["high"] = "high"

MEASURED = "measured on the teaser's six systems under lite/1, 2026-11-22"
BY_DEFINITION = "by definition"


@dataclass(frozen=True)
class Condition:
    """One measure on one side of a bound.

    Attributes:
        measure: a metric or one of `measures.MEASURES`.
        side: of the bound on which the condition holds.
        bound: a number, or what is usual: `low`, `high`.
        why: where a number comes from.
        optional: where the measure is missing the rule is judged without it; where it is there it must hold.

    """

    measure: str
    region: str
    side: Literal["below", "above"]
    bound: float | Literal["low", "high"]
    why: str = ""
    optional: bool = False

    def holds(self, value: float, bound: float) -> bool:
        """Whether a value lies on the condition's side of a bound."""
        return value < bound if self.side == "below" else value > bound


@dataclass(frozen=True)
class Rule:
    """A failure signature.

    Attributes:
        name: for people and JSON, lower case.
        sentence: what it means.
        conditions: all must hold.
        look: what to look at next.
        kind: a `failure`, or a `note` on what was done to the clips that is no failing of a generator.
        moment: (metric, region) of the curve that shows when; `still` of the motion's end.
        clips: whether single clips can show it where the whole run does not, see `clipwise`.
        inside: rules that explain this one where they hold as well.

    """

    name: str
    sentence: str
    conditions: tuple[Condition, ...]
    look: str
    kind: Literal["failure", "note"] = "failure"
    moment: Cell | None = None
    clips: bool = True
    inside: tuple[str, ...] = ()

    @property
    def clipwise(self) -> bool:
        """Whether it is a finding where the run's means do not show it but some clips do.

        Never with what is usual: of any clips some lie outside the range of others.
        """
        return self.clips and not any(isinstance(c.bound, str) for c in self.conditions)

    @property
    def relative(self) -> bool:
        """Whether ranks among systems are enough to judge it."""
        return all(c.optional or isinstance(c.bound, str) for c in self.conditions)


def _must(measure: str, region: str, side: Literal["below", "above"], bound: float | str, why: str = "") -> Condition:
    return Condition(measure, region, side, bound, why)  # type: ignore[arg-type]


def _may(measure: str, region: str, side: Literal["below", "above"], bound: float | str, why: str = "") -> Condition:
    return Condition(measure, region, side, bound, why, optional=True)  # type: ignore[arg-type]


B, F, H, S = "body", "face", "hands", "speech"
OTHERS = "different people have -0.3 to 0.2 (lite's scale; ArcFace's is alike), see metrics/fidelity/csim.py"
SAME = "dlib's own threshold in lite's scale, see metrics/fidelity/csim.py; ArcFace takes less for the same person"
MOVES = _must("peak_motion", B, "above", STILL, "the teaser's frozen clips have at most 0.03, its real ones at least 4")
MOVES_IF_KNOWN = _may("peak_motion", B, "above", STILL, MOVES.why)
KEPT = f"coding at CRF 35 keeps 0.877 to 0.944, blur with sigma = height / 72 0.61 to 0.835; {MEASURED}"
ALIKE = f"another person's pictures have 7.5 to 8.5 dB, a frozen clip 17.9 to 26; {MEASURED}"
STILL_SC = f"real clips have at most 0.993, still ones 0.99998; {MEASURED}"
STILL_MS = f"real clips have at most 0.998, still ones 0.99999; {MEASURED}"
STILL_END = f"real clips are still for at most 0.023 of their length; {MEASURED}"
HANDS_KEPT = f"coding at CRF 35 keeps 0.43, as detectors lose hands first; {MEASURED}"
PARTS = {F: "face", H: "hands"}
CAUSES = ("frozen", "another person", "person changes on the way", "soft pictures", "out of step")

RULES: tuple[Rule, ...] = (
    Rule(
        "copy of the reference",
        "The pictures are the real clips' own, pixel by pixel: a copy, or the reference leaked into the output.",
        (
            _must("ssim", B, "above", 0.9999, BY_DEFINITION),
            _may("psnr", B, "above", 99.0, "equal pictures have the cap of 100 dB, or infinity"),
        ),
        "Make sure that the generator is given the first frame and the sound only.",
        kind="note",
    ),
    Rule(
        "coded again",
        "The pictures are the real clips' up to what lossy coding, or slight softening, takes away.",
        (
            _must("ssim", B, "above", 0.85, KEPT),
            _must("ssim", B, "below", 0.9999, BY_DEFINITION),
            _must("psnr", B, "above", 25.0, f"coding at CRF 35 leaves 28.5 to 35.5 dB; {MEASURED}"),
            MOVES_IF_KNOWN,
            _may("still_end", B, "below", 0.2, STILL_END),
        ),
        "Save with a higher quality (a lower CRF); a generator that was given the real clip would look like this, too.",
        kind="note",
        moment=("ssim", B),
    ),
    Rule(
        "frozen",
        "Nothing moves: the clips stand still, so consistency and smoothness are near 1 for the wrong reason.",
        (
            _must("dynamic_degree", B, "below", 0.5, BY_DEFINITION),
            _must(
                "subject_consistency",
                B,
                "above",
                0.999,
                STILL_SC,
            ),
            _may("motion_smoothness", B, "above", 0.999, STILL_MS),
            _may("peak_motion", B, "below", STILL, MOVES.why),
        ),
        "Look at the first second: does the generator repeat the picture it was given?",
        moment=("still", B),
    ),
    Rule(
        "stops on the way",
        "The clips move at first and then stand still until the end.",
        (
            MOVES,
            _must("still_end", B, "above", 0.2, STILL_END),
        ),
        "Compare the length that the generator can make with the length that was asked for; is the rest filled up?",
        moment=("still", B),
    ),
    Rule(
        "too little motion",
        "Motion is rare and smooth: the clips hardly move, which buys them smoothness.",
        (
            _must("dynamic_degree", B, "below", LOW),
            _must("motion_smoothness", B, "above", HIGH),
            _may("subject_consistency", B, "below", 0.999, "above, nothing moves at all: frozen"),
        ),
        "Look at the motion's timeline; raise the motion strength, or the guidance by the pose.",
        moment=("dynamic_degree", B),
        clips=False,
    ),
    Rule(
        "stiff face",
        "The face hardly moves while the body does.",
        (_must("part_motion", F, "below", LOW), MOVES, _may("csim", F, "above", 0.2, OTHERS)),
        "Look at mouth and eyes: is the sound used at all?",
        moment=("dynamic_degree", F),
        clips=False,
        inside=CAUSES,
    ),
    Rule(
        "another person",
        "The face is not that of the person in the real clip; motion and consistency may be fine.",
        (
            _must("csim", F, "below", 0.2, OTHERS),
            _may("csim_begin", F, "below", 0.5, SAME),
            _may("psnr", B, "below", 25.0, ALIKE),
        ),
        "Look at the first frame: is the right picture given to the generator?",
        moment=("csim", F),
    ),
    Rule(
        "person changes on the way",
        "The clips begin with the right person and end with another.",
        (
            _must("csim_begin", F, "above", 0.5, SAME),
            _must("csim_end", F, "below", 0.2, OTHERS),
            MOVES,
        ),
        "Look at the face at the moment given; long clips are often made in pieces.",
        moment=("csim", F),
    ),
    *(
        Rule(
            f"identity drift ({words})",
            f"The {words} changes from frame to frame and its motion is far from the real clips': identity drift.",
            (
                _must("subject_consistency", region, "below", LOW),
                _must("fvd", region, "above", HIGH),
            ),
            "Look at the frames where the consistency falls: who or what is in the picture then?",
            moment=("subject_consistency", region),
            inside=("person changes on the way",),
        )
        for region, words in ((B, "whole picture"), (F, "face"), (H, "hands"))
    ),
    Rule(
        "over-fitted to the face",
        "The face is consistent while the whole body is not: over-fitted to the face.",
        (
            _must("subject_consistency", B, "below", LOW),
            _must("subject_consistency", F, "above", LOW),
            _must("sc_gap", F, "above", HIGH),
        ),
        "Look at shoulders, hands and background; was the generator trained on faces?",
        moment=("subject_consistency", B),
    ),
    *(
        Rule(
            f"{words} worse than the rest",
            f"The picture lies where the real one does, but the {words} much less: the failure is in the {words}.",
            (
                _must("psnr_gap", region, "below", -3.0, "3 dB: twice the squared error"),
                _must("psnr", B, "above", 22.0, "below, the whole picture is elsewhere"),
                MOVES_IF_KNOWN,
            ),
            f"Look at the {words} in the worst clips, beside the real ones.",
            moment=("psnr", region),
            inside=CAUSES,
        )
        for region, words in PARTS.items()
    ),
    Rule(
        "face lost",
        "The face is seen in the real clip but not found in the generated one for much of the time.",
        (_must("found", F, "below", 0.75, f"coding at CRF 35 keeps 1.0; {MEASURED}"),),
        "Look at the frames without a face: turned away, out of the picture, or not drawn as a face?",
        inside=CAUSES,
    ),
    Rule(
        "hands lost",
        "Hands are seen in the real clips but hardly ever found in the generated ones.",
        (_must("found", H, "below", 0.25, HANDS_KEPT),),
        "Look at the moments at which the real clip shows hands.",
        clips=False,
        inside=CAUSES,
    ),
    Rule(
        "soft pictures",
        "Person, place and motion are right, but detail is gone: blurred, upscaled, or coded far too strongly.",
        (
            _must("ssim", B, "below", 0.85, KEPT),
            _must("ssim", B, "above", 0.5, "another person's pictures have 0.2 to 0.35; " + MEASURED),
            _must("psnr", B, "above", 20.0, ALIKE),
            MOVES_IF_KNOWN,
            _may("fid", B, "above", HIGH),
            _may("csim", F, "above", 0.2, OTHERS),
        ),
        "Look at edges and hair at full size; check the decoder, the resolution and the encoder.",
        moment=("ssim", B),
        clips=False,
    ),
    Rule(
        "out of step",
        "The pictures look right but are not where the real ones are at that moment: late, early, or other motion.",
        (
            _must("ssim", B, "below", 0.85, KEPT),
            _must("fid", B, "below", HIGH),
            _must("csim", F, "above", 0.5, SAME),
            MOVES,
        ),
        "Play both side by side; try the clip shifted by some frames; check the frame rate.",
        moment=("ssim", B),
        clips=False,
    ),
    Rule(
        "jerky",
        "Motion is less smooth than that of real clips: jumps, flicker or dropped frames.",
        (_must("motion_smoothness", B, "below", LOW),),
        "Go through the clip frame by frame around the moment given.",
        moment=("motion_smoothness", B),
        clips=False,
        inside=("person changes on the way",),
    ),
    Rule(
        "unstable background",
        "The background changes while the face stays the same.",
        (_must("background_consistency", B, "below", LOW), _must("subject_consistency", F, "above", LOW)),
        "Look at edges and objects behind the person.",
        moment=("background_consistency", B),
        clips=False,
    ),
    Rule(
        "no speech",
        "No word is heard where the real clips speak: silent, or not speech.",
        (
            _must("words_heard", S, "below", 0.5, BY_DEFINITION),
            _may("wer_floor", S, "below", 0.5, "in the real clips most words are understood"),
        ),
        "Play the sound; is there a track, and is it silent?",
    ),
    Rule(
        "other words",
        "Words are heard, but not those of the transcript: another clip's speech, or speech that is no language.",
        (
            _must("wer_above_floor", S, "above", 0.5, "more than half of the words beyond what the recogniser misses"),
            _must("words_right", S, "below", 0.25, f"another clip's speech has at most 0.17 right; {MEASURED}"),
            _must("words_heard", S, "above", 0.5, BY_DEFINITION),
        ),
        "Read transcript and words heard side by side; check which sound belongs to which clip.",
    ),
    Rule(
        "unintelligible",
        "Some of the words are understood, but more than half are not, although they are in the real clips.",
        (
            _must("wer_above_floor", S, "above", 0.5, "more than half of the words beyond what the recogniser misses"),
            _must("words_right", S, "above", 0.25, f"another clip's speech has at most 0.17 right; {MEASURED}"),
        ),
        "Play the sound; read what was heard.",
    ),
    Rule(
        "pleasant but unintelligible",
        "Judges prefer the speech although the words are not understood: it sounds good and says the wrong thing.",
        (
            _must("wer_above_floor", S, "above", 0.5, "more than half of the words beyond what the recogniser misses"),
            _must("lalm_win_rate", S, "above", 0.5, "half of the pairs won"),
        ),
        "Read what was heard before trusting the win rate; ask the judge for words, not for the voice.",
    ),
    Rule(
        "wrong length or size",
        "Clips could not be compared with the real ones: their length, size or frame rate differs.",
        (_must("misshaped", "any", "above", 0.0, BY_DEFINITION),),
        "Read the messages in samples.parquet; generate as many frames, of the size and rate of the real clip.",
    ),
    Rule(
        "failed clips",
        "Clips could not be scored.",
        (_must("failed", "any", "above", 0.0, BY_DEFINITION),),
        "Read the messages in samples.parquet; a clip that fails counts as stated by `failures` in the plan.",
    ),
)

# Published means count clips without a score as zeros, as the authors did; a run's rows say so clip by clip.
PUBLISHED: tuple[Rule, ...] = (
    Rule(
        "mostly zeros",
        "The means hold many zeros of clips without a score: scores of this run say how often it failed, not how.",
        (_must("zeros", B, "above", 0.1, "motion smoothness of any clip with a score is near 1, the rest are zeros"),),
        "Score again without counting failures, and look at coverage first.",
        clips=False,
    ),
)

# Lowest and highest of the teaser's eight real clips (the system `copy`) under lite/1 on 2026-12-01; distances of sets:
# 0 to the upper end of the interval of `recompressed`. tests/analysis/test_diagnose.py makes them again from the stored
# runs.
TEASER: Mapping[Cell, tuple[float, float]] = {
    ("dynamic_degree", "body"): (0.34999, 0.94355),
    ("motion_smoothness", "body"): (0.98859, 0.99756),
    ("part_motion", "face"): (0.39631, 6.456),
    ("subject_consistency", "body"): (0.95152, 0.993),
    ("fvd", "body"): (0.0, 138.18),
    ("subject_consistency", "face"): (0.94188, 0.98785),
    ("fvd", "face"): (0.0, 129.03),
    ("subject_consistency", "hands"): (0.83208, 0.95625),
    ("sc_gap", "face"): (-0.033424, 0.0050947),
    ("fid", "body"): (0.0, 108.01),
    ("background_consistency", "body"): (0.95038, 0.99371),
}
