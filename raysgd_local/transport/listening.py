"""Choose the address and ports at which members listen."""

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
LOOPBACK = "127.0.0.0/8"
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # the system's ephemeral ports, for IPv6 too
_TRIES = 5_000  # one in 141 tries hits 100 given ports, among those that Linux assigns first by default


@dataclass(frozen=True)
class Listening:
    """The user's choice among a machine's addresses and ports. None leaves it open."""

    interface: str | None = None  # network interface to listen on
    subnet: str | None = None  # subnet of the address; with neither, the address that Ray has for the node
    ports: tuple[int, int] | None = None  # first and last port; None: any port that the system assigns


def own_address(listening: Listening, default: str) -> str:
    """Return this machine's address to listen at; `default` is the one that Ray has for it.

    Raises `InputError` if the machine has no such address, or its system doesn't assign enough of the ports.
    """
    _check_ports(listening.ports, _PORT_RANGE)
    return chosen(listening, default, _addresses())


def chosen(listening: Listening, default: str, addresses: Mapping[str, Sequence[str]]) -> str:
    """Choose among a machine's `addresses` (by interface): `default` if it fits, otherwise IPv4 before IPv6.

    >>> found = {"eth0": ["10.0.0.5", "fd00::5"], "eth1": ["192.168.1.5"]}
    >>> chosen(Listening(), "10.0.0.5", found), chosen(Listening(interface="eth1"), "10.0.0.5", found)
    ('10.0.0.5', '192.168.1.5')
    >>> chosen(Listening(subnet="fd00::/8"), "10.0.0.5", found)
    'fd00::5'

    Raises `InputError` if none fits.
    """
    interface, subnet = listening.interface, listening.subnet
    if interface is None and subnet is None:
        return default
    if interface is not None and interface not in addresses:
        raise InputError("network.interface", interface, f"one of {', '.join(addresses)} on this machine")
    there = [found for name, listed in addresses.items() if interface in (None, name) for found in listed]
    fitting = [found for found in there if subnet is None or _is_within(found, subnet)]
    if not fitting:
        field, value = ("subnet", subnet) if subnet is not None else ("interface", interface)
        hint = f"it has {', '.join(there) or 'none'}"
        raise InputError(f"network.{field}", value, f"a {field} in which this machine has an address", hint)
    return default if default in fitting else min(fitting, key=lambda found: ipaddress.ip_address(found).version)


def _is_within(address: str, subnet: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)


def _addresses() -> dict[str, list[str]]:
    """Return this machine's addresses by interface, without those that need an interface name (IPv6 link-local)."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [one.address for one in listed if one.family in families and "%" not in one.address]
        for name, listed in psutil.net_if_addrs().items()
    }


def _check_ports(ports: tuple[int, int] | None, port_range: Path) -> None:
    """Raise `InputError` if the system assigns too few of `ports`: gloo can't ask for a port, only try again."""
    if ports is None or not port_range.exists():
        return
    first, last = _assigned_first(*map(int, port_range.read_text().split()))
    if min(last, ports[1]) - max(first, ports[0]) + 1 < FEWEST_PORTS:
        allowed = (
            f"at least {FEWEST_PORTS} of the ports {first} to {last}, which this machine's system assigns first"
        )
        hint = "see `sysctl net.ipv4.ip_local_port_range`"
        raise InputError("network.first_port", ports[0], allowed, hint)


def _assigned_first(low: int, high: int) -> tuple[int, int]:
    """The ports that Linux tries first for a socket with SO_REUSEADDR, such as gloo's: the lower half of the range
    (`inet_csk_find_open_port` in the kernel).
    """
    return low, low + ((high + 1 - low) >> 2 << 1) - 1


def listener(address: str, ports: tuple[int, int] | None) -> socket.socket:
    """Open a listening socket. Raises `InputError` if all `ports` are in use."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in _candidates(ports):
        try:
            return socket.create_server((address, port), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise InputError("network.first_port", ports and ports[0], "a range with a free port on the driver's machine")


def _candidates(ports: tuple[int, int] | None) -> Iterator[int]:
    yield from [0] if ports is None else range(ports[0], ports[1] + 1)


def with_listener_in(ports: tuple[int, int] | None, make: Callable[[], T]) -> tuple[T, Address]:
    """Run `make`, which opens one listening socket on a port that the system chooses, until that is within `ports`.

    Raises `TransportError` if it never is.
    """
    for _ in range(_TRIES):
        made, own = with_listener(make)
        if ports is None or ports[0] <= own.port <= ports[1]:
            return made, own
        del made
    raise TransportError(f"the system assigned no port within {ports} in {_TRIES} tries")


def nccl_environment(address: str, listening: Listening) -> dict[str, str]:
    """Return the environment variables that make NCCL use the interface with `address`, if the user chose one."""
    if listening.interface is None and listening.subnet is None:
        return {}
    return {"NCCL_SOCKET_IFNAME": "=" + next(name for name, listed in _addresses().items() if address in listed)}
