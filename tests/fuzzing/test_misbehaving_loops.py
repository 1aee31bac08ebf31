"""Tasks and loops that misbehave, in the simulator: each run ends, as documented, and shows no traceback of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from misbehaving_loops import Case, case
from ray.train import FailureConfig, RunConfig, ScalingConfig
from time_limit import Hangs, time_limit

import raysgd_local
from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer
from raysgd_local.errors import RaySGDError
from raysgd_local.run.simulator import Conditions, simulate_run

FEW, PIECE, PIECES = 60, 44, 10
PACKAGE = str(Path(raysgd_local.__file__).parent)


def outcome(tried: Case, folder: Path) -> str:
    """Return what is wrong with a run's end; empty if nothing is."""
    try:
        with time_limit(60):
            simulate_run(_trainer(tried, folder)._request, Conditions(), report=False)
    except Hangs as error:
        return str(error)
    except RaySGDError as error:
        text = str(error)
        if PACKAGE in text:
            return f"a traceback of ours: {text[-1500:]}"
        return "" if error.exit_status in (1, 2, 3) else f"status {error.exit_status}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def _trainer(tried: Case, folder: Path) -> LocalSGDTrainer:
    loop: dict[str, Any] = {"task": tried.loop} if hasattr(tried.loop, "epochs") else {}
    return LocalSGDTrainer(
        **(loop or {"train_loop_per_worker": tried.loop, "train_loop_config": tried.config}),
        algorithm=Algorithm(FixedPeriod(2)),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path=str(folder), failure_config=FailureConfig(max_failures=1)),
        start_timeout_s=30,
        pause_limit_s=60,
    )


def failures(numbers: range, folder: Path) -> list[str]:
    found = []
    for number in numbers:
        tried = case(number)
        if wrong := outcome(tried, folder / str(number)):
            found.append(f"case {number}: {tried.words}: {wrong}")
    return found


def test_loops_that_misbehave_end_as_documented(tmp_path: Path) -> None:
    assert failures(range(FEW), tmp_path) == []


@pytest.mark.long
@pytest.mark.study
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("piece", range(PIECES))
def test_many_loops_that_misbehave_end_as_documented(piece: int, tmp_path: Path) -> None:
    first = FEW + piece * PIECE
    assert failures(range(first, first + PIECE), tmp_path) == []
