"""The demo Space: score a generated video in the browser, by `gradio_client`, or as an MCP tool.

    python app.py                      # http://127.0.0.1:7860
    JWB_DEMO_DATA=jwb-dh-v1 python app.py    # with the teaser's clips as examples
    JWB_DEMO_RUNS=runs python app.py         # and a leaderboard of these runs (a folder, or a dataset on the Hub)

Everything below works with no hub and no key by `lite/1`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from files import KEEP, KEEPER, KEPT, WORK, start
from uploads import CLIPS, FILE_BYTES, FRAMES, MB, SECONDS, SIDE

os.environ["GRADIO_TEMP_DIR"] = str(WORK)  # gradio's uploads lie where ours do

import importlib.util
import signal
from pathlib import Path
from typing import Any

import events
import film as films
import gradio as gr
import scoring
import speech
import views
from request_filter import WORKERS, RequestFilter
from speech_comparison import FILES
from starlette.middleware import Middleware
from theme import CSS, CURVE_JS, THEME

from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.dataset.pairs import VIDEOS
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.networks.weights import fetch
from jwb_dh_v1.scoring.plan import make_plan

WAITING = 20  # jobs in the queue
REGIONS = [("Body", "body"), ("Face", "face"), ("Hands", "hands")]
LIMITS = f"At most {FILE_BYTES // MB} MB, {SECONDS} s, {FRAMES} frames, {SIDE} pixels a side."
WORK_QUEUE = {"concurrency_limit": 1, "concurrency_id": WORKERS}
PRIVATE = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


def examples() -> list[list[str]]:
    """Video, reference, transcript and, where there are other systems, a baseline from what `JWB_DEMO_DATA` names."""
    data = os.environ.get("JWB_DEMO_DATA")
    if not data:
        return []
    from jwb_dh_v1.dataset.load import load_dataset

    folder, found = WORK / "examples", []
    systems = Path(data).absolute().parent / "systems"
    kinds = [s for s in ("blurred", "frozen", "swapped", "recompressed", "garbled") if (systems / s).is_dir()]
    for number, row in enumerate(load_dataset(data, split="evaluation", streaming=True)):
        name = row["sample_id"]
        real = folder / "real" / f"{name}.mp4"
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(row["video"]["bytes"])
        kind = kinds[number % len(kinds)] if kinds else ""
        other = next((k for k in ("garbled", "recompressed") if k in kinds and k != kind), "")
        for system in filter(None, (kind, other)):
            (folder / system).mkdir(exist_ok=True)
            (folder / system / f"{name}.mp4").write_bytes((systems / system / f"{name}.mp4").read_bytes())
        made = folder / kind / f"{name}.mp4" if kind else real
        beside = [str(folder / other / f"{name}.mp4")] if other else []
        found.append([str(made), str(real), row["transcript"]["text"] or "", *beside])
        if len(found) == 5:
            break
    return found


def choices(prefix: str) -> tuple[gr.CheckboxGroup, gr.CheckboxGroup, gr.Radio]:
    """Regions, metrics and protocol. Weights that are not here are named below the protocols."""
    offered = {name: offer for name, offer in scoring.offers().items() if offer.metrics}
    labels = [(PROTOCOLS[name].name, name) for name in offered] or [("lite/1", "lite")]
    every = [(title(m), m) for m in dict.fromkeys(m for offer in offered.values() for m in offer.metrics)]
    why = " ".join(offer.why for offer in scoring.offers().values() if offer.why)
    protocol = gr.Radio(labels, value=labels[-1][1] if "lite" not in offered else "lite", label="Protocol", info=why,
                        elem_id=f"{prefix}-protocol")  # fmt: skip
    regions = gr.CheckboxGroup(REGIONS, value=["body", "face", "hands"], label="Regions", elem_id=f"{prefix}-regions")
    first = offered.get("lite")
    metrics = gr.CheckboxGroup(
        every, value=list(first.metrics) if first else [], label="Metrics", elem_id=f"{prefix}-metrics",
        info="None ticked: all that can be computed.",
    )  # fmt: skip
    protocol.change(of_protocol, protocol, metrics, **PRIVATE)
    return regions, metrics, protocol


def of_protocol(protocol: str) -> Any:
    """The metrics of a protocol that can be computed here, all ticked."""
    offer = scoring.offers().get(protocol)
    names = list(offer.metrics) if offer else []
    return gr.CheckboxGroup(choices=[(title(name), name) for name in names], value=names)


def results(prefix: str, with_film: bool) -> tuple[gr.JSON, list[Any]]:
    """The component of the result itself, and those that `show` fills, in its order; hidden until then."""
    with gr.Column(visible=False, elem_classes="results") as whole:
        words = gr.HTML()
        table = gr.HTML(elem_id=f"{prefix}-table", apply_default_css=False)
        per_clip = gr.Dataframe(label="Per clip", interactive=False, visible=not with_film, elem_id=f"{prefix}-clips",
                                max_height=420)  # fmt: skip
        spoken = gr.HTML(elem_id=f"{prefix}-speech", apply_default_css=False)
        radars = gr.HTML(elem_id=f"{prefix}-radars")
        film: list[Any] = []
        with gr.Column(visible=with_film):
            if with_film:
                gr.Markdown("### Frame by frame")
                key = gr.Dropdown([], label="Curve", elem_id="curve-key")
                curve = gr.HTML(js_on_load=CURVE_JS, elem_id="curve")
                at = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="frame-number", buttons=[])
                frame = gr.HTML(elem_id="frame")
                film = [key, curve, at, frame]
        with gr.Accordion("The result as JSON", open=False):
            document = gr.JSON(show_label=False, max_height=400)
        with gr.Row():
            whole_file = gr.DownloadButton("Download JSON", elem_id=f"{prefix}-json")
            rows_file = gr.DownloadButton("Download CSV", elem_id=f"{prefix}-csv")
    return document, [whole, words, table, spoken, per_clip, radars, whole_file, rows_file, *film]


def show(state: dict[str, Any] | None) -> list[Any]:
    """Fill a results column from what was scored."""
    if not state:
        return [gr.skip()] * 12
    document, film = state["document"], state["film"]
    json_path, csv_path = views.downloads(document, Path(state["folder"]))
    filled = [
        gr.Column(visible=True),
        views.words(document),
        views.table(document),
        views.speech(document),
        gr.Dataframe(**views.per_clip(document)),
        views.radars(document),
        gr.DownloadButton(value=json_path),
        gr.DownloadButton(value=csv_path),
    ]
    if film is None:
        return filled
    names = films.curve_names(film)
    key = names[0][1] if names else ""
    return [
        *filled,
        gr.Dropdown(choices=names, value=key or None, visible=bool(names)),
        films.curve(document, film, key, 0) if key else "",
        gr.Slider(0, max(film["frames"][-1], 1), 0, step=1),
        films.frame(document, film, key, 0),
    ]


def at_frame(state: dict[str, Any] | None, key: str | None, at: float) -> tuple[Any, Any]:
    """Curve and frame at a frame number."""
    if not state or not state["film"]:
        return gr.skip(), gr.skip()
    document, film = state["document"], state["film"]
    number = min(max(int(at or 0), 0), film["frames"][-1])
    known = key if key in film["moments"] else ""
    return films.curve(document, film, known, number) if known else "", films.frame(document, film, known, number)


def picked(event: gr.EventData) -> int:
    """The frame under the pointer."""
    return min(max(int(event.frame), 0), FRAMES)


def left(request: gr.Request) -> None:
    """A visitor has closed the page."""
    KEEPER.leave(str(request.session_hash))


def forget(old: dict[str, Any] | None) -> None:
    """Remove the files of a result that is shown no more."""
    if old:
        films.forget(Path(old["folder"]))


def state() -> gr.State:
    """What was scored last, with its files, for as long as the session lasts."""
    return gr.State(None, time_to_live=KEPT, delete_callback=forget)


def score_tab() -> tuple[gr.Button, list[Any]]:
    """One video; gives the button that leads to the judge, and the fields that it takes with it."""
    kept = state()
    with gr.Row():
        with gr.Column(min_width=320):
            video = gr.Video(label="Generated video", sources=["upload"], elem_id="video", height=280)
        with gr.Column(min_width=320):
            reference = gr.Video(label="Reference: the real video (optional)", sources=["upload"], elem_id="reference",
                                 height=280)  # fmt: skip
    gr.Markdown(LIMITS, elem_classes="faint")
    with gr.Row():
        with gr.Column(min_width=320):
            transcript = gr.Textbox("", label="Transcript (optional)", placeholder="What should be said, for WER",
                                    lines=4, elem_id="transcript")  # fmt: skip
        with gr.Column(min_width=320):
            baseline = gr.File(label="Baseline speech (optional)",
                               file_types=FILES, elem_id="baseline", height=140)  # fmt: skip
            judge = gr.Button("Take both to the judge", size="sm", elem_id="to-judge")
    found = examples()
    if found:
        KEEP.update(path for path in WORK.rglob("*"))
        fields = [video, reference, transcript, baseline][: len(found[0])]
        gr.Examples(found, fields, label="Examples", cache_examples=False, api_visibility="private")
        KEEP.update(path for path in WORK.rglob("*"))
    regions, metrics, protocol = choices("score")
    go = gr.Button("Score", variant="primary", elem_id="score")
    status = gr.HTML(elem_classes="status")
    document, parts = results("score", True)
    run = go.click(
        events.score, [video, reference, transcript, baseline, regions, metrics, protocol], [document, kept],
        api_name="score", show_progress_on=status, **WORK_QUEUE,
    )  # fmt: skip
    run.success(show, kept, parts, **PRIVATE)
    key, curve, at, frame = parts[-4:]
    gr.on([at.change, key.change], at_frame, [kept, key, at], [curve, frame], trigger_mode="always_last", **PRIVATE)
    curve.select(picked, None, at, trigger_mode="always_last", **PRIVATE)
    return judge, [video, baseline, transcript]


def batch_tab() -> None:
    """Several videos."""
    kept = state()
    gr.Markdown("Videos are paired with references by name (`a.mp4` with `a.mp4`); `a.txt` beside a reference holds "
                f"its transcript. At most {CLIPS} videos. Each: {LIMITS[0].lower() + LIMITS[1:]}")  # fmt: skip
    with gr.Row():
        with gr.Column(min_width=320):
            generated = gr.File(label="Generated videos, or a zip", file_count="multiple", file_types=[*VIDEOS, ".zip"],
                                elem_id="generated", height=200)  # fmt: skip
        with gr.Column(min_width=320):
            references = gr.File(label="References and transcripts, or a zip (optional)", file_count="multiple",
                                 file_types=[*VIDEOS, ".txt", ".zip"], elem_id="references", height=200)  # fmt: skip
    regions, metrics, protocol = choices("batch")
    go = gr.Button("Score all", variant="primary", elem_id="score-all")
    status = gr.HTML(elem_classes="status")
    document, parts = results("batch", False)
    run = go.click(
        events.batch, [generated, references, regions, metrics, protocol], [document, kept], api_name="batch",
        show_progress_on=status, **WORK_QUEUE,
    )  # fmt: skip
    run.success(show, kept, parts, **PRIVATE)


def leaderboard_tab() -> None:
    """The published tables."""
    gr.Markdown(
        "The tables of [arXiv 2507.20987](https://arxiv.org/abs/2507.20987), as printed. After each number: ✓ the "
        "authors' own per-video files give the printed digits, ≈ but for one in the last, ✗ they do not, · no files "
        "were published. No number on this page is computed here, and `lite/1` scores must not be ranked with them."
    )
    region = gr.Radio(REGIONS, value="body", label="Region", elem_id="board-region")
    headers, lines = views.leaderboard_table("body")
    board = gr.Dataframe(lines, headers=headers, interactive=False, label="Published scores", show_label=True,
                         elem_id="board", pinned_columns=1,
                         column_widths=["130px"] + ["104px"] * 12 + ["140px"])  # fmt: skip
    region.change(events.leaderboard, region, board, api_name="leaderboard")
    if page := views.runs_page(os.environ.get("JWB_DEMO_RUNS")):
        gr.Markdown("## Runs of this toolkit")
        gr.HTML(page, elem_id="runs")


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="JWB-DH-V1: scores for digital humans", analytics_enabled=False) as demo:
        gr.Markdown(
            "# JWB-DH-V1\nHow good is a generated video of a talking person? Whole body, face and hands apart, video "
            "and speech together.",
            elem_id="heading",
        )
        with gr.Tabs() as tabs:
            with gr.Tab("Score", id="score"):
                judge, given = score_tab()
            with gr.Tab("Batch", id="batch"):
                batch_tab()
            with gr.Tab("Speech and judge", id="speech"):
                fields = speech.tab(demo)
            with gr.Tab("Leaderboard", id="leaderboard"):
                leaderboard_tab()
        judge.click(events.hand_over, given, [*fields, tabs], api_visibility="private", show_progress="hidden")
        gr.Markdown(
            f"Uploads are deleted when you close the page, and {KEPT // 60} minutes after their last use at the "
            "latest. Nothing is kept, counted or sent on. "
            "[The benchmark](https://arxiv.org/abs/2507.20987) · Apache-2.0",
            elem_classes="faint",
        )
        demo.unload(left)
    demo.queue(max_size=WAITING, default_concurrency_limit=4, api_open=False)
    return demo


def launch(**options: Any) -> Any:
    """Start the server; `options` go to gradio's `launch`."""
    start()
    demo = build()
    if with_tools := importlib.util.find_spec("mcp") is not None:
        import tools

        tools.install()
    return demo.launch(
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
        mcp_server=with_tools,
        state_session_capacity=200,
        app_kwargs={"middleware": [Middleware(RequestFilter, blocks=demo)]},
        **options,
    )


if __name__ == "__main__":
    if os.environ.get("SPACE_ID"):  # nothing was fetched before on a Space of the Hub
        fetch(make_plan("lite").weights, say=print)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the files go when a Space is stopped
    launch()
