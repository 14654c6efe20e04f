"""Results: scores in long form with everything needed to compare them, and one row per sample, metric and region."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.errors import DataNotFound, MissingPackage, SetupError
from jwb_dh_v1.stats.estimate import Estimate

if TYPE_CHECKING:
    from jwb_dh_v1.files import Folder

SCHEMA = "jwb-dh-v1/results/1"


@dataclass(frozen=True)
class Row:
    """One sample x metric x region.

    Attributes:
        value: the sample's own score; None unless `status` is `ok` and the metric has a score for a single sample.
        n: parts that went into it (two hands: 2).
        coverage: share of the clip's frames in which the part was seen, 0..1.
        status: `ok`, `skipped` (nothing to measure) or `failed`.
        error, message: type and sentence of a skip or failure, else empty.
        curve: one number per frame or frame pair of the first part, for plots.
        facts: details as JSON (for WER the texts and counts), else empty.
        sha256: of the generated file.

    """

    sample_id: str
    identity_id: str
    metric: str
    region: str
    value: float | None
    n: int
    coverage: float | None
    status: str
    error: str = ""
    message: str = ""
    curve: tuple[float, ...] = ()
    facts: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Score:
    """One cell of the result table.

    Attributes:
        value: the score; None where no sample was ok.
        n, skipped, failed: numbers of samples; their sum is the size of the set.
        ci95: 95 % interval, or None where it cannot be given (`ci_method` says why).
        coverage: mean share of frames in which the part was seen.
        networks: what looked at the frames.
        failures: what samples without a score count as (`policy.py`); n counts those with one.
        note: what to mind when reading the value, or nothing.

    """

    metric: str
    region: str
    value: float | None
    n: int
    skipped: int
    failed: int
    ci95: tuple[float, float] | None
    ci_method: str
    higher_is_better: bool
    range: tuple[float | None, float | None]
    unit: str
    coverage: float | None
    networks: str
    failures: str = "strict"
    note: str = ""

    @property
    def estimate(self) -> Estimate | None:
        """The value with its interval; None without a value. (How many identities it is over is in `ci_method`.)"""
        if self.value is None:
            return None
        low, high = self.ci95 or (None, None)
        return Estimate(self.value, low, high, self.n, 0, self.ci_method)


@dataclass(frozen=True)
class Result:
    """All scores of one system under one plan.

    Attributes:
        complete: whether no more samples failed than were allowed to.
        samples: pyarrow Table of `Row`s: one per sample, metric and region.
        folder: where it was written, if it was, and not to a URL.

    """

    name: str
    protocol: str
    complete: bool
    scores: tuple[Score, ...]
    plan: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    samples: Any = field(default=None, repr=False, compare=False)
    folder: Path | None = None

    def rows(self) -> Iterator[Row]:
        """The rows of `samples`, one at a time."""
        for batch in self.samples.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield Row(**{**row, "curve": tuple(row["curve"])})

    def to_pandas(self) -> Any:
        """The scores as a pandas DataFrame, one row per metric and region; `samples.to_pandas()` has the clips'.

        Raises:
            MissingPackage: pandas is not installed.

        """
        try:
            import pandas
        except ImportError:
            raise MissingPackage("to_pandas() needs pandas: pip install pandas") from None
        rows = []
        for score in self.scores:
            facts = asdict(score)
            low, high = facts.pop("ci95") or (None, None)
            least, most = facts.pop("range")
            rows.append({"system": self.name, "protocol": self.protocol, **facts, "ci_low": low, "ci_high": high,
                         "range_low": least, "range_high": most})  # fmt: skip
        return pandas.DataFrame(rows)

    def __getitem__(self, key: tuple[str, str]) -> Score:
        """Return the score of (metric, region)."""
        for score in self.scores:
            if (score.metric, score.region) == key:
                return score
        raise KeyError(f"no score for metric {key[0]!r} on region {key[1]!r}")

    def to_json(self) -> str:
        """`results.json`: the same run gives the same bytes; infinite values are the string `inf`."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "protocol": self.protocol,
            "complete": self.complete,
            "device": self.device,
            "scores": [asdict(score) for score in self.scores],
            "plan": dict(self.plan),
            "versions": dict(self.versions),
        }
        return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read a finished run.

        Args:
            folder: where it was written, a path or a URL.

        Raises:
            DataNotFound: the folder holds no results.
            SetupError: they cannot be read.

        """
        import pyarrow as pa

        from jwb_dh_v1.files import folder_at

        try:
            return cls._load(folder_at(folder))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SetupError(
                f"The results in {folder} are damaged ({reason}); the `jwb-dh score` or `jwb-dh merge` that made them "
                "makes them again from the shards."
            ) from error

    @classmethod
    def _load(cls, folder: Folder) -> Result:
        import pyarrow.parquet as pq

        file, rows = folder.open("results.json"), folder.open("samples.parquet")
        if file is None:
            raise DataNotFound(
                f"{folder.place} holds no results.json; run `jwb-dh score ... --out {folder.place}` first."
            )
        if rows is None:
            raise FileNotFoundError("samples.parquet is missing")
        with file, rows:
            return parse_result(file.read(), folder.path, pq.read_table(rows))


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that occurs twice would be read differently by different readers."""
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} occurs twice")
    return dict(pairs)


