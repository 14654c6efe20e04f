"""A run's scores in the forms that others read: the Hub's two, CSV, LaTeX and Markdown.

What cannot be compared is not exported together: tables of several runs ask `require_comparable`, and a task of a
Hub benchmark, which all the world's runs share, has the protocol in its name and takes only runs made as the protocol
says. A missing value is left out or empty, never 0.

Sources: Hub documentation "Evaluation results" (eval.yaml, .eval_results), "Model cards" (model-index).
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jwb_dh_v1.analysis.comparable import expected_plan, labels, require_comparable
from jwb_dh_v1.analysis.wording import best, decimals, find, metrics_of, number, printable, regions_of, title
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.files import spreadsheet_safe
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


TASK = "image-to-video"
COLUMNS = ("system", "protocol", "region", "metric", "value", "ci_low", "ci_high", "n", "skipped", "failed", "coverage",
           "higher_is_better", "unit", "failures", "complete", "data", "boxes", "precision", "weights", "version",
           "ci_method", "networks", "note")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the Hub


def task_id(metric: str, region: str, protocol: str) -> str:
    """A task's name: `fid_face_standard_1`. The protocol is part of it, so that no two share a leaderboard column."""
    return f"{metric}_{region}_{protocol}".replace("/", "_").replace("-", "_")


def to_eval_results(
    result: Result,
    dataset_id: str,
    revision: str,
    *,
    data: str | None = None,
    date: str | None = None,
    source_url: str | None = None,
    source_name: str | None = None,
) -> str:
    """`.eval_results/*.yaml` of a model's repository: one entry per score that has a finite value.

    Args:
        result: a complete run, made as its protocol says.
        dataset_id: of the benchmark on the Hub.
        revision: the dataset's commit (40 hex digits) or tag that was scored.
        data: the fingerprint of that revision as `plan.data` has it. Needed for runs on a local copy, which do not
            know their revision; runs on the Hub's own copy must name it themselves.
        date: ISO 8601; without it the Hub takes the commit's.
        source_url, source_name: where the run's files lie.

    Raises:
        PlanMismatch: the run is not what others under this task are: another dataset or revision, own weights, boxes,
            precision or failure policy that are not the protocol's, or incomplete; the message names it.
        SetupError: its protocol is not known to this version, or a name without a URL.

    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    require_benchmark(result, dataset_id, revision, data)
    if source_name and not source_url:
        raise SetupError("The Hub shows a source's name only with its URL; give source_url as well.")
    entries = [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=task_id(score.metric, score.region, result.protocol),
            value=score.value,
            dataset_revision=revision,
            date=date,
            source_url=source_url,
            source_name=source_name,
            notes=_notes(result, score),
        )
        for score in _finite(result)
    ]
    return _yaml(eval_result_entries_to_yaml(entries))


def require_benchmark(result: Result, dataset_id: str, revision: str, data: str | None = None) -> None:
    """Refuse a run that may not stand in a column which everyone's runs share. See `to_eval_results`."""
    expected = expected_plan(result)
    plan: Mapping[str, Any] = result.plan
    found = str(plan.get("data") or "not recorded")
    wanted = f"hub {dataset_id}@{revision}:"
    if found.startswith("hub ") or data is None:
        if not found.startswith(wanted):
            raise PlanMismatch(
                f"The run's data are {found!r}, not {wanted!r}...; score with --data {dataset_id} --revision "
                f"{revision}, or give the fingerprint of that revision."
            )
    elif found != data:
        raise PlanMismatch(f"The run's data are {found!r}, the revision's are {data!r}.")
    if not re.fullmatch(r"[0-9a-f]{40}|v\d[\w.]*", revision):
        raise PlanMismatch(f"{revision!r} is no commit (40 hex digits) and no tag like v1.0.0: a branch moves.")
    default = expected.table.boxes
    boxes = {"none", f"{default}/1", default}
    for key, ours, theirs in (
        ("protocol", result.protocol, expected.protocol),
        ("boxes", plan.get("boxes") in boxes, True),
        ("failures", plan.get("failures"), "protocol"),
        ("precision", plan.get("precision"), "fp32"),
        ("complete", result.complete, True),
    ):
        if ours != theirs:
            said = plan.get(key) if key == "boxes" else ours
            raise PlanMismatch(f"{result.name}: {key} is {said!r}, which is not the benchmark's; score it again.")
    weights: Mapping[str, str] = plan.get("weights") or {}
    if other := [name for name, sha in expected.weights.items() if weights.get(name) != sha]:
        raise PlanMismatch(f"{result.name} was scored with other weights than the benchmark's: {', '.join(other)}.")


