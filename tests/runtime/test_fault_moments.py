"""Kills at the worst moments, by real signals: the fault benchmark's own rows, once each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fault_moments.py"


@pytest.mark.long
@pytest.mark.parametrize("fault", ["transfer", "only-state"])
def test_the_run_goes_on_and_its_ledger_is_exact(fault, tmp_path):
    command = [sys.executable, BENCHMARK, "--fault", fault, "--repeats", "1", "--keep", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.stdout.strip().startswith("{"), done.stderr
    assert json.loads(done.stdout)["wrong"] == []
