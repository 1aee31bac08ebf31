"""Simulate a run that really trains, in virtual time. It writes the files of a real run."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from raysgd_local.control.controller.events import Finish
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.run_events import EventName
from raysgd_local.faults.language import Fault
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.hazards import drawn_faults
from raysgd_local.simulation.engine.fleet import Fleet
from raysgd_local.simulation.engine.interruption import interruptible
from raysgd_local.simulation.engine.scenario import Limits, Noise, Scenario
from raysgd_local.simulation.engine.world import World
from raysgd_local.simulation.learning.learner import Learner, Lesson
from raysgd_local.simulation.learning.recorder import Recorder
from raysgd_local.training.replica.rng import generators, set_generators
from raysgd_local.training.worker_setup import WorkerSetup

_HORIZON_S = 7 * 24 * 3600.0
_ENDLESS = Limits(events=10**12, seconds=float("inf"))


@dataclass(frozen=True)
class Simulation:
    """One run in virtual time."""

    loop: Any  # a task, or a function that is called with `loop_config`
    settings: Settings
    place: Callable[[str], WorkerSetup]  # from a worker's name
    storage: Storage
    start: RunStart
    cluster: ClusterModel = field(default_factory=ClusterModel)
    faults: tuple[Fault, ...] = ()
    loop_config: dict[str, Any] | None = None
    seed: int = 0  # of random faults and of the cluster's times
    threads: int = 1  # torch's, as on each worker of a real run
    observers: tuple[RunObserver, ...] = ()
    collective_timeout_s: float = 600.0


@dataclass(frozen=True)
class Simulated:
    """The outcome of a simulated run."""

    finish: Finish
    seconds: float  # virtual time
    result: dict[str, Any]  # the content of result.json
    fired: tuple[Fault, ...] = ()  # faults that happened
    unfired: tuple[Fault, ...] = ()  # faults of `--chaos` that did not happen


def simulate(run: Simulation) -> Simulated:
    """Run to the end, and write the directory `run.storage`. Workers compute one after the other, in this process.

    Observers are called in line: virtual time stands still meanwhile, so none is late, and a run repeats exactly. The
    first Ctrl-C ends the run at the next boundary, with a checkpoint; the second raises `KeyboardInterrupt`.
    """
    recorder = Recorder(run.storage, run.observers)
    recorder.begin(run.start)
    recorder.driver_begins(run.settings)
    lesson = Lesson(
        _with_shared_data(run.loop),
        run.loop_config,
        run.settings.seed,
        run.place,
        beat_s=run.settings.timeouts.beat_s,
        collective_timeout_s=run.collective_timeout_s,
    )

    def hire(name: str, node: str, world: World) -> Learner:
        return Learner(name, node, world, lesson, log)

    @_own_generators()
    def log(fields: dict[str, Any]) -> None:  # called amid a worker's step: observers must not draw its numbers
        recorder.note(EventName.LOG, **fields)

    scenario = Scenario(
        run.settings,
        faults=(*run.faults, *_hazards(run)),
        seed=run.seed,
        workers_a_node=run.cluster.nodes.workers if run.cluster.nodes else 1,
        cluster=run.cluster,
        noise=Noise(delay_s=run.cluster.latency_s, late=0.0, twice=0.0, sooner=0.0),
        limits=_ENDLESS,
    )
    fleet = Fleet(scenario, hire, recorder)
    with _threads(run.threads), _own_generators(), interruptible(fleet.interrupt):
        finish = fleet.run()
    unfired = fleet.injector.unfired
    recorder.unfired(unfired)
    finish, content = recorder.end(finish, fleet.controller.books, Names(run.start.method, run.start.task))
    return Simulated(finish, fleet.now, content, tuple(fleet.fired), unfired)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _own_generators() -> Iterator[None]:
    """Leave the global random generators as they were."""
    before = generators()
    try:
        yield
    finally:
        set_generators(before)


def _hazards(run: Simulation) -> tuple[Fault, ...]:
    """Draw faults from the cluster's failure rates. Most of them are due after the run."""
    return drawn_faults(run.cluster.failures, run.settings.workers_max, _HORIZON_S, run.seed)


def _with_shared_data(loop: Any) -> Any:
    """Let all workers share one copy of a task's data, which is the same at every call."""
    if not hasattr(loop, "datasets"):
        return loop
    shared = copy.copy(loop)
    object.__setattr__(shared, "datasets", functools.cache(loop.datasets))
    return shared
