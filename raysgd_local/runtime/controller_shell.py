"""The shell around the controller: it feeds in events and timers, and carries out commands. It decides nothing."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_never

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.heartbeats import Pulse
from raysgd_local.control.data.deal import lists
from raysgd_local.control.messages import Beat, Order
from raysgd_local.run_files.journal import JournalWriter
from raysgd_local.run_files.recording import Recording
from raysgd_local.runtime.run_plan import Group, Plan

_COPY_OUT_EVERY_S = 10.0

Seen = Callable[[c.Event, tuple[c.Command, ...]], None]


class ControllerShell:
    """Runs the controller on the thread that calls `run`; `post` and `beat` may be called from others."""

    def __init__(self, plan: Plan, recording: Recording) -> None:
        self._plan, self._recording = plan, recording
        self._events: queue.SimpleQueue[c.Event] = queue.SimpleQueue()
        self._timers: list[tuple[float, int]] = []
        self._journal = JournalWriter(recording.files.journal)
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._beat_s = plan.settings.timeouts.beat_s
        self._pulse = Pulse(self._beat_s, time.monotonic())
        self._looked_s = self._copied_out_s = time.monotonic()
        self.state = plan.begin()
        self.finish: c.Finish | None = None

    def post(self, event: c.Event) -> None:
        self._events.put(event)

    def beat(self, beat: Beat) -> None:
        self._pulse.beat(beat, time.monotonic())

    def run(self, group: Group, seen: Seen, ended: Callable[[], bool]) -> None:
        """Run the controller until it ends the run, or `ended()` is true. Call `seen` after each event."""
        self._group, self._seen = group, seen
        plan = self._plan
        self._journal.begin(plan.settings, plan.resume, plan.lives, plan.older, plan.taken)
        self.post(c.RunStarted())
        while self.finish is None and not ended():
            event = self._next_event()
            if event is not None:
                self._advance(event)
            self._look()
            self._recording.files.retry(time.monotonic())
            self._copy_out()
        self._journal.flush()

    def close(self) -> None:
        """Wait for writes in the background."""
        self._background.shutdown(wait=True)

    def _next_event(self) -> c.Event | None:
        """Return the next event, or the next timer that expired; None if neither came within `beat_s`."""
        now = time.monotonic()
        wait_s = self._beat_s
        if self._timers:
            wait_s = min(wait_s, max(0.0, self._timers[0][0] - now))
        try:
            return self._events.get(timeout=wait_s) if wait_s > 0 else self._events.get_nowait()
        except queue.Empty:
            if self._timers and self._timers[0][0] <= time.monotonic():
                return c.Timer(heapq.heappop(self._timers)[1])
            return None

    def _look(self) -> None:
        """Give the controller the workers' signs of life, every `beat_s`."""
        now = time.monotonic()
        if now - self._looked_s >= self._beat_s:
            self._looked_s = now
            self._advance(self._pulse.heartbeat(now))

    def _advance(self, event: c.Event) -> None:
        now = time.monotonic()
        self.state, commands = controller.advance(self.state, event, now)
        for command in commands:
            self._run_command(command, now)
        self._journal.heard(event, now, commands)
        if self._events.empty():  # if several events are waiting, orders go out before the journal is written
            self._journal.flush()
        self._seen(event, commands)

    def _run_command(self, command: c.Command, now: float) -> None:
        if c.goes_on(command):
            self._recording.goes_on()
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
            case c.RecordRounds() | c.RecordEvent():
                self._recording.record(command)
            case c.RewindTables(round, evaluations):
                self._recording.rewind(round, evaluations, self.state.incarnation)
            case c.PublishManifest(name, manifest):
                self._background.submit(self._publish, name, manifest)
            case c.DeleteCheckpoint(name):
                self._background.submit(self._recording.delete, name)
            case c.Finish():
                self.finish = command
            case _:
                assert_never(command)

    def _foresee(self, order: Order) -> None:
        """Compute the deal's lists in the background; they are cached, so the next boundary need not wait for them."""
        if order.deal is not None:
            self._background.submit(lists, order.deal)

    def _publish(self, name: str, manifest: dict[str, Any]) -> None:
        try:
            self._recording.publish(name, manifest)
        except Exception as error:  # the disk or the network failed: training goes on
            self.post(c.CheckpointFailed(name, str(error)))
            return
        self.post(c.CheckpointPublished(name))

    def _copy_out(self) -> None:
        now = time.monotonic()
        if now - self._copied_out_s > _COPY_OUT_EVERY_S:
            self._copied_out_s = now
            self._recording.files.copy_out(now)
