"""Count the samples of steps: each once, however many optimizers step on a batch one after the other."""

from __future__ import annotations

from raysgd_local.control.member import events as m
from raysgd_local.errors import UsageError
from raysgd_local.training import arguments


class CountedSamples:
    """The samples of one epoch's steps."""

    def __init__(self) -> None:
        self._newest = 0  # samples of the newest step that had any

    def due(self, consumed: int, samples: int | None, stepping: int) -> m.StepDue:
        """Return the step that is due after `consumed` positions of the deal, over `samples` if the loop says so.

        A further step on the same batch, of optimizers that `stepping` names, has the batch's weight and no samples of
        its own. Raises `InputError` for a wrong number, and `UsageError` where the number of samples is not known.
        """
        if samples is not None:
            samples = arguments.whole_number("samples", samples, at_least=0)
        count = consumed if samples is None else samples
        further = self._newest if stepping and not consumed and not count else 0
        if not consumed and samples is None and not further:
            raise UsageError(
                "ctx.step needs samples=… where no batch was taken from ctx.batches since the last step (or "
                "optimizer=…, for one optimizer's step after another's on the same batch)"
            )
        self._newest = count or self._newest
        return m.StepDue(count, consumed, further, stepping)
