"""A small page where people rate pairs of clips blind; it writes the CSV of `ratings`.

What a browser gets is the text, two sounds and a number: no system, item, file or rater but its own. Sounds travel
within the page as data, made anew from the samples; no file is served. Both clips must be heard (nine tenths of each)
before a choice can be made, here and in the page. Nothing leaves the machine that runs it, and no rating is waiting to
be saved: each is on the disk before the next pair is shown. What is shown when is decided in `study`.

    page = rating_page(items, "ratings.csv", raters=["r01", "r02"])
    launch(page)
"""

from __future__ import annotations

import base64
import importlib
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import MissingPackage, SampleError
from jwb_dh_v1.judge.people.study import Choice, RatingItem, Study, Trial

CHOICES: dict[str, Choice] = {"A is better": "first", "About equal": "tie", "B is better": "second"}
SURE = {"Guessing": 1.0, "Fairly sure": 2.0, "Sure": 3.0}
LONGEST_RATIONALE = 2000

WELCOME = """
# Which recording is better?

You will hear pairs of short recordings of the same words, **A** and **B**. Listen to both, as often as you like, and
say which one is the better speech: clear, natural, and said as the text means it.

- Use headphones, in a quiet place. Set a comfortable volume once and leave it.
- Some pairs are hard to tell apart, a few are the same: *About equal* is a good answer then.
- Each answer is saved at once. You may stop at any time and go on later with the same rater code.
"""
DONE = """
# Thank you

You have rated all your pairs. Every answer is saved; you can close this page.
"""

PLAYER = """
<div class="head"><span class="count" role="status"></span>
  <div class="track" aria-hidden="true"><div class="done"></div></div></div>
<p class="label">The words</p>
<p class="words" dir="auto"></p>
<div class="clips">
  <figure><figcaption>A <span class="heard"></span></figcaption>
    <audio controls controlslist="nodownload noplaybackrate" preload="auto" aria-label="Recording A"></audio></figure>
  <figure><figcaption>B <span class="heard"></span></figcaption>
    <audio controls controlslist="nodownload noplaybackrate" preload="auto" aria-label="Recording B"></audio></figure>
</div>
"""
PLAYER_CSS = """
.head { display: flex; align-items: center; gap: 1rem; margin-bottom: 1.25rem; }
.count { white-space: nowrap; font-weight: 600; }
.track { flex: 1; height: .5rem; border-radius: .25rem; background: var(--border-color-primary); overflow: hidden; }
.done { height: 100%; background: var(--color-accent); }
.label { margin: 0; font-size: .85rem; opacity: .75; }
.words { margin: .2rem 0 1.25rem; font-size: 1.2rem; line-height: 1.5; overflow-wrap: anywhere; }
.clips { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .9rem; border: 1px solid var(--border-color-primary); border-radius: .6rem; }
figcaption { display: flex; justify-content: space-between; align-items: baseline; margin-bottom: .6rem; }
figcaption { font-weight: 700; font-size: 1.1rem; }
.heard { font-weight: 400; font-size: .85rem; opacity: .75; }
audio { width: 100%; display: block; border-radius: 2rem; }
audio:focus-visible { outline: 3px solid var(--color-accent); }
"""
# `played` counts each second once, however often it was heard, and starts anew with a new sound.
PLAYER_JS = """
const part = (name) => element.querySelector(name);
const clips = () => [...element.querySelectorAll('audio')];
let told = null;
function heard(clip) {
  let seconds = 0;
  for (let i = 0; i < clip.played.length; i++) seconds += clip.played.end(i) - clip.played.start(i);
  return clip.duration > 0 && seconds >= 0.9 * clip.duration;
}
function look() {
  const marks = [...element.querySelectorAll('.heard')];
  clips().forEach((clip, i) => { marks[i].textContent = heard(clip) ? '✓ heard' : 'not heard yet'; });
  if (props.value && told !== props.value.number && clips().every(heard)) {
    told = props.value.number;
    trigger('end', { number: told });
  }
}
function show() {
  const shown = props.value;
  if (!shown) return;
  told = null;
  part('.count').textContent = `Pair ${shown.number} of ${shown.total}`;
  part('.done').style.width = `${100 * (shown.number - 1) / shown.total}%`;
  part('.words').textContent = shown.text;
  clips().forEach((clip, i) => { clip.src = shown.sounds[i]; });
  look();
  clips()[0].focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
}
for (const event of ['timeupdate', 'ended', 'pause']) element.addEventListener(event, look, true);
element.addEventListener('play', (event) => clips().forEach((c) => { if (c !== event.target) c.pause(); }), true);
watch('value', show);
show();
"""
CSS = """
.gradio-container { width: 100%; max-width: 52rem !important; margin: 0 auto !important; }
.choices .wrap { display: grid !important; grid-template-columns: repeat(3, 1fr); gap: .6rem; }
@media (max-width: 36rem) { .choices .wrap { grid-template-columns: 1fr; } }
.choices label { justify-content: center; padding: .7rem; }
.choices label:has(input:disabled) { opacity: .55; }
.choices label:focus-within { outline: 3px solid var(--color-accent); }
"""
# Plain: edges that can be seen, no web fonts.
THEME = {
    "block_title_background_fill": "none",
    "block_title_text_color": "*body_text_color",
    "block_title_text_weight": "600",
    "block_title_padding": "0",
    "block_border_width": "1px",
    "input_border_width": "1px",
    "input_border_color": "*neutral_400",
    "checkbox_border_color": "*neutral_500",
    "checkbox_label_border_width": "1px",
    "checkbox_label_border_color": "*neutral_400",
}


