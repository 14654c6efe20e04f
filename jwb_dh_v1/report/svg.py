"""Matplotlib figures as SVG for a page, and as files for a paper.

In the page a drawing stands alone, carries its description as text, and takes its ink from the page around it, so that
it reads on light, dark and printed ground. In a file its colours are fixed and its letters are shapes.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by people who are colour-blind; each system has a marker of its own as well.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (5, 2)), (0, (1.5, 1.5)))
# What is drawn in these colours takes the page's: matplotlib knows no `currentColor` and no CSS variables.
INK, FAINT = "#010203", "#040506"
PLACES = tuple(f"#00{number:02x}fe" for number in range(len(SERIES)))
REPLACED = {INK: "currentColor", FAINT: "var(--faint, #888)"} | {
    place: f"var(--series-{number}, {colour})"
    for number, (place, colour) in enumerate(zip(PLACES, SERIES, strict=True))
}
FONT = "system-ui, sans-serif"
PER_INCH = 72  # points: one unit of the SVG is one CSS pixel
DPI = 300  # of PNG files
DATELESS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Theme:
    """The colours of a drawing: ink, quiet lines, and one per series."""

    ink: str
    faint: str
    series: tuple[str, ...]

    def colour(self, number: int) -> str:
        """The colour of a series; they repeat after seven, as the markers do."""
        return self.series[number % len(self.series)]


PAGE = Theme(INK, FAINT, PLACES)
PAPER = Theme("#000000", "#6b6b6b", SERIES)


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / PER_INCH, height / PER_INCH))


def settings(theme: Theme = PAGE) -> dict[str, Any]:
    """Matplotlib's settings, to be in force (`rc_context`) while a figure is made and while it is written."""
    return {
        "svg.fonttype": "none" if theme == PAGE else "path",  # in a page text stays text: searchable, in its font
        "svg.hashsalt": "jwb-dh-v1",  # the same drawing gives the same bytes
        "pdf.fonttype": 42,
        "axes.formatter.useoffset": False,  # 0.99998, not 8 + 0.9999 beside the axis
        "text.parse_math": False,  # a name with $ is a name
        "font.size": 11,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.linewidth": 0.8,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _write(figure: Figure, target: Any, kind: str, **options: Any) -> None:
    with warnings.catch_warnings():
        # In a page the reader's browser has the font; in a file a box stands for a letter that no font here has.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(target, format=kind, metadata=DATELESS[kind], **options)


def to_svg(figure: Figure, alt: str) -> str:
    """A figure as one `<svg>` element that scales with its place and can stand several times in a page."""
    buffer = io.BytesIO()
    _write(figure, buffer, "svg", transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for ours, theirs in REPLACED.items():
        text = re.sub(ours, theirs, text, flags=re.IGNORECASE)
    text = re.sub(r"(font: (?:\w+ )?[\d.]+px )[^;\"]*", rf"\1{FONT}", text)
    text = re.sub(r'<g id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|\w*Collection)[^"]*">', "<g>", text)
    mark = hashlib.sha256((alt + text).encode()).hexdigest()[:10]
    for name in set(re.findall(r' id="([^"]+)"', text)):
        text = re.sub(rf'(\bid="|href="#|url\(#){re.escape(name)}(?=["\)])', rf"\g<1>{mark}-{name}", text)
    opening = f'<svg role="img" aria-label="{html.escape(alt)}" xmlns="http://www.w3.org/2000/svg" '
    opening += 'xmlns:xlink="http://www.w3.org/1999/xlink" '
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox is not None
    size = f'width="{figure.get_figwidth() * PER_INCH:g}" height="{figure.get_figheight() * PER_INCH:g}" '
    return opening + size + viewbox.group() + text[text.index(">") :].rstrip()


def to_file(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF by the file's ending; the same figure gives the same bytes."""
    _write(figure, path, path.suffix[1:], dpi=DPI, facecolor="white")
