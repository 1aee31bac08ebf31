"""The delayed exchange: members send a copy of their state, and training goes on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.state.packing import Packing
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.compressed import CompressedReduction
from raysgd_local.training.exchange.partial import PartialReduction
from raysgd_local.training.exchange.plain import Allocate, Installing
from raysgd_local.transport.contract import Transport


@dataclass
class _Launched:
    """The copy of this member's state at the launch."""

    packed: torch.Tensor  # state times weight, (numel,)
    start: torch.Tensor  # parameters, (d,)
    integers: list[int] = field(default_factory=list)  # integer buffers
    travels: bool = False  # the exchange is in flight


class DelayedReduction(CompressedReduction):
    """`launch` copies the state and returns the rest of the exchange, which another thread may run while the training
    thread changes the model. The commit sets parameters to x ← A + (x − x^t), where A is the mean, x^t are the
    parameters at the launch, and x those at the commit.

    Other averaged state (buffers, averaged optimizer state) becomes the mean, without the changes since the launch.
    """

    def __init__(self, state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> None:
        super().__init__(state, allocate, members, algorithm)
        d = sum(state.parameter_sizes)
        packed, start = (torch.zeros(n, dtype=state.dtype, device=state.device) for n in (state.numel, d))
        self._launched = _Launched(packed, start)

    def launch(
        self,
        transport: Transport,
        mode: Mode,
        round: int,
        said: Contribution,
        extent: Callable[[Control], Extent],
    ) -> Callable[[], Control]:
        """Copy the present state, and return a function that reduces the copy."""
        super()._check()
        deque(super()._packing(self._launched.packed, mode, said).parts(), maxlen=0)
        self.state.pack_parameters(self._launched.start, 1.0)
        self._launched.integers = self.state.integers()
        self._launched.travels = True
        return lambda: self.reduce(transport, mode, round, said, extent)

    def abandon(self) -> None:
        """Forget the launched copy, because its exchange is lost."""
        self._launched.travels = False

    def _packing(self, flat: torch.Tensor, mode: Mode, said: Contribution) -> Packing:
        if not self._launched.travels or not said.weight:
            return super()._packing(flat, mode, said)
        own, ends = flat[: self.state.numel], self.state.ends
        blocks = list(zip([0, *ends], ends, strict=False))

        def write(number: int) -> None:
            block = slice(*blocks[number])
            own[block] = self._launched.packed[block]

        return Packing(own, ends, write)

    def _check(self) -> None:
        if not self._launched.travels:  # else it was checked at the launch, in the training thread
            super()._check()

    def _own_integers(self) -> list[int]:
        return self._launched.integers if self._launched.travels else super()._own_integers()

    def _arrives(self, control: Control) -> bool:
        """Whether this round changes the parameters. It does not if no member took a step."""
        return control.weight > 0

    @torch.no_grad()
    def commit(self, how: Installing, control: Control) -> None:
        launched, since = self._launched, None
        if launched.travels and self._healthy and self._arrives(control):
            since = torch.empty_like(launched.start)
            self.state.pack_parameters(since, 1.0)
            since.sub_(launched.start)
        launched.travels = False
        super().commit(how, control)
        if since is not None:
            self.state.pack_parameters(launched.start, 1.0)
            self.state.install_parameters(launched.start.add_(since))

    def heal(self, transport: Transport, source: int, behind: bool, how: Installing) -> Control | None:
        """Heal without this member's steps since the launch: their samples are dealt again."""
        self.abandon()
        return super().heal(transport, source, behind, how)


class DelayedPartialReduction(DelayedReduction, PartialReduction):
    """Averaging in blocks, where the averaging over all blocks is delayed."""

    def _give(self, parameters: torch.Tensor, share: float) -> None:
        if self._launched.travels:
            torch.mul(self._launched.start, share, out=parameters)
        else:
            super()._give(parameters, share)

    def _arrives(self, control: Control) -> bool:
        extent = self._extent
        return super()._arrives(control) if extent is None else any(extent.shares)
