"""What a run is asked to be, however it was said: by a configuration, or in Ray Train's words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from raysgd_local import config as configured
from raysgd_local.algorithms import validation
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.compatibility import check_workers
from raysgd_local.config import Config, Data, Network, Stop, Workers, method_name
from raysgd_local.config.alternatives import BUILDER
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings, Timeouts
from raysgd_local.control.replicated.balancing import Balance
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import is_error
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault, parse_real
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.tasks import task_name
from raysgd_local.tasks.base import Task

if TYPE_CHECKING:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig


@dataclass(frozen=True)
class Request:
    """One run: its loop, its method, its workers, its directory."""

    loop: Any  # a task or a function
    loop_config: dict[str, Any] | None  # the function's argument
    algorithm: Algorithm
    settings: Settings
    cpus: float
    use_gpu: bool
    resources: dict[str, float]
    storage: str
    filesystem: Any
    name: str
    method: str
    task: str
    config_yaml: str
    formation_s: float = 30.0
    collective_s: float = 1200.0
    chaos: tuple[Fault, ...] = ()  # faults to rehearse
    network: Network = field(default_factory=Network)
    observers: tuple[RunObserver, ...] = ()

    @property
    def cpus_at_most(self) -> int:
        """Ray's logical CPUs of all workers together."""
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
    """What members run by themselves."""
    target = (stop.target.metric, stop.target.value) if stop.target is not None else None
    return Program(
        algorithm.schedule,
        max_steps=stop.steps,
        max_s=stop.seconds,
        target=target,
        balance=Balance() if balance else None,
        averaging=algorithm.averaging,
        batch_scale=batch_scale,
    )


def beat_s(workers: int) -> float:
    """How often each of `workers` shows that it lives: often enough, and together not more than 400 times a second."""
    return max(Timeouts.beat_s, workers / 400)


def collective_s(timeouts: Timeouts) -> float:
    """The transports' own patience: the controller's is over before, unless it is gone itself."""
    return 2 * timeouts.straggler.ceiling_s


def from_config(config: Config, chaos: str = "") -> Request:
    """The run that a validated configuration describes, with the faults that `chaos` says.

    Raises `InputError` for words that are no faults.
    """
    saved, workers = config.checkpoints, config.workers
    policy = CheckpointPolicy(
        every_epochs=saved.every_epochs,
        every_s=saved.every_s,
        keep=saved.keep,
        score=saved.score,
        score_order="min" if is_error(saved.score or "") else "max",
        everyone=saved.local_state == "all",
    )
    method, task = method_name(config.algorithm), task_name(config.task).rpartition(":")[2]
    settings = _settings(config.algorithm, workers, config.stop, config.data, config.timeouts, config.seed, policy)
    return Request(
        loop=config.task,
        loop_config=None,
        algorithm=config.algorithm,
        settings=settings,
        cpus=workers.cpus,
        use_gpu=workers.use_gpu,
        resources={},
        storage=config.storage,
        filesystem=None,
        name=config.name or default_name(task, method),
        method=method,
        task=task,
        config_yaml=config.to_yaml(),
        formation_s=config.timeouts.formation_s or 30.0,
        collective_s=collective_s(settings.timeouts),
        chaos=parse_real(chaos, workers.max),
        network=config.network,
    )


def from_arguments(
    loop: Task | Callable[..., Any],
    loop_config: dict[str, Any] | None,
    algorithm: Algorithm,
    scaling: ScalingConfig,
    run: RunConfig,
    stop: Stop,
    data: Data,
    spares: int,
    balance: bool,
    batch_scale: tuple[float, ...],
    seed: int,
    chaos: str,
    observers: Sequence[RunObserver] = (),
) -> Request:
    """The run that a program describes in Ray Train's words: of a task, or of a function that trains.

    Raises `InputError` for what can't be used.
    """
    fewest, most = workers_range(scaling)
    check_workers(algorithm, most)
    validation.whole_number("spares", spares, at_least=0)
    borne = max_failures(run.failure_config)
    workers = Workers(
        min=fewest, max=most, spares=spares, balance=balance, batch_scale=batch_scale, max_failures=borne
    )
    asked = scaling.resources_per_worker
    resources = dict(asked) if isinstance(asked, dict) else {}
    what = task_name(loop).rpartition(":")[2] if isinstance(loop, Task) else getattr(loop, "__name__", "loop")
    method = method_name(algorithm)
    storage, name = run_location(run, what, method)
    policy = checkpoint_policy(run.checkpoint_config)
    settings = _settings(algorithm, workers, stop, data, configured.Timeouts(), seed, policy)
    return Request(
        loop=loop,
        loop_config=loop_config,
        algorithm=algorithm,
        settings=settings,
        cpus=float(resources.pop("CPU", 1)),
        use_gpu=bool(scaling.use_gpu),
        resources=resources,
        storage=storage,
        filesystem=run.storage_filesystem,
        name=name,
        method=method,
        task=what,
        config_yaml=_described(loop, algorithm, workers, data, seed),
        chaos=parse_real(chaos, most),
        observers=(*_observers("observers", observers), *_observers("run_config.callbacks", run.callbacks or ())),
    )


