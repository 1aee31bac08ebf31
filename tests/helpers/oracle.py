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
    """What a method remembers: the anchor (d,), what is the same everywhere, and a row for each member, (m, d).

    `steps` are what each took in this round, over so many samples (`weights`); `start` is where each began it, `owed`
    the samples since all averaged.
    """

    anchor: Tensor
    shared: dict[str, Tensor] = field(default_factory=dict)
    local: Tensor = field(default_factory=lambda: torch.empty(0))
    steps: list[int] = field(default_factory=list)
    start: Tensor = field(default_factory=lambda: torch.empty(0))
    owed: Tensor = field(default_factory=lambda: torch.empty(0))
    weights: Tensor = field(default_factory=lambda: torch.empty(0))
    round: int = 0


Method = Callable[[Rows, Tensor, Memory, float], Rows]
"""(rows, p, memory, the round's first local rate) to the rows after the averaging; p sums to 1."""


def mean(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
    memory.anchor = p @ rows
    return memory.anchor.expand_as(rows)


def once(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
    memory.anchor = p @ rows
    return rows


def fednova(reach: Callable[[int], float]) -> Method:
    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        a = torch.tensor([reach(steps) or 1.0 for steps in memory.steps], dtype=rows.dtype)
        memory.anchor = memory.anchor - (p @ a) * ((p / a) @ (memory.anchor - rows))
        return memory.anchor.expand_as(rows)

    return method


def gossip(matrix: Callable[[int, int], Tensor]) -> Method:
    """X ← W y, where y has the round's steps scaled by m·p; the model is the mean."""

    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        y = memory.start + (len(rows) * p).unsqueeze(1) * (rows - memory.start)
        memory.anchor = y.mean(0)
        return matrix(memory.round, len(rows)) @ y

    return method


def ring(round: int, m: int) -> Tensor:
    """Metropolis weights: a third each, or halves for two."""
    w = torch.eye(m, dtype=torch.float64) if m == 1 else torch.zeros(m, m, dtype=torch.float64)
    for i in range(m if m > 1 else 0):
        for j in {(i - 1) % m, i, (i + 1) % m}:
            w[i, j] = 1 / min(m, 3)
    return w


def in_blocks(blocks: Callable[[int], list[int]]) -> Method:
    """Block means, by the round's samples."""

    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        after, number = rows.clone(), torch.tensor(blocks(len(rows)))
        owed = memory.owed + memory.weights
        for block in set(number.tolist()):
            mine = number == block
            if memory.weights[mine].sum() > 0:
                share = memory.weights[mine] / memory.weights[mine].sum()
                after[mine] = (share @ rows[mine]).expand_as(rows[mine])
            owed[mine] = owed[mine].mean()
        memory.owed = owed
        return after

    return method


def globally(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
    """The mean by samples since all averaged."""
    counts = memory.weights + memory.owed
    memory.owed = torch.zeros_like(counts)
    return mean(rows, counts / counts.sum(), memory, rate) if counts.sum() > 0 else rows


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


Carry = Callable[[Tensor], Tensor]
"""What arrives of a vector."""


def compressed(carry: Carry) -> Method:
    """x̄ ← anchor − Σ_i carried(p_i(anchor − x_i) + e_i), where e_i is what was left out before."""

    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        to_send = p.unsqueeze(1) * (memory.anchor - rows) + memory.local
        sent = torch.stack([carry(row) for row in to_send])
        memory.local = to_send - sent
        memory.anchor = memory.anchor - sent.sum(0)
        return memory.anchor.expand_as(rows)

    return method


def compressed_by_shards(carry: Carry) -> Method:
    """The same, where member r adds up shard r of what arrives, and its sum is carried once more."""

    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        m, d = rows.shape
        to_send = p.unsqueeze(1) * (memory.anchor - rows) + memory.local
        n = -(-d // m)
        padded = torch.nn.functional.pad(to_send, (0, m * n - d)).view(m, m, n)  # (from, to, n)
        sent = torch.stack([torch.stack([carry(part) for part in row]) for row in padded])
        sums = sent.sum(0)  # (to, n)
        again = torch.stack([carry(part) for part in sums])
        for r in range(m):
            sent[r, r] += again[r] - sums[r]
        memory.local = to_send - sent.view(m, -1)[:, :d]
        memory.anchor = memory.anchor - again.flatten()[:d]
        return memory.anchor.expand_as(rows)

    return method


def gathered_up_to(most: int, small: Method, large: Method) -> Method:
    """One method for up to `most` members, another for more."""
    return lambda rows, p, memory, rate: (small if len(rows) <= most else large)(rows, p, memory, rate)


def elastic_compressed(beta: float, carry: Carry) -> Method:
    """EASGD where both ends know the spring's length as it was carried; nothing is remembered."""

    def method(rows: Rows, p: Tensor, memory: Memory, rate: float) -> Rows:
        m, z = len(rows), memory.anchor
        sent = torch.stack([carry(row) for row in p.unsqueeze(1) * (z - rows)])
        memory.anchor = z - beta * sent.sum(0)
        moves = [s / w if w > 0 else z - x for s, w, x in zip(sent, p, rows, strict=True)]
        return rows + beta / m * torch.stack(moves)

    return method


def by_steps(vector: Tensor, steps: int = 127) -> Tensor:
    """Rounded to as many steps as there are between 0 and the largest magnitude."""
    unit = vector.abs().max() / steps
    return vector if unit == 0 else (vector / unit).round() * unit


def whole(vector: Tensor) -> Tensor:
    return vector


def largest(k: int) -> Carry:
    def carry(vector: Tensor) -> Tensor:
        chosen = vector.abs().topk(k).indices
        return torch.zeros_like(vector).index_copy(0, chosen, vector[chosen])

    return carry


def signs(sizes: Sequence[int]) -> Carry:
    return lambda vector: torch.cat(
        [(2 * (part >= 0).to(part) - 1) * part.abs().mean() for part in vector.split(list(sizes))]
    )


class Fleet:
    """Members by name, each a row; they come and go. Local steps are SGD's, with momentum `rho`."""

    def __init__(self, start: Tensor, method: Method, rho: float = 0.0) -> None:
        self.names: list[str] = []
        self.rows = start.new_empty(0, len(start))
        self.buffers = torch.empty_like(self.rows)
        self.memory = Memory(start.clone(), local=torch.empty_like(self.rows))
        self.method, self.rho = method, rho

    def have(self, names: Sequence[str], donor: str | None = None) -> None:
        """Those who are gone take their rows along; who is new begins at the anchor, with the donor's momentum."""
        rows = [self.rows[self.names.index(n)] if n in self.names else self.memory.anchor for n in names]
        given = self.buffers[self.names.index(donor)] if donor in self.names else torch.zeros_like(rows[0])
        buffers = [self.buffers[self.names.index(n)] if n in self.names else given for n in names]
        nothing = torch.zeros_like(rows[0])
        local = [self.memory.local[self.names.index(n)] if n in self.names else nothing for n in names]
        self.memory.local = torch.stack(local)
        owed = [self.memory.owed[self.names.index(n)] if n in self.names else torch.zeros(()) for n in names]
        self.memory.owed = torch.stack([value.to(rows[0]) for value in owed])
        self.names, self.rows, self.buffers = list(names), torch.stack(rows), torch.stack(buffers)

    def local_step(self, name: str, gradient: Callable[[Tensor], Tensor], rate: float) -> None:
        i = self.names.index(name)
        self.buffers[i] = self.rho * self.buffers[i] + gradient(self.rows[i])
        self.rows[i] = self.rows[i] - rate * self.buffers[i]

    def begin(self) -> None:
        """A round begins where the members are."""
        self.memory.start = self.rows.clone()

    def average(self, weights: Sequence[float], rate: float, method: Method | None = None) -> None:
        p = self.memory.weights = torch.tensor(weights, dtype=self.rows.dtype)
        p = p if p.sum() > 0 else torch.ones_like(p)
        self.memory.round += 1
        self.rows = (method or self.method)(self.rows, p / p.sum(), self.memory, rate).clone()
