"""The driver actor: it runs one run's controller, workers, faults and records."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.state import Controller
from raysgd_local.control.controller.transitions import Phase, Standing
from raysgd_local.control.messages import Beat
from raysgd_local.control.run_events import EventName
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault
from raysgd_local.run_files.lease import Lease
from raysgd_local.run_files.observers import Delivery, Outbox
from raysgd_local.run_files.recording import Recording
from raysgd_local.runtime import nodes
from raysgd_local.runtime.controller_shell import ControllerShell
from raysgd_local.runtime.fault_effects import damage_newest
from raysgd_local.runtime.fault_injection import Injector
from raysgd_local.runtime.placement import PlacementWatch
from raysgd_local.runtime.run_plan import Glance, Group, Plan, RunOutcome
from raysgd_local.runtime.worker_group import WorkerGroup
from raysgd_local.training.ports import TrainingStatus

_MOST_LINES = 2000  # of workers' output between two glances
MakeGroup = Callable[[Plan, Callable[[c.Event], None]], Group]


def _ray_group(plan: Plan, post: Callable[[c.Event], None]) -> Group:
    driver = ray.get_runtime_context().current_actor
    return WorkerGroup(driver, plan.spec, plan.resources, plan.settings.workers_max, post)


class Driver:
    """Runs one run. `run` is the main thread; the other methods are called from outside, in other threads."""

    def __init__(self, plan: Plan, make_group: MakeGroup | None = None) -> None:
        self._plan, self._make_group = plan, make_group or _ray_group
        self._placement = PlacementWatch(plan.resources, plan.settings.wanted)
        self._status: TrainingStatus | None = None
        self._refused: InputError | None = None
        self._injector: Injector | None = None
        self._output = deque[str](maxlen=_MOST_LINES)
        self._outbox = Outbox() if plan.heard is not None else None
        self._lease = Lease.shared(plan.storage, plan.lease).keep() if plan.lease is not None else None
        self._recording = Recording(
            plan.storage, time.time, outbox=self._outbox, may_write=self._may_write, config=plan.config
        )
        self._shell = ControllerShell(plan, self._recording)

    def _may_write(self) -> bool:
        return self._lease is None or self._lease.may_write()

    def _over(self) -> bool:
        """Whether the run ends here: the input is refused, or another command has the run."""
        return self._refused is not None or (not self._may_write() and bool(self._taken_over))

    @property
    def _taken_over(self) -> str:
        return self._lease.lost if self._lease is not None else ""

    # Calls from outside.

    def post(self, event: c.Event) -> None:
        self._shell.post(event)

    def beat(self, beat: Beat, status: TrainingStatus | None) -> None:
        self._shell.beat(beat)
        if status is not None and (self._status is None or status.round >= self._status.round):
            self._status = status

    def log(self, fields: dict[str, Any]) -> None:
        self.record(EventName.LOG, fields)

    def record(self, event: str, fields: dict[str, Any]) -> None:
        """Record an event of a worker, or of the process that started the run."""
        self._recording.event(event, **fields)

    def output(self, worker: str, lines: tuple[str, ...]) -> None:
        """Take lines that a worker printed, to be shown by the process that started the run."""
        self._output.extend(f"({worker}) {line}" for line in lines)

    def _take_output(self) -> tuple[str, ...]:
        return tuple(self._output.popleft() for _ in range(len(self._output)))

    def refuse(self, error: InputError) -> None:
        """End the run with this error: a worker found that the user's input can't work.

        A worker that comes later, and does not see the storage, does not end a run that goes on: that may be away.
        """
        if error.field == "storage" and self._shell.state.books is not None:
            self.record(EventName.STORAGE_FAILED, {"reason": str(error)})
            return
        self._refused = self._refused or error
        self._shell.post(c.Timer(0))  # no timer has this number: it only wakes the main thread

    def stop(self, reason: str) -> None:
        self._shell.post(c.StopRequested(reason))

    def reached(self, worker: str, number: int) -> Fault | None:
        """Take the commit of a round for which a fault waits; see `Injector.reached`."""
        return self._injector.reached(worker, number) if self._injector is not None else None

    def glance(self, received: int = 0) -> Glance:
        """Return the run's present state, with the notices for observers from number `received` on."""
        state = self._shell.state
        waits = self._placement.look(_awaits_processes(state))
        delivery, output = self._fetch(received), self._take_output()
        return Glance(state.phase_shown, len(state.members), self._status, delivery, waits, output)

    def _fetch(self, received: int) -> Delivery:
        return self._outbox.fetch(received) if self._outbox is not None else Delivery()

    # The main thread.

    def run(self) -> RunOutcome:
        """Run to the end. When this returns, all workers have ended."""
        try:
            group = self._make_group(self._plan, self.post)
        except InputError as error:
            self._refused = error
            return self._close()
        self._show_probe()
        if self._plan.chaos:
            self._injector = Injector(
                self._plan.chaos,
                group,
                self.post,
                self._recording.event,
                self._recording.files.events,
                nodes.head(),
                lambda: damage_newest(self._plan.storage),
            )
        try:
            self._tell_the_past()
            self._shell.run(group, self._seen, self._over)
            self._tell_what_was_missing()
        finally:
            if self._injector is not None:
                self._injector.close()
            group.close()
            self._shell.close()
            self._plan.storage.delete_file(self._plan.spec.probe)
        return self._close()

    def _tell_what_was_missing(self) -> None:
        """Add to the reason of a run that found no place what its workers waited for."""
        finish = self._shell.finish
        if finish is None or finish.status != "unplaced":
            return
        if missing := self._placement.newest or self._placement.now():
            self._shell.finish = replace(finish, reason=f"{finish.reason}: {missing}")

    def _seen(self, event: c.Event, commands: tuple[c.Command, ...]) -> None:
        if self._plan.storage.local is not None and any(isinstance(told, c.RequestWorker) for told in commands):
            with contextlib.suppress(
                OSError
            ):  # the new worker looks for it, and the directory may have been deleted
                self._show_probe()
        if self._injector is not None:
            self._injector.see(event, commands)

    def _show_probe(self) -> None:
        """Write the file by which workers check that they see the same storage."""
        if not self._plan.storage.exists(self._plan.spec.probe):
            self._plan.storage.write(self._plan.spec.probe, b"seen")

    def _tell_the_past(self) -> None:
        """Record damaged checkpoints and the previous driver's death, and how far the run goes back.

        Without a checkpoint no earlier round stays, with an older checkpoint none after it.
        """
        plan, record, restart = self._plan, self._recording, self._plan.restart
        incarnation, resume = self._shell.state.incarnation, self._shell.state.resume
        if restart is not None:
            record.restarted(resume, incarnation, plan.heard, plan.damaged)
        elif plan.again or resume is not None or record.files.rounds:
            record.resumed(resume, incarnation, plan.damaged)
        for name in plan.damaged:
            record.event(EventName.CHECKPOINT_DAMAGED, checkpoint=name)
        if restart is not None:
            told = {"reason": restart.reason, "restarts": restart.count}
            record.event(
                EventName.DRIVER_RESTARTED, **told, checkpoint=resume.name if resume is not None else None
            )

    def _close(self) -> RunOutcome:
        if self._taken_over:  # nothing here is ours to write any more
            rounds = len(self._recording.files.rounds)
            return RunOutcome(c.Finish("lost", self._taken_over), {"rounds": rounds, "eval": {}}, self._refused)
        finish = self._shell.finish or c.Finish("unplaced", "a worker refused the input")
        finish, content = self._recording.end(finish, self._shell.state.books, self._plan.names, time.sleep)
        if self._lease is not None:
            self._lease.leave()
        return RunOutcome(finish, content, self._refused, self._fetch(0), self._take_output())


def _awaits_processes(state: Controller) -> bool:
    """Whether the run can't go on before more workers' processes run."""
    waits = state.phase in (Phase.STARTING, Phase.RESTORING, Phase.PAUSED)
    return waits and bool(state.standing(Standing.REQUESTED))


def launch(plan: Plan) -> Any:
    """Start the driver actor of a run. Its main thread and calls from outside don't wait for each other."""
    return ray.remote(**actor_options())(Driver).remote(plan)


def actor_options() -> dict[str, Any]:
    """Return Ray's options for the driver, which runs on the node that starts it.

    It can't outlive that machine anyway, and so does not die with another one. In a placement group (Ray Tune's) the
    group decides.
    """
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "concurrency_groups": {"main": 1}}
    if ray.util.get_current_placement_group() is None:
        here = ray.get_runtime_context().get_node_id()
        # For an actor without CPUs Ray ignores a soft affinity, and takes any machine of the cluster.
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    return options
