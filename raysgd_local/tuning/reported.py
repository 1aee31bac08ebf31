"""Find the metrics that a task's evaluations report: from its class, or by evaluating two samples."""

from __future__ import annotations

from raysgd_local.errors import InputError, nearest
from raysgd_local.tasks.base import Task
from raysgd_local.tuning.objective import OWN
from raysgd_local.tuning.sweep import Sweep


def check_metrics(sweep: Sweep) -> None:
    """Raise `InputError` unless the task reports the sweep's metric and the target's.

    Imports torch only for a task whose class overrides `metrics` without listing their names in `reports`. A task with
    its own training loop is not checked: it may evaluate other metrics.
    """
    task, target = sweep.first.task, sweep.first.stop.target
    asked = {} if sweep.metric in OWN else {"metric": sweep.metric}
    asked |= {} if target is None else {"stop.target.metric": target.metric}
    if not asked or _has_own_loop(task):
        return
    names = declared_names(task)
    names = evaluated_names(task) if names is None else names
    for field, metric in asked.items():
        if metric not in names:
            allowed = [*names, *(OWN if field == "metric" else ())]
            raise InputError(field, metric, f"one of {', '.join(allowed)}", nearest(metric, allowed))


def declared_names(task: Task) -> tuple[str, ...] | None:
    """Return the names in `Task.reports`; None if the class overrides `metrics` but not `reports`."""
    for kind in type(task).__mro__:
        if "reports" in vars(kind):
            return tuple(kind.__dict__["reports"])
        if "metrics" in vars(kind):
            return None
    return None


def evaluated_names(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics, by evaluating two samples of the test set."""
    import torch

    from raysgd_local.training.evaluation import Evaluation

    model = task.make_model()
    test = task.datasets()[1]
    return Evaluation(task.metrics, model, (model,), test, 2, torch.device("cpu")).names()


def _has_own_loop(task: Task) -> bool:
    for kind in type(task).__mro__:
        if "reports" in vars(kind):
            return False
        if "train" in vars(kind):
            return True
    return False
