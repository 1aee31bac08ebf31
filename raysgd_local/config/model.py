"""The sections of a run's configuration: one frozen, validated tree."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, model_validator

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.compatibility import check_workers
from raysgd_local.config import files
from raysgd_local.config.alternatives import BUILDER
from raysgd_local.config.sections import Model, Section, validated
from raysgd_local.errors import InputError
from raysgd_local.run_files.paths import directory_name, expanded
from raysgd_local.tasks import task_name
from raysgd_local.tasks.base import Task
from raysgd_local.transport.listening import FEWEST_PORTS


def _custom_resources(resources: dict[str, float]) -> dict[str, float]:
    for name, amount in resources.items():
        if name in ("CPU", "memory", "object_store_memory"):
            raise InputError(f"workers.resources.{name}", amount, "custom resources and GPU", "see workers.cpus")
    return resources


MOST_WORKERS = 10_000
Count = Annotated[int, Ge(1), Le(validation.LARGEST)]
Seconds = Annotated[float, Gt(0), Le(10**8)]  # three years: waits can't be of any length
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]  # of torch's generators
Port = Annotated[int, Ge(1024), Le(65535)]
NumberOfWorkers = Annotated[int, Ge(1), Le(MOST_WORKERS)]
Failures = Annotated[int, Ge(-1), Le(validation.LARGEST)]
Losses = Annotated[int, Ge(0), Le(validation.LARGEST)]
Amount = Annotated[float, Ge(0), Le(10**9)]
Resources = Annotated[dict[str, Amount], AfterValidator(_custom_resources)]
Access = Literal["shared", "local"]


def _tuple(plain: Any) -> Any:
    return tuple(plain) if isinstance(plain, list) else plain


class Workers(Section):
    """The number of workers, their resources, and the failures that the run tolerates."""

    min: NumberOfWorkers = 4  # fewest workers to train with
    max: NumberOfWorkers = 4  # most workers to train with
    spares: Annotated[int, Ge(0), Le(MOST_WORKERS)] = (
        0  # further workers that are started, and wait to replace lost ones
    )
    cpus: Annotated[float, Gt(0), Le(10_000)] = 1.0  # Ray's logical CPUs per worker
    use_gpu: bool = False  # one GPU per worker
    resources: Resources = {}  # noqa: RUF012  # further Ray resources per worker, by name
    start_timeout_s: Seconds = 300.0  # wait for `min` workers at the start
    pause_limit_s: Seconds = 3600.0  # wait while fewer than `min` workers are alive
    max_failures: Annotated[int, Ge(-1), Le(validation.LARGEST)] = (
        0  # tolerated exceptions in user code; -1: no limit
    )
    max_losses: Annotated[int, Ge(0), Le(validation.LARGEST)] | None = (
        None  # tolerated losses of processes and nodes; null: no limit
    )
    balance: bool = True  # straggler balancing: clearly slower workers take fewer steps of a round
    # factor on each rank's batch size; 1 for further ranks
    batch_scale: Annotated[tuple[Annotated[float, Gt(0), Le(1000)], ...], BeforeValidator(_tuple)] = ()

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Workers:
        if self.min > self.max:
            raise InputError("workers.max", self.max, f"an integer of at least workers.min, which is {self.min}")
        return self

    @model_validator(mode="after")
    def _no_more_scales_than_workers(self) -> Workers:
        if len(self.batch_scale) > self.max:
            allowed = f"at most workers.max numbers, which is {self.max}"
            raise InputError("workers.batch_scale", list(self.batch_scale), allowed)
        return self


class Target(Section):
    """Stop when a metric reaches a value: from above if its name contains loss, error or perplexity."""

    metric: str
    value: float


class Stop(Section):
    """Limits that end the run before `task.epochs`; the first one reached does."""

    steps: Count | None = None  # optimizer steps over all workers
    seconds: Seconds | None = None  # training time
    target: Target | None = None  # a metric's value


class Checkpoints(Section):
    """When to take checkpoints, and which to keep."""

    every_epochs: Count | None = 1
    every_s: Seconds | None = None
    keep: Count | None = 2  # number of checkpoints to keep; null: all
    score: str | None = None  # metric by which the best are kept; null: keep the newest
    score_order: Literal["min", "max"] | None = None  # null: min if the name contains loss, error or perplexity
    local_state: Literal["all", "donor"] = "all"  # include every worker's local state, or that of one donor


class Data(Section):
    """The data that workers can read."""

    access: Access = "shared"  # `shared`: every worker can read all data; `local`: only its own chunks
    interleave: Annotated[int, Ge(1), Le(4096)] = 4  # shards of a stream that a worker reads in turn
    shuffle_window: Annotated[int, Ge(1), Le(10**7)] = 1024  # rows of a stream that a worker shuffles together


def _subnet(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InputError("network.subnet", text, "a network: 10.0.0.0/8, fd00::/8", str(error)) from error
    return text


class Timeouts(Section):
    """Time-outs. null: the default in `docs/architecture.md`, which may follow the measured round time."""

    heartbeat_s: Seconds | None = None  # without a heartbeat, until a worker counts as lost
    arrival_s: Seconds | None = None  # until a worker that others wait for at a boundary counts as lost
    formation_s: Seconds | None = None  # for the members of a new view to connect
    straggler_s: Seconds | None = None  # that members of a round wait for the slowest one


class Network(Section):
    """The address and ports at which workers, and the store in which they find each other, listen."""

    interface: Annotated[str, MinLen(1)] | None = None  # name of the interface, the same on all machines
    subnet: Annotated[str, AfterValidator(_subnet)] | None = None  # such as 10.0.0.0/8 or fd00::/8
    first_port: Port | None = None  # null: any port
    last_port: Port | None = None

    @model_validator(mode="after")
    def _ports_are_a_range(self) -> Network:
        first, last = self.first_port, self.last_port
        if first is None and last is None:
            return self
        if first is None or last is None:
            missing = "first_port" if first is None else "last_port"
            raise InputError(f"network.{missing}", None, "an integer from 1024 to 65535: both or neither")
        if last < first + FEWEST_PORTS - 1:
            raise InputError(
                "network.last_port", last, f"at least {FEWEST_PORTS} ports: {first + FEWEST_PORTS - 1}"
            )
        return self


def _task(plain: Any) -> Any:
    """Return a task. A program may give a training loop too, of which a file has no form."""
    if not isinstance(plain, Task) and _is_loop(plain):
        return plain
    task = plain if isinstance(plain, Task) else BUILDER.build(Task, plain, "task")
    BUILDER.plain(task, Task, "task")  # `config.yaml` will hold it
    return task


def _is_loop(value: Any) -> bool:
    return not isinstance(value, type) and (callable(value) or callable(getattr(value, "train", None)))


def _plain_task(task: Task) -> Any:
    return BUILDER.plain(task, Task, "task")


def _algorithm(plain: Any) -> Algorithm:
    given = isinstance(plain, Algorithm)
    algorithm: Algorithm = plain if given else BUILDER.build(Algorithm, plain, "algorithm", Algorithm())
    return algorithm


def _plain_algorithm(algorithm: Algorithm) -> Any:
    return BUILDER.plain(algorithm, Algorithm, "algorithm")


class Config(Section):
    """The whole configuration of a run. It is written to `config.yaml` in the run's directory; `train` can repeat it.

    >>> config = from_mapping({"task": {"name": "digits"}, "workers": {"max": 8}})
    >>> config.workers.max, from_yaml(config.to_yaml()) == config
    (8, True)
    """

    task: Annotated[Any, PlainValidator(_task), PlainSerializer(_plain_task)]  # a `Task`, or a training loop
    algorithm: Annotated[Algorithm, PlainValidator(_algorithm), PlainSerializer(_plain_algorithm)] = Algorithm()
    workers: Workers = Workers()
    data: Data = Data()
    stop: Stop = Stop()
    checkpoints: Checkpoints = Checkpoints()
    timeouts: Timeouts = Timeouts()
    network: Network = Network()
    storage: Annotated[str, MinLen(1), AfterValidator(expanded)] = (
        "runs"  # a path that all machines share, or a URI
    )
    # the run's directory in `storage`; null: made from task, method and time
    name: Annotated[str, AfterValidator(directory_name)] | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _all_workers_can_be_averaged(self) -> Config:
        check_workers(self.algorithm, self.workers.max)
        return self

    @model_validator(mode="after")
    def _nccl_takes_any_port(self) -> Config:
        if self.workers.use_gpu and self.network.first_port is not None:
            raise InputError("network.first_port", self.network.first_port, "null with workers.use_gpu")
        return self

    def to_yaml(self) -> str:
        """Return the whole configuration as YAML, with all defaults. A training loop is left out: it has none."""
        without = None if isinstance(self.task, Task) else {"task"}
        return yaml.safe_dump(self.model_dump(exclude=without), sort_keys=False, allow_unicode=True)

    def with_workers(self, most: int) -> Config:
        """Return the configuration for up to `most` workers, validated again. Raises `InputError`."""
        validation.whole_number("workers", most, at_least=1, at_most=MOST_WORKERS)
        workers = self.workers.model_dump() | {"min": min(self.workers.min, most), "max": most}
        return from_mapping(dict(self) | {"workers": workers})

    def check(self) -> None:
        """Check what depends on this machine: raise `InputError` if the task's data set is missing."""
        if not isinstance(self.task, Task):
            return
        try:
            self.task.check()
        except InputError as error:
            raise error.under("task") from error
        except (Exception, SystemExit) as error:  # the user's own task may raise anything
            why = f"{type(error).__name__}: {error}"
            raise InputError("task.name", task_name(self.task), "a task whose check() passes", why) from error


def from_yaml(text: str) -> Config:
    """Build the configuration from a YAML text. Raises `InputError`, see `from_mapping`."""
    return from_mapping(files.parse(text))


def from_mapping(tree: Mapping[str, Any]) -> Config:
    """Build the configuration from nested mappings.

    Raises `InputError` with the dotted path of the first value that can't be used, and the values allowed there.
    """
    files.check_size(dict(tree), "config", "a mapping")
    return validated(Config, {"task": None, **tree})


def section(model: type[Model], **values: Any) -> Model:
    """Build a section from values of a program. Raises `InputError` that names the first one that can't be used."""
    return validated(model, values)
