"""Exports as their readers see them: the Hub's parsers, LaTeX, CSV and Markdown readers."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from made_runs import DATA, DIFFERENT, HOSTILE, changed, other_weights, result_of

from jwb_dh_v1 import Result
from jwb_dh_v1.analysis.export import (
    COLUMNS,
    FORMATS,
    task_id,
    to_csv,
    to_eval_results,
    to_latex,
    to_markdown,
    to_model_index,
)
from jwb_dh_v1.errors import PlanMismatch, SetupError
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.version import __version__

ID, REVISION = "ORG/jwb-dh-v1", "v1.0.0"
NAMES = (
    "plain",
    HOSTILE,
    r"\input{/etc/passwd} a_b & 50% #1 {x} $y$ ~^ --- ``q'' \\",
    "[x] * `c` | **b** _i_ https://example.org @you",
    "* star [first]",
    "=HYPERLINK(1)",
    "模型 Ünïcode Ø 🙂",
    "1. list\n# heading",
)
LATEX = next(filter(None, map(shutil.which, ("pdflatex", "xelatex", "tectonic"))), None)


def missing() -> Result:
    """A run with a lost cell, an infinite and an uncertain value."""
    lost = {("csim", "face"): dict.fromkeys(range(8), "skipped"), ("ssim", "body"): {0: "failed"}}
    return result_of("holes", 7, lost=lost, values={("psnr", "body"): [math.inf] * 8})


def named(names: Sequence[str]) -> list[Result]:
    return [replace(result_of("x", i), name=name) for i, name in enumerate(names)]


# ----------------------------------------------------------------------------------------------------------- the Hub


def test_eval_results_are_parsed_by_the_hub() -> None:
    run = missing()
    text = to_eval_results(run, ID, REVISION, date="2026-11-22T10:00:00Z", source_url="https://example.org/run")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    wanted = {task_id(s.metric, s.region, "lite/1"): s for s in run.scores
              if s.value is not None and math.isfinite(s.value)}  # fmt: skip
    assert len(wanted) == len(run.scores) - 2  # nothing is 0 that is missing or infinite
    assert {entry.task_id: entry.value for entry in entries} == {key: s.value for key, s in wanted.items()}
    for entry in entries:
        assert (entry.dataset_id, entry.dataset_revision, entry.date) == (ID, REVISION, "2026-11-22T10:00:00Z")
        assert entry.source_url == "https://example.org/run"
        score = wanted[entry.task_id]
        assert entry.notes is not None
        assert entry.notes.startswith("lite/1, ") and f"n {score.n}" in entry.notes
        assert entry.notes.endswith(f"jwb-dh-v1 {__version__}")
    assert "1 failed" in next(e.notes or "" for e in entries if e.task_id == "ssim_body_lite_1")


def test_no_task_is_shared_by_two_protocols() -> None:
    """The Hub's leaderboard has a column per task."""
    ids = [{task_id(m.name, r, table.name) for m in table.metrics.values() for r in m.regions}
           for table in PROTOCOLS.values()]  # fmt: skip
    assert len(set.union(*ids)) == sum(map(len, ids))


@pytest.mark.parametrize(
    ("said", "run"),
    [
        ("weights than the benchmark's: mobilenet-v2", other_weights(result_of("a"))),
        ("boxes is 'annotations'", DIFFERENT["boxes"]),
        ("precision is 'bf16'", DIFFERENT["precision"]),
        ("failures is 'zero'", DIFFERENT["failures"]),
        ("@v1.0.1:", DIFFERENT["data"]),
        ("not recorded", changed(result_of("a"), data="")),
        ("parquet:", result_of("a", data="parquet:00")),
        ("complete is False", replace(result_of("a"), complete=False)),
    ],
)
def test_what_others_under_a_task_are_not_is_refused(said: str, run: Result) -> None:
    with pytest.raises(PlanMismatch, match=re.escape(said)):
        to_eval_results(run, ID, REVISION)


