"""A transport over gloo: TCP between machines, shared memory if all members are processes of one machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import AllgatherOptions, AllToAllOptions, PrefixStore, Store

from raysgd_local.errors import TransportError
from raysgd_local.transport.gloo.peer_watch import PeerWatch
from raysgd_local.transport.gloo.sockets import Address, Wires
from raysgd_local.transport.listening import with_listener_in
from raysgd_local.transport.rendezvous import Rendezvous
from raysgd_local.transport.shared_memory.board import WORDS
from raysgd_local.transport.shared_memory.vectors import NOWHERE, PeerMemory, SharedVector, host_identity, offer
from raysgd_local.transport.store_clients import StoreClients
from raysgd_local.transport.wire_volume import all_reduce_bytes

_CPU = torch.device("cpu")

# A vector is sent in parts, each a collective of its own: a small first part starts early, large ones cost less
# overhead. At most `_AHEAD` parts are written before the first of them has arrived: sending needs the processor too.
_FIRST_PART, _LARGEST_PART, _AHEAD = 1 << 17, 1 << 19, 4  # elements, elements, parts

# Interval between checks whether the connections are still open.
_PATIENCE = timedelta(milliseconds=100)


def open_gloo(
    rendezvous: Rendezvous,
    clients: StoreClients,
    address: str,
    timeout_s: float,
    shared: list[SharedVector] | None,
    ports: tuple[int, int] | None = None,
) -> GlooTransport:
    """Form the group, once the rendezvous shows that all members are there: gloo's own wait can't be interrupted.

    `shared`: vectors to share with members on the same machine; None keeps the view on TCP.
    `ports`: first and last port to listen on; None for any.
    """
    device, own = with_listener_in(ports, lambda: dist.ProcessGroupGloo.create_device(hostname=address))
    words = rendezvous.meet("address", f"{own.host} {own.port}")
    addresses = [Address(host, int(port)) for host, port in map(str.split, words)]
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices, options._timeout = [device], timedelta(seconds=rendezvous.timeout_s)

    def make() -> Any:
        with clients.borrow() as client:
            store = PrefixStore(f"{rendezvous.prefix}/gloo", client)
            return dist.ProcessGroupGloo(store, rendezvous.rank, rendezvous.world_size, options)

    group = rendezvous.build(make, _forget)
    wires = Wires(own, [address for peer, address in enumerate(addresses) if peer != rendezvous.rank])
    memory = _share(rendezvous, shared, timeout_s, wires)
    return GlooTransport(group, wires, timeout_s, Goodbyes(rendezvous.store), memory)


def _forget(group: Any) -> None:
    """Do nothing: an unreferenced group closes itself."""


def _share(
    rendezvous: Rendezvous, shared: list[SharedVector] | None, timeout_s: float, wires: Wires
) -> PeerMemory | None:
    """Map the members' shared memory, or return None unless all are on one machine and can read each other's."""
    hosts = rendezvous.meet("host", host_identity() if shared else f"rank {rendezvous.rank} alone")
    if shared is None or len(set(hosts)) > 1:
        return None
    own = [*shared, SharedVector(WORDS, torch.int64)]
    offers = rendezvous.meet("offer", offer(own))
    try:
        memory = PeerMemory(rendezvous.rank, own, offers, timeout_s, lambda: not wires.broken)
    except OSError:  # not permitted here
        memory = None
    able = rendezvous.meet("mapped", str(memory is not None))
    return memory if "False" not in able else None


class Goodbyes:
    """A counter, in the view's part of the store, of members that left the view cleanly."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def say(self) -> None:
        with contextlib.suppress(RuntimeError):  # without a store the others assume a failure: harmless
            self._store.add("goodbyes", 1)

    def count(self) -> int:
        return int(self._store.add("goodbyes", 0))


