"""The command line `jwb-dh`, one file per group of commands."""
