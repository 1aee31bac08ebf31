"""Count the samples of steps: each once, however many optimizers step on a batch one after the other."""

from __future__ import annotations

from raysgd_local.control.member import events as m
from raysgd_local.errors import UsageError
from raysgd_local.training import arguments
from raysgd_local.training.data.loaded import Loaded


class CountedSamples:
    """The samples of one epoch's steps."""

    def __init__(self) -> None:
        self._newest = 0  # samples of the newest step that had any

    def due(self, taken: Loaded, samples: int | None, stepping: int) -> m.StepDue:
        """Return the step that is due on the batches `taken` since the last one, over `samples` if the loop says so.

        A further step on the same batch, of optimizers that `stepping` names, has the batch's weight and no samples of
        its own. Raises `InputError` for a wrong number, and `UsageError` where the number of samples is not known.
        """
        if samples is not None:
            samples = arguments.whole_number("samples", samples, at_least=0)
        count = taken.samples if samples is None else samples
        further = self._newest if stepping and not taken.samples and not count else 0
        if not taken.samples and samples is None and not further:
            raise UsageError(
                "ctx.step needs samples=… where no batch was taken from ctx.batches since the last step (or "
                "optimizer=…, for one optimizer's step after another's on the same batch)"
            )
        self._newest = count or self._newest
        return m.StepDue(count, taken.consumed, further, stepping, taken.reached)
