"""From the arguments of `LocalSGDTrainer`, which follow Ray Train, to the configuration that a file would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from raysgd_local import config as configured
from raysgd_local.algorithms import validation
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.compatibility import check_workers
from raysgd_local.config import Checkpoints, Config, Data, Network, Stop, Timeouts, Workers
from raysgd_local.config.sections import Section
from raysgd_local.errors import InputError
from raysgd_local.run.ray_settings import check_settings, resources
from raysgd_local.run.request import BesideConfig, Request, from_config
from raysgd_local.run_files.observer import RunObserver
from raysgd_local.run_files.paths import directory_name, expanded
from raysgd_local.tasks.base import Task

if TYPE_CHECKING:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Limits:
    """The settings of `workers` that Ray Train has no words for, by their names in configurations."""

    spares: int = 0
    balance: bool = True
    batch_scale: tuple[float, ...] = ()
    start_timeout_s: float = 300.0
    pause_limit_s: float = 3600.0
    max_losses: int | None = None


@dataclass(frozen=True)
class Arguments:
    """The arguments of `LocalSGDTrainer`."""

    loop: Task | Callable[..., Any]
    loop_config: dict[str, Any] | None
    algorithm: Algorithm
    scaling: ScalingConfig
    run: RunConfig
    limits: Limits = field(default_factory=Limits)
    stop: Stop | None = None
    data: Data | None = None
    checkpoints: Checkpoints | None = None
    timeouts: Timeouts | None = None
    network: Network | None = None
    seed: int = 0
    chaos: str = ""
    observers: Sequence[RunObserver] = ()
    datasets: dict[str, Any] | None = None


def from_arguments(given: Arguments) -> Request:
    """Make the request of these arguments. Raises `InputError` for values that can't be used."""
    _check(given)
    config = config_of(given)
    beside = BesideConfig(
        loop_config=given.loop_config,
        filesystem=given.run.storage_filesystem,
        storage=None if given.run.storage_filesystem is None else str(given.run.storage_path),
        observers=(
            *_observers("observers", given.observers),
            *_observers("run_config.callbacks", given.run.callbacks or ()),
        ),
        repeat=config.model_copy(update={"name": None}),  # `train` on `config.yaml` is a new run
        datasets=dict(given.datasets or {}),
    )
    return from_config(config, given.chaos, beside)


def _check(given: Arguments) -> None:
    check_settings(given.scaling, given.run)
    if given.loop_config is not None and not isinstance(given.loop_config, dict):
        raise InputError("train_loop_config", given.loop_config, "a dictionary, or None")
    if given.datasets is not None and not isinstance(given.datasets, dict):
        raise InputError("datasets", given.datasets, "a dictionary of data sets by name, or None")
    if not isinstance(given.chaos, str):
        raise InputError("chaos", given.chaos, "text: faults, such as 'kill:1@round=20'")


def config_of(given: Arguments) -> Config:
    """Return the configuration. Raises `InputError`, with the names of the arguments."""
    run = given.run
    here = run.storage_filesystem is None  # a path on another file system is no URI
    workers = _workers(given.scaling, run.failure_config, given.limits)
    check_workers(given.algorithm, workers.max)
    return configured.from_mapping(
        {
            "task": given.loop,
            "algorithm": given.algorithm,
            "workers": workers,
            "data": _own("data", given.data, Data),
            "stop": _own("stop", given.stop, Stop),
            "checkpoints": _checkpoints(_own("checkpoints", given.checkpoints, Checkpoints), given),
            "timeouts": _own("timeouts", given.timeouts, Timeouts),
            "network": _own("network", given.network, Network),
            "name": None if run.name is None else directory_name(run.name, "run_config.name"),
            "seed": given.seed,
        }
        | ({"storage": expanded(str(run.storage_path or "runs"), "run_config.storage_path")} if here else {})
    )


def _own(name: str, given: S | None, kind: type[S]) -> S:
    if given is not None and not isinstance(given, kind):
        raise InputError(name, given, f"a raysgd_local.{kind.__name__}, or None")
    return given if given is not None else kind()


def _workers(scaling: ScalingConfig, failures: FailureConfig | None, limits: Limits) -> Workers:
    fewest, most = workers_range(scaling)
    validation.whole_number("spares", limits.spares, at_least=0)
    asked = resources(scaling)
    return configured.section(
        Workers,
        min=fewest,
        max=most,
        spares=limits.spares,
        cpus=asked.pop("CPU"),
        use_gpu=bool(scaling.use_gpu),
        resources=asked,
        start_timeout_s=limits.start_timeout_s,
        pause_limit_s=limits.pause_limit_s,
        balance=limits.balance,
        batch_scale=limits.batch_scale,
        max_failures=max_failures(failures),
        max_losses=limits.max_losses,
    )


def workers_range(scaling: ScalingConfig) -> tuple[int, int]:
    """Return the fewest and most workers. Raises `InputError` unless 1 ≤ fewest ≤ most."""
    asked: Any = scaling.num_workers
    pair = asked if isinstance(asked, tuple) else (asked, asked)
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in pair)
    if len(pair) != 2 or not whole or not 1 <= pair[0] <= pair[1] <= configured.MOST_WORKERS:
        allowed = f"an integer from 1 to {configured.MOST_WORKERS:,}, or a pair (min, max) of such integers"
        raise InputError("scaling_config.num_workers", asked, allowed)
    return pair


def max_failures(config: FailureConfig | None) -> int:
    """Return how many exceptions in user code are tolerated; -1: any number. Raises `InputError`."""
    borne = config.max_failures if config is not None else 0
    validation.whole_number("run_config.failure_config.max_failures", borne, at_least=-1)
    return borne


def _checkpoints(own: Checkpoints, given: Arguments) -> Checkpoints:
    """Combine both ways to set checkpoints. Raises `InputError` for a setting that both have."""
    theirs = _rays_checkpoints(given.run.checkpoint_config)
    if given.checkpoints is None:
        return configured.section(Checkpoints, **theirs)
    for name, value in theirs.items():
        if value is not None and name in own.model_fields_set:
            allowed = f"left out: run_config.checkpoint_config sets it to {value!r}"
            raise InputError(f"checkpoints.{name}", getattr(own, name), allowed)
    said = {name: value for name, value in theirs.items() if value is not None}
    return configured.section(Checkpoints, **(own.model_dump() | said))


def _rays_checkpoints(config: CheckpointConfig | None) -> dict[str, Any]:
    if config is None:
        return {}
    score = config.checkpoint_score_attribute
    order = None if score is None else config.checkpoint_score_order or "max"
    return {"keep": config.num_to_keep, "score": score, "score_order": order}


def _observers(field: str, given: Sequence[Any]) -> tuple[RunObserver, ...]:
    """Raises `InputError` where one is no `RunObserver`."""
    for observer in given:
        if not isinstance(observer, RunObserver):
            hint = "subclass it; for Ray Train's callbacks also ray.train.UserCallback"
            raise InputError(field, observer, "instances of raysgd_local.RunObserver", hint)
    return tuple(given)
