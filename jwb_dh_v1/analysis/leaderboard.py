"""The leaderboard: many runs, from folders or the Hub, as tables of those that can be compared; one HTML file.

Runs share a table only if nothing that could have moved a score differs between any two of them (`comparable.py`;
comparability is not transitive, so all pairs are asked). A run that fits several tables stands in each. Published
numbers are a table of their own kind: texts, that were not recomputed and take part in no order.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jwb_dh_v1.analysis.comparable import NOT_RECORDED, comparable, differing, labels, require_comparable
from jwb_dh_v1.analysis.find_results import read_result, result_files
from jwb_dh_v1.analysis.rank_aggregation import Aggregates, Column, standings, summary
from jwb_dh_v1.analysis.wording import (
    STAND_INS,
    decimals,
    find,
    interval,
    metrics_of,
    number,
    printable,
    regions_of,
    title,
)
from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.files import write_atomically
from jwb_dh_v1.scoring.result import Result, Score, _plain
from jwb_dh_v1.version import __version__

SCHEMA = "jwb-dh-v1/leaderboard/1"
PAPER = "arXiv 2507.20987"
SETTING = ("data", "boxes", "failures", "precision")


@dataclass(frozen=True)
class Table:
    """One region of a group: a column per metric, and the aggregates over them."""

    region: str
    columns: tuple[Column, ...]
    summary: Aggregates

    @property
    def order(self) -> list[int]:
        """Numbers of the systems, best first: by mean rank, or by the only metric."""
        ranks: Sequence[int | None] = self.summary.headline.ranks
        if len(self.columns) == 1:
            ranks = [standing.rank if standing else None for standing in self.columns[0].standings]
        return sorted(range(len(ranks)), key=lambda i: ranks[i] or math.inf)

    @property
    def notes(self) -> list[tuple[str, list[str]]]:
        """What to mind, each with the metrics it is about."""
        found: dict[str, list[str]] = {}
        for column in self.columns:
            if column.note:
                found.setdefault(column.note, []).append(column.metric)
        return list(found.items())


@dataclass(frozen=True)
class Group:
    """Runs of which any two can be compared.

    Attributes:
        protocol: of all of them.
        apart: (what, value) that tells the group from others of its protocol, e.g. `boxes`, `weights.scrfd`.
        runs, names: the runs, best first, and a name for each.
        ranked: per run; an incomplete one is shown but has no rank.
        own_weights: per run, whether it used weights that are not the table's.
        tables: by region.
        overall: the aggregates over all regions.
        notes: what to mind.

    """

    protocol: str
    apart: tuple[tuple[str, str], ...]
    runs: tuple[Result, ...]
    names: tuple[str, ...]
    ranked: tuple[bool, ...]
    own_weights: tuple[bool, ...]
    tables: tuple[Table, ...]
    overall: Aggregates
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The protocol and what sets the group apart."""
        return " · ".join([self.protocol, *(f"{key}: {value}" for key, value in self.apart)])

    @property
    def setting(self) -> dict[str, str]:
        """What all runs have in common (a run of whole frames may have no boxes)."""
        return {
            key: next((str(r.plan[key]) for r in self.runs if r.plan.get(key) not in (None, "none")), "not recorded")
            for key in SETTING
        }


@dataclass(frozen=True)
class PublishedTable:
    """One region of the published tables: system -> (text as printed, verdict) by metric."""

    region: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    source: str = PAPER


@dataclass(frozen=True)
class Leaderboard:
    """All groups, the published tables, and the files that are on no table with the reason."""

    groups: tuple[Group, ...]
    published: tuple[PublishedTable, ...]
    refused: tuple[tuple[str, str], ...]
    found: int

    def to_json(self) -> str:
        """Everything as JSON; infinite values are the string `inf`, missing ones null."""
        document = {
            "schema": SCHEMA,
            "version": __version__,
            "groups": [_group_document(group) for group in self.groups],
            "published": [asdict(table) for table in self.published],
            "refused": [{"file": name, "reason": reason} for name, reason in self.refused],
        }
        return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _group_document(group: Group) -> dict[str, Any]:
    return {
        "protocol": group.protocol,
        "apart": dict(group.apart),
        "setting": group.setting,
        "systems": [
            {"name": name, "complete": run.complete, "ranked": ranked, "own_weights": own, "plan": dict(run.plan)}
            for name, run, ranked, own in zip(group.names, group.runs, group.ranked, group.own_weights, strict=True)
        ],
        "tables": [asdict(table) for table in group.tables],
        "overall": asdict(group.overall),
        "notes": group.notes,
    }


