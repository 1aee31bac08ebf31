"""Faults as a worker suffers them: real signals to real processes, and what can only be done from inside."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import torch

from raysgd_local.errors import CheckpointError
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.run_files.storage import Storage, read_manifest
from raysgd_local.training.fault_hooks import Interference
from raysgd_local.training.replica import checkpoint_parts
from raysgd_local.training.replica.replica import Replica

# In a process of its own: it outlives what happens to us.
_LATER = 'seconds=$1; signal=$2; shift 2; sleep "$seconds"; kill -"$signal" "$@" 2>/dev/null'


class InjectedError(RuntimeError):
    """The exception in user code that the schedule of faults asked for."""


class Sabotage(Interference):
    """`suffer` and `watch` come from outside, in another thread than the training loop's.

    `reached` tells the driver that a watched round is committed; it returns the fault if it is this worker's.
    `cut` breaks this worker's connections. A node's raylet is the parent of its workers.
    """

    def __init__(self, reached: Callable[[int], Fault | None], cut: Callable[[], None]) -> None:
        self._reached, self._cut = reached, cut
        self._watches: tuple[RoundWatch, ...] = ()
        self._slow, self._stepped_at, self._hangs_s = 1.0, 0.0, 0.0
        self._spoil = self._raise = False

    def watch(self, watches: tuple[RoundWatch, ...]) -> None:
        self._watches = watches

    def suffer(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                os.kill(os.getppid() if fault.among == "nodes" else os.getpid(), signal.SIGKILL)
            case "stop":
                _stop([*([os.getppid()] if fault.among == "nodes" else []), os.getpid()], fault.amount)
            case "drain":
                _later(fault.amount, "KILL", [os.getppid()])
            case "sigterm":
                os.kill(os.getpid(), signal.SIGTERM)
            case "hang":
                self._hangs_s = fault.amount
            case "slow":
                self._slow = fault.amount
            case "nan":
                self._spoil = True
            case "error":
                self._raise = True
            case "cut":
                self._cut()

    def committed(self, view: int, round: int) -> None:
        for watch in self._watches:
            if watch.view == view and watch.round <= round:
                self._watches = tuple(other for other in self._watches if other is not watch)
                fault = self._reached(watch.number)
                if fault is not None:
                    self.suffer(fault)

    def before_step(self, replica: Replica) -> None:
        if self._slow > 1.0 and self._stepped_at:
            time.sleep((self._slow - 1.0) * (time.monotonic() - self._stepped_at))
        if self._hangs_s:
            seconds, self._hangs_s = self._hangs_s, 0.0
            threading.Event().wait(seconds if math.isfinite(seconds) else None)
        if self._raise:
            self._raise = False
            raise InjectedError("an exception in user code, asked for by --chaos")
        if self._spoil:
            self._spoil = False
            for prepared in replica.optimizers:
                for parameter in prepared.parameters():
                    if parameter.grad is not None:
                        parameter.grad.fill_(torch.nan)

    def after_step(self) -> None:
        self._stepped_at = time.monotonic()


def damage_newest(storage: Storage) -> bool:
    """The newest checkpoint's first part loses its last byte, as when a disk went bad; false where there is none."""
    checkpoints = storage.under("checkpoints")
    try:
        newest = checkpoint_parts.finished(storage)[-1]
        part = read_manifest(checkpoints.under(newest))["shards"][0]["path"]
        checkpoints.write(part, checkpoints.read(part)[:-1])
    except (IndexError, OSError, CheckpointError):
        return False
    return True


def _stop(pids: list[int], seconds: float) -> None:
    """Stop these processes, our own last."""
    if math.isfinite(seconds):
        _later(seconds, "CONT", pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def _later(seconds: float, signal_name: str, pids: list[int]) -> None:
    command = ["sh", "-c", _LATER, "sh", f"{seconds:g}", signal_name, *map(str, pids)]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
