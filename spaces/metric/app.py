"""The page of one metric: upload, compute, read the answer, and the metric's card. One `app.py` for fourteen Spaces.

`jwb-dh publish ssim --owner ORG --out spaces-out --dry-run` puts this file, the module `ssim.py`, its card and what
they need into one folder; there `python app.py` starts the page. It does not run from the checkout itself.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_EVALUATE_OFFLINE"] = "1"  # the module lies beside this file; and no load is counted anywhere

from files import KEEPER, KEPT, WORK, start

os.environ["GRADIO_TEMP_DIR"] = str(WORK)  # gradio's uploads lie where ours do

import signal
from collections.abc import Callable
from typing import Any

import compute
import gradio as gr
from compute import COMPARES, HERE, METRIC, PROTOCOL, REGION, REGIONS, VARIANTS, Document
from request_filter import WORKERS, RequestFilter
from starlette.middleware import Middleware
from theme import CSS, THEME
from uploads import BATCH_FRAMES, CLIPS, FILE_BYTES, FRAMES, MB, SECONDS, SIDE, SOUNDS

from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.dataset.pairs import VIDEOS
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.wer_profiles import PROFILES

WAITING = 20  # jobs in the queue
WORK_QUEUE = {"concurrency_limit": 1, "concurrency_id": WORKERS}
PRIVATE = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
LIMITS = (
    f"At most {CLIPS} files a side, each at most {FILE_BYTES // MB} MB, {SECONDS} s, {FRAMES} frames and {SIDE} pixels "
    f"a side; {BATCH_FRAMES} frames in all."
)


def show(answer: Document | None) -> tuple[Any, Any, Any]:
    """The answer's numbers, and its videos, as tables."""
    if not answer:
        return gr.skip(), gr.skip(), gr.skip()
    if "judges" in answer:
        facts = [[judge["model"], "; ".join(judge["remarks"]) or judge["rubric"]] for judge in answer["judges"]]
        columns = ["judge", "system", "baseline", "win rate", "95 %", "wins / ties / losses", "failed"]
        lines = [
            [judge["model"], rate["system"], rate["baseline"], _digits(rate["rate"]["value"]),
             f"{_digits(rate['rate']['low'])} to {_digits(rate['rate']['high'])}",
             f"{rate['wins']} / {rate['ties']} / {rate['losses']}", str(rate["failed"])]
            for judge in answer["judges"] for rate in judge["rates"]
        ]  # fmt: skip
    else:
        long = {"samples", "by_language"}
        facts = [[title(METRIC) if key == METRIC else key, _digits(value)] for key, value in answer.items()
                 if key not in long and value not in (None, "", [])]  # fmt: skip
        columns = ["file", "value", "status"]
        lines = [
            [" / ".join(sample.get("names", [str(number + 1)])), _digits(sample["value"]), sample["status"]]
            for number, sample in enumerate(answer["samples"])
        ]
    return gr.Column(visible=True), gr.Dataframe(facts), gr.Dataframe(lines, headers=columns)


