"""A request for a run: a configuration in the terms of the controller and the workers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from raysgd_local import config as configured
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.config import Checkpoints, Config, Network, Stop, Workers, method_name
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings, Timeouts
from raysgd_local.control.replicated.balancing import Balance
from raysgd_local.control.replicated.endings import is_error
from raysgd_local.control.replicated.program import Program
from raysgd_local.faults.language import Fault, parse_real
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.tasks import task_name
from raysgd_local.tasks.base import Task


@dataclass(frozen=True)
class Request:
    """All that is needed to start one run."""

    loop: Any  # a `Task`, or the user's training function
    loop_config: dict[str, Any] | None  # argument of the function
    algorithm: Algorithm
    settings: Settings  # of the controller
    cpus: float  # Ray's logical CPUs per worker
    use_gpu: bool  # one GPU per worker
    resources: dict[str, float]  # further Ray resources per worker
    storage: str  # path or URI in which run directories are
    filesystem: Any  # pyarrow file system for `storage`; None: derived from the URI
    name: str  # of the run, and of its directory in `storage`
    method: str  # name for tables and reports
    task: str  # name for tables and reports
    config_yaml: str  # content of `config.yaml`
    formation_s: float = 30.0  # time-out for the members of a view to connect
    collective_s: float = 1200.0  # time-out of the transports' collectives
    chaos: tuple[Fault, ...] = ()  # faults to inject
    network: Network = field(default_factory=Network)
    observers: tuple[RunObserver, ...] = ()
    datasets: dict[str, Any] = field(default_factory=dict)  # for `ctx.get_dataset_shard`, by name

    @property
    def by_command(self) -> bool:
        """Whether `raysgd-local train` can go on with the run: `config_yaml` has all of it."""
        importable = isinstance(self.loop, Task) and type(self.loop).__module__ != "__main__"
        return importable and self.filesystem is None and not self.datasets

    @property
    def cpus_at_most(self) -> int:
        """Ray's logical CPUs of all wanted workers together."""
        return max(1, round(self.settings.wanted * self.cpus))

    def start(self, directory: str, manifest: dict[str, Any] | None = None) -> RunStart:
        """The run's beginning as observers are told it; `manifest` is of the checkpoint that it resumes from."""
        state = manifest["replicated"] if manifest else {}
        return RunStart(
            name=self.name,
            method=self.method,
            task=self.task,
            directory=directory,
            config=yaml.safe_load(self.config_yaml),
            resumed_from=manifest["name"] if manifest else "",
            round=state.get("round", 0),
            evaluations=state.get("evaluations", 0),
        )


def program(algorithm: Algorithm, stop: Stop, balance: bool, batch_scale: tuple[float, ...] = ()) -> Program:
    """Make the program that members run on their own."""
    target = (stop.target.metric, stop.target.value) if stop.target is not None else None
    return Program(
        algorithm.schedule,
        max_steps=stop.steps,
        max_s=stop.seconds,
        target=target,
        balance=Balance() if balance else None,
        averaging=algorithm.averaging,
        across_epochs=algorithm.rounds == "across-epochs",
        batch_scale=batch_scale,
    )


def beat_s(workers: int) -> float:
    """Return the interval of heartbeats for this many workers: the controller can process about 400 per second."""
    return max(Timeouts.beat_s, workers / 400)


def collective_s(timeouts: Timeouts) -> float:
    """Return the transports' own time-out. It is longer than the controller's, which normally cuts the view first."""
    return 2 * timeouts.straggler.ceiling_s


@dataclass(frozen=True)
class BesideConfig:
    """Parts of a request that a configuration can't hold."""

    loop_config: dict[str, Any] | None = None  # argument of the training function
    filesystem: Any = None  # pyarrow file system of `storage`
    storage: str | None = None  # path on it; None: the configuration's
    observers: tuple[RunObserver, ...] = ()
    datasets: dict[str, Any] = field(default_factory=dict)  # by name
    repeat: Config | None = None  # for `config.yaml`, with which `train` repeats the run; None: the same


def from_config(config: Config, chaos: str = "", beside: BesideConfig | None = None) -> Request:
    """Make the request for a validated configuration, with the faults described by `chaos`.

    Raises `InputError` if `chaos` can't be parsed.
    """
    beside, workers = beside or BesideConfig(), config.workers
    method, task = method_name(config.algorithm), _task(config.task)
    settings = _settings(config)
    return Request(
        loop=config.task,
        loop_config=beside.loop_config,
        algorithm=config.algorithm,
        settings=settings,
        cpus=workers.cpus,
        use_gpu=workers.use_gpu,
        resources=dict(workers.resources),
        storage=config.storage if beside.storage is None else beside.storage,
        filesystem=beside.filesystem,
        name=config.name or default_name(task, method),
        method=method,
        task=task,
        config_yaml=(beside.repeat or config).to_yaml(),
        formation_s=config.timeouts.formation_s or Request.formation_s,
        collective_s=collective_s(settings.timeouts),
        chaos=parse_real(chaos, workers.max),
        network=config.network,
        observers=beside.observers,
        datasets=beside.datasets,
    )


def _task(loop: Any) -> str:
    """Return the name for tables and reports."""
    return task_name(loop).rpartition(":")[2] if isinstance(loop, Task) else getattr(loop, "__name__", "loop")


def _settings(config: Config) -> Settings:
    workers, algorithm = config.workers, config.algorithm
    return Settings(
        program(algorithm, config.stop, workers.balance, workers.batch_scale),
        workers_min=workers.min,
        workers_max=workers.max,
        spares=workers.spares,
        seed=config.seed,
        placement=algorithm.placement,
        interleave=config.data.interleave,
        shuffle_window=config.data.shuffle_window,
        local_data=config.data.access == "local",
        max_failures=workers.max_failures,
        max_losses=workers.max_losses,
        timeouts=_timeouts(workers, config.timeouts),
        checkpoints=_policy(config.checkpoints),
    )


def _timeouts(workers: Workers, limits: configured.Timeouts) -> Timeouts:
    defaults = Timeouts()
    return replace(
        defaults,
        start_s=workers.start_timeout_s,
        pause_s=workers.pause_limit_s,
        heartbeat=defaults.heartbeat.fixed(limits.heartbeat_s),
        straggler=defaults.straggler.fixed(limits.straggler_s),
        arrival=defaults.arrival.fixed(limits.arrival_s),
        beat_s=beat_s(workers.max),
    )


def _policy(saved: Checkpoints) -> CheckpointPolicy:
    return CheckpointPolicy(
        every_epochs=saved.every_epochs,
        every_s=saved.every_s,
        keep=saved.keep,
        score=saved.score,
        score_order=saved.score_order or ("min" if is_error(saved.score or "") else "max"),
        everyone=saved.local_state == "all",
    )


def threads_per_worker(request: Request, cores: int) -> int:
    """Return the number of torch threads for each worker if all workers share this machine's cores."""
    return max(1, cores // request.settings.workers_max)


def default_name(task: str, method: str) -> str:
    """Return a run's default name, from task, method and time (to a second)."""
    return f"{task}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"
