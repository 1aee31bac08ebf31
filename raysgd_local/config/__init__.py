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
)

__all__ = [
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
]


def load(
    path: str | Path | None = None,
    *,
    method: str | None = None,
    settings: Sequence[str] = (),
    storage: str | None = None,
    name: str | None = None,
) -> Config:
    """The configuration in a YAML file (without one, the shipped digits run), changed by what else is given.

    `method` puts a recipe in place of the file's algorithm; then each of `settings` (`a.b=value`) applies. Raises
    `InputError` for whatever can't be used.

    >>> load(method="local-sgd", settings=["algorithm.schedule.tau=4"]).algorithm.schedule
    FixedPeriod(tau=4)
    """
    tree = changed(plain(path), method, [files.pair(setting) for setting in settings])
    tree |= {key: value for key, value in (("storage", storage), ("name", name)) if value is not None}
    return from_mapping(tree)


def plain(path: str | Path | None = None) -> dict[str, Any]:
    """What a YAML file holds (without one, the shipped digits run). Raises `InputError` where it can't be read."""
    if path is not None:
        return files.read(path)
    return files.parse((package_files("raysgd_local") / "defaults" / "digits.yaml").read_text(encoding="utf-8"))


def changed(tree: dict[str, Any], method: str | None, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The tree with a recipe in place of its algorithm, then with each dotted key set."""
    if method is not None:
        tree = {**tree, "algorithm": BUILDER.plain(find_recipe(method).algorithm, Algorithm)}
    return files.changed(tree, pairs)
