"""The exchange of methods in which a member averages with some others only: gossip, blocks, partial participation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import mixing
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.block_group import BlockGroup
from raysgd_local.training.exchange.compressed import CompressedReduction
from raysgd_local.training.exchange.plain import Allocate, Installing
from raysgd_local.transport.contract import Transport


class PartialReduction(CompressedReduction):
    """Two-phase: reduce the control part and the buffers over all members, average parameters as the extent says, vote.

    After the vote every member has its inputs and can commit locally. A member that missed only the vote recovers from
    its own buffers, and takes from others only the mean over all members, which is equal everywhere.

    The flat vector's parameters are the mean over all members if the extent is whole, otherwise zeros. `_own` (d,) has
    this member's parameters after gossip or an averaging in blocks.
    """

    def __init__(self, state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> None:
        super().__init__(state, allocate, members, algorithm)
        self._averaging = algorithm.averaging
        numel = sum(state.parameter_sizes)
        self._own, self._start = (torch.zeros(numel, dtype=state.dtype, device=state.device) for _ in range(2))
        self._extent: Extent | None = None
        self._kept_extent: Extent | None = None
        self.rebase()

    def rebase(self) -> None:
        super().rebase()
        self.state.pack_parameters(self._start, 1.0)

    def strays(self, delta: float) -> bool:
        """Whether this member is further from the anchor than the square root of `delta`."""
        self.state.pack_parameters(self._own, 1.0)
        return float(self._own.sub_(self._anchor.flat).square_().sum()) > delta

    def reduce(
        self,
        transport: Transport,
        mode: Mode,
        round: int,
        said: Contribution,
        extent: Callable[[Control], Extent] | None = None,
    ) -> Control:
        self._extent = None
        if mode != "partial" or extent is None:
            return super().reduce(transport, mode, round, said)
        self._fill(mode, said, transport.rank)
        flat = self._scratch[: self._used]
        parameters = flat[: self._own.numel()]
        transport.all_reduce(flat[self._own.numel() :])
        control = self._control(flat)
        self._extent = extent(control)
        self._average(transport, parameters, control, self._extent, round)
        return control

    def _average(
        self, transport: Transport, parameters: torch.Tensor, control: Control, extent: Extent, round: int
    ) -> None:
        parameters.zero_()
        if self._averaging.gossips:
            self._mix(transport, control, round)
        elif not extent.whole:
            self._block_mean(transport, control, extent.blocks)
        if extent.whole:
            self._whole_mean(transport, parameters, extent, round)
        else:
            transport.all_reduce(self._own.new_zeros(1))  # the vote; the mean over all members needs no other

    def _whole_mean(
        self,
        transport: Transport,
        parameters: torch.Tensor,
        extent: Extent,
        round: int,
    ) -> None:
        """Reduce the mean over all members into `parameters` (d,), by compressed messages if the method has them."""
        if self._type.narrow and self.compressor is None:
            self._whole_mean_in_own_type(transport, parameters, extent)
            return
        share = extent.shares[transport.rank]
        if self._averaging.gossips:
            parameters.copy_(self._own).mul_(share)
        elif share:
            self._give(parameters, share)
        if self.compressor is None or self._averaging.gossips:
            transport.all_reduce(parameters)
            return
        anchor = self._anchor.flat
        total = self.compressor.sum(transport, anchor * share - parameters, round, whole=extent.everything)
        torch.sub(anchor, total, out=parameters)

    def _whole_mean_in_own_type(self, transport: Transport, parameters: torch.Tensor, extent: Extent) -> None:
        if self._averaging.gossips:
            parameters.copy_(self._own)
        else:
            self._give(parameters, 1.0)
        self._type.average(transport, parameters, extent.shares, self._anchor.flat)

    def _give(self, parameters: torch.Tensor, share: float) -> None:
        self.state.pack_parameters(parameters, share)

    def _mix(self, transport: Transport, control: Control, round: int) -> None:
        """x_i ← Σ_j W_ij y_j, where y is x with the round's step scaled by m·p_i. Members send y's message."""
        rank, healthy = transport.rank, tuple(not sick for sick in control.sick)
        self._own.zero_()
        if not healthy[rank]:
            self._swap(transport, {})
            return
        self.state.pack_parameters(self._own, 1.0)
        if control.weight > 0:
            self._own.lerp_(self._start, 1 - sum(healthy) * control.members[rank].weight / control.weight)
        row = mixing(self._averaging, rank, round, healthy)
        content = self._encode(self._own, round)
        told = self._swap(transport, {peer: content for peer in row if peer != rank})
        own = self._decode(content, round)
        for peer in sorted(told):
            self._own.add_(self._decode(told[peer], round) - own, alpha=row[peer])

    def _encode(self, vector: torch.Tensor, round: int) -> torch.Tensor:
        """Return the message to neighbours: compressed, or in the parameters' own types."""
        if self.compressor is not None:
            return self.compressor.messages.encode(vector, round)
        return self._type.encode(vector)

    def _decode(self, message: torch.Tensor, round: int) -> torch.Tensor:
        if self.compressor is not None:
            return self.compressor.messages.decode(message, round)
        return self._type.decode(message, self._own)

    def _block_mean(self, transport: Transport, control: Control, blocks: tuple[int, ...]) -> None:
        """Average `_own` within the block: each member sums one shard, and sends the sum to the others."""
        self.state.pack_parameters(self._own, 1.0)
        if len(set(blocks)) == len(blocks):
            return
        block = [peer for peer, number in enumerate(blocks) if number == blocks[transport.rank]]
        weights = [control.members[peer].weight for peer in block]
        total, mean = sum(weights), self._own.clone()
        shares = [weight / total if total else 0.0 for weight in weights]
        self._type.average(BlockGroup(transport, block), mean, shares, None)
        if total:
            self._own.copy_(mean)

    def _swap(self, transport: Transport, given: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        empty = self._own.new_empty(0, dtype=torch.uint8)
        rows = transport.swap([given.get(peer, empty) for peer in range(transport.world_size)])
        return {peer: rows[peer] for peer in given}

    def commit(self, how: Installing, control: Control) -> None:
        self._kept_extent = self._extent
        super().commit(how, control)
        self.state.pack_parameters(self._start, 1.0)

    def _install(self, how: Installing, control: Control) -> None:
        if self._extent is None:
            super()._install(how, control)
            return
        flat = self._kept[: self._kept_used]
        if control.weight > 0:
            self._install_integers(flat)
        self._install_parameters(flat[: self._own.numel()], control, self._extent)
        if control.weight > 0:
            self.state.install_rest(flat, control.weight)

    def _install_parameters(self, mean: torch.Tensor, control: Control, extent: Extent) -> None:
        anchor = self._anchor
        if self._averaging.gossips or not extent.whole:
            self.state.install_parameters(self._own)
            anchor.part()
        if extent.whole and any(extent.shares):
            workers, lr = len(control.members), control.members[0].lr
            anchor.commit(mean, workers, lr, stay=self._averaging.gossips, healthy=self._healthy)

    def heal(self, transport: Transport, source: int, behind: bool, how: Installing) -> Control | None:
        """Send or take the mean over all members. A member behind missed the vote at most, so it has all the rest."""
        extent = self._extent if behind else self._kept_extent
        if extent is None:
            return super().heal(transport, source, behind, how)
        flat = self._scratch[: self._tried] if behind else self._kept[: self._kept_used]
        if extent.whole:
            transport.broadcast(flat[: self._own.numel()], source)
        return self._commit_missed(flat, how) if behind else None
