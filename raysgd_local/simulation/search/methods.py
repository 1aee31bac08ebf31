"""Apply each method to a model that is a number: from all members' numbers to each member's result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import mixing
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.simulation.engine.violation import violated

BLOCK_MOMENTUM = 0.5
_GRAIN = 1 / 64


@dataclass(frozen=True)
class NumberMember:
    """One member's input to a round's averaging."""

    x: float  # its number now
    start: float  # its number at the round's begin
    residual: float  # of compression
    weight: float  # in the mean
    samples: int
    ill: bool  # its state is not finite


@dataclass(frozen=True)
class Moved:
    """The result of a round's averaging."""

    anchor: float
    velocity: float  # momentum of the outer step
    own: tuple[float, ...]  # each rank's number
    residuals: tuple[float, ...]  # of each rank
    apart: bool | None  # members' numbers may differ from the anchor; None: as before


def move(
    algorithm: Algorithm,
    anchor: float,
    velocity: float,
    members: Sequence[NumberMember],
    extent: Extent,
    round: int,
    stay: bool,
    rejoin: bool = False,
) -> Moved:
    """Average parameters. With `stay` members keep their numbers and only learn the mean; with `rejoin` that ends."""
    coupling = algorithm.averaging.coupling(len(members))
    if algorithm.averaging.gossips and not stay:
        return _gossip(algorithm, anchor, velocity, members, extent, round)
    if not extent.whole:
        return Moved(anchor, velocity, _block_means(members, extent.blocks), _residuals(members), apart=True)
    shares = extent.shares or _by_weight(members)
    if not any(shares) and rejoin and coupling is None:
        return Moved(anchor, velocity, (anchor,) * len(members), _residuals(members), apart=False)
    if not any(shares):
        return Moved(anchor, velocity, tuple(m.x for m in members), _residuals(members), apart=None)
    arrived = [_sent(algorithm, anchor, m, share) for m, share in zip(members, shares, strict=True)]
    mean = anchor - math.fsum(sent for sent, _ in arrived)
    residuals = tuple(left for _, left in arrived)
    if coupling is not None and not stay:
        own = tuple(anchor if m.ill else m.x - coupling.pull * (m.x - anchor) for m in members)
        return Moved(anchor + coupling.push * (mean - anchor), velocity, own, residuals, apart=True)
    if stay:
        return Moved(mean, velocity, tuple(mean if m.ill else m.x for m in members), residuals, apart=True)
    after, velocity = _outer(algorithm, anchor, velocity, _stretched(algorithm, anchor, mean, members))
    return Moved(after, velocity, (after,) * len(members), residuals, apart=False)


def _by_weight(members: Sequence[NumberMember]) -> tuple[float, ...]:
    total = math.fsum(m.weight for m in members)
    return tuple(m.weight / total if total else 0.0 for m in members)


def _residuals(members: Sequence[NumberMember]) -> tuple[float, ...]:
    return tuple(m.residual for m in members)


def _sent(algorithm: Algorithm, anchor: float, member: NumberMember, share: float) -> tuple[float, float]:
    """Return the compressed message of a member's step, and its new residual."""
    step = 0.0 if member.ill else share * (anchor - member.x)
    if algorithm.compression is None or algorithm.averaging.coupling(1) is not None:
        return step, 0.0
    step += member.residual
    sent = round(step / _GRAIN) * _GRAIN
    return sent, step - sent


def _stretched(algorithm: Algorithm, anchor: float, mean: float, members: Sequence[NumberMember]) -> float:
    stretch = algorithm.weights.stretch([m.samples for m in members], [m.weight for m in members])
    return anchor + stretch * (mean - anchor)


def _outer(algorithm: Algorithm, anchor: float, velocity: float, mean: float) -> tuple[float, float]:
    if algorithm.outer is None:
        return mean, 0.0
    velocity = BLOCK_MOMENTUM * velocity + anchor - mean
    return anchor - velocity, velocity


def _block_means(members: Sequence[NumberMember], blocks: Sequence[int]) -> tuple[float, ...]:
    found = []
    for block, member in zip(blocks, members, strict=True):
        mine = [m for b, m in zip(blocks, members, strict=True) if b == block]
        total = math.fsum(m.weight for m in mine)
        found.append(math.fsum(m.weight * m.x for m in mine) / total if total else member.x)
    return tuple(found)


def _gossip(
    algorithm: Algorithm,
    anchor: float,
    velocity: float,
    members: Sequence[NumberMember],
    extent: Extent,
    round: int,
) -> Moved:
    healthy = tuple(not m.ill for m in members)
    total, count = math.fsum(m.weight for m in members), sum(healthy)
    scales = [count * m.weight / total if total else 1.0 for m in members]
    stepped = [m.start + s * (m.x - m.start) if not m.ill else 0.0 for m, s in zip(members, scales, strict=True)]
    own = []
    for rank in range(len(members)):
        row = mixing(algorithm.averaging, rank, round, healthy)
        own.append(math.fsum(weight * stepped[peer] for peer, weight in row.items()))
    if not math.isclose(math.fsum(own), math.fsum(stepped), abs_tol=1e-9):
        violated("1: gossip conserves the mean", f"{stepped} became {own}")
    mean = math.fsum(stepped) / count if extent.whole and count else anchor
    own = [x if well else mean for x, well in zip(own, healthy, strict=True)]
    return Moved(mean, velocity, tuple(own), _residuals(members), apart=True)
