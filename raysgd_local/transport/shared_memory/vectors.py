"""Vectors in memory that other processes of the same machine can read, without copies through the kernel.

A member writes only its own memory and reads that of others, so that an evicted member can't disturb the rest. The
memory has no name in the file system: it is freed when the last process that maps it ends, however that ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from raysgd_local.transport.shared_memory.board import Board

_BLOCK = 1 << 16  # elements; a block and an addend fit into a core's second-level cache


def host_identity() -> str:
    """Return a string that is equal for processes that can share memory: one boot of one kernel, one network and
    process namespace.
    """
    with open("/proc/sys/kernel/random/boot_id") as boot:
        spaces = [os.stat(f"/proc/self/ns/{space}").st_ino for space in ("net", "pid")]
        return f"{boot.read().strip()}-{spaces[0]}-{spaces[1]}"


class SharedVector:
    """A vector of zeros that other processes can map."""

    def __init__(self, numel: int, dtype: torch.dtype) -> None:
        nbytes = numel * dtype.itemsize
        self.fd = os.memfd_create("raysgd-local", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, nbytes)
        weakref.finalize(self, os.close, self.fd)
        self.memory = _in_large_pages(mmap.mmap(self.fd, nbytes))
        self.tensor = torch.frombuffer(self.memory, dtype=dtype)


@dataclass(frozen=True)
class VectorLocation:
    """Where a member's vector lies in its shared memory."""

    index: int  # of the shared vector
    start: int  # byte in the shared vector


NOWHERE = VectorLocation(-1, -1)


class PeerMemory:
    """The shared vectors of all members of a view, and the board on which they meet.

    `own`: this member's vectors, the last of which holds its words on the board. `offers`: by rank, the texts
    (see `offer`) with which to map the peers' vectors.
    """

    def __init__(
        self,
        rank: int,
        own: Sequence[SharedVector],
        offers: Sequence[str],
        timeout_s: float,
        stands: Callable[[], bool],
    ) -> None:
        self._rank = rank
        maps = [
            [vector.memory for vector in own] if peer == rank else _map_offer(offer)
            for peer, offer in enumerate(offers)
        ]
        self._vectors = [[_tensor(memory) for memory in memories[:-1]] for memories in maps]
        words = [memoryview(memories[-1]).cast("q") for memories in maps]
        self._board = Board(rank, words, timeout_s, stands)

    def meet(self, flat: torch.Tensor) -> list[VectorLocation]:
        """Wait for all members to come with a vector, and return each one's location (`NOWHERE` if not shared)."""
        place = self._find(flat)
        self._board.say(place.index, place.start)
        self._board.meet()
        return [VectorLocation(*said) for said in self._board.said()]

    def _find(self, flat: torch.Tensor) -> VectorLocation:
        for index, vector in enumerate(self._vectors[self._rank]):
            start = flat.data_ptr() - vector.data_ptr()
            if start >= 0 and start + flat.nbytes <= vector.nbytes:
                return VectorLocation(index, start)
        return NOWHERE

    def all_reduce(self, flat: torch.Tensor, places: Sequence[VectorLocation]) -> None:
        """Sum the members' vectors, which lie at `places`, into `flat`: each member sums one part, then copies the
        others' parts.

        Raises `TransportError` if a member fails; then `flat` is spoilt.
        """
        vectors = [
            self._vectors[rank][place.index][place.start : place.start + flat.nbytes].view(flat.dtype)
            for rank, place in enumerate(places)
        ]
        parts = [_parts(vector, len(vectors)) for vector in vectors]
        _add_blocks(parts[self._rank][self._rank], [p[self._rank] for r, p in enumerate(parts) if r != self._rank])
        self._board.meet()
        for rank, part in enumerate(parts[self._rank]):
            if rank != self._rank:
                part.copy_(parts[rank][rank])
        self._board.check_complete()
        self._board.meet()

    def leave(self) -> None:
        """Leave the view. Call it before this member's vectors are used for anything else."""
        self._board.leave()


def offer(vectors: Sequence[SharedVector]) -> str:
    """Describe the vectors for peers that map them: `pid fd:bytes fd:bytes …`."""
    return " ".join([str(os.getpid()), *(f"{v.fd}:{v.tensor.nbytes}" for v in vectors)])


def _map_offer(text: str) -> list[mmap.mmap]:
    pid, *vectors = text.split()
    return [_map(int(pid), *map(int, vector.split(":"))) for vector in vectors]


def _map(pid: int, fd: int, nbytes: int) -> mmap.mmap:
    own_fd = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _in_large_pages(mmap.mmap(own_fd, nbytes, prot=mmap.PROT_READ))
    finally:
        os.close(own_fd)


def _in_large_pages(memory: mmap.mmap) -> mmap.mmap:
    """Ask for large pages, which save page-table walks; systems that don't support them ignore it."""
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _tensor(memory: mmap.mmap) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.frombuffer(memory, dtype=torch.uint8)


def _parts(vector: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Cut a vector into `count` slices of nearly equal size (some may be empty)."""
    bounds = [vector.numel() * i // count for i in range(count + 1)]
    return [vector[low:high] for low, high in pairwise(bounds)]


def _add_blocks(total: torch.Tensor, others: Sequence[torch.Tensor]) -> None:
    for start in range(0, total.numel(), _BLOCK):
        block = total[start : start + _BLOCK]
        for other in others:
            block += other[start : start + _BLOCK]
