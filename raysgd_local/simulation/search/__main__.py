"""`python -m raysgd_local.simulation.search`: what `raysgd-local search` does."""

from __future__ import annotations

import sys

from raysgd_local.simulation.search.seed_search import main

if __name__ == "__main__":
    sys.exit(main())
