"""Straggler balancing: slower workers take fewer steps of a round, so that all finish it at the same time.

This is part of the replicated state: it depends on reduced values alone, so all members compute the same shares.
Shares change only after a clear and lasting imbalance, so that workers of equal speed are not affected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Control

_LEAST, _MOST = 1 / 16, 2.0  # bounds of a share
_EVEN = 1.15  # a speed within this factor of the typical one counts as typical


@dataclass(frozen=True)
class Balance:
    """Settings of straggler balancing. Shares change if one is wrong in two consecutive windows of measurement."""

    apart: float = 1.3  # a share is wrong if the measured speed differs from it by more than this factor
    window_rounds: int = 4  # least rounds of a window
    window_s: float = 1.5  # least seconds of a window
    hopeless: float = 8.0  # a worker this many times slower than the typical one is let go


@dataclass(frozen=True)
class Pace:
    """The measured speed of one rank, and its share of the steps."""

    share: float = 1.0  # of the period: its steps per round, relative to τ
    compute_s: float = 0.0  # time of its steps in the present window
    steps: int = 0  # its steps in the present window
    off: bool = False  # its share was wrong in the previous window
    lost: bool = False  # it was hopelessly slow in the previous window
    hopeless: bool = False  # it was hopelessly slow in two consecutive windows: to be let go


@dataclass(frozen=True)
class Pacing:
    """The pace of each rank of the present view, and the length of the present window."""

    paces: tuple[Pace, ...] = ()  # by rank; empty before the first round
    rounds: int = 0  # rounds of the present window
    seconds: float = 0.0  # training time of the present window
    changed: bool = False  # whether shares changed since the open epoch was dealt

    def steps(self, tau: int, rank: int) -> int:
        """Return the number of steps of `rank` in a round of period `tau`: at least one.

        >>> Pacing((Pace(), Pace(share=0.3))).steps(8, rank=1)
        2
        """
        return max(1, round(tau * self.paces[rank].share)) if self.paces else tau

    def parts(self, tau: int) -> tuple[float, ...]:
        """Return each rank's share of `tau` after rounding to whole steps.

        Data are dealt by these shares: if they were dealt by the unrounded ones, a rank whose share was rounded down
        would have data left at the end of an epoch, and train alone.

        >>> Pacing((Pace(), Pace(share=0.56))).parts(8)
        (1.0, 0.5)
        """
        return tuple(self.steps(tau, rank) / tau for rank in range(len(self.paces)))

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(pace.share for pace in self.paces)


EVEN = Pacing()


def paced(pacing: Pacing, control: Control, balance: Balance, mode: Mode) -> Pacing:
    """Return the pacing after a round. Averaging gradients needs equal steps: there it only finds hopeless workers."""
    paces = pacing.paces or tuple(Pace() for _ in control.members)
    paces = tuple(
        replace(pace, compute_s=pace.compute_s + said.compute_s, steps=pace.steps + said.steps)
        if said.steps
        else pace
        for pace, said in zip(paces, control.members, strict=True)
    )
    pacing = replace(pacing, paces=paces, rounds=pacing.rounds + 1, seconds=pacing.seconds + control.clock_s)
    if pacing.rounds < balance.window_rounds or pacing.seconds < balance.window_s:
        return pacing
    return _judged(pacing, balance, mode)


def _judged(pacing: Pacing, balance: Balance, mode: Mode) -> Pacing:
    """Return the pacing after a window, with the next one begun. A rank that took no step keeps its share's speed."""
    paces, speeds = pacing.paces, _speeds(pacing.paces)
    ratios = [speed / pace.share for speed, pace in zip(speeds, paces, strict=True)]
    off = [
        mode in ("parameters", "partial") and not 1 / balance.apart <= ratio <= balance.apart for ratio in ratios
    ]
    lost = [speed * balance.hopeless < 1 for speed in speeds]
    act = any(now and pace.off for now, pace in zip(off, paces, strict=True))
    after = tuple(
        Pace(
            share=_share(speeds[rank]) if act else pace.share,
            off=off[rank] and not act,
            lost=lost[rank],
            hopeless=lost[rank] and pace.lost,
        )
        for rank, pace in enumerate(paces)
    )
    changed = [pace.share for pace in after] != [pace.share for pace in paces]
    return Pacing(after, changed=pacing.changed or changed)


def _speeds(paces: tuple[Pace, ...]) -> list[float]:
    """Return each rank's speed relative to the typical worker: the one with the lower median step time."""
    step_s = [pace.compute_s / pace.steps if pace.compute_s else 0.0 for pace in paces if pace.steps]
    if len(step_s) < 2 or min(step_s) <= 0:
        return [pace.share for pace in paces]
    typical_s = sorted(step_s)[(len(step_s) - 1) // 2]
    return [typical_s * pace.steps / pace.compute_s if pace.steps else pace.share for pace in paces]


def _share(speed: float) -> float:
    return 1.0 if 1 / _EVEN <= speed <= _EVEN else min(_MOST, max(_LEAST, speed))


def seated(pacing: Pacing, before: tuple[str, ...], members: tuple[str, ...]) -> Pacing:
    """Return the pacing for a new view: known workers keep theirs, new ones count as typical until measured."""
    if not pacing.paces:
        return pacing
    if not before:  # resumed under other names: if there are as many workers, assume that ranks correspond
        before = members if len(members) == len(pacing.paces) else ()
    known = dict(zip(before, pacing.paces, strict=False))
    return replace(pacing, paces=tuple(known.get(worker, Pace()) for worker in members), changed=False)
