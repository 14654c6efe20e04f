"""Tables for papers and pages: several runs side by side in LaTeX and Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from jwb_dh_v1.analysis.comparable import labels, require_comparable
from jwb_dh_v1.analysis.wording import best, decimals, find, metrics_of, number, printable, regions_of, title
from jwb_dh_v1.errors import SetupError
from jwb_dh_v1.scoring.result import Result, Score
from jwb_dh_v1.version import __version__

FRAMEWORK = "jwb-dh-v1"


def setting(result: Result) -> dict[str, str]:
    """What a run depends on besides its protocol, in words."""
    keys = ("data", "boxes", "failures", "precision", "version")
    return {key: str(result.plan.get(key) or "not recorded") for key in keys}


def to_latex(results: Sequence[Result], region: str | None = None, *, intervals: bool = False) -> str:
    r"""A booktabs table per region: systems by metrics, the best bold; needs `\usepackage{booktabs}`.

    Args:
        results: runs that can be put side by side.
        region: one of them; all by default.
        intervals: half the 95 % interval's width behind each value.

    Raises:
        PlanMismatch: two of the runs cannot be put into one column.
        SetupError: no score of that region.

    """
    notes = require_comparable(results)
    names = labels(results)
    parts = [f"% {_comment(line)}" for line in (_origin(results), *notes)]
    for one in _regions(results, region):
        metrics, cells = _cells(results, one)
        known = [next(s for row in cells for s in row if s and s.metric == m) for m in metrics]
        heads = [_tex(title(s.metric) + (f" ({s.unit})" if s.unit else "")) + _tex_arrow(s) for s in known]
        columns = list(zip(*cells, strict=True))
        lines = [
            " & ".join([
                _tex(name),
                *(_tex_cell(row[j], decimals(filter(None, columns[j])), i in best(columns[j]), intervals)
                  for j in range(len(metrics))),
            ]) + r" \\"
            for i, (name, row) in enumerate(zip(names, cells, strict=True))
        ]  # fmt: skip
        caption = f"{one.capitalize()}, {_caption(results, [s for row in cells for s in row if s], intervals)}"
        parts += [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_tex(caption)}}}",
            rf"\label{{tab:jwb-{re.sub(r'[^a-z0-9]+', '-', f'{results[0].protocol}-{one}'.lower())}}}",
            rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
            r"\toprule",
            " & ".join(["System", *heads]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def to_markdown(results: Sequence[Result], region: str | None = None, *, intervals: bool = False) -> str:
    """A pipe table per region, as GitHub and the Hub show them: systems by metrics, the best bold.

    Args:
        results: runs that can be put side by side.
        region: one of them; all by default.
        intervals: half the 95 % interval's width behind each value.

    Raises:
        PlanMismatch: two of the runs cannot be put into one column.
        SetupError: no score of that region.

    """
    notes = require_comparable(results)
    names = labels(results)
    parts = []
    for one in _regions(results, region):
        metrics, cells = _cells(results, one)
        known = [next(s for row in cells for s in row if s and s.metric == m) for m in metrics]
        heads = [
            f"{title(s.metric)}{f' ({s.unit})' if s.unit else ''} {'↑' if s.higher_is_better else '↓'}" for s in known
        ]
        columns = list(zip(*cells, strict=True))
        caption = _caption(results, [s for row in cells for s in row if s], intervals)
        parts += [
            f"**{_markdown(one.capitalize())}**, {_markdown(caption)}",
            "",
            _row(["System", *map(_markdown, heads)]),
            _row(["---", *["---:"] * len(metrics)]),
        ]
        for i, (name, row) in enumerate(zip(names, cells, strict=True)):
            texts = [_text(row[j], decimals(filter(None, columns[j])), intervals, "±") for j in range(len(metrics))]
            bold = [f"**{t}**" if i in best(columns[j]) else t for j, t in enumerate(texts)]
            parts.append(_row([_markdown(name), *bold]))
        parts.append("")
    parts += [_markdown(line) + "  " for line in (_origin(results), *notes)]
    return "\n".join(parts).rstrip() + "\n"


def _regions(results: Sequence[Result], region: str | None) -> list[str]:
    found = regions_of(score for result in results for score in result.scores)
    if region is None and found:
        return found
    if region not in found:
        raise SetupError(f"No score of the region {region!r}; there are {', '.join(found) or 'none'}.")
    return [region]


def _cells(results: Sequence[Result], region: str) -> tuple[list[str], list[list[Score | None]]]:
    metrics = metrics_of(s for result in results for s in result.scores if s.region == region)
    return metrics, [[find(result, metric, region) for metric in metrics] for result in results]


def _caption(results: Sequence[Result], scores: Sequence[Score], intervals: bool) -> str:
    counts = sorted({score.n for score in scores if score.value is not None}) or [0]
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    half = ", ± half the 95 % interval" if intervals else ""
    versions = sorted({str(result.plan.get("version")) for result in results})
    return f"{results[0].protocol}, n = {n} samples{half}, {FRAMEWORK} {' and '.join(versions)}"


def _origin(results: Sequence[Result]) -> str:
    said = [f"{key} {value}" for key, value in setting(results[0]).items() if key != "version"]
    return f"Made by {FRAMEWORK} {__version__} from runs of {results[0].protocol}: {', '.join(said)}."


def _text(score: Score | None, digits: int, intervals: bool, sign: str) -> str:
    if score is None or score.value is None:
        return "–"
    half = (score.ci95[1] - score.ci95[0]) / 2 if intervals and score.ci95 else None
    return number(score.value, digits) + (f" {sign} {number(half, digits)}" if half is not None else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    clean = printable(text, 400).strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    clean = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", clean)
    # Neither a link made of itself, a mention, nor (at the beginning of a line) a list or a heading.
    clean = re.sub(r"(?i)(https?|ftp|mailto):", r"\1&#58;", clean)
    clean = re.sub(r"(?i)\b(www)\.", r"\1&#46;", clean).replace("@", "&#64;")
    return re.sub(r"^([-=:#+]|\d+[.)])", lambda m: "".join(f"&#{ord(c)};" for c in m[1]), clean)


TEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
       "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
       "|": r"\textbar{}", '"': "{''}", "'": "{'}", "`": "{`}", "[": "{[}", "]": "{]}", "*": "{*}",  # `\\` takes [
       "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}",
       "±": r"$\pm$", "–": "--", "−": "$-$", "∞": r"$\infty$", "·": r"$\cdot$"}  # fmt: skip
ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030a": "r",
    "\u030c": "v",
    "\u0327": "c",
}


def _tex(text: str) -> str:
    """Text for any LaTeX with its standard fonts; a letter that these do not have becomes its number, `[U+4E2D]`."""
    apart = re.sub(r"-(?=-)", "-\0", printable(text, 400))  # two hyphens would become a dash
    return "".join("{}" if c == "\0" else _tex_letter(c) for c in apart)


def _tex_letter(letter: str) -> str:
    if letter in TEX:
        return TEX[letter]
    if letter.isascii():
        return letter
    plain = unicodedata.normalize("NFD", letter)
    if len(plain) == 2 and plain[0].isascii() and plain[0].isalpha() and plain[1] in ACCENTS:
        return rf"\{ACCENTS[plain[1]]}{{{plain[0]}}}"
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def _comment(text: str) -> str:
    return printable(text, 1000)


def _tex_arrow(score: Score) -> str:
    return r" $\uparrow$" if score.higher_is_better else r" $\downarrow$"


def _tex_cell(score: Score | None, digits: int, wins: bool, intervals: bool) -> str:
    text = _tex(_text(score, digits, intervals, "±"))
    return rf"\textbf{{\boldmath {text}}}" if wins else text
