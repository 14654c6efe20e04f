"""What may share a column: the rule, and every command that puts runs side by side."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import (
    BASE,
    DIFFERENT,
    METRICS,
    changed,
    other_weights,
    result_of,
    together,
    written,
)

from jwb_dh_v1 import PROTOCOLS, Result
from jwb_dh_v1.analysis.ablate import ablate
from jwb_dh_v1.analysis.comparable import differing, require_comparable
from jwb_dh_v1.analysis.compare import compare
from jwb_dh_v1.analysis.export import to_csv, to_latex, to_markdown
from jwb_dh_v1.analysis.leaderboard import leaderboard, to_html
from jwb_dh_v1.cli import main
from jwb_dh_v1.errors import PlanMismatch
from jwb_dh_v1.files import LocalFolder
from jwb_dh_v1.scoring.plan import Plan
from jwb_dh_v1.scoring.run_folder import claim_folder


def test_equal_settings_share_a_table(tmp_path: Path) -> None:
    for i, name in enumerate(("base", "other")):
        written(tmp_path / "deep" / "er" / name, result_of(name, i))
    board = leaderboard([tmp_path])
    assert together(board) == {frozenset(("base", "other"))} and not board.refused
    assert [table.region for table in board.groups[0].tables] == ["body", "face", "speech"]
    assert require_comparable([result_of("a"), result_of("b", 1)]) == []
    assert "other" in to_csv([BASE, result_of("other", 1)])


@pytest.mark.parametrize("key", DIFFERENT)
@pytest.mark.parametrize(
    "put",
    [require_comparable, to_csv, to_latex, to_markdown, compare, ablate],
    ids=lambda f: f.__name__,
)
def test_no_function_puts_different_runs_into_one_column(key: str, put: Callable[[Any], Any]) -> None:
    for runs in ([BASE, DIFFERENT[key]], [DIFFERENT[key], BASE], [BASE, result_of("third", 2), DIFFERENT[key]]):
        with pytest.raises(PlanMismatch, match=re.escape(key)):
            put(runs)


@pytest.mark.parametrize("key", DIFFERENT)
def test_the_leaderboard_keeps_different_runs_apart_and_says_why(key: str, tmp_path: Path) -> None:
    for run in (BASE, DIFFERENT[key], result_of("third", 2)):
        written(tmp_path / run.name, run)
    board = leaderboard([tmp_path])
    assert together(board) == {frozenset(("base", "third"))}
    assert len(board.groups) == 2
    titles = [group.title for group in board.groups]
    assert len(set(titles)) == 2
    if key != "protocol":  # which begins every title
        assert all(key in dict(group.apart) for group in board.groups)
    page = to_html(board)
    for body in re.findall(r"<tbody>.*?</tbody>", page, re.DOTALL):
        assert not ("base" in body and "other" in body)
    document = json.loads(board.to_json())
    assert [[s["name"] for s in g["systems"]] for g in document["groups"]] == [list(g.names) for g in board.groups]


def test_a_run_that_hides_its_weights_shares_nothing() -> None:
    """With fewer cells than the other, an absent hash would pass for one that was not needed."""
    few = result_of("few", 1, metrics=("subject_consistency",), regions=("body",))
    assert few.plan["weights"] and not differing(BASE, few)
    bare = changed(few, weights={})
    assert differing(BASE, bare) == {
        "weights.mobilenet-v2": (BASE.plan["weights"]["mobilenet-v2"][:12], "not recorded")
    }
    with pytest.raises(PlanMismatch, match="not recorded"):
        require_comparable([BASE, bare])
    assert "weights.mobilenet-v2" in differing(changed(few, weights={"mobilenet-v2": ""}), BASE)


def test_of_protocols_that_are_not_known_all_weights_must_be_equal() -> None:
    def foreign(run: Result, **plan: Any) -> Result:
        return replace(run, protocol="lite/9", plan={**run.plan, "protocol": "lite/9", **plan})

    few = result_of("few", 1, metrics=("ssim",), regions=("body",))
    assert not differing(foreign(BASE), foreign(result_of("b", 1)))
    assert "weights.mobilenet-v2" in differing(foreign(BASE), foreign(few))
    assert "protocol" in differing(BASE, foreign(BASE))


def test_contradictions_within_one_setting_are_kept_apart() -> None:
    turned = replace(BASE, scores=tuple(replace(s, higher_is_better=not s.higher_is_better) for s in BASE.scores))
    assert "higher_is_better of ssim" in differing(BASE, turned)
    assert differing(BASE, result_of("b", samples=6)) == {"number of samples": ("8", "6")}
    filled = replace(BASE, scores=tuple(replace(s, failures="worst") for s in BASE.scores))
    assert "failures of ssim" in differing(BASE, filled)


def test_comparability_is_not_transitive(tmp_path: Path) -> None:
    """A run of SSIM alone goes with two that must not meet: it stands in both tables."""
    whole = result_of("whole", 3, metrics=("ssim",), regions=("body",), boxes=None)  # type: ignore[arg-type]
    for run in (BASE, DIFFERENT["weights.mobilenet-v2"], DIFFERENT["boxes"], whole):
        written(
            tmp_path / run.name / str(run.plan["boxes"])[:4] / run.plan["weights"].get("mobilenet-v2", "x")[:4], run
        )
    board = leaderboard([tmp_path])
    assert len(board.groups) == 3
    for group in board.groups:
        assert "whole" in group.names and len(group.runs) == 2
        assert all(not differing(a, b) for a, b in itertools.combinations(group.runs, 2))


def test_every_run_is_in_a_table_with_all_pairs_comparable_whatever_comes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        chosen = [m for m in METRICS if rng.random() < 0.6] or ["ssim"]
        run = result_of(f"run-{i}", i, metrics=chosen, regions=("body",) if rng.random() < 0.5 else ("body", "face"),
                        boxes=str(rng.choice(["mediapipe", "annotations"])))  # fmt: skip
        if "mobilenet-v2" in run.plan["weights"] and rng.random() < 0.4:
            run = other_weights(run)
        written(tmp_path / run.name, run)
    board = leaderboard([tmp_path])
    assert {name for group in board.groups for name in group.names} == {f"run-{i}" for i in range(24)}
    for group in board.groups:
        assert all(not differing(a, b) for a, b in itertools.combinations(group.runs, 2))
    sets = [frozenset(map(id, group.runs)) for group in board.groups]
    assert not any(a < b for a, b in itertools.permutations(sets, 2))  # no table is a part of another
    assert leaderboard([tmp_path]).to_json() == board.to_json()


# --------------------------------------------------------------------------------- every command, every difference

SIDE_BY_SIDE = {
    "compare": ["compare", "{base}", "{other}", "--json", "{out}"],
    "compare of three": ["compare", "{base}", "{third}", "{other}", "--baseline", "third", "--json", "{out}"],
    "ablate": ["ablate", "{base}", "{other}", "--json", "{out}"],
    "diagnose": ["diagnose", "{base}", "--against", "{other}", "--json", "{out}"],
    "report": ["report", "{base}", "{other}", "--out", "{out}"],
    "report of three": ["report", "{base}", "{third}", "{other}", "--out", "{out}"],
    "export csv": ["export", "{base}", "{other}", "--format", "csv", "--out", "{out}"],
    "export latex": ["export", "{base}", "{other}", "--format", "latex", "--out", "{out}"],
    "export markdown": ["export", "{base}", "{other}", "--format", "markdown", "--out", "{out}"],
}
HIDDEN = changed(result_of("other", 1), weights={})  # a results.json that does not say what it used
DIFFERENCES = {**DIFFERENT, "hidden weights": HIDDEN}


def said_of(key: str) -> str:
    """What the message must name."""
    return "weights.mobilenet-v2: .* and 'not recorded'" if key == "hidden weights" else re.escape(key)


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the Space that makes its leaderboard's frame."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "spaces" / "demo"))
    import views

    return views


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base run, one like it, and one for each difference."""
    place = tmp_path_factory.mktemp("runs")
    runs = {"base": BASE, "third": result_of("third", 2), **DIFFERENCES}
    return {key: written(place / str(i) / run.name, run) for i, (key, run) in enumerate(runs.items())}


