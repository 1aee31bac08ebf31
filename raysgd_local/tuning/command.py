"""Run the command `raysgd-local tune`, after its input was validated."""

from __future__ import annotations

import glob
import logging
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from raysgd_local import signals
from raysgd_local.console import say
from raysgd_local.errors import RunLostError
from raysgd_local.run.request import from_config
from raysgd_local.run_files import lease
from raysgd_local.signals import StopRequest
from raysgd_local.tuning.points import Point, corners
from raysgd_local.tuning.result_files import write_results
from raysgd_local.tuning.results import (
    BEST,
    RUN,
    SEED,
    STOP,
    SWEEP,
    Trial,
    choice_of,
    medians,
    read_trial,
    trial_directory,
)
from raysgd_local.tuning.simulated import best_points, simulate_all
from raysgd_local.tuning.start import Narrowing
from raysgd_local.tuning.sweep import Sweep

SIMULATED = "simulated"

_TRIALS_END_S = 120.0  # for trials to write their checkpoints after a signal


@dataclass(frozen=True)
class Tried:
    """The results of a sweep."""

    trials: list[Trial]
    interrupted: bool = False  # a signal ended trials, or kept some from starting


def run(sweep: Sweep, directory: Path, address: str | None = None, narrowing: Narrowing | None = None) -> None:
    """Run a sweep in `directory`, or continue the one there, and write its results.

    Raises `RunLostError` if no trial finished, and `KeyboardInterrupt` after Ctrl-C or another signal.
    """
    with signals.heeded() as stop, _claimed(directory):
        _run(sweep, directory, address, narrowing, stop)
        stop.check()


@contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """Make the sweep's directory; remove it after an exception if no trial began."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if {path.name for path in directory.iterdir()} <= {SWEEP}:
                shutil.rmtree(directory)
        raise


def _run(
    sweep: Sweep, directory: Path, address: str | None, narrowing: Narrowing | None, stop: StopRequest
) -> None:
    (directory / SWEEP).write_text(sweep.to_yaml(), encoding="utf-8")
    points = None
    if narrowing is not None:
        try:
            simulated = simulate_all(sweep, directory / SIMULATED, narrowing.cluster, stop=stop)
        except KeyboardInterrupt:
            name = shlex.quote(directory.name)
            signals.conclude(f"interrupted; go on with the same command, and --resume auto --name {name}")
            raise
        if narrowing.top is None:
            _conclude(sweep, directory, Tried(simulated))
            return
        write_results(directory / SIMULATED, sweep, simulated)
        points = best_points(sweep, simulated, narrowing.top)
        if not points:
            raise RunLostError(f"no simulated trial has a figure for {sweep.metric}: {_first_error(simulated)}")
    _conclude(sweep, directory, run_trials(sweep, directory, address, points))


def run_trials(
    sweep: Sweep, directory: Path, address: str | None = None, points: Sequence[Point] | None = None
) -> Tried:
    """Run the trials on the Ray cluster at `address`, or without an address, on a temporary one on this machine."""
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # Tune's state is small, and trials are expensive
    from raysgd_local.runtime.ray_cluster import attached
    from raysgd_local.tuning.search import can_resume, make_tuner, resumed

    _quieten()
    with (
        attached(max(os.cpu_count() or 1, _cpus_at_most(sweep)), address) as own,
        signals.leaving(lambda: _left_by_trials(directory) if own else ()),  # they end with a Ray of our own
    ):
        tuner = resumed(sweep, directory) if can_resume(directory) else make_tuner(sweep, directory, points)
        found, interrupted = _fit(tuner, directory)
    return Tried([_trial(sweep, directory, trial, interrupted) for trial in found], interrupted)


def _leases(directory: Path) -> list[str]:
    return [str(folder) for folder in directory.glob(f"{trial_directory(Path(), '*')}/{RUN}/{lease.FOLDER}")]


def _left_by_trials(directory: Path) -> list[str]:
    """Return patterns of what killed trials leave: leases, files that are half written, and the wish that they end."""
    runs = f"{glob.escape(str(directory))}/{trial_directory(Path(), '*')}/{RUN}"
    return [f"{runs}/{lease.FOLDER}", f"{runs}/**/*.tmp", glob.escape(str(directory / STOP))]


def _quieten() -> None:
    """Silence Tune's logs: `terminal` reports failures, and the trials' directories have them in full."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # it warns about infinite times to target


