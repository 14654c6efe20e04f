"""Where results are looked for: folders, files, and datasets on the Hub.

Results from others: read a `results.json` alone.

Whoever wrote the files may have made a mistake or may cheat: nothing is taken on trust but the numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import DataNotFound, SetupError
from jwb_dh_v1.hub import hub_errors, reason
from jwb_dh_v1.scoring.result import SCHEMA, Result, Score
from jwb_dh_v1.version import __version__

HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
PATTERNS = ["results.json", "*/results.json"]  # `*` also stands for `/` here


def result_files(sources: Iterable[str | Path]) -> Iterable[tuple[str, Path]]:
    """Files `results.json` with the name to call each by.

    Args:
        sources: folders (looked through at any depth), files, or Hub datasets as `OWNER/NAME` or `OWNER/NAME@REVISION`.

    Raises:
        DataNotFound: a source is none of these, or cannot be reached.

    """
    for source in sources:
        place, prefix = Path(source), ""
        if not place.exists():
            place, prefix = from_hub(str(source)), f"{source}: "
        if place.is_file():
            yield str(place), place
        for path in sorted(place.rglob("results.json")) if place.is_dir() else ():
            inside = path.relative_to(place)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield (f"{prefix}{inside.as_posix()}" if prefix else str(path)), path


def from_hub(name: str) -> Path:
    """A Hub dataset's `results.json` files, fetched into the Hub's own cache."""
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise DataNotFound(f"{name} is no folder, no file, and no Hub dataset as OWNER/NAME.")
    from huggingface_hub import snapshot_download

    try:
        place = snapshot_download(
            match["repo"], repo_type="dataset", revision=match["revision"], allow_patterns=PATTERNS,
            library_name="jwb-dh-v1", library_version=__version__,
        )  # fmt: skip
    except hub_errors(OSError, ValueError) as error:
        raise DataNotFound(f"{name} is no folder here, and cannot be had from the Hub: {reason(error)}.") from error
    return Path(place)


MOST_BYTES = 10_000_000  # a results.json has some 30 kB


def read_result(path: str | Path) -> Result:
    """Read a `results.json`; its `samples` are None, as the rows lie in another file.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        DataNotFound: there is no such file.
        SetupError: it is damaged, of another schema, or contradicts itself; the message says how.

    """
    file = Path(path)
    if file.is_dir():
        file = file / "results.json"
    if not file.is_file():
        raise DataNotFound(f"{file} is not there; `jwb-dh score ... --out {file.parent}` makes it.")
    if file.stat().st_size > MOST_BYTES:
        raise SetupError(f"{file} has {file.stat().st_size / 1e6:.0f} MB; results have at most {MOST_BYTES / 1e6:.0f}.")
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
        return _result(found, file.parent)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise SetupError(f"{file} is no results file of this version: {said}.") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands there twice would be read differently by different readers."""
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} stands there twice")
    return dict(pairs)


def _result(found: Any, folder: Path) -> Result:
    _must(isinstance(found, dict), "it holds no object")
    _must(found.get("schema") == SCHEMA, f"its schema is {found.get('schema')!r}, {SCHEMA!r} is read")
    plan, versions = found["plan"], found["versions"]
    for key in ("name", "protocol", "device"):
        _must(isinstance(found[key], str), f"{key!r} is no text")
    _must(isinstance(found["complete"], bool), "'complete' is neither true nor false")
    _must(isinstance(plan, dict) and isinstance(versions, dict), "plan or versions are no objects")
    _must(plan.get("protocol") == found["protocol"], "plan and scores name different protocols")
    for key in ("boxes", "data", "decoder", "failures", "precision", "version"):
        _must(isinstance(plan.get(key), str | None), f"'plan.{key}' is no text")
    for name, table in (("plan.weights", plan.get("weights")), ("versions", versions)):
        fine = isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
        _must(fine, f"{name!r} does not name texts")
    _must(isinstance(found["scores"], list), "'scores' is no list")
    scores = tuple(_score(cell) for cell in found["scores"])
    twice = [c for c, count in Counter((s.metric, s.region) for s in scores).items() if count > 1]
    _must(not twice, f"several scores for {' on '.join(twice[0]) if twice else ''}")
    return Result(found["name"], found["protocol"], found["complete"], scores, plan, versions, found["device"],
                  folder=folder)  # fmt: skip


def _must(holds: bool, else_said: str) -> None:
    if not holds:
        raise ValueError(else_said)


def _score(cell: Any) -> Score:
    _must(isinstance(cell, dict), "a score is no object")
    known = {field.name for field in fields(Score)}
    _must(set(cell) <= known, f"a score holds {sorted(set(cell) - known)}, which no score has")
    where = f"{cell['metric']} on {cell['region']}"
    for key in ("metric", "region", "ci_method", "unit", "networks", "failures", "note"):
        _must(isinstance(cell.get(key, ""), str), f"{key!r} of {where} is no text")
    for key in ("n", "skipped", "failed"):
        _must(type(cell[key]) is int and cell[key] >= 0, f"{key!r} of {where} is no count")
    _must(isinstance(cell["higher_is_better"], bool), f"the direction of {where} is neither true nor false")
    limits, interval = cell["range"], cell["ci95"]
    _must(isinstance(limits, list) and len(limits) == 2, f"the range of {where} is no pair")
    _must(
        interval is None or (isinstance(interval, list) and len(interval) == 2), f"the interval of {where} is no pair"
    )
    ends = (_number(limits[0], where), _number(limits[1], where))
    ci95 = None if interval is None else tuple(_number(end, where) for end in interval)
    _must(ci95 is None or None not in ci95, f"the interval of {where} has an end without number")
    changed = {"value": _number(cell["value"], where), "range": ends, "ci95": ci95,
               "coverage": _number(cell["coverage"], where)}  # fmt: skip
    return Score(**{**cell, **changed})


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if value in ("inf", "-inf"):
        return float(value)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} in {where} is no number")
    return value  # type: ignore[no-any-return]  # whole numbers stay whole: what is written again has the same bytes
