"""How much was found in a folder of clips: shares per part, words, failures by type; as values and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

SHARES = ("body", "face", "left_hand", "right_hand", "hands")
MOST = 40  # clips in the printed table


@dataclass(frozen=True)
class ClipCoverage:
    """What was found in one clip.

    Attributes:
        name: path below the folder, without the ending.
        state: `made`, `kept` (annotated before, by the same detector and from the same bytes) or `failed`.
        frames: number of frames.
        body, face, left_hand, right_hand: share of frames in which the part was seen; `hands`: either hand.
        words: number of words heard.
        speech: `found`, or why the transcript is null: `no audio track`, `silent` (below -60 dBFS), `no words heard`,
            `no sure words` (noise or music), `not asked for`.
        language: of the words, or None.
        error, message: the type and text of what went wrong.
        source, video_sha256, file_sha256: by whom and from which bytes the annotation file was made, and its content.

    """

    name: str
    state: str
    frames: int = 0
    body: float = 0.0
    face: float = 0.0
    left_hand: float = 0.0
    right_hand: float = 0.0
    hands: float = 0.0
    words: int = 0
    speech: str = ""
    language: str | None = None
    error: str = ""
    message: str = ""
    source: str = ""
    video_sha256: str = ""
    file_sha256: str = ""


@dataclass(frozen=True)
class Coverage:
    """What was found in a folder: `clips` in order of their names, annotated by `source`, heard by `listener`."""

    folder: Path
    source: str
    listener: str | None
    clips: tuple[ClipCoverage, ...]

    @property
    def failed(self) -> tuple[ClipCoverage, ...]:
        """The clips without annotations."""
        return tuple(clip for clip in self.clips if clip.state == "failed")

    def totals(self) -> dict[str, Any]:
        """Counts of clips, failures by type, languages and speech; shares over all frames that were read."""
        frames = sum(clip.frames for clip in self.clips)
        seen = {part: sum(getattr(clip, part) * clip.frames for clip in self.clips) for part in SHARES}
        good = [clip for clip in self.clips if clip.state != "failed"]
        return {
            "clips": len(self.clips),
            "annotated": len(good),
            "failed": dict(Counter(clip.error for clip in self.failed)),
            "frames": frames,
            **{part: seen[part] / frames if frames else 0.0 for part in SHARES},
            "speech": dict(Counter(clip.speech for clip in good)),
            "languages": dict(Counter(clip.language for clip in good if clip.language)),
        }


def print_coverage(coverage: Coverage, console: Console) -> None:
    """Print a table of a folder's clips (of many, the failed ones and those with the least face) and its totals."""
    from rich.table import Table
    from rich.text import Text

    def share(value: float) -> str:
        return f"{100 * value:.0f} %"

    shown = coverage.clips
    if len(shown) > MOST:
        shown = tuple(sorted(shown, key=lambda clip: (clip.state != "failed", clip.face, clip.body))[:MOST])
    table = Table(caption=f"boxes by {coverage.source}, words by {coverage.listener or 'nobody'}")
    table.add_column("clip", overflow="fold")
    for title in ("frames", "body", "face", "hands"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("speech", overflow="fold")
    for clip in shown:
        if clip.state == "failed":
            told = Text(f"{clip.error}: {clip.message}", style="red")
            table.add_row(Text(clip.name), "", "", "", "", told)
        else:
            heard = f"{clip.words} words ({clip.language})" if clip.words else clip.speech
            cells = [share(value) for value in (clip.body, clip.face, clip.hands)]
            table.add_row(Text(clip.name), str(clip.frames), *cells, heard)
    whole = coverage.totals()
    table.add_section()
    cells = [share(whole[part]) for part in ("body", "face", "hands")]
    heard = ", ".join(f"{count} {told}" for told, count in whole["speech"].items())
    table.add_row(f"{whole['annotated']} of {whole['clips']} clips", str(whole["frames"]), *cells, heard)
    console.print(table)
    if len(coverage.clips) > MOST:
        console.print(f"{MOST} of {len(coverage.clips)} clips shown: failed ones, then those with the least face.")
    for error, count in whole["failed"].items():
        console.print(f"{count} failed: {error}", style="red", markup=False)
