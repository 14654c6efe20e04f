"""People's ratings of pairs of clips: one CSV, one row per rating, and what it says in the terms of `statistics`.

Columns (any order, further columns are ignored, UTF-8 with or without a BOM, commas):

    item_id, system_a, system_b   what was compared; the three together name a pair of clips
    order_shown                   `ab`: the clip of system_a was shown first; `ba`: that of system_b
    rater_id                      a code, never a name
    choice                        `a`: the clip of system_a is better, *wherever it was shown*; `b`; `tie`
    category, score_a, score_b, confidence, rt_ms, rationale, attention_pass      may be empty or not there

A row whose system_a is its system_b is an attention check (one clip twice, or a clip and its damaged copy): it is never
a verdict, its attention_pass says whether the rater saw what was plain. A rater who rates one pair twice is an error:
which of the two counts would change numbers, and only the study's owner knows.

Cells that a spreadsheet would run as a formula are written with an apostrophe before them, and read without it.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from jwb_dh_v1.errors import DataNotFound, SampleError, SetupError
from jwb_dh_v1.files import from_spreadsheet, locked, spreadsheet_safe, write_atomically
from jwb_dh_v1.judge.statistics import Judgement

REQUIRED = ("item_id", "system_a", "system_b", "order_shown", "rater_id", "choice")
LEAST_PASSED = 0.75  # of a rater's attention checks: one of four may be missed, none of three


@dataclass(frozen=True)
class Rating:
    """One row; see the module's text.

    Attributes:
        confidence: on the study's own scale, 0 and up; the rating page writes 1 (guess), 2 and 3 (sure).
        rt_ms: milliseconds from showing the pair to the choice.
        attention_pass: None where the row has nothing to do with a check.

    Raises:
        SampleError: unknown choice or order.

    """

    item_id: str
    system_a: str
    system_b: str
    order_shown: Literal["ab", "ba"]
    rater_id: str
    choice: Literal["a", "b", "tie"]
    category: str = ""
    score_a: float | None = None
    score_b: float | None = None
    confidence: float | None = None
    rt_ms: float | None = None
    rationale: str = ""
    attention_pass: bool | None = None

    def __post_init__(self) -> None:
        if self.choice not in ("a", "b", "tie") or self.order_shown not in ("ab", "ba"):
            raise SampleError(f"choice {self.choice!r} or order {self.order_shown!r} is not of a, b, tie and ab, ba.")

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Who rated what; the two systems in one order, however the row names them."""
        first, second = sorted((self.system_a, self.system_b))
        return self.rater_id, self.item_id, first, second

    @property
    def is_check(self) -> bool:
        """Whether the row is an attention check."""
        return self.system_a == self.system_b


COLUMNS = tuple(one.name for one in fields(Rating))


def _word(*allowed: str) -> Callable[[str], str]:
    def parse(cell: str) -> str:
        if cell.strip().lower() not in allowed:
            raise ValueError(f"{cell!r} is none of {', '.join(allowed)}")
        return cell.strip().lower()

    return parse


def _number(least: float) -> Callable[[str], float | None]:
    def parse(cell: str) -> float | None:
        value = float(cell) if cell.strip() else None
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{cell!r} is not finite, or below {least:g}")
        return value

    return parse


def _flag(cell: str) -> bool | None:
    known = {"": None, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if cell.strip().lower() not in known:
        raise ValueError(f"{cell!r} is neither true nor false")
    return known[cell.strip().lower()]


def _text(cell: str) -> str:
    return from_spreadsheet(cell)


def _name(cell: str) -> str:
    name = _text(cell).strip()
    if not name:
        raise ValueError("it is empty")
    return name


PARSE: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("item_id", "system_a", "system_b", "rater_id"), _name),
    "order_shown": _word("ab", "ba"),
    "choice": _word("a", "b", "tie"),
    **dict.fromkeys(("category", "rationale"), _text),
    **dict.fromkeys(("score_a", "score_b"), _number(-math.inf)),
    **dict.fromkeys(("confidence", "rt_ms"), _number(0)),
    "attention_pass": _flag,
}


