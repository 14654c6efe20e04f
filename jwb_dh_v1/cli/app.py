"""The command line `jwb-dh`. Heavy imports happen inside the commands, so that `--help` is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jwb_dh_v1.cli import data as cli_data
from jwb_dh_v1.cli import judge as cli_judge
from jwb_dh_v1.cli import metrics as cli_metrics
from jwb_dh_v1.cli import publish as cli_publish
from jwb_dh_v1.cli import results as cli_results
from jwb_dh_v1.cli import score as cli_score
from jwb_dh_v1.cli import weights as cli_weights
from jwb_dh_v1.cli import wer as cli_wer
from jwb_dh_v1.errors import JwbError, Stopped
from jwb_dh_v1.version import __version__

EXAMPLES = """examples:
  jwb-dh weights fetch --protocol lite               get the files of lite/1 (about 120 MB), each checked by sha256
  jwb-dh teaser --out jwb-dh-v1 --systems systems    make a small real dataset and six stand-in systems
  jwb-dh score videos/ --data jwb-dh-v1 --protocol lite --out runs/mine
  jwb-dh score systems/* --data jwb-dh-v1 --protocol lite --out runs/demo
  jwb-dh data pack clips/ --out my-data              make a dataset of your own clips (see `jwb-dh data --help`)
  jwb-dh report runs/mine                            print the table and write report.html again
"""


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

    cli_score.add_commands(commands)
    cli_weights.add_commands(commands)
    cli_data.add_commands(commands)
    cli_judge.add_commands(commands)
    cli_wer.add_commands(commands)
    cli_results.add_commands(commands)
    cli_metrics.add_commands(commands)
    cli_publish.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 done with failed samples, 2 nothing done (the error says what to do)."""
    # torch's OpenMP threads otherwise spin between layers and take the cores from OpenCV's and the decoder's: on two
    # cores MobileNetV2 went from 80 to 7 ms a frame (2026-11-22). Read when torch is imported, so set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args = _parser().parse_args(argv)
        if ":" in (getattr(args, "protocol", None) or ""):  # a table of the user's own, which may be in this folder
            sys.path.insert(0, str(Path.cwd()))
        return int(args.run(args))
    except JwbError as error:
        print(f"jwb-dh: {error}", file=sys.stderr)
        return 128 + error.signal if isinstance(error, Stopped) else 2
    except KeyboardInterrupt:
        print("jwb-dh: stopped; run the same command again to resume.", file=sys.stderr)
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