def _fit(tuner: Any, directory: Path) -> tuple[list[Any], bool]:
    """Run the tuner, and return Tune's trials, and whether a signal ended them.

    At SIGUSR1, as at Ctrl-C, Tune saves its books and ends; its handler for Ctrl-C would take the place of ours.
    """
    before = signal.getsignal(signal.SIGUSR1)
    (directory / STOP).unlink(missing_ok=True)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    try:
        with (
            redirect_stdout(StringIO()),
            signals.heeded(lambda: _end_trials(directory)) as stop,
        ):  # `terminal` replaces Tune's own output
            stop.check()
            results = tuner.fit()
        return list(results._experiment_analysis.trials), stop.asked
    finally:
        del os.environ["TUNE_DISABLE_SIGINT_HANDLER"]
        (directory / STOP).unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, before)


def _end_trials(directory: Path) -> None:
    """Ask the trials to end, each with a checkpoint, and then Tune: it would give them five seconds."""
    (directory / STOP).touch()
    threading.Thread(target=_end_tune, args=(directory,), daemon=True, name="end of trials").start()


def _end_tune(directory: Path) -> None:
    """End Tune once no trial has held its run for a second, and Tune heeds the signal."""
    deadline, quiet = time.monotonic() + _TRIALS_END_S, 0
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        quiet = 0 if _leases(directory) else quiet + 1
    while not callable(signal.getsignal(signal.SIGUSR1)):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGUSR1)


def _cpus_at_most(sweep: Sweep) -> int:
    """Return the logical CPUs that the largest trial needs."""
    points = [*corners(sweep.space), *(sweep.points or ())]
    return max(from_config(sweep.config(point)).cpus_at_most for point in points)


def _trial(sweep: Sweep, directory: Path, trial: Any, interrupted: bool) -> Trial:
    from raysgd_local.tuning.trial import unlabel

    status = "failed" if trial.status == "ERROR" else "stopped early"
    if interrupted and status != "failed" and not (trial.last_result or {}).get("done"):
        status = "unfinished"
    error = trial.get_error()
    cause = getattr(error, "cause", None) or error
    told = "" if error is None else str(cause).strip().splitlines()[-1]
    home = trial_directory(directory, trial.trial_id)
    return read_trial(home, unlabel(sweep, trial.config), sweep.objective, status, told)


def _conclude(sweep: Sweep, directory: Path, tried: Tried) -> None:
    """Write the results, and print a summary."""
    best = write_results(directory, sweep, tried.trials)
    if best is not None:
        value = medians(tried.trials, sweep.objective)[choice_of(best)]
        typical = f"{sweep.metric} {value:.4g}" + (", the median of its seeds" if SEED in best.point else "")
        told = f"best: {best.name}, {typical}; train it with: raysgd-local train {directory / BEST}"
        say(told)
    if tried.interrupted:
        told = f"interrupted; go on with: raysgd-local tune --resume {shlex.quote(str(directory))}"
        signals.conclude(told)
        raise KeyboardInterrupt
    if all(trial.status == "failed" for trial in tried.trials):
        raise RunLostError(f"every trial failed; the first: {_first_error(tried.trials)}")
    if best is None:
        say(f"no trial has a figure for {sweep.metric}; {directory / 'trials.csv'} has the rest")


def _first_error(trials: Sequence[Trial]) -> str:
    return next((trial.error for trial in trials if trial.error), "none says why")
