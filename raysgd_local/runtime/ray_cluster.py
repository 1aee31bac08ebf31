"""The Ray cluster of a run: an existing one, or one on this machine for the time of the run."""

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
    """Attach to a Ray cluster within the `with` block, or start one with `cpus` logical CPUs. Yield whether it started.

    Raises `InputError` if there is no cluster at `address`.
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
    """Raise `InputError` if nothing listens at `host:port`. Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise InputError("address", address, "the address of a running Ray cluster", str(error)) from error
