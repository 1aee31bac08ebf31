"""A request for a run: the common form of a configuration file and of Ray Train's arguments."""

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
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings, Timeouts
from raysgd_local.control.replicated.balancing import Balance
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import is_error
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault, parse_real
from raysgd_local.run.ray_settings import check_settings, resources
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.run_files.paths import directory_name, expanded
from raysgd_local.tasks import task_name
from raysgd_local.tasks.base import Task

if TYPE_CHECKING:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig


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

    @property
    def by_command(self) -> bool:
        """Whether `raysgd-local train` can go on with the run: `config_yaml` has all of it."""
        importable = isinstance(self.loop, Task) and type(self.loop).__module__ != "__main__"
        return importable and self.filesystem is None

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
        batch_scale=batch_scale,
    )


def beat_s(workers: int) -> float:
    """Return the interval of heartbeats for this many workers: the controller can process about 400 per second."""
    return max(Timeouts.beat_s, workers / 400)


def collective_s(timeouts: Timeouts) -> float:
    """Return the transports' own time-out. It is longer than the controller's, which normally cuts the view first."""
    return 2 * timeouts.straggler.ceiling_s


def from_config(config: Config, chaos: str = "") -> Request:
    """Make the request for a validated configuration, with the faults described by `chaos`.

    Raises `InputError` if `chaos` can't be parsed.
    """
    saved, workers = config.checkpoints, config.workers
    policy = CheckpointPolicy(
        every_epochs=saved.every_epochs,
        every_s=saved.every_s,
        keep=saved.keep,
        score=saved.score,
        score_order=saved.score_order or ("min" if is_error(saved.score or "") else "max"),
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
        resources=dict(workers.resources),
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
    """Make the request for `Trainer`'s arguments, which follow Ray Train. `loop`: a task, or a training function.

    Raises `InputError` for values that can't be used.
    """
    check_settings(scaling, run)
    fewest, most = workers_range(scaling)
    check_workers(algorithm, most)
    validation.whole_number("spares", spares, at_least=0)
    borne = max_failures(run.failure_config)
    asked = resources(scaling)
    cpus = asked.pop("CPU")
    workers = configured.section(
        Workers,
        min=fewest,
        max=most,
        spares=spares,
        cpus=cpus,
        use_gpu=bool(scaling.use_gpu),
        resources=asked,
        balance=balance,
        batch_scale=batch_scale,
        max_failures=borne,
    )
    what = task_name(loop).rpartition(":")[2] if isinstance(loop, Task) else getattr(loop, "__name__", "loop")
    method = method_name(algorithm)
    storage, name = run_location(run, what, method)
    policy = checkpoint_policy(run.checkpoint_config)
    settings = _settings(algorithm, workers, stop, data, configured.Timeouts(), seed, policy)
    here = run.storage_filesystem is None  # a path on another file system is no URI
    sections = Config.model_construct(
        algorithm=algorithm,
        workers=workers,
        data=data,
        stop=stop,
        checkpoints=_checkpoints(policy),
        storage=storage if here else Config.model_fields["storage"].default,
        seed=seed,
    )
    return Request(
        loop=loop,
        loop_config=loop_config,
        algorithm=algorithm,
        settings=settings,
        cpus=cpus,
        use_gpu=workers.use_gpu,
        resources=asked,
        storage=storage,
        filesystem=run.storage_filesystem,
        name=name,
        method=method,
        task=what,
        config_yaml=_described(loop, sections),
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
        local_data=data.access == "local",
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


def _checkpoints(policy: CheckpointPolicy) -> configured.Checkpoints:
    return configured.Checkpoints(
        every_epochs=policy.every_epochs,
        every_s=policy.every_s,
        keep=policy.keep,
        score=policy.score,
        score_order="min" if policy.score_order == "min" else "max",
        local_state="all" if policy.everyone else "donor",
    )


def _described(loop: Any, sections: Config) -> str:
    """Return the content of `config.yaml`: `train` on it repeats the run under a new name.

    For a function it lacks the task: code can't be written down there.
    """
    if isinstance(loop, Task):
        return sections.model_copy(update={"task": loop}).to_yaml()
    return yaml.safe_dump(sections.model_dump(exclude={"task"}), sort_keys=False, allow_unicode=True)


def threads_per_worker(request: Request, cores: int) -> int:
    """Return the number of torch threads for each worker if all workers share this machine's cores."""
    return max(1, cores // request.settings.workers_max)


def default_name(task: str, method: str) -> str:
    """Return a run's default name, from task, method and time (to a second)."""
    return f"{task}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"


def workers_range(scaling: ScalingConfig) -> tuple[int, int]:
    """Return the fewest and most workers. Raises `InputError` unless 1 ≤ fewest ≤ most."""
    asked: Any = scaling.num_workers
    fewest, most = asked if isinstance(asked, tuple) else (asked, asked)
    if not 1 <= fewest <= most:
        allowed = "an integer of at least 1, or a pair (min, max) of such integers"
        raise InputError("scaling_config.num_workers", asked, allowed)
    return fewest, most


def checkpoint_policy(config: CheckpointConfig | None) -> CheckpointPolicy:
    """Translate Ray Train's checkpoint configuration."""
    if config is None:
        return CheckpointPolicy()
    return CheckpointPolicy(
        keep=config.num_to_keep,
        score=config.checkpoint_score_attribute,
        score_order=config.checkpoint_score_order or "max",
    )


def max_failures(config: FailureConfig | None) -> int:
    """Return how many exceptions in user code are tolerated; -1: any number. Raises `InputError`."""
    borne = config.max_failures if config is not None else 0
    validation.whole_number("run_config.failure_config.max_failures", borne, at_least=-1)
    return borne


def run_location(config: RunConfig, task: str, method: str) -> tuple[str, str]:
    """Return the storage in which run directories are made, and the name of this one. Raises `InputError`."""
    name = directory_name(config.name or default_name(task, method), "run_config.name")
    storage = config.storage_path or "runs"
    local = config.storage_filesystem is None
    return expanded(str(storage), "run_config.storage_path") if local else storage, name
