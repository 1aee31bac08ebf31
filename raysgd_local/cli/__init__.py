"""The `raysgd-local` command."""

from __future__ import annotations

from raysgd_local.cli.app import main, run

__all__ = ["main", "run"]
