"""`make pages`: what the metric pages and modules have from the protocols' tables, made or refreshed.

For each metric: `metrics/<name>/<name>.py` (the module for `evaluate`) and a page are made where there are none. In
pages that exist, the tables of ranges and of weights are written anew, a protocol that is new gets a paragraph, and
everything else stays as it is, byte for byte. The index `metrics/README.md` gets a row per page.

    python tools/pages.py            writes what is stale and says what it wrote
    python tools/pages.py --check    writes nothing; exit code 1 where something is stale
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jwb_dh_v1.analysis.wording import title  # noqa: E402
from jwb_dh_v1.integrations.hf import CITATION  # noqa: E402
from jwb_dh_v1.integrations.publish import JUDGED, METRICS  # noqa: E402
from jwb_dh_v1.metrics import PROTOCOLS, Metric  # noqa: E402
from jwb_dh_v1.networks.weights import FILES  # noqa: E402

RANGES = "| protocol | range | better | unit | seconds per second of video |\n|---|---|---|---|---|\n"
WEIGHTS = "| file | size | used by | licence | terms to accept |\n|---|---|---|---|---|\n"
INDEX = "| metric | asks | protocols |\n|---|---|---|\n"

MODULE = '''"""{description}"""

import jwb_dh_v1.integrations.hf as hf


class {class_name}(hf.Module):
    """{description}"""

    metric = "{name}"
'''

PAGE = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
tags: [evaluate, metric]
description: {quoted}
---

# {title}

## Definition
{description}

## Formula
As in the definition: `{place}`.

## Protocols
{protocols}

## Source
{source}

## How to use
```python
import evaluate

module = evaluate.load("metrics/{name}")
found = module.compute({arguments}, region="{region}", protocol="{protocol}")
print(found["{name}"], found["n"], found["skipped"], found["failed"])
```

`predictions` are the generated videos{references}: paths, bytes, rows of a dataset, or frames as uint8 arrays. Options:
`region`: {regions}; `protocol`; `annotations`, `boxes`, `device`, `return_samples`. The answer holds the value as
`{name}`, `n`, `skipped`, `failed` (numbers of videos), `ci95`, `protocol`, `region`, `networks`, `higher_is_better` and
`problems`. What each means, and the same by `jwb-dh score`: [metrics/README.md](../README.md).

## Output range and cost
{ranges}

## Regions and coverage
It is defined on {regions}. How parts are cut out, and what coverage means: [metrics/README.md](../README.md).

## Guards
Clips that it cannot score are failed or skipped with a reason, and counted: see `problems` in the answer.

## Limits
Results of different protocols are never comparable.

## Weights and licences
{weights}

## Values in the paper
The published tables have no such column.

## How it was proven here
{proof}

## Citation
```bibtex
{citation}
```
"""


def variants(name: str) -> dict[str, Metric]:
    """The metric by the name of each protocol that has it."""
    return {table.name: table.metrics[name] for table in PROTOCOLS.values() if name in table.metrics}


def described(name: str) -> list[str]:
    """The metrics of a page: its own, and those that are described there."""
    others = {m.name for table in PROTOCOLS.values() for m in table.metrics.values() if m.page == name}
    return [name, *sorted(others - {name})]


def ranges(name: str, page: str = "") -> str:
    """The table of ranges; costs, which were measured, are those of the page."""
    costs = dict(re.findall(r"^\| `(\S+)` \|(?: [^|]+ \|){3} ([^|]+) \|$", page, re.MULTILINE))
    rows = [
        f"| `{protocol}` | {metric.range[0]:g} to {metric.range[1]:g} | "
        f"{'higher' if metric.higher_is_better else 'lower'} | {metric.unit or 'none'} | "
        f"{costs.get(protocol, 'not measured')} |\n"
        for protocol, metric in variants(name).items()
    ]
    return RANGES + "".join(rows)


def size(count: int) -> str:
    """Bytes in words: `95.6 MB`."""
    unit, divisor = next(((u, d) for u, d in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= d), ("B", 1))
    return f"{count / divisor:.1f} {unit}"


def weights(name: str, page: str = "") -> str:
    """The table of weights, or nothing where none is needed; a size that no table knows is that of the page."""
    sizes = dict(re.findall(r"^\| `(\S+)` \| ([^|]+) \|", page, re.MULTILINE))
    used: dict[str, dict[str, None]] = {}
    for metric_name in described(name):
        for protocol, metric in variants(metric_name).items():
            for weight in metric.weights:
                used.setdefault(weight, {})[protocol] = None
    rows = []
    for weight, protocols in used.items():
        file = FILES[weight]
        terms = f"`{file.terms}`" if file.terms else "none"
        by = ", ".join(f"`{protocol}`" for protocol in protocols)
        count = size(file.size) if file.size else sizes.get(weight, "unknown")
        rows.append(f"| `{weight}` | {count} | {by} | {file.licence} | {terms} |\n")
    return WEIGHTS + "".join(rows) if rows else ""


def paragraph(protocol: str, metric: Metric) -> str:
    """What the table says of a metric in one protocol."""
    networks = "No network." if metric.networks == "none" else f"Network: {metric.networks}."
    return f"**`{protocol}`**\n- {networks}\n- Clips without a score: {metric.failures}.\n"


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    return re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].split()) + " ")[0]