def read_ratings(path: str | Path) -> list[Rating]:
    """All ratings of a CSV, in its order.

    Raises:
        DataNotFound: no such file.
        SetupError: not UTF-8, not a CSV with these columns, a cell that cannot be (line and column are named), or one
            pair rated twice by one rater (both lines are named).

    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataNotFound(f"There is no file {path}; give the CSV of ratings.") from None
    except UnicodeDecodeError as error:
        raise SetupError(f"{path} is not UTF-8 (byte {error.start}); save it as CSV UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    ratings: list[Rating] = []
    seen: dict[tuple[str, str, str, str], int] = {}
    line = 1  # of the row's start: a quoted cell may hold line breaks
    try:
        for cells in reader:
            if not header:
                header = _header(path, cells)
            elif any(cell.strip() for cell in cells):
                rating = _row(f"{path}, line {line}", header, cells)
                if rating.key in seen:
                    raise SetupError(
                        f"{path}, line {line}, column rater_id: {rating.rater_id!r} rated {rating.item_id!r} of these "
                        f"systems on line {seen[rating.key]} already; keep one of the two."
                    )
                seen[rating.key] = line
                ratings.append(rating)
            line = reader.line_num + 1
    except csv.Error as error:
        raise SetupError(f"{path}, line {line}: it cannot be read as CSV ({error}).") from None
    if not header:
        raise SetupError(f"{path} is empty; its first line must name the columns {', '.join(REQUIRED)}.")
    return ratings


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    missing = [name for name in REQUIRED if name not in header]
    twice = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if missing:
        hint = " (the line has semicolons: save it with commas)" if len(cells) == 1 and ";" in cells[0] else ""
        raise SetupError(f"{path}, line 1: the columns {', '.join(missing)} are missing{hint}.")
    if twice:
        raise SetupError(f"{path}, line 1: the column {twice[0]} is there twice.")
    return header


def _row(place: str, header: list[str], cells: list[str]) -> Rating:
    if len(cells) != len(header):
        raise SetupError(f"{place}: {len(cells)} cells, but the header has {len(header)}; was it cut off?")
    values: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        if name in PARSE:
            try:
                values[name] = PARSE[name](cell)
            except ValueError as error:
                raise SetupError(f"{place}, column {name}: {error}.") from None
    return Rating(**values)


def write_ratings(path: str | Path, ratings: Iterable[Rating]) -> None:
    """Write a CSV that `read_ratings` gives back, atomically; what was there is replaced."""
    write_atomically(Path(path), _lines([COLUMNS, *map(_cells, ratings)]))


def _cells(rating: Rating, flat: bool = False) -> list[str]:
    cells = []
    for value in (getattr(rating, name) for name in COLUMNS):
        if isinstance(value, str):
            text = re.sub(r"[\r\n]+", " ", value) if flat else value
            cells.append(spreadsheet_safe(text))
        elif isinstance(value, bool) or value is None:
            cells.append("" if value is None else str(value).lower())
        else:
            cells.append(f"{value:.15g}")
    return cells


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)  # with "\n" alone, a "\r" in a cell is not quoted
    return buffer.getvalue().encode("utf-8")


def append_rating(path: str | Path, rating: Rating) -> bool:
    """Add one row, and return only when it is on the disk; False if the rater had rated this pair already.

    Several threads and processes may write to one file: each holds `PATH.lock` meanwhile. Line breaks within texts
    become blanks, so that a line is a row.

    Raises:
        SetupError: what is there is no such CSV, or has other columns than `write_ratings` writes.

    """
    path = Path(path)
    with locked(Path(f"{path}.lock"), wait=-1):
        there = path.read_bytes() if path.exists() else b""
        if there:
            header = there.decode("utf-8-sig", "replace").splitlines()[0].split(",")
            if tuple(header) != COLUMNS:
                raise SetupError(f"{path} has other columns than {', '.join(COLUMNS)}; give a new file.")
            if rating.key in {one.key for one in read_ratings(path)}:
                return False
        with path.open("ab") as handle:
            start = b"" if there.endswith(b"\n") else b"\n" if there else _lines([COLUMNS])
            handle.write(start + _lines([_cells(rating, flat=True)]))
            handle.flush()
            os.fsync(handle.fileno())
    return True


@dataclass(frozen=True)
class Panel:
    """Raters' verdicts, and what was left out of them.

    Attributes:
        judgements: of each rater that counts; never failed, orders as shown.
        categories: of each (sample_id, system, baseline), empty where the file says none.
        rows, checks: rows of the file, and attention checks among them.
        failed_rows: verdicts left out as their own row says attention_pass false.
        excluded: raters left out whole, with the share of the checks they passed; excluded_rows: their verdicts.

    """

    judgements: Mapping[str, tuple[Judgement, ...]]
    categories: Mapping[tuple[str, str, str], str]
    rows: int
    checks: int
    failed_rows: int
    excluded: Mapping[str, float]
    excluded_rows: int


def panel_of(
    ratings: Iterable[Rating],
    matches: Iterable[tuple[str, str]] = (),
    identities: Mapping[str, str] | None = None,
    least_passed: float = LEAST_PASSED,
) -> Panel:
    """Ratings as judgements per rater, the unattentive left out.

    Args:
        ratings: as read.
        matches: known (system, baseline); which of the two systems of a rating is the system. Where neither way round
            is known, the first in the alphabet is.
        identities: item_id to the person (or text) in it; an item that is not there is a person of its own.
        least_passed: a rater who passed a smaller share of the checks is left out.

    """
    ratings, known = list(ratings), set(matches)
    passed: dict[str, list[bool]] = {}
    for one in ratings:
        if one.is_check and one.attention_pass is not None:
            passed.setdefault(one.rater_id, []).append(one.attention_pass)
    shares = {rater: sum(flags) / len(flags) for rater, flags in passed.items()}
    excluded = {rater: share for rater, share in sorted(shares.items()) if share < least_passed}
    verdicts = [one for one in ratings if not one.is_check]
    kept = [one for one in verdicts if one.rater_id not in excluded]
    attentive = [one for one in kept if one.attention_pass is not False]
    judgements: dict[str, list[Judgement]] = {}
    categories: dict[tuple[str, str, str], str] = {}
    for one in attentive:
        judged = _judgement(one, known, identities or {})
        judgements.setdefault(one.rater_id, []).append(judged)
        key = (judged.sample_id, judged.system, judged.baseline)
        categories[key] = categories.get(key) or one.category
    return Panel(
        {rater: tuple(found) for rater, found in sorted(judgements.items())},
        categories,
        rows=len(ratings),
        checks=len(ratings) - len(verdicts),
        failed_rows=len(kept) - len(attentive),
        excluded=excluded,
        excluded_rows=len(verdicts) - len(kept),
    )


def _judgement(one: Rating, known: set[tuple[str, str]], identities: Mapping[str, str]) -> Judgement:
    names = (one.system_a, one.system_b)
    as_written = names in known or (names[::-1] not in known and names == tuple(sorted(names)))
    system, baseline = names if as_written else names[::-1]
    better = {"a": "win", "b": "loss"} if as_written else {"a": "loss", "b": "win"}
    scores = (one.score_a, one.score_b) if as_written else (one.score_b, one.score_a)
    return Judgement(
        system,
        baseline,
        one.item_id,
        identities.get(one.item_id, one.item_id),
        better.get(one.choice, "tie"),  # type: ignore[arg-type]
        "system_first" if (one.order_shown == "ab") == as_written else "baseline_first",
        score_system=scores[0],
        score_baseline=scores[1],
    )
