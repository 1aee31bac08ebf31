"""Choose the exchange of a method."""

from __future__ import annotations

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.compressed import CompressedReduction
from raysgd_local.training.exchange.delayed import DelayedPartialReduction, DelayedReduction
from raysgd_local.training.exchange.partial import PartialReduction
from raysgd_local.training.exchange.plain import Allocate, Reduction


def make_reduction(state: ReplicaState, allocate: Allocate, members: int, algorithm: Algorithm) -> Reduction:
    """Return the exchange of this method, with slots for `members`."""
    return _kind(algorithm)(state, allocate, members, algorithm)


def _kind(algorithm: Algorithm) -> type[Reduction]:
    if algorithm.delayed:
        return DelayedPartialReduction if algorithm.partial else DelayedReduction
    if algorithm.partial:
        return PartialReduction
    return Reduction if algorithm.compression is None else CompressedReduction
