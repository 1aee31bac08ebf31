"""A member's connection to its peers: the view's transport, the flat vectors, and the exchange in flight."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.member import events as m
from raysgd_local.control.member.state import Member
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated, extent
from raysgd_local.errors import TransportError
from raysgd_local.training.exchange.alike import check_alike
from raysgd_local.training.exchange.background import BackgroundExchange
from raysgd_local.training.exchange.plain import Reduction
from raysgd_local.training.replica_port import ExchangeResult
from raysgd_local.transport.contract import Network, Transport


class Peers:
    """The view's transport and the flat vectors. `courier` runs delayed exchanges.

    Set `reduction` when the loop begins; before that, reading it raises `RuntimeError`.
    """

    def __init__(self, network: Network, courier: Executor | None) -> None:
        self.network = network
        self._courier = BackgroundExchange(courier)
        self._transport: Transport | None = None
        self._reduction: Reduction | None = None
        self.described: dict[str, str] = {}  # by name, the parts of the state that members exchange

    @property
    def reduction(self) -> Reduction:
        if self._reduction is None:
            raise RuntimeError("the loop has not begun")
        return self._reduction

    @reduction.setter
    def reduction(self, reduction: Reduction) -> None:
        self._reduction = reduction

    @property
    def transport(self) -> Transport:
        """The transport of the view. Raises `TransportError` if the view was left."""
        if self._transport is None:
            raise TransportError("the view was left")
        return self._transport

    def connect(self, view: int, rank: int, world_size: int) -> None:
        self._transport = self.network.connect(view, rank, world_size)
        if world_size > 1:
            check_alike(self._transport, self.described)
        self.reduction.seat(world_size)

    def leave(self) -> None:
        """Leave the view, if any. Cut an exchange in flight, and wait for its end."""
        if self._transport is not None:
            if self._courier.flies:
                self._transport.cut()
                self._courier.land()
            self._transport.close()
            self._transport = None
        if self._reduction is not None:
            self._reduction.abandon()

    def exchange(self, command: m.Exchange, said: Contribution, member: Member) -> ExchangeResult:
        transport, reach = self.transport, _reach(member)
        sent = transport.wire_bytes()
        control = self.reduction.reduce(transport, command.mode, command.round, said, reach)
        return ExchangeResult(control, transport.wire_bytes() - sent)

    def launch(self, command: m.Exchange, said: Contribution, member: Member) -> None:
        self._courier.launch(self.reduction, self._transport, command, said, _reach(member))

    def collect(self) -> ExchangeResult:
        return ExchangeResult(*self._courier.collect())

    def average_probe(self, command: m.AverageProbe) -> ExchangeResult:
        transport = self.transport
        sent = transport.wire_bytes()
        control = self.reduction.average(transport, command.round, command.said)
        return ExchangeResult(control, transport.wire_bytes() - sent)

    def close(self) -> None:
        self.leave()
        self._courier.close()


def _reach(member: Member) -> Callable[[Control], Extent]:
    """Return the function that computes the exchange's extent from all slots and the present state."""
    return partial(_extent_of, member.known, member.in_force.program)


def _extent_of(state: Replicated, program: Program, control: Control) -> Extent:
    return extent(state, control, program)
