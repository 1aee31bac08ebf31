"""The configuration's tree: what a run is, in one frozen, validated value."""

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
from raysgd_local.config.sections import Section, validated
from raysgd_local.errors import InputError
from raysgd_local.tasks.base import Task
from raysgd_local.transport.listening import FEWEST_PORTS

Count = Annotated[int, Ge(1)]
Seconds = Annotated[float, Gt(0)]
Port = Annotated[int, Ge(1024), Le(65535)]
Access = Literal["shared", "local"]


def _tuple(plain: Any) -> Any:
    return tuple(plain) if isinstance(plain, list) else plain


class Workers(Section):
    """How many workers, what each needs, and what the run bears.

    The run waits `start_timeout_s` for the first `min` workers, and `pause_limit_s` while fewer live. `max_failures`
    counts exceptions in user code (-1: no limit), `max_losses` processes and nodes (null: no limit). `balance` gives
    clearly slower workers fewer steps of a round, and fewer samples. `batch_scale` has, by rank, what a worker's batch
    size is multiplied by (ranks beyond it: 1). `spares` more workers than `max` are started, and wait.
    """

    min: Count = 4
    max: Count = 4
    spares: Annotated[int, Ge(0)] = 0
    cpus: Annotated[float, Gt(0)] = 1.0
    use_gpu: bool = False
    start_timeout_s: Seconds = 300.0
    pause_limit_s: Seconds = 3600.0
    max_failures: Annotated[int, Ge(-1)] = 0
    max_losses: Annotated[int, Ge(0)] | None = None
    balance: bool = True
    batch_scale: Annotated[tuple[Annotated[float, Gt(0)], ...], BeforeValidator(_tuple)] = ()

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
    """A metric's value that is good enough; `loss` in a metric's name means that less is better."""

    metric: str
    value: float


class Stop(Section):
    """What ends the run before `task.epochs` do; whichever comes first. Steps count all workers' steps."""

    steps: Count | None = None
    seconds: Seconds | None = None
    target: Target | None = None


class Checkpoints(Section):
    """When checkpoints are taken and which are kept: the newest `keep`, or the best by the metric `score`."""

    every_epochs: Count | None = 1
    every_s: Seconds | None = None
    keep: Count | None = 2
    score: str | None = None
    local_state: Literal["all", "donor"] = "all"


class Data(Section):
    """Who can read what: with `shared` access every worker all data, with `local` its own chunks alone."""

    access: Access = "shared"


def _subnet(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InputError("network.subnet", text, "a network: 10.0.0.0/8, fd00::/8", str(error)) from error
    return text


class Timeouts(Section):
    """Limits of waiting; null is the default that `docs/architecture.md` gives, with its reason.

    Where that follows the measured round time, a number of seconds takes its place.
    """

    heartbeat_s: Seconds | None = None
    arrival_s: Seconds | None = None
    formation_s: Seconds | None = None
    straggler_s: Seconds | None = None


class Network(Section):
    """Where workers, and the store in which they find each other, listen; null leaves it to Ray and to the system.

    `subnet` (such as 10.0.0.0/8 or fd00::/8) and `interface` choose among each machine's addresses.
    """

    interface: Annotated[str, MinLen(1)] | None = None
    subnet: Annotated[str, AfterValidator(_subnet)] | None = None
    first_port: Port | None = None
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


def _task(plain: Any) -> Task:
    task: Task = plain if isinstance(plain, Task) else BUILDER.build(Task, plain, "task")
    return task


def _plain_task(task: Task) -> Any:
    return BUILDER.plain(task, Task)


def _algorithm(plain: Any) -> Algorithm:
    given = isinstance(plain, Algorithm)
    algorithm: Algorithm = plain if given else BUILDER.build(Algorithm, plain, "algorithm", Algorithm())
    return algorithm


def _plain_algorithm(algorithm: Algorithm) -> Any:
    return BUILDER.plain(algorithm, Algorithm)


def _directory_name(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InputError("name", name, "the name of a directory, without /")
    return name


class Config(Section):
    """Everything a run is made of; `config.yaml` in its directory is this, and `train` on that repeats the run.

    `storage` is a path that all machines see, or a URI; `name` the run's directory in it (null: made from the
    task, the method and the time).

    >>> config = from_mapping({"task": {"name": "digits"}, "workers": {"max": 8}})
    >>> config.workers.max, from_yaml(config.to_yaml()) == config
    (8, True)
    """

    task: Annotated[Task, PlainValidator(_task), PlainSerializer(_plain_task)]
    algorithm: Annotated[Algorithm, PlainValidator(_algorithm), PlainSerializer(_plain_algorithm)] = Algorithm()
    workers: Workers = Workers()
    data: Data = Data()
    stop: Stop = Stop()
    checkpoints: Checkpoints = Checkpoints()
    timeouts: Timeouts = Timeouts()
    network: Network = Network()
    storage: Annotated[str, MinLen(1)] = "runs"
    name: Annotated[str, AfterValidator(_directory_name)] | None = None
    seed: Annotated[int, Ge(0)] = 0

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
        """The whole configuration, every default written out."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def with_workers(self, most: int) -> Config:
        """The same run on up to `most` workers, checked as if it had been configured so. Raises `InputError`."""
        validation.whole_number("workers", most, at_least=1)
        tree = self.model_dump()
        tree["workers"] |= {"min": min(self.workers.min, most), "max": most}
        return from_mapping(tree)

    def check(self) -> None:
        """Raise `InputError` for what only the machine can tell: the task's data set is missing."""
        try:
            self.task.check()
        except InputError as error:
            raise error.under("task") from error


def from_yaml(text: str) -> Config:
    """The configuration that a YAML text describes. Raises `InputError`, see `from_mapping`."""
    return from_mapping(files.parse(text))


def from_mapping(tree: Mapping[str, Any]) -> Config:
    """The configuration that nested mappings describe.

    Raises `InputError` with the dotted path of the first value that can't be used, and what is allowed there.
    """
    return validated(Config, {"task": None, **tree})
