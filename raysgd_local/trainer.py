"""`LocalSGDTrainer`: from a task or a training loop to a trained model, on a Ray cluster or on this machine."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import ray
from ray.train import Checkpoint, Result, RunConfig, ScalingConfig

from raysgd_local import signals
from raysgd_local.algorithms import validation
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.config import Checkpoints, Config, Data, Network, Stop, Timeouts
from raysgd_local.config.model import Access
from raysgd_local.errors import InputError, RunLostError, UserCodeError
from raysgd_local.run.arguments import Arguments, Limits, from_arguments
from raysgd_local.run.best_checkpoints import best_checkpoints
from raysgd_local.run.directory import check_new, claimed, give_back, leased
from raysgd_local.run.ending import conclude, how_to_go_on
from raysgd_local.run.pickling import check_picklable
from raysgd_local.run.progress import Display, ProgressCallback
from raysgd_local.run.request import BesideConfig, Request, from_config
from raysgd_local.run.resume import to_resume
from raysgd_local.run.simulator import Conditions, simulate_run
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.lease import Lease
from raysgd_local.run_files.observer import RunObserver
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.tables import ROUNDS
from raysgd_local.run_files.writer import RESULT
from raysgd_local.runtime.listeners import Listeners
from raysgd_local.runtime.ray_cluster import attached
from raysgd_local.runtime.run_plan import Plan, RunOutcome
from raysgd_local.runtime.supervisor import follow, listening, planned
from raysgd_local.signals import StopRequest
from raysgd_local.state.anchor import check_outer
from raysgd_local.tasks.base import Task


class LocalSGDTrainer:
    """Trains with local-update SGD. Arguments with names of Ray Train have the same meaning as there.

    - `task`, or `train_loop_per_worker`: the training. A loop uses `raysgd_local.get_context()`; it is called with
      `train_loop_config` if it takes an argument.
    - `algorithm`: when workers average, with which others, and how. By default a fixed period.
    - `scaling_config.num_workers`: a number, or `(min, max)`: the run begins with the workers that it gets, and goes on
      while at least `min` live.
    - `spares`: number of further workers that are started, and take the places of lost ones.
    - `balance`: let workers of unequal speed take unequal numbers of steps.
    - `batch_scale`: for each rank a factor on the batch size.
    - `seed`: of the model, the data's order, and the random choices of methods.
    - `datasets`: data sets by name, for `ctx.get_dataset_shard(name)`; those of Ray Data are computed once, here.
    - `data_access`: with `"local"` a worker has the data of its own chunks only, see `docs/data.md`.
    - `data`: that section of a configuration, in place of `data_access`.
    - `stop`, `checkpoints`, `timeouts`, `network`: those sections of a configuration, as `Stop`, `Checkpoints`, …
      `run_config.checkpoint_config` has precedence for the settings that it has.
    - `start_timeout_s`, `pause_limit_s`, `max_losses`: as `workers.…` in a configuration.
    - `chaos`: faults to rehearse on the real processes, such as `"kill:1@round=20; stop:2@30s"`, see `docs/faults.md`.
    - `observers`, and `run_config.callbacks`: `RunObserver`s, which listen to the run.

    Raises `InputError` for arguments that can't be used.
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
        spares: int = 0,
        balance: bool = True,
        batch_scale: Sequence[float] = (),
        seed: int = 0,
        data_access: Access = "shared",
        chaos: str = "",
        observers: Sequence[RunObserver] = (),
        checkpoints: Checkpoints | None = None,
        timeouts: Timeouts | None = None,
        network: Network | None = None,
        start_timeout_s: float = Limits.start_timeout_s,
        pause_limit_s: float = Limits.pause_limit_s,
        max_losses: int | None = None,
        datasets: dict[str, Any] | None = None,
        data: Data | None = None,
    ) -> None:
        validation.one_of("data_access", data_access, get_args(Access))
        arguments = Arguments(
            loop=_one_of_both(task, train_loop_per_worker),
            loop_config=train_loop_config,
            algorithm=algorithm or Algorithm(),
            scaling=scaling_config or ScalingConfig(num_workers=1),
            run=run_config or RunConfig(),
            limits=Limits(spares, balance, tuple(batch_scale), start_timeout_s, pause_limit_s, max_losses),
            stop=stop,
            data=_data(data_access, data),
            datasets=datasets,
            checkpoints=checkpoints,
            timeouts=timeouts,
            network=network,
            seed=seed,
            chaos=chaos,
            observers=observers,
        )
        self._request = from_arguments(arguments)

    @classmethod
    def from_config(
        cls, config: Config, chaos: str = "", train_loop_config: dict[str, Any] | None = None
    ) -> LocalSGDTrainer:
        """Return the trainer of a configuration's run, with faults to rehearse. Raises `InputError`.

        `train_loop_config` is for a configuration whose task is a training loop: `config.load(path, task=loop)`.
        """
        trainer = cls.__new__(cls)
        trainer._request = from_config(config, chaos, BesideConfig(train_loop_config))
        return trainer

    def fit(
        self, resume: str | None = None, address: str | None = None, observe: ProgressCallback | None = None
    ) -> Result:
        """Run to the end, and return the result.

        `resume` is `auto` (from this run's newest good checkpoint, if there is one), this run's directory (the same,
        but there must be one), or a checkpoint in it: exactly that one, and as training goes on, newer checkpoints and
        the rows after it are removed. A resume that fails before that leaves the run as it was. `observe` is
        called with every snapshot of the run; then there is no live display and no report. The run attaches to the Ray
        cluster at `address`, or to the one that is initialised already; otherwise it starts Ray on this machine for
        the time of the run.

        Raises `InputError` for input that can't be used, `CheckpointError` for a checkpoint that can't be loaded,
        `UserCodeError` for an exception in the loop, and `RunLostError` if the run can't go on. On Ctrl-C the run ends
        with a checkpoint; then `KeyboardInterrupt` is raised. After SIGTERM and SIGHUP it is `SystemExit`, unless you
        handle these signals yourself. In another thread than the main one `fit` handles no signals.
        """
        request = self._request
        check_picklable(request.loop, request.loop_config, request.datasets)
        check_outer(request.algorithm.outer)
        storage = Storage.at(request.storage, request.filesystem).under(request.name)
        with signals.heeded() as stop:
            with leased(storage, request, stop) as lease:
                result = self._fit(storage, lease, stop, resume, address, observe)
            stop.check()
            return result

    def _fit(
        self,
        storage: Storage,
        lease: Lease,
        stop: StopRequest,
        resume: str | None,
        address: str | None,
        observe: ProgressCallback | None,
    ) -> Result:
        request = self._request
        settings = request.settings
        found = to_resume(storage, resume, settings.program.schedule, settings.checkpoints.keep)
        manifest = found.manifest
        if resume is None:
            check_new(storage, request)
        echo = not ray.is_initialized()  # Ray shows the workers' lines, or not, as its user said
        with attached(request.cpus_at_most, address) as own, claimed(storage, request, resume is None) as again:
            stop.check()
            planned_run = planned(request, storage, manifest, own, echo)
            plan = replace(
                planned_run,
                spec=replace(planned_run.spec, claim=lease.file),
                older=found.older,
                damaged=found.passed_over,
                again=again,
                config=request.config_yaml,
                lease=lease.claim,
            )
            with listening(request.observers, request.start(storage.root, manifest)) as listeners:
                if observe is not None:
                    outcome = follow(plan, observe, listeners, lease, stop)
                else:
                    outcome = _shown(plan, listeners, lease, stop)
        if not lease.lost:
            report = observe is None and (outcome.finish.status == "interrupted" or not stop.asked)
            conclude(storage, request, outcome.result, report)
        _raise(outcome, storage, request, stop, fresh=manifest is None and not again)
        return _result(outcome.result, storage, request)

    def simulate(self, conditions: Conditions | None = None) -> Result:
        """Simulate the same run in virtual time, in this process: it really trains, on the cluster of `conditions`.

        Raises `InputError`, `UserCodeError` or `RunLostError`, like `fit`.
        """
        path = simulate_run(self._request, conditions or Conditions())
        return _result(json.loads((path / RESULT).read_text()), Storage.at(str(path)), self._request)