def _observers(field: str, given: Sequence[Any]) -> tuple[RunObserver, ...]:
    """Raises `InputError` where one is no `RunObserver`."""
    for observer in given:
        if not isinstance(observer, RunObserver):
            hint = "subclass it; for Ray Train's callbacks also ray.train.UserCallback"
            raise InputError(field, observer, "instances of raysgd_local.RunObserver", hint)
    return tuple(given)


def _settings(
    algorithm: Algorithm,
    workers: Workers,
    stop: Stop,
    data: Data,
    limits: configured.Timeouts,
    seed: int,
    checkpoints: CheckpointPolicy,
) -> Settings:
    defaults = Timeouts()
    return Settings(
        program(algorithm, stop, workers.balance, workers.batch_scale),
        workers_min=workers.min,
        workers_max=workers.max,
        spares=workers.spares,
        seed=seed,
        placement=algorithm.placement,
        restricted=data.access == "local",
        max_failures=workers.max_failures,
        max_losses=workers.max_losses,
        timeouts=replace(
            defaults,
            start_s=workers.start_timeout_s,
            pause_s=workers.pause_limit_s,
            heartbeat=defaults.heartbeat.fixed(limits.heartbeat_s),
            straggler=defaults.straggler.fixed(limits.straggler_s),
            arrival=defaults.arrival.fixed(limits.arrival_s),
            beat_s=beat_s(workers.max),
        ),
        checkpoints=checkpoints,
    )


def _described(loop: Any, algorithm: Algorithm, workers: Workers, data: Data, seed: int) -> str:
    """The run as `config.yaml`: of a task the whole configuration; a loop's own code can't be written down."""
    if isinstance(loop, Task):
        return Config(task=loop, algorithm=algorithm, workers=workers, data=data, seed=seed).to_yaml()
    plain = {"algorithm": BUILDER.plain(algorithm, Algorithm), "workers": workers.model_dump()}
    return yaml.safe_dump({**plain, "data": data.model_dump(), "seed": seed}, sort_keys=False)


def threads_per_worker(request: Request, cores: int) -> int:
    """Torch's threads for each worker, where all of a run's workers share one machine."""
    return max(1, cores // request.settings.workers_max)


def default_name(task: str, method: str) -> str:
    """Task, method and time: readable, and new every second."""
    return f"{task}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"


def workers_range(scaling: ScalingConfig) -> tuple[int, int]:
    """Fewest and most workers. Raises `InputError` unless 1 ≤ fewest ≤ most."""
    asked: Any = scaling.num_workers
    fewest, most = asked if isinstance(asked, tuple) else (asked, asked)
    if not 1 <= fewest <= most:
        raise InputError("scaling_config.num_workers", asked, "an integer of at least 1, or (min, max) of such")
    return fewest, most


def checkpoint_policy(config: CheckpointConfig | None) -> CheckpointPolicy:
    """Ray Train's words for which checkpoints are kept."""
    if config is None:
        return CheckpointPolicy()
    return CheckpointPolicy(
        keep=config.num_to_keep,
        score=config.checkpoint_score_attribute,
        score_order=config.checkpoint_score_order or "max",
    )


def max_failures(config: FailureConfig | None) -> int:
    return config.max_failures if config is not None else 0


def run_location(config: RunConfig, task: str, method: str) -> tuple[str, str]:
    """Where run directories go, and this one's name."""
    return config.storage_path or "runs", config.name or default_name(task, method)
