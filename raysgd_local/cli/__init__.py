"""The `raysgd-local` command. Importing this loads little, so that signals are taken over within milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from raysgd_local import signals
from raysgd_local.console import close_output

__all__ = ["main", "run"]


def main() -> None:
    """Entry point of the console script."""
    signals.take_over()
    status = run(sys.argv[1:])
    close_output()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command given by `arguments`, print errors on standard error, and return the exit status."""
    from raysgd_local.cli import app

    return app.run(arguments)
