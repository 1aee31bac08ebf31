"""The configuration of a sweep: YAML in, one frozen and validated value out, without torch or Ray."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Field, PlainSerializer, PlainValidator

from raysgd_local import config as configuration
from raysgd_local.config import Config, files
from raysgd_local.config.model import Count, Seconds
from raysgd_local.config.sections import Section, validated
from raysgd_local.control.replicated.endings import is_error
from raysgd_local.errors import InputError
from raysgd_local.tuning import domains
from raysgd_local.tuning.domains import Domain, GridSearch
from raysgd_local.tuning.objective import LOSS_AT_BUDGET, OWN, TIME_TO_TARGET, Objective
from raysgd_local.tuning.points import Point, corners, drawn, every

METHOD = "method"
"""A key of spaces that is not in the configuration: the recipe that replaces the algorithm."""


class Budget(Section):
    """The limits of a sweep."""

    trials: Annotated[int, Ge(1), Le(domains.MOST_POINTS)] = 16
    training_s: Seconds | None = None  # training time of each trial
    wall_s: Seconds | None = None  # real time of the sweep
    concurrent: Count | None = None  # trials at a time; null: as many as the cluster has resources for


class Scheduler(Section):
    """The scheduler that stops bad trials early, by comparing them after equal training time."""

    kind: Literal["none", "asha", "median"] = "none"
    grace_s: Seconds | None = None  # training time before which no trial is stopped
    # `asha` compares at grace_s · factor^k, and lets one in `factor` trials continue
    reduction_factor: Annotated[float, Gt(1), Le(10**8)] = 3.0


class Searcher(Section):
    """The source of points: random draws, all combinations, or Optuna."""

    kind: Literal["random", "grid", "optuna"] = "random"
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0  # of NumPy's generators, which Optuna uses


def _domains(given: Any) -> Any:
    if not isinstance(given, Mapping) or not given:
        raise InputError("space", given, f"keys of the configuration, each with {domains.ALLOWED}")
    return {str(key): domains.parse(value, f"space.{key}") for key, value in given.items()}


def _plain_domains(space: Mapping[str, Domain]) -> Any:
    return {key: domains.plain(domain) for key, domain in space.items()}


class Sweep(Section):
    """Trials of one configuration that differ in the keys of `space`, and the metric by which they are compared."""

    base: dict[str, Any] | None = None  # the configuration; null: the shipped digits run
    method: str | None = None  # recipe that replaces its algorithm
    settings: dict[str, Any] = Field(default_factory=dict)  # further changes, by dotted key
    space: Annotated[Any, PlainValidator(_domains), PlainSerializer(_plain_domains)]  # domains, by dotted key
    metric: Annotated[str, MinLen(1)]
    mode: Literal["min", "max"] | None = (
        None  # whether less or more is better; null: derived from the metric's name
    )
    budget: Budget = Budget()
    scheduler: Scheduler = Scheduler()
    searcher: Searcher = Searcher()

    def config(self, point: Point, storage: str | None = None, name: str | None = None) -> Config:
        """Return the configuration of the trial at this point. Raises `InputError` if it is not valid."""
        own = {key: value for key, value in point.items() if key != METHOD}
        base = configuration.plain() if self.base is None else self.base
        tree = configuration.changed(base, point.get(METHOD, self.method), self.settings.items())
        tree = files.changed(tree, own.items())
        if self.budget.training_s is not None:
            tree = files.changed(tree, [("stop.seconds", self.budget.training_s)])
        given = (("storage", storage), ("name", name))
        return configuration.from_mapping(tree | {key: value for key, value in given if value is not None})

    @cached_property
    def points(self) -> list[Point] | None:
        """All points, or None if they depend on the results of trials."""
        if self.searcher.kind == "optuna":
            return None
        if self.searcher.kind == "grid":
            return every(self.space)
        return drawn(self.space, self.budget.trials, self.searcher.seed)

    @cached_property
    def first(self) -> Config:
        """The configuration at the space's first corner, for the settings that all trials have in common."""
        return self.config(next(corners(self.space)))

    @property
    def budget_s(self) -> float | None:
        """The training time after which trials end."""
        return self.first.stop.seconds

    @property
    def objective(self) -> Objective:
        falls = self.metric in OWN or is_error(self.metric)
        return Objective(
            self.metric, self.mode or ("min" if falls else "max"), self.first.stop.target, self.budget_s
        )

    def to_yaml(self) -> str:
        """Return the whole sweep as YAML, including its base."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def load(path: str | Path, settings: Sequence[str] = ()) -> Sweep:
    """Load a sweep from a YAML file, in which `base` is a mapping, or the path of a file relative to this one.

    Each of `settings` (`a.b=value`) changes the sweep if it begins with one of the sweep's keys, otherwise the
    trained configuration. Raises `InputError` for values that can't be used.
    """
    tree: dict[str, Any] = files.read(path, "sweep")
    for key, value in (files.pair(setting) for setting in settings):
        tree = _set(tree, key, value)
    if isinstance(tree.get("base"), str):
        tree["base"] = files.read(Path(path).parent / tree["base"], "base")
    return from_mapping(tree)


def from_mapping(tree: Mapping[str, Any]) -> Sweep:
    """Build a sweep from nested mappings, and validate every point that is known beforehand."""
    files.check_size(dict(tree), "sweep", "a mapping")
    sweep = validated(Sweep, tree)
    _check_keys(sweep)
    _check_points(sweep)
    _check_choices(sweep)
    return sweep


def _set(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    if head not in Sweep.model_fields:
        head, rest = "settings", key
    if head not in ("space", "settings") or not rest:
        return files.changed(tree, [(key, value)])
    section = tree.get(head) or {}
    if not isinstance(section, Mapping):
        raise InputError(head, section, "a mapping of dotted keys")
    return {**tree, head: {**section, rest: value}}  # its keys have dots in them


def _check_keys(sweep: Sweep) -> None:
    for key in sweep.space:
        if key.partition(".")[0] in ("storage", "name", "stop"):
            allowed = "keys that trials may differ in: not where they are stored, nor what ends them"
            raise InputError(f"space.{key}", key, allowed)
        if key in sweep.settings:
            raise InputError(f"settings.{key}", sweep.settings[key], "settings that are not in the space too")


def _check_points(sweep: Sweep) -> None:
    """Raise `InputError` unless each corner and each known point is a valid configuration."""
    for number, point in enumerate((*corners(sweep.space), *(sweep.points or ()))):
        try:
            sweep.config(point)
        except InputError as error:
            raise _of_space(error, point, all_have_it=number == 0) from error


def _of_space(error: InputError, point: Point, all_have_it: bool) -> InputError:
    """Attribute the error to the space if a value of the space caused it."""
    if any(f"{key}.".startswith(f"{error.field}.") or error.field.startswith(f"{key}.") for key in point):
        return error.under("space")
    if all_have_it:
        return error
    told = ", ".join(f"{key}={domains.label(value)}" for key, value in point.items())
    hint = f"{error.hint}; " if error.hint else ""
    return InputError(error.field, error.value, error.allowed, f"{hint}at the point {told}")


def _check_choices(sweep: Sweep) -> None:
    kind, optuna = sweep.scheduler.kind, sweep.searcher.kind == "optuna"
    if sweep.budget_s is None:
        needed = "a number above 0: training time after which a trial ends"
        if kind != "none":
            raise InputError("budget.training_s", None, needed, f"the scheduler {kind} compares trials by it")
        if sweep.metric == LOSS_AT_BUDGET:
            raise InputError("budget.training_s", None, needed, f"{LOSS_AT_BUDGET} is measured at it")
    elif (sweep.scheduler.grace_s or 0.0) >= sweep.budget_s:
        allowed = f"a number below budget.training_s, which is {sweep.budget_s:g}"
        raise InputError("scheduler.grace_s", sweep.scheduler.grace_s, allowed)
    if sweep.metric == TIME_TO_TARGET and sweep.first.stop.target is None:
        allowed = "a mapping with metric, value: what is good enough"
        raise InputError("stop.target", None, allowed, f"{TIME_TO_TARGET} needs one: settings: {{stop.target: …}}")
    grids = [key for key, domain in sweep.space.items() if isinstance(domain, GridSearch)]
    if optuna and grids:
        raise InputError(f"space.{grids[0]}", "grid_search", "choice, with the searcher optuna")
    if optuna and importlib.util.find_spec("optuna") is None:
        hint = "pip install 'raysgd-local[optuna]'"
        raise InputError("searcher.kind", "optuna", "random or grid, unless Optuna is installed", hint)
