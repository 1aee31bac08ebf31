"""The TCP connections of one gloo group: found reliably, measured, and shut down from any thread.

Gloo doesn't expose its sockets. Each view has its own listening socket, whose address members publish; the group's
connections are those with a published address at one end. We hold duplicates of their descriptors: after gloo
closes its own, another thread may get the same descriptor number for something else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from raysgd_local.errors import TransportError

T = TypeVar("T")

# `tcpi_bytes_sent` and `tcpi_bytes_retrans` in Linux' struct tcp_info (since 4.19). Retransmissions are subtracted:
# they depend on the network and the machine's load, and methods are compared by the bytes that they send.
_BYTES_SENT, _TCP_INFO_SIZE = 200, 216


class Address(NamedTuple):
    """One end of a TCP connection."""

    host: str
    port: int


def with_listener(make: Callable[[], T]) -> tuple[T, Address]:
    """Run `make`, which opens exactly one listening TCP socket, and return its result and that socket's address.

    If another thread opens a listening socket in the same moment, the two can't be told apart: `make` runs again.
    Raises `TransportError` if that happens ten times.
    """
    for _ in range(10):
        before = _listening()
        made = make()
        new = {inode: address for inode, address in _listening().items() if inode not in before}
        if len(new) == 1:
            return made, next(iter(new.values()))
        del made
    raise TransportError("could not tell which listening socket is gloo's")


def _listening() -> dict[int, Address]:
    found = {}
    for sock in _tcp_sockets():
        with sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found[os.fstat(sock.fileno()).st_ino] = _address(sock.getsockname())
    return found


def _tcp_sockets() -> Iterator[socket.socket]:
    """Yield duplicates of this process's TCP sockets. The caller closes them."""
    seen = set()  # a duplicate may get a descriptor number that comes later in the listing
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
            if not stat.S_ISSOCK(status.st_mode) or status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed by another thread meanwhile
            continue
        if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
            yield sock
        else:
            sock.close()


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    return Address(name[0], name[1])


class Wires:
    """The connections between this member, which listens at `own`, and the others, which listen at `others`."""

    def __init__(self, own: Address, others: Sequence[Address]) -> None:
        self._lock = threading.Lock()
        self._sockets = [sock for sock in _tcp_sockets() if _keep(sock, own, others)]
        self._sent = 0
        self.broken = False
        found = len(self._sockets)
        if found != len(others):
            self.close()
            raise TransportError(f"found {found} connections to {len(others)} other members")

    def descriptors(self) -> list[int]:
        with self._lock:
            return [sock.fileno() for sock in self._sockets]

    def sent(self) -> int:
        """Return the bytes sent over the connections so far, or until `close`."""
        with self._lock:
            if self._sockets:
                self._sent = sum(_bytes_sent(sock) for sock in self._sockets)
            return self._sent

    def shut(self) -> None:
        """Shut the connections down, so that waits on either end fail. Any thread may call."""
        self.broken = True
        with self._lock:
            for sock in self._sockets:
                _shut(sock)

    def close(self) -> None:
        self.sent()
        self.shut()
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets = []


def _keep(sock: socket.socket, own: Address, others: Sequence[Address]) -> bool:
    try:
        if _address(sock.getsockname()) == own or _address(sock.getpeername()) in others:
            sock.getpeername()  # raises for a listening socket: shutting that down makes gloo end the process
            return True
    except OSError:
        pass
    sock.close()
    return False


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other end may have closed it already
        sock.shutdown(socket.SHUT_RDWR)


def _bytes_sent(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    if len(info) < _TCP_INFO_SIZE:
        return 0
    sent, again = struct.unpack_from("=QQ", info, _BYTES_SENT)
    return int(sent - again)
