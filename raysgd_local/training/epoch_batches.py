"""A worker's batches of one epoch, as its loop draws them."""

from __future__ import annotations

from typing import Any

from raysgd_local.control.member import events as m
from raysgd_local.control.member.machine import Member
from raysgd_local.errors import InputError, UsageError
from raysgd_local.training.data.batches import to_device
from raysgd_local.training.data.loaded import Loaded
from raysgd_local.training.data.loading import DealtBatches
from raysgd_local.training.shell import Shell
from raysgd_local.training.streams.loading import StreamedBatches


class Batches:
    """Iterates over this worker's batches of one epoch.

    The end comes when the worker's own list is used up; where rounds end with an epoch, and in the last epoch, when the
    epoch has ended for all workers.
    """

    def __init__(self, shell: Shell, source: DealtBatches | StreamedBatches) -> None:
        self._shell, self._source = shell, source
        self._unstepped = Loaded()
        self._empty = False  # whether a list ended with rows that gave no sample
        self._asked: Member | None = None
        self.left = False

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        if self.left:
            raise UsageError(
                "these batches belong to an epoch that the loop has left (by ctx.evaluate or ctx.epochs)"
            )
        while self._going_on():
            found = self._source.next()
            for note in self._source.notes:
                self._shell.log(note)
            self._source.notes.clear()
            if found is not None and found.samples:
                self._unstepped = self._unstepped.and_then(found)
                return to_device(found.batch, self._shell.place.device)
            rest = found or Loaded()
            if self._unstepped.samples or (self._shell.member.goes_on and not rest.consumed):
                self._unstepped = self._unstepped.and_then(rest)
                break  # the loop may still take a step with the batches that it has
            self._empty |= rest.consumed > 0
            self._shell.drive(m.ListEnded(rest.consumed, rest.reached))
        self._check_samples()
        raise StopIteration

    def _check_samples(self) -> None:
        """Raise `InputError` if the run's first epoch is over, and nobody made a sample of its rows."""
        state = self._shell.state
        if self._empty and not state.open and not state.stopped and state.samples == 0:
            hint = "a filter that leaves nothing, or samples longer than all data?"
            raise InputError("transform", "no sample of any row", "one that makes samples", hint)

    def _going_on(self) -> bool:
        member = self._shell.member
        if member is self._asked:
            return True  # no event has reached the member since the last batch
        state, order = self._shell.state, self._shell.order
        if state.stopped or not state.open or order.deal is None:
            return False
        self._source.seat(member, self._shell.rewound)
        self._shell.reads(self._source)
        self._asked = member
        return True

    def leave(self) -> None:
        """End the iteration: the loop has left these batches."""
        self.left = True
        self._source.close()

    def take_unstepped(self) -> Loaded:
        """Return the batches since the last step."""
        taken, self._unstepped = self._unstepped, Loaded()
        return taken