def leaderboard(sources: Iterable[str | Path]) -> Leaderboard:
    """Collect runs and put those that can be compared into one table.

    Args:
        sources: folders in which `results.json` are looked for at any depth, such files, or Hub datasets of them as
            `OWNER/NAME` or `OWNER/NAME@REVISION` (a folder of that name goes first).

    Raises:
        DataNotFound: a source is neither, or cannot be reached; or none holds a file `results.json`.

    """
    runs: list[Result] = []
    refused: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for shown, path in sorted({path.resolve(): (shown, path) for shown, path in result_files(sources)}.values()):
        try:
            result = read_result(path)
            content = hashlib.sha256(result.to_json().encode()).hexdigest()
            if content in seen:
                raise SetupError(f"It holds what {seen[content]} holds.")
            if not result.scores:
                raise SetupError("It holds no score.")
            seen[content] = shown
            runs.append(result)
        except (SetupError, UnicodeEncodeError) as error:
            refused.append((shown, str(error).replace(str(path), shown)))
    if not runs and not refused:
        raise DataNotFound("There is no results.json in any of these; `jwb-dh score ... --out FOLDER` makes one.")
    cliques = _cliques(runs)
    groups = [_group(clique, [other for other in cliques if other is not clique]) for clique in cliques]
    order = {name: place for place, name in enumerate(("standard", "paper", "lite"))}
    groups.sort(key=lambda g: (order.get(g.protocol.partition("/")[0], 9), g.protocol, -len(g.runs), g.title))
    return Leaderboard(tuple(groups), tuple(published_tables()), tuple(refused), len(runs) + len(refused))


def _cliques(runs: Sequence[Result]) -> list[list[Result]]:
    """Groups in which any two runs are comparable; a run joins every group that it fits, and each has one."""
    known: dict[tuple[Any, Any], bool] = {}
    marks = {id(run): _mark(run) for run in runs}

    def fits(run: Result, members: Iterable[Result]) -> bool:
        for other in members:
            key = (marks[id(run)], marks[id(other)])
            if key not in known:
                known[key] = comparable(run, other)
            if not known[key]:
                return False
        return True

    ordered = sorted(runs, key=lambda run: (-len(run.scores), run.name, str(run.folder)))
    cliques: list[list[Result]] = []
    for place, run in enumerate(ordered):
        homes = [clique for clique in cliques if fits(run, clique)]
        for clique in homes:
            clique.append(run)
        if not homes:
            clique = [run]
            for other in ordered[:place]:
                if fits(other, clique):
                    clique.append(other)
            cliques.append(clique)
    return cliques


def _mark(run: Result) -> str:
    """Everything of a run that `differing` looks at: equal marks, equal answers."""
    facts = [(s.metric, s.region, s.higher_is_better, s.unit, s.failures, s.value is None, s.n + s.skipped + s.failed)
             for s in run.scores]  # fmt: skip
    return repr((run.protocol, sorted((k, repr(v)) for k, v in run.plan.items() if k != "cells"), sorted(facts)))


def _group(runs: Sequence[Result], others: Sequence[Sequence[Result]]) -> Group:
    notes = require_comparable(runs)  # asks all pairs again
    own = {id(run): any("; own weights: " in score.networks for score in run.scores) for run in runs}
    draft = _tables(runs)
    place = draft[1].headline.ranks
    order = sorted(range(len(runs)), key=lambda i: (not runs[i].complete, place[i] or math.inf, runs[i].name))
    ordered = [runs[i] for i in order]
    tables, overall = _tables(ordered)
    names = labels([*ordered])
    if any(own.values()):
        notes.append("Runs marked 'own weights' used files that are not the table's; their hashes stand in the plan.")
    if any(str(run.plan.get("data")).startswith("hub ") and "@main:" in str(run.plan.get("data")) for run in runs):
        notes.append("The data are of a branch that moves, not of a commit: that they were the same is not recorded.")
    if ordered[0].protocol.startswith("lite/"):
        notes.append(STAND_INS)
    return Group(
        ordered[0].protocol,
        _set_apart(runs, others),
        tuple(ordered),
        tuple(names),
        tuple(run.complete for run in ordered),
        tuple(own[id(run)] for run in ordered),
        tables,
        overall,
        tuple(notes),
    )


