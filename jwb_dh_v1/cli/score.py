"""`jwb-dh score` and `merge`: folders of generated videos in, a results folder out. Heavy imports happen inside."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jwb_dh_v1.cli.data import SHAPE
from jwb_dh_v1.cli.progress import counting
from jwb_dh_v1.cli.weights import paths_given
from jwb_dh_v1.errors import SetupError

if TYPE_CHECKING:
    from jwb_dh_v1.networks.pool import NetworkPool
    from jwb_dh_v1.scoring.executors import Execution
    from jwb_dh_v1.scoring.result import Result
    from jwb_dh_v1.scoring.run import Prepared


def _score(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.dataset.pairs import pair
    from jwb_dh_v1.files import below, written_below
    from jwb_dh_v1.report.charts import write_plots
    from jwb_dh_v1.report.report import write_comparison
    from jwb_dh_v1.report.tables import print_comparison
    from jwb_dh_v1.scoring.reference_features import open_stats
    from jwb_dh_v1.scoring.run import prepare

    console = Console()

    def warn(text: str) -> None:
        console.print(text, style="yellow", markup=False)

    execution = _execution(args)
    folders = [Path(folder) for folder in args.generated]
    prepared = prepare(
        args.protocol,
        args.metrics,
        args.regions,
        boxes=args.boxes,
        failures=args.failures,
        precision=args.precision,
        weights=paths_given(args.weights),
        other_weights=args.other_weights,
        allow_missing=args.allow_missing,
    )
    for metric, names in prepared.missing.items():
        warn(f"{metric} is left out: {', '.join(names)} not here.")
    models = prepared.plan.pool(prepared.paths, args.device)
    if execution.executor == "local":  # workers of a cluster have their own memory, and not this disk
        models.stored = open_stats(args.data, prepared.plan, models, warn)
    results = []
    pairs = [pair(folder, args.data, args.split, args.revision) for folder in folders]
    for folder, samples in zip(folders, pairs, strict=True):
        if samples.unmatched:
            more = ", ..." if len(samples.unmatched) > 3 else ""
            warn(
                f"{len(samples.unmatched)} files of {folder} are in no sample of the data and are not scored "
                f"({', '.join(samples.unmatched[:3])}{more})."
            )
        out = below(args.out, folder.name) if len(folders) > 1 else args.out
        results.append(_score_one(args, folder.name, samples, out, prepared, models, execution, console))
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


def _execution(args: argparse.Namespace) -> Execution:
    from jwb_dh_v1.parallel import RayOptions
    from jwb_dh_v1.scoring.executors import Execution

    ray = RayOptions(args.ray_address, num_cpus=args.num_cpus, num_gpus=args.num_gpus)
    return Execution(args.executor, ray, _range(args.shards), args.shard_size)


def _range(text: str | None) -> tuple[int, int] | None:
    """`A:B`, or `A:` to the end."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and (last.isdecimal() or not last)):
        raise SetupError(f"--shards takes A:B, the shards from A to one before B (A: for all from A), not {text!r}.")
    return int(first), int(last) if last else 2**62


def _score_one(
    args: argparse.Namespace,
    name: str,
    samples: Any,
    out: str | Path,
    prepared: Prepared,
    models: NetworkPool,
    execution: Execution,
    console: Any,
) -> Result:
    """One system: score, report, plots, table."""
    from jwb_dh_v1.files import below, written_below
    from jwb_dh_v1.report.charts import write_plots
    from jwb_dh_v1.report.report import write_report
    from jwb_dh_v1.report.tables import print_table
    from jwb_dh_v1.report.timeline import words_of
    from jwb_dh_v1.scoring.run import run

    with counting(name, samples.size, "clips", console) as on_sample:
        result = run(
            prepared,
            samples,
            out,
            device=args.device,
            allow_failures=args.allow_failures,
            data=samples.data,
            generated=samples.fingerprint,
            name=name,
            models=models,
            execution=execution,
            on_sample=on_sample,
        )
    if execution.shards is not None:
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


def _with_models(samples: Any, models: NetworkPool) -> Iterator[Any]:
    """The samples one by one, so that a large set is never held; their boxes come from the run's own detector."""
    for sample in samples:
        sample.generated.models = models
        if sample.reference is not None:
            sample.reference.models = models
        yield sample


def _merge(args: argparse.Namespace) -> int:
    from rich.console import Console

    from jwb_dh_v1.files import written_below
    from jwb_dh_v1.report.report import write_report
    from jwb_dh_v1.report.tables import print_table
    from jwb_dh_v1.scoring.run import merge

    result = merge(args.folder, args.allow_failures, args.protocol)
    with written_below(args.folder, "report.html") as page:
        write_report(result, None, page)
    print_table(result, Console())
    return 0 if result.complete else 1


def add_commands(commands: Any) -> None:
    """Add `score` and `merge`."""
    score = commands.add_parser(
        "score",
        help="score folders of generated videos",
        formatter_class=SHAPE,
        description="Score one or more folders of generated videos, named <sample_id>.mp4. Run the same "
        "command again to resume a stopped run. Exit code 1 if more samples failed than allowed, 2 if nothing was "
        "done.",
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
    score.add_argument(
        "--protocol",
        default="standard",
        help="standard, paper, lite, an installed one, or package.module:TABLE (default: standard)",
    )
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
    merge.add_argument("--protocol", metavar="package.module:TABLE", help="of those runs, where it is not installed")
    merge.set_defaults(run=_merge)