class GlooTransport:
    """A member's side of one gloo group.

    gloo's `abort` does nothing: to interrupt a collective, this class shuts the group's sockets down. Gloo misses
    even that sometimes (about one time in a hundred with 5 members), so a wait is also abandoned soon after.
    """

    device = _CPU

    def __init__(
        self, group: Any, wires: Wires, timeout_s: float, goodbyes: Goodbyes, memory: PeerMemory | None = None
    ) -> None:
        self.rank, self.world_size = group.rank(), group.size()
        self._group, self._wires, self._memory = group, wires, memory
        self._goodbyes, self._watch = goodbyes, PeerWatch(wires, goodbyes.count)
        self._timeout = timedelta(seconds=timeout_s)
        self._shared_bytes = 0
        self._cut = False

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        pieces = _Pieces(ready)
        try:
            self._run(lambda: self._all_reduce(flat, pieces), "all-reduce")
        except TransportError:
            pieces.check()
            raise

    def broadcast(self, flat: torch.Tensor, source: int) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.timeout = source, self._timeout
        content = flat.view(torch.uint8)  # gloo does not know all dtypes
        self._run(lambda: self._wait(self._group.broadcast([content], options)), "broadcast")

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        rows = content.new_empty(self.world_size, content.numel())
        options = AllgatherOptions()
        options.timeout = self._timeout
        self._run(lambda: self._wait(self._group.allgather([list(rows)], [content], options)), "all-gather")
        return rows

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        theirs = torch.empty_like(rows)
        options = AllToAllOptions()
        options.timeout = self._timeout
        self._run(lambda: self._wait(self._group.alltoall_base(theirs, rows, [], [], options)), "all-to-all")
        return theirs

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        given, sizes = torch.cat(list(parts)), [part.numel() for part in parts]
        theirs = torch.empty_like(given)
        options = AllToAllOptions()
        options.timeout = self._timeout
        self._run(lambda: self._wait(self._group.alltoall_base(theirs, given, sizes, sizes, options)), "swap")
        return list(torch.split(theirs, sizes))

    def wire_bytes(self) -> int:
        """Measure at the sockets. Reads of shared memory count as if the bytes had been sent."""
        return self._wires.sent() + self._shared_bytes

    def cut(self) -> None:
        self._cut = True
        self._wires.shut()

    def close(self) -> None:
        if self._group is not None and not self._cut:
            self._goodbyes.say()
        self._release()

    def _release(self) -> None:
        if self._memory is not None:
            self._memory.leave()
        self._watch.stop()
        self._wires.close()
        self._group = self._memory = None

    def _run(self, collective: Callable[[], object], what: str) -> None:
        if self._group is None or self._cut:
            self._release()
            raise TransportError(f"{what}: the view was {'cut' if self._cut else 'closed'}")
        try:
            collective()
        except (RuntimeError, TransportError) as error:
            self._release()  # at once: the others learn of the failure from the closed sockets
            cause = "the view was cut" if self._cut else str(error).splitlines()[0]
            raise TransportError(f"{what} failed on rank {self.rank}: {cause}") from error

    def _all_reduce(self, flat: torch.Tensor, ready: Iterable[int]) -> None:
        memory = self._memory
        if memory is None:
            return self._sum(flat, ready)
        deque(ready, maxlen=0)
        places = memory.meet(flat)
        if NOWHERE in places:
            return self._sum(flat)
        memory.all_reduce(flat, places)
        self._shared_bytes += all_reduce_bytes(flat.nbytes, self.world_size)
        return None

    def _sum(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        """Start each part's all-reduce as soon as it is written."""
        options = dist.AllreduceOptions()
        options.timeout = self._timeout
        works = []
        try:
            for part in _parts(flat, ready):
                works.append(self._group.allreduce([part], options))
                if len(works) >= _AHEAD:
                    self._wait(works[-_AHEAD])
            for work in works:
                self._wait(work)
        except (RuntimeError, TransportError):
            self._drain(works)
            raise

    def _drain(self, works: list[Any]) -> None:
        """Wait until gloo no longer writes into the vector after a failure: its owner will use it again."""
        self._wires.shut()
        for work in works:
            with contextlib.suppress(RuntimeError, TransportError):
                self._wait(work)

    def _wait(self, work: Any) -> None:
        while True:
            hopeless = self._wires.broken
            try:
                work.wait(_PATIENCE)
                return
            except RuntimeError:
                if work.is_completed():
                    work.wait()  # raises if the collective failed, rather than only our wait timed out
                    return
            if hopeless:
                threading.Thread(target=_bury, args=(self._group, work), daemon=True, name="view-burial").start()
                raise TransportError("the connections are gone")


class _Pieces:
    """Draws from `ready`, and keeps an exception of it: that is one of the state being written, not of the network."""

    def __init__(self, ready: Iterable[int]) -> None:
        self._ready = ready
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[int]:
        try:
            yield from self._ready
        except Exception as error:
            self._error = error
            raise TransportError("this member's state could not be written") from error

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def _parts(flat: torch.Tensor, ready: Iterable[int]) -> Iterator[torch.Tensor]:
    """Yield `flat` in growing parts as they become ready, with the same boundaries on all members."""
    begin, least = 0, _FIRST_PART
    for end in ready:
        os.sched_yield()  # let gloo's threads send the parts that are already written
        if end - begin >= least:
            yield flat[begin:end]
            begin, least = end, min(2 * least, _LARGEST_PART)
    yield flat[begin:]


def _bury(group: Any, work: Any) -> None:  # noqa: ARG001
    """Keep a reference to a group with a collective that hangs, until it times out: freeing it earlier would block."""
    with contextlib.suppress(RuntimeError):
        work.wait()
