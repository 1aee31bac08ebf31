"""Processes below another one: find them, kill them. As a script, kill all below a process, and remove files.

`python processes.py PID PATTERN…` imports nothing but the standard library: it runs while its parent is about to end.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

Process = tuple[int, int]
"""A process by its number and its start, in the kernel's ticks: numbers are used again."""


def descendants(*ancestors: int) -> list[Process]:
    """Return the live processes that descend from these; none where there is no /proc."""
    children: dict[int, list[Process]] = {}
    with suppress(OSError):
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                parent, started = _stat(pid)
                children.setdefault(parent, []).append((pid, started))
    found = [process for ancestor in ancestors for process in children.get(ancestor, ())]
    for pid, _ in found:
        found += children.get(pid, ())
    return found


def kill(processes: Iterable[Process]) -> None:
    """Kill these processes, as far as they live."""
    for pid, started in processes:
        with suppress(OSError):
            if _stat(pid)[1:] == (started,):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> tuple[int, int]:
    """Return a process' parent and start. Raises `OSError` if it has ended."""
    with open(f"/proc/{pid}/stat", "rb") as stream:
        fields = stream.read().rpartition(b")")[2].split()
    if fields[0] == b"Z":
        raise ProcessLookupError
    return int(fields[1]), int(fields[19])


def _end_all_below(ancestor: int) -> None:
    """Kill until there are none: some start others while they are killed."""
    for _ in range(100):
        found = [process for process in descendants(ancestor) if process[0] != os.getpid()]
        if not found:
            return
        kill(found)


def _remove(patterns: Iterable[str]) -> None:
    """Remove what matches; of a pattern that ends in a slash, folders that are empty."""
    for pattern in patterns:
        for path in glob.glob(pattern, recursive=True):
            with suppress(OSError):
                _remove_path(path)


def _remove_path(path: str) -> None:
    if path.endswith("/"):
        os.rmdir(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


if __name__ == "__main__":
    _end_all_below(int(sys.argv[1]))
    _remove(sys.argv[2:])
