"""`python -m jwb_dh_v1.cli`: the command line where its script is not on the PATH."""

from jwb_dh_v1.cli import console

console()
