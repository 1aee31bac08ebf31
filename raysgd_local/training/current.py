"""The context of the training loop that runs in this thread."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from raysgd_local.errors import UsageError
from raysgd_local.training.context import TrainContext

_present: ContextVar[TrainContext] = ContextVar("present")  # of this thread, or greenlet


def get_context() -> TrainContext:
    """Return the context of the training loop; outside of a run, a context with one worker.

    So the same loop runs under plain Python and in a debugger.
    """
    ctx = _present.get(None)
    if ctx is None:
        from raysgd_local.training.standalone import alone  # only needed, and only loaded, without a cluster

        ctx = alone()
        _present.set(ctx)
    return ctx


@contextmanager
def present(ctx: TrainContext) -> Iterator[None]:
    """Let `get_context` return `ctx` in this thread, within the `with` block."""
    token = _present.set(ctx)
    try:
        yield
    finally:
        _present.reset(token)


def run_loop(loop: Any, config: dict[str, Any] | None, ctx: TrainContext) -> None:
    """Run a task's `train`, or a function with or without a config argument, then end this worker.

    Raises `UsageError` for a loop that returns before its first epoch: it has not trained, nor would another worker's.
    """
    if hasattr(loop, "train") and not inspect.isfunction(loop):
        loop.train(ctx)
    elif inspect.signature(loop).parameters:
        loop(config or {})
    else:
        loop()
    if not ctx.begun:
        raise UsageError(
            "the training loop returned before its first epoch: it has to iterate over ctx.epochs, as in "
            "`for epoch in ctx.epochs(10): …`, with ctx = raysgd_local.get_context()"
        )
    ctx.finish()
