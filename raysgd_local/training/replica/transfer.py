"""Send state to members that need it, by collectives of the view. All members take part."""

from __future__ import annotations

import torch

from raysgd_local.training.replica.plain_values import check_plain, from_bytes, to_bytes
from raysgd_local.training.replica.replica import Replica, check_local_state
from raysgd_local.transport.contract import Transport


def broadcast_bytes(transport: Transport, source: int, content: bytes) -> bytes:
    """Return the `content` of rank `source` on every member."""
    length = torch.tensor([len(content)], dtype=torch.int64, device=transport.device)
    transport.broadcast(length, source)
    if transport.rank == source:
        transport.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8).to(transport.device), source)
        return content
    buffer = torch.empty(int(length.item()), dtype=torch.uint8, device=transport.device)
    transport.broadcast(buffer, source)
    return buffer.cpu().numpy().tobytes()


def give_state(transport: Transport, source: int, receive: bool, replica: Replica) -> None:
    """Send a replica's shared state, and its local state as a start, from `source` to the members with `receive`."""
    own = transport.rank == source
    content = broadcast_bytes(transport, source, _whole(replica) if own else b"")
    if receive and not own:
        state = from_bytes(content)
        replica.load_shared_state(state["shared"])
        replica.load_local_state(state["local"], joining=True)
        replica.schedulers.load(state["local"]["schedulers"])


def give_local_state(transport: Transport, source: int, receive: bool, replica: Replica) -> None:
    """Send the local state (optimizers, loss scale) from `source` to the members with `receive`."""
    own = transport.rank == source
    content = broadcast_bytes(transport, source, _local(replica) if own else b"")
    if receive and not own:
        replica.load_local_state(from_bytes(content), joining=True)


def _whole(replica: Replica) -> bytes:
    state = {"shared": replica.shared_state(), "local": replica.local_state()}
    check_plain(state["shared"], "state")
    check_local_state(state["local"])
    return to_bytes(state)


def _local(replica: Replica) -> bytes:
    state = replica.local_state()
    check_local_state(state)
    return to_bytes(state)
