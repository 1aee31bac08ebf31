"""Compare small records of all members: usually all are equal, and only their checksums are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from zlib import crc32

import torch

from raysgd_local.errors import InputError
from raysgd_local.transport.contract import Transport


def gathered(transport: Transport, own: object) -> list[object] | None:
    """Return every member's record (JSON), in rank order; None if all are equal. Raises `TransportError`."""
    content = json.dumps(own).encode()
    heads = transport.all_gather(_on(transport, _head(content))).cpu()  # (members, 8)
    if bool((heads == heads[0]).all()):
        return None
    longest = max(int.from_bytes(bytes(head[:4].tolist()), "big") for head in heads)
    padded = transport.all_gather(_on(transport, content.ljust(longest))).cpu()  # (members, longest)
    return [json.loads(bytes(row.tolist())) for row in padded]


def _head(content: bytes) -> bytes:
    """Length and checksum."""
    return len(content).to_bytes(4, "big") + crc32(content).to_bytes(4, "big")


def _on(transport: Transport, content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).to(transport.device)


def check_alike(transport: Transport, own: Mapping[str, str]) -> None:
    """Check that all members have prepared the same: `own` describes this member's parts, by name.

    A vector of another length could not be averaged, in this view or in any other. Raises `InputError`, on all members
    alike, with the first part that differs and its ranks; and `TransportError`.
    """
    found = gathered(transport, dict(own))
    if found is None:
        return
    parts: list[dict[str, str]] = [dict(one) for one in found]  # type: ignore[call-overload]
    names = sorted(dict.fromkeys(name for part in parts for name in part), key=_of_an_optimizer)
    name = next((n for n in names if len({part.get(n) for part in parts}) > 1), None)
    ranks: dict[str, list[int]] = {}
    for rank, part in enumerate(parts):
        ranks.setdefault(part.get(name, "missing") if name else ", ".join(list(part)[:3]), []).append(rank)
    told = "; ".join(f"{value} on {_named(where)}" for value, where in ranks.items())
    hint = "every worker averages the same model, by the same optimizers"
    raise InputError(name or "order of parameters", told, "the same on all workers", hint)


def _of_an_optimizer(name: str) -> bool:
    """Optimizers come last: one differs wherever its parameters do."""
    return name.startswith("optimizer")


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"