def to_model_index(
    result: Result,
    dataset_id: str,
    *,
    dataset_name: str = "JWB-DH-V1",
    config: str | None = None,
    split: str | None = "evaluation",
    revision: str | None = None,
) -> str:
    """The legacy `model-index` as the YAML of a model card's header, without its fences.

    Raises:
        PlanMismatch: the run names another Hub dataset or revision.

    """
    from huggingface_hub import EvalResult, ModelCardData

    found = str(result.plan.get("data"))
    if found.startswith("hub ") and not found.startswith(f"hub {dataset_id}@{revision or ''}"):
        raise PlanMismatch(f"The run's data are {found!r}, not {dataset_id}@{revision}.")
    results = [
        EvalResult(
            task_type=TASK,
            task_name=result.protocol,
            dataset_type=dataset_id,
            dataset_name=f"{dataset_name} ({result.protocol})",
            dataset_config=config,
            dataset_split=split,
            dataset_revision=revision,
            dataset_args={"protocol": result.protocol, **setting(result)},
            metric_type=score.metric,
            metric_name=f"{title(score.metric)}, {score.region} ({result.protocol}, n {score.n})",
            metric_value=score.value,
            metric_config=task_id(score.metric, score.region, result.protocol),
            metric_args={"region": score.region, "n": score.n, "skipped": score.skipped, "failed": score.failed,
                         "ci95": list(score.ci95) if score.ci95 else None},
        )
        for score in _finite(result)
    ]  # fmt: skip
    if not results:
        raise SetupError(f"{result.name} has no score with a finite value; there is nothing to export.")
    card = ModelCardData(model_name=printable(result.name, 120), eval_results=results)
    return str(card.to_yaml(original_order=["model-index"]))


def _finite(result: Result) -> list[Score]:
    return [score for score in result.scores if score.value is not None and math.isfinite(score.value)]


def _notes(result: Result, score: Score) -> str:
    ci95 = f"95 % interval {score.ci95[0]:.6g} to {score.ci95[1]:.6g}, " if score.ci95 else ""
    lost = f", {score.skipped} skipped, {score.failed} failed" if score.skipped or score.failed else ""
    made = ", ".join(f"{key} {value}" for key, value in setting(result).items() if key != "version")
    return f"{result.protocol}, {ci95}n {score.n}{lost}, {made}, {FRAMEWORK} {result.plan.get('version')}"


def _yaml(content: Any) -> str:
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))


# ---------------------------------------------------------------------------------------------------- CSV


def to_csv(results: Sequence[Result]) -> str:
    """Long form: a line per system, metric and region, with all digits and what they depend on.

    Infinite values are `inf`; missing ones are empty. Texts that a spreadsheet would compute begin with `'`.

    Raises:
        PlanMismatch: two of the runs cannot be put into one column.

    """
    require_comparable(results)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name, result in zip(labels(results), results, strict=True):
        weights: Mapping[str, str] = result.plan.get("weights") or {}
        shared = {"system": name, "protocol": result.protocol, "complete": result.complete, **setting(result),
                  "weights": " ".join(f"{key}={sha}" for key, sha in sorted(weights.items()))}  # fmt: skip
        for score in result.scores:
            facts = {key: value for key, value in asdict(score).items() if key in COLUMNS}
            low, high = score.ci95 or (None, None)
            writer.writerow({k: _harmless(v) for k, v in {**shared, **facts, "ci_low": low, "ci_high": high}.items()})
    return out.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return spreadsheet_safe(printable(value, 100_000))


FORMATS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "csv": to_csv,
    "latex": to_latex,
    "markdown": to_markdown,
}
