"""Search for the initial period, the switch point and the rest, by training time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysgd_local import config as configuration
from raysgd_local.config import Config
from raysgd_local.errors import InputError
from raysgd_local.run_files.paths import directory_name, expanded
from raysgd_local.tuning.sweep import Sweep, from_mapping, load

if TYPE_CHECKING:
    from ray.tune import Tuner

__all__ = ["Sweep", "from_mapping", "load", "tuner"]


def tuner(
    base: Config | Mapping[str, Any] | str | Path | None,
    space: Mapping[str, Any],
    *,
    metric: str,
    mode: str | None = None,
    budget: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    searcher: Mapping[str, Any] | None = None,
    storage: str | Path = "runs",
    name: str | None = None,
) -> Tuner:
    """A `ray.tune.Tuner` whose trials are real runs of `base`, each in a placement group of its own.

    `base`: a configuration, a mapping or a YAML file; None for the digits run. `space`: by dotted keys of the
    configuration, one of Tune's domains (`tune.choice([2, 8])`) or a mapping as in a sweep's file. The other arguments
    are those of a sweep's file (see `docs/tuning.md`). The trials' directories are in `storage/name`, each with its run
    in `run/`.

    Raises `InputError` for values that can't be used, before any trial starts.
    """
    from raysgd_local.tuning.reported import check_metrics
    from raysgd_local.tuning.search import from_tune, make_tuner
    from raysgd_local.tuning.start import default_name

    tree = {
        "base": _tree(base),
        "space": {key: from_tune(domain, f"space.{key}") for key, domain in space.items()},
        "metric": metric,
        "mode": mode,
        "budget": dict(budget or {}),
        "scheduler": dict(scheduler or {}),
        "searcher": dict(searcher or {}),
    }
    sweep = from_mapping(tree)
    check_metrics(sweep)
    return make_tuner(
        sweep, Path(os.path.abspath(expanded(str(storage)))) / directory_name(name or default_name("sweep"))
    )


def _tree(base: Config | Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    tree = base.model_dump() if isinstance(base, Config) else base
    tree = dict(tree) if isinstance(tree, Mapping) else configuration.plain(tree)
    task = tree.get("task")
    if isinstance(task, Mapping) and str(task.get("name")).startswith("__main__:"):
        raise InputError("base.task.name", task["name"], "a class in a module that other processes can import")
    return tree
