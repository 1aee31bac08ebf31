"""The effects of faults on real processes: by the worker on itself (`ON_WORKER`), or by the driver (`ON_DRIVER`)."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Protocol

import torch

from raysgd_local.control.controller.events import DrainNotice, Event, StopRequested
from raysgd_local.errors import CheckpointError
from raysgd_local.faults.language import Fault, When
from raysgd_local.faults.schedule import RoundWatch, Victim
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.manifest import read_manifest
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime import nodes
from raysgd_local.training.fault_hooks import Interference
from raysgd_local.training.replica.replica import Replica

_KILL = Fault("kill", When())
# Runs in a process of its own, which outlives the fault.
_LATER = 'seconds=$1; signal=$2; shift 2; sleep "$seconds"; kill -"$signal" "$@" 2>/dev/null'


class InjectedError(RuntimeError):
    """The exception in user code that `--chaos` asked for."""


class Sabotage(Interference):
    """Makes faults happen in a worker. `suffer` and `watch` are called in another thread than the training loop's."""

    def __init__(self, reached: Callable[[int], Fault | None], cut: Callable[[], None]) -> None:
        self._reached = reached  # reports a watched round to the driver; returns the fault if it is this worker's
        self.cut = cut  # breaks this worker's connections
        self._watches: tuple[RoundWatch, ...] = ()
        self._stepped_at = 0.0
        self.slow = 1.0  # factor on the duration of steps
        self.hangs_s = 0.0  # duration of a hang at the next step
        self.spoils = self.raises = False  # at the next step: gradients that are not finite, an exception

    def watch(self, watches: tuple[RoundWatch, ...]) -> None:
        self._watches = watches

    def suffer(self, fault: Fault) -> None:
        ON_WORKER[fault.kind](self, fault)

    def committed(self, view: int, round: int) -> None:
        for watch in self._watches:
            if watch.view == view and watch.round <= round:
                self._watches = tuple(other for other in self._watches if other is not watch)
                fault = self._reached(watch.number)
                if fault is not None:
                    self.suffer(fault)

    def before_step(self, replica: Replica) -> None:
        if self.slow > 1.0 and self._stepped_at:
            time.sleep((self.slow - 1.0) * (time.monotonic() - self._stepped_at))
        if self.hangs_s:
            seconds, self.hangs_s = self.hangs_s, 0.0
            threading.Event().wait(seconds if math.isfinite(seconds) else None)
        if self.raises:
            self.raises = False
            raise InjectedError("an exception in user code, asked for by --chaos")
        if self.spoils:
            self.spoils = False
            _spoil(replica)

    def after_step(self) -> None:
        self._stepped_at = time.monotonic()


class DriverSide(Protocol):
    """The driver, for effects that it causes."""

    head: str  # the cluster's head node, which can't be killed or drained

    def post(self, event: Event) -> None:
        """Give the controller an event."""
        ...

    def suffer(self, worker: str, fault: Fault) -> None:
        """Let a worker's process cause the fault to itself."""
        ...

    def damage(self) -> bool:
        """Damage the newest checkpoint. Return False if there is none."""
        ...


def obstacle(side: DriverSide, fault: Fault, victims: tuple[Victim, ...]) -> str:
    """Return why `fault` can't happen although it is due; empty if it can.

    This damages the checkpoint for the fault `damage`, because only the attempt shows whether there is one.
    """
    if fault.kind == "kill" and fault.among == "nodes" and victims[0].node == side.head:
        return "the cluster's head is on that node"
    if fault.kind == "damage" and not side.damage():
        return "there is no checkpoint to damage"
    return ""


def damage_newest(storage: Storage) -> bool:
    """Remove the last byte of the newest checkpoint's first shard. Return False if there is no checkpoint."""
    checkpoints = storage.under("checkpoints")
    try:
        newest = finished(storage)[-1]
        part = read_manifest(checkpoints.under(newest)).parts[0].path
        checkpoints.write(part, checkpoints.read(part)[:-1])
    except (IndexError, OSError, CheckpointError):
        return False
    return True


def _kill(_worker: Sabotage, fault: Fault) -> None:
    """Kill this process; for a whole node the raylet, which is the workers' parent."""
    os.kill(os.getppid() if fault.among == "nodes" else os.getpid(), signal.SIGKILL)


def _stop(_worker: Sabotage, fault: Fault) -> None:
    """Stop a whole node, our own process last."""
    pids = [*([os.getppid()] if fault.among == "nodes" else []), os.getpid()]
    if math.isfinite(fault.amount):
        _later(fault.amount, "CONT", pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def _later(seconds: float, signal_name: str, pids: list[int]) -> None:
    command = ["sh", "-c", _LATER, "sh", f"{seconds:g}", signal_name, *map(str, pids)]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)


def _spoil(replica: Replica) -> None:
    for prepared in replica.optimizers:
        for parameter in prepared.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(torch.nan)


def _drain(side: DriverSide, fault: Fault, victims: tuple[Victim, ...]) -> None:
    """Let Ray drain a whole node; for a worker, or on the head's node, post the notice to the controller.

    Then end the workers after the fault's time, because neither Ray nor the driver does.
    """
    why = f"its machine goes in {fault.amount:g} s, says --chaos"
    first = victims[0]
    if fault.among == "nodes" and first.node != side.head and nodes.drain(first.node, fault.amount, why):
        side.suffer(first.worker, fault)
        return
    for victim in victims:
        side.post(DrainNotice(victim.worker, why))
        gone = threading.Timer(fault.amount, side.suffer, (victim.worker, _KILL))
        gone.daemon = True
        gone.start()


OnWorker = Callable[[Sabotage, Fault], None]
ON_WORKER: dict[str, OnWorker] = {
    "kill": _kill,
    "stop": _stop,
    "drain": lambda _, fault: _later(fault.amount, "KILL", [os.getppid()]),
    "sigterm": lambda _, __: os.kill(os.getpid(), signal.SIGTERM),
    "hang": lambda worker, fault: setattr(worker, "hangs_s", fault.amount),
    "slow": lambda worker, fault: setattr(worker, "slow", fault.amount),
    "nan": lambda worker, _: setattr(worker, "spoils", True),
    "error": lambda worker, _: setattr(worker, "raises", True),
    "cut": lambda worker, _: worker.cut(),
}
OnDriver = Callable[[DriverSide, Fault, tuple[Victim, ...]], None]
ON_DRIVER: dict[str, OnDriver] = {
    "drain": _drain,
    "damage": lambda _, __, ___: None,  # done by `obstacle`
    "interrupt": lambda side, _, __: side.post(StopRequested("asked to by --chaos")),
    "driver": lambda _, __, ___: os.kill(os.getpid(), signal.SIGKILL),
}
