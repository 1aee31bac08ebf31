"""Names of metrics: such as can be written, and the same on all members."""

from __future__ import annotations

from typing import Any

import torch

from raysgd_local.errors import UsageError
from raysgd_local.training.exchange.alike import gathered
from raysgd_local.transport.contract import Transport

Names = tuple[str, ...]


def checked(name: object) -> str:
    """Return the name as a string. Raises `UsageError` for one that no file could hold."""
    text = str(name)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(
            f"the metric {text!r} needs a name that can be written: without NUL and single surrogates"
        )
    return text


def agreed(transport: Transport, own: Names) -> Names:
    """Return the names of all members, sorted. All members call it with their own. Raises `TransportError`."""
    found: Any = gathered(transport, own)
    return own if found is None else tuple(sorted({name for names in found for name in names}))


def gather_bytes(transport: Transport, content: bytes) -> list[bytes]:
    """Return every member's `content`, in rank order; their lengths may differ. Raises `TransportError`."""
    heads = transport.all_gather(_on(transport, len(content).to_bytes(8, "big"))).cpu()  # (members, 8)
    lengths = [int.from_bytes(head.numpy().tobytes(), "big") for head in heads]
    padded = transport.all_gather(_on(transport, content.ljust(max(lengths)))).cpu()  # (members, longest)
    return [row[:length].numpy().tobytes() for row, length in zip(padded, lengths, strict=True)]


def _on(transport: Transport, content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(transport.device)
