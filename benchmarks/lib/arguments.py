"""Command lines of benchmarks."""

from __future__ import annotations

import argparse


def docstring_parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with the script's docstring as it stands."""
    return argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
