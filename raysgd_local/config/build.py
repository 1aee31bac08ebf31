"""Build frozen dataclasses from plain values, and convert them back. The dataclasses alone define the settings.

A field's annotation defines the allowed values. If the annotation is an *alternative* (a schedule, a task), one key of
the mapping chooses the class, and the other keys are that class's fields. Errors that a class raises about its own
values get the path put before them.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError

from raysgd_local.config.describe import WORDS, describe
from raysgd_local.errors import InputError, nearest, shown
from raysgd_local.import_path import class_path, find_class


@dataclass(frozen=True)
class Alternative:
    """A setting that is one of several classes, and the way in which a mapping names the class."""

    key: str  # key of the mapping whose value is the class's name
    find: Callable[[Any], type]  # name → class; raises `InputError` (field `key`) for an unknown name
    name_of: Callable[[Any], str]  # instance → name of its class


def table(names: Mapping[str, type]) -> Alternative:
    """Make an alternative from a table of names. Its key is `kind`; `module:Class` names a user's own class."""
    paths = {class_path(kind): name for name, kind in names.items()}

    def find(name: Any) -> type:
        if isinstance(name, str) and ":" in name:
            return find_class(name, "kind")
        if name not in list(names):
            allowed = f"one of {', '.join(names)}, or module:Class"
            raise InputError("kind", name, allowed, nearest(name, names))
        return names[name]

    def name_of(value: Any) -> str:
        path = class_path(type(value))
        return paths.get(path, path)

    return Alternative("kind", find, name_of)


