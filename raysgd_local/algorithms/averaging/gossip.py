"""Gossip: members average only with their neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.averaging.base import Averaging

Topology = Literal["ring", "torus", "exponential", "pairs", "complete"]


@dataclass(frozen=True)
class Gossip(Averaging):
    """Average each member with its neighbours; members stay apart.

        x_i ← Σ_j W_ij x_j,  W_ij = 1/(1 + max(degree_i, degree_j)) between neighbours, W_ii the rest

    Topologies: `ring`; `torus` (a ring if the number of workers is prime); `exponential`: one peer per round, at
    distance 1, 2, 4, … in turn, which gives the exact mean after log₂ m rounds if m is a power of 2; `pairs`: drawn
    at random each round; `complete`: all members, the exact mean.

    W is symmetric, so it conserves the unweighted mean of the members. **That mean is the model**: it is computed
    exactly when it is evaluated, saved, or given to a joiner. If members have unequal numbers of samples, each one's
    step of the round is scaled by m·p_i first.

    Lian, Zhang, Zhang, Hsieh, Zhang, Liu, "Can Decentralized Algorithms Outperform Centralized Algorithms?", NeurIPS
    2017 [K]; Jin, Yuan, Iandola, Keutzer, "How to Scale Distributed Deep Learning?", 2016 [S] (pairs); Metropolis
    weights: Xiao & Boyd 2004 [K].

    >>> [sorted(Gossip("exponential").neighbours(0, round, 8)) for round in range(4)]
    [[1], [2], [4], [1]]
    """

    topology: Topology = "ring"
    scope = "neighbours"

    def __post_init__(self) -> None:
        validation.one_of("topology", self.topology, get_args(Topology))

    def blocks(self, nodes: tuple[str, ...]) -> tuple[int, ...]:
        """Return one block: every member's steps reach all others in the end."""
        return (0,) * len(nodes)

    def neighbours(self, rank: int, round: int, workers: int) -> frozenset[int]:
        others = {
            "ring": _ring,
            "torus": _torus,
            "exponential": _exponential,
            "pairs": _pairs,
            "complete": _complete,
        }[self.topology](rank, round, workers)
        return frozenset(others) - {rank}


def _ring(rank: int, round: int, workers: int) -> set[int]:  # noqa: ARG001
    return {(rank - 1) % workers, (rank + 1) % workers}


def _torus(rank: int, round: int, workers: int) -> set[int]:
    rows = max(n for n in range(1, math.isqrt(workers) + 1) if workers % n == 0)
    columns = workers // rows
    row, column = divmod(rank, columns)
    down = {other * columns + column for other in _ring(row, round, rows)}
    return down | {row * columns + other for other in _ring(column, round, columns)}


def _exponential(rank: int, round: int, workers: int) -> set[int]:
    peer = rank ^ 1 << round % max(1, (workers - 1).bit_length())
    return {peer} if peer < workers else set()


def _pairs(rank: int, round: int, workers: int) -> set[int]:
    order = np.random.default_rng(round).permutation(workers).tolist()
    place = order.index(rank) ^ 1
    return {order[place]} if place < workers else set()


def _complete(rank: int, round: int, workers: int) -> set[int]:  # noqa: ARG001
    return set(range(workers))


def mixing(averaging: Averaging, rank: int, round: int, healthy: tuple[bool, ...]) -> Mapping[int, float]:
    """Return rank's row of W, by rank, including its own entry. Members that are not healthy have no neighbours.

    >>> mixing(Gossip("ring"), 0, 1, (True, True, True, False))
    {1: 0.3333333333333333, 0: 0.6666666666666667}
    """
    near = {r: _healthy(averaging, r, round, healthy) for r in range(len(healthy))}
    row = {peer: 1 / (1 + max(len(near[rank]), len(near[peer]))) for peer in sorted(near[rank])}
    return {**row, rank: 1 - math.fsum(row.values())}


def _healthy(averaging: Averaging, rank: int, round: int, healthy: tuple[bool, ...]) -> set[int]:
    if not healthy[rank]:
        return set()
    peers = averaging.neighbours(rank, round, len(healthy)) or ()
    return {peer for peer in peers if healthy[peer]}
