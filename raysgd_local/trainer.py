"""`LocalSGDTrainer`: from a task or a training loop to a trained model, on a Ray cluster or on this machine."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import ray
import yaml
from ray.exceptions import RayActorError
from ray.train import Checkpoint, Result, RunConfig, ScalingConfig

from raysgd_local.algorithms import checks
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.anchor import check_outer
from raysgd_local.algorithms.combinations import check_workers
from raysgd_local.claim import check_new, claim, give_back
from raysgd_local.config import Config, Data, Stop, Workers, method_name
from raysgd_local.config.alternatives import BUILDER
from raysgd_local.config.model import Access
from raysgd_local.control.settings import Settings, Timeouts
from raysgd_local.errors import CheckpointError, InputError, RunLostError, UserCodeError
from raysgd_local.faults import parse_real
from raysgd_local.files.result import Names
from raysgd_local.files.run_files import RESULT
from raysgd_local.files.storage import Storage
from raysgd_local.progress import Display, Snapshot
from raysgd_local.report import write_report
from raysgd_local.request import (
    Request,
    beat_s,
    checkpoint_policy,
    from_config,
    max_failures,
    program,
    run_location,
    threads_per_worker,
    workers_range,
)
from raysgd_local.runtime.driver import Glance, Outcome, Plan, launch
from raysgd_local.runtime.restarts import DEATHS, Restarts, planned_again
from raysgd_local.runtime.spec import Loop, WorkerSpec
from raysgd_local.runtime.worker_group import Resources
from raysgd_local.simulator import Conditions, simulate_run
from raysgd_local.tasks import task_name
from raysgd_local.tasks.base import Task
from raysgd_local.training import snapshots

_GLANCE_EVERY_S = 0.25


class LocalSGDTrainer:
    """Trains with local-update SGD; the arguments have Ray Train's names and meaning.

    Give a `task`, or a `train_loop_per_worker` that uses `raysgd_local.get_context()` (called with
    `train_loop_config` if it takes an argument). `scaling_config.num_workers` may be `(min, max)`: the run begins
    with those that it gets, and goes on while at least `min` live. `balance` lets workers of unequal speed
    take unequal numbers of steps. With `data_access="local"` a worker has the data of its own chunks alone, see
    `docs/data.md`. `chaos` rehearses faults on the real processes, as in `"kill:1@round=20; stop:2@30s"`;
    `docs/faults.md` has the words.

    Raises `InputError` for what can't be used.
    """

    def __init__(
        self,
        task: Task | None = None,
        *,
        train_loop_per_worker: Callable[..., Any] | None = None,
        train_loop_config: dict[str, Any] | None = None,
        algorithm: Algorithm | None = None,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        stop: Stop | None = None,
        balance: bool = True,
        seed: int = 0,
        data_access: Access = "shared",
        chaos: str = "",
    ) -> None:
        if (task is None) == (train_loop_per_worker is None):
            raise InputError("task", task, "a Task, or a train_loop_per_worker: exactly one of them")
        checks.one_of("data_access", data_access, get_args(Access))
        algorithm = algorithm or Algorithm()
        scaling, run = scaling_config or ScalingConfig(num_workers=1), run_config or RunConfig()
        fewest, most = workers_range(scaling)
        check_workers(algorithm, most)
        loop = task if task is not None else train_loop_per_worker
        what = task_name(task).rpartition(":")[2] if task is not None else getattr(loop, "__name__", "loop")
        method = method_name(algorithm)
        storage, name = run_location(run, what, method)
        resources = (
            dict(scaling.resources_per_worker or {}) if isinstance(scaling.resources_per_worker, dict) else {}
        )
        self._request = Request(
            loop=loop,
            loop_config=train_loop_config,
            algorithm=algorithm,
            settings=Settings(
                program(algorithm, stop or Stop(), balance),
                workers_min=fewest,
                workers_max=most,
                seed=seed,
                placement=algorithm.placement,
                restricted=data_access == "local",
                max_failures=max_failures(run.failure_config),
                timeouts=Timeouts(beat_s=beat_s(most)),
                checkpoints=checkpoint_policy(run.checkpoint_config),
            ),
            cpus=float(resources.pop("CPU", 1)),
            use_gpu=bool(scaling.use_gpu),
            resources=resources,
            storage=storage,
            filesystem=run.storage_filesystem,
            name=name,
            method=method,
            task=what,
            config_yaml=_describe(
                task, algorithm, Workers(min=fewest, max=most, balance=balance), Data(access=data_access), seed
            ),
            chaos=parse_real(chaos, most),
        )

    @classmethod
    def from_config(cls, config: Config, chaos: str = "") -> LocalSGDTrainer:
        """The trainer of the run that a configuration describes, with faults to rehearse."""
        trainer = cls.__new__(cls)
        trainer._request = from_config(config, chaos)
        return trainer

    def fit(self, resume: str | None = None, address: str | None = None) -> Result:
        """Run to the end. `resume` is `auto` (from this run's newest checkpoint, if there is one) or a path.

        Attaches to the Ray cluster at `address`, or that is initialised already; otherwise starts Ray on this
        machine for the time of the run. Raises `InputError`, `UserCodeError` or `RunLostError`; on Ctrl-C the run
        ends with a checkpoint, and `KeyboardInterrupt` is raised after it.
        """
        request = self._request
        check_outer(request.algorithm.outer)
        storage = Storage.at(request.storage, request.filesystem).under(request.name)
        manifest, damaged = _manifest(storage, resume)
        if resume is None:
            check_new(storage, request)
        with _cluster(request, address) as own:
            claim(storage, request)
            plan = replace(_plan(request, storage, manifest, own), damaged=damaged)
            outcome = _follow(plan)
        if storage.local is not None and outcome.result["rounds"]:
            write_report([storage.local])
        _raise(outcome, storage, request, fresh=manifest is None)
        return _result(outcome.result, storage)

    def simulate(self, conditions: Conditions | None = None) -> Result:
        """The same run in virtual time, in this process: really learning, on a cluster that is described.

        Raises `InputError`, `UserCodeError` or `RunLostError`, as `fit` would.
        """
        path = simulate_run(self._request, conditions or Conditions())
        return _result(json.loads((path / RESULT).read_text()), Storage.at(str(path)))


def _describe(task: Task | None, algorithm: Algorithm, workers: Workers, data: Data, seed: int) -> str:
    """The run as `config.yaml`: of a task the whole configuration; a loop's own code can't be written down."""
    if task is not None:
        return Config(task=task, algorithm=algorithm, workers=workers, data=data, seed=seed).to_yaml()
    plain = {"algorithm": BUILDER.plain(algorithm, Algorithm), "workers": workers.model_dump()}
    return yaml.safe_dump({**plain, "data": data.model_dump(), "seed": seed}, sort_keys=False)


def _manifest(storage: Storage, resume: str | None) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The checkpoint to go on from, and damaged newer ones, which are passed over, and told."""
    if resume is None:
        return None, ()
    asked = Path(resume).name
    if resume != "auto" and asked in snapshots.finished(storage):
        return snapshots.verified(storage.under("checkpoints"), asked), ()
    found = snapshots.newest_good(storage)
    if found is None:
        if resume == "auto":
            return None, ()
        raise CheckpointError(f"{resume}: no finished, undamaged checkpoint to go on from")
    manifest, damaged = found
    for name in damaged:
        print(f"warning: checkpoint {name} is damaged; going on from the one before", file=sys.stderr)
    return manifest, tuple(damaged)


@contextmanager
def _cluster(request: Request, address: str | None) -> Iterator[bool]:
    """A Ray cluster for the run; true if it is our own, on this machine, and ends with the run."""
    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    _check_address(address)
    settings = request.settings
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            cpus = max(1, round(settings.workers_max * request.cpus))
            ray.init(
                "local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
    except ConnectionError as error:
        raise InputError("address", address, "the address of a running Ray cluster", str(error)) from error
    try:
        yield not address
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raise `InputError` where nobody listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise InputError("address", address, "the address of a running Ray cluster", str(error)) from error


def _plan(request: Request, storage: Storage, manifest: dict[str, Any] | None, own: bool) -> Plan:
    settings = request.settings
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
        restricted=settings.restricted,
        chaos=bool(request.chaos),
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
    )


def _follow(plan: Plan) -> Outcome:
    """Watch the run until it is over; a driver that dies is started again."""
    restarts = Restarts()
    with Display() as display:
        while True:
            try:
                return _watch(plan, display)
            except DEATHS as error:
                if isinstance(error, RayActorError) and error.actor_init_failed:
                    raise
                reason = str(error).splitlines()[0]
                plan, restarts = planned_again(plan, restarts, reason)
                told = f"the driver died; starting it again in {restarts.wait_s:g} s"
                display.update(Snapshot(status="restarting", message=told))
                time.sleep(restarts.wait_s)


def _watch(plan: Plan, display: Display) -> Outcome:
    """One driver's life. The first Ctrl-C ends the run with a checkpoint, the second at once."""
    driver = launch(plan)
    running = driver.run.options(concurrency_group="main").remote()
    asked = False
    while True:
        try:
            done, _ = ray.wait([running], timeout=_GLANCE_EVERY_S)
            if done:
                outcome: Outcome = ray.get(running)
                return outcome
            display.update(_snapshot(ray.get(driver.glance.remote())))
        except DEATHS:
            if asked:
                raise KeyboardInterrupt from None
            with contextlib.suppress(Exception):  # it may be alive where we can't reach it
                ray.kill(driver)
            raise
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            driver.stop.remote("interrupted")
            display.update(Snapshot(status="stopping", message="stopping at the next boundary, with a checkpoint"))


def _snapshot(glance: Glance) -> Snapshot:
    status = glance.status
    if status is None:
        return Snapshot(status=glance.phase, workers=glance.workers)
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
    )


def _raise(outcome: Outcome, storage: Storage, request: Request, fresh: bool) -> None:
    finish = outcome.finish
    if finish.error:
        raise UserCodeError(finish.error, finish.ranks)
    if finish.status == "interrupted":
        print(f"interrupted; go on with: raysgd-local train --resume {storage.root}", file=sys.stderr)
        raise KeyboardInterrupt
    refused = outcome.refused
    if finish.status == "unplaced" and refused is None:
        allowed = "as many workers as the cluster can place"
        refused = InputError("workers.min", request.settings.workers_min, allowed, finish.reason)
    if refused is not None:
        if fresh and not outcome.result["rounds"]:
            give_back(storage)
        raise refused
    if finish.status != "finished":
        raise RunLostError(finish.reason)


def _result(content: dict[str, Any], storage: Storage) -> Result:
    local = storage.local
    names = snapshots.finished(storage)
    newest = storage.under("checkpoints").under(names[-1]) if names else None
    return Result(
        metrics={**content, **content["eval"]},
        checkpoint=Checkpoint(newest.root, newest.filesystem) if newest else None,
        error=None,
        path=storage.root,
        metrics_dataframe=pd.read_csv(local / "rounds.csv") if local is not None else None,
    )
