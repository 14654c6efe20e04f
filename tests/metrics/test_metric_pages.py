"""The metrics' pages say what the tables say (protocols, weights, terms, ranges, published values); their code runs."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import yaml
from media import moving, write_mp4

from jwb_dh_v1.analysis.reconcile import published, reconcile
from jwb_dh_v1.cli.app import _parser
from jwb_dh_v1.integrations.hf import CITATION
from jwb_dh_v1.integrations.publish import METRICS as SPACES
from jwb_dh_v1.judge.rubric import JWB_R1
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.region import REGIONS
from jwb_dh_v1.networks.weights import FILES

evaluate = pytest.importorskip("evaluate")
METRICS = Path(__file__).parents[2] / "metrics"
PAGES = sorted(path.name for path in METRICS.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
ON_SPEECH = ("wer", "lalm_win_rate")  # their references are texts, or the baseline's speech
JUDGED = {"lalm_win_rate": f"rubric {JWB_R1.name}"}  # in no protocol: the judge and its rubric are part of the name
ON_ANOTHER_PAGE = {m.name: m.page for table in PROTOCOLS.values() for m in table.metrics.values() if m.page}
HEADINGS = [
    "Definition",
    "Formula",
    "Protocols",
    "Source",
    "How to use",
    "Output range and cost",
    "Regions and coverage",
    "Guards",
    "Limits",
    "Weights and licences",
    "Values in the paper",
    "How it was proven here",
    "Citation",
]


def text_of(name: str) -> str:
    return (METRICS / name / "README.md").read_text(encoding="utf-8")


def sections(name: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", text_of(name), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head; code marks are taken off."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def variants(name: str) -> dict[str, object]:
    """Rows of the tables by the protocol's full name."""
    return {table.name: table.metrics[name] for table in PROTOCOLS.values() if name in table.metrics}


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(name), flags=re.MULTILINE | re.DOTALL)


def test_every_metric_of_every_protocol_has_a_page():
    names = {name for table in PROTOCOLS.values() for name in table.metrics}
    assert {ON_ANOTHER_PAGE.get(name, name) for name in names} | set(JUDGED) == set(PAGES)
    assert sorted(SPACES) == PAGES
    for name, page in ON_ANOTHER_PAGE.items():
        assert f"`{name}`" in text_of(page)
    index = (METRICS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)/README\.md\) \| .* \| (.+) \|$", index, flags=re.MULTILINE)
    assert {page: held for name, page, held in listed if name == page} == {
        name: JUDGED.get(name) or ", ".join(short for short, table in PROTOCOLS.items() if name in table.metrics)
        for name in PAGES
    }


