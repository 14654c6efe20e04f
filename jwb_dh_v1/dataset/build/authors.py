"""The authors' own folders, as items for the packer.

The layout is the one that the scripts and the README of https://github.com/deepreasonings/WholeBodyBenchmark (commit
b70702d, and the same scripts in silent-commit/WholeBodyBenchmark) read and write:

- `gt_test/<folder>/<id>.mp4`: the real clips. Only these become rows.
- `face_videos_v5/<folder>_<id>_face.mp4`, `hand_videos_v5/<folder>_<id>_hand.mp4`: crops that their scripts cut. Frames
  without a usable detection were left out of them and nothing says which, each frame has a box of its own, and nothing
  holds it: the boxes of a row stay null, and the crops are named in its provenance.
- `groundtruth_results*.csv`: one line per *generated* clip: `模型号` (model number), `视频类型` (body, face or hand),
  `原视频地址` (the generated clip), `Groundtruth视频地址` (the real one) and, seventh column, `unmatched` (1: the two
  do not belong together). It was never published; its columns are those that `FID_calculate.py` and `SC_calculate.py`
  read. Its paths are those of the authors' machine, so that only the last two parts count.

Nothing in the layout tells who a person is, what is said, or on what terms a single clip stands.
"""

from __future__ import annotations

import codecs
import csv as csv_module
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

from jwb_dh_v1.dataset.build.rows import Item
from jwb_dh_v1.errors import DataNotFound, SetupError

CLIPS = "gt_test"
CROPS = {"face": "face_videos_v5", "hand": "hand_videos_v5"}
TABLE = "groundtruth_results*.csv"
COLUMNS = {"model": "模型号", "kind": "视频类型", "generated": "原视频地址", "truth": "Groundtruth视频地址"}
UNMATCHED, UNMATCHED_AT = "unmatched", 6  # by name in one of their scripts, by place in the other
TERMS = (
    "for academic research only, on application to the authors (README of deepreasonings/WholeBodyBenchmark); no "
    "licence text of the clips is known"
)


@dataclass(frozen=True)
class Pairing:
    """One line of the authors' table: which real clip a generated one was compared with.

    Attributes:
        model: the model's number as text, e.g. `4-mp4`.
        kind: `body`, `face` or `hand`.
        generated, truth: paths on the authors' machine.
        unmatched: whether the two do not belong together.

    """

    model: str
    kind: str
    generated: str
    truth: str
    unmatched: bool


def items(
    root: str | Path,
    csv: str | Path | None = None,
    *,
    unmatched: Literal["keep", "drop"] = "keep",
    say: Callable[[str], None] | None = None,
) -> Iterator[Item]:
    """The real clips of the authors' layout, sorted by folder and name.

    `sample_id` is `<folder>_<id>`, as in the names of their crops. `identity_id` is the folder's name: the layout does
    not say who is who, and a folder is the least that a split can keep together (two folders may still show one
    person). The split is `evaluation`. Words, motion, boxes and `speech` are not known and stay null.

    Args:
        root: the folder that holds `gt_test`, or `gt_test` itself.
        csv: the table; the one `groundtruth_results*.csv` in `root` where it is not given, and none if there is none.
        unmatched: `keep` gives every clip and tells in its provenance for which models it was unmatched; `drop` leaves
            out clips that the table names as unmatched only, for all models and kinds. A clip that the table does not
            name is always given.
        say: takes lines about what is there and what is missing.

    Raises:
        DataNotFound: no `gt_test`, no clip in it, or no such table.
        SetupError: a table that cannot be read, or two clips with one sample_id.

    """
    if unmatched not in ("keep", "drop"):
        raise SetupError(f"unmatched must be 'keep' or 'drop', not {unmatched!r}.")
    told = say or (lambda _: None)
    place = Path(root)
    if place.name == CLIPS and not (place / CLIPS).is_dir():
        place = place.parent
    clips = _clips(place)
    told(f"{CLIPS}: {len(clips)} clips in {len({path.parent for path in clips.values()})} folders")
    crops = {kind: _crops(place, kind, clips, told) for kind in CROPS}
    table = _table(place, csv)
    if table is None:
        told(f"{TABLE}: not there; which clips were matched is not known")
        lines: dict[str, list[Pairing]] = {}
    else:
        lines = _by_clip(read_table(table), clips, table.name, told)
    return _items(place, clips, crops, lines, table, unmatched, told)


def read_table(path: str | Path) -> list[Pairing]:
    """Read the authors' table, in UTF-8 (with or without a byte order mark), UTF-16 with one, or GBK.

    Raises:
        DataNotFound: no such file.
        SetupError: another encoding, a column is missing (named), or a flag that is neither 0, 1 nor empty.

    """
    place = Path(path)
    text = _decoded(place)
    reader = csv_module.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(reader, [])]
    at = {name.casefold(): number for number, name in enumerate(header)}
    missing = [name for name in COLUMNS.values() if name.casefold() not in at]
    flag = at.get(UNMATCHED, UNMATCHED_AT if len(header) > UNMATCHED_AT else None)
    if flag is None:
        missing.append(f"{UNMATCHED} (by name or as column {UNMATCHED_AT + 1})")
    if missing or flag is None:
        raise SetupError(f"{place} lacks the columns {', '.join(missing)}; it has {', '.join(header) or 'none'}.")
    columns = {ours: at[theirs.casefold()] for ours, theirs in COLUMNS.items()}
    found = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        row = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))  # trailing empty cells may lack
        if row[flag] not in ("", "0", "1", "0.0", "1.0"):
            raise SetupError(
                f"{place}, line {reader.line_num}: {UNMATCHED} is {row[flag]!r}, expected 0, 1 or nothing."
            )
        found.append(Pairing(**{ours: row[n] for ours, n in columns.items()}, unmatched=row[flag] in ("1", "1.0")))
    return found


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataNotFound(f"{path} cannot be read: {error.strerror or error}.") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    for encoding in ["utf-16"] if wide else ["utf-8-sig", "gb18030"]:  # gb18030 holds GBK
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise SetupError(f"{path} is neither UTF-8, UTF-16 nor GBK; save it as UTF-8.")


