"""Colours, spacing and the one piece of script of the page. No font, script or picture comes from elsewhere."""

from __future__ import annotations

import gradio as gr

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
THEME = gr.themes.Base(
    primary_hue="blue",
    neutral_hue="slate",
    font=FONT,
    font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "monospace"),
    radius_size="md",
)

CSS = """
.gradio-container { max-width: 1500px !important; width: 100%; min-width: 0 !important; margin: 0 auto !important; }
#heading h1 { margin-bottom: 0.2em; }
.faint, .faint p { color: var(--body-text-color-subdued) !important; font-size: 0.9em; }
.status { min-height: 2.6em; }
input[type=range]::-webkit-slider-thumb { border: 1px solid var(--body-text-color-subdued); }
.words ul { margin: 0.3em 0 0 1.2em; list-style: disc; }
.scroll + .words ul { margin-left: 1.8em; }
.words h3 { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--border-color-primary); border-radius: 6px; }
table.scores { border-collapse: collapse; width: 100%; min-width: 1060px; font-size: 0.92em; margin: 0; }
table.scores caption { text-align: left; font-weight: 600; padding: 0.5em 0.7em; }
table.scores :is(th, td, tr) { border: none; }
table.scores th, table.scores td { text-align: left; padding: 0.4em 0.7em; vertical-align: top; }
table.scores thead th { white-space: nowrap; border-bottom: 1px solid var(--border-color-primary); }
table.scores tbody th { font-weight: 500; }
table.scores td:nth-child(3), table.scores td:nth-child(6) { font-variant-numeric: tabular-nums; white-space: nowrap; }
table.scores td:nth-child(4), table.scores td:nth-child(5) { white-space: nowrap; }
table.scores td:nth-child(7), table.scores td:nth-child(8) { min-width: 13em; }
table.scores.speech { min-width: 760px; }
table.scores.speech td:nth-child(6) { white-space: normal; min-width: 16em; }
table.scores tbody tr:nth-child(even) { background: var(--background-fill-secondary); }
table.scores tr.faint > * { color: var(--body-text-color-subdued); }
.radars { display: flex; flex-wrap: wrap; gap: 1rem; justify-content: center; }
.radar { flex: 1 1 280px; max-width: 560px; margin: 0; text-align: center; }
.radar svg { width: 100%; height: auto; color: var(--body-text-color); }
svg.curve { width: 100%; max-width: 1000px; height: auto; color: var(--body-text-color); cursor: crosshair; }
svg.curve text { font-size: 10px; fill: var(--body-text-color-subdued); }
@media (max-width: 700px) { svg.curve text { font-size: 17px; } }
svg.curve .line { fill: none; stroke: var(--color-accent); stroke-width: 2; }
svg.curve .here { stroke: #d55e00; stroke-width: 2; }
.frames { display: flex; flex-wrap: wrap; gap: 1rem; }
.frames figure { margin: 0; flex: 1 1 280px; max-width: 480px; }
.frames svg { width: 100%; height: auto; border-radius: 6px; display: block; }
.frames figcaption { color: var(--body-text-color-subdued); font-size: 0.9em; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

# A click on the curve, or the pointer's way over it, tells the server which frame to show.
CURVE_JS = """
let last = -1, timer = null;
const pick = (event) => {
  const svg = event.target.closest('svg.curve');
  if (!svg) return;
  const box = svg.getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  const left = Number(svg.dataset.left), right = Number(svg.dataset.right);
  const along = Math.min(1, Math.max(0, (share - left) / (right - left)));
  const frame = Math.round(along * Number(svg.dataset.last));
  if (frame === last) return;
  last = frame;
  clearTimeout(timer);
  timer = setTimeout(() => trigger('select', {frame: frame}), event.type === 'click' ? 0 : 120);
};
element.addEventListener('click', pick);
element.addEventListener('pointermove', pick);
"""
