"""The `raysgd-local` command. Importing this loads little, so that signals are taken over within milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raysgd_local import signals
from raysgd_local.console import close_output, say, take_any_character

__all__ = ["main", "run"]


def main() -> None:
    """Entry point of the console script."""
    signals.take_over()
    take_any_character()
    status = run(sys.argv[1:])
    if (trouble := close_output()) and status == 0:
        say(f"error: standard output can't be written: {trouble}")
        status = 2
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command given by `arguments`, print errors on standard error, and return the exit status."""
    from raysgd_local.cli import app

    return app.run(arguments)
