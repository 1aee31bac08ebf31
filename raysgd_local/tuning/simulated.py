"""A sweep in virtual time: every point on the simulator, in a few processes of this machine, without Ray."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from raysgd_local.errors import RaySGDError
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.tuning.points import Point, drawn
from raysgd_local.tuning.results import RUN, Trial, is_finished, ranked, read_trial, trial_directory
from raysgd_local.tuning.study import Study
from raysgd_local.tuning.sweep import Sweep

_TELL_EVERY = 10


def simulate_all(sweep: Sweep, directory: Path, cluster: ClusterModel, jobs: int | None = None) -> list[Trial]:
    """Each point's run on this cluster, in its directory; those that had finished are not run again.

    None is stopped early. Where a searcher would choose the points, they are drawn at random.
    """
    points = (
        sweep.points if sweep.points is not None else drawn(sweep.space, sweep.budget.trials, sweep.searcher.seed)
    )
    homes = [trial_directory(directory, f"{number:05}") for number in range(len(points))]
    study = Study.of(sweep, directory)
    processes = min(jobs or os.cpu_count() or 1, len(points))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_silence) as pool:
        try:
            arguments = zip(homes, points, strict=True)
            futures = [pool.submit(_simulate, study, home, point, cluster) for home, point in arguments]
            _tell(futures)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return _trials(sweep, homes, points, [future.result() for future in futures])


def _silence() -> None:
    """A run shows its progress on standard error, where many would be no use."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _simulate(study: Study, home: Path, point: Point, cluster: ClusterModel) -> str:
    """One trial; says what went wrong, or nothing."""
    from raysgd_local.request import from_config
    from raysgd_local.simulator import Conditions, simulate_run

    if is_finished(home / RUN):
        return ""
    shutil.rmtree(home, ignore_errors=True)
    config = study.open().config(point, storage=str(home), name=RUN)
    try:
        simulate_run(from_config(config), Conditions(cluster))
    except RaySGDError as error:
        return str(error)
    return ""


def _tell(futures: Sequence[Future[str]]) -> None:
    for count, _ in enumerate(as_completed(futures), start=1):
        if count % _TELL_EVERY == 0 or count == len(futures):
            print(f"{count} of {len(futures)} trials simulated", file=sys.stderr, flush=True)


def _trials(sweep: Sweep, homes: Sequence[Path], points: Sequence[Point], errors: Sequence[str]) -> list[Trial]:
    pairs = zip(homes, points, errors, strict=True)
    return [read_trial(home, point, sweep.objective, "failed", error) for home, point, error in pairs]


def best_points(sweep: Sweep, trials: Sequence[Trial], count: int) -> list[Point]:
    """The points of the `count` best trials."""
    return [trial.point for trial in ranked(trials, sweep.objective)[:count]]
