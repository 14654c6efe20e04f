"""What the page of a metric computes: the events behind its button and its API, and what can be computed here.

Docstrings and types are the schema that visitors of the API see.
"""

from __future__ import annotations

import functools
import html
import json
import secrets
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import evaluate
import gradio as gr
from files import KEEPER
from gradio.utils import NamedString
from uploads import BATCH_FRAMES, CLIPS, MB, Refused, check_sound, check_text, check_video, shown

from jwb_dh_v1.analysis.wording import printable, title
from jwb_dh_v1.errors import JwbError, MissingWeights
from jwb_dh_v1.integrations.publish import METRICS
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.networks.weights import FILES, accepted, resolve
from jwb_dh_v1.scoring.plan import make_plan

HERE = Path(__file__).parent
METRIC = next((name for name in METRICS if (HERE / f"{name}.py").is_file()), "")
if not METRIC:
    raise SystemExit("There is no metric beside this page; `jwb-dh publish` puts them together.")
FETCHED = 1000 * MB  # of weights that a visitor may make this machine fetch
LOG_BYTES = 20 * MB
LINES = 200  # texts at once
NOBODY: Any = None  # gradio fills the request in
VARIANTS = {name: table.metrics[METRIC] for name, table in PROTOCOLS.items() if METRIC in table.metrics}
REGIONS = list(dict.fromkeys(region for metric in VARIANTS.values() for region in metric.regions))
COMPARES = any("reference" in metric.needs for metric in VARIANTS.values())
Document = dict[str, Any]


@cache
def module() -> Any:
    """The module, as a script would load it."""
    return evaluate.load(str(HERE / f"{METRIC}.py"), keep_in_memory=True)


def lacking(protocol: str, region: str) -> list[str]:
    """The weights of a protocol on a region that are not on this machine."""
    plan = make_plan(protocol, [METRIC], [region] if region != "speech" else ["body"])  # type: ignore[list-item]
    found = []
    for weight in plan.weights:
        try:
            resolve(weight)
        except MissingWeights:
            found.append(weight)
    return found


@cache
def why_not(protocol: str, region: str) -> str:
    """Why a protocol cannot be computed here on a region; empty where it can."""
    name = PROTOCOLS[protocol].name
    if region not in VARIANTS[protocol].regions:
        return f"{title(METRIC)} of {name} is not defined on {region}."
    files = [FILES[weight] for weight in lacking(protocol, region)]
    for file in files:
        if not file.sources or (file.terms and file.terms not in accepted()):
            return f"{name} is not offered here: {file.name} stands under terms that its user must accept."
    size = sum(file.size for file in files)
    return f"{name} is not offered here: its weights are {size / 1e9:.1f} GB." if size > FETCHED else ""


def offered() -> list[str]:
    """The protocols that can be computed here on some region, `lite` first where it is one."""
    found = [name for name in VARIANTS if any(not why_not(name, region) for region in REGIONS)]
    return sorted(found, key=lambda name: name != "lite")


def first() -> tuple[str, str]:
    """The protocol and region that the page begins with: such as can be computed here, if any can."""
    for protocol in offered():
        return protocol, next(region for region in VARIANTS[protocol].regions if not why_not(protocol, region))
    return next(((name, metric.regions[0]) for name, metric in VARIANTS.items()), ("", ""))


PROTOCOL, REGION = first()


