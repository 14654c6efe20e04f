"""`jwb-dh data ...` and `jwb-dh annotate`: making, checking and passing on datasets. Heavy imports happen inside."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from jwb_dh_v1.cli.progress import counting
from jwb_dh_v1.errors import SetupError

SHAPE = argparse.RawDescriptionHelpFormatter


def _say() -> Callable[[str], None]:
    from rich.console import Console

    console = Console()
    return lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)


def _fractions(pairs: list[str]) -> dict[str, float | None] | None:
    """`train=rest evaluation=0.01` -> shares or numbers of clips by split."""
    found: dict[str, float | None] = {}
    for pair in pairs:
        name, _, share = pair.partition("=")
        try:
            found[name] = None if share in {"", "rest"} else float(share)
        except ValueError:
            raise SetupError(f"--splits takes NAME=SHARE, NAME=COUNT or NAME=rest, not {pair!r}.") from None
    return found or None


def _numbers(pairs: list[str]) -> dict[str, int] | None:
    try:
        return {name: int(count) for name, _, count in (pair.partition("=") for pair in pairs)} or None
    except ValueError:
        raise SetupError(f"--shards takes NAME=COUNT, not {' '.join(pairs)!r}.") from None


def _spread_by(args: argparse.Namespace) -> dict[str, Any]:
    """How many workers of which executor, as `pack` and `annotate` take it."""
    from jwb_dh_v1.parallel import RayOptions

    return {"workers": args.workers, "executor": args.executor, "ray": RayOptions(args.ray_address)}


def _add_executor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="at a time (default: 1; with ray, as many as the cluster has CPUs)")
    parser.add_argument("--executor", choices=["local", "ray"], default="local", help="ray: tasks of a Ray cluster")
    parser.add_argument("--ray-address", help="of the cluster (default: RAY_ADDRESS, else one on this machine)")


def _pack(args: argparse.Namespace) -> int:
    from jwb_dh_v1.dataset.build import authors
    from jwb_dh_v1.dataset.build.pack import pack
    from jwb_dh_v1.dataset.build.rows import items_in

    say = _say()
    if args.authors:
        items = authors.items(args.folder, args.csv, say=say)
    else:
        columns = {"licence": args.licence} if args.licence else None
        items = items_in(args.folder, columns)
    with counting("packing") as done:
        manifest = pack(
            items, args.out, splits=_fractions(args.splits), shards=_numbers(args.shards), **_spread_by(args),
            title=args.title, on_item=lambda name, failure: done(name),
        )  # fmt: skip
    for failure in manifest.failed:
        say(f"failed: {failure.sample_id}: {failure.error}: {failure.message}")
    say(f"{manifest.rows} rows in {len(manifest.files)} files, {manifest.bytes / 1e9:.3f} GB, in {args.out}; "
        f"{len(manifest.failed)} clips failed.")  # fmt: skip
    return 1 if manifest.failed else 0


def _check(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.dataset.check import check, print_report

    with counting("checking", unit="files") as done:
        report = check(args.folder, decode=args.decode, workers=args.workers, on_file=lambda name, at, of: done(name))
    print_report(report, Console())
    return 0 if report.ok else 1


def _card(args: argparse.Namespace) -> int:
    from jwb_dh_v1.dataset.build.push import fill_card, write_card

    if args.write:
        _say()(f"written: {write_card(args.folder, args.card)}")
    else:
        print(fill_card(args.folder, args.card))
    return 0


def _push(args: argparse.Namespace) -> int:
    from jwb_dh_v1.dataset.build.push import push

    push(
        args.folder, args.repo, revision=args.revision, private=not args.public, dry_run=args.dry_run,
        workers=args.workers, say=_say(),
    )  # fmt: skip
    return 0


def _prompts(args: argparse.Namespace) -> int:
    from jwb_dh_v1.dataset.load import load_dataset
    from jwb_dh_v1.dataset.prompts import write_prompts

    rows: Any = load_dataset(args.data, split=args.split, streaming=True, revision=args.revision)
    manifest = write_prompts(rows, args.out, say=_say())
    failures = manifest.with_name("failures.jsonl")
    return 1 if failures.is_file() and failures.read_text(encoding="utf-8").strip() else 0


def _stats(args: argparse.Namespace) -> int:
    from jwb_dh_v1.scoring.reference_features import write_stats

    with counting("features of real clips") as done:
        paths = write_stats(
            args.data, args.protocol, args.metrics, args.regions, split=args.split, boxes=args.boxes,
            device=args.device, on_clip=done,
        )  # fmt: skip
    for path in paths:
        _say()(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _annotate(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.dataset.build.annotate import annotate, print_coverage

    with counting("annotating") as done:
        coverage = annotate(
            args.folder, args.out, boxes=args.boxes, speech=not args.no_speech, **_spread_by(args),
            on_clip=lambda clip: done(clip.name),
        )  # fmt: skip
    print_coverage(coverage, Console())
    return 1 if coverage.failed else 0


def add_commands(commands: Any) -> None:
    """Add `data` and `annotate` to the commands of `jwb-dh`."""
    data = commands.add_parser("data", help="pack, check, describe and send datasets; prompts for models")
    verbs = data.add_subparsers(required=True, metavar="VERB")

    pack = verbs.add_parser(
        "pack", formatter_class=SHAPE, help="write a folder of clips and annotation files as Parquet shards",
        description="Pack clips with the files beside them (NAME.txt, .json, .words.csv, .TextGrid, ...) into shards "
        "that datasets.load_dataset streams. The same command again goes on where a stopped one was.",
        epilog="examples:\n  jwb-dh data pack clips/ --out jwb-dh-v1 --splits evaluation=0.01 train=rest --workers 8\n"
        "  jwb-dh data pack WholeBodyBenchmark/ --authors --out jwb-dh-v1\n",
    )  # fmt: skip
    pack.add_argument("folder", help="folder of clips, or with --authors the authors' checkout")
    pack.add_argument("--out", required=True, help="folder of the dataset")
    pack.add_argument("--splits", nargs="+", default=[], metavar="NAME=SHARE", help="share, number of clips, or `rest`")
    pack.add_argument(
        "--shards", nargs="+", default=[], metavar="NAME=COUNT", help="files per split (default: by size)"
    )
    _add_executor(pack)
    pack.add_argument("--title", default="JWB-DH-V1", help="of the dataset's README")
    pack.add_argument("--licence", help="licence of all clips (metadata.csv wins)")
    pack.add_argument("--authors", action="store_true", help="the layout is the benchmark authors' (gt_test/...)")
    pack.add_argument("--csv", help="with --authors: their ground-truth table")
    pack.set_defaults(run=_pack)

    check = verbs.add_parser("check", help="check every rule of a packed dataset; exit code 1 if one is broken")
    check.add_argument("folder")
    check.add_argument("--decode", choices=["none", "some", "all"], default="some", help="which videos to decode")
    check.add_argument("--workers", type=int, default=1)
    check.set_defaults(run=_check)

    card = verbs.add_parser("card", help="fill the YAML header of a dataset card from the data")
    card.add_argument("folder")
    card.add_argument("--card", default="dataset_card.md", help="the card's text (default: dataset_card.md)")
    card.add_argument("--write", action="store_true", help="write it as README.md of the folder instead of printing it")
    card.set_defaults(run=_card)

    push = verbs.add_parser("push", help="send a packed dataset to the Hub")
    push.add_argument("folder")
    push.add_argument("repo", metavar="OWNER/NAME")
    push.add_argument("--revision", help="branch (default: main)")
    push.add_argument("--public", action="store_true", help="make a new repository public")
    push.add_argument("--dry-run", action="store_true", help="show what would be sent; no network")
    push.add_argument("--workers", type=int, default=1)
    push.set_defaults(run=_push)

    prompts = verbs.add_parser("prompts", help="first frames, texts and audio for a model's own inference script")
    prompts.add_argument("--data", default="jwb-dh-v1", help="dataset folder or Hub name")
    prompts.add_argument("--split", default="evaluation")
    prompts.add_argument("--revision")
    prompts.add_argument("--out", required=True)
    prompts.set_defaults(run=_prompts)

    stats = verbs.add_parser(
        "stats", formatter_class=SHAPE, help="features of the real clips, computed once and kept beside the dataset",
        description="Write stats/<protocol>/<region>.npz with what FID, FVD and E-FID read of the real clips. "
        "`jwb-dh score --data DATA` then reads them, if protocol, weights, boxes, device and versions are the same, "
        "and gives the same bytes.",
    )  # fmt: skip
    stats.add_argument("data", help="local dataset, or folder of real videos")
    stats.add_argument("--protocol", default="standard")
    stats.add_argument("--metrics", nargs="+", help="distances of sets (default: all of the protocol's)")
    stats.add_argument("--regions", nargs="+", default=["body", "face", "hands"])
    stats.add_argument("--split", default="evaluation")
    stats.add_argument("--boxes", help="as for `score`")
    stats.add_argument("--device", default="auto")
    stats.set_defaults(run=_stats)

    annotate = commands.add_parser("annotate", help="boxes, landmarks, masks and words of bare videos")
    annotate.add_argument("folder", metavar="DIR")
    annotate.add_argument("--out", help="folder for the annotations (default: beside the clips)")
    annotate.add_argument("--boxes", default="mediapipe", help="mediapipe or dwpose")
    annotate.add_argument("--no-speech", action="store_true", help="do not listen for words")
    _add_executor(annotate)
    annotate.set_defaults(run=_annotate)
