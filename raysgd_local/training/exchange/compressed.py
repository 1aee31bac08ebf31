"""The exchange with compressed messages: the control part first, then what each member moved, in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.compressor import Compressor
from raysgd_local.training.exchange.plain import Allocate, Installing, Reduction, counting_for_nothing
from raysgd_local.transport.contract import Transport

Total = Callable[[torch.Tensor], torch.Tensor]
"""The sum over all members of what each gives, as it arrives."""


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

    def __init__(self, state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> None:
        super().__init__(state, allocate, members, algorithm)
        compression = algorithm.compression
        self._coupled = algorithm.averaging.coupling(1) is not None
        self.compressor: Compressor | None = None
        if compression is not None:
            memory = compression.memory and not self._coupled and not algorithm.averaging.gossips
            self.compressor = Compressor(compression, state.parameter_sizes, self._scratch[:0], memory)
            self.residual = self.compressor.residual
        self._try = _Tried()

    def _fill(self, mode: Mode, said: Contribution, rank: int) -> None:
        """Write all of this member's part. State that is not finite counts for nothing."""
        self._check()
        flat, self._tried = self._scratch[: self._used], self._used
        self._healthy = self._packing(flat, mode, said.weight).complete()
        said = said if self._healthy else counting_for_nothing(said)
        self._write_slot(flat, said, rank)
        self._try = _Tried(weight=said.weight)
        if self.residual is not None:
            self.residual.begin()

    def reduce(
        self,
        transport: Transport,
        mode: Mode,
        round: int,
        said: Contribution,
        extent: Callable[[Control], Extent] | None = None,
    ) -> Control:
        if self.compressor is None:
            return super().reduce(transport, mode, round, said, extent)
        self._fill(mode, said, transport.rank)
        flat = self._scratch[: self._used]
        parameters, rest = flat[: self.compressor.numel], flat[self.compressor.numel :]
        transport.all_reduce(rest)
        control = self._control(flat)
        if control.weight > 0:
            self._try.share = self._try.weight / control.weight
            everything = extent is not None and extent(control).everything

            def total(vector: torch.Tensor, compressor: Compressor = self.compressor) -> torch.Tensor:
                return compressor.sum(transport, vector, round, whole=everything)

            self._sum_compressed(parameters, mode, control.weight, total)
        return control

    def _sum_compressed(self, own: torch.Tensor, mode: Mode, weight: float, total: Total) -> None:
        """`own`, weighted parameters or gradients, become the sum over all members."""
        if mode == "gradients":
            own.copy_(total(own / weight)).mul_(weight)
            return
        anchor = self._anchor.flat
        step = anchor * self._try.share - own / weight
        torch.sub(anchor, total(step), out=own).mul_(weight)

    def commit(self, how: Installing, control: Control) -> None:
        super().commit(how, control)
        if self.residual is None:
            return
        self.residual.commit()
        if (how.mode == "gradients") != (how.then == "gradients"):
            self.residual.clear()

    def _sent(self) -> torch.Tensor | None:
        if self.compressor is None or not self._coupled or self._try.share == 0:
            return None
        return self.compressor.sent / self._try.share
