"""Workers of unequal speed: who is slower takes fewer steps of a round, so that all arrive together.

A part of the replicated state: it follows from reduced values alone, so all members come to the same shares. Nothing
changes before an imbalance is clear and lasts, so that equal workers run as if this did not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Control

_LEAST, _MOST = 1 / 16, 2.0
_EVEN = 1.15
"""A speed that differs from the typical one by less counts as the same."""


@dataclass(frozen=True)
class Balance:
    """When shares change: a worker's steps took `apart` times longer or shorter than its share of them says, in two
    windows in a row, each of at least `window_rounds` rounds and `window_s` seconds.

    One that is `hopeless` times slower than the typical worker is let go.
    """

    apart: float = 1.3
    window_rounds: int = 4
    window_s: float = 1.5
    hopeless: float = 8.0


@dataclass(frozen=True)
class Pace:
    """One rank's speed. `share` of the period is what it takes a round; `compute_s` and `steps` belong to the open
    window; `off` and `lost` say that in the window before its share was not right, and that it was hopeless.
    """

    share: float = 1.0
    compute_s: float = 0.0
    steps: int = 0
    off: bool = False
    lost: bool = False
    hopeless: bool = False


@dataclass(frozen=True)
class Pacing:
    """By rank of the present view. `changed`: the shares did, since the open epoch was dealt."""

    paces: tuple[Pace, ...] = ()
    rounds: int = 0
    seconds: float = 0.0
    changed: bool = False

    def steps(self, tau: int, rank: int) -> int:
        """How many steps of a round of period `tau` are `rank`'s: never less than one.

        >>> Pacing((Pace(), Pace(share=0.3))).steps(8, rank=1)
        2
        """
        return max(1, round(tau * self.paces[rank].share)) if self.paces else tau

    def parts(self, tau: int) -> tuple[float, ...]:
        """What part of a round of period `tau` is each rank's in whole steps: what data are dealt by, lest one whose
        share was rounded has some left, to train on alone, when the others' are used up.

        >>> Pacing((Pace(), Pace(share=0.56))).parts(8)
        (1.0, 0.5)
        """
        return tuple(self.steps(tau, rank) / tau for rank in range(len(self.paces)))

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(pace.share for pace in self.paces)


EVEN = Pacing()


def paced(pacing: Pacing, control: Control, balance: Balance, mode: Mode) -> Pacing:
    """The pacing after a round; averaging gradients needs equal steps, so there only the hopeless are found."""
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
    """The pacing after a window, with the next one begun. Who took no step in it is as fast as its share says."""
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
    """How many steps each took in the time of one of the typical worker's: the lower median's."""
    step_s = [pace.compute_s / pace.steps if pace.compute_s else 0.0 for pace in paces if pace.steps]
    if len(step_s) < 2 or min(step_s) <= 0:
        return [pace.share for pace in paces]
    typical_s = sorted(step_s)[(len(step_s) - 1) // 2]
    return [typical_s * pace.steps / pace.compute_s if pace.steps else pace.share for pace in paces]


def _share(speed: float) -> float:
    return 1.0 if 1 / _EVEN <= speed <= _EVEN else min(_MOST, max(_LEAST, speed))


def seated(pacing: Pacing, before: tuple[str, ...], members: tuple[str, ...]) -> Pacing:
    """The pacing for another view: each keeps its own, who is new has the typical speed until it is measured."""
    if not pacing.paces:
        return pacing
    if not before:  # a checkpoint's members by other names: only as many of them are known to be the same
        before = members if len(members) == len(pacing.paces) else ()
    known = dict(zip(before, pacing.paces, strict=False))
    return replace(pacing, paces=tuple(known.get(worker, Pace()) for worker in members), changed=False)
