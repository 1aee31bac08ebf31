"""Import the user's own classes, which configurations name as `module:Class`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from raysgd_local.errors import InputError, nearest


def find_class(path: str, field: str) -> type:
    """Import the class named `module:Class`. The module may lie in the working directory.

    Raises `InputError` (naming `field`) if the module can't be imported or has no such class.

    >>> find_class("collections:Counter", "kind")
    <class 'collections.Counter'>
    """
    module_name, _, class_name = path.partition(":")
    try:
        module = _imported(module_name)
        found = getattr(module, class_name, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(field, path, "module:Class with a module that can be imported", error) from error
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        hint = nearest(class_name, classes) or f"{module_name} has no class {class_name!r}"
        raise InputError(field, path, "module:Class", hint)
    return found


def class_path(kind: type) -> str:
    """Return the `module:Class` path of a class: the inverse of `find_class`."""
    return f"{kind.__module__}:{kind.__qualname__}"


def import_module(name: str, field: str) -> None:
    """Import a module of the user's, which may lie in the working directory. Raises `InputError`, naming `field`."""
    try:
        _imported(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(field, name, "a module that can be imported", error) from error


def _failed(field: str, value: str, allowed: str, error: BaseException) -> InputError:
    """Return the error for a module of the user's, which may raise anything while it is imported, or exit."""
    return InputError(field, value, allowed, f"{type(error).__name__}: {error}")


def _imported(module_name: str) -> Any:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # `python -m` has it on the path, a console script doesn't
    return importlib.import_module(module_name)
