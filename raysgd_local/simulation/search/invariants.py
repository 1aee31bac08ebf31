"""Check the invariants: compare all workers, the controller's books and the tables after every event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from raysgd_local.algorithms.placement.table import chunk_bounds
from raysgd_local.control.control_slots import Control, Flags
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.controller.events import RecordEvent, RecordRounds
from raysgd_local.control.controller.state import Controller
from raysgd_local.control.controller.transitions import Phase, Standing
from raysgd_local.control.data.chunk_transfer import Gift, Held
from raysgd_local.control.data.deal import Deal, lists, uncovered, unpack
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.member.events import Exchange
from raysgd_local.control.member.state import Member
from raysgd_local.control.messages import Continuation, Order
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.control.run_events import EventName
from raysgd_local.records import EvalRow
from raysgd_local.simulation.engine.streams import StreamPlan
from raysgd_local.simulation.engine.violation import violated
from raysgd_local.simulation.engine.world import FleetObserver
from raysgd_local.simulation.search.model import NumberAnchor, NumberReplica, Shard
from raysgd_local.simulation.search.stream_invariants import check_stream


class WatchedWorker(Protocol):
    """A worker's state, to be compared with other workers'."""

    @property
    def name(self) -> str: ...

    @property
    def node(self) -> str: ...

    @property
    def member(self) -> Member: ...

    @property
    def replica(self) -> NumberReplica: ...

    @property
    def held(self) -> Held: ...

    @property
    def heard(self) -> tuple[int, int]:
        """The newest view and segment that it was asked to end."""
        ...


class InvariantChecker(FleetObserver):
    """Collects committed and resolved states. Every method raises `Violated` if an invariant does not hold."""

    def __init__(self, stream: StreamPlan | None = None) -> None:
        self._stream = stream
        self.rounds: list[RoundRow] = []
        self.evaluations: list[EvalRow] = []
        self.events: list[tuple[float, RecordEvent]] = []
        self.resolved: dict[int, NumberAnchor] = {}
        self.shards: dict[str, dict[int, Shard]] = {}
        self.published: dict[str, dict[int, Shard]] = {}
        self._committed: dict[tuple[int, int, int], tuple[NumberAnchor, Replicated | None]] = {}
        self._newest_view = 0
        self._generation = 0
        self._yielded = (0, 0)
        self._restored_deal = 0
        self._deal: Deal | None = None
        self._leaving: tuple[str, ...] = ()  # workers that were to leave when `_deal` was made

    # Members.

    def exchanging(self, workers: Sequence[WatchedWorker], evaluating: bool = False) -> None:
        """Check all members before a reduction: they have the same state, and it agrees with the resolved one."""
        first = workers[0]
        anchor, state = first.replica.anchor, first.member.known
        for worker in workers:
            member = worker.member
            if member.known != state or member.in_force != first.member.in_force:
                violated("1: replicated state is equal", f"{first.name} and {worker.name} at {state.progress}")
            if worker.replica.anchor != anchor:
                violated(
                    "1: replicas are equal", f"{first.name}: {anchor}, {worker.name}: {worker.replica.anchor}"
                )
            if state.period.mode == "gradients" and not _same(worker.replica.momentum, first.replica.momentum):
                violated("1: in gradient mode local state is equal", f"{first.name} and {worker.name}")
            if state.period.mode == "gradients" and not _same(worker.replica.x, anchor.x):
                violated("1: what was tried is undone", f"{worker.name}: {worker.replica.x}, {anchor}")
            if evaluating and not worker.replica.apart and not _same(worker.replica.x, anchor.x):
                violated("what is evaluated is the averaged model", worker.name)
        if evaluating and not state.settled:
            violated("what is evaluated is the averaged model", f"{state.owed} are not in it")
        if anchor.round != state.round:
            violated("5: no worker without state gives any", f"round {state.round} with a model of {anchor.round}")
        present = first.member.order is not None and first.member.order.view.number >= self._newest_view
        if (
            present and self.resolved.get(anchor.round, anchor) != anchor
        ):  # a zombie may hold a beginning that was lost
            violated("2: what is resolved stays", f"round {anchor.round} was another one")

    def showing(self, models: Sequence[float]) -> None:
        """Check the models that members show in an evaluation in the midst of a round."""
        if not all(_same(x, models[0]) for x in models):
            violated("1: what is evaluated is the same on all", str(models))

    def asking(self, worker: WatchedWorker, command: Exchange) -> None:
        """Check a member that begins an exchange: its slot has its samples and every request for a boundary."""
        order, said = worker.member.in_force, command.said
        counts = isinstance(order.deal, Deal)  # samples; of a stream, rows
        if counts and worker.member.known.lengths is not None and said.samples != said.consumed:
            violated("who says samples took them", f"{worker.name}: {said.samples}, of the deal {said.consumed}")
        if worker.heard == order.number and not said.flags & Flags.YIELD:
            violated("a yield is passed on", f"{worker.name} in {order.number}")
        if order.number == self._yielded:
            violated("after a yield comes a boundary", f"{worker.name} in {order.number}")

    def committed(self, worker: WatchedWorker, control: Control | None = None, healed: bool = False) -> None:
        """Check a member that committed a round, by itself or because it was healed."""
        anchor, view = worker.replica.anchor, worker.member.in_force.view.number
        if not math.isclose(anchor.one, 1.0, abs_tol=1e-9):
            violated("weights sum to one", f"{anchor.one} after round {anchor.round} on {worker.name}")
        if any(times and max(times) > 1 for _, times in anchor.consumed):
            violated("4: no sample twice", f"round {anchor.round} on {worker.name}")
        if control is not None and control.weight > control.samples:
            violated("weights are samples", f"{control.weight} of {control.samples}")
        if control is not None and control.flags & (Flags.YIELD | Flags.LEAVING):
            self._yielded = worker.member.in_force.number
        key = (self._generation, view - healed, anchor.round)
        before = self._committed.setdefault(key, (anchor, None))[0]
        if before != anchor:
            violated("1: a round is the same on all", f"round {anchor.round} of view {view} on {worker.name}")

    def gives(self, worker: WatchedWorker, source: int) -> None:
        """Check the source of a transfer of state: it must have the resolved state."""
        order = worker.member.in_force
        if order.view.members[source] != worker.name or not order.replicated.round:
            return
        if worker.member.replicated is None or worker.replica.anchor.round != worker.member.known.round:
            violated("5: no worker without committed state gives state", worker.name)
        if not worker.member.known.settled:
            violated("5: what is given is what was committed", f"{worker.member.known.owed} are not in it")
        if not worker.replica.apart and not _same(worker.replica.x, worker.replica.anchor.x):
            violated("5: what is given is what was committed", worker.name)

    def wrote(self, name: str, rank: int, shard: Shard) -> None:
        self.shards.setdefault(name, {})[rank] = shard

    # The controller.

    def recorded(self, command: RecordRounds) -> None:
        for row in command.rounds:
            last = self.rounds[-1].round if self.rounds else 0
            if row.round != last + 1:
                violated("2: rounds are numbered 1, 2, 3", f"{row.round} after {last}")
            self.rounds.append(row)
        self.evaluations += command.evaluations

    def event(self, command: RecordEvent, now: float) -> None:
        self.events.append((now, command))

    def deleted(self, checkpoint: str) -> None:
        self.published.pop(checkpoint, None)

    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:  # noqa: ARG002
        self.rounds = [row for row in self.rounds if row.round <= round]
        self.evaluations = self.evaluations[:evaluations]
        self.resolved = {at: anchor for at, anchor in self.resolved.items() if at <= round}

    def restarted(self, begun: Controller, now: float) -> None:  # noqa: ARG002
        """Follow a new driver. Without a checkpoint it begins from nothing."""
        self.shards.clear()
        self._generation += 1
        self._yielded = (0, 0)
        self._newest_view = 0
        if not self.published:
            self.rewound(-1, 0, begun.incarnation)

    def ordered(self, controller: Controller, order: Order, workers: dict[str, WatchedWorker]) -> None:
        """Check an order: it agrees with the books, and its state is resolved."""
        books = controller.books
        if books is None:
            violated("an order rests on books", str(order.view))
        if order.replicated != books.replicated or order.deal != books.deal:
            violated("an order says what the books say", str(order.view))
        if order.measure:
            return
        self._view(order, books, workers)
        self._totals(books)
        if order.replicated.diverged:
            return  # the last round is not in any model
        anchor = self._anchor(order, workers)
        if anchor is not None and anchor.round:
            if self.resolved.setdefault(anchor.round, anchor) != anchor:
                violated("2: what is resolved stays", f"round {anchor.round}")
            self._ledger(books, anchor)
        self._placed(controller, books, order, workers)

    def _view(self, order: Order, books: Books, workers: dict[str, WatchedWorker]) -> None:
        if order.view.number < self._newest_view:
            violated("view numbers rise", f"{order.view.number} after {self._newest_view}")
        self._newest_view = order.view.number
        if len(set(order.view.members)) != len(order.view.members) or not order.view.members:
            violated("a view's members are distinct", str(order.view))
        if len(books.replicated.cursors) != len(order.view.members):
            violated("the state is seated for the view", str(order.view))
        keeps = isinstance(order.start, Continuation) and not order.start.receivers and not order.finish
        if keeps and any(workers[w].member.replicated is None for w in order.view.members if w in workers):
            violated("whoever has no state gets it", str(order.view))

    def _anchor(self, order: Order, workers: dict[str, WatchedWorker]) -> NumberAnchor | None:
        if order.restore:
            return self.published[order.restore][0].anchor
        for name in order.view.members:
            worker = workers.get(name)
            if worker is None or worker.member.replicated is None:
                continue
            if worker.member.known.round == order.replicated.round:
                return worker.replica.anchor
        return None

    def _totals(self, books: Books) -> None:
        state, rows = books.replicated, self.rounds
        sums = tuple(sum(getattr(row, name) for row in rows) for name in ("steps", "samples", "wire_bytes"))
        if (len(rows), *sums) != (state.round, state.steps, state.samples, state.wire_bytes):
            totals = (state.round, state.steps, state.samples, state.wire_bytes)
            violated(
                "totals are sums of rows", f"rounds, steps, samples, bytes: {totals}, rows: {len(rows), *sums}"
            )
        if len(self.evaluations) != state.evaluations:
            violated("every evaluation has a row", f"{state.evaluations} and {len(self.evaluations)} rows")

    def _ledger(self, books: Books, anchor: NumberAnchor) -> None:
        """Check that the consumed samples in the books are those in the model."""
        ledger, state = books.ledger, books.replicated
        if ledger.samples_repeated:
            violated("4: no sample twice", f"{ledger.samples_repeated} by the ledger")
        if isinstance(ledger, StreamLedger) and self._stream is not None:
            check_stream(ledger, books, anchor, self._stream)
            return
        if not isinstance(ledger, Ledger) or isinstance(books.deal, StreamDeal) or ledger.epoch is None:
            return
        entered = ledger.close(books.deal, state.cursors) if books.deal else ledger
        for epoch, bitmap in enumerate((entered.consumed, *entered.ahead, b""), start=ledger.epoch):
            times = np.frombuffer(anchor.times(epoch), dtype=np.uint8)
            inside, told = np.zeros((2, ledger.samples), dtype=bool)
            inside[: len(times)] = times > 0
            told |= unpack(bitmap, ledger.samples) if bitmap else False
            if (inside != told).any():
                differ = np.flatnonzero(inside != told).tolist()
                violated("4: the ledger knows what is in the model", f"epoch {epoch}, samples {differ}")
        if books.deal is not None and books.deal.epoch == ledger.epoch:
            first = [entries[entries < ledger.samples] for entries in lists(books.deal)]
            dealt = np.concatenate([unpack(books.deal.consumed, ledger.samples).nonzero()[0], *first])
            bounds = chunk_bounds(ledger.samples, books.deal.chunks)
            nobody = [p for chunk in uncovered(books.deal) for p in range(bounds[chunk], bounds[chunk + 1])]
            if not set(range(ledger.samples)) - set(nobody) <= set(dealt.tolist()) or len(set(dealt)) < len(dealt):
                violated("4: every sample is dealt once", f"deal {books.deal.number}")

    def _placed(
        self, controller: Controller, books: Books, order: Order, workers: dict[str, WatchedWorker]
    ) -> None:
        """Check invariant 3, if data is dealt for this view."""
        placement, restricted = books.placement, controller.settings.local_data
        if isinstance(books.deal, StreamDeal):
            return
        if order.restore and books.deal is not None:
            self._restored_deal = books.deal.number
        if placement is None or books.deal is None or books.deal.number == self._restored_deal:
            return  # a resumed deal goes on whatever nodes its new workers are on
        members = order.view.members
        nodes = {name: workers[name].node for name in members if name in workers}
        if len(nodes) < len(members):
            return
        if books.deal != self._deal:  # workers that decide to leave later count at the next deal
            self._deal, self._leaving = books.deal, controller.standing(Standing.LEAVING) if restricted else ()
        members = tuple(name for name in members if name not in self._leaving) or members
        nodes = {name: nodes[name] for name in members}
        copies = controller.settings.placement.copies_among(len(members))
        wanted, apart = copies, min(copies, len(set(nodes.values())))
        for chunk, holders in enumerate(placement.holders):
            if restricted and not holders:
                if any(chunk in workers[name].held.chunks for name in order.view.members):
                    violated("3: what somebody has is held", f"chunk {chunk}")
                continue
            if len(holders) != wanted or not set(holders) <= set(members):
                violated("3: every chunk has its holders", f"chunk {chunk}: {holders} of {members}")
            if len({nodes[name] for name in holders}) < apart:
                violated("3: copies sit on distinct nodes", f"chunk {chunk}: {holders}")
        loads = [placement.loads.get(name, 0) for name in members]
        if (copies == 1 or len(set(nodes.values())) == len(members)) and max(loads) - min(loads) > 1:
            violated("3: loads differ by one at most", str(loads))

    def hands_over(self, worker: WatchedWorker, given: Sequence[Gift]) -> None:
        """Check that a member that is to send a chunk's data has it."""
        for gift in given:
            if gift.source == worker.member.rank and not set(gift.chunks) <= set(worker.held.chunks):
                violated("3: who gives data has it", f"{worker.name}: {gift}, {worker.held}")

    def turned(self, controller: Controller) -> None:
        """Check after each event that the controller asks for as many workers as the run may have."""
        ending = controller.phase is Phase.ENDED or controller.outcome is not None
        if ending or controller.stop or controller.errors:
            return
        waiting = sum(name.startswith("respawn") for name in controller.timers)
        have = controller.staying
        if not have <= controller.settings.wanted <= have + waiting:
            violated("as many workers as the run may have are asked for", f"{have} and {waiting} to come")

    def checkpoint(self, snapshot: CheckpointRecord, manifest: dict[str, Any]) -> None:  # noqa: ARG002 - what it says
        """Check a complete checkpoint: its shards belong together, and to a resolved round."""
        shards = self.shards[snapshot.name]
        if set(shards) < set(range(len(snapshot.writers))):
            violated("a checkpoint is whole", f"{snapshot.name} has parts {sorted(shards)}")
        anchors = [shard.anchor for shard in shards.values()]
        expected = self.resolved.get(snapshot.replicated.round, anchors[0])
        if any(anchor != expected or anchor.round != snapshot.replicated.round for anchor in anchors):
            violated("a checkpoint has resolved state only", snapshot.name)
        if snapshot.replicated.round > len(self.rounds):
            violated("a checkpoint has resolved state only", f"{snapshot.name}: {snapshot.replicated.round}")
        if any(not shard.apart and not _same(shard.x, shard.anchor.x) for shard in shards.values()):
            violated("a checkpoint has resolved state only", f"{snapshot.name} has steps that nobody committed")
        self.published[snapshot.name] = dict(shards)

    def ended(self, controller: Controller, samples: int, early: bool) -> None:
        """Check at the end that each closed epoch's samples are in the model, or counted as lost."""
        books = controller.books
        if books is None or not samples or books.replicated.diverged:
            return
        self._totals(books)
        anchor = self.resolved.get(books.replicated.round)
        if anchor is None:
            return
        closed = [e for e in range(books.replicated.epoch) if e != books.ledger.epoch]
        lost = sum(samples - sum(1 for times in anchor.times(epoch) if times) for epoch in closed)
        unread = isinstance(books.ledger, StreamLedger) and books.ledger.shards_unread > 0
        if lost != books.ledger.samples_lost and not (unread and lost > books.ledger.samples_lost):
            violated("4: what is lost is counted", f"{lost} are lost, the ledger says {books.ledger.samples_lost}")
        told = controller.settings.local_data and EventName.CHUNKS_UNCOVERED in {e.event for _, e in self.events}
        if lost and not early and not told:
            violated("4: nothing is lost", f"{lost} samples")


def _same(a: Any, b: Any) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