def _clips(place: Path) -> dict[str, Path]:
    """sample_id -> path."""
    home = place / CLIPS
    if not home.is_dir():
        raise DataNotFound(f"{place} holds no folder {CLIPS}; give the folder of the authors' data that does.")
    found: dict[str, Path] = {}
    for path in sorted(home.glob("*/*")):
        if path.suffix.lower() == ".mp4" and path.is_file() and not path.name.startswith("."):
            name = f"{path.parent.name}_{path.stem}"
            if name in found:
                raise SetupError(
                    f"{path} and {found[name]} would both be the sample {name}; rename one of the folders."
                )
            found[name] = path
    if not found:
        loose = " (clips must lie in folders below it)" if any(home.glob("*.mp4")) else ""
        raise DataNotFound(f"{home} holds no {CLIPS}/<folder>/*.mp4{loose}.")
    return found


def _crops(place: Path, kind: str, clips: dict[str, Path], told: Callable[[str], None]) -> set[str]:
    """The samples that have a crop of this kind."""
    home = place / CROPS[kind]
    if not home.is_dir():
        told(f"{CROPS[kind]}: not there")
        return set()
    ending = f"_{kind}"
    stems = [p.stem for p in home.iterdir() if p.suffix.lower() == ".mp4" and p.stem.endswith(ending)]
    named = {stem.removesuffix(ending) for stem in stems}
    strays = sorted(named - set(clips))
    more = f"; {len(strays)} belong to no clip, e.g. {strays[0]}{ending}.mp4" if strays else ""
    told(f"{CROPS[kind]}: {len(named) - len(strays)} of {len(clips)} clips have a crop{more}")
    return named & set(clips)


def _table(place: Path, csv: str | Path | None) -> Path | None:
    if csv is not None:
        return Path(csv)
    found = sorted(place.glob(TABLE))
    if len(found) > 1:
        raise SetupError(f"{place} holds {', '.join(p.name for p in found)}; say which one is meant (csv=...).")
    return found[0] if found else None


def _by_clip(
    lines: Sequence[Pairing], clips: dict[str, Path], name: str, told: Callable[[str], None]
) -> dict[str, list[Pairing]]:
    """sample_id -> its lines."""
    found: dict[str, list[Pairing]] = defaultdict(list)
    strangers = []
    for line in lines:
        sample_id = _sample_of(line.truth)
        if sample_id in clips:
            found[sample_id].append(line)
        else:
            strangers.append(line.truth)
    more = f"; {len(strangers)} name clips that are not here, e.g. {strangers[0] or 'nothing'}" if strangers else ""
    bad = sum(line.unmatched for line in lines)
    told(f"{name}: {len(lines)} lines, {bad} unmatched, about {len(found)} of {len(clips)} clips{more}")
    return found


def _sample_of(path: str) -> str:
    """The sample that a path on the authors' machine means: `.../<folder>/<id>.mp4` or the name of a crop."""
    parts = PureWindowsPath(path)  # takes both kinds of slashes
    for kind, folder in CROPS.items():
        if parts.parent.name == folder:
            return parts.stem.removesuffix(f"_{kind}")
    return f"{parts.parent.name}_{parts.stem}"


def _items(
    place: Path,
    clips: dict[str, Path],
    crops: dict[str, set[str]],
    lines: dict[str, list[Pairing]],
    table: Path | None,
    unmatched: str,
    told: Callable[[str], None],
) -> Iterator[Item]:
    dropped = 0
    for sample_id, path in clips.items():
        mine = lines.get(sample_id, [])
        if unmatched == "drop" and mine and all(line.unmatched for line in mine):
            dropped += 1
            continue
        facts = [f"authors' {path.relative_to(place).as_posix()}", "identity not known: the folder stands for it"]
        facts += [
            f"crop {CROPS[kind]}/{sample_id}_{kind}.mp4 (boxes not kept)" for kind in CROPS if sample_id in crops[kind]
        ]
        if table is not None:
            facts.append(f"{table.name}: {_matches(mine)}")
        columns = {"provenance": "; ".join(facts), "licence": TERMS}
        yield Item(sample_id, path.parent.name, path, columns=columns, split="evaluation")
    if dropped:
        told(f"{dropped} clips left out: unmatched in every line about them")


def _matches(lines: Sequence[Pairing]) -> str:
    """What the table says about one clip, in words that can be searched for: `unmatched=1 for ...`."""
    if not lines:
        return "not named"
    models = ", ".join(sorted(f"{line.model} {line.kind}" for line in lines if line.unmatched))
    matched = sum(not line.unmatched for line in lines)
    return f"matched in {matched} of {len(lines)} lines" + (f", unmatched=1 for {models}" if models else "")
