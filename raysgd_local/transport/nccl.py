"""A transport over NCCL, for views in which every member has a GPU of its own."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from raysgd_local.errors import TransportError
from raysgd_local.transport.rendezvous import Rendezvous
from raysgd_local.transport.store_clients import StoreClients
from raysgd_local.transport.wire_volume import (
    all_gather_bytes,
    all_reduce_bytes,
    all_to_all_bytes,
    broadcast_bytes,
    swap_bytes,
)

# When NCCL's own watchdog times out, it ends the process. So it never does, and this transport checks the time itself.
_NEVER = timedelta(days=365)
_POLL_S = 0.0001


def open_nccl(
    rendezvous: Rendezvous, clients: StoreClients, device: torch.device, timeout_s: float
) -> NcclTransport:
    """Form the group, once the rendezvous shows that all members are there."""
    rendezvous.meet("device", str(device))

    def make() -> Any:
        # After an error NCCL ends the process by default; with 2 it only cleans up the communicator.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = _NEVER
        with clients.borrow() as client, torch.cuda.device(device):
            store = PrefixStore(f"{rendezvous.prefix}/nccl", client)
            group = dist.ProcessGroupNCCL(store, rendezvous.rank, rendezvous.world_size, options)
            group.eager_connect_single_device(device)
        return group

    return NcclTransport(rendezvous.build(make, lambda group: group.abort()), device, timeout_s)


class NcclTransport:
    """A member's side of one NCCL communicator. `wire_bytes` uses the formulas of a ring: NCCL reports no counts."""

    def __init__(self, group: Any, device: torch.device, timeout_s: float) -> None:
        self.rank, self.world_size, self.device = group.rank(), group.size(), device
        self._group, self._timeout_s = group, timeout_s
        self._sent, self._cut = 0, False

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        deque(ready, maxlen=0)
        self._run(lambda group: group.allreduce([flat]), "all-reduce")
        self._sent += all_reduce_bytes(flat.nbytes, self.world_size)

    def broadcast(self, flat: torch.Tensor, source: int) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = source
        content = flat.view(torch.uint8)
        self._run(lambda group: group.broadcast([content], options), "broadcast")
        self._sent += broadcast_bytes(flat.nbytes, self.world_size, self.rank, source)

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        rows = content.new_empty(self.world_size, content.numel())
        self._run(lambda group: group._allgather_base(rows, content), "all-gather")
        self._sent += all_gather_bytes(content.nbytes, self.world_size)
        return rows

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        theirs = torch.empty_like(rows)
        self._run(lambda group: group.alltoall_base(theirs, rows, [], []), "all-to-all")
        self._sent += all_to_all_bytes(rows.nbytes, self.world_size)
        return theirs

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        given, sizes = torch.cat(list(parts)), [part.numel() for part in parts]
        theirs = torch.empty_like(given)
        self._run(lambda group: group.alltoall_base(theirs, given, sizes, sizes), "swap")
        self._sent += swap_bytes(sizes, self.rank)
        return list(torch.split(theirs, sizes))

    def wire_bytes(self) -> int:
        return self._sent

    def cut(self) -> None:
        self._cut = True  # the thread that polls sees it and aborts the group

    def close(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _run(self, collective: Callable[[Any], Any], what: str) -> None:
        if self._group is None or self._cut:
            self.close()
            raise TransportError(f"{what}: the view was {'cut' if self._cut else 'closed'}")
        try:
            with torch.cuda.device(self.device):
                self._wait(collective(self._group))
        except (RuntimeError, TransportError) as error:
            self.close()
            raise TransportError(f"{what} failed on rank {self.rank}: {str(error).splitlines()[0]}") from error

    def _wait(self, work: Any) -> None:
        """Poll, because a blocking wait for a GPU whose peer has died never returns."""
        deadline_s = time.monotonic() + self._timeout_s
        while not work.is_completed():
            if self._cut:
                raise TransportError("the view was cut")
            if time.monotonic() > deadline_s:
                raise TransportError(f"no result after {self._timeout_s} s")
            time.sleep(_POLL_S)
        work.wait()
