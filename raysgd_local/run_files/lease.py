"""The lease of a run directory, taken and kept: the shell of `lease_protocol` over storage, a clock and processes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, TypeVar

import psutil

from raysgd_local.errors import InputError
from raysgd_local.run_files import lease_protocol as protocol
from raysgd_local.run_files.lease_protocol import Claim, Refused, Won
from raysgd_local.run_files.storage import Storage

T = TypeVar("T")

FOLDER = "lease"


class Lease:
    """The right to write a run's directory. `keep` renews it from a thread of its own until `release`."""

    def __init__(self, storage: Storage, held: Won) -> None:
        self._files, self._held = storage.under(FOLDER), held
        self._lost = ""
        self._released, self._resting = threading.Event(), threading.Event()
        self._turn = threading.Lock()

    @staticmethod
    def take(storage: Storage, name: str, check: Callable[[], None] = lambda: None) -> Lease:
        """Take the run called `name`, if need be from a dead holder (within `TAKEOVER_S`).

        Raises `InputError` if another command has the run; its hint says where that runs and since when. `check` is
        called between the steps, and may raise.
        """
        claim = Claim(uuid.uuid4().hex, host=_host(), processes=(_process(),), label=_label())
        files = storage.under(FOLDER)
        try:
            outcome = _perform(protocol.acquire(claim), files, check)
        except BaseException:
            _withdraw(files, claim)
            raise
        if isinstance(outcome, Refused):
            hint = f"{outcome.by.label} has it; stop that first, or choose another name"
            raise InputError("name", name, "a run that no other command is writing", hint)
        return Lease(storage, outcome)

    @staticmethod
    def shared(storage: Storage, claim: Claim) -> Lease:
        """Share the lease that another process of this run took: this process keeps it from now on."""
        return Lease(storage, Won(replace(claim, processes=(*claim.processes, _process())), -protocol.LEASE_S))

    @property
    def claim(self) -> Claim:
        """The claim, to be passed to `shared` in another process."""
        return self._held.claim

    @property
    def file(self) -> str:
        """The file of the claim, in the run's directory: whoever takes the run over removes it first."""
        return f"{FOLDER}/{self.claim.id}.json"

    @property
    def lost(self) -> str:
        """Why this process may not write any more; empty while it may."""
        return self._lost

    def may_write(self) -> bool:
        """Whether this process still holds the run. Checks the storage if another command could have taken over."""
        if not self._lost and not protocol.may_write(self._held, _now()):
            self.renew()
        return not self._lost and protocol.may_write(self._held, _now())

    def renew(self) -> None:
        """Renew the claim. If the storage can't be reached, the lease only grows older."""
        with self._turn:
            if self._lost or self._released.is_set():
                return
            try:
                outcome = _perform(protocol.renew(self._held), self._files)
            except OSError:
                return
            if isinstance(outcome, Won):
                self._held = outcome
            else:
                self._lost = f"{outcome.by.label} has taken the run over"

    def keep(self) -> Lease:
        """Renew every `RENEW_S` from now on."""
        threading.Thread(target=self._keep, daemon=True, name="lease").start()
        return self

    def _keep(self) -> None:
        while not self._released.wait(protocol.RENEW_S):
            if not self._resting.is_set():
                self.renew()

    def rest(self) -> None:
        """Leave renewing to a process that shares this lease."""
        self._resting.set()

    def wake(self) -> None:
        """Renew again: that process is gone."""
        if self._resting.is_set():
            self._resting.clear()
            self.renew()

    def leave(self) -> None:
        """Renew no more: the process that shares this lease goes on with it."""
        self._released.set()
        with self._turn:
            pass  # a renewal that is under way is done

    def release(self) -> None:
        """Give the run back; others may have it at once. Storage that can't be reached forgets it by itself."""
        self._released.set()
        with self._turn, contextlib.suppress(OSError):
            if not self._lost:
                _perform(protocol.release(self._held), self._files)
                self._tidy()

    def _tidy(self) -> None:
        _tidy(self._files)


def _tidy(files: Storage) -> None:
    """Remove the folder where it is empty, and the run's where that is."""
    if files.local is not None:
        files.local.rmdir()
        files.local.parent.rmdir()


def _withdraw(files: Storage, claim: Claim) -> None:
    """Leave nothing of a claim that was not won."""
    files.delete_file(f"{claim.id}.json")
    with contextlib.suppress(OSError):
        _tidy(files)


def _perform(work: Generator[protocol.Ask, Any, T], files: Storage, check: Callable[[], None] = lambda: None) -> T:
    """Carry out the protocol's requests, one after the other, and return its result."""
    answer: Any = None
    while True:
        check()
        try:
            ask = work.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = _answer(ask, files)


def _answer(ask: protocol.Ask, files: Storage) -> Any:
    match ask:
        case protocol.Put(claim):
            _put(files, claim)
        case protocol.Remove(id):
            files.delete_file(f"{id}.json")
        case protocol.ListClaims():
            return dict(_claims(files))
        case protocol.Wait(seconds):
            time.sleep(seconds)
        case protocol.Now():
            return _now()
        case protocol.IsGone(claim):
            return claim.host == _host() and not any(map(_runs, claim.processes))
        case protocol.IsHere(claim):
            return claim.host == _host() and any(map(_runs, claim.processes))
    return None


def _put(files: Storage, claim: Claim) -> None:
    try:
        files.write(f"{claim.id}.json", claim.encode())
    except FileNotFoundError:  # who released the run removed the folder meanwhile
        files.write(f"{claim.id}.json", claim.encode())


def _claims(files: Storage) -> list[tuple[str, Claim]]:
    found = []
    for name in files.names():
        id, _, ending = name.rpartition(".")
        if ending == "json":
            try:
                found.append((id, Claim.decode(id, files.read(name))))
            except FileNotFoundError:
                continue  # withdrawn since it was listed
    return found


def _now() -> float:
    """Return seconds of a clock that runs while the machine sleeps, unlike `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _host() -> str:
    """Return a name that is equal for processes that see each other: the same boot and process namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"


def _process() -> tuple[int, float]:
    return os.getpid(), psutil.Process().create_time()


def _runs(process: tuple[int, float]) -> bool:
    pid, started = process
    try:
        found = psutil.Process(pid)
        return bool(abs(found.create_time() - started) < 1.0 and found.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError, OverflowError):  # no process has such a number
        return False


def _label() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},"