def parse_result(content: bytes, folder: Path | None = None, samples: Any = None) -> Result:
    """A `results.json` of this version or of 0.1.0; nothing is taken on trust but the numbers.

    Args:
        content: of the file.
        folder, samples: of the result.

    Raises:
        ValueError: it is damaged, of another schema, or contradicts itself; the message says how.

    """
    try:
        found = json.loads(content.decode(), parse_constant=_no_number, object_pairs_hook=_once)
        return replace(_result(found), folder=folder, samples=samples)
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is missing") from None
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _result(found: Any) -> Result:
    _must(isinstance(found, dict), "it holds no object")
    _must(found.get("schema") == SCHEMA, f"its schema is {found.get('schema')!r}, {SCHEMA!r} is read")
    plan, versions = found["plan"], found["versions"]
    for key in ("name", "protocol", "device"):
        _must(isinstance(found[key], str), f"{key!r} is not text")
    _must(isinstance(found["complete"], bool), "'complete' is neither true nor false")
    _must(isinstance(plan, dict) and isinstance(versions, dict), "plan or versions are not objects")
    _must(plan.get("protocol") == found["protocol"], "plan and scores name different protocols")
    for key in ("boxes", "data", "decoder", "failures", "precision", "version"):
        _must(isinstance(plan.get(key), str | None), f"'plan.{key}' is not text")
    for name, table in (("plan.weights", plan.get("weights")), ("versions", versions)):
        fine = isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
        _must(fine, f"{name!r} does not name texts")
    _must(isinstance(found["scores"], list), "'scores' is not a list")
    scores = tuple(_score(cell) for cell in found["scores"])
    twice = [c for c, count in Counter((s.metric, s.region) for s in scores).items() if count > 1]
    _must(not twice, f"several scores for {' on '.join(twice[0]) if twice else ''}")
    return Result(found["name"], found["protocol"], found["complete"], scores, plan, versions, found["device"])


def _must(holds: bool, else_said: str) -> None:
    if not holds:
        raise ValueError(else_said)


def _score(cell: Any) -> Score:
    _must(isinstance(cell, dict), "a score is not an object")
    known = {field.name for field in fields(Score)}
    _must(set(cell) <= known, f"a score holds {sorted(set(cell) - known)}, which no score has")
    where = f"{cell['metric']} on {cell['region']}"
    for key in ("metric", "region", "ci_method", "unit", "networks", "failures", "note"):
        _must(isinstance(cell.get(key, ""), str), f"{key!r} of {where} is not text")
    for key in ("n", "skipped", "failed"):
        _must(type(cell[key]) is int and cell[key] >= 0, f"{key!r} of {where} is not a count")
    _must(isinstance(cell["higher_is_better"], bool), f"the direction of {where} is neither true nor false")
    limits, interval = cell["range"], cell["ci95"]
    _must(isinstance(limits, list) and len(limits) == 2, f"the range of {where} is not a pair")
    _must(
        interval is None or (isinstance(interval, list) and len(interval) == 2),
        f"the interval of {where} is not a pair",
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
        raise ValueError(f"{value!r} in {where} is not a number")
    return value  # type: ignore[no-any-return]  # whole numbers stay whole: what is written again has the same bytes


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _schema() -> Any:
    import pyarrow as pa

    texts = ("sample_id", "identity_id", "metric", "region", "status", "error", "message", "facts", "sha256")
    types = dict.fromkeys(texts, pa.string()) | {
        "value": pa.float64(),
        "n": pa.int32(),
        "coverage": pa.float64(),
        "curve": pa.list_(pa.float32()),
    }
    return pa.schema([(name, types[name]) for name in Row.__dataclass_fields__])


def rows_table(rows: Sequence[Row]) -> Any:
    """Rows as a pyarrow Table."""
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema())


def parquet_bytes(table: Any) -> bytes:
    """A table as a Parquet file; equal rows give equal bytes, however the table was put together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # A table that was read from Parquet names its list items otherwise; the cast gives it the names of a fresh one.
    pq.write_table(table.cast(_schema()).combine_chunks(), sink, row_group_size=10_000)
    return bytes(sink.getvalue())
