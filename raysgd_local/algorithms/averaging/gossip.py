"""Gossip: members average with their neighbours only."""

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
    """Each round a member averages with its neighbours, and members stay apart:

        x_i ← Σ_j W_ij x_j,  W_ij = 1/(1 + max(degree_i, degree_j)) between neighbours, W_ii the rest

    `ring`; `torus` (a ring where the number of workers is prime); `exponential`: one peer a round, at distance 1, 2, 4,
    … in turn, exact after log₂ m rounds where m is a power of 2; `pairs` drawn anew each round; `complete`: the mean.
    W is symmetric, so the unweighted mean is conserved: **it is the model**, taken exactly where it is evaluated,
    saved, or given to a joiner. With unequal samples a member's step of the round is scaled by m·p_i before.

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
        """What everyone did reaches everyone in the end."""
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
    """Rank's row of W, itself included; those who are not healthy are nobody's neighbours.

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
