"""Supervise a run's driver: its plan, its progress, its restarts, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
from ray.exceptions import RayActorError

from raysgd_local.config import Network
from raysgd_local.control.run_events import EventName
from raysgd_local.run.progress import ProgressCallback, Snapshot
from raysgd_local.run.request import Request, threads_per_worker
from raysgd_local.run_files.lease import Lease
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.run_files.observers import Delivery, Heard
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime import nodes
from raysgd_local.runtime.datasets import pickled_datasets
from raysgd_local.runtime.driver import launch
from raysgd_local.runtime.listeners import Failure, Listeners
from raysgd_local.runtime.restarts import DEATHS, Restarts, planned_again
from raysgd_local.runtime.run_plan import Glance, Plan, RunOutcome
from raysgd_local.runtime.worker_group import Resources
from raysgd_local.runtime.worker_spec import Loop, WorkerSpec
from raysgd_local.signals import StopRequest
from raysgd_local.transport.listening import LOOPBACK, Listening

_GLANCE_EVERY_S = 0.25


def planned(
    request: Request, storage: Storage, manifest: dict[str, Any] | None, own: bool, echo: bool = False
) -> Plan:
    """Return the driver's plan. `own`: Ray was started for this run, so all workers share this machine.

    `echo`: the workers' lines are shown here.
    """
    settings = request.settings
    start = request.start(storage.root, manifest)
    threads = threads_per_worker(request, os.cpu_count() or 1) if own else max(1, int(request.cpus))
    name = f"{request.name}-{os.urandom(4).hex()}"
    spec = WorkerSpec(
        loop=Loop.of(request.loop, request.loop_config, tuple(p or os.getcwd() for p in sys.path)),
        seed=settings.seed,
        storage=storage,
        probe=f".{name}",
        algorithm=request.algorithm,
        use_gpu=request.use_gpu,
        backend="nccl" if request.use_gpu and request.resources.get("GPU", 1) >= 1 else "gloo",
        threads=threads,
        prefix=name,
        formation_timeout_s=request.formation_s,
        collective_timeout_s=request.collective_s,
        beat_s=settings.timeouts.beat_s,
        datasets=pickled_datasets(request.datasets),
        restricted=settings.local_data,
        chaos=bool(request.chaos),
        echo=echo,
        listening=listening_of(request.network, nodes.are_local()),
    )
    custom = {key: amount for key, amount in request.resources.items() if key != "GPU"}
    gpus = request.resources.get("GPU", 1.0) if request.use_gpu else 0.0
    return Plan(
        settings=settings,
        spec=spec,
        resources=Resources(request.cpus, gpus, custom or None),
        storage=storage,
        names=Names(request.method, request.task),
        resume=manifest,
        chaos=request.chaos,
        heard=Heard(start.round, start.evaluations) if request.observers else None,
    )


def listening_of(network: Network, local: bool) -> Listening:
    """Return where workers and store listen. `local`: on one machine, so the loopback is enough, and safe.

    >>> listening_of(Network(), local=True).subnet, listening_of(Network(interface="eth0"), local=True).subnet
    ('127.0.0.0/8', None)
    """
    first, last = network.first_port, network.last_port
    ports = (first, last) if first is not None and last is not None else None
    chosen = network.interface is not None or network.subnet is not None
    return Listening(network.interface, LOOPBACK if local and not chosen else network.subnet, ports)


def follow(
    plan: Plan,
    observe: ProgressCallback,
    listeners: Listeners | None = None,
    lease: Lease | None = None,
    stop: StopRequest | None = None,
) -> RunOutcome:
    """Watch the run until it is over; a driver that dies is started again. A driver that lives renews the lease.

    `stop` ends the run at the next boundary, with a checkpoint.
    """
    with probed(plan):
        return _lives(plan, observe, listeners, lease, stop or StopRequest())


@contextlib.contextmanager
def probed(plan: Plan) -> Iterator[None]:
    """Remove the driver's probe file after the `with` block, and before it those of commands that were killed."""
    own = plan.spec.probe
    with contextlib.suppress(OSError):  # the run itself finds out whether its storage works
        for name in plan.storage.names():
            if name[:-8] == own[:-8] and set(name[-8:]) <= set("0123456789abcdef"):
                plan.storage.delete_file(name)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            plan.storage.delete_file(own)


