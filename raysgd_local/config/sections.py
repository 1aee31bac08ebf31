"""The base class of configuration sections, and the translation of pydantic's errors to `InputError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from raysgd_local.config.build import unknown_key
from raysgd_local.config.describe import REMOTE, at_most, describe
from raysgd_local.errors import InputError


class Section(BaseModel):
    """A frozen section of the configuration. Values are not converted, except from an integer to a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Section)


def validated(model: type[Model], tree: Mapping[str, Any]) -> Model:
    """Build a `model` from nested mappings.

    Raises `InputError` with the dotted path of the first value that can't be used, and the values allowed there.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        found = error.errors()  # report an unknown key first: it often causes the other errors
        unknown = ("extra_forbidden", "invalid_key")
        first = next((one for one in found if one["type"] in unknown), found[0])
        raise _input_error(first, model) from error


def _input_error(found: Any, model: type[Section]) -> InputError:
    """Translate one of pydantic's errors."""
    own = found.get("ctx", {}).get("error")
    if isinstance(own, InputError):
        return own
    *within, last = found["loc"] or ("config",)
    if found["type"] in ("extra_forbidden", "invalid_key"):
        section, _ = _section([*within, ""], model)
        return unknown_key(".".join(within), last, list(section.model_fields))
    path = [part for part in found["loc"] if isinstance(part, str)]
    if not path:  # a key that is no text
        return InputError("config", found["input"], "a mapping whose keys are text")
    _, hint = _section(path, model)
    name = ".".join(path)
    if found["type"] == "missing":
        return InputError(name, None, hint, "it has no default")
    if found["type"] == "less_than_equal" and found["ctx"]["le"] >= REMOTE:
        hint = hint.removesuffix(" or null") + at_most(found["ctx"]["le"])
    return InputError(name, found["input"], hint)


def _section(path: Sequence[str], model: type[BaseModel]) -> tuple[type[BaseModel], str]:
    """Return the section to which the path's last key belongs, and a description of the allowed values."""
    section, last = model, path[-1]
    for part in path[:-1]:
        hint = section.model_fields[part].annotation
        inner = next((inner for inner in (hint, *get_args(hint)) if _is_model(inner)), None)
        if inner is None:  # a mapping of the user's own keys
            last = part
            break
        section = inner
    field = section.model_fields.get(last)
    if field is None:
        return section, ""
    return section, describe(Annotated[(field.annotation, *field.metadata, "")])


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)
