"""The Ray cluster of a run: one that is there, or one on this machine for as long as the run takes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from raysgd_local.errors import InputError


@contextmanager
def attached(cpus: int, address: str | None) -> Iterator[bool]:
    """A Ray cluster; true if it is our own, with `cpus` logical CPUs on this machine, and ends with what runs in it.

    Raises `InputError` where no cluster is at `address`.
    """
    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    _check_address(address)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                "local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
    except ConnectionError as error:
        raise InputError("address", address, "the address of a running Ray cluster", str(error)) from error
    try:
        yield not address
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raise `InputError` where nobody listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise InputError("address", address, "the address of a running Ray cluster", str(error)) from error