def told(function: Callable[..., Document]) -> Callable[..., tuple[Document, Document | None]]:
    """An event: its answer as JSON and for the page, errors as one sentence, uploads gone with their session."""

    @functools.wraps(function)
    def safe(*args: Any, **kwargs: Any) -> tuple[Document, Document | None]:
        request: gr.Request = next(a for a in (*args, *kwargs.values()) if isinstance(a, gr.Request))
        session, kept = str(request.session_hash), "/call/" not in str(request.url)
        # Only what gradio took as a file: a text that names someone else's upload is a text.
        files = [Path(one) for a in args for one in (a if isinstance(a, list) else [a]) if isinstance(one, NamedString)]
        KEEPER.use(session, *files)
        try:
            # JSON has no infinity and no NaN.
            clean = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}
            answer: Document = json.loads(json.dumps(function(*args, **kwargs)), parse_constant=clean.get)
            answer["problems"] = [shown(problem, *files) for problem in answer.get("problems", ())]
            return answer, answer if kept else None
        except JwbError as error:
            said = html.escape(shown(error, *files), quote=False)
        except Exception:  # noqa: BLE001 - the visitor gets a number, the log the trace
            number = secrets.token_hex(4)
            print(f"error {number}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            said = f"Something went wrong here that should not; its number is {number}."
        finally:
            if not kept:
                KEEPER.leave(session)
        raise gr.Error(said, print_exception=False, title="This did not work")

    return safe


def _checked(paths: Sequence[str] | None, what: str) -> list[str]:
    if not paths:
        raise Refused(f"Choose {what} first.")
    if len(paths) > CLIPS:
        raise Refused(f"There are {len(paths)} files; at most {CLIPS} are taken.")
    if sum(check_video(path).frames for path in paths) > BATCH_FRAMES:
        raise Refused(f"The videos have more than {BATCH_FRAMES} frames in all.")
    return list(paths)


def _computed(protocol: str, region: str, /, **given: Any) -> Document:
    """What the module answers; it fetches what is missing."""
    try:
        answer: Document = module().compute(protocol=protocol, **given)
    except MissingWeights:
        traceback.print_exc()
        names = ", ".join(lacking(protocol, region))
        raise Refused(f"The weights {names} could not be fetched by this machine; try again later.") from None
    return answer


def _videos(ours: list[str] | None, theirs: list[str] | None, region: str, protocol: str) -> Document:
    if protocol not in VARIANTS or region not in REGIONS:
        raise Refused(f"There are the protocols {', '.join(VARIANTS)} and the regions {', '.join(REGIONS)}.")
    if why := why_not(protocol, region):
        raise Refused(why)
    given = {"predictions": _checked(ours, "the generated videos")}
    if COMPARES:
        given["references"] = _checked(theirs, "the real videos")
    answer = _computed(protocol, region, **given, region=region, return_samples=True)
    for sample in answer["samples"]:
        sample["names"] = [printable(Path(side[sample["video"]]).name, 60) for side in given.values()]
    return answer


@told
def compare(
    predictions: list[str],
    references: list[str],
    region: str = REGION,
    protocol: str = PROTOCOL,
    request: gr.Request = NOBODY,
) -> Document:
    """Compute the metric of generated videos against real ones.

    Args:
        predictions: the generated videos.
        references: the real videos in the same order.
        region: body (the whole frame), face or hands, where the metric is defined on it.
        protocol: lite, standard or paper, where it can be computed here.

    Returns:
        what `compute` of the `evaluate` module returns, with `samples`: one entry per video.

    """
    return _videos(predictions, references, region, protocol)


@told
def alone(
    predictions: list[str],
    region: str = REGION,
    protocol: str = PROTOCOL,
    request: gr.Request = NOBODY,
) -> Document:
    """Compute the metric of generated videos.

    Args:
        predictions: the generated videos.
        region: body (the whole frame), face or hands.
        protocol: lite, standard or paper, where it can be computed here.

    Returns:
        what `compute` of the `evaluate` module returns, with `samples`: one entry per video.

    """
    return _videos(predictions, None, region, protocol)


def _lines(text: str | None, what: str) -> list[str]:
    lines = [line.strip() for line in (check_text(text) or "").splitlines() if line.strip()]
    if len(lines) > LINES:
        raise Refused(f"There are {len(lines)} lines of {what}; at most {LINES} are taken.")
    return lines


@told
def words(
    references: str,
    predictions: str = "",
    recordings: list[str] | None = None,
    profile: str = "jwb_v1",
    language: str = "en",
    protocol: str = PROTOCOL,
    request: gr.Request = NOBODY,
) -> Document:
    """Compute the word error rate of texts, or of recordings that a recogniser hears.

    Args:
        references: what should be said, one line per recording or text.
        predictions: what was heard, one line each; leave empty for recordings.
        recordings: videos or sounds in the order of the lines.
        profile: how texts are normalised and averaged.
        language: ISO 639-1.
        protocol: names the recogniser.

    Returns:
        what `compute` of the `evaluate` module returns, with `samples`: one entry per line.

    """
    said, heard = _lines(references, "transcripts"), _lines(predictions, "heard words")
    if not said:
        raise Refused("Write what should be said first, one line each.")
    if bool(heard) == bool(recordings):
        raise Refused("Give either the words that were heard or recordings, not both.")
    how: Document = {"profile": profile, "language": language, "return_samples": True}
    if heard:
        # With a blank no text is the name of a file here, which the module would tell; normalising takes it off.
        return dict(module().compute(predictions=[f" {line} " for line in heard], references=said, **how))
    if protocol not in VARIANTS:
        raise Refused(f"There are the protocols {', '.join(VARIANTS)}.")
    if why := why_not(protocol, "speech"):
        raise Refused(why)
    files = list(recordings or ())
    if len(files) > CLIPS:
        raise Refused(f"There are {len(files)} files; at most {CLIPS} are taken.")
    paths = [check_sound(path) for path in files]
    answer = _computed(protocol, "speech", predictions=paths, references=said, **how)
    for sample in answer["samples"]:
        sample["names"] = [printable(paths[sample["clip"]].name, 60)]
    return answer


@told
def replay(log: str, request: gr.Request = NOBODY) -> Document:
    """Read the win rates out of a judge's log; nobody is asked, and no key is needed.

    Args:
        log: the JSONL file that `log=` of the `evaluate` module, or `jwb-dh judge run`, has kept.

    Returns:
        `judges`: one summary per judge in the log, with `rates` (one per system and baseline), its reliability and
        remarks.

    """
    from jwb_dh_v1.judge.log import records
    from jwb_dh_v1.judge.question import judged
    from jwb_dh_v1.judge.summary import summarise

    path = Path(log) if log else None
    if path is None or not path.is_file():
        raise Refused("Choose a judge's log first.")
    if path.stat().st_size > LOG_BYTES:
        raise Refused(f"The log is larger than {LOG_BYTES // MB} MB.")
    try:
        if not (found := judged(records(path))):
            raise Refused(f"{printable(path.name, 60)} holds no answer.")
        return {"judges": [json.loads(summarise(who, answers).to_json()) for who, answers in found.items()]}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise Refused(f"{printable(path.name, 60)} is no judge's log of this version.") from None
