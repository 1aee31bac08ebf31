"""The configuration of a run: YAML in, one frozen and validated value out, without torch or Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.config import files
from raysgd_local.config.alternatives import BUILDER, find_recipe, method_name
from raysgd_local.config.cluster import load_cluster
from raysgd_local.config.model import (
    MOST_WORKERS,
    Checkpoints,
    Config,
    Data,
    Network,
    Stop,
    Target,
    Timeouts,
    Workers,
    from_mapping,
    from_yaml,
    section,
)

__all__ = [
    "MOST_WORKERS",
    "Checkpoints",
    "Config",
    "Data",
    "Network",
    "Stop",
    "Target",
    "Timeouts",
    "Workers",
    "changed",
    "find_recipe",
    "from_mapping",
    "from_yaml",
    "load",
    "load_cluster",
    "method_name",
    "plain",
    "section",
]


def load(
    path: str | Path | None = None,
    *,
    method: str | None = None,
    settings: Sequence[str] = (),
    storage: str | None = None,
    name: str | None = None,
    task: Any = None,
) -> Config:
    """Load the configuration in a YAML file (without a path, the shipped digits run), and apply the other arguments.

    `method`: name of a recipe that replaces the file's algorithm. `settings`: `a.b=value`, applied after that.
    `task`: a task or a training loop in place of the file's task; so the `config.yaml` of a loop's run can repeat it.
    Raises `InputError` for values that can't be used.

    >>> load(method="local-sgd", settings=["algorithm.schedule.tau=4"]).algorithm.schedule
    FixedPeriod(tau=4)
    """
    tree = changed(plain(path), method, [files.pair(setting) for setting in settings])
    tree |= {
        key: value for key, value in (("storage", storage), ("name", name), ("task", task)) if value is not None
    }
    return from_mapping(tree)


def plain(path: str | Path | None = None) -> dict[str, Any]:
    """Read a YAML file (without a path, the shipped digits run). Raises `InputError` if it can't be read."""
    if path is not None:
        return files.read(path)
    return files.parse((package_files("raysgd_local") / "defaults" / "digits.yaml").read_text(encoding="utf-8"))


def changed(tree: dict[str, Any], method: str | None, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the tree with its algorithm replaced by the recipe `method`, if given, and then each dotted key set."""
    if method is not None:
        tree = {**tree, "algorithm": BUILDER.plain(find_recipe(method).algorithm, Algorithm)}
    return files.changed(tree, pairs)