def _lives(
    plan: Plan, observe: ProgressCallback, listeners: Listeners | None, lease: Lease | None, stop: StopRequest
) -> RunOutcome:
    """Start a driver, and another one where it dies."""
    restarts = Restarts()
    while True:
        stop.check()
        try:
            return _watch(plan, observe, listeners, lease, stop)
        except DEATHS as error:
            if lease is not None:
                lease.wake()
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise
            reason = str(error).splitlines()[0]
            plan, restarts = planned_again(plan, restarts, reason)
            if listeners is not None:
                plan = replace(plan, heard=listeners.heard)
                listeners.driver_died()
            told = f"the driver died; starting it again in {restarts.wait_s:g} s"
            observe(Snapshot(status="restarting", message=told))
            time.sleep(restarts.wait_s)


@contextlib.contextmanager
def listening(observers: Sequence[RunObserver], start: RunStart) -> Iterator[Listeners | None]:
    """Yield the users' observers for the `with` block; None if there are none."""
    if not observers:
        yield None
        return
    listeners = Listeners(observers, start)
    reason = "the driver is gone"
    try:
        yield listeners
    except BaseException as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        listeners.close(reason)


def _watch(
    plan: Plan, observe: ProgressCallback, listeners: Listeners | None, lease: Lease | None, stop: StopRequest
) -> RunOutcome:
    """One driver's life. A request to stop, or `KeyboardInterrupt`, ends it with a checkpoint; one more at once."""
    newest = Snapshot()
    driver = launch(plan)
    running = driver.run.options(concurrency_group="main").remote()
    asked = False
    while True:
        try:
            if stop.asked and not asked:
                asked = True
                _stop(driver, observe)
            done, _ = ray.wait([running], timeout=_GLANCE_EVERY_S)
            if done:
                outcome: RunOutcome = ray.get(running)
                if lease is not None:
                    lease.wake()
                _pass_on(outcome.delivery, listeners)
                if outcome.output:
                    observe(replace(newest, output=outcome.output))
                return outcome
            glance = ray.get(driver.glance.remote(listeners.received if listeners is not None else 0))
            if lease is not None:
                lease.rest()
            newest = _snapshot(glance)
            observe(replace(newest, output=glance.output))
            for failure in _pass_on(glance.delivery, listeners):
                driver.record.remote(EventName.OBSERVER_FAILED, asdict(failure))
        except DEATHS:
            if asked:
                raise stop.error() from None
            with contextlib.suppress(Exception):  # the driver may live on a machine that can't be reached
                ray.kill(driver)
            raise
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            _stop(driver, observe)


def _stop(driver: Any, observe: ProgressCallback) -> None:
    driver.stop.remote("interrupted")
    observe(Snapshot(status="stopping", message="stopping at the next boundary, with a checkpoint"))


def _pass_on(delivery: Delivery, listeners: Listeners | None) -> tuple[Failure, ...]:
    """Pass the notices on to observers, if there are any. Return the new failures."""
    if listeners is None:
        return ()
    listeners.take(delivery)
    return listeners.failures()


def _snapshot(glance: Glance) -> Snapshot:
    status = glance.status
    if status is None:
        return Snapshot(status=glance.phase, workers=glance.workers, message=glance.waits)
    spent_s = status.compute_s + status.sync_s + status.wait_s or 1.0
    return Snapshot(
        status=glance.phase,
        epoch=status.epoch,
        epochs=status.epochs,
        round=status.round,
        tau=status.tau,
        workers=glance.workers,
        loss=status.loss,
        samples=status.samples,
        samples_per_s=status.samples / status.elapsed_s if status.elapsed_s else 0.0,
        compute_share=status.compute_s / spent_s,
        sync_share=status.sync_s / spent_s,
        wait_share=status.wait_s / spent_s,
        elapsed_s=status.elapsed_s,
        metrics=status.metrics,
        message=glance.waits,
    )
