"""Where members listen: which of a machine's addresses, which ports."""

from __future__ import annotations

import socket

import pytest
from fleets import ProcessFleet

from raysgd_local.errors import InputError, TransportError
from raysgd_local.transport import listening
from raysgd_local.transport.listening import Listening, chosen, listener, own_address, with_listener_in

FOUND = {"lo": ["127.0.0.1", "::1"], "eth0": ["fd00::5", "10.0.0.5", "10.0.0.6"], "tun0": []}


@pytest.mark.parametrize(
    ("wanted", "address"),
    [
        (Listening(), "10.0.0.9"),  # Ray's, whatever it is
        (Listening(interface="eth0"), "10.0.0.5"),
        (Listening(interface="lo"), "127.0.0.1"),
        (Listening(subnet="fd00::/8"), "fd00::5"),
        (Listening(subnet="10.0.0.6/32"), "10.0.0.6"),
        (Listening(interface="eth0", subnet="10.0.0.0/8"), "10.0.0.5"),
    ],
)
def test_a_machines_address_is_chosen_by_interface_and_network(wanted, address):
    assert chosen(wanted, "10.0.0.9", FOUND) == address


def test_rays_own_address_is_taken_where_it_will_do():
    assert chosen(Listening(interface="eth0"), "10.0.0.6", FOUND) == "10.0.0.6"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Listening(interface="eth1"), "network.interface: 'eth1' .* one of lo, eth0, tun0"),
        (Listening(interface="tun0"), "network.interface: 'tun0' .*it has none"),
        (Listening(subnet="192.168.0.0/16"), "network.subnet: .*it has 127.0.0.1, ::1, fd00::5"),
        (Listening(interface="lo", subnet="10.0.0.0/8"), "network.subnet: .*it has 127.0.0.1, ::1[)]"),
    ],
)
def test_where_a_machine_has_no_such_address_that_is_told(wanted, message):
    with pytest.raises(InputError, match=message):
        chosen(wanted, "10.0.0.5", FOUND)


def test_this_machine_has_a_loopback():
    assert own_address(Listening(subnet="127.0.0.0/8"), "10.0.0.9") == "127.0.0.1"


def test_ports_that_the_system_never_gives_out_are_refused(tmp_path, monkeypatch):
    port_range = tmp_path / "range"
    port_range.write_text("32768\t60999\n")
    monkeypatch.setattr(listening, "_PORT_RANGE", port_range)
    own_address(Listening(ports=(46_784, 62_000)), "10.0.0.9")
    with pytest.raises(InputError, match="network.first_port: 46785 .* 32768 to 46883"):
        own_address(Listening(ports=(46_785, 62_000)), "10.0.0.9")


def test_the_stores_port_is_the_first_free_one():
    with listener("127.0.0.1", None) as other:
        first = other.getsockname()[1]
        with listener("127.0.0.1", (first, first + 50)) as own:
            assert first < own.getsockname()[1] <= first + 50
        with pytest.raises(InputError, match="network.first_port"):
            listener("127.0.0.1", (first, first))


def some_of_the_systems_ports() -> tuple[int, int]:
    first, last = map(int, listening._PORT_RANGE.read_text().split())
    quarter = (3 * first + last) // 4
    return quarter, quarter + 499


def test_a_listener_keeps_to_its_ports():
    first, last = some_of_the_systems_ports()
    made, own = with_listener_in((first, last), lambda: socket.create_server(("127.0.0.1", 0)))
    with made:
        assert first <= own.port <= last


def test_ports_that_never_come_are_an_error(monkeypatch):
    monkeypatch.setattr(listening, "_TRIES", 3)
    with pytest.raises(TransportError, match="no port"):
        with_listener_in((1, 2), lambda: socket.create_server(("127.0.0.1", 0)))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_members_that_keep_to_their_ports_meet(address):
    ports = some_of_the_systems_ports()
    fleet = ProcessFleet(2, address=address, ports=ports)
    try:
        fleet.form(2)
        heard = [outcome.value for outcome in fleet.all("listeners", [()] * 2)]
        assert [len(found) for found in heard] == [1, 1]
        assert all(host == address and ports[0] <= port <= ports[1] for ((host, port),) in heard)
    finally:
        fleet.stop()
