"""`jwb-dh metrics`: what can be scored, by protocol, with what it needs."""

from __future__ import annotations

import argparse
from typing import Any


def _metrics(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from jwb_dh_v1.metrics import PROTOCOLS, protocol
    from jwb_dh_v1.metrics.protocols import installed
    from jwb_dh_v1.networks.weights import FILES

    console = Console()
    chosen = [protocol(args.protocol)] if args.protocol else [*PROTOCOLS.values(), *installed()]
    for table in chosen:
        shown = Table(title=f"{table.name}, boxes by {table.boxes}")
        for column in ("metric", "better", "regions", "needs", "weights", "licences"):
            shown.add_column(column, overflow="fold", no_wrap=column == "metric")
        for metric in table.metrics.values():
            files = [name for name in metric.weights if "/" not in name]  # a model's small files go with it
            shown.add_row(
                metric.name,
                "higher" if metric.higher_is_better else "lower",
                ", ".join(metric.regions),
                ", ".join(sorted(metric.needs)) or "-",
                ", ".join(files) or "-",
                "; ".join(dict.fromkeys(FILES[name].licence for name in files)) or "-",
            )
        for name, why in table.absent.items():
            shown.add_row(name, "", "", "", f"not in it: {why}", "", style="dim")
        console.print(shown)
    return 0


def add_commands(commands: Any) -> None:
    """Add `metrics`."""
    parser = commands.add_parser(
        "metrics",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="list metrics: protocols, regions, what they need, weights, licences",
        description="List what each protocol computes: regions, what a metric needs, its weights and their licences.",
        epilog="examples:\n  jwb-dh metrics\n  jwb-dh metrics --protocol lite\n"
        "  jwb-dh metrics --protocol mylab.tables:MINE\n",
    )
    parser.add_argument("--protocol", help="standard, paper, lite, or package.module:TABLE (default: all)")
    parser.set_defaults(run=_metrics)
