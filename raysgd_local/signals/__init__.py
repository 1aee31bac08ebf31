"""Signals that end a command or a run: SIGINT (Ctrl-C), SIGTERM, SIGHUP. The first in order, the second at once.

`take_over` is for a process that is a command. `heeded` is for a run, in a command or in the user's own script.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any

from raysgd_local.console import say
from raysgd_local.signals import processes
from raysgd_local.signals.processes import descendants, kill

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_c = ctypes.PyDLL(None)  # the C library, called without giving up the interpreter
_BE_PARENT_OF_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_CLEANUP_S = 2.0  # time for cleaning up at the second signal
_STANDARD_ERROR = 2


class StopRequest:
    """A signal's request to end the run. May be read from any thread."""

    def __init__(self) -> None:
        self.number = received()  # of the first signal; 0 while there was none
        self._on_first: list[Callable[[], None]] = []

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.number != 0

    def check(self) -> None:
        """Raise `error()` if a signal came."""
        if self.asked:
            raise self.error()

    def error(self) -> BaseException:
        """Return the exception that ends the process: `KeyboardInterrupt`; in a script after SIGTERM `SystemExit`."""
        if _command is not None or self.number in (0, signal.SIGINT):
            return KeyboardInterrupt()
        return SystemExit(128 + self.number)

    def make(self, number: int) -> None:
        """Make the request, for this signal, in its handler."""
        self.number = number
        for call in tuple(self._on_first):
            call()

    @contextmanager
    def calling(self, on_first: Callable[[], None] | None) -> Iterator[StopRequest]:
        """Call `on_first` for the first signal within the `with` block."""
        calls = [on_first] if on_first is not None else []
        self._on_first += calls
        try:
            yield self
        finally:
            for call in calls:
                self._on_first.remove(call)


