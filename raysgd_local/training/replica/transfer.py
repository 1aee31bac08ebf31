"""Sending state to members that have none, over the view's own collectives."""

from __future__ import annotations

import torch

from raysgd_local.training.replica.replica import Replica, from_bytes, to_bytes
from raysgd_local.transport.contract import Transport


def broadcast_bytes(transport: Transport, source: int, content: bytes) -> bytes:
    """What rank `source` gives as `content`, on every member. All members take part."""
    length = torch.tensor([len(content)], dtype=torch.int64, device=transport.device)
    transport.broadcast(length, source)
    if transport.rank == source:
        transport.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8).to(transport.device), source)
        return content
    buffer = torch.empty(int(length.item()), dtype=torch.uint8, device=transport.device)
    transport.broadcast(buffer, source)
    return buffer.cpu().numpy().tobytes()


def give_state(transport: Transport, source: int, receive: bool, replica: Replica) -> None:
    """All of a replica to those that `receive`: the model, and the donor's local state to start with."""
    own = transport.rank == source
    state = {"shared": replica.shared_state(), "local": replica.local_state()} if own else {}
    content = broadcast_bytes(transport, source, to_bytes(state) if own else b"")
    if receive and not own:
        state = from_bytes(content)
        replica.load_shared_state(state["shared"])
        replica.load_local_state(state["local"], joining=True)


def give_local_state(transport: Transport, source: int, receive: bool, replica: Replica) -> None:
    """The source's optimizer state and loss scale to those that `receive`."""
    own = transport.rank == source
    content = broadcast_bytes(transport, source, to_bytes(replica.local_state()) if own else b"")
    if receive and not own:
        replica.load_local_state(from_bytes(content), joining=True)
