"""A worker's prints, warnings and logs: they go into a file in the run's directory, and line by line to the driver."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Any, TextIO

from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.writer import LOGS

_MOST_LINES = 500  # kept for the driver between two heartbeats
_MOST_CHARACTERS = 10_000_000  # kept for storage that can't append
_COPY_EVERY_S = 10.0


class WorkerOutput:
    """Copies what this process prints. It never fails: printing is the user's, and files may be away."""

    def __init__(self, worker: str, storage: Storage, echo: bool) -> None:
        self.name = f"{LOGS}/{worker}.log"
        self._storage, self._echo = storage, echo
        self._turn = threading.Lock()
        self._open_line, self._lines = "", deque[str](maxlen=_MOST_LINES)
        self._skipped = 0
        self._file: TextIO | None = None
        self._text, self._copied = deque[str](), 0
        self._characters = 0
        os.register_at_fork(after_in_child=self._renew)

    def install(self) -> None:
        """Take in what is printed from now on; it still goes where it went before."""
        sys.stdout, sys.stderr = _Tee(sys.stdout, self), _Tee(sys.stderr, self)
        if self._storage.local is None:
            threading.Thread(target=self._copy_for_ever, daemon=True, name="logs").start()

    def _renew(self) -> None:
        """In a forked process: the lock may have been held, and lines are the parent's to tell."""
        self._turn, self._echo = threading.Lock(), False

    def take(self, last: bool = False) -> tuple[str, ...]:
        """Return the whole lines that were not returned before; with `last` also a line that has no end yet."""
        with self._turn:
            if last and self._open_line:
                self._lines.append(self._open_line)
                self._open_line = ""
            lines, skipped = tuple(self._lines), self._skipped
            self._lines.clear()
            self._skipped = 0
        return (*([f"… {skipped} lines, see {self.name}"] if skipped else []), *lines)

    def write(self, text: str) -> None:
        """Take in a piece of text."""
        with self._turn:
            with suppress(Exception):
                self._keep(text)
            if self._echo:
                *lines, self._open_line = (self._open_line + text).split("\n")
                self._skipped += max(0, len(self._lines) + len(lines) - _MOST_LINES)
                self._lines += [line.rpartition("\r")[2] if line[-1:] != "\r" else line[:-1] for line in lines]

    def _keep(self, text: str) -> None:
        if self._storage.local is not None:
            if self._file is None:
                path = self._storage.local / self.name
                path.parent.mkdir(exist_ok=True)
                self._file = path.open("a", buffering=1, encoding="utf-8", errors="replace")
            self._file.write(text)
            return
        self._text.append(text)
        self._characters += len(text)
        while self._characters > _MOST_CHARACTERS:
            self._characters -= len(self._text.popleft())

    def _copy_for_ever(self) -> None:
        stopped = threading.Event()
        while not stopped.wait(_COPY_EVERY_S):
            self.copy()

    def copy(self) -> None:
        """Copy the newest text to storage that can't append."""
        if self._storage.local is not None or not self._text:
            return
        with self._turn:
            text, count = "".join(self._text), self._characters
        if count != self._copied:
            with suppress(Exception):
                self._storage.write(self.name, text.encode(errors="replace"))
                self._copied = count


class _Tee:
    """A stream that also writes to a `WorkerOutput`. A full disk of Ray's own logs is no error of the user's."""

    def __init__(self, stream: Any, output: WorkerOutput) -> None:
        self._stream, self._output = stream, output

    def write(self, text: str) -> int:
        self._output.write(text)
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
