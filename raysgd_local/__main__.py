"""`python -m raysgd_local`: the `raysgd-local` command."""

from __future__ import annotations

from raysgd_local.cli import main

if __name__ == "__main__":
    main()
