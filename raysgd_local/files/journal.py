"""`python -m raysgd_local.files.journal RUN`: what `raysgd-local replay RUN` does."""

from __future__ import annotations

import sys

from raysgd_local.run_files.journal import main

if __name__ == "__main__":
    sys.exit(main())
