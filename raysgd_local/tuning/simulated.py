"""Run a sweep in virtual time: simulate every point in a few processes of this machine, without Ray."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from raysgd_local import signals
from raysgd_local.console import say
from raysgd_local.errors import RaySGDError
from raysgd_local.signals import StopRequest
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.tuning.points import Point, drawn
from raysgd_local.tuning.results import RUN, Trial, is_finished, ranked, read_trial, seedless, trial_directory
from raysgd_local.tuning.study import Study
from raysgd_local.tuning.sweep import Sweep

_TELL_EVERY = 10
_LOOK_EVERY_S = 0.25


def simulate_all(
    sweep: Sweep,
    directory: Path,
    cluster: ClusterModel,
    jobs: int | None = None,
    stop: StopRequest | None = None,
) -> list[Trial]:
    """Simulate each point's run on this cluster, in its own directory. Finished ones are not run again.

    Raises the error of `stop` when that is asked.

    No trial is stopped early. Points that Optuna would choose are drawn at random.
    """
    points = sweep.points
    if points is None:
        points = drawn(sweep.space, sweep.budget.trials, sweep.searcher.seed)
    homes = [trial_directory(directory, f"{number:05}") for number in range(len(points))]
    pairs = list(zip(homes, points, strict=True))
    to_do = [(home, point) for home, point in pairs if not is_finished(home / RUN)]
    errors = _simulated(Study.of(sweep, directory), to_do, cluster, jobs, stop or StopRequest()) if to_do else {}
    return [read_trial(home, point, sweep.objective, "failed", errors.get(home, "")) for home, point in pairs]


def _simulated(
    study: Study, to_do: Sequence[tuple[Path, Point]], cluster: ClusterModel, jobs: int | None, stop: StopRequest
) -> dict[Path, str]:
    """Run these trials, and return for each an error message, or an empty string."""
    processes = min(jobs or os.cpu_count() or 1, len(to_do))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_silence) as pool:
        try:
            futures = [pool.submit(_simulate, study, home, point, cluster) for home, point in to_do]
            _follow(futures, stop)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            signals.end_children_of_command()
            raise
    return {home: future.result() for (home, _), future in zip(to_do, futures, strict=True)}


def _silence() -> None:
    """Silence standard error, where each run would show its progress, and leave signals to the parent."""
    for number in signals.ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _simulate(study: Study, home: Path, point: Point, cluster: ClusterModel) -> str:
    """Run one trial, and return an error message, or an empty string."""
    from raysgd_local.run.request import from_config
    from raysgd_local.run.simulator import Conditions, simulate_run

    shutil.rmtree(home, ignore_errors=True)
    config = study.open().config(point, storage=str(home), name=RUN)
    try:
        simulate_run(from_config(config), Conditions(cluster), report=False)
    except RaySGDError as error:
        return str(error)
    return ""


def _follow(futures: Sequence[Future[str]], stop: StopRequest) -> None:
    """Wait for the trials, and tell how many are done."""
    told, waiting = 0, set(futures)
    while waiting:
        _, waiting = wait(waiting, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        stop.check()
        done = len(futures) - len(waiting)
        if done >= told + _TELL_EVERY or (done > told and not waiting):
            told = done
            say(f"{done} of {len(futures)} trials simulated")


def best_points(sweep: Sweep, trials: Sequence[Trial], count: int) -> list[Point]:
    """Return the points of the `count` best choices, each with all its seeds."""
    best: list[Point] = []
    for trial in ranked(trials, sweep.objective):
        if seedless(trial.point) not in best:
            best.append(seedless(trial.point))
    return [trial.point for choice in best[:count] for trial in trials if seedless(trial.point) == choice]
