"""The plain exchange: reduce a replica's state and all members' control slots in one collective."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import (
    SLOT,
    Contribution,
    Control,
    Flags,
    decode,
    digits,
    encode,
    from_digits,
)
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.state.anchor import Anchor
from raysgd_local.state.compressed_messages import Residual
from raysgd_local.state.packing import Packing
from raysgd_local.state.replica_state import ReplicaState, checksum
from raysgd_local.training.exchange.own_type import OwnType
from raysgd_local.transport.contract import Transport

Allocate = Callable[[int, torch.dtype], torch.Tensor]


@dataclass(frozen=True)
class Installing:
    """The way to install a round's reduced vector."""

    mode: Mode  # of the round
    then: Mode  # of the next round
    step: Callable[[Control], None]  # takes the optimizer step on averaged gradients


class Reduction:
    """Two flat vectors that are swapped at each commit: one to reduce into, one with the newest committed round.

    The second serves to heal others. The layout is [state (numel) | slots (world_size × slot)], where a slot is `SLOT`
    floats and the integer buffers.
    """

    def __init__(self, state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> None:
        self.state, self._allocate = state, allocate
        self._integers = len(state.integers())
        self._slot = SLOT + 3 * self._integers
        self._scratch = self._kept = torch.empty(0, dtype=state.dtype)
        self._make_room(members)
        self._used = self._tried = self._kept_used = 0
        self._checksum: int | None = 0
        self._anchored = self._healthy = True
        self.anchor = self._make_anchor(algorithm) if algorithm.keeps_anchor else None
        self.residual: Residual | None = None
        self._weights = algorithm.weights
        self._type = OwnType(state.parameters(), state.dtype, algorithm.exchange)

    @property
    def _anchor(self) -> Anchor:
        if self.anchor is None:
            raise RuntimeError("this method has no anchor")  # a bug: `keeps_anchor` says whether it has
        return self.anchor

    def _make_anchor(self, algorithm: Algorithm) -> Anchor:
        device = self._scratch.device
        return Anchor(self.state.parameters, self.state.dtype, device, algorithm.outer, algorithm.averaging)

    def _make_room(self, members: int) -> None:
        numel = self.state.numel + members * self._slot
        if self._scratch.numel() < numel:
            self._scratch = self._allocate(numel, self.state.dtype)
        if self._kept.numel() < numel:
            kept = self._allocate(numel, self.state.dtype)
            kept[: self._kept.numel()] = self._kept
            self._kept = kept

    def seat(self, world_size: int) -> None:
        """Make room for the slots of a new view. The newest committed round stays, for healing."""
        self.state.begin_view()
        self._make_room(world_size)
        self._used = self.state.numel + world_size * self._slot
        self._checksum = 0

    @property
    def checksum(self) -> int:
        """The checksum of the state committed last in this view; 0 before the first commit."""
        if self._checksum is None:
            self._checksum = checksum(self._kept[: self.state.numel])
            if self._anchored and self.anchor is not None:
                self._checksum ^= checksum(self.anchor.flat)
        return self._checksum

    def rebase(self) -> None:
        """Take the replica's state as committed, because it was received or loaded."""
        self.state.rebase()

    def strays(self, delta: float) -> bool:  # noqa: ARG002
        """Whether this member is further from the anchor than √`delta`. Only some methods measure it."""
        return False

    def reduce(
        self,
        transport: Transport,
        mode: Mode,
        round: int,  # noqa: ARG002
        said: Contribution,
        extent: Callable[[Control], Extent] | None = None,  # noqa: ARG002
    ) -> Control:
        """Sum state and slots over all members, and return all slots. The result is equal on all members.

        Methods that average among some members ask `extent` for the scope. State is checked while it is sent: if the
        slots show that a member's state is not finite, all members reduce again, with the weight 0 for that member.
        """
        self._check()
        sick: tuple[int, ...] = ()
        while True:
            self._healthy = transport.rank not in sick
            control = self._sum(transport, mode, said if self._healthy else counting_for_nothing(said))
            found = control.ranks(Flags.NONFINITE)
            if found == sick:
                return control
            sick = found

    def average(self, transport: Transport, round: int, said: Contribution) -> Control:
        """Sum the present parameters by plain averaging, whatever the method, for `show` to install their mean."""
        return Reduction.reduce(self, transport, "parameters", round, said)

    def show(self, control: Control) -> None:
        """Install the mean of `average` in this replica. The newest committed round is kept."""
        flat = self._scratch[: self._used]
        self._install_integers(flat)
        self.state.install(flat, control.weight)

    def _sum(self, transport: Transport, mode: Mode, said: Contribution) -> Control:
        if self._type.narrow and transport.world_size > 1:
            return self._sum_in_own_type(transport, mode, said)
        flat, self._tried = self._scratch[: self._used], self._used
        transport.all_reduce(flat, self._written(flat, mode, said, transport.rank))
        return self._control(flat)

    def _sum_in_own_type(self, transport: Transport, mode: Mode, said: Contribution) -> Control:
        """Sum slots and buffers first: the mean of the parameters needs all weights."""
        flat, self._tried = self._scratch[: self._used], self._used
        deque(self._written(flat, mode, said, transport.rank), maxlen=0)
        own, rest = flat[: sum(self.state.parameter_sizes)], flat[sum(self.state.parameter_sizes) :]
        transport.all_reduce(rest)
        control = self._control(flat)
        if control.weight > 0:
            if said.weight:
                own.div_(said.weight)
            anchor = None if self.anchor is None or mode == "gradients" else self.anchor.flat
            self._type.average(transport, own, [m.weight / control.weight for m in control.members], anchor)
            own.mul_(control.weight)
        return control

    def _written(self, flat: torch.Tensor, mode: Mode, said: Contribution, rank: int) -> Iterator[int]:
        """Write this member's part; yield numbers of elements written. The slot is last: it says if all are finite."""
        packing = self._packing(flat, mode, said)
        yield from packing.parts()
        flags = said.flags if packing.finite else said.flags | Flags.NONFINITE
        self._write_slot(flat, replace(said, flags=flags), rank)

    def _packing(self, flat: torch.Tensor, mode: Mode, said: Contribution) -> Packing:
        if mode == "gradients":
            return self.state.packing_gradients(flat, said.weight, said.stepping)
        return self.state.packing(flat, said.weight)

    def _write_slot(self, flat: torch.Tensor, said: Contribution, rank: int) -> None:
        slots = flat[self.state.numel :].view(-1, self._slot)  # (world_size, slot)
        slots.zero_()
        content = [*encode(replace(said, checksum=self.checksum)), *digits(self._own_integers())]
        slots[rank] = torch.tensor(content, dtype=flat.dtype)

    def _own_integers(self) -> list[int]:
        return self.state.integers()

    def _check(self) -> None:
        """Raise before anything is sent if the state can't be packed any more."""
        self.state.check()

    def abandon(self) -> None:
        """Forget an exchange in flight, because the view was left."""

    @property
    def left_out(self) -> float:
        """The norm of this member's residual after the newest committed round."""
        return 0.0 if self.residual is None else self.residual.norm

    def _control(self, flat: torch.Tensor) -> Control:
        slots = flat[self.state.numel :].view(-1, self._slot)[:, :SLOT]
        return Control(tuple(decode(row) for row in slots.tolist()))

    def finite(self) -> bool:
        """Whether the reduced state is finite.

        Every addend is bounded so that the sum can't overflow (`Packing.finite`). Checking every thousandth element
        guards that reasoning, at no cost.
        """
        return bool(torch.isfinite(self._scratch[: self.state.numel : 1009].sum()))

    def commit(self, how: Installing, control: Control) -> None:
        """Swap the reduced vector in, and install it."""
        self._scratch, self._kept = self._kept, self._scratch
        self._kept_used = self._tried
        self._install(how, control)
        self._checksum, self._anchored = None, how.mode != "gradients"

    @contextmanager
    def previewed(self, how: Installing, control: Control) -> Iterator[None]:
        """Install the reduced vector for a `with` block, as `commit` would, then go back to the state before it."""
        before, anchor = self.state.snapshot(), None if self.anchor is None else self.anchor.saved()
        kept, self._kept, used, self._kept_used = self._kept, self._scratch, self._kept_used, self._tried
        self._install(how, control)
        try:
            yield
        finally:
            self._kept, self._kept_used = kept, used
            self.state.restore(before)
            if self.anchor is not None and anchor is not None:
                self.anchor.restore(anchor)

    def _install(self, how: Installing, control: Control) -> None:
        flat, weight = self._kept[: self._kept_used], control.weight
        if weight > 0:
            self._install_integers(flat)
            if how.mode == "gradients":
                self._install_gradients(flat, how, control)
            elif self.anchor is None:
                self.state.install(flat, weight)
            else:
                self._install_at_anchor(self.anchor, flat, how, control)
        elif how.mode == "gradients" and control.flags & Flags.OVERFLOW:
            how.step(control)  # all overflowed: all skip the step, and lower the loss scale
        elif self.anchor is not None and how.mode == "apart" != how.then:
            self.anchor.rejoin()
        if self.anchor is not None and how.mode == "gradients":
            self._leave_anchor(self.anchor, how)

    def _install_gradients(self, flat: torch.Tensor, how: Installing, control: Control) -> None:
        self.state.install_gradients(flat, control.stepping_weight, control.stepping)
        how.step(control)
        self.state.install_buffers(flat, control.weight)

    def _install_at_anchor(self, anchor: Anchor, flat: torch.Tensor, how: Installing, control: Control) -> None:
        mean = flat[: anchor.numel] / control.weight
        if not self._weights.plain:
            samples, weights = zip(*((said.samples, said.weight) for said in control.members), strict=True)
            mean = torch.lerp(anchor.flat, mean, self._weights.stretch(samples, weights))
        stay = how.mode == how.then == "apart"
        workers, lr = len(control.members), control.members[0].lr
        anchor.commit(mean, workers, lr, stay=stay, healthy=self._healthy, sent=self._sent())
        self.state.install_rest(flat, control.weight)

    def _sent(self) -> torch.Tensor | None:
        """Return the difference to the anchor that the others received, if compression changed it; otherwise None."""
        return None

    def _leave_anchor(self, anchor: Anchor, how: Installing) -> None:
        """Drop the anchor, because members are equal and step together; take it again before they take local steps."""
        anchor.leave()
        if how.then != "gradients":
            anchor.take()

    def _install_integers(self, flat: torch.Tensor) -> None:
        """Install the maxima of all members' integer buffers. Do it first, because other state may depend on them."""
        if self._integers:
            slots = flat[self.state.numel :].view(-1, self._slot)[:, SLOT:].tolist()
            values = [from_digits(row) for row in slots]
            self.state.install_integers([max(column) for column in zip(*values, strict=True)])

    def heal(self, transport: Transport, source: int, behind: bool, how: Installing) -> Control | None:
        """Send or take the reduced vector of the newest committed round; a member behind commits it, and returns
        its slots.

        A member behind tried that very round, so its vector has the same length.
        """
        flat = self._scratch[: self._tried] if behind else self._kept[: self._kept_used]
        transport.broadcast(flat, source)
        return self._commit_missed(flat, how) if behind else None

    def _commit_missed(self, flat: torch.Tensor, how: Installing) -> Control:
        """Commit the round that this member missed, and return its slots."""
        control = self._control(flat).in_step  # that is no change where members were in step before
        self.commit(how, control)
        self._checksum = 0
        return control


def counting_for_nothing(said: Contribution) -> Contribution:
    """Return the slot of a member whose state is not finite: weight 0, and the flag."""
    return replace(said, weight=0.0, flags=said.flags | Flags.NONFINITE)
