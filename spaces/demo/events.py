"""What the page's buttons and the API call: one function per endpoint, with its checks and its clean-up.

Docstrings and types are the schema that visitors of the API and of MCP see.
"""

from __future__ import annotations

import functools
import html
import json
import secrets
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import film as films
import gradio as gr
import scoring
import speech_comparison
import views
from files import KEEPER, WORK, workplace
from request_filter import is_tool
from uploads import Refused, check_text, check_video, gather, shown

from jwb_dh_v1.analysis.wording import printable
from jwb_dh_v1.dataset.pairs import VIDEOS, pair, videos_in
from jwb_dh_v1.errors import JwbError
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics.sample import Sample

REGIONS = ["body", "face", "hands"]
ALL: list[str] = []
NOBODY: Any = None  # gradio fills the request in


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with errors as one sentence; what no one foresaw is logged under a number that the visitor sees."""

    @functools.wraps(function)
    def safe(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except gr.Error:
            raise
        except JwbError as error:
            said = html.escape(shown(error), quote=False)
        except Exception:  # noqa: BLE001 - the visitor gets a number, the log the trace
            number = secrets.token_hex(4)
            print(f"error {number}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            said = f"Something went wrong here that should not; its number is {number}."
        raise gr.Error(said, print_exception=False, title="This did not work")

    return safe


def by_session(request: gr.Request) -> bool:
    """Whether the caller has a session that will be closed (a page, `gradio_client`), not a single request or tool."""
    return "/call/" not in str(request.url) and not is_tool(request.request.scope)


def whose(request: gr.Request) -> str:
    """A name for the caller's files: its session, or one for this call alone."""
    return str(request.session_hash) if by_session(request) else secrets.token_hex(16)


