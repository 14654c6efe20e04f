"""The tab for speech: word errors by Whisper, and a judge that compares two recordings with the visitor's own key.

The key is a local variable of one call. It is in no file, no log and no message, and what gradio remembers of the field
is overwritten when the call ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import events
import gradio as gr
import judging
from files import KEEPER
from judging import DOLLARS, heard
from request_filter import JUDGES, WORKERS
from speech_comparison import FILES, recognise
from uploads import Refused, check_sound, check_text

from jwb_dh_v1.metrics.speech import word_errors

FREE_ADDRESS = os.environ.get("JWB_DEMO_ALLOW_BASE_URL") == "1"


@events.told
def wer(recording: str, transcript: str, request: gr.Request) -> dict[str, Any]:
    """Word error rate of a recording, as Whisper tiny.en hears it (English only).

    Args:
        recording: a video or a sound, at most 100 MB and 60 s.
        transcript: the words that should be heard.

    Returns:
        `wer` (errors per word of the transcript), `substitutions`, `deletions`, `insertions`, `words`, `reference` and
        `hypothesis` (both normalised), `flags`.

    """
    session = events.whose(request)
    KEEPER.use(session, recording)
    try:
        path = check_sound(recording)
        text = check_text(transcript)
        if text is None:
            raise Refused("Write the transcript first: WER compares with it.")
        return word_errors(text, recognise(heard(path)))
    finally:
        if not events.by_session(request):
            KEEPER.leave(session)


def judge_of(forget: Callable[[str], None]) -> Callable[..., Any]:
    """The judge's event; `forget` overwrites what gradio remembers of a session's key."""

    @events.told
    def judge(
        recording: str,
        baseline: str,
        transcript: str,
        provider: str = "gemini",
        model: str = "",
        key: str = "",
        base_url: str = "",
        request: gr.Request = events.NOBODY,
    ) -> dict[str, Any]:
        """Let a language model that hears say which of two recordings reads a text better.

        It is asked twice, once in each order, with your own key, which is used for this call only.

        Args:
            recording: the generated video or sound, at most 60 s.
            baseline: the recording it is compared with.
            transcript: the words that should be spoken.
            provider: gemini or openai.
            model: the model's id; empty is the paper's for gemini.
            key: your key of that provider.
            base_url: leave empty; another address is refused unless the host of this page allows it.

        Returns:
            `outcome` (win, tie or loss of the recording, or `unclear`), `sentence` (the same in words), `judgements`
            (order, outcome, scores, reasoning of each answer), `tokens`, `dollars` (null where the price is unknown),
            `failed`, `model`. No verdict in either order is an error whose sentence says why.

        """
        session = events.whose(request)
        KEEPER.use(session, recording, baseline)
        try:
            key = key.strip()
            if not key:
                raise Refused("Give your own key of the provider; this page has none.")
            if base_url.strip() and not FREE_ADDRESS:
                raise Refused("Only the providers' own addresses are asked here.")
            ours, theirs = check_sound(recording), check_sound(baseline)
            text = check_text(transcript)
            if text is None:
                raise Refused("Write the transcript first: the judge needs the text.")
            return judging.verdict(ours, theirs, text, provider, model.strip(), key, base_url.strip())
        finally:
            forget(str(request.session_hash))
            if not events.by_session(request):
                KEEPER.leave(session)

    return judge


def tab(demo: gr.Blocks) -> list[Any]:
    """Word errors on top, the judge below; gives the judge's fields for both recordings and the text."""
    gr.Markdown("### Word errors\nWhisper tiny.en listens, and its words are compared with the transcript.")
    with gr.Row():
        with gr.Column(min_width=320):
            recording = gr.File(label="Video or sound", file_types=FILES, elem_id="wer-file", height=140)
        with gr.Column(min_width=320):
            text = gr.Textbox("", label="Transcript", lines=4, elem_id="wer-text")
    go = gr.Button("Compute WER", variant="primary", elem_id="wer")
    found = gr.JSON(label="Word errors", elem_id="wer-result", max_height=400)
    go.click(wer, [recording, text], found, api_name="speech", concurrency_limit=1, concurrency_id=WORKERS)

    gr.Markdown(
        "### Judge\nA language model hears both recordings, in both orders, and says which reads the text better. It "
        "takes your own key, which is used for this one call and kept nowhere. Where the price is known, at most "
        f"${DOLLARS:g} is spent."
    )
    with gr.Row():
        with gr.Column(min_width=320):
            ours = gr.File(label="Generated video or sound", file_types=FILES, elem_id="judge-ours", height=140)
        with gr.Column(min_width=320):
            theirs = gr.File(label="Baseline video or sound", file_types=FILES, elem_id="judge-theirs", height=140)
    said = gr.Textbox("", label="Text that should be spoken", lines=2, elem_id="judge-text")
    with gr.Row():
        provider = gr.Dropdown(["gemini", "openai"], value="gemini", label="Provider", elem_id="judge-provider")
        model = gr.Textbox("", label="Model", placeholder="gemini-2.5-pro", elem_id="judge-model")
        key = gr.Textbox("", label="Your key", type="password", elem_id="judge-key",
                         html_attributes=gr.InputHTMLAttributes(autocomplete="off"))  # fmt: skip
    address = gr.Textbox("", label="Address of the API", visible=FREE_ADDRESS, elem_id="judge-address")

    def forget(session: str) -> None:
        held = demo.state_holder.session_data.get(session)
        if held is not None:
            held._update_value_in_config(key._id, "")

    ask = gr.Button("Ask the judge", variant="primary", elem_id="judge")
    words = gr.HTML(elem_id="judge-words")
    verdict = gr.JSON(label="Verdict", elem_id="judge-result", max_height=500)
    asked = ask.click(
        judge_of(forget), [ours, theirs, said, provider, model, key, address], verdict, api_name="judge",
        concurrency_limit=4, concurrency_id=JUDGES,
    )  # fmt: skip
    asked.success(judging.told, verdict, words, api_visibility="private", queue=False, show_progress="hidden")
    return [ours, theirs, said]