def _data(access: Access, data: Data | None) -> Data | None:
    if data is not None and access != "shared":
        raise InputError("data_access", access, "data=Data(access=…), if data is given")
    return Data(access=access) if data is None else data


def _one_of_both(task: Task | None, loop: Callable[..., Any] | None) -> Task | Callable[..., Any]:
    given = [one for one in (task, loop) if one is not None]
    if len(given) != 1 or not isinstance(task, Task | None):
        hint = f"did you mean {task.__name__}()?" if isinstance(task, type) else ""
        raise InputError("task", task, "a Task, or a train_loop_per_worker: exactly one of them", hint)
    if isinstance(loop, type) or not (task or callable(loop) or callable(getattr(loop, "train", None))):
        raise InputError("train_loop_per_worker", loop, "a function, called with or without train_loop_config")
    if task is None and not hasattr(loop, "train"):
        _check_arguments(loop)
    return given[0]


def _check_arguments(loop: Any) -> None:
    """Raise `InputError` unless the loop can be called without arguments, or with one."""
    try:
        signature = inspect.signature(loop)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return
    try:
        signature.bind(*([{}] if signature.parameters else []))
    except TypeError as error:
        name = getattr(loop, "__name__", "loop")
        allowed = "a function of no argument, or of train_loop_config"
        raise InputError("train_loop_per_worker", name, allowed, str(error)) from error


def _shown(plan: Plan, listeners: Listeners | None, lease: Lease, stop: StopRequest) -> RunOutcome:
    with Display() as display:
        return follow(plan, display.update, listeners, lease, stop)


def _raise(outcome: RunOutcome, storage: Storage, request: Request, stop: StopRequest, fresh: bool) -> None:
    finish = outcome.finish
    if finish.error:
        raise UserCodeError(finish.error, finish.ranks)
    if finish.status == "interrupted":
        told = how_to_go_on(storage, request)
        if fresh and not outcome.result["rounds"]:
            give_back(storage)
        signals.conclude(told)
        raise stop.error()
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


def _result(content: dict[str, Any], storage: Storage, request: Request) -> Result:
    local = storage.local
    names = finished(storage)
    best = best_checkpoints(storage, names, request.settings)
    return Result(
        metrics={**content["eval"], **content},  # a metric called `status` does not hide the run's own
        checkpoint=_checkpoint(storage, names[-1]) if names else None,
        error=None,
        path=storage.root,
        metrics_dataframe=_rounds(local),
        best_checkpoints=[(_checkpoint(storage, name), metrics) for name, metrics in best],
    )


def _rounds(local: Path | None) -> pd.DataFrame | None:
    try:
        return None if local is None else pd.read_csv(local / ROUNDS)
    except (OSError, ValueError):  # the disk is gone, or the table empty; the run is over all the same
        return None


def _checkpoint(storage: Storage, name: str) -> Checkpoint:
    place = storage.under("checkpoints").under(name)
    return Checkpoint(place.root, place.filesystem)
