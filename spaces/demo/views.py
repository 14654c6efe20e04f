"""What the page shows of a result: table, radar, words, files to download; and the published tables.

Names come from visitors: everything goes through `html.escape` or through components that escape.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jwb_dh_v1.analysis.leaderboard import leaderboard, to_html
from jwb_dh_v1.analysis.reconcile import published
from jwb_dh_v1.analysis.wording import STAND_INS, number, printable, title
from jwb_dh_v1.files import spreadsheet_safe
from jwb_dh_v1.report.charts import radar_axes, radar_of
from jwb_dh_v1.scoring.result import Score

TABLE = ["Metric", "Region", "Value", "Better", "n / skipped / failed", "95 % interval", "Network", "Note"]
SPEECH = ["Recording", "Length", "Loudness", "WER", "Wrong / missing / added", "Words heard"]
SHORT = {
    "subject_consistency": "Subject",
    "background_consistency": "Background",
    "motion_smoothness": "Smoothness",
    "dynamic_degree": "Dynamic",
    "aesthetic_quality": "Aesthetic",
    "imaging_quality": "Imaging",
}


def digits(value: float | None) -> int:
    """Digits after the point for four in all."""
    return 3 if not value or not math.isfinite(value) else min(4, max(0, 3 - math.floor(math.log10(abs(value)))))


def _number(value: Any) -> float | None:
    return float(value) if value is not None else None


def table(document: Mapping[str, Any]) -> str:
    """One line per metric and region, as an HTML table that a keyboard can scroll."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in document["samples"]:
        if row["status"] != "ok":
            reasons.setdefault((row["metric"], row["region"]), []).append(row["message"])
    lines = []
    for score in document["scores"]:
        value = _number(score["value"])
        known = digits(value)
        ci = score["ci95"]
        why = dict.fromkeys(reasons.get((score["metric"], score["region"]), []))
        note = "; ".join([*([score["note"]] if score["note"] else []), *list(why)[:2]])
        unit = f" {score['unit']}" if score["unit"] and value is not None else ""
        cells = [
            score["region"],
            number(value, known) + unit,
            "higher ↑" if score["higher_is_better"] else "lower ↓",
            f"{score['n']} / {score['skipped']} / {score['failed']}",
            f"[{number(ci[0], known)}, {number(ci[1], known)}]" if ci else "–",
            score["networks"],
            printable(note, 300),
        ]
        faint = ' class="faint"' if value is None else ""
        lines.append(f'<tr{faint}><th scope="row">{html.escape(title(score["metric"]))}</th>'
                     + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")  # fmt: skip
    heads = "".join(f'<th scope="col">{head}</th>' for head in TABLE)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Scores"><table class="scores">'
        f"<caption>Scores</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def words(document: Mapping[str, Any]) -> str:
    """A diagnosis in a few sentences, as HTML."""
    scores = document["scores"]
    found = [s for s in scores if s["value"] is not None]
    failed = sorted({row["message"] for row in document["samples"] if row["status"] == "failed"})
    size = len({row["sample_id"] for row in document["samples"]})
    clips = "one clip" if size == 1 else f"{size} clips"
    lines = [f"{document['protocol']}: {len(found)} of {len(scores)} scores of {clips}."]
    for row in weakest(document):
        lines.append(row)
    if failed:
        lines.append("Failed: " + " ".join(failed[:3]))
    lines += document["remarks"]
    if document["protocol"].startswith("lite/"):
        lines.append(STAND_INS)
    items = "".join(f"<li>{html.escape(printable(line, 500))}</li>" for line in lines)
    name = html.escape(printable(document["name"], 80))
    return f'<section aria-label="Diagnosis" class="words"><h3>{name}</h3><ul>{items}</ul></section>'


def speech(document: Mapping[str, Any]) -> str:
    """The video's speech beside the baseline's, as a table with remarks; nothing without a baseline."""
    found = document.get("speech")
    if not found:
        return ""
    lines = []
    for side in ("generated", "baseline"):
        facts = found[side]
        counts = "/".join(str(facts[name]) for name in ("substitutions", "deletions", "insertions") if name in facts)
        cells = [
            "no sound" if facts["seconds"] is None else f"{facts['seconds']:.1f} s",
            "silent" if facts["silent"] else "–" if facts["lufs"] is None else f"{facts['lufs']:.1f} LUFS",
            f"{100 * facts['wer']:.1f} %" if "wer" in facts else "–",
            f"{counts} of {facts['words']}" if counts else "–",
            printable(facts.get("hypothesis") or "–", 400),
        ]
        lines.append(f'<tr><th scope="row">{side.capitalize()}</th>'
                     + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")  # fmt: skip
    heads = "".join(f'<th scope="col">{head}</th>' for head in SPEECH)
    notes = "".join(f"<li>{html.escape(printable(line, 500))}</li>" for line in found["remarks"])
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Speech beside the baseline">'
        '<table class="scores speech">'
        f"<caption>Speech beside the baseline</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
        f'</table></div><section class="words" aria-label="Remarks on speech"><ul>{notes}</ul></section>'
    )


def weakest(document: Mapping[str, Any]) -> list[str]:
    """Where a clip's curve falls furthest below its own middle: one sentence per metric, at most three."""
    better = {(s["metric"], s["region"]): s["higher_is_better"] for s in document["scores"]}
    drops = []
    for row in document["samples"]:
        curve = np.array([v if isinstance(v, float) else np.nan for v in row["curve"]])
        if row["status"] != "ok" or np.isfinite(curve).sum() < 8:
            continue
        sign = 1 if better[row["metric"], row["region"]] else -1
        middle = float(np.nanmedian(curve))
        spread = float(np.nanmedian(np.abs(curve - middle)))
        at = int(np.nanargmin(sign * curve))
        if spread > 0 and sign * (middle - curve[at]) > 6 * spread:
            drops.append((sign * (middle - curve[at]) / spread, row, at, curve[at], middle))
    drops.sort(key=lambda drop: -drop[0])
    return [
        f"{title(row['metric'])} of {row['region']} in {printable(row['sample_id'], 40)} is at its worst at entry "
        f"{at} of its curve: {number(worst, digits(worst))}, usually {number(middle, digits(middle))}."
        for _, row, at, worst, middle in drops[:3]
    ]


def radars(document: Mapping[str, Any]) -> str:
    """The regions' scores on the report's radar, with what is not on it."""
    names = {field.name for field in fields(Score)}
    scores = [Score(**{k: v for k, v in s.items() if k in names} | {"range": tuple(s["range"])})
              for s in document["scores"]]  # fmt: skip
    drawn = radar_of(scores)
    if not drawn:
        return '<p class="faint">A radar needs three scores between 0 and 1.</p>'
    _, others = radar_axes(scores)
    note = "Further out is better; the rim is the best there is."
    if others:
        note += f" Without such a scale, and so not drawn: {', '.join(title(name) for name in others)}."
    return f'<div class="radars"><figure class="radar">{drawn}</figure></div><p class="faint">{html.escape(note)}</p>'


def per_clip(document: Mapping[str, Any]) -> dict[str, Any]:
    """One line per clip and one column per metric and region, as a table's `headers` and `value`."""
    columns = list(dict.fromkeys((row["metric"], row["region"]) for row in document["samples"]))
    cells = {(row["sample_id"], row["metric"], row["region"]): row for row in document["samples"]}
    shown = [column for column in columns if any(cells[key]["value"] is not None for key in cells if key[1:] == column)]
    lines = []
    for name in dict.fromkeys(row["sample_id"] for row in document["samples"]):
        values = [cells[name, *column] for column in shown]
        lines.append([printable(name), *(_cell(row) for row in values)])
    return {"headers": ["Clip", *(f"{title(m)}, {r}" for m, r in shown)], "value": lines}


def _cell(row: Mapping[str, Any]) -> str:
    value = _number(row["value"])
    return row["status"] if value is None else number(value, digits(value))


def downloads(document: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """Write `results.json` and `samples.csv`; a cell that a spreadsheet would run gets a quote before it."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, rows = folder / "results.json", folder / "samples.csv"
    whole.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    columns = [name for name in (document["samples"] or [{}])[0] if name not in {"curve", "facts"}]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in document["samples"]:
        writer.writerow([spreadsheet_safe(v) if isinstance(v := row[name], str) else v for name in columns])
    rows.write_text(buffer.getvalue(), encoding="utf-8")
    return str(whole), str(rows)


MARKS = {"reproduced": "✓", "last digit": "≈", "not reproducible": "✗", "no data": "·"}


@cache
def leaderboard_rows() -> list[dict[str, str]]:
    """The published cells with whether the authors' own per-video files give them."""
    return [
        {
            "region": cell.region,
            "system": cell.system,
            "metric": cell.metric,
            "published": cell.text,
            "verdict": cell.verdict,
            "source": "arXiv 2507.20987",
        }
        for cell in published()
    ]


def runs_page(source: str | None) -> str:
    """The leaderboard of a folder or Hub dataset of runs as HTML, nothing without one.

    It is the page of `jwb-dh leaderboard`, in a frame of its own: its style and script stay there.
    """
    if not source:
        return ""
    page = html.escape(to_html(leaderboard([source])), quote=True)
    return (
        f'<iframe title="Leaderboard of runs" srcdoc="{page}" sandbox="allow-scripts" '
        'style="width: 100%; height: 80vh; border: 0"></iframe>'
    )


def leaderboard_table(region: str) -> tuple[list[str], list[list[str]]]:
    """Column titles and one line per system."""
    rows = [row for row in leaderboard_rows() if row["region"] == region]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = {r["metric"]: f"{r['published']} {MARKS[r['verdict']]}" for r in rows if r["system"] == system}
        lines.append([system, *(cells[metric] for metric in metrics), "arXiv 2507.20987"])
    return ["System", *(SHORT.get(metric, title(metric)) for metric in metrics), "Source"], lines
