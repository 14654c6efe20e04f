"""The command line `jwb-dh`, one file per group of commands.

Example:
    >>> from jwb_dh_v1.cli import main
    >>> main(["report", "runs/mine"])  # doctest: +SKIP

"""

from jwb_dh_v1.cli.app import console as console
from jwb_dh_v1.cli.app import main as main