@pytest.mark.parametrize("key", DIFFERENCES)
@pytest.mark.parametrize("command", SIDE_BY_SIDE)
def test_no_command_puts_different_runs_into_one_column(
    command: str, key: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"base": folders["base"], "third": folders["third"], "other": folders[key], "out": tmp_path / "out"}
    assert main([part.format(**places) for part in SIDE_BY_SIDE[command]]) == 2
    shown = capsys.readouterr()
    assert re.search(said_of(key), shown.err) and "other" in shown.err
    assert not shown.out and not list(tmp_path.iterdir())  # nothing was shown or written before the refusal


@pytest.mark.parametrize("command", [name for name in SIDE_BY_SIDE if "three" not in name])
def test_the_same_commands_take_runs_that_are_comparable(
    command: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    places = {"base": folders["base"], "other": folders["third"], "out": tmp_path / "out"}
    assert main([part.format(**places) for part in SIDE_BY_SIDE[command]]) == 0 and places["out"].is_file()


@pytest.mark.parametrize("key", DIFFERENCES)
def test_commands_that_take_any_runs_keep_them_apart(
    key: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], space: Any
) -> None:
    chosen = [folders["base"], folders["third"], folders[key]]
    for run in chosen:
        shutil.copytree(run, tmp_path / "runs" / run.name)
    assert main(["leaderboard", str(tmp_path / "runs"), "--out", str(tmp_path / "site")]) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    framed = html.unescape(space.runs_page(str(tmp_path / "runs")))
    assert page in framed  # the Space shows the same page
    bodies = [body for body in re.findall(r"<tbody>.*?</tbody>", page, re.DOTALL) if "base" in body or "other" in body]
    assert bodies and not any("base" in body and "other" in body for body in bodies)
    assert any("base" in body and "third" in body for body in bodies)
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page, re.DOTALL)
    what = "weights.dlib-5-points" if key == "hidden weights" else key
    assert key == "protocol" or sum(what in title for title in titles) == 2, titles
    # Several runs without --against are diagnosed one by one, each as if it were alone.
    capsys.readouterr()
    alone = []
    for run in chosen:
        assert main(["diagnose", str(run)]) == 0
        alone.append(capsys.readouterr().out)
    assert main(["diagnose", *map(str, chosen)]) == 0
    assert capsys.readouterr().out == "".join(alone)


