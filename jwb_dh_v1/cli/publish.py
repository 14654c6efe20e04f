"""`jwb-dh publish`: the metric and demo Spaces. Heavy imports happen inside."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.errors import JwbError, SetupError

if TYPE_CHECKING:
    from jwb_dh_v1.integrations.publish import Space

SHAPE = argparse.RawDescriptionHelpFormatter


def _state(space: Space, args: argparse.Namespace) -> str:
    """What the Hub has of a Space."""
    from jwb_dh_v1.integrations.publish_hub import compare

    if args.offline:
        return "not asked"
    try:
        return str(compare(space, args.revision))
    except JwbError as error:
        return str(error)


def _plan(spaces: list[Space], args: argparse.Namespace, console: Any) -> None:
    from hashlib import sha256

    from rich.table import Table

    table = Table(title="Spaces", caption="sha256: of all paths and contents; tag: what evaluate.load asks for first")
    for column in ("Space", "files", "bytes", "sha256", "tag", "on the Hub"):
        table.add_column(column, overflow="fold", justify="right" if column in {"files", "bytes"} else "left")
    for space in spaces:
        tag = space.tag if args.revision is None else ""
        facts = (space.repo_id, str(len(space.files)), f"{space.size:,}", space.sha256[:16], tag, _state(space, args))
        table.add_row(*facts)
    console.print(table)
    if args.files:
        for space in spaces:
            for path, content in space.files.items():
                line = f"{sha256(content).hexdigest()[:16]} {len(content):>9,} {space.repo_id}/{path}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)


def _publish(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.integrations.publish import assemble, chosen, write
    from jwb_dh_v1.integrations.publish_hub import push

    if args.offline and not args.dry_run:
        raise SetupError("Nothing can be sent offline; --offline goes with --dry-run.")
    console = Console()
    spaces = [assemble(name, args.owner, args.source) for name in chosen(args.names)]
    if args.out is not None:
        for space in spaces:
            console.print(f"written: {write(space, args.out)}", highlight=False, markup=False, soft_wrap=True)
    if args.dry_run:
        _plan(spaces, args, console)
        console.print("dry run: nothing was sent")
        return 0
    for space in spaces:
        push(
            space, revision=args.revision, private=not args.public,
            say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
        )  # fmt: skip
    return 0


def add_commands(commands: Any) -> None:
    """Add `publish` to the subparsers of `jwb-dh`."""
    publish = commands.add_parser(
        "publish", help="put the metric and demo Spaces together and send them to the Hub", formatter_class=SHAPE,
        description="Put Spaces together from a checkout (card, module, page, pinned requirements, the package), show "
        "them as a plan, or send each in one commit. The same checkout gives the same bytes.",
        epilog="examples:\n"
        "  jwb-dh publish all --owner ORG --dry-run                         the plan, compared with the Hub\n"
        "  jwb-dh publish ssim --owner ORG --dry-run --offline --out out/   the folder out/ssim; no network\n"
        "  jwb-dh publish ssim demo --owner ORG --public                    send two; new ones are public\n",
    )  # fmt: skip
    publish.add_argument("names", nargs="+", metavar="NAME", help="metrics, demo, or all")
    publish.add_argument("--owner", required=True, help="user or organisation on the Hub")
    publish.add_argument("--source", default=".", help="checkout of jwb-dh-v1 (default: .)")
    publish.add_argument("--out", metavar="FOLDER", help="also write each Space to FOLDER/NAME")
    publish.add_argument("--revision", metavar="BRANCH", help="send to this branch and set no tag (default: main)")
    publish.add_argument("--public", action="store_true", help="make new Spaces public")
    publish.add_argument("--dry-run", action="store_true", help="show the plan and send nothing")
    publish.add_argument("--offline", action="store_true", help="with --dry-run: do not ask the Hub what it has")
    publish.add_argument("--files", action="store_true", help="with --dry-run: every file with its sha256")
    publish.set_defaults(run=_publish)
