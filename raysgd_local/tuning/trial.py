"""One trial: a real run in the placement group that Ray Tune reserved for it."""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from raysgd_local import signals
from raysgd_local.config import Config
from raysgd_local.run.progress import Snapshot
from raysgd_local.run_files import reader
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.storage import Storage
from raysgd_local.signals import StopRequest
from raysgd_local.trainer import LocalSGDTrainer
from raysgd_local.tuning.domains import unlabelled
from raysgd_local.tuning.objective import LOSS_AT_BUDGET, TIME_TO_TARGET, TRAIN_LOSS, Objective
from raysgd_local.tuning.points import Point
from raysgd_local.tuning.results import RUN, STOP, is_finished, trial_directory
from raysgd_local.tuning.study import Study
from raysgd_local.tuning.sweep import Sweep

FINISHED = "finished"
"""Key of reports: whether the trial ran to its end."""

_REPORT_EVERY_S = 1.0


def trainable(sweep: Sweep, directory: Path) -> Any:
    """Make the function that Tune runs for each point, with its placement group."""
    study = Study.of(sweep, directory)

    def local_sgd(labelled: dict[str, Any]) -> None:
        _run(study, labelled)

    def resources(labelled: dict[str, Any]) -> tune.PlacementGroupFactory:
        opened = study.open()  # `study` is pickled with this function, as plain values
        return placement(opened.config(unlabel(opened, labelled)))

    return tune.with_resources(local_sgd, resources)


def unlabel(sweep: Sweep, labelled: dict[str, Any]) -> Point:
    """Convert the labels that Tune passes to a point's values."""
    return {key: unlabelled(domain, labelled[key]) for key, domain in sweep.space.items()}


def placement(config: Config) -> tune.PlacementGroupFactory:
    """Return an empty bundle for the trial and its driver, which only watch, and a bundle for each worker."""
    worker = {"CPU": config.workers.cpus} | ({"GPU": 1.0} if config.workers.use_gpu else {})
    worker |= config.workers.resources
    return tune.PlacementGroupFactory([{}, *[worker] * config.workers.max])


def _run(study: Study, labelled: dict[str, Any]) -> None:
    """Train, or continue from a checkpoint, and report the result. A finished run is only reported again."""
    sweep = study.open()
    home = trial_directory(Path(study.directory), tune.get_context().get_trial_id())
    if not is_finished(home / RUN):
        if not finished(Storage.at(str(home / RUN))):  # nothing to continue from: start again
            shutil.rmtree(home / RUN, ignore_errors=True)
        config = sweep.config(unlabel(sweep, labelled), storage=str(home), name=RUN)
        _fit(LocalSGDTrainer.from_config(config), Reporter(sweep.objective), Path(study.directory) / STOP)
    run = reader.load(home / RUN)
    ended = {name: run.result[name] for name in ("elapsed_s", "samples")} | {"round": run.result["rounds"]}
    tune.report({**ended, **sweep.objective.figures(run), FINISHED: True})


def _fit(trainer: LocalSGDTrainer, observe: Reporter, stopping: Path) -> None:
    """Train until the end, or until the file `stopping` is there: then to a checkpoint, and wait for Tune to end us.

    A trial that returned would be one that is done.
    """
    with _asked_by(stopping) as stop, signals.heeding(stop):
        try:
            trainer.fit(resume="auto", observe=observe)
        except BaseException:
            while stop.asked:
                time.sleep(1)
            raise


@contextmanager
def _asked_by(stopping: Path) -> Iterator[StopRequest]:
    """Yield a request that is made when there is a file `stopping`."""
    stop, over = StopRequest(), threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if stopping.exists():
                stop.make(signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True, name="stop request").start()
    try:
        yield stop
    finally:
        over.set()


class Reporter:
    """Reports the run's progress to Tune: at each evaluation, and once per second of training time.

    It runs in the driver, not in workers. Tune may stop a trial inside the report; so it makes none once the training
    time is over, while the run only writes its results.
    """

    def __init__(self, objective: Objective, report: Callable[[dict[str, Any]], Any] = tune.report) -> None:
        self._objective, self._report = objective, report
        self._metrics: dict[str, float] = {}
        self._reported_s = -math.inf

    def __call__(self, snapshot: Snapshot) -> None:
        if self._objective.budget_s is not None and snapshot.elapsed_s >= self._objective.budget_s:
            return
        found = standing(snapshot, self._objective)
        is_due = (
            snapshot.elapsed_s >= self._reported_s + _REPORT_EVERY_S or dict(snapshot.metrics) != self._metrics
        )
        if snapshot.round and is_due and self._objective.progress[0] in found:
            self._metrics, self._reported_s = dict(snapshot.metrics), snapshot.elapsed_s
            self._report(found)


def standing(snapshot: Snapshot, objective: Objective) -> dict[str, Any]:
    """Return the figures of a run in progress: of its newest round and evaluation. The target is not reached yet."""
    loss = math.nan if snapshot.loss is None else snapshot.loss
    figures = {TRAIN_LOSS: loss, LOSS_AT_BUDGET: loss}
    figures |= {TIME_TO_TARGET: math.inf} if objective.target is not None else {}
    rest = {name: getattr(snapshot, name) for name in ("elapsed_s", "round", "samples", "epoch", "tau", "workers")}
    return {**snapshot.metrics, **rest, **figures, FINISHED: False}
