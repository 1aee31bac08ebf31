"""A worker in virtual time: the real member, a simulated training loop, and what a process would do between them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from raysgd_local.control import member as machine
from raysgd_local.control import member_events as m
from raysgd_local.control.controller_events import (
    Arrived,
    CheckpointFailed,
    Event,
    Progress,
    ShardWritten,
    UserError,
    WorkerUp,
)
from raysgd_local.control.exchange import Contribution, Control, Flags
from raysgd_local.control.protocol import Order
from raysgd_local.simulation.loop import Asks, Batch, LoopPlan, training_loop
from raysgd_local.simulation.model import Part, Reduced, Shard, fresh, reduce_parts
from raysgd_local.simulation.network import Call, Network
from raysgd_local.simulation.watch import Watch

STATE_BYTES = 1000


class World(Protocol):
    """What a worker needs of the fleet around it."""

    network: Network
    watch: Watch
    now: float

    def after(self, delay_s: float, worker: Worker, action: Any) -> None:
        """Do it in `delay_s` seconds, or later if the worker stands still then; never if it is dead."""
        ...

    def tell(self, worker: str, event: Event) -> None:
        """A word to the controller, after the sender's words before it."""
        ...

    def step_s(self, worker: Worker) -> float: ...

    def io_s(self) -> float: ...

    def load(self, name: str) -> dict[int, Shard]: ...

    def ended(self, worker: Worker, why: str) -> None: ...

    def committed(self, round: int) -> None: ...