@dataclass(frozen=True)
class Builder:
    """Builds values by annotation."""

    alternatives: Mapping[Any, Alternative]  # by annotation

    def build(self, hint: Any, plain: Any, path: str, default: Any = None) -> Any:
        """Build a value of type `hint` from `plain`. Settings that `plain` leaves out are taken from `default`.

        Raises `InputError` with a dotted path that begins with `path`.
        """
        if hint in self.alternatives:
            return self._alternative(self.alternatives[hint], plain, path, default)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._dataclass(hint, _mapping(plain, path, describe(hint)), path, default)
        origin, args = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType) and any(self._nested(arg) for arg in args):
            if plain is None and type(None) in args:
                return None
            return self.build(next(arg for arg in args if self._nested(arg)), plain, path, default)
        if origin is tuple and args[1:] == (...,):
            if not isinstance(plain, (list, tuple)):
                raise InputError(path, plain, describe(hint))
            return tuple(self.build(args[0], item, f"{path}.{i}") for i, item in enumerate(plain))
        return _leaf(hint, plain, path)

    def plain(self, value: Any, hint: Any = None, path: str = "") -> Any:
        """Convert `value` to lists, mappings, numbers and text: the inverse of `build(hint, …)`.

        Raises `InputError` for a value that has no such form.
        """
        named = self._alternative_of(hint, value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            hints = typing.get_type_hints(type(value))
            fields = {
                f.name: self.plain(getattr(value, f.name), hints[f.name], f"{path}.{f.name}".lstrip("."))
                for f in _settings(type(value))
            }
            return {named.key: named.name_of(value), **fields} if named else fields
        if isinstance(value, (list, tuple)):
            return [self.plain(item, None, path) for item in value]
        return value if type(value) in WORDS else _plain_value(value, path)

    def _alternative_of(self, hint: Any, value: Any) -> Alternative | None:
        hints = [] if value is None else [hint, *get_args(hint)]
        return next((self.alternatives[h] for h in hints if h in self.alternatives), None)

    def _nested(self, hint: Any) -> bool:
        return hint in self.alternatives or dataclasses.is_dataclass(hint)

    def _alternative(self, named: Alternative, plain: Any, path: str, default: Any) -> Any:
        given = _mapping(plain, path, f"a mapping with {named.key}")
        key = given.get(named.key, named.name_of(default) if default is not None else None)
        try:
            kind = named.find(key)
        except InputError as error:
            raise error.under(path) from error
        if not dataclasses.is_dataclass(kind):
            raise InputError(f"{path}.{named.key}", key, "a dataclass: its fields are the settings")
        settings = {name: value for name, value in given.items() if name != named.key}
        return self._dataclass(kind, settings, path, default if type(default) is kind else None, named.key)

    def _dataclass(self, kind: type, given: Mapping[str, Any], path: str, default: Any, key: str = "") -> Any:
        fields = {field.name: field for field in _settings(kind)}
        _refuse_unknown(given, [*([key] if key else []), *fields], path)
        if default is not None and _chooses_anew(fields.values(), given, default):
            default = None
        hints = _hints(kind, path)
        values = {}
        for name, field in fields.items():
            inner = getattr(default, name) if default is not None else _default(field)
            if name in given:
                values[name] = self._setting(kind, hints[name], given[name], f"{path}.{name}", inner)
            elif inner is not dataclasses.MISSING:
                values[name] = inner
            else:
                raise InputError(f"{path}.{name}", None, describe(hints[name]), "it has no default")
        return _made(kind, values, path)

    def _setting(self, kind: type, hint: Any, plain: Any, path: str, default: Any) -> Any:
        try:
            return self.build(hint, plain, path, _none_if_missing(default))
        except TypeError as error:
            raise InputError(path, plain, f"nothing: {class_path(kind)} has to change", str(error)) from error


def _hints(kind: type, path: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception as error:  # an annotation of the user's own class that can't be resolved
        why = f"{type(error).__name__}: {error}"
        raise InputError(path, class_path(kind), "a dataclass whose annotations can be resolved", why) from error


def _made(kind: type, values: Mapping[str, Any], path: str) -> Any:
    try:
        return kind(**values)
    except InputError as error:
        raise error.under(path) from error
    except (Exception, SystemExit) as error:  # the user's own class may raise anything
        why = f"{type(error).__name__}: {error}"
        raise InputError(path, dict(values), f"settings that {kind.__name__} takes", why) from error


def _settings(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _default(field: dataclasses.Field[Any]) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _none_if_missing(value: Any) -> Any:
    return None if value is dataclasses.MISSING else value


def _chooses_anew(fields: Iterable[dataclasses.Field[Any]], given: Mapping[str, Any], default: Any) -> bool:
    """Whether a field marked `alternative` changes; then the default's other values don't apply any more."""
    marked = (field.name for field in fields if field.metadata.get("alternative"))
    return any(given.get(name, getattr(default, name)) != getattr(default, name) for name in marked)


def _plain_value(value: Any, path: str) -> Any:
    try:
        return TypeAdapter(type(value)).dump_python(value, mode="json")
    except (PydanticSerializationError, PydanticSchemaGenerationError) as error:
        allowed = "a value that a file can hold: numbers, text, lists, mappings"
        raise InputError(path, repr(value), allowed, "config.yaml has to repeat the run") from error


def _mapping(plain: Any, path: str, allowed: str) -> Mapping[str, Any]:
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise InputError(path, plain, allowed)
    return plain


def _refuse_unknown(given: Mapping[str, Any], names: list[str], path: str) -> None:
    for name in given:
        if name not in names:
            raise unknown_key(path, name, names)


def unknown_key(section: str, key: object, names: list[str]) -> InputError:
    """Return the error for an unknown key of a section; an empty `section` is the whole configuration."""
    name = key if isinstance(key, str) else shown(key)
    path = f"{section}.{name}" if section else name
    return InputError(path, name, f"the keys {', '.join(names)}" if names else "no keys", nearest(name, names))


def _leaf(hint: Any, plain: Any, path: str) -> Any:
    try:
        return _adapter(hint).validate_python(plain)
    except ValidationError as error:
        raise InputError(path, plain, describe(hint)) from error


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True))
    except PydanticSchemaGenerationError as error:
        raise TypeError(f"a setting can't be of type {hint}: use numbers, text, dataclasses, tuples") from error
