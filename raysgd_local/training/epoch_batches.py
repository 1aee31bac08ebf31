"""A worker's batches of one epoch, as its loop draws them."""

from __future__ import annotations

from typing import Any

from raysgd_local.control.member import events as m
from raysgd_local.control.member.machine import Member
from raysgd_local.errors import InputError, UsageError
from raysgd_local.training.data.batches import to_device
from raysgd_local.training.data.loading import DealtBatches
from raysgd_local.training.shell import Shell


class Batches:
    """Iterates over this worker's batches of one epoch.

    The end comes when the worker's own list is used up; where rounds end with an epoch, and in the last epoch, when the
    epoch has ended for all workers.
    """

    def __init__(self, shell: Shell, source: DealtBatches) -> None:
        self._shell, self._source = shell, source
        self._unstepped = 0
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
            for reason in self._source.lost:
                self._shell.log({"loader_restarted": reason})
            self._source.lost.clear()
            if found is not None:
                batch, positions = found
                self._unstepped += positions
                return to_device(batch, self._shell.place.device)
            if self._unstepped or self._shell.member.goes_on:
                break  # the loop may still take a step with the batches that it has
            self._shell.drive(m.ListEnded())
        raise StopIteration

    def _going_on(self) -> bool:
        member = self._shell.member
        if member is self._asked:
            return True  # no event has reached the member since the last batch
        state, order = self._shell.state, self._shell.order
        if state.stopped or not state.open or order.deal is None:
            return False
        if order.deal.samples != self._source.samples:
            allowed = f"the {order.deal.samples} samples over which the open epoch was dealt"
            hint = "every worker needs the same data set, and so does a run that goes on from a checkpoint"
            if state.epochs:
                hint += "; for a set that changes from epoch to epoch choose algorithm.rounds: within-epochs"
            raise InputError("training set", f"{self._source.samples} samples", allowed, hint)
        start, scale = state.cursors[member.rank] + member.uncommitted.taken, order.program.scale_of(member.rank)
        self._source.deal(
            order.deal, member.rank, start, member.loop_epoch, scale=scale, times=self._shell.rewound
        )
        self._asked = member
        return True

    def leave(self) -> None:
        """End the iteration: the loop has left these batches."""
        self.left = True
        self._source.close()

    def take_unstepped(self) -> int:
        """Return the number of positions in the batches since the last step."""
        taken, self._unstepped = self._unstepped, 0
        return taken
