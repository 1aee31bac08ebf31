"""The flat vector of one exchange: a replica's state and all members' control slots, reduced in one collective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.anchor import Anchor
from raysgd_local.algorithms.messages import Residual
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.algorithms.state import ReplicaState, checksum
from raysgd_local.control.exchange import SLOT, Contribution, Control, Flags, decode, digits, encode, from_digits
from raysgd_local.transport.base import Transport

Allocate = Callable[[int, torch.dtype], torch.Tensor]
SaysAll = Callable[[Control], bool]


@dataclass(frozen=True)
class Installing:
    """How a reduced vector is installed: the round's mode, the next one's, and gradient mode's optimizer step."""

    mode: Mode
    then: Mode
    step: Callable[[Control], None]


class Reduction:
    """Two flat vectors, swapped: one is reduced into, the other keeps the newest committed round to heal others.

    Laid out as [state (numel) | slots (world_size × slot)], where a slot is `SLOT` floats and the integer buffers.
    """

    def __init__(self, state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> None:
        self.state, self._allocate = state, allocate
        self._integers = len(state.integers())
        self._slot = SLOT + 3 * self._integers
        self._scratch = self._kept = torch.empty(0, dtype=state.dtype)
        self._make_room(members)
        self._used = self._tried = self._kept_used = 0
        self._checksum = 0
        self._healthy = True
        self._parts: Iterator[int] = iter(())
        self.anchor = self._make_anchor(algorithm) if algorithm.keeps_anchor else None
        self.residual: Residual | None = None

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
        """Make room for a view's slots. What was committed before stays for healing."""
        self._make_room(world_size)
        self._used = self.state.numel + world_size * self._slot
        self._checksum = 0

    @property
    def checksum(self) -> int:
        """Of what was committed last in this view; 0 before that."""
        return self._checksum

    def fill(self, mode: Mode, said: Contribution, rank: int) -> Contribution:
        """Write this member's part, as far as it is not left to `reduce`. Non-finite state counts for nothing."""
        flat = self._scratch[: self._used]
        pack = self.state.packing_gradients if mode == "gradients" else self.state.packing
        packing = pack(flat, said.weight)
        self._parts, self._healthy = packing.parts, packing.finite
        if not packing.finite:
            said = replace(said, weight=0.0, flags=said.flags | Flags.NONFINITE)
        self._write_slot(flat, said, rank)
        return said

    def _write_slot(self, flat: torch.Tensor, said: Contribution, rank: int) -> None:
        slots = flat[self.state.numel :].view(-1, self._slot)  # (world_size, slot)
        slots.zero_()
        content = [*encode(said), *digits(self.state.integers())]
        slots[rank] = torch.tensor(content, dtype=flat.dtype)

    @property
    def left_out(self) -> float:
        """The norm of what this member's messages left out so far, as far as rounds are committed."""
        return 0.0 if self.residual is None else self.residual.norm

    def reduce(self, transport: Transport, mode: Mode, round: int, says_all: SaysAll) -> Control:  # noqa: ARG002
        """Sum over all members; every one has the same result. `says_all`: nothing may be left out in this round."""
        flat, self._tried = self._scratch[: self._used], self._used
        transport.all_reduce(flat, self._parts)
        return self._control(flat)

    def _control(self, flat: torch.Tensor) -> Control:
        slots = flat[self.state.numel :].view(-1, self._slot)[:, :SLOT]
        return Control(tuple(decode(row) for row in slots.tolist()))

    def finite(self) -> bool:
        """Whether the reduced state is. Every addend was bounded so that their sum can't overflow (`is_bounded`);
        a look at every thousandth element guards that reasoning, at no cost."""
        return bool(torch.isfinite(self._scratch[: self.state.numel : 1009].sum()))

    def commit(self, how: Installing, control: Control) -> None:
        """Swap the reduced vector in, and install it."""
        self._scratch, self._kept = self._kept, self._scratch
        self._kept_used = self._tried
        self._install(how, control)
        self._checksum = checksum(self._kept[: self.state.numel])
        if self.anchor is not None and how.mode != "gradients":
            self._checksum ^= checksum(self.anchor.flat)

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
        if self.anchor is not None and how.mode == "gradients":
            self._leave_anchor(self.anchor, how)

    def _install_gradients(self, flat: torch.Tensor, how: Installing, control: Control) -> None:
        self.state.install_gradients(flat, control.weight)
        how.step(control)
        self.state.install_buffers(flat, control.weight)

    def _install_at_anchor(self, anchor: Anchor, flat: torch.Tensor, how: Installing, control: Control) -> None:
        mean = flat[: anchor.numel] / control.weight
        stay = how.mode == how.then == "apart"
        workers, lr = len(control.members), control.members[0].lr
        anchor.commit(mean, workers, lr, stay=stay, healthy=self._healthy, sent=self._sent())
        self.state.install_rest(flat, control.weight)

    def _sent(self) -> torch.Tensor | None:
        """This member's way to the anchor as the others know it, where that is not exactly so."""
        return None

    def _leave_anchor(self, anchor: Anchor, how: Installing) -> None:
        """Members are equal, and move together: the anchor is needed again when they part."""
        anchor.leave()
        if how.then != "gradients":
            anchor.take()

    def _install_integers(self, flat: torch.Tensor) -> None:
        """The maxima of all members' integer buffers; before the rest, which may depend on them."""
        if self._integers:
            slots = flat[self.state.numel :].view(-1, self._slot)[:, SLOT:].tolist()
            values = [from_digits(row) for row in slots]
            self.state.install_integers([max(column) for column in zip(*values, strict=True)])

    def heal(self, transport: Transport, source: int, behind: bool, how: Installing) -> None:
        """Send or take the reduced vector of the newest committed round; who is behind commits it now.

        Who is behind tried that very round, so its vector has the same length.
        """
        flat = self._scratch[: self._tried] if behind else self._kept[: self._kept_used]
        transport.broadcast(flat, source)
        if behind:
            self.commit(how, self._control(flat))
            self._checksum = 0
