"""`python -m burnish` is the command `burnish`."""

from burnish.cli.entry import run_process

run_process()