def _digits(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return "; ".join(map(_digits, value))
    return "" if value is None else str(value)


def card() -> tuple[str, str]:
    """Title and text of the metric's card."""
    text = (HERE / "README.md").read_text(encoding="utf-8").partition("\n---\n")[2]
    name, _, rest = text.lstrip().partition("\n")
    return name.removeprefix("# "), rest


def inputs() -> tuple[Callable[..., Any], list[Any]]:
    """The event of this metric, and the fields that it takes."""
    if METRIC == "lalm_win_rate":
        gr.Markdown(
            "The judge is a paid service, asked with your own key from your own machine (see the card below). Every "
            "answer is kept in a log; upload one to read its win rates again, without a key."
        )
        return compute.replay, [gr.File(label="The judge's log", file_types=[".jsonl"], elem_id="log")]
    why = " ".join(dict.fromkeys(filter(None, (compute.why_not(name, VARIANTS[name].regions[0]) for name in VARIANTS))))
    # Where nothing can be computed the protocols are there all the same, so that whoever tries one is told why.
    protocols = [(PROTOCOLS[name].name, name) for name in compute.offered() or VARIANTS]
    if METRIC == "wer":
        gr.Markdown(f"One line per recording or text. {LIMITS}", elem_classes="faint")
        said = gr.Textbox("", label="What should be said", lines=3, elem_id="references")
        heard = gr.Textbox("", label="The words that were heard (or recordings)", lines=3, elem_id="predictions")
        files = gr.File(label="Recordings", file_count="multiple", file_types=[*VIDEOS, *SOUNDS], elem_id="recordings")
        profile = gr.Dropdown(list(PROFILES), value="jwb_v1", label="Profile", elem_id="profile")
        language = gr.Textbox("en", label="Language (ISO 639-1)", elem_id="language")
        protocol = gr.Radio(protocols, value=PROTOCOL, label="Recogniser of", info=why)
        return compute.words, [said, heard, files, profile, language, protocol]
    gr.Markdown(LIMITS, elem_classes="faint")
    taken = {"file_count": "multiple", "file_types": list(VIDEOS), "height": 200}
    fields: list[Any] = []
    with gr.Row():
        with gr.Column(min_width=320):
            fields.append(gr.File(label="Generated videos", elem_id="predictions", **taken))
        if COMPARES:
            with gr.Column(min_width=320):
                fields.append(gr.File(label="Real videos, in the same order", elem_id="references", **taken))
    fields.append(gr.Radio(REGIONS, value=REGION, label="Region", elem_id="region"))
    fields.append(gr.Radio(protocols, value=PROTOCOL, label="Protocol", info=why, elem_id="protocol"))
    return compute.compare if COMPARES else compute.alone, fields


def build() -> gr.Blocks:
    """The page."""
    name, text = card()
    with gr.Blocks(title=f"{name}: JWB-DH-V1", analytics_enabled=False) as page:
        gr.Markdown(f"# {name}", elem_id="heading")
        event, fields = inputs()
        kept = gr.State(None, time_to_live=KEPT)
        go = gr.Button("Compute", variant="primary", elem_id="compute")
        with gr.Column(visible=False) as found:
            facts = gr.Dataframe(headers=["", "answer"], interactive=False, wrap=True, elem_id="answer")
            lines = gr.Dataframe(interactive=False, wrap=True, elem_id="rows")
        with gr.Accordion("The answer as JSON", open=False):
            document = gr.JSON(label="answer", show_label=False, max_height=400)
        go.click(event, fields, [document, kept], api_name="compute", **WORK_QUEUE).success(
            show, kept, [found, facts, lines], **PRIVATE
        )
        gr.Markdown(text, latex_delimiters=[{"left": "$$", "right": "$$", "display": True},
                                            {"left": "$", "right": "$", "display": False}])  # fmt: skip
        gr.Markdown(
            f"Uploads are deleted when you close the page, and {KEPT // 60} minutes after their last use at the "
            "latest.",
            elem_classes="faint",
        )
        page.unload(left)
    page.queue(max_size=WAITING, default_concurrency_limit=4, api_open=False)
    return page


def left(request: gr.Request) -> None:
    """A visitor has closed the page."""
    KEEPER.leave(str(request.session_hash))


def launch(**options: Any) -> Any:
    """Start the server; `options` go to gradio's `launch`."""
    start()
    page = build()
    return page.launch(
        theme=THEME,
        css=CSS,
        max_file_size=FILE_BYTES,
        allowed_paths=[],
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,
        footer_links=["api"],
        mcp_server=False,
        state_session_capacity=200,
        app_kwargs={"middleware": [Middleware(RequestFilter, blocks=page)]},
        **options,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the files go when a Space is stopped
    launch()