@dataclass(frozen=True)
class _Session:
    """One browser window: kept on the server."""

    rater: str
    trial: Trial
    shown: float
    heard: bool = False


def rating_page(
    items: Sequence[RatingItem],
    out_csv: str | Path,
    *,
    seed: int = 0,
    per_rater: int | None = None,
    checks: int = 2,
    raters: Collection[str] | None = None,
) -> Any:
    """Make the page, a `gradio.Blocks`; see `Study` for the arguments and its errors.

    Raises:
        MissingPackage: gradio is not installed (extra `demo`).

    """
    gr = _gradio()
    study = Study(items, out_csv, seed=seed, per_rater=per_rater, checks=checks, raters=raters)

    with gr.Blocks(title="Which recording is better?", analytics_enabled=False) as page:
        session = gr.State(None)
        with gr.Column() as welcome:
            gr.Markdown(WELCOME)
            code = gr.Textbox(label="Your rater code", max_length=40, autofocus=True)
            start = gr.Button("Start", variant="primary")
        with gr.Column(visible=False) as rating:
            player = gr.HTML(None, html_template=PLAYER, css_template=PLAYER_CSS, js_on_load=PLAYER_JS, container=True)
            choice = gr.Radio(list(CHOICES), label="Which one is better?", elem_classes="choices", interactive=False)
            sure = gr.Radio(list(SURE), label="How sure are you?", elem_classes="choices", interactive=False)
            why = gr.Textbox(label="Why? (may stay empty)", max_length=LONGEST_RATIONALE, lines=2, interactive=False)
            save = gr.Button("Listen to both recordings first", variant="primary", interactive=False)
        with gr.Column(visible=False) as done:
            gr.Markdown(DONE)
        answers = [choice, sure, why]
        everything = [session, welcome, rating, done, player, *answers, save]

        def view(rater: str) -> list[Any]:
            trial = study.next(rater)
            columns = [gr.update(visible=visible) for visible in (False, trial is not None, trial is None)]
            blank = [gr.update(value=value, interactive=False) for value in (None, None, "")]
            button = gr.update(value="Listen to both recordings first", interactive=False)
            if trial is None:
                return [None, *columns, None, *blank, button]
            sounds = ["data:audio/wav;base64," + base64.b64encode(wav).decode() for wav in study.sounds(trial)]
            shown = {"number": trial.number, "total": trial.total, "text": trial.item.text, "sounds": sounds}
            return [_Session(rater, trial, time.monotonic()), *columns, shown, *blank, button]

        def begin(typed: str) -> list[Any]:
            try:
                return view(study.admit(typed or ""))
            except SampleError as error:
                raise gr.Error(str(error), title="", print_exception=False) from None

        def heard(now: _Session | None, event: Any) -> list[Any]:
            if now is None or event.number != now.trial.number:
                return [now, *(gr.skip() for _ in range(4))]
            ready = [gr.update(interactive=True) for _ in answers]
            return [replace(now, heard=True), *ready, gr.update(value="Save and go on", interactive=True)]

        # Gradio looks at the annotation to know that it is to pass the event.
        heard.__annotations__["event"] = gr.EventData

        def finish(now: _Session | None, chosen: str | None, certain: str | None, reason: str | None) -> list[Any]:
            if now is None or not now.heard:
                raise gr.Error("Please listen to both recordings first.", title="", print_exception=False)
            if chosen not in CHOICES or certain not in SURE:
                raise gr.Error("Please choose, and say how sure you are.", title="", print_exception=False)
            study.rate(
                now.rater,
                now.trial,
                CHOICES[chosen],
                confidence=SURE[certain],
                rationale=(reason or "")[:LONGEST_RATIONALE],
                rt_ms=round(1000 * (time.monotonic() - now.shown)),
            )
            return view(now.rater)

        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        gr.on([start.click, code.submit], begin, code, everything, **quiet)
        player.end(heard, session, [session, *answers, save], **quiet)
        save.click(finish, [session, *answers], everything, **quiet)
    return page


def launch(page: Any, *, host: str = "127.0.0.1", port: int | None = None, block: bool = True) -> str:
    """Serve a `rating_page` and return its address; with `block` only when it is stopped.

    Anyone who reaches `host` can rate: give `raters` where that is more than this machine. No tunnel is opened, no
    statistics are sent, nothing can be uploaded, and errors are shown to raters without their trace.
    """
    gr = _gradio()
    page.queue(max_size=64, default_concurrency_limit=4)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        allowed_paths=[],
        max_file_size="1kb",
        prevent_thread_lock=True,
        theme=gr.themes.Soft(font="system-ui", font_mono="monospace").set(**THEME),
        css=CSS,
    )
    if block:
        page.block_thread()
    return str(url)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    try:
        return importlib.import_module("gradio")
    except ImportError:
        raise MissingPackage('The rating page needs the package gradio: pip install "jwb-dh-v1[demo]"') from None