@pytest.mark.parametrize("key", DIFFERENT)
def test_no_folder_takes_shards_of_two_plans(key: str, tmp_path: Path) -> None:
    """`score`, with and without --shards, and so `merge`, which adds up what is in one folder."""
    plans = []
    for result in (BASE, DIFFERENT[key]):
        values = dict(result.plan)
        plans.append(Plan.from_facts(values, PROTOCOLS[values["protocol"].partition("/")[0]]))
    claim_folder(LocalFolder(tmp_path), plans[0], 64)
    claim_folder(LocalFolder(tmp_path), plans[0], 64)
    with pytest.raises(PlanMismatch, match=key.partition(".")[0]):
        claim_folder(LocalFolder(tmp_path), plans[1], 64)


def test_what_moves_no_number_is_named_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Versions of packages and the decoder: a protocol's number moves whenever a release moves a score."""
    other = replace(changed(result_of("other", 1), decoder="PyAV 1"), versions={**BASE.versions, "numpy": "9.9"})
    runs = [str(written(tmp_path / run.name, run)) for run in (BASE, other)]
    for command in (["compare", *runs], ["ablate", *runs], ["report", *runs, "--out", str(tmp_path / "r.html")],
                    ["export", *runs, "--format", "latex"], ["export", *runs, "--format", "markdown"],
                    ["diagnose", runs[0], "--against", runs[1]]):  # fmt: skip
        assert main(command) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "PyAV 1" in shown and "9.9" in shown, command
    (group,) = leaderboard([tmp_path]).groups
    assert "PyAV 1" in " ".join(group.notes) and "numpy" in " ".join(group.notes)
