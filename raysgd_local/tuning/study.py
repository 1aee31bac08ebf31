"""A sweep as other processes get it: plain values, so that no class of the user's has to travel."""

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
    """`directory` is the sweep's; paths in configurations start from `working_directory`, modules from `sys_path`."""

    sweep: dict[str, Any]
    directory: str
    working_directory: str
    sys_path: tuple[str, ...]

    @staticmethod
    def of(sweep: Sweep, directory: Path) -> Study:
        return Study(sweep.model_dump(), str(directory), os.getcwd(), tuple(p or os.getcwd() for p in sys.path))

    def open(self) -> Sweep:
        """The sweep, in the process of a trial."""
        sys.path += [path for path in self.sys_path if path not in sys.path]
        if os.path.isdir(self.working_directory):
            os.chdir(self.working_directory)
        return validated(Sweep, self.sweep)
