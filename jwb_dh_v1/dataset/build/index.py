"""The items of a pack in the order of the sha256 of their names, and the split of each."""

from __future__ import annotations

import hashlib
import pickle
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jwb_dh_v1.dataset.build.rows import Item
from jwb_dh_v1.dataset.build.rows import blob
from jwb_dh_v1.dataset.schema import BadAnnotation
from jwb_dh_v1.dataset.parquet import UnpackedClip
from jwb_dh_v1.errors import SetupError


class Index:
    """All items of a pack, on disk in the order of their hashes: memory stays flat in their number."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.db = sqlite3.connect(path)
        self.db.execute("pragma journal_mode = off")
        self.db.execute("pragma synchronous = off")
        self.db.execute(
            "create table item (key blob primary key, person blob, split text, size int, item blob) without rowid"
        )

    def add(self, items: Iterable[Item]) -> list[UnpackedClip]:
        """Take up the items; those whose name is there already are failures."""
        twice = []
        for item in items:
            person = hashlib.sha256(blob(item.identity_id)).digest()
            try:
                size = item.video.stat().st_size
            except (OSError, ValueError):  # found out when the row is made
                size = 0
            record = (key_of(item.sample_id), person, item.split, size, pickle.dumps(item))
            if not self.db.execute("insert or ignore into item values (?, ?, ?, ?, ?)", record).rowcount:
                message = "sample_id is there twice; rename one of the two files"
                twice.append(UnpackedClip(item.sample_id, item.video.name, BadAnnotation.__name__, message))
        return twice

    def assign(self, splits: Mapping[str, float | None]) -> None:
        """Give every item without a split that of its person, or the first one that is not full.

        Persons come in the order of their hashes.
        """
        given = {split for (split,) in self.db.execute("select distinct split from item where split is not null")}
        for split in sorted(given | set(splits)):
            if not re.fullmatch(r"[A-Za-z0-9_]+", split):  # a folder's name, and a split's for `datasets`
                raise SetupError(f"A split is named {split!r}; use letters, digits and _ only.")
        self.db.execute("create index by_person on item (person)")
        leak = self.db.execute(
            "select item, group_concat(distinct split) from item where split is not null group by person "
            "having count(distinct split) > 1"
        ).fetchone()
        if leak:
            raise SetupError(
                f"The person {pickle.loads(leak[0]).identity_id!r} is in several splits ({leak[1]}): splits must not "
                "share persons."
            )
        db = self.db
        db.execute("create table person (person blob primary key, split text, clips int) without rowid")
        db.execute("insert into person select person, max(split), count(*) from item group by person")
        db.execute("create table chosen (person blob primary key, split text) without rowid")
        have = dict(db.execute("select split, sum(clips) from person where split is not null group by split"))
        total = db.execute("select count(*) from item").fetchone()[0]
        most = {name: size * total if size is not None and size < 1 else size for name, size in splits.items()}
        for person, clips in db.execute("select person, clips from person where split is null order by person"):
            open_ = (name for name, size in most.items() if size is None or have.get(name, 0) < size)
            name = next(open_, list(splits)[-1])
            have[name] = have.get(name, 0) + clips
            db.execute("insert into chosen values (?, ?)", [person, name])
        db.execute(
            "update item set split = coalesce((select split from person where person = item.person), "
            "(select split from chosen where person = item.person))"
        )

    def splits(self) -> list[tuple[str, int, float]]:
        """(split, number of clips, mean bytes of a clip)."""
        query = "select split, count(*), avg(size) from item group by split order by split"
        return list(self.db.execute(query))

    def items(self, split: str) -> Iterator[Item]:
        """The items of a split in their order."""
        for (item,) in self.db.execute("select item from item where split = ? order by key", [split]):
            yield pickle.loads(item)


def key_of(sample_id: str) -> bytes:
    """What items are ordered by."""
    return hashlib.sha256(blob(sample_id)).digest()
