"""A view of one member: every collective is the identity."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import torch

from raysgd_local.errors import TransportError


class SoloTransport:
    """The transport of a view with one member. Fails after `cut` or `close`, as others do."""

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self._ended = ""

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:  # noqa: ARG002
        self._check()
        deque(ready, maxlen=0)

    def broadcast(self, flat: torch.Tensor, source: int) -> None:  # noqa: ARG002
        self._check()

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        self._check()
        return content.unsqueeze(0)

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        self._check()
        return rows

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self._check()
        return list(parts)

    def wire_bytes(self) -> int:
        return 0

    def cut(self) -> None:
        self._ended = self._ended or "cut"

    def close(self) -> None:
        self._ended = self._ended or "closed"

    def _check(self) -> None:
        if self._ended:
            raise TransportError(f"the view was {self._ended}")
