"""`jwb-dh weights` and `teaser`: the files that everything else needs. Heavy imports happen inside."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jwb_dh_v1.errors import MissingWeights, SetupError, WrongHash


def paths_given(pairs: Sequence[str]) -> dict[str, Path]:
    """The files of `--weights name=path ...` by name.

    Raises:
        SetupError: one is not of this form.

    """
    given = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise SetupError(f"--weights takes name=path, not {pair!r}; `jwb-dh weights list` shows the names.")
        given[name] = Path(path)
    return given


def _weights_of(protocol: str | None) -> list[str]:
    """Names of the files that a protocol (or the teaser) needs; all of them for None."""
    from jwb_dh_v1.networks.weights import FILES

    if protocol is None:
        return list(FILES)
    from jwb_dh_v1.networks.detectors import ANNOTATE_WEIGHTS
    from jwb_dh_v1.scoring.plan import make_plan

    if protocol == "teaser":
        lite = set(make_plan("lite").weights) | set(ANNOTATE_WEIGHTS)
        return [name for name, file in FILES.items() if name in lite or file.kind == "media"]
    return list(make_plan(protocol).weights)


def _weights(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from jwb_dh_v1.networks import weights

    console = Console()
    names = list(args.names) or _weights_of(args.protocol)
    if args.accept:
        weights.accept(args.accept)
    if args.action == "fetch":
        paths = weights.fetch(
            names, paths_given(args.weights), say=lambda text: console.print(text, highlight=False, soft_wrap=True)
        )
        console.print(f"{len(paths)} files are there and have the right sha256.")
        return 0
    table = Table()
    for title in ("name", "MB", "state", "sha256"):
        table.add_column(title, no_wrap=True, justify="right" if title == "MB" else "left")
    for title in ("licence", "used by", *(["sources"] if args.sources else [])):
        table.add_column(title, overflow="fold")
    bad, accepted = 0, weights.accepted()
    for name in names:
        if name not in weights.FILES:
            raise SetupError(f"No file is named {name!r}; `jwb-dh weights list` shows the names.")
        file = weights.FILES[name]
        try:
            weights.resolve(name, paths_given(args.weights))
            state = "[green]verified"
        except MissingWeights:
            state, bad = "[yellow]not here", bad + 1
            if not file.sources:
                state = "[yellow]not here; bring it yourself"
            elif file.terms and file.terms not in accepted:
                state = f"[yellow]not here; needs --accept {file.terms}"
        except WrongHash as error:
            state, bad = "[red]wrong content", bad + 1
            console.print(str(error), style="red")
        cells = [
            name,
            f"{file.size / 1e6:.1f}" if file.size else "?",
            state,
            file.sha256[:12] or "unknown",
            file.licence,
            file.used_by,
        ]
        table.add_row(*cells, *(["\n".join(str(source) for source in file.sources)] if args.sources else []))
    console.print(table)
    for term in sorted({weights.FILES[name].terms for name in names} - {""}):
        fetched = any(file.sources for file in weights.FILES.values() if file.terms == term)
        said = "accepted" if term in accepted else f"to accept: --accept {term}" if fetched else "your own copy"
        console.print(f"{term} ({said}): {weights.TERMS[term]}", highlight=False, markup=False)
    return 1 if bad and args.action == "verify" else 0


def _teaser(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.dataset.build.teaser import make_systems, make_teaser
    from jwb_dh_v1.networks.weights import fetch

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    fetch(_weights_of("teaser"), say=say)
    make_teaser(Path(args.out), say)
    if args.systems:
        make_systems(Path(args.out), Path(args.systems), say)
    return 0


def add_commands(commands: Any) -> None:
    """Add the commands on weights and the teaser to those of `jwb-dh`."""
    teaser = commands.add_parser("teaser", help="make a small real dataset from media inside public packages")
    teaser.add_argument("--out", default="jwb-dh-v1", help="folder of the dataset (default: jwb-dh-v1)")
    teaser.add_argument("--systems", help="also make the six stand-in systems in this folder")
    teaser.set_defaults(run=_teaser)

    weights = commands.add_parser("weights", help="list, fetch or verify weights and media")
    weights.add_argument("action", choices=["list", "fetch", "verify"])
    weights.add_argument("names", nargs="*", metavar="NAME", help="some files only")
    weights.add_argument("--sources", action="store_true", help="also show where each file comes from")
    weights.add_argument("--protocol", help="the files of standard, paper, lite, or of the teaser")
    weights.add_argument("--accept", nargs="+", default=[], metavar="TERMS", help="accept terms (remembered), see list")
    weights.add_argument("--weights", nargs="+", default=[], metavar="NAME=PATH", help="your own files")
    weights.set_defaults(run=_weights)
