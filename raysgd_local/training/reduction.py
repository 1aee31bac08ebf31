"""The flat vector of one exchange: a replica's state and all members' control slots, reduced in one collective."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.algorithms.state import ReplicaState, checksum
from raysgd_local.control.exchange import SLOT, Contribution, Control, Flags, decode, digits, encode, from_digits
from raysgd_local.records import replace
from raysgd_local.transport.base import Transport

Allocate = Callable[[int, torch.dtype], torch.Tensor]


class Reduction:
    """Two flat vectors, swapped: one is reduced into, the other keeps the newest committed round to heal others.

    Laid out as [state (numel) | slots (world_size × slot)], where a slot is `SLOT` floats and the integer buffers.
    """

    def __init__(self, state: ReplicaState, allocate: Allocate, members: int) -> None:
        self.state, self._allocate = state, allocate
        self._integers = len(state.integers())
        self._slot = SLOT + 3 * self._integers
        self._scratch = self._kept = torch.empty(0, dtype=state.dtype)
        self._make_room(members)
        self._used = self._tried = self._kept_used = 0
        self._checksum: int | None = 0

    def _make_room(self, members: int) -> None:
        numel = self.state.numel + members * self._slot
        if self._scratch.numel() < numel:
            self._scratch = self._allocate(numel, self.state.dtype)
        if self._kept.numel() < numel:
            kept = self._allocate(numel, self.state.dtype)
            kept[: self._kept.numel()] = self._kept
            self._kept = kept

    def seat(self, world_size: int) -> None:
        """Make room for a view's slots. What was committed before stays for healing."""
        self._make_room(world_size)
        self._used = self.state.numel + world_size * self._slot
        self._checksum = 0

    def reduce(self, transport: Transport, mode: Mode, said: Contribution) -> Control:
        """Sum state and words over all members; every one has the same result.

        State is looked at while it is on its way. If some of it turns out not to be finite, which all learn from
        the slots, all sum once more, and who has such state counts for nothing.
        """
        sick: tuple[int, ...] = ()
        while True:
            if transport.rank in sick:
                said = replace(said, weight=0.0, flags=said.flags | Flags.NONFINITE)
            control = self._sum(transport, mode, said)
            found = control.ranks(Flags.NONFINITE)
            if found == sick:
                return control
            sick = found

    def _sum(self, transport: Transport, mode: Mode, said: Contribution) -> Control:
        flat, self._tried = self._scratch[: self._used], self._used
        transport.all_reduce(flat, self._written(flat, mode, said, transport.rank))
        return _control(flat, self.state.numel, self._slot)

    def _written(self, flat: torch.Tensor, mode: Mode, said: Contribution, rank: int) -> Iterator[int]:
        """Write this member's part, and say up to where it is ready. The slot comes last: it tells how it went."""
        pack = self.state.packing if mode == "parameters" else self.state.packing_gradients
        packing = pack(flat, said.weight)
        yield from packing.parts()
        if not packing.finite:
            said = replace(said, flags=said.flags | Flags.NONFINITE)
        self._write_slot(flat, replace(said, checksum=self._committed_checksum()), rank)

    def _write_slot(self, flat: torch.Tensor, said: Contribution, rank: int) -> None:
        slots = flat[self.state.numel :].view(-1, self._slot)  # (world_size, slot)
        slots.zero_()
        content = [*encode(said), *digits(self.state.integers())]
        slots[rank] = torch.tensor(content, dtype=flat.dtype)

    def _committed_checksum(self) -> int:
        """Of what was committed last in this view; 0 before that. Computed while the parts before are travelling."""
        if self._checksum is None:
            self._checksum = checksum(self._kept[: self.state.numel])
        return self._checksum

    def finite(self) -> bool:
        """Whether the reduced state is. Every addend was bounded so that their sum can't overflow (`is_bounded`);
        a look at every thousandth element guards that reasoning, at no cost."""
        return bool(torch.isfinite(self._scratch[: self.state.numel : 1009].sum()))

    def commit(self, mode: Mode, control: Control, step: Callable[[Control], None]) -> None:
        """Swap the reduced vector in, and install it; in gradient mode `step` is the optimizer's."""
        self._scratch, self._kept = self._kept, self._scratch
        self._kept_used = self._tried
        self._install(mode, control, step)
        self._checksum = None

    def _install(self, mode: Mode, control: Control, step: Callable[[Control], None]) -> None:
        flat, weight = self._kept[: self._kept_used], control.weight
        if weight == 0:
            return
        self._install_integers(flat)
        if mode == "parameters":
            self.state.install(flat, weight)
        else:
            self.state.install_gradients(flat, weight)
            step(control)
            self.state.install_buffers(flat, weight)

    def _install_integers(self, flat: torch.Tensor) -> None:
        """The maxima of all members' integer buffers; before the rest, which may depend on them."""
        if self._integers:
            slots = flat[self.state.numel :].view(-1, self._slot)[:, SLOT:].tolist()
            values = [from_digits(row) for row in slots]
            self.state.install_integers([max(column) for column in zip(*values, strict=True)])

    def heal(
        self, transport: Transport, source: int, behind: bool, mode: Mode, step: Callable[[Control], None]
    ) -> None:
        """Send or take the reduced vector of the newest committed round; who is behind commits it now.

        Who is behind tried that very round, so its vector has the same length.
        """
        flat = self._scratch[: self._tried] if behind else self._kept[: self._kept_used]
        transport.broadcast(flat, source)
        if behind:
            self.commit(mode, _control(flat, self.state.numel, self._slot), step)
            self._checksum = 0


def _control(flat: torch.Tensor, numel: int, slot: int) -> Control:
    return Control(tuple(decode(row) for row in flat[numel:].view(-1, slot)[:, :SLOT].tolist()))
