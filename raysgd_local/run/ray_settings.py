"""Ray Train's configuration classes: the settings that a run honours, and all others, refused by name.

The fields are read from the classes as installed: a setting that a later Ray adds is refused until it is honoured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError

HONOURED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "scaling_config": frozenset({"num_workers", "use_gpu", "resources_per_worker", "accelerator_type"}),
        "run_config": frozenset(
            {"name", "storage_path", "storage_filesystem", "failure_config", "checkpoint_config", "callbacks"}
        ),
        "run_config.checkpoint_config": frozenset(
            {"num_to_keep", "checkpoint_score_attribute", "checkpoint_score_order"}
        ),
        "run_config.failure_config": frozenset({"max_failures"}),
    }
)
"""The settings that have an effect, by the argument that has them."""

INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "trainer_resources": "the driver needs no resources",
        "placement_strategy": "Ray's scheduler places each worker by itself",
        "label_selector": "give those nodes a custom resource, and ask for it in resources_per_worker",
        "use_tpu": "workers train on CPUs or GPUs",
        "topology": "workers train on CPUs or GPUs",
        "elastic_resize_monitor_interval_s": "a worker joins at the next boundary after it is ready",
        "worker_runtime_env": "give it to ray.init(runtime_env=…) before fit(): workers inherit it",
        "logging_config": "events.jsonl in the run directory is the log",
        "sync_config": "all files are written to storage_path",
        "verbose": "fit(observe=…) replaces the live display",
        "stop": "give LocalSGDTrainer(stop=Stop(…))",
        "progress_reporter": "give LocalSGDTrainer(observers=[…])",
        "log_to_file": "events.jsonl in the run directory is the log",
        "checkpoint_frequency": "there is a checkpoint after each epoch",
        "checkpoint_at_end": "there is a checkpoint at the end",
        "fail_fast": "max_failures=0 ends the run at the first exception",
        "controller_failure_limit": "the driver is started again after each death, with growing delays",
        "max_preemption_failures": "a preempted worker is replaced, however many there are",
        "relax_collectives_on_preemption": "the others always go on without a preempted worker",
        "preemption_grace_s": "the others always go on without a preempted worker",
    }
)
"""For the settings without effect: the way to the same, or the reason."""

_NO_CUSTOM = ("memory", "object_store_memory")  # Ray counts these in its own way


def check_settings(scaling: Any, run: Any) -> None:
    """Raise `InputError` for the first setting that is not at its default and would have no effect."""
    _refuse("scaling_config", scaling)
    _refuse("run_config", run)
    for name in ("checkpoint_config", "failure_config"):
        if getattr(run, name) is not None:
            _refuse(f"run_config.{name}", getattr(run, name))
    if not isinstance(scaling.use_gpu, bool):
        raise InputError("scaling_config.use_gpu", scaling.use_gpu, "true or false")


def _refuse(argument: str, config: Any) -> None:
    default = type(config)()
    for name in (field.name for field in fields(config)):
        value, usual = getattr(config, name), getattr(default, name)
        if name not in HONOURED[argument] and value != usual:
            allowed = f"only the default, {usual!r}: it has no effect here"
            raise InputError(f"{argument}.{name}", value, allowed, INSTEAD.get(name, ""))


def resources(scaling: Any) -> dict[str, float]:
    """Return the resources of one worker by Ray's names, at least `CPU`. Raises `InputError`."""
    asked, field = scaling.resources_per_worker, "scaling_config.resources_per_worker"
    if asked is not None and not isinstance(asked, dict):
        raise InputError(field, asked, "a mapping of resources")
    found = {"CPU": 1.0, **(asked or {})}
    for name, amount in found.items():
        if name in _NO_CUSTOM:
            raise InputError(f"{field}.{name}", amount, "CPU, GPU and custom resources")
        validation.number(f"{field}.{name}", amount)
        if amount < 0 or (name == "CPU" and amount == 0):
            raise InputError(f"{field}.{name}", amount, "a number above 0")
    if scaling.accelerator_type is not None:  # Ray's own way to say that any amount of it is enough
        found[f"accelerator_type:{scaling.accelerator_type}"] = 0.001
    return {str(name): float(amount) for name, amount in found.items()}
