"""The shipped tasks by name, and the lookup of users' own tasks. Importing this doesn't import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raysgd_local.errors import InputError, nearest
from raysgd_local.import_path import class_path, find_class
from raysgd_local.tasks.base import Task
from raysgd_local.tasks.optimizer import Optimizer

if TYPE_CHECKING:
    from raysgd_local.tasks.digits import Digits
    from raysgd_local.tasks.vision import FashionMNIST

__all__ = ["TASKS", "Digits", "FashionMNIST", "Optimizer", "Task", "find_task", "task_name"]

TASKS = {
    "digits": "raysgd_local.tasks.digits:Digits",
    "fashion-mnist": "raysgd_local.tasks.vision:FashionMNIST",
}
"""The task classes' paths by their names in configurations."""

_PUBLIC = {"Digits": "digits", "FashionMNIST": "fashion-mnist"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return find_task(_PUBLIC[name])


def find_task(name: str) -> type[Task]:
    """Return the task class called `name`: one of `TASKS`, or `module:Class` for a user's own.

    Raises `InputError` (field `name`) if there is no such task, or its module can't be imported.

    >>> find_task("digits").__name__
    'Digits'
    """
    if not isinstance(name, str) or (name not in TASKS and ":" not in name):
        allowed = f"one of {', '.join(TASKS)}, or module:Class for a task of your own"
        raise InputError("name", name, allowed, nearest(name, TASKS))
    found = find_class(TASKS.get(name, name), "name")
    if not issubclass(found, Task):
        raise InputError("name", name, "a subclass of raysgd_local.tasks.Task")
    return found


def task_name(task: Task) -> str:
    """Return the name of a task's class: the inverse of `find_task`.

    >>> task_name(find_task("digits")())
    'digits'
    """
    path = class_path(type(task))
    return next((name for name, where in TASKS.items() if where == path), path)
