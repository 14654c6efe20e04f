"""The command line `jwb-dh`. Heavy imports happen inside the commands, so that `--help` is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.cli import data as cli_data
from jwb_dh_v1.cli import judge as cli_judge
from jwb_dh_v1.cli import publish as cli_publish
from jwb_dh_v1.cli import results as cli_results
from jwb_dh_v1.cli import weights as cli_weights
from jwb_dh_v1.cli import wer as cli_wer
from jwb_dh_v1.cli.data import counting
from jwb_dh_v1.cli.weights import paths_given
from jwb_dh_v1.errors import JwbError, SetupError, Stopped
from jwb_dh_v1.version import __version__

if TYPE_CHECKING:
    from jwb_dh_v1.scoring.result import Result

EXAMPLES = """examples:
  jwb-dh weights fetch --protocol lite               get the files of lite/1 (about 120 MB), each checked by sha256
  jwb-dh teaser --out jwb-dh-v1 --systems systems    make a small real dataset and six stand-in systems
  jwb-dh score videos/ --data jwb-dh-v1 --protocol lite --out runs/mine
  jwb-dh score systems/* --data jwb-dh-v1 --protocol lite --out runs/demo
  jwb-dh data pack clips/ --out my-data              make a dataset of your own clips (see `jwb-dh data --help`)
  jwb-dh report runs/mine                            print the table and write report.html again
"""


def _score(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.dataset.pairs import pair
    from jwb_dh_v1.files import below, written_below
    from jwb_dh_v1.networks.pool import NetworkPool
    from jwb_dh_v1.networks.weights import resolve_all
    from jwb_dh_v1.report.figures import write_plots
    from jwb_dh_v1.report.report import write_comparison
    from jwb_dh_v1.report.tables import print_comparison
    from jwb_dh_v1.scoring.plan import make_plan, with_own, without_missing
    from jwb_dh_v1.scoring.reference_features import open_stats

    console = Console()
    given = paths_given(args.weights)
    folders = [Path(folder) for folder in args.generated]
    plan = make_plan(
        args.protocol, args.metrics, args.regions, args.boxes, failures=args.failures, precision=args.precision
    )
    if args.allow_missing:
        plan, lacking = without_missing(plan, given, args.other_weights)
        for metric, names in lacking.items():
            console.print(f"{metric} is left out: {', '.join(names)} not here.", style="yellow", markup=False)
    files = resolve_all(plan.weights, given, args.other_weights)
    boxes = plan.boxes.partition("/")[0]
    models = NetworkPool(files, args.device, boxes, plan.needs_keypoints, args.precision)
    if args.executor == "local":  # workers of a cluster have their own memory, and not this disk
        tell = lambda text: console.print(text, style="yellow", markup=False)  # noqa: E731
        models.stored = open_stats(args.data, with_own(plan, given), models, tell)
    pairs = [pair(folder, args.data, args.split, args.revision) for folder in folders]
    results = []
    for folder, samples in zip(folders, pairs, strict=True):
        if samples.unmatched:
            more = ", ..." if len(samples.unmatched) > 3 else ""
            console.print(
                f"{len(samples.unmatched)} files of {folder} are in no sample of the data and are not scored "
                f"({', '.join(samples.unmatched[:3])}{more}).",
                style="yellow",
                markup=False,
            )
        out = below(args.out, folder.name) if len(folders) > 1 else args.out
        results.append(_score_one(args, folder, samples, out, models, given, console))
    if args.shards:
        return 0
    if len(results) > 1:
        print_comparison(results, console)
        with written_below(args.out, "report.html") as page:
            write_comparison(results, page)
        console.print(f"Comparison: {below(args.out, 'report.html')}", markup=False)
        if args.plots:
            write_plots(results, args.plots)
    return 0 if all(result.complete for result in results) else 1


def _range(text: str | None) -> tuple[int, int] | None:
    """`A:B`, or `A:` to the end."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and (last.isdecimal() or not last)):
        raise SetupError(f"--shards takes A:B, the shards from A to one before B (A: for all from A), not {text!r}.")
    return int(first), int(last) if last else 2**62


def _merge(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.files import written_below
    from jwb_dh_v1.report.report import write_report
    from jwb_dh_v1.report.tables import print_table
    from jwb_dh_v1.scoring.run import merge

    result = merge(args.folder, args.allow_failures)
    with written_below(args.folder, "report.html") as page:
        write_report(result, None, page)
    print_table(result, Console())
    return 0 if result.complete else 1


def _score_one(
    args: argparse.Namespace,
    folder: Path,
    samples: Any,
    out: str | Path,
    models: Any,
    given: dict[str, Path],
    console: Any,
) -> Result:
    from jwb_dh_v1.files import below, written_below
    from jwb_dh_v1.parallel import RayOptions
    from jwb_dh_v1.report.figures import write_plots
    from jwb_dh_v1.report.report import write_report
    from jwb_dh_v1.report.tables import print_table
    from jwb_dh_v1.report.timeline import words_of
    from jwb_dh_v1.scoring.run import score

    wanted = _range(args.shards)
    options = RayOptions(args.ray_address, num_cpus=args.num_cpus, num_gpus=args.num_gpus)

    with counting(folder.name, samples.size, "clips", console) as on_sample:
        result = score(
            samples,
            args.metrics,
            args.regions,
            protocol=args.protocol,
            out=out,
            device=args.device,
            allow_failures=args.allow_failures,
            allow_missing=args.allow_missing,
            boxes=args.boxes,
            failures=args.failures,
            precision=args.precision,
            weights=given,
            other_weights=args.other_weights,
            data=samples.data,
            generated=samples.fingerprint,
            name=folder.name,
            shard_size=args.shard_size,
            models=models,
            executor=args.executor,
            ray=options,
            shards=wanted,
            on_sample=on_sample,
        )
    if wanted is not None:
        console.print(
            f"Shards {args.shards} of {out} are done; `jwb-dh merge {out}` adds all of them up.", markup=False
        )
        return result
    if args.report:
        words = words_of(args.data, args.split, args.revision)
        with written_below(out, "report.html") as page:
            write_report(result, _with_models(samples, models), page, words)
    if args.plots:
        write_plots(result, Path(args.plots) / result.name)
    print_table(result, console)
    console.print(f"Results: {below(out, 'results.json')}, samples.parquet" + (", report.html" if args.report else ""))
    return result


def _with_models(samples: Any, models: Any) -> Iterator[Any]:
    """The samples one by one, so that a large set is never held; their boxes come from the run's own detector."""
    for sample in samples:
        sample.generated.models = models
        if sample.reference is not None:
            sample.reference.models = models
        yield sample


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "jwb-dh",
        description="Evaluate talking, gesturing, whole-body digital humans on the JWB-DH-V1 benchmark.",
        epilog=EXAMPLES,
        formatter_class=shape,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    score = commands.add_parser(
        "score",
        help="score folders of generated videos",
        formatter_class=shape,
        description="Score one or more folders of generated videos, named <sample_id>.mp4. The same command again "
        "goes on where a stopped run was. Exit code 1 if more samples failed than allowed, 2 if nothing was done.",
        epilog="examples:\n"
        "  jwb-dh score videos/ --data jwb-dh-v1 --protocol lite --out runs/mine\n"
        "  jwb-dh score videos/ --data real_videos/ --protocol standard --regions body --out runs/mine\n"
        "  jwb-dh score a/ b/ --data jwb-dh-v1 --protocol lite --metrics fid csim --regions face --out runs/ab\n",
    )
    score.add_argument("generated", nargs="+", metavar="GENERATED", help="folder of videos; several give a comparison")
    score.add_argument("--data", default="jwb-dh-v1", help="dataset folder, Hub name, or plain folder of real videos")
    score.add_argument("--split", help="split of the dataset (default: evaluation)")
    score.add_argument("--revision", help="revision of a Hub dataset")
    score.add_argument("--out", required=True, help="folder for results, or a URL (s3://bucket/run, hf://...)")
    score.add_argument("--protocol", default="standard", help="standard, paper or lite (default: standard)")
    score.add_argument("--metrics", nargs="+", help="only these metrics")
    score.add_argument("--regions", nargs="+", default=["body", "face", "hands"], help="of body face hands")
    score.add_argument("--boxes", help="mediapipe, dwpose or annotations (default: the protocol's)")
    score.add_argument("--weights", nargs="+", default=[], metavar="NAME=PATH", help="your own weight files")
    score.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    score.add_argument(
        "--allow-failures", type=int, default=0, metavar="N", help="complete in spite of N failed samples"
    )
    score.add_argument("--allow-missing", action="store_true", help="leave out metrics whose weights are not here")
    score.add_argument(
        "--other-weights",
        action="store_true",
        help="take --weights files whose sha256 is not the table's; results say so",
    )
    score.add_argument(
        "--precision", default="fp32", help="fp32; or bf16, fp16 for the networks of consistency, aesthetics, FID, FVD"
    )
    score.add_argument(
        "--failures",
        default="protocol",
        help="samples without a score: left out (strict), 0 (zero), the worst (worst); default: what the protocol says",
    )
    score.add_argument("--shard-size", type=int, default=64, help="samples per unit of resume (default: 64)")
    score.add_argument("--executor", choices=["local", "ray"], default="local", help="ray: actors of a Ray cluster")
    score.add_argument("--ray-address", help="of the cluster (default: RAY_ADDRESS, else one on this machine)")
    score.add_argument("--num-cpus", type=float, help="CPUs of a Ray worker")
    score.add_argument("--num-gpus", type=float, help="GPUs of a Ray worker, fractions too")
    score.add_argument("--shards", metavar="A:B", help="only these shards, for job arrays; `jwb-dh merge` adds up")
    score.add_argument("--plots", metavar="DIR", help="also write the plots as PNG and SVG")
    score.add_argument("--no-report", dest="report", action="store_false", help="write no report.html")
    score.set_defaults(run=_score)

    merge = commands.add_parser("merge", help="add up the shards of runs with --shards, and write their results")
    merge.add_argument("folder", metavar="RUN", help="the --out of those runs, a URL too")
    merge.add_argument("--allow-failures", type=int, default=0, metavar="N")
    merge.set_defaults(run=_merge)

    cli_weights.add_commands(commands)
    cli_data.add_commands(commands)
    cli_judge.add_commands(commands)
    cli_wer.add_commands(commands)
    cli_results.add_commands(commands)
    cli_publish.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 done with failed samples, 2 nothing done (the error says what to do)."""
    # torch's OpenMP threads otherwise spin between layers and take the cores from OpenCV's and the decoder's: on two
    # cores MobileNetV2 went from 80 to 7 ms a frame (2026-11-22). Read when torch is imported, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args = _parser().parse_args(argv)
        return int(args.run(args))
    except JwbError as error:
        print(f"jwb-dh: {error}", file=sys.stderr)
        return 128 + error.signal if isinstance(error, Stopped) else 2
    except KeyboardInterrupt:
        print("jwb-dh: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def console() -> None:
    """`main` as a program of its own.

    It leaves without taking the interpreter down in order: threads of a Hub stream that is no longer read abort that
    now and then ("terminate called without an active exception", huggingface/datasets#7566), after all work is done.
    """
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
