"""Where members listen: at which of a machine's addresses, on which ports."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from raysgd_local.errors import InputError, TransportError
from raysgd_local.transport.gloo.sockets import Address, with_listener

T = TypeVar("T")

FEWEST_PORTS = 100
_GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")  # for IPv6 too
_TRIES = 5_000  # a hundred ports are one in 141 of what Linux gives out first


@dataclass(frozen=True)
class Listening:
    """`interface` and `subnet` choose among a machine's addresses, `ports` (first and last) among its ports.

    None leaves the choice to Ray (the address that it has for the node) and to the system (any port).
    """

    interface: str | None = None
    subnet: str | None = None
    ports: tuple[int, int] | None = None


def own_address(listening: Listening, default: str) -> str:
    """This machine's address to listen at; `default` is the one that Ray has for it.

    Raises `InputError` where it has no such address, or its system gives out no such ports.
    """
    _check_ports(listening.ports, _GIVEN_OUT)
    return chosen(listening, default, _addresses())


def chosen(listening: Listening, default: str, addresses: Mapping[str, Sequence[str]]) -> str:
    """Of a machine's `addresses` by interface: `default` where it will do, otherwise IPv4 before IPv6.

    >>> found = {"eth0": ["10.0.0.5", "fd00::5"], "eth1": ["192.168.1.5"]}
    >>> chosen(Listening(), "10.0.0.5", found), chosen(Listening(interface="eth1"), "10.0.0.5", found)
    ('10.0.0.5', '192.168.1.5')
    >>> chosen(Listening(subnet="fd00::/8"), "10.0.0.5", found)
    'fd00::5'

    Raises `InputError` where none will do.
    """
    interface, subnet = listening.interface, listening.subnet
    if interface is None and subnet is None:
        return default
    if interface is not None and interface not in addresses:
        raise InputError("network.interface", interface, f"one of {', '.join(addresses)} on this machine")
    there = [found for name, listed in addresses.items() if interface in (None, name) for found in listed]
    fitting = [found for found in there if subnet is None or _within(found, subnet)]
    if not fitting:
        field, value = ("subnet", subnet) if subnet is not None else ("interface", interface)
        raise InputError(f"network.{field}", value, "where this machine has an address", f"it has {_told(there)}")
    return default if default in fitting else min(fitting, key=lambda found: ipaddress.ip_address(found).version)


def _within(address: str, subnet: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)


def _told(addresses: Sequence[str]) -> str:
    return ", ".join(addresses) or "none"


def _addresses() -> dict[str, list[str]]:
    """All of this machine's, but those that mean nothing without an interface (IPv6 link-local)."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [one.address for one in listed if one.family in families and "%" not in one.address]
        for name, listed in psutil.net_if_addrs().items()
    }


def _check_ports(ports: tuple[int, int] | None, given_out: Path) -> None:
    """Raise `InputError` where the system gives out too few of `ports`: gloo takes what it gives."""
    if ports is None or not given_out.exists():
        return
    first, last = _given_out_first(*map(int, given_out.read_text().split()))
    if min(last, ports[1]) - max(first, ports[0]) + 1 < FEWEST_PORTS:
        allowed = (
            f"at least {FEWEST_PORTS} ports of {first} to {last}, which this machine's system gives out first"
        )
        raise InputError("network.first_port", ports[0], allowed, "sysctl net.ipv4.ip_local_port_range says which")


def _given_out_first(low: int, high: int) -> tuple[int, int]:
    """To a socket that may use an address again, as gloo's, Linux gives one of the lower half while there are any
    (`inet_csk_find_open_port`)."""
    return low, low + ((high + 1 - low) >> 2 << 1) - 1


def listener(address: str, ports: tuple[int, int] | None) -> socket.socket:
    """A listening socket. Raises `InputError` where all `ports` are taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in _candidates(ports):
        try:
            return socket.create_server((address, port), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise InputError(
        "network.first_port", ports and ports[0], "ports of which one is free on the driver's machine"
    )


def _candidates(ports: tuple[int, int] | None) -> Iterator[int]:
    yield from [0] if ports is None else range(ports[0], ports[1] + 1)


def with_listener_in(ports: tuple[int, int] | None, make: Callable[[], T]) -> tuple[T, Address]:
    """Run `make`, whose one listening socket gets a port of the system's choice, until that is one of `ports`."""
    for _ in range(_TRIES):
        made, own = with_listener(make)
        if ports is None or ports[0] <= own.port <= ports[1]:
            return made, own
        del made
    raise TransportError(f"the system gave no port from {ports} in {_TRIES} tries")


def nccl_environment(address: str, listening: Listening) -> dict[str, str]:
    """What tells NCCL to use the interface that has `address`, where one was chosen."""
    if listening.interface is None and listening.subnet is None:
        return {}
    return {"NCCL_SOCKET_IFNAME": "=" + next(name for name, listed in _addresses().items() if address in listed)}
