"""The port of a shell in the random search: a replica that is a number, over the simulated network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.controller.events import CheckpointFailed, ShardWritten
from raysgd_local.control.data.chunk_transfer import Held, gifts
from raysgd_local.control.member import events as m
from raysgd_local.control.member.state import Member
from raysgd_local.control.messages import Order, Report, Save
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import CheckpointError
from raysgd_local.simulation.engine.collectives import Collectives
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.strand import Strand
from raysgd_local.simulation.engine.streams import StreamReader
from raysgd_local.simulation.engine.world import Process, World
from raysgd_local.simulation.search.invariants import InvariantChecker, WatchedWorker
from raysgd_local.simulation.search.model import Part, Reduced, Shard, fresh, loss_at
from raysgd_local.simulation.search.probing import NumberProbe, average_trials
from raysgd_local.simulation.search.reducing import reduce_round
from raysgd_local.training.replica_port import ExchangeResult


class WatchedProcess(Process, WatchedWorker, Protocol):
    """A worker's process whose state is compared with other workers'."""

    reader: StreamReader | None  # of the stream, if there is one


class NumberPort:
    """One worker's port. `strand` waits for collectives in virtual time."""

    def __init__(
        self, worker: WatchedProcess, world: World, checker: InvariantChecker, scenario: Scenario, strand: Strand
    ) -> None:
        self._worker, self._world, self._checker = worker, world, checker
        self._method, self._state_bytes = scenario.method, scenario.state_bytes
        self.replica = fresh(worker.name)
        self.held = Held()
        self._probe = NumberProbe(self.replica)
        self._checksum = self._tried_rank = 0
        self._collectives = Collectives(worker.name, world.network, self._later, strand, scenario)
        self.connection = self._collectives.connection

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._world.after(delay_s, self._worker, action)

    # The view.

    def connect(self, command: m.Connect, order: Order) -> None:
        self._checksum = 0
        self.connection.join(command.view, order.view.members)
        self._collectives.call("connect", _nothing)

    def cut(self, view: int) -> None:
        self.connection.cut(view)

    def leave(self) -> None:
        self._collectives.awaited = True
        self.replica.land()
        self.connection.drop()

    # Entering a view.

    def heal(self, command: m.Heal, state: Replicated) -> None:  # noqa: ARG002
        reduced = self._collectives.call("heal", _nothing, self.replica.kept, command.source)
        if command.behind:
            self.replica.flown, self.replica.taken = None, []
            self.replica.commit(reduced, self._tried_rank, command.then)
            self._checker.committed(self._worker, healed=True)

    def transfer(self, command: m.Transfer) -> None:
        self._checker.gives(self._worker, command.source)
        shard = self._collectives.call("transfer", _nothing, self.replica.shard(), command.source)
        if command.receive:
            self.replica.load(shard)

    def align(self, command: m.Align) -> None:
        momentum = self._collectives.call("align", _nothing, self.replica.momentum, command.source)
        if command.receive:
            self.replica.momentum = momentum

    def fetch(self, member: Member) -> None:
        if given := gifts(member.in_force):
            self._checker.hands_over(self._worker, given)
            self._collectives.call("fetch", _nothing)
        self.held = self.held.after(member.in_force, member.rank)

    def restore(self, name: str, member: Member) -> None:
        if name in self._world.damaged:
            raise CheckpointError("damaged")
        shards = self._checker.published[name]
        own = member.rank in shards and len(shards) == len(member.in_force.view.members)
        self.replica.load(shards[member.rank if own else 0], own)

    # Steps, and probes.

    def local_step(self, command: m.LocalStep, state: Replicated) -> None:  # noqa: ARG002
        self.replica.local_step()

    def probe(self, command: m.Mark | m.Look | m.ShowMean | m.Undo) -> None:
        self._probe.obey(command)

    # Rounds.

    def finish_steps(self, said: Contribution, state: Replicated) -> None:
        """Do nothing: steps are computed already."""

    def describe(self, said: Contribution, state: Replicated) -> Contribution:
        return replace(
            said,
            weight=self._method.weights.weight(said.samples, float(said.steps)),
            flags=said.flags | self._diverged(state.period.delta),
            loss_sum=self.replica.loss() * said.samples,
            lr=0.05,
            lr_settled=0.05,
            checksum=self._checksum,
            held_out=self._probe.told(said.held_out),
        )

    def _diverged(self, delta: float | None) -> Flags:
        far = delta is not None and (self.replica.x - self.replica.anchor.x) ** 2 > delta
        return Flags.DIVERGED if far else Flags.NONE

    def exchange(self, command: m.Exchange, said: Contribution, member: Member) -> ExchangeResult:
        self._begin_exchange(command, said, member)
        return self._reduced()

    def launch(self, command: m.Exchange, said: Contribution, member: Member) -> None:
        self._collectives.awaited = False
        self._begin_exchange(command, said, member)
        self.replica.launch()

    def collect(self) -> ExchangeResult:
        self._collectives.awaited = True
        return self._reduced()

    def _begin_exchange(self, command: m.Exchange, said: Contribution, member: Member) -> None:
        self._checker.asking(self._worker, command)
        self._tried_rank = member.rank
        part = self.replica.part(member.known.period.mode, said.weight)
        if said.weight and not part.finite:
            said = replace(said, weight=0.0, flags=said.flags | Flags.NONFINITE)
        given = self._worker, said, part
        self._collectives.begin(f"{command.mode} {command.round}", partial(self._reduce, member), given)

    def _reduced(self) -> ExchangeResult:
        control, self.replica.tried = self._collectives.result()
        return ExchangeResult(control, self._state_bytes)

    def finite(self) -> bool:
        return self.replica.tried is not None and self.replica.tried.finite

    def _reduce(
        self, member: Member, given: Sequence[tuple[WatchedWorker, Contribution, Part]]
    ) -> tuple[Control, Reduced]:
        self._checker.exchanging([worker for worker, _, _ in given])
        return reduce_round(self._method, member, self.replica.anchor, [(said, part) for _, said, part in given])

    def average_probe(self, command: m.AverageProbe) -> ExchangeResult:
        part = self.replica.part("parameters", command.said.weight)
        control, self._probe.mean = self._collectives.call(
            f"probe {command.round}", average_trials, (command.said, part)
        )
        return ExchangeResult(control, 0)

    def commit(self, command: m.Commit, state: Replicated) -> None:  # noqa: ARG002
        if self.replica.tried is None:
            raise RuntimeError("nothing was reduced")
        self.replica.commit(self.replica.tried, self._tried_rank, command.then)
        anchor = self.replica.anchor
        self._checksum = hash((anchor.round, anchor.x, anchor.one, anchor.velocity)) & (2**48 - 1)
        self._checker.committed(self._worker, control=command.control)

    def committed(self, view: int, round: int) -> None:
        self._world.committed(self._worker, view, round)

    def evaluate(
        self,
        command: m.Evaluate,
        state: Replicated,  # noqa: ARG002
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> dict[str, float]:
        shown = self.replica.tried if command.shows else None
        with waiting():
            given = self._worker, self.replica.shown(shown)
            combine = self._evaluate if shown is None else self._evaluate_mean
            metrics: dict[str, float] = self._collectives.call(f"evaluation {command.round}", combine, given)
            return metrics

    def _evaluate(self, given: Sequence[tuple[WatchedWorker, float]]) -> dict[str, float]:
        self._checker.exchanging([worker for worker, _ in given], evaluating=True)
        return _metrics([loss_at(x) for _, x in given])

    def _evaluate_mean(self, given: Sequence[tuple[WatchedWorker, float]]) -> dict[str, float]:
        self._checker.exchanging([worker for worker, _ in given])
        self._checker.showing([x for _, x in given])
        return _metrics([loss_at(x) for _, x in given])

    # Checkpoints and data.

    def save(self, save: Save, rank: int) -> None:
        if rank == 0 or save.everyone:
            shard = self.replica.shard()
            self._later(self._world.io_s(), lambda: self._written(save.name, rank, shard))

    def _written(self, name: str, rank: int, shard: Shard) -> None:
        worker = self._worker
        if worker.unwritten:
            worker.unwritten = False
            self._world.tell(worker.name, CheckpointFailed(name, "no space left"))
            return
        self._checker.wrote(name, rank, shard)
        self._world.tell(worker.name, ShardWritten(name, worker.name, rank, f"{name}/{rank}", "", 1))

    def measure(self, command: m.Measure) -> None:
        if self._worker.reader is not None:
            self._worker.reader.measure(command.shards)

    def with_holdings(self, report: Report) -> Report:
        report, reader = replace(report, chunks=self.held.chunks), self._worker.reader
        if reader is None:
            return report
        shards = None if report.shards is None else reader.shards
        return replace(report, source=reader.source, found=reader.found(), shards=shards)


def _nothing(given: Sequence[Any]) -> None:
    """Combine inputs to nothing, for collectives without a result, and for broadcasts."""


def _metrics(given: Sequence[float]) -> dict[str, float]:
    losses = [loss for loss in given if math.isfinite(loss)]
    loss = math.fsum(losses) / len(losses) if losses else math.nan
    return {"loss": loss, "accuracy": 1.0 / (1.0 + loss)}
