"""The driver actor: the controller's shell. It turns Ray's world into events and commands into calls."""

from __future__ import annotations

import heapq
import json
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.checkpoints import CheckpointRecord, snapshot_of
from raysgd_local.control.controller.heartbeats import Pulse
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.data.deal import lists
from raysgd_local.control.messages import Beat, Order
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.run_files import journal
from raysgd_local.run_files.result import Names, result
from raysgd_local.run_files.storage import MANIFEST, Storage
from raysgd_local.run_files.writer import RESULT, RunFiles
from raysgd_local.runtime import nodes
from raysgd_local.runtime.fault_effects import damage_newest
from raysgd_local.runtime.fault_injection import Injector
from raysgd_local.runtime.worker_group import Resources, WorkerGroup
from raysgd_local.runtime.worker_spec import WorkerSpec
from raysgd_local.training.ports import TrainingStatus
from raysgd_local.training.replica import checkpoint_parts

_COPY_OUT_EVERY_S = 10.0


@dataclass(frozen=True)
class Restart:
    """The driver before died, for this reason; `count` did since the command began."""

    count: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """A run as its driver needs to know it.

    `resume` is the checkpoint's manifest to go on from, if any, `damaged` are newer ones that were passed over;
    `chaos` are faults to be made to happen.
    """

    settings: Settings
    spec: WorkerSpec
    resources: Resources
    storage: Storage
    names: Names
    resume: dict[str, Any] | None = None
    damaged: tuple[str, ...] = ()
    restart: Restart | None = None
    chaos: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How the run ended; `refused` is an input error that only a worker could find."""

    finish: c.Finish
    result: dict[str, Any]
    refused: InputError | None = None


@dataclass(frozen=True)
class Glance:
    """The run at this moment, for live progress."""

    phase: str
    workers: int
    status: TrainingStatus | None


class Group(Protocol):
    """The workers, as the driver speaks to them."""

    def request(self, worker: str) -> None: ...

    def kill(self, worker: str) -> None: ...

    def order(self, to: tuple[str, ...], order: Order) -> None: ...

    def yield_(self, to: tuple[str, ...], view: int, segment: int) -> None: ...

    def cut(self, to: tuple[str, ...], view: int, why: str) -> None: ...

    def suffer(self, worker: str, fault: Fault) -> None: ...

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None: ...

    def close(self) -> None: ...


MakeGroup = Callable[[Plan, Callable[[c.Event], None]], Group]


def _ray_group(plan: Plan, post: Callable[[c.Event], None]) -> Group:
    driver = ray.get_runtime_context().current_actor
    return WorkerGroup(driver, plan.spec, plan.resources, plan.settings.workers_max, post)


class Driver:
    """Runs one run. `run` is its main thread; the other methods are words from outside, put in a queue."""

    def __init__(self, plan: Plan, make_group: MakeGroup | None = None) -> None:
        self._plan, self._make_group = plan, make_group or _ray_group
        self._events: queue.SimpleQueue[c.Event] = queue.SimpleQueue()
        self._unwritten: list[tuple[c.Event, float, Sequence[c.Command]]] = []  # of the journal
        self._timers: list[tuple[float, int]] = []
        self._status: TrainingStatus | None = None
        self._refused: InputError | None = None
        self._finish: c.Finish | None = None
        self._injector: Injector | None = None
        self._files = RunFiles(plan.storage, time.time)
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._lives = 1 + (plan.restart.count if plan.restart is not None else 0)
        self._controller = begin(plan.settings, self._resumed(), incarnation=self._lives)
        self._pulse = Pulse(plan.settings.timeouts.beat_s, time.monotonic())
        self._looked_s = time.monotonic()
        self._copied_out_s = time.monotonic()

    def _resumed(self) -> CheckpointRecord | None:
        if self._plan.resume is None:
            return None
        return snapshot_of(self._plan.resume, self._plan.settings.program.schedule)

    # Words from outside.

    def post(self, event: c.Event) -> None:
        self._events.put(event)

    def beat(self, beat: Beat, status: TrainingStatus | None) -> None:
        self._pulse.beat(beat, time.monotonic())
        if status is not None and (self._status is None or status.round >= self._status.round):
            self._status = status

    def log(self, fields: dict[str, Any]) -> None:
        self._files.event("log", **fields)

    def refuse(self, error: InputError) -> None:
        """A worker found that what the user gave can't work; the run ends with that message."""
        self._refused = self._refused or error
        self._events.put(c.Timer(0))  # no timer has this number: it only wakes the main thread

    def stop(self, reason: str) -> None:
        self._events.put(c.StopRequested(reason))

    def reached(self, worker: str, number: int) -> Fault | None:
        """A round that a fault waited for is committed; see `Injector.reached`."""
        return self._injector.reached(worker, number) if self._injector is not None else None

    def glance(self) -> Glance:
        state = self._controller
        return Glance(state.phase.value, len(state.members), self._status)

    # The main thread.

    def run(self) -> Outcome:
        """The whole run, until it is over; workers are gone when it returns."""
        try:
            self._group = self._make_group(self._plan, self.post)
        except InputError as error:
            self._refused = error
            return self._close()
        self._plan.storage.write(self._plan.spec.probe, b"seen")
        if self._plan.chaos:
            self._injector = Injector(
                self._plan.chaos,
                self._group,
                self.post,
                self._files.event,
                self._files.events,
                nodes.head(),
                lambda: damage_newest(self._plan.storage),
            )
        try:
            self._loop()
        finally:
            if self._injector is not None:
                self._injector.close()
            self._group.close()
            self._background.shutdown(wait=True)
            self._plan.storage.delete_file(self._plan.spec.probe)
        return self._close()

    def _tell_the_past(self) -> None:
        """What went wrong before this driver; without a checkpoint nothing that was done is left, and with an older one
        nothing that came after it.
        """
        restart, resume = self._plan.restart, self._plan.resume
        for name in self._plan.damaged:
            self._files.event("checkpoint_damaged", checkpoint=name)
        if resume is None and self._files.rounds:
            self._files.rewind(0, 0)
        if resume is not None:
            checkpoint_parts.delete_after(self._plan.storage, resume["name"], keep=self._plan.damaged)
        if restart is None:
            return
        origin = resume["name"] if resume is not None else None
        self._files.event("driver_restarted", reason=restart.reason, restarts=restart.count, checkpoint=origin)

    def _loop(self) -> None:
        self._tell_the_past()
        self._files.journal(journal.begun(self._plan.settings, self._plan.resume, self._lives))
        self._events.put(c.RunStarted())
        while self._finish is None and self._refused is None:
            event = self._next_event()
            if event is not None:
                self._advance(event)
            self._look()
            self._files.retry(time.monotonic())
            self._copy_out()
        self._write_journal()

    def _next_event(self) -> c.Event | None:
        """The next event, or the next timer that ran out."""
        now = time.monotonic()
        wait_s = self._plan.settings.timeouts.beat_s
        if self._timers:
            wait_s = min(wait_s, max(0.0, self._timers[0][0] - now))
        try:
            return self._events.get(timeout=wait_s) if wait_s > 0 else self._events.get_nowait()
        except queue.Empty:
            if self._timers and self._timers[0][0] <= time.monotonic():
                return c.Timer(heapq.heappop(self._timers)[1])
            return None

    def _look(self) -> None:
        """Tell the controller who lives."""
        now = time.monotonic()
        if now - self._looked_s >= self._plan.settings.timeouts.beat_s:
            self._looked_s = now
            self._advance(self._pulse.heartbeat(now))

    def _advance(self, event: c.Event) -> None:
        """Signs of life are written down only where something came of them: they leave no trace in the state."""
        now = time.monotonic()
        self._controller, commands = controller.advance(self._controller, event, now)
        for command in commands:
            self._run_command(command, now)
        if commands or not isinstance(event, c.Heartbeat):
            self._unwritten.append((event, now, commands))
        if self._events.empty():  # what others wait for comes first: the order, where all arrive at once
            self._write_journal()
        if self._injector is not None:
            self._injector.see(event, commands)

    def _write_journal(self) -> None:
        for event, now, commands in self._unwritten:
            self._files.journal(journal.entry(event, now, commands))
        self._unwritten.clear()

    def _run_command(self, command: c.Command, now: float) -> None:
        match command:
            case c.RequestWorker(worker):
                self._pulse.expect(worker)
                self._group.request(worker)
            case c.KillWorker(worker):
                self._pulse.forget(worker)
                self._group.kill(worker)
            case c.Form(order, to):
                self._group.order(to, order)
                self._foresee(order)
            case c.Yield(view, segment, to):
                self._group.yield_(to, view, segment)
            case c.CutView(view, to, why):
                self._group.cut(to, view, why)
            case c.SetTimer(id, delay_s):
                heapq.heappush(self._timers, (now + delay_s, id))
            case c.Finish():
                self._finish = command
            case _:
                self._write(command)

    def _foresee(self, order: Order) -> None:
        """Shuffle the lists that the next boundary will be about while nobody waits for them; they are remembered."""
        if order.deal is not None:
            self._background.submit(lists, order.deal)

    def _write(self, command: c.Record) -> None:
        match command:
            case c.RecordRounds():
                self._files.record(command)
            case c.RecordEvent(event, fields):
                self._files.event(event, **fields)
            case c.RewindTables(round, evaluations):
                self._files.rewind(round, evaluations)
            case c.PublishManifest(name, manifest):
                self._background.submit(self._publish, name, manifest)
            case c.DeleteCheckpoint(name):
                self._background.submit(self._plan.storage.under("checkpoints").delete, name)
            case _:
                assert_never(command)

    def _publish(self, name: str, manifest: dict[str, Any]) -> None:
        try:
            content = json.dumps(manifest).encode()
            self._plan.storage.under("checkpoints").write(f"{name}/{MANIFEST}", content)
        except Exception as error:  # the disk's or the network's trouble: training goes on, and it is told
            self.post(c.CheckpointFailed(name, str(error)))
            return
        self.post(c.CheckpointPublished(name))

    def _copy_out(self) -> None:
        now = time.monotonic()
        if now - self._copied_out_s > _COPY_OUT_EVERY_S:
            self._copied_out_s = now
            self._files.copy_out(now)

    def _close(self) -> Outcome:
        finish = self._finish or c.Finish("unplaced", "a worker refused the input")
        content = result(self._files, self._controller.books, finish, self._plan.names)
        self._files.event("ended", status=finish.status, reason=finish.reason)
        trouble = self._files.finish(RESULT, json.dumps(content, indent=1), time.sleep)
        if trouble and finish.status == "finished":
            finish = c.Finish("lost", f"training is over, but its results can't be written: {trouble}")
        return Outcome(finish, content, self._refused)


def launch(plan: Plan) -> Any:
    """The driver actor of a run; its words and its main thread don't wait for each other."""
    return ray.remote(**actor_options())(Driver).remote(plan)


def actor_options() -> dict[str, Any]:
    """The driver lives where it was asked for: it would not outlive that machine anyway, and need not die with another.

    A placement group (Ray Tune's) has its own place for it.
    """
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "concurrency_groups": {"main": 1}}
    if ray.util.get_current_placement_group() is None:
        here = ray.get_runtime_context().get_node_id()
        # A soft one is no affinity at all for an actor without CPUs: Ray then takes any machine of the cluster.
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    return options