def test_data_of_a_task() -> None:
    local = result_of("a", data="parquet:00ff")
    assert "data parquet:00ff" in to_eval_results(local, ID, REVISION, data="parquet:00ff")
    with pytest.raises(PlanMismatch, match="the revision's are"):
        to_eval_results(local, ID, REVISION, data="parquet:00fe")
    with pytest.raises(PlanMismatch, match="hub OTHER/set@"):
        to_eval_results(result_of("a"), "OTHER/set", REVISION, data=DATA)
    with pytest.raises(PlanMismatch, match="a branch moves"):
        to_eval_results(result_of("a", data=f"hub {ID}@main:00"), ID, "main")
    with pytest.raises(SetupError, match="lite/9"):
        unknown = replace(changed(result_of("a"), protocol="lite/9"), protocol="lite/9")
        to_eval_results(unknown, ID, REVISION)
    with pytest.raises(SetupError, match="source_url"):
        to_eval_results(result_of("a"), ID, REVISION, source_name="logs")


def test_model_index_survives_a_model_card() -> None:
    run = replace(missing(), name=HOSTILE)
    card = ModelCard(f"---\n{to_model_index(run, ID, revision=REVISION)}\n---\n\n# card\n")
    results = card.data.eval_results
    assert results is not None and len(results) == len(run.scores) - 2
    for found in results:
        score = run[found.metric_type, found.metric_args["region"]]
        assert found.metric_value == score.value and found.metric_args["n"] == score.n
        assert found.metric_config == task_id(score.metric, score.region, "lite/1")
        assert found.metric_name is not None and "lite/1" in found.metric_name and score.region in found.metric_name
        assert (found.dataset_type, found.dataset_revision) == (ID, REVISION)
        assert found.dataset_args is not None and found.dataset_args["version"] == __version__
    assert "\u202e" not in str(card)
    with pytest.raises(PlanMismatch):
        to_model_index(run, ID, revision="v2.0.0")
    with pytest.raises(SetupError, match="nothing to export"):
        to_model_index(replace(run, scores=()), ID, revision=REVISION)


# --------------------------------------------------------------------------------------------------------------- CSV


def test_csv_gives_every_digit_back() -> None:
    runs = [result_of("a"), missing()]
    rows = list(csv.DictReader(io.StringIO(to_csv(runs))))
    assert len(rows) == sum(len(run.scores) for run in runs) and tuple(rows[0]) == COLUMNS
    by_key = {(row["system"], row["metric"], row["region"]): row for row in rows}
    for run in runs:
        for score in run.scores:
            row = by_key[run.name, score.metric, score.region]
            assert (float(row["value"]) if row["value"] else None) == score.value
            ends = (float(row["ci_low"]), float(row["ci_high"])) if row["ci_low"] else None
            assert ends == score.ci95 and int(row["n"]) == score.n and int(row["failed"]) == score.failed
            assert (row["protocol"], row["version"], row["data"]) == ("lite/1", __version__, DATA)
            assert dict(pair.split("=") for pair in row["weights"].split()) == run.plan["weights"]
    assert by_key["holes", "csim", "face"]["value"] == "" and by_key["holes", "psnr", "body"]["value"] == "inf"


def test_csv_holds_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(named(NAMES)))))
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert not [c for row in rows for c in row if c[:1] in set("=+@\t\r") or (c[:1] == "-" and not c[1:2].isdigit())]


# ------------------------------------------------------------------------------------------------------------- LaTeX


def compiled(text: str, folder: Path) -> str:
    """The text of the pages; fails where LaTeX says that something is wrong."""
    assert LATEX is not None
    (folder / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage[paperwidth=80cm,paperheight=60cm]{geometry}\n\\usepackage{booktabs}\n"
        f"\\begin{{document}}\n{text}\n\\end{{document}}\n", encoding="utf-8",
    )  # fmt: skip
    options = [] if LATEX.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run([LATEX, *options, "t.tex"], cwd=folder, capture_output=True, timeout=100)
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0 and (folder / "t.pdf").stat().st_size > 1000, said[-1500:]
    assert "Overfull" not in said and "Missing character" not in said and "undefined" not in said.lower(), said[-1500:]
    pdf = shutil.which("pdftotext")
    if pdf is None:
        return ""
    return subprocess.run([pdf, "-layout", "t.pdf", "-"], cwd=folder, capture_output=True).stdout.decode()