def skeleton(name: str) -> str:
    """A page with everything that the tables and the docstrings know."""
    found = variants(name)
    metric = next(iter(found.values()))
    function = metric.function or metric.curve
    assert function is not None
    module = sys.modules[function.__module__].__doc__ or ""
    protocols = [paragraph(protocol, row) for protocol, row in found.items()]
    protocols += [f"`{table.name}` does not have it.\n" for table in PROTOCOLS.values() if table.name not in found]
    needed = [weight for weight in dict.fromkeys(w for row in found.values() for w in row.weights)]
    fetch = " ".join(weight for weight in needed if FILES[weight].sources)
    terms = " ".join(sorted({FILES[w].terms for w in needed} - {""}))
    accept = f" --accept {terms}" if terms else ""
    command = f"\n`jwb-dh weights fetch {fetch}{accept}` gets them." if fetch else ""
    reference = "reference" in metric.needs
    tests = f"tests/metrics/test_{function.__module__.rpartition('.')[2]}.py"
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    gradio = re.search(r"^gradio==(\S+)", constraints, re.MULTILINE)
    assert gradio is not None
    description = first_sentence(module)
    return PAGE.format(
        name=name,
        title=title(name),
        gradio=gradio[1],
        description=description,
        quoted='"' + description.replace('"', "'") + '"',
        place=f"{function.__module__.replace('.', '/')}.py",
        protocols="\n".join(protocols).rstrip(),
        source="\n\n".join(module.strip().split("\n\n")[1:]) or "This package.",
        arguments='predictions=["generated/a.mp4"]' + (', references=["real/a.mp4"]' if reference else ""),
        references=", `references` the real ones in the same order" if reference else "",
        region=metric.regions[0],
        regions=", ".join(metric.regions),
        protocol=next(iter(found)).partition("/")[0],
        ranges=ranges(name).rstrip(),
        weights=(weights(name).rstrip() + "\n" + command).strip() if needed else "No network and no weights.",
        proof=f"`{tests}`." if (ROOT / tests).is_file() else "By the tests of the package.",
        citation=CITATION.strip(),
    )


def section(page: str, heading: str) -> tuple[int, int]:
    """Where a section's text begins and ends."""
    start = page.index(f"\n## {heading}\n") + len(f"\n## {heading}\n")
    stop = page.find("\n## ", start)
    return start, stop if stop >= 0 else len(page)


def with_table(page: str, heading: str, table: str) -> str:
    """The page with a table in place of the section's one; where it has none, at the section's start."""
    start, stop = section(page, heading)
    text = page[start:stop]
    found = re.search(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)
    if found is None:
        return page if not table else page[:start] + table + "\n" + page[start:]
    if not table:
        return page[:start] + text.replace(found[0], "").lstrip("\n") + page[stop:]
    return page[:start] + (text + "\n").replace(found[0], table)[:-1] + page[stop:]


def refreshed(name: str, page: str) -> str:
    """The page with today's facts."""
    page = with_table(page, "Output range and cost", ranges(name, page))
    page = with_table(page, "Weights and licences", weights(name, page))
    for protocol, metric in variants(name).items():
        start, stop = section(page, "Protocols")
        if f"**`{protocol}`**" not in page[start:stop]:
            page = page[:stop] + "\n" + paragraph(protocol, metric) + page[stop:]
    return page


def index(text: str, pages: dict[str, str]) -> str:
    """The index with a row per page, in the order of the tables; questions are kept."""
    start = text.index(INDEX) + len(INDEX)
    rows = re.match(r"(?:^\|.*\n)+", text[start:], re.MULTILINE)
    old = rows[0] if rows else ""
    asks = dict(re.findall(r"^\| \[(\w+)\]\(\S+\) \| (.*) \| .* \|$", old, re.MULTILINE))
    judged = dict(re.findall(r"^\| \[(\w+)\]\(\S+\) \| .* \| (.*) \|$", old, re.MULTILINE))
    new = ""
    for name in METRICS:
        held = judged[name] if name in JUDGED else ", ".join(p.partition("/")[0] for p in variants(name))
        question = asks.get(name) or first_sentence(pages[name].partition("## Definition\n")[2]).rstrip(".").lower()
        new += f"| [{name}]({name}/README.md) | {question} | {held} |\n"
    return text[:start] + new + text[start + len(old) :]


def made() -> dict[Path, str]:
    """What every generated file should hold, by path."""
    found, pages = {}, {}
    for name in METRICS:
        folder = ROOT / "metrics" / name
        page, module = folder / "README.md", folder / f"{name}.py"
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        if name not in JUDGED:
            text = refreshed(name, text) if text else skeleton(name)
        pages[name] = found[page] = text
        if not module.is_file():
            description = first_sentence(text.partition("## Definition\n")[2])
            class_name = "".join(word.capitalize() for word in name.split("_"))
            found[module] = MODULE.format(description=description, class_name=class_name, name=name)
    readme = ROOT / "metrics" / "README.md"
    found[readme] = index(readme.read_text(encoding="utf-8"), pages)
    return found


def main() -> int:
    """Write, or with `--check` name, what is stale."""
    check = "--check" in sys.argv[1:]
    stale = {
        path: text for path, text in made().items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}{' is stale: run `make pages`' if check else ''}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
