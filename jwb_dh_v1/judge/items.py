"""What is to be judged: the generated speech, the baseline's, and the text, paired by name.

The baseline's speech is an input (files, hashed in the log), never made on the fly: the models that once made it are
switched off within months.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jwb_dh_v1.dataset.pairs import VIDEOS, files_in
from jwb_dh_v1.errors import DataNotFound, SampleError
from jwb_dh_v1.judge.question import JudgeItem
from jwb_dh_v1.judge.request import TARGET_LUFS, Speech, prepare
from jwb_dh_v1.media.audio import Audio, decode_audio

SOUNDS = (*VIDEOS, ".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac")
REAL = "real"  # as a baseline: the dataset's own clips


@dataclass(frozen=True)
class Texts:
    """What should be said, by sample.

    Attributes:
        sample_id, identity_id, text, language: of one sample.
        video: the real clip's file (path or bytes), where the data has it.

    """

    sample_id: str
    identity_id: str
    text: str
    language: str = "en"
    video: Path | bytes | None = None


def recordings_in(folder: str | Path) -> dict[str, Path]:
    """Video and sound files of a folder by name without ending, sorted.

    Raises:
        DataNotFound: no such folder, or nothing to hear in it.

    """
    return files_in(Path(folder), SOUNDS, "recordings")


def texts_of(data: str | Path, split: str = "evaluation", revision: str | None = None, real: bool = False) -> Any:
    """The texts of a dataset (folder or Hub name), or of a plain folder of `<sample_id>.txt`.

    Args:
        data, split, revision: as `pairs.pair`.
        real: also the real clips.

    Returns:
        an iterator of `Texts` in the data's order.

    Raises:
        DataNotFound: there is no such data, or no text in the folder.

    """
    place = Path(data)
    if place.is_dir() and not any(place.rglob("*.parquet")):
        return _plain(place)
    return _rows(str(data), split, revision, real)


def _plain(place: Path) -> Iterator[Texts]:
    files = sorted(place.glob("*.txt"))
    if not files:
        raise DataNotFound(f"{place} holds no text: the judge needs <sample_id>.txt with what should be said.")
    sounds = {p.stem: p for p in sorted(place.iterdir()) if p.suffix.lower() in SOUNDS}
    for path in files:
        yield Texts(path.stem, path.stem, path.read_text(encoding="utf-8").strip(), video=sounds.get(path.stem))


def _rows(data: str, split: str, revision: str | None, real: bool) -> Iterator[Texts]:
    from jwb_dh_v1.dataset.load import load_dataset

    columns = ["sample_id", "identity_id", "transcript", *(["video"] if real else [])]
    for row in load_dataset(data, split=split, streaming=True, columns=columns, revision=revision):
        said = row["transcript"]
        video = row["video"]["bytes"] if real else None
        yield Texts(row["sample_id"], row["identity_id"], said["text"] or "", said["language"] or "en", video)


class Items:
    """The pairs to judge, in the data's order; can be walked more than once, and no sound is held.

    Args:
        generated: folder of the system's videos or sounds, `<sample_id>.mp4`.
        baseline: folder of the baseline's, or `real` for the dataset's own clips.
        data, split, revision: where texts (and real clips) are.
        loudness: LUFS that both clips are brought to; None leaves them as they are.
        system, baseline_name: names; the folders' by default.

    Attributes:
        failures: reasons by sample id of recordings that cannot be decoded; filled while walking.

    Raises:
        DataNotFound: a folder is missing, or not one name fits.

    """

    def __init__(
        self,
        generated: str | Path,
        baseline: str | Path,
        data: str | Path,
        *,
        split: str = "evaluation",
        revision: str | None = None,
        loudness: float | None = TARGET_LUFS,
        system: str | None = None,
        baseline_name: str | None = None,
    ) -> None:
        self.system = system or Path(generated).name
        self.real = str(baseline) == REAL
        self.baseline = baseline_name or (REAL if self.real else Path(baseline).name)
        if self.system == self.baseline:
            raise DataNotFound(f"System and baseline are both named {self.system!r}; name one with --name.")
        self._ours = recordings_in(generated)
        self._theirs: Mapping[str, Path] = {} if self.real else recordings_in(baseline)
        self._data = (data, split, revision, self.real)
        self._loudness = loudness
        self.failures: dict[str, str] = {}
        if not self.real and not set(self._ours) & set(self._theirs):
            raise DataNotFound(
                f"No recording of {generated} is named like one of {baseline}: {min(self._ours)!r}, "
                f"{min(self._theirs)!r}."
            )

    def __len__(self) -> int:
        """Recordings of the system; as many pairs at most."""
        return len(self._ours)

    def __iter__(self) -> Iterator[JudgeItem]:
        """Pairs whose sample the data has."""
        met = False
        for said in texts_of(*self._data):
            if said.sample_id not in self._ours:
                continue
            met = True
            theirs = said.video if self.real else self._theirs.get(said.sample_id)
            try:
                ours = self._prepared(self._ours[said.sample_id])
                other = None if theirs is None else self._prepared(theirs)
            except SampleError as error:
                self.failures[said.sample_id] = f"{type(error).__name__}: {error}"
                continue
            yield JudgeItem(
                sample_id=said.sample_id,
                identity_id=said.identity_id,
                text=said.text,
                language=said.language,
                category="general",
                system=self.system,
                baseline=self.baseline,
                speech=ours,
                baseline_speech=other,
            )
        if not met:
            raise DataNotFound(f"No recording is named like a sample of {self._data[0]}: here {min(self._ours)!r}.")

    def _prepared(self, source: Path | bytes) -> Speech | None:
        """The sound of a file, ready for the judge; None without an audio track."""
        audio: Audio | None = decode_audio(source)
        return None if audio is None else prepare(audio, self._loudness)
