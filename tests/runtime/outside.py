"""Methods that know the package only by its protocols: one of each kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raysgd_local.algorithms.averaging import Averaging
from raysgd_local.algorithms.outer import OuterStep
from raysgd_local.algorithms.placement import ChunkPlacement
from raysgd_local.algorithms.schedules import Observation, Period
from raysgd_local.algorithms.weights import Weights
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class CountingState:
    period: Period


@dataclass(frozen=True)
class Counting:
    """The next round is one step longer."""

    first: int = 1

    def init(self) -> CountingState:
        return CountingState(Period(self.first, why="the first"))

    def next(self, state: CountingState, seen: Observation) -> CountingState:
        return CountingState(Period(state.period.tau + 1, why="one more"))

    def restore(self, plain: dict) -> CountingState:
        return from_plain(CountingState, plain)


@dataclass(frozen=True)
class Star(Averaging):
    """Gossip through the middle: rank 0 is everybody's neighbour."""

    scope = "neighbours"

    def blocks(self, nodes: tuple[str, ...]) -> tuple[int, ...]:
        return (0,) * len(nodes)

    def neighbours(self, rank: int, round: int, workers: int) -> frozenset[int]:
        return frozenset(range(1, workers)) if rank == 0 else frozenset({0})


@dataclass(frozen=True)
class HalfWay:
    """The anchor goes half of the mean step."""

    def step(self, workers: int, lr: float) -> OuterStep:
        return OuterStep("SGD", {"lr": 0.5})


@dataclass(frozen=True)
class Truncated:
    """bfloat16."""

    memory: bool = True
    fine = True

    def encode(self, vector, sizes, seed):
        return (vector.to(torch.bfloat16),)

    def decode(self, parts, sizes, seed):
        return parts[0].to(torch.float64)


@dataclass(frozen=True)
class Everywhere(ChunkPlacement):
    """Everyone has everything."""

    chunks: int = 6

    def copies_among(self, workers: int) -> int:
        return workers


@dataclass(frozen=True)
class Equal(Weights):
    """One member, one vote."""

    def weight(self, samples: int, reach: float) -> float:
        return 1.0 if samples else 0.0

    def stretch(self, samples, weights) -> float:
        return 1.0
