"""A worker in virtual time: the real member, a simulated training loop, and what a process would do between them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.controller.events import (
    Arrived,
    CheckpointFailed,
    Progress,
    ShardWritten,
    UserError,
    WorkerUp,
)
from raysgd_local.control.data.chunk_transfer import Held, gifts
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.member.free_steps import Allowance
from raysgd_local.control.messages import Beat, Order
from raysgd_local.control.replicated.state import commit, extent
from raysgd_local.simulation.engine.connection import Connection
from raysgd_local.simulation.engine.loop import Asks, Batch, training_loop
from raysgd_local.simulation.engine.network import Call
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.world import World
from raysgd_local.simulation.search.invariants import InvariantChecker
from raysgd_local.simulation.search.methods import NumberMember, move
from raysgd_local.simulation.search.model import Part, Reduced, Shard, fresh, reduce_parts
from raysgd_local.simulation.search.probing import NumberProbe, average_trials


class SimulatedWorker:
    """One process. `alive` and `frozen` are the fleet's to change."""

    def __init__(self, name: str, node: str, world: World, watch: InvariantChecker, scenario: Scenario) -> None:
        self.name, self.node = name, node
        self._world, self._watch = world, watch
        self._beat_s, self._state_bytes = scenario.settings.timeouts.beat_s, scenario.state_bytes
        self.alive, self.frozen, self.slow = True, False, 1.0
        self.deferred: list[Any] = []
        self.member = machine.Member(name)
        self.replica = fresh(name)
        self.spoiled = self.unwritten = self.hung = self._stands = False
        self.steps = self.undone = 0
        self.trial = NumberProbe(self.replica)
        self.held = Held()
        self.heard = (0, 0)  # the newest view and segment that it was asked to yield in
        self._loop: Asks = training_loop(scenario.loop, self)
        self._allowance = Allowance()
        self._events: deque[m.Event] = deque()
        self._inbox: list[m.Event] = []
        self._orders: list[Order] = []
        self._awaits_order = self._proceeding = False
        self._announced = 0
        self._checksum = 0
        self._sent_bytes = 0
        self._told_at = self._working_since = self._worked_s = self._call_began = 0.0
        self._command: m.Command = m.Proceed()
        self._method = scenario.method
        self._flies = self._collects = False
        self._landed: tuple[Call | None, str] | None = None
        self._tried_rank = 0
        self.connection = Connection(
            name, world.network, self._later, scenario.collective_timeout_s, self._settled
        )

    # From outside.

    def start(self) -> None:
        self._world.tell(self.name, WorkerUp(self.name, self.node, int(self.name[1:])))
        self._beat()
        self._world.after(self._world.io_s(), self, self._go_on)

    def _beat(self) -> None:
        order, waits = self.member.order, self._waits
        waits_s = self._world.now - self._call_began if waits else 0.0
        self._world.beat(Beat(self.name, order.view.number if order else 0, self.member.round_s, waits_s))
        self._world.after(self._beat_s, self, self._beat)

    @property
    def _waits(self) -> bool:
        """Whether the loop stands still for others."""
        return self._collects or (self.connection.call is not None and not self._flies)

    def post(self, event: m.Event) -> None:
        """It is handled when the loop calls next; a cut breaks what is running at once."""
        if isinstance(event, m.Cut):
            self.connection.cut(event.view)
        self._inbox.append(event)

    def give(self, order: Order) -> None:
        self._orders.append(order)
        if self._awaits_order:
            self._take_order()

    def wake(self) -> None:
        """The loop goes on, if it stood."""
        self.hung, stood, self._stands = False, self._stands, False
        if stood:
            self._go_on()

    def raise_error(self, message: str) -> None:
        self._world.tell(self.name, UserError(self.name, message))
        self.end("its loop ended")

    def end(self, why: str) -> None:
        self.connection.leave()
        self._world.ended(self, why)

    def die(self) -> None:
        self.connection.leave()

    # The loop.

    def _go_on(self) -> None:
        """The loop runs until it asks for something; one that hangs never does."""
        if self.hung:
            self._stands = True
            return
        ask = next(self._loop, None)
        if ask is None:
            self.end("its loop ended")
        elif isinstance(ask, Batch):
            delay_s = self._world.step_s(self)
            self._world.after(delay_s, self, lambda: self._computed(ask))
        elif isinstance(ask, m.StepDue) and self._allowance.free and not self._inbox:
            self._allowance.take(ask.samples, ask.consumed)
            self.replica.local_step()
            self._working_since = self._world.now
            self._go_on()
        else:
            self._drive(ask)

    def _computed(self, batch: Batch) -> None:
        self._worked_s += self._world.now - self._working_since
        self.replica.compute(batch.epoch, batch.positions)
        if self.spoiled:  # what comes of it is not finite: the gradient that is sent, or the model after a step
            self.spoiled, self.replica.gradient = False, math.nan
        self.steps += 1
        self._go_on()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._world.after(delay_s, self, action)

    def _drive(self, event: m.Event) -> None:
        self._proceeding = False
        self._events.extend([*self._allowance.ended(), *self._posted(), event])
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
            self.member, commands = machine.advance(self.member, event)
            for command in commands:
                self._run(command)
        if not self.alive or self._waits or self._awaits_order:
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
            case m.Mark() | m.Look() | m.ShowMean() | m.Undo():
                self.trial.obey(command)
                self.undone += isinstance(command, m.Undo)
            case m.AverageProbe():
                part = self.replica.part("parameters", command.said.weight)
                self._begin(command, f"probe {command.round}", average_trials, (command.said, part))
            case m.Evaluate(_, round):
                self._begin(command, f"evaluation {round}", self._evaluate, (self, self.replica.loss()))
            case m.Launch(exchange):
                self._flies, self._landed = True, None
                self._exchange(exchange)
                self.replica.launch()
            case m.Collect():
                self._collect()
            case m.Exchange():
                self._exchange(command)
            case m.Commit(_, control, then):
                self._commit(control, then)
            case m.Arrive(report):
                if report.broken:
                    self._flies = self._collects = False
                    self.replica.land()
                    self.connection.drop()
                report = replace(report, wire_bytes=self._take_sent(), chunks=self.held.chunks)
                self._world.tell(self.name, Arrived(report))
                self._await_order()
            case m.CopyState(save):
                self._save(save.name, save.everyone)
            case m.Proceed(free):
                self._allowance.grant(free)
                self._working_since = self._world.now
                self._proceeding = True
            case m.Exit(why):
                self.end(why)
            case _:
                self._take_part(command)

    def _take_part(self, command: m.Command) -> None:
        match command:
            case m.Connect(view):
                self._checksum = 0
                self.connection.join(view, self.member.in_force.view.members)
                self._begin(command, "connect", lambda _: None)
            case m.Heal(source):
                self._begin(command, "heal", lambda _: None, self.replica.kept, source)
            case m.Transfer(source):
                self._watch.gives(self, source)
                self._begin(command, "transfer", lambda _: None, self.replica.shard(), source)
            case m.Align(source):
                self._begin(command, "align", lambda _: None, self.replica.momentum, source)
            case m.Restore(name):
                self._restore(name)
            case m.Fetch() if given := gifts(self.member.in_force):
                self._watch.hands_over(self, given)
                self._begin(command, "fetch", lambda _: None)
            case m.Fetch():
                self._events.append(self._fetched())
            case _:
                raise TypeError(f"not a member's command: {command!r}")

    def _begin(
        self, command: m.Command, label: str, combine: Any, given: Any = None, source: int | None = None
    ) -> None:
        """Call a collective; its outcome comes as an event."""
        self._command, self._call_began = command, self._world.now
        if not self.connection.begin(label, combine, given, source, self._state_bytes):
            self._broken("the view was left")

    def _collect(self) -> None:
        """What was launched is needed now; it may be there already, or never come."""
        self._call_began = self._world.now
        if self._landed is None:
            self._collects = True
            return
        call, failure = self._landed
        self._flies = False
        self._events.append(self._ended(call, failure))

    def _ended(self, call: Call | None, failure: str) -> m.Event:
        if call is None or failure:
            return m.Failed(self.member.in_force.view.number if call is None else call.view, failure)
        return self._completed(call)

    def _settled(self, call: Call, failure: str) -> None:
        if self._flies and not self._collects:
            self._landed = call, failure
            return
        self._flies = self._collects = False
        self._outcome(m.Failed(call.view, failure) if failure else self._completed(call))

    def _broken(self, why: str, checkpoint: str = "") -> None:
        self.connection.leave()
        if self._flies:
            self._landed = None, why
            return
        self._events.append(m.Failed(self.member.in_force.view.number, why, checkpoint))

    def _completed(self, call: Call) -> m.Event:
        """What completing means for this member's state."""
        command, result = self._command, call.result
        match command:
            case m.Evaluate():
                return m.Evaluated(call.view, result)
            case m.AverageProbe():
                control, self.trial.mean = result
                return m.Averaged(call.view, control)
            case m.Exchange():
                control, reduced = result
                self.replica.tried = reduced
                self._sent_bytes = self._state_bytes
                return m.Exchanged(call.view, control, self._world.now - self._call_began, reduced.finite)
            case m.Heal(_, behind, _, then) if behind:
                self.replica.flown, self.replica.taken = None, []
                self.undone += 1  # what came after the round that it missed is taken again
                self.replica.commit(result, self._tried_rank, then)
                self._watch.committed(self, healed=True)
            case m.Transfer(_, receive) if receive:
                self.replica.load(result)
            case m.Align(_, receive) if receive:
                self.replica.momentum = result
            case m.Fetch():
                return self._fetched()
        return m.Done(call.view)

    def _fetched(self) -> m.Event:
        order = self.member.in_force
        self.held = self.held.after(order, self.member.rank)
        return m.Done(order.view.number)

    def _exchange(self, command: m.Exchange) -> None:
        self._watch.asking(self, command)
        said, self._tried_rank = self._measured(command.said), self.member.rank
        part = self.replica.part(self.member.known.period.mode, said.weight)
        if said.weight and not part.finite:
            said = replace(said, weight=0.0, flags=said.flags | Flags.NONFINITE)
        label = f"{command.mode} {command.round}"
        self._begin(command, label, self._reduce, (self, said, part))

    def _evaluate(self, given: Sequence[tuple[SimulatedWorker, float]]) -> dict[str, float]:
        self._watch.exchanging([worker for worker, _ in given], evaluating=True)
        return _metrics([loss for _, loss in given])

    def _reduce(self, given: Sequence[tuple[SimulatedWorker, Contribution, Part]]) -> tuple[Control, Reduced]:
        self._watch.exchanging([worker for worker, _, _ in given])
        control = Control(tuple(said for _, said, _ in given))
        reduced = reduce_parts([replace(part, weight=said.weight) for _, said, part in given], control.weight)
        if reduced.mode == "gradients":
            return control, reduced
        member, anchor = self.member, self.replica.anchor
        state, program = member.known, member.in_force.program
        members = [
            NumberMember(part.x, part.start, part.residual, said.weight, said.samples, ill=ill)
            for (_, said, part), ill in zip(given, control.sick, strict=True)
        ]
        reach = extent(state, control, program)
        stays = self._stays(control)
        rejoins = state.period.mode == "apart" and not stays
        moved = move(self._method, anchor.x, anchor.velocity, members, reach, state.round + 1, stays, rejoins)
        return control, replace(reduced, moved=moved)

    def _stays(self, control: Control) -> bool:
        """Whether members stay apart after this round, of which they only learn the mean."""
        state, program = self.member.known, self.member.in_force.program
        return state.period.mode == "apart" == commit(state, control, program).period.mode

    def _measured(self, said: Contribution) -> Contribution:
        now = self._world.now
        compute_s, clock_s = self._worked_s, now - self._told_at
        self._told_at, self._worked_s = now, 0.0
        return replace(
            said,
            weight=self._method.weights.weight(said.samples, float(said.steps)),
            flags=said.flags | self._diverged(),
            loss_sum=self.replica.loss() * said.samples,
            compute_s=compute_s,
            clock_s=clock_s,
            lr=0.05,
            lr_settled=0.05,
            wire_bytes=self._take_sent(),
            checksum=self._checksum,
            held_out=self.trial.told(said.held_out),
        )

    def _diverged(self) -> Flags:
        delta = self.member.known.period.delta
        far = delta is not None and (self.replica.x - self.replica.anchor.x) ** 2 > delta
        return Flags.DIVERGED if far else Flags.NONE

    def _take_sent(self) -> int:
        sent, self._sent_bytes = self._sent_bytes, 0
        return sent

    def _commit(self, control: Control, then: Mode) -> None:
        if self.replica.tried is None:
            raise RuntimeError("nothing was reduced")
        self.replica.commit(self.replica.tried, self._tried_rank, then)
        anchor = self.replica.anchor
        self._checksum = hash((anchor.round, anchor.x, anchor.one, anchor.velocity)) & (2**48 - 1)
        self._watch.committed(self, control=control)
        self._world.committed(anchor.round)
        view = self.member.in_force.view.number
        if self._announced != view:
            self._announced = view
            self._world.tell(self.name, Progress(self.name, view, anchor.round, self.steps))

    def _restore(self, name: str) -> None:
        if name in self._world.damaged:
            self._broken("damaged", checkpoint=name)
            return
        shards = self._watch.published[name]
        own = self.member.rank in shards and len(shards) == len(self.member.in_force.view.members)
        self.replica.load(shards[self.member.rank if own else 0], own)
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
        self._watch.wrote(name, rank, shard)
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


def _metrics(given: Sequence[float]) -> dict[str, float]:
    losses = [loss for loss in given if math.isfinite(loss)]
    loss = math.fsum(losses) / len(losses) if losses else math.nan
    return {"loss": loss, "accuracy": 1.0 / (1.0 + loss)}
