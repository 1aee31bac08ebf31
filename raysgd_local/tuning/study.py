"""A sweep as plain values for other processes, so that no user class has to be pickled."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysgd_local.config.sections import validated
from raysgd_local.tuning.sweep import Sweep


@dataclass(frozen=True)
class Study:
    """A sweep, and the environment that its trials need."""

    sweep: dict[str, Any]
    directory: str  # of the sweep
    working_directory: str  # to which paths in configurations are relative
    sys_path: tuple[str, ...]  # on which the user's modules are found

    @staticmethod
    def of(sweep: Sweep, directory: Path) -> Study:
        return Study(sweep.model_dump(), str(directory), os.getcwd(), tuple(p or os.getcwd() for p in sys.path))

    def open(self) -> Sweep:
        """Set up this process as the trial's environment, and return the sweep."""
        sys.path += [path for path in self.sys_path if path not in sys.path]
        if os.path.isdir(self.working_directory):
            os.chdir(self.working_directory)
        return validated(Sweep, self.sweep)
