"""The whole fleet as rows of one tensor (m, d): each method in its shortest readable form, to judge the engine by.

Nothing here is shared with the package. A fleet takes local steps; a method is a function of the rows after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Rows = Tensor  # (m, d)


@dataclass
class Memory:
    """What a method remembers: the anchor (d,), what is the same everywhere, and a row for each member."""

    anchor: Tensor
    shared: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, dict[str, Tensor]] = field(default_factory=dict)


Method = Callable[[Rows, Tensor, Memory, float], Rows]
"""(rows, p, memory, the round's first local rate) to the rows after the averaging; p sums to 1."""


def mean(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
    memory.anchor = p @ rows
    return memory.anchor.expand_as(rows)


def once(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
    memory.anchor = p @ rows
    return rows


def elastic(beta: float) -> Method:
    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        m, z = len(rows), memory.anchor
        alpha = beta / m
        memory.anchor = z + alpha * m * (p @ (rows - z))
        return rows - alpha * (rows - z)

    return method


def heavy_ball(
    zeta: float,
    b: Callable[[int], float],
    nesterov: bool = False,
    unit: Callable[[float], float] = lambda rate: 1.0,
) -> Method:
    """V ← b·v + g/unit; anchor ← anchor − ζ·unit·(v, or the look-ahead)."""

    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        g = (memory.anchor - p @ rows) / unit(rate)
        if b(len(rows)) == 0:
            memory.shared.clear()
            return mean(rows, p, memory, rate)
        v = memory.shared["v"] = b(len(rows)) * memory.shared.get("v", torch.zeros_like(g)) + g
        move = g + b(len(rows)) * v if nesterov else v
        memory.anchor = memory.anchor - zeta * unit(rate) * move
        return memory.anchor.expand_as(rows)

    return method


def adam(lr: float, beta1: float, beta2: float, eps: float) -> Method:
    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        g, s = memory.anchor - p @ rows, memory.shared
        t = s["t"] = s.get("t", torch.zeros(())) + 1
        s["m"] = beta1 * s.get("m", 0 * g) + (1 - beta1) * g
        s["v"] = beta2 * s.get("v", 0 * g) + (1 - beta2) * g**2
        m, v = s["m"] / (1 - beta1**t), s["v"] / (1 - beta2**t)
        memory.anchor = memory.anchor - lr * m / (v.sqrt() + eps)
        return memory.anchor.expand_as(rows)

    return method


def max_change(limit: float) -> Method:
    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        g = memory.anchor - p @ rows
        memory.anchor = memory.anchor - g * min(1.0, limit / float(g.norm()))
        return memory.anchor.expand_as(rows)

    return method


class Fleet:
    """Members by name, each a row; they come and go. Local steps are SGD's, with momentum `rho`."""

    def __init__(self, start: Tensor, method: Method, rho: float = 0.0) -> None:
        self.names: list[str] = []
        self.rows = start.new_empty(0, len(start))
        self.buffers = torch.empty_like(self.rows)
        self.memory = Memory(start.clone())
        self.method, self.rho = method, rho

    def have(self, names: Sequence[str], donor: str | None = None) -> None:
        """Those who are gone take their rows along; who is new begins at the anchor, with the donor's momentum."""
        rows = [self.rows[self.names.index(n)] if n in self.names else self.memory.anchor for n in names]
        given = self.buffers[self.names.index(donor)] if donor in self.names else torch.zeros_like(rows[0])
        buffers = [self.buffers[self.names.index(n)] if n in self.names else given for n in names]
        self.names, self.rows, self.buffers = list(names), torch.stack(rows), torch.stack(buffers)

    def local_step(self, name: str, gradient: Callable[[Tensor], Tensor], rate: float) -> None:
        i = self.names.index(name)
        self.buffers[i] = self.rho * self.buffers[i] + gradient(self.rows[i])
        self.rows[i] = self.rows[i] - rate * self.buffers[i]

    def average(self, weights: Sequence[float], rate: float, method: Method | None = None) -> None:
        p = torch.tensor(weights, dtype=self.rows.dtype)
        self.rows = (method or self.method)(self.rows, p / p.sum(), self.memory, rate).clone()
