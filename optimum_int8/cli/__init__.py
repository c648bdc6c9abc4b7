"""The command `optimum-int8`. One file per command, all with `NAME`, `HELP`, `add_arguments` and `run`."""

from .command_line import main

__all__ = ["main"]