class _Command:
    """The signals of a process that is a command.

    A thread of its own counts them, because the main thread may be in a call that no signal ends, such as one to an
    object store that can't be reached.
    """

    def __init__(self) -> None:
        self.number = 0  # of the first signal
        self.concluded = False  # whether the command's last words are said
        self.raises = False  # whether the first signal raises `KeyboardInterrupt`; otherwise it ends the process
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        atexit.register(self._leave)  # the first to be registered, so the last to be called
        os.register_at_fork(after_in_child=_leave_to_the_parent)
        threading.Thread(target=self._count, args=(read,), daemon=True, name="signals").start()
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # `nohup` ignores it
                _install(number, self._first)

    def _first(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            return  # `_count` ends the process
        self.number = number
        if _request is not None:
            _request.make(number)
        elif self.raises:
            raise KeyboardInterrupt
        else:
            write(f"{told(number)}\n")
            os._exit(128 + number)

    def _count(self, read: int) -> None:
        first = 0
        while True:
            for number in os.read(read, 64):
                if number in _installed and first:
                    self._end_at_once(first)
                first = first or (number if number in _installed else 0)

    def _leave(self) -> None:
        """End what is left of the command's processes after a signal."""
        if self.number:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for data loaders
            end_children()

    def _end_at_once(self, number: int) -> None:
        worker = threading.Thread(target=_clean_up, daemon=True)  # storage may hang
        worker.start()
        worker.join(_CLEANUP_S)
        write(f"{told(number)}, at once\n")
        left = [pattern for patterns in _left_behind for pattern in patterns()]
        # Another process kills ours, and those of them that lose their parents meanwhile. No call from here on gives up
        # the interpreter: where Ray starts, its thread would take it, and keep it while it waits for a file of a
        # process that is killed.
        command = [sys.executable, "-I", "-S", processes.__file__, str(os.getpid()), *left]
        with suppress(OSError):
            _c.prctl(_BE_PARENT_OF_ORPHANS, 1, 0, 0, 0)
            _c.waitpid(os.posix_spawn(sys.executable, command, os.environ), None, 0)
        os._exit(128 + number)


def _leave_to_the_parent() -> None:
    """In a forked process, such as a data loader's: signals to the whole group are the command's to heed."""
    signal.set_wakeup_fd(-1)  # the command would count them as its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


_command: _Command | None = None
_request: StopRequest | None = None  # of the run that goes on in the main thread
_of_thread: ContextVar[StopRequest | None] = ContextVar("of_thread", default=None)
_installed: dict[int, Any] = {}
_cleanups: list[Callable[[], object]] = []
_left_behind: list[Callable[[], Iterable[str]]] = []


def _install(number: int, handler: Any) -> Any:
    _installed[number] = handler
    return signal.signal(number, handler)


def take_over() -> None:
    """Let the signals end this process, which is a command, with the status 128 + the signal's number.

    Until `raising` or `heeded`, the first one ends it at once: nothing has to be cleaned up yet.
    """
    global _command
    _command = _Command()


def received() -> int:
    """Return the number of the first signal that the command got; 0 if none came."""
    return _command.number if _command is not None else 0


def conclude(words: str) -> None:
    """Say the last words of a command, or of a script's run, that a signal ended."""
    say(words)
    if _command is not None:
        _command.concluded = True


def end_of_command() -> int:
    """Say that a signal ended the command, unless that is said. Return its exit status."""
    number = received() or signal.SIGINT
    if _command is not None and not _command.concluded:
        conclude(told(number))
    return 128 + number


def told(number: int) -> str:
    """Say in words that a signal ended something.

    >>> told(15), told(2)
    ('ended by SIGTERM', 'interrupted')
    """
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


@contextmanager
def raising() -> Iterator[None]:
    """Let the command's first signal raise `KeyboardInterrupt` within the `with` block, so that files are put away."""
    if _command is None:
        yield
        return
    _command.raises = True
    try:
        yield
    finally:
        _command.raises = False


@contextmanager
def heeded(on_first: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Yield the request that the first signal makes within the `with` block. The second ends the process at once.

    `on_first` is called in the signal's handler. In a script the second signal raises the request's `error()`; handlers
    of the user's own are left alone, and so are all outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        with (_of_thread.get() or StopRequest()).calling(on_first) as request:
            yield request
        return
    if _request is not None:
        with _request.calling(on_first) as request:
            yield request
        return
    with _begun() as request, request.calling(on_first):
        yield request


@contextmanager
def heeding(request: StopRequest) -> Iterator[None]:
    """Let runs in this thread, which is not the main one, heed `request`: no signal reaches it."""
    token = _of_thread.set(request)
    try:
        yield
    finally:
        _of_thread.reset(token)


@contextmanager
def _begun() -> Iterator[StopRequest]:
    global _request
    request = _request = StopRequest()

    def handle(number: int, _frame: FrameType | None) -> None:
        if request.asked:
            raise request.error()
        request.make(number)

    before = {}
    if _command is None:
        before = {number: _install(number, handle) for number in ENDING if _is_nobodys(signal.getsignal(number))}
    try:
        yield request
    finally:
        _request = None
        for number, handler in before.items():
            del _installed[number]
            signal.signal(number, handler)


def _is_nobodys(handler: Any) -> bool:
    """Whether a handler is not the user's: the system's, Python's, or the one that `ray.init` installs."""
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    return str(getattr(handler, "__module__", "")).startswith("ray.")


def hold() -> None:
    """Install our handlers again: others, as Ray's for SIGTERM, may have replaced them. For the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in _installed.items():
            signal.signal(number, handler)


@contextmanager
def cleaning(clean_up: Callable[[], object]) -> Iterator[None]:
    """Call `clean_up` where the command's second signal ends the process within the `with` block."""
    _cleanups.append(clean_up)
    try:
        yield
    finally:
        _cleanups.remove(clean_up)


@contextmanager
def leaving(patterns: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Remove what matches these once the command's second signal has ended its processes, within the `with` block.

    Patterns are those of `glob`, where `**` is any number of folders. One that ends in a slash is for empty folders.
    """
    _left_behind.append(patterns)
    try:
        yield
    finally:
        _left_behind.remove(patterns)


def _clean_up() -> None:
    for clean_up in reversed(_cleanups):
        with suppress(Exception):
            clean_up()


def end_children_of_command() -> None:
    """Kill what is left of a command's processes. Does nothing in a script, whose processes are the user's."""
    if _command is not None:
        end_children()


def end_children() -> None:
    """Kill this process' children and theirs, until there are none."""
    for _ in range(5):
        found = descendants(os.getpid())
        kill(found)
        if not found:
            return


def write(text: str) -> None:
    """Write on standard error, past Python's buffers, in which a handler may have interrupted another message."""
    with suppress(OSError):
        os.write(_STANDARD_ERROR, text.encode())
