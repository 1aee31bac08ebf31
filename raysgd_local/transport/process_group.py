"""A network between processes: views are `torch.distributed` process groups, without its global state."""

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
    """Connect processes into views through one store for the whole run.

    `store`: client of the run's `TCPStore`. `prefix`: name of run and incarnation, for keys in the store.
    `address`: of this machine, as others reach it (IPv4, IPv6 or a host name); gloo listens only there.
    `ports`: first and last port to listen on; None for any (gloo only).
    `device`: this member's GPU (NCCL only).
    `shared_memory`: if all members are on one machine, sum vectors from `allocate` there and not through sockets.

    Raises `InputError` for an unknown backend, nccl without a CUDA device, and nccl with ports.
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
            raise InputError("device", device, "with nccl, a CUDA device that no other member uses")
        if backend == "nccl" and ports is not None:
            raise InputError("ports", ports, "none with nccl, which chooses its ports itself")
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
        """Return zeros in memory for which this network's collectives are fastest. Call it before `connect`.

        Use it for a few vectors that last for the whole run: they are never freed.
        """
        if self._vectors is None or numel == 0:
            return torch.zeros(numel, dtype=dtype, device=self._device)
        self._vectors.append(SharedVector(numel, dtype))
        return self._vectors[-1].tensor

    def connect(self, view: int, rank: int, world_size: int) -> Transport:
        """Join a view (see `Network`). This member can't use the number of a failed or cut view again."""
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