def test_pages_are_as_make_pages_makes_them():
    """`make pages` after a change of a table; the command is in the message."""
    check = [sys.executable, str(METRICS.parent / "tools" / "pages.py"), "--check"]
    run = subprocess.run(check, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", PAGES)
def test_header_and_headings(name):
    page = text_of(name)
    header = yaml.safe_load(page.split("---\n")[1])
    assert set(header) == {"title", "sdk", "sdk_version", "app_file", "pinned", "tags", "description"}
    assert (header["sdk"], header["app_file"], header["pinned"]) == ("gradio", "app.py", False)
    assert header["tags"] == ["evaluate", "metric"]
    assert f"\n# {header['title']}\n" in page
    found = sections(name)
    assert list(found) == HEADINGS
    assert all(found.values())
    assert re.sub(r"\s", "", CITATION) in re.sub(r"\s", "", found["Citation"])
    made = found["Citation"] == f"```bibtex\n{CITATION.strip()}\n```\n"  # as `make pages` begins it
    assert made or found["Citation"].count("\n@") >= 2


@pytest.mark.parametrize("name", PAGES)
def test_protocols_directions_and_ranges_are_those_of_the_tables(name):
    found = sections(name)
    assert set(re.findall(r"^\*\*`([a-z]+/\d+)`\*\*$", found["Protocols"], re.MULTILINE)) == set(variants(name))
    for table in PROTOCOLS.values():
        assert f"`{table.name}`" in found["Protocols"]  # also where it lacks the metric, and says so
    if name in JUDGED:
        assert f"**Rubric `{JWB_R1.name}`**" in found["Protocols"]
        assert rows(found["Output range and cost"]) == [[JWB_R1.name, "0 to 1", "higher", "none", "2"]]
        return
    for protocol, lowest_to_highest, better, unit, _ in rows(found["Output range and cost"]):
        metric = variants(name)[protocol]
        assert lowest_to_highest == "{:g} to {:g}".format(*metric.range)
        assert better == ("higher" if metric.higher_is_better else "lower")
        assert unit == (metric.unit or "none")
    assert len(rows(found["Output range and cost"])) == len(variants(name))


@pytest.mark.parametrize("name", PAGES)
def test_weights_and_their_terms_are_those_of_the_tables(name):
    used: dict[str, list[str]] = {}
    for of in [name, *(other for other, page in ON_ANOTHER_PAGE.items() if page == name)]:
        for protocol, metric in variants(of).items():
            for weight in metric.weights:
                used.setdefault(weight, [])
                used[weight] += [protocol] if protocol not in used[weight] else []
    section = sections(name)["Weights and licences"]
    found = {weight: (by.replace("`", ""), licence, terms) for weight, _, by, licence, terms in rows(section)}
    assert found == {
        weight: (", ".join(by), FILES[weight].licence, FILES[weight].terms or "none") for weight, by in used.items()
    }
    wanted = [weight for weight in used if FILES[weight].sources]
    if wanted:
        command = re.search(r"`jwb-dh (weights fetch [^`]+)`", section)[1]
        arguments = _parser().parse_args(command.split())
        assert sorted(arguments.names) == sorted(wanted)
        assert set(arguments.accept) == {FILES[weight].terms for weight in wanted} - {""}


@pytest.mark.parametrize("name", PAGES)
def test_module_loads_from_its_folder(name, monkeypatch):
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    module = evaluate.load(str(METRICS / name))
    assert module.metric == name
    assert type(module).__name__ != "Module"
    references = name in ON_SPEECH or any("reference" in metric.needs for metric in variants(name).values())
    assert set(module.features) == ({"predictions", "references"} if references else {"predictions"})
    assert all(f"{protocol}: " in module.description for protocol in variants(name))
    how = sections(name)["How to use"]
    assert f'evaluate.load("metrics/{name}")' in how
    assert ("references=" in how) == references
    kinds = {metric.regions for metric in variants(name).values()}
    assert all(f"{', '.join(regions)}" in how.replace("\n", " ") for regions in kinds)
    options = list(inspect.signature(module._ready).parameters)[1:]
    said = how + (METRICS / "README.md").read_text(encoding="utf-8")
    assert all(re.search(rf"`{option}`|\b{option}=", how if name in ON_SPEECH else said) for option in options)
    assert all(re.search(rf"\b{option}\b", module.inputs_description) for option in options)


@pytest.fixture(scope="module")
def cells():
    return reconcile(Path(__file__).parents[1] / "golden" / "authors_results")


@pytest.mark.parametrize("name", PAGES)
def test_published_values_are_those_of_the_tables(name, cells):
    found = rows(sections(name)["Values in the paper"])
    if name not in {cell.metric for cell in published()}:
        assert found == [] and "have no" in sections(name)["Values in the paper"]
        return
    assert [row[0] for row in found] == list(REGIONS)
    for region, lowest, highest, *counts in found:
        mine = {c.published.system: c for c in cells if (c.published.region, c.published.metric) == (region, name)}
        assert len(mine) == 8
        numbers = [cell.published.number for cell in mine.values()]
        for told, number in ((lowest, min(numbers)), (highest, max(numbers))):
            printed, system = re.fullmatch(r"(\S+) \((.+)\)", told).groups()
            assert mine[system].published.text == printed
            assert mine[system].published.number == number
        verdicts = Counter(cell.verdict for cell in mine.values())
        names = ("reproduced", "last digit", "not reproducible", "no data")
        assert [int(count) for count in counts] == [verdicts[verdict] for verdict in names]


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_short_and_their_links_and_tests_exist(name):
    page = text_of(name)
    assert 60 <= page.count("\n") <= 140
    for path in re.findall(r"`((?:tests|metrics|jwb_dh_v1|benchmarks)/[\w/]+\.\w+)`", page):
        assert (METRICS.parent / path).is_file(), path
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (METRICS / name / link).is_file(), link


@pytest.mark.parametrize("name", PAGES)
def test_examples_are_python_and_the_command_lines_parse(name):
    assert blocks(name, "python")
    for code in blocks(name, "python"):
        compile(textwrap.dedent(code), f"{name}/README.md", "exec")
    for line in (line for block in blocks(name, "bash") for line in block.strip().splitlines()):
        arguments = _parser().parse_args(shlex.split(line, comments=True)[1:])
        if "metrics" in arguments:
            assert set(arguments.metrics) <= set(PROTOCOLS[arguments.protocol].metrics)


def test_the_example_of_ssim_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    (tmp_path / "metrics").symlink_to(METRICS)
    for folder, crf in (("real", 10), ("generated", 35)):
        (tmp_path / folder).mkdir()
        write_mp4(tmp_path / folder / "a.mp4", moving(4, 64, 48), 25, crf=crf)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("ssim", "python")
    exec(compile(code, "ssim/README.md", "exec"), {})
    value, *counts = capsys.readouterr().out.split()[-4:]
    assert counts == ["1", "0", "0"]
    assert 0.3 < float(value) < 1


def test_the_example_of_wer_runs(monkeypatch, capsys):
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    monkeypatch.chdir(METRICS.parent)
    exec(compile(blocks("wer", "python")[0], "wer/README.md", "exec"), {})
    assert capsys.readouterr().out.split()[-4:] == [str(1 / 6), "1", "0", "0"]
