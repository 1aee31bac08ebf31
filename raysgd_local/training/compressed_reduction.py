"""The exchange with compressed messages: the control part first, then what each member moved, in fewer bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.compression import Compression
from raysgd_local.algorithms.messages import Residual
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.algorithms.state import ReplicaState
from raysgd_local.control.exchange import Contribution, Control
from raysgd_local.training.compressing import Compressor
from raysgd_local.training.reduction import Allocate, Installing, Reduction, SaysAll
from raysgd_local.transport.base import Transport


def make_reduction(state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> Reduction:
    """The exchange that a method asks for."""
    if algorithm.compression is None:
        return Reduction(state, allocate, members, algorithm)
    return CompressedReduction(state, allocate, members, algorithm, algorithm.compression)


@dataclass
class _Tried:
    """Of the round that is tried: this member's weight, and its share of all members'."""

    weight: float = 0.0
    share: float = 0.0


class CompressedReduction(Reduction):
    """What travels compressed is p·(anchor − x), or p·gradient, with what messages before left out; p sums to 1.

    So the control part has to come first, with the buffers, which travel as they are. The sum of all messages takes
    the place of the parameters in the flat vector, as if they had been reduced: committing and healing don't know of
    compression. In a round in which somebody leaves, or training ends, everybody sends all that is left.
    """

    def __init__(
        self, state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm, compression: Compression
    ) -> None:
        super().__init__(state, allocate, members, algorithm)
        self._coupled = algorithm.averaging.coupling(1) is not None
        memory = compression.memory and not self._coupled
        self.compressor = Compressor(compression, state.parameter_sizes, self._scratch[:0], memory)
        self.residual: Residual = self.compressor.residual
        self._try = _Tried()

    def fill(self, mode: Mode, said: Contribution, rank: int) -> Contribution:
        said = super().fill(mode, said, rank)
        self._try = _Tried(weight=said.weight)
        self.residual.begin()
        return said

    def reduce(self, transport: Transport, mode: Mode, round: int, says_all: SaysAll) -> Control:
        flat, self._tried = self._scratch[: self._used], self._used
        deque(self._parts, maxlen=0)
        parameters, rest = flat[: self.compressor.numel], flat[self.compressor.numel :]
        transport.all_reduce(rest)
        control = self._control(flat)
        if control.weight > 0:
            self._try.share = self._try.weight / control.weight
            self._sum(transport, parameters, mode, control.weight, round, says_all(control))
        return control

    def _sum(
        self, transport: Transport, own: torch.Tensor, mode: Mode, weight: float, round: int, whole: bool
    ) -> None:
        """`own`, weighted parameters or gradients, become the sum over all members."""
        if mode == "gradients":
            own.copy_(self.compressor.sum(transport, own / weight, round, whole=whole)).mul_(weight)
            return
        anchor = self._anchor.flat
        step = anchor * self._try.share - own / weight
        total = self.compressor.sum(transport, step, round, whole=whole)
        torch.sub(anchor, total, out=own).mul_(weight)

    def commit(self, how: Installing, control: Control) -> None:
        super().commit(how, control)
        self.residual.commit()
        if (how.mode == "gradients") != (how.then == "gradients"):
            self.residual.clear()

    def _sent(self) -> torch.Tensor | None:
        exact = not self._coupled or self._try.share == 0
        return None if exact else self.compressor.sent / self._try.share
