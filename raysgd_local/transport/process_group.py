"""Members that are processes: views over `torch.distributed`'s process groups, without its global state."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Literal

import torch
from torch._C._distributed_c10d import TCPStore

from raysgd_local.errors import InputError, TransportError
from raysgd_local.transport.contract import Transport
from raysgd_local.transport.gloo.transport import open_gloo
from raysgd_local.transport.nccl import open_nccl
from raysgd_local.transport.rendezvous import Rendezvous
from raysgd_local.transport.shared_memory.vectors import SharedVector
from raysgd_local.transport.solo import SoloTransport
from raysgd_local.transport.store_clients import StoreClients

Backend = Literal["gloo", "nccl"]


class ProcessGroupNetwork:
    """Connects processes into views through one store for the whole run.

    `store` is a client of the run's `TCPStore`; `prefix` names run and incarnation. `address` is this machine's, as
    others reach it (IPv4, IPv6 or a host name): gloo listens there and nowhere else, on `ports` (first and last) where
    they are given. `device` is this member's
    GPU, for NCCL. With `shared_memory`, large vectors from `allocate` don't pass through sockets between members
    that are all on one machine.
    """

    def __init__(
        self,
        store: TCPStore,
        address: str,
        prefix: str,
        formation_timeout_s: float = 30.0,
        collective_timeout_s: float = 300.0,
        backend: Backend = "gloo",
        device: torch.device | None = None,
        shared_memory: bool = True,
        ports: tuple[int, int] | None = None,
    ) -> None:
        if backend not in ("gloo", "nccl"):
            raise InputError("backend", backend, "gloo, nccl")
        if backend == "nccl" and (device is None or device.type != "cuda"):
            raise InputError("device", device, "with nccl, the CUDA device that this member has to itself")
        if backend == "nccl" and ports is not None:
            raise InputError("ports", ports, "none with nccl, which takes any")
        self._store, self._address, self._prefix, self._ports = store, address, prefix, ports
        self._clients = StoreClients(store, formation_timeout_s)
        self._formation_timeout_s, self._collective_timeout_s = formation_timeout_s, collective_timeout_s
        self._device = device if backend == "nccl" and device else torch.device("cpu")
        shareable = shared_memory and self._device.type == "cpu" and hasattr(os, "memfd_create")
        self._vectors: list[SharedVector] | None = [] if shareable else None
        self._lock = threading.Lock()
        self._burned: set[int] = set()
        self._open: dict[int, Transport] = {}

    def allocate(self, numel: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Zeros where this network's collectives are fastest. Call it before `connect`; lasts as long as the network.

        Only a few vectors for the whole run are meant: they are never given back.
        """
        if self._vectors is None or numel == 0:
            return torch.zeros(numel, dtype=dtype, device=self._device)
        self._vectors.append(SharedVector(numel, dtype))
        return self._vectors[-1].tensor

    def connect(self, view: int, rank: int, world_size: int) -> Transport:
        """Join view `view`; see `Network`. A view that failed or was cut stays burned on this member."""
        self._forget_views_before(view)
        transport = SoloTransport(self._device) if world_size == 1 else self._form(view, rank, world_size)
        with self._lock:
            if view not in self._burned:
                self._open[view] = transport
                return transport
        transport.close()
        raise TransportError(f"view {view} was cut")

    def cut(self, view: int) -> None:
        with self._lock:
            self._burned.add(view)
            transport = self._open.get(view)
        if transport is not None:
            transport.cut()

    def _form(self, view: int, rank: int, world_size: int) -> Transport:
        prefix = f"{self._prefix}/{view}"
        rendezvous = Rendezvous(
            self._store, prefix, rank, world_size, self._formation_timeout_s, lambda: self._is_cut(view)
        )
        try:
            return self._open_group(rendezvous)
        except (TransportError, RuntimeError) as error:
            self._give_up(view, rendezvous, error)
            raise TransportError(f"view {view}: {error}") from error

    def _open_group(self, rendezvous: Rendezvous) -> Transport:
        if self._device.type == "cuda":
            return open_nccl(rendezvous, self._clients, self._device, self._collective_timeout_s)
        return open_gloo(
            rendezvous, self._clients, self._address, self._collective_timeout_s, self._vectors, self._ports
        )

    def _give_up(self, view: int, rendezvous: Rendezvous, error: Exception) -> None:
        with self._lock:
            self._burned.add(view)
        with contextlib.suppress(RuntimeError):  # the store may be gone too
            rendezvous.fail(str(error))

    def _is_cut(self, view: int) -> bool:
        with self._lock:
            return view in self._burned

    def _forget_views_before(self, view: int) -> None:
        with self._lock:
            self._burned = {number for number in self._burned if number >= view}
            self._open = {number: transport for number, transport in self._open.items() if number >= view}