@pytest.mark.skipif(LATEX is None, reason="no LaTeX here (pdflatex, xelatex or tectonic)")
@pytest.mark.parametrize("intervals", [False, True])
def test_latex_compiles(intervals: bool, tmp_path: Path) -> None:
    runs = [*named(NAMES), missing()]
    text = compiled(to_latex(runs, intervals=intervals), tmp_path)
    if text:  # pdftotext
        assert "\\input{/etc/passwd} a" in text and "root:" not in text  # the underscore is a rule, not a letter
        for shown in ("b & 50% #1 {x} $y$", "* star [first]", "[U+6A21]", "code Ø", "---", "∞", "<script>"):
            assert shown in text, shown


def test_latex_says_what_it_is_of_and_marks_the_best() -> None:
    runs = [result_of("a"), result_of("b", 1, shift=0.2), missing()]
    text = to_latex(runs, "body")
    assert text.count(r"\begin{table}") == 1 and to_latex(runs).count(r"\begin{table}") == 3
    assert "n = 7 to 8 samples" in text and "lite/1" in text and f"jwb-dh-v1 {__version__}" in text and DATA in text
    lines = {line.split(" & ")[0]: line[: -len(r" \\")].split(" & ") for line in text.splitlines() if " & " in line}
    heads = [re.sub(r" \$.*", "", head) for head in lines["System"]]
    for place, head in enumerate(heads[1:], 1):
        metric = {"Subject consistency": "subject_consistency", "Dynamic degree": "dynamic_degree", "SSIM": "ssim",
                  "PSNR (dB)": "psnr"}[head]  # fmt: skip
        values = {run.name: run[metric, "body"].value or 0 for run in runs}
        bold = {name for name in values if lines[name][place].startswith(r"\textbf")}
        assert bold == {name for name, value in values.items() if value == max(values.values())}
    assert lines["holes"][heads.index("PSNR (dB)")] == r"\textbf{\boldmath $\infty$}"
    face = to_latex(runs, "face")
    assert " & -- " in next(line for line in face.splitlines() if line.startswith("holes"))
    with pytest.raises(SetupError, match="hands"):
        to_latex(runs, "hands")


# ---------------------------------------------------------------------------------------------------------- Markdown


def tables(text: str) -> tuple[list[list[list[str]]], str]:
    """The cells' texts of each table as a parser of GitHub's tables sees them, and the HTML."""
    markdown = pytest.importorskip("markdown_it")
    parser = markdown.MarkdownIt("commonmark").enable("table")
    found: list[list[list[str]]] = []
    for token in parser.parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 2:
            found[-1][-1].append("".join(child.content for child in token.children or ()))
    return found, parser.render(text)


def test_markdown_is_read_back() -> None:
    runs = [*named(NAMES), missing()]
    text = to_markdown(runs, intervals=True)
    found, page = tables(text)
    assert len(found) == 3
    for table in found:
        assert len(table) == 1 + len(runs) and {len(row) for row in table} == {len(table[0])}
        shown = [row[0] for row in table[1:]]
        clean = ["".join(c if c.isprintable() else "\ufffd" for c in run.name).strip() for run in runs]
        assert shown == clean  # every sign of every name, and none of them does anything
    assert not re.search(r"<(script|img|a|code|em|h1|li|del)\b", page)
    assert "lite/1, n = 7 to 8 samples" in page and f"jwb-dh-v1 {__version__}" in page
    csim, ssim = (found[1][0].index(f"{name} ↑") for name in ("CSIM", "SSIM"))
    assert found[1][-1][csim] == "–" and "±" in found[1][1][ssim]
    assert "±" in found[1][1][csim]  # four identities of a number with an upper bound


def test_markdown_marks_the_best() -> None:
    runs = [result_of("a"), result_of("b", 1, shift=0.2)]
    _, page = tables(to_markdown(runs, "speech"))
    better = min(runs, key=lambda run: run["wer", "speech"].value or 0)
    row = next(line for line in page.split("<tr>") if f"<td>{better.name}</td>" in line)
    assert "<strong>" in row and page.count("<strong>") == 2  # and the caption


def test_all_formats_take_several_runs_of_one_kind_only() -> None:
    assert set(FORMATS) == {"csv", "latex", "markdown"}
    for form in FORMATS.values():
        assert form([result_of("a"), result_of("b", 1)])
        with pytest.raises(SetupError):
            form([])
        for other in DIFFERENT.values():
            with pytest.raises(PlanMismatch):
                form([result_of("a"), other])
