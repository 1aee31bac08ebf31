"""The optimizers that a step names (`ctx.step(…, optimizer=…)`), as bits by the order in which they were prepared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError, UsageError

_MOST = 24
"""Most optimizers of which a step can name some: their bits travel exactly in a float32."""


def selection(prepared: Sequence[Optimizer], given: Optimizer | Iterable[Optimizer] | None) -> int:
    """Return the bits of the optimizers `given`: one, or several; 0 for None, which stands for all.

    Raises `InputError` for anything that was not prepared.
    """
    if given is None:
        return 0
    if len(prepared) > _MOST:
        raise UsageError(
            f"ctx.step can name optimizers (optimizer=…) among {_MOST} prepared ones, not {len(prepared)}"
        )
    numbers = {id(optimizer): number for number, optimizer in enumerate(prepared)}
    chosen = _listed(given)
    strangers = [optimizer for optimizer in chosen if id(optimizer) not in numbers]
    if strangers or not chosen:
        told = list(dict.fromkeys(_name(stranger) for stranger in strangers)) or ["no optimizer"]
        raise InputError("optimizer", told[0] if len(told) == 1 else told, _allowed(prepared), _hint(strangers))
    return sum({1 << numbers[id(optimizer)] for optimizer in chosen})


def check_method(algorithm: Algorithm, program: Program, mode: Mode) -> None:
    """Raise `UsageError` if the method needs steps of all optimizers."""
    needs = {
        "the stability test, which tries batches twice": program.probes,
        "FedNova's weights, which count steps": not algorithm.weights.plain,
        "compressed gradients": algorithm.compression is not None and mode == "gradients",
    }
    for method, used in needs.items():
        if used:
            raise UsageError(f"ctx.step(…, optimizer=…) can't be used with {method}: step all optimizers together")


def _listed(given: object) -> list[object]:
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | nn.Module | Tensor)
    return list(given) if several else [given]  # type: ignore[call-overload]


def _allowed(prepared: Sequence[Optimizer]) -> str:
    names = ", ".join(f"{number} ({type(optimizer).__name__})" for number, optimizer in enumerate(prepared))
    return f"an optimizer that ctx.prepare_optimizer was given, or a sequence of these; prepared are {names}"


def _name(stranger: object) -> object:
    if isinstance(stranger, Optimizer):
        return f"an optimizer of class {type(stranger).__name__} that was not prepared"
    plain = isinstance(stranger, str | int | float | type(None))
    return stranger if plain else f"an object of class {type(stranger).__name__}"


def _hint(strangers: Sequence[object]) -> str:
    return "pass the object itself" if any(isinstance(stranger, str | int) for stranger in strangers) else ""
