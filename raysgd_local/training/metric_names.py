"""Names of metrics: such as can be written, and the same on all members."""

from __future__ import annotations

import json
from zlib import crc32

import torch

from raysgd_local.errors import UsageError
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
    content = json.dumps(own).encode()
    heads = transport.all_gather(_on(transport, _head(content))).cpu()  # (members, 8)
    if bool((heads == heads[0]).all()):
        return own
    return tuple(sorted({name for told in gather_bytes(transport, content) for name in json.loads(told)}))


def gather_bytes(transport: Transport, content: bytes) -> list[bytes]:
    """Return every member's `content`, in rank order; their lengths may differ. Raises `TransportError`."""
    heads = transport.all_gather(_on(transport, len(content).to_bytes(8, "big"))).cpu()  # (members, 8)
    lengths = [int.from_bytes(head.numpy().tobytes(), "big") for head in heads]
    padded = transport.all_gather(_on(transport, content.ljust(max(lengths)))).cpu()  # (members, longest)
    return [row[:length].numpy().tobytes() for row, length in zip(padded, lengths, strict=True)]


def _head(content: bytes) -> bytes:
    """Length and checksum: usually all are equal, and the names need not be sent."""
    return len(content).to_bytes(4, "big") + crc32(content).to_bytes(4, "big")


def _on(transport: Transport, content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(transport.device)
