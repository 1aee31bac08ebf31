"""The exchange with compressed messages: first the control part, then the compressed steps."""

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
"""Returns the sum of all members' vectors, after compression."""


@dataclass
class _Tried:
    """This member's part of the round being reduced."""

    weight: float = 0.0
    share: float = 0.0  # `weight` divided by the sum of all members' weights


class CompressedReduction(Reduction):
    """Members send p·(anchor − x), or p·gradient, plus their residual, compressed. The shares p sum to 1.

    The shares need all weights, so the control part is reduced first, with the buffers, which are not compressed. The
    sum of all messages replaces the parameters in the flat vector, as if they had been reduced, so commit and healing
    don't depend on compression. In a round in which a member leaves, or training ends, all members send uncompressed
    messages, and their residuals become zero.
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
        """Write this member's part of the flat vector. State that is not finite gets the weight 0."""
        self._check()
        flat, self._tried = self._scratch[: self._used], self._used
        self._healthy = self._packing(flat, mode, said).complete()
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
        """Replace `own` (weighted parameters or gradients, (d,)) with the sum over all members, in place."""
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
