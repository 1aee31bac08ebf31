"""Run a request in virtual time: it makes a complete run directory, without Ray and without a cluster."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysgd_local import signals
from raysgd_local.console import say
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.errors import InputError, RunLostError, UserCodeError
from raysgd_local.faults.language import Fault
from raysgd_local.run.directory import check_new, claim, give_back
from raysgd_local.run.ending import conclude
from raysgd_local.run.progress import Display, Snapshot
from raysgd_local.run.request import Request, threads_per_worker
from raysgd_local.run_files.observer import RunObserver
from raysgd_local.run_files.storage import Storage
from raysgd_local.signals import StopRequest
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.learning.simulate import Simulated, Simulation, simulate
from raysgd_local.simulation.timing.plan import TimingPlan
from raysgd_local.simulation.timing.recorder import record_timing
from raysgd_local.training.worker_setup import WorkerSetup


@dataclass(frozen=True)
class Conditions:
    """The conditions of a simulated run: the cluster and its faults. The same seed gives the same run."""

    cluster: ClusterModel = field(default_factory=ClusterModel)
    faults: tuple[Fault, ...] = ()  # empty: those of the request itself
    seed: int = 0  # of the simulated cluster


def simulate_run(request: Request, conditions: Conditions, report: bool = True) -> Path:
    """Run the request in virtual time, and return the run directory, which has all files of a real run.

    `report`: whether to write `report.html`, which takes most of the time of a short run.

    Raises `InputError`, `UserCodeError` or `RunLostError`, as a real run would. On Ctrl-C the run ends with a
    checkpoint, and then `KeyboardInterrupt` is raised.
    """
    return _run(request, lambda storage, shown: simulate(_simulation(request, conditions, storage, shown)), report)


def time_run(request: Request, plan: TimingPlan) -> Path:
    """Run the request by a timing-only `plan`, without training, and return the run directory.

    Raises `InputError` or `KeyboardInterrupt`, as `simulate_run` does.
    """
    return _run(
        request,
        lambda storage, shown: record_timing(
            plan, storage, request.start(storage.root), (shown, *request.observers)
        ),
    )


def _run(request: Request, run: Callable[[Storage, RunObserver], Simulated], report: bool = True) -> Path:
    """Claim the run's directory, run, show progress, and write the report."""
    storage = Storage.at(request.storage, request.filesystem).under(request.name)
    if storage.local is None:
        raise InputError("storage", request.storage, "a path on this machine, for a simulated run")
    with signals.heeded() as stop:
        check_new(storage, request)
        claim(storage, request)
        try:
            with Display() as display:
                simulated = run(storage, _Shown(request, display))
        except InputError:
            give_back(storage)
            raise
        for fault in simulated.unfired:
            say(f"warning: {fault} did not happen: the run has {simulated.result['rounds']} rounds")
        conclude(storage, request, simulated.result, report)
        _raise(simulated, storage, stop)
        stop.check()
    return storage.local


def _simulation(request: Request, conditions: Conditions, storage: Storage, shown: RunObserver) -> Simulation:
    settings, algorithm = request.settings, request.algorithm

    def place(worker: str) -> WorkerSetup:
        return WorkerSetup(
            worker,
            settings.seed,
            storage,
            algorithm=algorithm,
            members=settings.workers_max,
            restricted=settings.local_data,
            datasets=request.datasets,
        )

    return Simulation(
        loop=request.loop,
        loop_config=request.loop_config,
        settings=settings,
        place=place,
        storage=storage,
        start=request.start(storage.root),
        cluster=conditions.cluster,
        faults=conditions.faults or request.chaos,
        seed=conditions.seed,
        threads=threads_per_worker(request, os.cpu_count() or 1),
        collective_timeout_s=request.collective_s,
        observers=(shown, *request.observers),
    )


class _Shown(RunObserver):
    """Live progress: shows rounds as they are resolved."""

    def __init__(self, request: Request, display: Display) -> None:
        self._request, self._display, self._samples = request, display, 0

    def rounds_resolved(self, rounds: tuple[RoundRow, ...]) -> None:
        self._samples += sum(row.samples for row in rounds)
        self._display.update(_snapshot(rounds[-1], self._samples, self._request))


def _snapshot(row: RoundRow, samples: int, request: Request) -> Snapshot:
    spent_s = row.compute_s + row.sync_s + row.wait_s or 1.0
    return Snapshot(
        status="simulating",
        epoch=row.epoch,
        epochs=getattr(request.loop, "epochs", 0),
        samples=samples,
        samples_per_s=samples / row.elapsed_s if row.elapsed_s else 0.0,
        round=row.round,
        tau=row.tau,
        workers=row.workers,
        loss=None if math.isnan(row.loss) else row.loss,
        compute_share=row.compute_s / spent_s,
        sync_share=row.sync_s / spent_s,
        wait_share=row.wait_s / spent_s,
        elapsed_s=row.elapsed_s,
    )


def _raise(simulated: Simulated, storage: Storage, stop: StopRequest) -> None:
    finish: Any = simulated.finish
    if finish.error:
        raise UserCodeError(finish.error, finish.ranks)
    if finish.status == "interrupted":
        told = f"interrupted; the results so far are in {storage.root}"
        if not simulated.result["rounds"]:
            told = "interrupted before the first round"
            give_back(storage)
        signals.conclude(told)
        raise stop.error()
    if finish.status != "finished":
        raise RunLostError(finish.reason)