def _set_apart(runs: Sequence[Result], others: Sequence[Sequence[Result]]) -> tuple[tuple[str, str], ...]:
    """What tells these runs from other groups of their protocol, with their own value."""
    found: dict[str, str] = {}
    one_sided = set()
    for run in runs:
        for other in (other for group in others for other in group if other.protocol == run.protocol):
            for key, values in differing(run, other).items():
                ours, theirs = (NOT_RECORDED if value in ("None", "none") else value for value in values)
                if found.get(key, NOT_RECORDED) == NOT_RECORDED:
                    found[key] = ours
                if NOT_RECORDED in (ours, theirs):
                    one_sided.add(key)
    # Other data have other numbers of samples, and other boxes other detectors: these go without saying.
    said = {key: v for key, v in found.items() if not (key.startswith("weights.") and key in one_sided)}
    if "data" in said:
        said.pop("number of samples", None)
    return tuple((key, _short(value)) for key, value in sorted((said or found).items()))


def _short(text: str) -> str:
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{28,}", r"\1", printable(text, 160))


def _tables(runs: Sequence[Result]) -> tuple[tuple[Table, ...], Aggregates]:
    scores = [score for run in runs for score in run.scores]
    ranked = [run.complete for run in runs]
    tables, every = [], []
    for region in regions_of(scores):
        columns = []
        for metric in metrics_of(score for score in scores if score.region == region):
            row = tuple(find(run, metric, region) for run in runs)
            columns.append(_column(metric, region, row, ranked))
        tables.append(Table(region, tuple(columns), summary(columns, ranked)))
        every += columns
    return tuple(tables), summary(every, ranked)


def _column(metric: str, region: str, row: tuple[Score | None, ...], ranked: Sequence[bool]) -> Column:
    there = [score for score in row if score]
    valued = [score for score in there if score.value is not None]
    counts = sorted({score.n for score in valued})
    note = ""
    if len(counts) > 1:
        note = f"of {counts[0]} to {counts[-1]} clips: not all systems have a score for the same ones"
        if any(score.note.startswith("biased") for score in valued):
            note += ", and fewer features give larger distances"
    return Column(metric, region, there[0].higher_is_better, there[0].unit, decimals(there), row,
                  standings(row, ranked), note)  # fmt: skip


def published_tables(text: str | None = None) -> list[PublishedTable]:
    """The benchmark's published cells by region, as printed; `verdict` is what the authors' own files give, if known.

    Args:
        text: a CSV with columns region, system, metric, published and, if known, verdict; the package's by default.

    """
    if text is None:
        text = files("jwb_dh_v1.analysis").joinpath("published.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    tables = []
    for region in dict.fromkeys(row["region"] for row in rows):
        here = {
            (r["system"], r["metric"]): (r["published"], r.get("verdict") or "") for r in rows if r["region"] == region
        }
        metrics = tuple(dict.fromkeys(metric for _, metric in here))
        lines = tuple((s, tuple(here[s, metric] for metric in metrics)) for s in dict.fromkeys(s for s, _ in here))
        tables.append(PublishedTable(region, metrics, lines))
    return tables


def write_leaderboard(board: Leaderboard, out: str | Path, heading: str = "JWB-DH-V1 leaderboard") -> list[Path]:
    """Write a site: `index.html`, which loads nothing from anywhere, and `leaderboard.json`.

    Args:
        board: what `leaderboard` found.
        out: the folder, made if it is missing; each file is written whole or not at all.
        heading: of the page.

    Returns:
        The files.

    """
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    page, data = place / "index.html", place / "leaderboard.json"
    write_atomically(page, to_html(board, heading).encode("utf-8", "replace"))
    write_atomically(data, board.to_json().encode("utf-8", "replace"))
    return [page, data]


def to_html(board: Leaderboard, heading: str = "JWB-DH-V1 leaderboard") -> str:
    """The page. Every name is escaped, and no script but its own can run in it."""
    from jinja2 import Environment, StrictUndefined

    source = files("jwb_dh_v1.analysis").joinpath("leaderboard.html.j2").read_text(encoding="utf-8")
    script = source[source.index("<script>") + len("<script>") : source.index("</script>")]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    environment.globals.update(number=number, interval=interval, title=title, printable=printable, short=_short)
    return environment.from_string(source).render(
        board=board,
        heading=heading,
        version=__version__,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _visible(value: Any) -> Any:
    """Texts without control and direction characters, whatever the template does with them; markup as it is."""
    return printable(value, 1000) if type(value) is str else value
