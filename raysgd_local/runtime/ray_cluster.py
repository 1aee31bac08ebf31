"""The Ray cluster of a run: an existing one, or one on this machine for the time of the run."""

from __future__ import annotations

import contextlib
import datetime
import glob
import logging
import os
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir

from raysgd_local import signals
from raysgd_local.errors import InputError, RunLostError, cut
from raysgd_local.runtime import nodes
from raysgd_local.signals.processes import descendants, kill

_HOLD_EVERY_S = 0.005


@contextmanager
def attached(cpus: int, address: str | None) -> Iterator[bool]:
    """Attach to a Ray cluster within the `with` block, or start one with `cpus` logical CPUs. Yield whether it started.

    Raises `InputError` if there is no cluster at `address`, and `RunLostError` if Ray can't be started.
    """
    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    _check_address(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    started = _Ray({**({"address": address} if address else own), **quiet})
    with signals.leaving(lambda: map(glob.escape, started.files())):
        try:
            _begin(started, address)
            yield not address
        except Exception:
            started.keep_files = True  # Ray's logs may say why
            raise
        finally:
            started.end()


def _begin(started: _Ray, address: str | None) -> None:
    try:
        started.begin()
    except (Exception, SystemExit) as error:  # Ray raises anything: of files, of processes, of its own
        why = f"{type(error).__name__}: {error}"
        if address:
            raise InputError("address", address, "the address of a running Ray cluster", why) from error
        raise RunLostError(f"Ray can't be started on this machine: {cut(why)}; {_limits()}") from error


def _limits() -> str:
    """Return the usual reasons, as they are here."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    place = os.environ.get("RAY_TMPDIR") or "/tmp"
    return (
        f"it needs to write to {place}/ray (RAY_TMPDIR), and more than 1,000 open files (`ulimit -n` is {files:,})"
    )


class _Ray(threading.Thread):
    """Starts Ray in a thread that lives as long as Ray: the kernel ends Ray's processes with the thread that made them.

    Ray leaves signal handlers alone in such a thread. Signals are blocked there, so Ray's processes don't get those
    that a terminal, Slurm or systemd sends to all processes of a command: the last checkpoint needs them.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(daemon=True, name="ray")
        self._options = options
        self._ready, self._over, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self.keep_files = False
        self._began = datetime.datetime.today()
        self._processes: list[int] = []  # that were started

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
        try:
            ray.init(**self._options)
            if self._options["address"] == "local":
                self._own_session()
                nodes.mark_own()
        except BaseException as error:
            self._error = error
        self._ready.set()
        self._over.wait()
        try:
            ray.shutdown()
        finally:
            self._ended.set()

    def _own_session(self) -> None:
        node: Any = ray._private.worker._global_node
        self._processes = [info.process.pid for infos in node.all_processes.values() for info in infos]
        end = node.kill_all_processes  # with blocked signals it would wait a second for each of them
        node.kill_all_processes = lambda **how: end(**{**how, "allow_graceful": False})

    def begin(self) -> None:
        """Wait for Ray. Raises its error."""
        self.start()
        self._wait(self._ready)
        if self._error is not None:
            raise self._error

    def _wait(self, event: threading.Event) -> None:
        """Wait until Ray is there, or has ended, holding our signal handlers: its core puts others in their place."""
        while not event.wait(_HOLD_EVERY_S):
            signals.hold()
        signals.hold()

    def end(self) -> None:
        """End Ray, and what it started. An interruption while it starts has to wait: half of it can't be ended."""
        if not self.is_alive():
            return
        self._wait(self._ready)
        below = descendants(*self._processes)
        self._over.set()
        try:
            self._wait(self._ended)
        finally:
            kill(below)
            if not self.keep_files:
                self.remove()

    def remove(self) -> None:
        """Remove the session's files, and Ray's link to them."""
        for path in self.files():
            shutil.rmtree(path, ignore_errors=True)  # not the link
            with contextlib.suppress(OSError):
                os.unlink(path)

    def files(self) -> list[str]:
        """Return the session's folder, and Ray's link to it. May be called while Ray starts."""
        if self._options["address"] != "local":
            return []
        since = f"session_{self._began:%Y-%m-%d_%H-%M-%S}"  # numbers of processes are used again
        place = Path(get_default_ray_temp_dir())  # type: ignore[no-untyped-call]
        folders = [str(path) for path in place.glob(f"session_*_{os.getpid()}") if path.name >= since]
        latest = place / "session_latest"
        with contextlib.suppress(OSError):
            if os.readlink(latest) in folders:
                return [str(latest), *folders]
        return folders


def _check_address(address: str | None) -> None:
    """Raise `InputError` if nothing listens at `host:port`. Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise InputError("address", address, "the address of a running Ray cluster", str(error)) from error