class Worker:
    """One process. `alive` and `frozen` are the fleet's to change."""

    def __init__(
        self, name: str, node: str, world: World, plan: LoopPlan, beat_s: float, timeout_s: float
    ) -> None:
        self.name, self.node = name, node
        self._world, self._beat_s, self._timeout_s = world, beat_s, timeout_s
        self.alive, self.frozen, self.slow = True, False, 1.0
        self.deferred: list[Any] = []
        self.member = machine.Member(name)
        self.replica = fresh(name)
        self.spoiled = self.unwritten = False
        self.steps = 0
        self.heard = (0, 0)  # the newest view and segment that it was asked to yield in
        self._loop: Asks = training_loop(plan, self)
        self._events: deque[m.Event] = deque()
        self._inbox: list[m.Event] = []
        self._orders: list[Order] = []
        self._call: Call | None = None
        self._awaits_order = self._proceeding = False
        self._connected: int | None = None
        self._peers: tuple[str, ...] = ()
        self._cuts: set[int] = set()
        self._announced = 0
        self._checksum = 0
        self._sent_bytes = 0
        self._told_at = self._working_since = self._call_began = 0.0

    # From outside.

    def start(self) -> None:
        self._world.tell(self.name, WorkerUp(self.name, self.node, int(self.name[1:])))
        self._beat()
        self._world.after(self._world.io_s(), self, self._go_on)

    def _beat(self) -> None:
        member = self.member
        view = member.order.view.number if member.order else 0
        round = member.replicated.round if member.replicated else 0
        self._world.tell(self.name, Progress(self.name, view, round, self.steps))
        self._world.after(self._beat_s, self, self._beat)

    def post(self, event: m.Event) -> None:
        """It is handled when the loop calls next; a cut breaks what is running at once."""
        if isinstance(event, m.Cut):
            self._cuts.add(event.view)
            if self._connected == event.view:
                self._leave()
        self._inbox.append(event)

    def give(self, order: Order) -> None:
        self._orders.append(order)
        if self._awaits_order:
            self._take_order()

    def raise_error(self, message: str) -> None:
        self._world.tell(self.name, UserError(self.name, message))
        self.end("its loop ended")

    def end(self, why: str) -> None:
        self._leave()
        self._world.ended(self, why)

    # The loop.

    def _go_on(self) -> None:
        """The loop runs until it asks for something."""
        ask = next(self._loop, None)
        if ask is None:
            self.end("its loop ended")
        elif isinstance(ask, Batch):
            delay_s = self._world.step_s(self)
            self._world.after(delay_s, self, lambda: self._computed(ask))
        else:
            self._drive(ask)

    def _computed(self, batch: Batch) -> None:
        self.replica.compute(batch.epoch, batch.positions)
        if self.spoiled:
            self._spoil()
        self.steps += 1
        self._go_on()

    def _spoil(self) -> None:
        """In gradient mode it is the gradient that is not finite, otherwise the model after a step with it."""
        self.spoiled = False
        self.replica.gradient = math.nan

    def _drive(self, event: m.Event) -> None:
        self._proceeding = False
        self._events.extend([*self._posted(), event])
        self._pump()

    def _posted(self) -> list[m.Event]:
        posted, self._inbox = self._inbox, []
        return posted

    def _pump(self) -> None:
        """Feed the member; control goes back to the loop when the member says so and not before."""
        while self._events and self.alive:
            event = self._events.popleft()
            if isinstance(event, m.YieldAsked):
                self.heard = max(self.heard, (event.view, event.segment))
            self.member, commands = machine.advance(self.member, event, self._world.now)
            for command in commands:
                self._run(command)
        if not self.alive or self._call is not None or self._awaits_order:
            return
        if self._proceeding:
            self._go_on()
        else:
            self._await_order()

    def _outcome(self, event: m.Event) -> None:
        self._events.extend([*self._posted(), event])
        self._pump()

    # Commands.

    def _run(self, command: m.Command) -> None:
        match command:
            case m.LocalStep():
                self.replica.local_step()
            case m.Exchange():
                self._exchange(command)
            case m.Commit(_, control):
                self._commit(control)
            case m.Arrive(report):
                if report.broken:
                    self._leave()
                report = replace(report, wire_bytes=self._take_sent())
                self._world.tell(self.name, Arrived(report))
                self._await_order()
            case m.CopyState(save):
                self._save(save.name, save.everyone)
            case m.Proceed():
                self._working_since = self._world.now
                self._proceeding = True
            case m.Exit(why):
                self.end(why)
            case _:
                self._take_part(command)

    def _take_part(self, command: m.Command) -> None:
        match command:
            case m.Connect(view):
                self._leave()
                if view in self._cuts:
                    self._broken("cut before it was formed")
                    return
                self._connected, self._peers = view, self.member.in_force.view.members
                self._checksum = 0
                self._begin(command, "connect", lambda _: None)
            case m.Heal(source):
                self._begin(command, "heal", lambda _: None, self.replica.kept, source)
            case m.Transfer(source):
                self._world.watch.gives(self, source)
                self._begin(command, "transfer", lambda _: None, self.replica.shard(), source)
            case m.Align(source):
                self._begin(command, "align", lambda _: None, self.replica.momentum, source)
            case m.Restore(name):
                self._restore(name)
            case _:
                raise TypeError(f"not a member's command: {command!r}")

    def _begin(
        self, command: m.Command, label: str, combine: Any, given: Any = None, source: int | None = None
    ) -> None:
        """Call a collective; its outcome comes as an event."""
        view = self._connected
        if view is None or view != self.member.in_force.view.number:
            self._broken("the view was left")
            return
        call = self._call = Call(view, 0, label, self, given, source)
        self._command = command
        self._call_began = self._world.now
        self._world.after(self._timeout_s, self, lambda: self._time_out(call))
        self._world.network.call(call, self.member.in_force.view.members, combine)

    def settle(self, call: Call, delay_s: float, failure: str) -> None:
        """Complete or failed in a while; the newest word counts."""
        token = call.token = call.token + 1
        self._world.after(delay_s, self, lambda: self._settled(call, token, failure))

    def _settled(self, call: Call, token: int, failure: str) -> None:
        if call is not self._call or call.token != token:
            return
        call.over, self._call = True, None
        if failure:
            self._leave()
            self._outcome(m.Failed(call.view, failure))
        else:
            self._outcome(self._completed(call))

    def _time_out(self, call: Call) -> None:
        if call is self._call:
            self.settle(call, 0.0, "timed out")

    def _broken(self, why: str) -> None:
        self._leave()
        self._events.append(m.Failed(self.member.in_force.view.number, why))

    def _completed(self, call: Call) -> m.Event:
        """What completing means for this member's state."""
        command, result = self._command, call.result
        match command:
            case m.Exchange(kind="evaluation"):
                return m.Evaluated(call.view, result)
            case m.Exchange():
                control, reduced = result
                self.replica.tried = reduced
                self._sent_bytes = STATE_BYTES
                return m.Exchanged(
                    call.view, control, self._world.now - self._call_began, math.isfinite(reduced.x_sum)
                )
            case m.Heal(_, behind, _) if behind:
                self.replica.commit(result)
                self._world.watch.committed(self, healed=True)
            case m.Transfer(_, receive) if receive:
                self.replica.load(result)
            case m.Align(_, receive) if receive:
                self.replica.momentum = result
        return m.Done(call.view)

    def _exchange(self, command: m.Exchange) -> None:
        if command.kind == "evaluation":
            self._begin(command, f"evaluation {command.round}", self._evaluate, (self, self.replica.loss()))
            return
        self._world.watch.asking(self, command)
        said = self._measured(command.said)
        part = self.replica.part(command.kind, said.weight)
        if said.weight and not part.finite:
            said = replace(said, weight=0.0, flags=said.flags | Flags.NONFINITE)
        label = f"{command.kind} {command.round}"
        self._begin(command, label, self._reduce, (self, said, part))

    def _evaluate(self, given: Sequence[tuple[Worker, float]]) -> dict[str, float]:
        self._world.watch.exchanging([worker for worker, _ in given], evaluating=True)
        return _metrics([loss for _, loss in given])

    def _reduce(self, given: Sequence[tuple[Worker, Contribution, Part]]) -> tuple[Control, Reduced]:
        self._world.watch.exchanging([worker for worker, _, _ in given])
        control = Control(tuple(said for _, said, _ in given))
        return control, reduce_parts(
            [replace(part, weight=said.weight) for _, said, part in given], control.weight
        )

    def _measured(self, said: Contribution) -> Contribution:
        now = self._world.now
        compute_s, clock_s = now - self._working_since, now - self._told_at
        self._told_at = now
        return replace(
            said,
            loss_sum=self.replica.loss() * said.samples,
            compute_s=compute_s,
            clock_s=clock_s,
            lr=0.05,
            wire_bytes=self._take_sent(),
            checksum=self._checksum,
        )

    def _take_sent(self) -> int:
        sent, self._sent_bytes = self._sent_bytes, 0
        return sent

    def _commit(self, control: Control) -> None:
        if self.replica.tried is None:
            raise RuntimeError("nothing was reduced")
        self.replica.commit(self.replica.tried)
        anchor = self.replica.anchor
        self._checksum = hash((anchor.round, anchor.x, anchor.one)) & (2**48 - 1)
        self._world.watch.committed(self, control=control)
        self._world.committed(anchor.round)
        view = self.member.in_force.view.number
        if self._announced != view:
            self._announced = view
            self._world.tell(self.name, Progress(self.name, view, anchor.round, self.steps))

    def _restore(self, name: str) -> None:
        shards = self._world.load(name)
        own = self.member.rank if len(shards) == len(self.member.in_force.view.members) else 0
        self.replica.load(shards[own])
        self._events.append(m.Done(self.member.in_force.view.number))

    def _save(self, name: str, everyone: bool) -> None:
        rank = self.member.rank
        if rank > 0 and not everyone:
            return
        shard = self.replica.shard()
        self._world.after(self._world.io_s(), self, lambda: self._written(name, rank, shard))

    def _written(self, name: str, rank: int, shard: Shard) -> None:
        if self.unwritten:
            self.unwritten = False
            self._world.tell(self.name, CheckpointFailed(name, "no space left"))
            return
        self._world.watch.wrote(name, rank, shard)
        self._world.tell(self.name, ShardWritten(name, self.name, rank, f"{name}/{rank}", "", 1))

    def _await_order(self) -> None:
        self._awaits_order = True
        if self._orders:
            self._take_order()

    def _take_order(self) -> None:
        self._awaits_order = False
        order = self._orders.pop(0)
        self._told_at += order.paused_s
        self._world.after(0.0, self, lambda: self._outcome(m.Ordered(order)))

    def _leave(self) -> None:
        if self._connected is not None:
            view, self._connected = self._connected, None
            self._world.network.leave(self.name, view, self._peers)


def _metrics(given: Sequence[float]) -> dict[str, float]:
    losses = [loss for loss in given if math.isfinite(loss)]
    loss = math.fsum(losses) / len(losses) if losses else math.nan
    return {"loss": loss, "accuracy": 1.0 / (1.0 + loss)}
