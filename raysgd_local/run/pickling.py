"""Find values that can't be sent to workers, before the run begins."""

from __future__ import annotations

import functools
import inspect
import reprlib
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle

from raysgd_local.errors import InputError

_DEEPEST = 20  # levels to descend in search of the culprit
_LONGEST = 120  # characters of a value, and of the reason, in the message

_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = _LONGEST


def check_picklable(loop: Any, loop_config: dict[str, Any] | None, datasets: dict[str, Any] | None = None) -> None:
    """Raise `InputError` where the loop, the task, a data set or a value of `train_loop_config` can't be pickled."""
    argument = "train_loop_per_worker" if inspect.isroutine(loop) else "task"
    for path, value in (("train_loop_config", loop_config), ("datasets", datasets), (argument, loop)):
        if _why(value):
            raise _input_error(path, value)


def _input_error(path: str, value: Any) -> InputError:
    passed = [value]  # a value may contain itself
    for _ in range(_DEEPEST):
        parts = ((name, part) for name, part in _parts(value) if not any(part is known for known in passed))
        inner = next(((name, part) for name, part in parts if _why(part)), None)
        if inner is None:
            break
        path, value = path + inner[0], inner[1]
        passed.append(value)
    hint = f"{_why(value)}; make it in the loop: each worker then has its own"
    return InputError(path, _shown(value), "values that can be pickled, to send them to workers", hint)


def _why(value: Any) -> str:
    """Return the reason why a value can't be pickled; empty where it can."""
    try:
        cloudpickle.dump(value, _Nowhere())
    except Exception as error:  # a value's own methods may raise anything
        return f"{type(error).__name__}: {str(error)[:_LONGEST]}"
    return ""


class _Nowhere:
    """A file that keeps nothing: configurations may hold large arrays."""

    def write(self, content: Any) -> int:
        return len(content) if isinstance(content, bytes) else memoryview(content).nbytes


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the values inside of a value, with the words that lead to them."""
    match value:
        case dict():
            yield from (
                (f"[{_shown(key)}]" if not isinstance(key, str) else f"[{key!r}]", value[key]) for key in value
            )
        case list() | tuple() | set() | frozenset():
            yield from ((f"[{index}]", part) for index, part in enumerate(value))
        case functools.partial():
            yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
        case types.MethodType():
            yield ".__self__", value.__self__
        case types.FunctionType():
            yield from _variables(value)
        case type() | types.ModuleType():
            return
        case _:
            yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())


def _variables(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Return the variables that a function takes from outside, and its defaults."""
    try:
        outside = inspect.getclosurevars(function)
    except ValueError:  # a variable that has no value yet
        return
    for name, part in {**outside.nonlocals, **outside.globals}.items():
        yield f", variable {name}", part
    yield from ((f", default [{index}]", part) for index, part in enumerate(function.__defaults__ or ()))


def _shown(value: Any) -> str:
    try:
        return _SHORT.repr(value)
    except Exception:
        return type(value).__name__
