"""`jwb-dh wer`: word error rate alone. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jwb_dh_v1.cli.data import SHAPE
from jwb_dh_v1.cli.progress import counting
from jwb_dh_v1.errors import DataNotFound, SetupError


def _wer(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from jwb_dh_v1.errors import SampleError
    from jwb_dh_v1.judge.items import recordings_in, texts_of
    from jwb_dh_v1.media.audio import decode_audio
    from jwb_dh_v1.metrics.wer import corpus_of
    from jwb_dh_v1.networks.recognizers import recognizer

    console = Console()
    ours = {} if args.heard else recordings_in(args.generated)
    heard = _hypotheses(args.heard) if args.heard else {}
    ear = None if args.heard else recognizer(args.asr, args.device)
    texts = [t for t in texts_of(args.data, args.split, args.revision) if t.sample_id in (heard or ours)]
    if not texts:
        raise DataNotFound(f"No recording is named like a sample of {args.data}.")
    said, hypotheses, languages, people, lost = [], [], [], [], 0
    with counting("listening", len(texts), "clips", console) if ear else nullcontext(lambda name: None) as done:
        for text in texts:
            words = heard.get(text.sample_id)
            try:
                if ear is not None:
                    audio = decode_audio(ours[text.sample_id])
                    words = None if audio is None or audio.silent else ear.transcribe(audio.mono(), text.language)
            except SampleError as error:
                console.print(f"{text.sample_id}: failed: {error}", style="red", markup=False)
                lost += 1
                continue
            said.append(text.text)
            hypotheses.append(words)
            languages.append(text.language)
            people.append(text.identity_id)
            done(text.sample_id)
    found = corpus_of(said, hypotheses, languages, args.profile, people)
    by = args.heard if ear is None else ear.name
    table = Table(
        title=f"WER, profile {args.profile}, heard by {by}",
        caption=f"Interval: {found.estimate.method if found.estimate else 'none'}.",
    )
    for column in ("", "value"):
        table.add_column(column)
    bounds = found.estimate.interval if found.estimate else None
    interval = "" if bounds is None else f" [{bounds[0]:.4f}, {bounds[1]:.4f}]"
    counts = found.counts
    rows = {"headline": f"{found.value:.4f}{interval}" if found.value is not None else "–",
            "macro (mean of clips)": found.macro, "micro (all words)": found.micro, "median": found.median,
            "above 0.5": found.over_half,
            "substitutions, deletions, insertions": f"{counts.substitutions}, {counts.deletions}, {counts.insertions}",
            "clips": found.n, "without text (left out)": found.empty_references,
            "no word heard": found.empty_hypotheses, "hallucinated": found.hallucinations, "failed": lost}  # fmt: skip
    for name, value in rows.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value))
    console.print(table)
    return 1 if lost else 0


def _hypotheses(path: str) -> dict[str, str]:
    """Words heard elsewhere: a JSON object, or lines `sample_id<TAB>words`."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataNotFound(f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        if text.lstrip().startswith("{"):
            return {str(k): str(v) for k, v in json.loads(text).items()}
        return dict(line.split("\t", 1) for line in text.splitlines() if line.strip())
    except ValueError:
        raise SetupError(f"{path}: give a JSON object, or lines of sample_id, a tab, and the words.") from None


def text_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the texts that should be said come from."""
    parser.add_argument("--data", default="jwb-dh-v1", help="dataset folder, Hub name, or folder of <sample_id>.txt")
    parser.add_argument("--split", default="evaluation")
    parser.add_argument("--revision", help="revision of a Hub dataset")


def add_commands(commands: Any) -> None:
    """Add `wer` to the commands of `jwb-dh`."""
    wer = commands.add_parser(
        "wer", formatter_class=SHAPE, help="word error rate in any profile, by any recogniser",
        epilog="examples:\n  jwb-dh wer videos/ --data jwb-dh-v1 --asr whisper-tiny.en\n"
        "  jwb-dh wer --heard heard.json --data jwb-dh-v1 --profile seed_tts\n",
    )  # fmt: skip
    wer.add_argument("generated", nargs="?", default=".", help="folder of videos or sounds")
    text_arguments(wer)
    wer.add_argument("--profile", default="jwb_v1", help="jwb_v1, emergent, seed_tts, whisper_basic or none")
    wer.add_argument(
        "--asr", default="whisper-large-v3", help="whisper-large-v3, whisper-tiny.en, faster-whisper:MODEL"
    )
    wer.add_argument("--heard", metavar="FILE", help="words heard elsewhere: JSON object, or lines id<TAB>words")
    wer.add_argument("--device", default="auto")
    wer.set_defaults(run=_wer)