@told
def score(
    video: str,
    reference: str | None = None,
    transcript: str = "",
    baseline: str | None = None,
    regions: list[str] = REGIONS,
    metrics: list[str] = ALL,
    protocol: str = "lite",
    request: gr.Request = NOBODY,
    progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio fills it in
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Score one generated video of a talking person.

    Args:
        video: the generated video: at most 100 MB, 60 s, 900 frames, 1920 x 1088 pixels.
        reference: the real video of the same moment; metrics that compare need it.
        transcript: the words that should be heard (WER); may be empty.
        baseline: another recording of the same text, a video or a sound of at most 100 MB and 60 s.
        regions: any of body, face, hands.
        metrics: names of metrics of the protocol; an empty list is all that can be computed.
        protocol: lite, and standard or paper where their weights are installed.

    Returns:
        results.json: `scores` (metric, region, value, n, skipped, failed, ci95, higher_is_better, networks, note),
        `samples` (one row per metric and region with its status, reason and curve over the frames), `plan`, `versions`
        and `remarks`. Infinite values are the string "inf". With a baseline also `speech`: of `generated` and
        `baseline` the `seconds`, `lufs`, `silent`, and given a transcript `wer`, `substitutions`, `deletions`,
        `insertions`, `words` and `hypothesis`, as Whisper tiny.en hears them (English only).

    """
    session = whose(request)
    KEEPER.use(session, video, reference, baseline)
    place = WORK / "shown" / secrets.token_hex(16)
    try:
        check_video(video)
        if reference:
            check_video(reference, "the reference")
        other = speech_comparison.check(baseline) if baseline else None
        text = check_text(transcript)
        real = Clip(reference) if reference else None
        if real is not None:
            _ = real.sha256  # another visitor may upload the same file meanwhile, which then is written anew
        sample = Sample(printable(Path(video).stem, 60), Clip(video), real, text)
        with workplace() as folder:
            found = scoring.run(
                [sample],
                metrics,
                regions,
                protocol,
                folder / "run",
                place / "film" if by_session(request) else None,
                progress,
            )
        document = found["document"]
        if other is not None:
            progress(0.98, desc="Listening to both recordings")
            document["speech"] = scoring.plain(
                speech_comparison.compare(Path(video), other, text, _word_errors(document))
            )
        if not by_session(request):
            return document, None
        KEEPER.show(session, "score", place)
        return document, {"document": document, "film": found["film"], "folder": str(place)}
    except BaseException:
        films.forget(place)
        raise
    finally:
        if not by_session(request):
            KEEPER.leave(session)


def _word_errors(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The video's word errors, if Whisper tiny.en was asked already."""
    rows = [row for row in document["samples"] if row["metric"] == "wer" and row["status"] == "ok"]
    return json.loads(rows[0]["facts"]) if rows and document["protocol"].startswith("lite/") else None


@told
def hand_over(
    video: str | None, baseline: str | None, transcript: str, request: gr.Request
) -> tuple[str, str, str, gr.Tabs]:
    """Both recordings and the text for the judge's fields, and its tab opened."""
    if not video or not baseline:
        raise Refused("Choose the generated video and the baseline speech first: the judge compares the two.")
    KEEPER.use(str(request.session_hash), video, baseline)
    return video, baseline, transcript, gr.Tabs(selected="speech")


@told
def batch(
    generated: list[str],
    references: list[str] | None = None,
    regions: list[str] = REGIONS,
    metrics: list[str] = ALL,
    protocol: str = "lite",
    request: gr.Request = NOBODY,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Score several generated videos, paired with real ones by name.

    Args:
        generated: videos, or one zip of them: at most 20, each within the limits of a single one, 4000 frames in all.
        references: real videos of the same names (and NAME.txt with what is said), or one zip of them; may be empty.
        regions: any of body, face, hands.
        metrics: names of metrics of the protocol; an empty list is all that can be computed.
        protocol: lite, and standard or paper where their weights are installed.

    Returns:
        results.json as of `score`, with one row per video, metric and region.

    """
    session = whose(request)
    KEEPER.use(session, *(generated or []), *(references or []))
    place = WORK / "shown" / secrets.token_hex(16)
    try:
        with workplace() as folder:
            samples, notes = _pairs(generated, references, folder)
            found = scoring.run(samples, metrics, regions, protocol, folder / "run", None, progress)
        document = found["document"]
        document["remarks"] = notes + document["remarks"]
        if not by_session(request):
            return document, None
        KEEPER.show(session, "batch", place)
        return document, {"document": document, "film": None, "folder": str(place)}
    finally:
        if not by_session(request):
            KEEPER.leave(session)


def _pairs(generated: list[str] | None, references: list[str] | None, folder: Path) -> tuple[list[Sample], list[str]]:
    """Samples of all generated videos, and what is to be said about files that fit nothing."""
    if not generated:
        raise Refused("Choose the generated videos first.")
    ours, theirs = folder / "generated", folder / "real"
    files = [*gather(generated, ours), *gather(references, theirs)]
    stems = [path.stem for path in files if path.parent == ours and path.suffix.lower() in VIDEOS]
    if twice := {stem for stem in stems if stems.count(stem) > 1}:
        raise Refused(f"Two videos are named {printable(min(twice))}.")
    for path in files:
        if path.suffix.lower() in VIDEOS:
            check_video(path)
        else:
            check_text(path.read_text(encoding="utf-8", errors="replace"))
    if not any(path.suffix.lower() in VIDEOS for path in files if path.parent == theirs):
        found = [Sample(name, Clip(path), None, _words(theirs, name)) for name, path in videos_in(ours).items()]
        return found, []
    pairs = pair(ours, theirs)
    samples = [sample for sample in pairs if sample.id in pairs.generated]
    samples = [replace(sample, transcript=_words(theirs, sample.id)) for sample in samples]
    notes = []
    if pairs.unmatched:
        notes.append(f"Not scored, because no reference has their name: {', '.join(map(printable, pairs.unmatched))}.")
    return samples, notes


def _words(folder: Path, name: str) -> str | None:
    path = folder / f"{name}.txt"
    return check_text(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


@told
def leaderboard(region: str = "body") -> dict[str, Any]:
    """The benchmark's published table of one region; numbers are the authors', not computed here.

    Args:
        region: body, face or hands.

    Returns:
        one line per system, with the sign after each number telling whether the authors' own per-video files give it:
        ✓ to the printed digit, ≈ but for one in the last digit, ✗ not, · no file was published.

    """
    headers, lines = views.leaderboard_table(region)
    return {"headers": headers, "data": lines}
