"""What all members know alike: the state that every commit advances identically, from reduced values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.control.control_slots import Control, Flags
from raysgd_local.control.replicated.balancing import EVEN, Pacing, paced
from raysgd_local.control.replicated.extent import Extent, meets, owed_after, shares
from raysgd_local.control.replicated.probe_result import compared, rounds_left
from raysgd_local.control.replicated.program import Program

_BY_THE_LOOP = "stopped by the training loop"


@dataclass(frozen=True)
class Replicated:
    """Equal on all members after each commit; with the ledger it is what a checkpoint says of the run.

    `epoch` is the open epoch, or the next to be opened. Per rank of the present view: `cursors` into the lists
    of the deal (whose lengths are `lengths`; none where the loop takes no data from us), `left_epoch`, whose loop left
    the open epoch, `sick`, whose state was not finite in the newest round, the `residuals` (norms of what compression
    left out of each one's messages, one round ago), and the `pacing`. `switched` says that
    this round was the last before gradient mode; after either, local state is aligned. `stopped` says why training is
    over, or is empty; `diverged` that it failed. Totals count all workers' committed work since the run began.

    Where members don't always average with all others: `owed` has by rank the samples that no averaging over all has
    counted, none after such a one; `blocks` the number of its block; `meet`: the next one is over all; `partial`: the
    newest was not. `drain`: training is over, and steps that members took meanwhile are averaged once more.
    """

    schedule: Any
    round: int = 0
    steps: int = 0
    samples: int = 0
    wire_bytes: int = 0
    elapsed_s: float = 0.0
    epoch: int = 0
    open: bool = False
    cursors: tuple[int, ...] = ()
    lengths: tuple[int, ...] | None = None
    left_epoch: tuple[bool, ...] = ()
    sick: tuple[bool, ...] = ()
    residuals: tuple[float, ...] = ()
    pacing: Pacing = EVEN
    switched: bool = False
    evaluations: int = 0
    metrics: tuple[tuple[str, float], ...] = ()
    stopped: str = ""
    diverged: bool = False
    owed: tuple[float, ...] = ()
    blocks: tuple[int, ...] = ()
    meet: bool = False
    partial: bool = False
    drain: bool = False

    @property
    def period(self) -> Period:
        period: Period = self.schedule.period
        return period

    @property
    def settled(self) -> bool:
        """Whether the anchor is the model: the newest averaging was over all, or nothing was done since."""
        return not any(self.owed)

    @property
    def owed_by_rank(self) -> tuple[float, ...]:
        return self.owed or (0.0,) * len(self.left_epoch)

    @property
    def progress(self) -> tuple[int, int]:
        """Orders the states of one history: rounds first, then evaluations."""
        return self.round, self.evaluations

    def used_up(self, rank: int, taken: int = 0) -> bool:
        """Whether rank's list of the open epoch is consumed to its end, with `taken` positions not yet committed."""
        return self.lengths is not None and self.cursors[rank] + taken >= self.lengths[rank]

    @property
    def idle(self) -> tuple[bool, ...]:
        """Ranks that have nothing more to do in the open epoch."""
        return tuple(left or self.used_up(rank) for rank, left in enumerate(self.left_epoch))

    def participants(self, fraction: float) -> frozenset[int]:
        """Who takes steps in the open round where only a `fraction` of those who have any to take does."""
        able = [rank for rank, idle in enumerate(self.idle) if not idle]
        if fraction >= 1 or self.period.mode == "gradients":
            return frozenset(able)
        order = np.random.default_rng(self.round).permutation(len(able))
        return frozenset(able[i] for i in order[: math.ceil(fraction * len(able) - 1e-9)].tolist())

    def alignment(self, rank: int) -> tuple[int, bool] | None:
        """From whom local state comes after the newest round, and whether `rank` takes it; None if nobody does."""
        source = next((r for r, sick in enumerate(self.sick) if not sick), None)
        if self.diverged or source is None or not (self.switched or any(self.sick)):
            return None
        return source, rank != source if self.switched else self.sick[rank]

    def local_steps(self, rank: int) -> int:
        """How many steps rank takes in the open round."""
        return self.pacing.steps(self.period.tau, rank)

    @property
    def needs_deal(self) -> bool:
        """Whether what is left of the open epoch should be dealt anew: to others, or by other shares."""
        return self.left_behind or (self.pacing.changed and self.open and self.lengths is not None)

    @property
    def left_behind(self) -> bool:
        """Whether someone left data that others, still in their loops, should get."""
        if not self.open or self.lengths is None or all(self.left_epoch):
            return False
        return any(
            left and cursor < length
            for left, cursor, length in zip(self.left_epoch, self.cursors, self.lengths, strict=True)
        )


def commit(state: Replicated, control: Control, program: Program, finite: bool = True) -> Replicated:
    """The state after the round that `control` belongs to; `finite` says whether the reduced vector was."""
    reach = extent(state, control, program)
    owed = () if reach.whole else owed_after(control, state.owed_by_rank, reach.blocks)
    residuals = tuple(0.0 if reach.everything else said.residual for said in control.members)
    state = _close_epoch(_counted(state, control))
    state = replace(
        state, owed=owed, meet=state.meet and not reach.whole, partial=not reach.whole, residuals=residuals
    )
    failed = _failure(control, finite)
    if failed:
        return replace(state, diverged=True, stopped=failed)
    before, delay = state.period.mode, state.period.delay
    if program.balance is not None:
        state = replace(state, pacing=paced(state.pacing, control, program.balance, before))
    state = replace(state, schedule=program.schedule.next(state.schedule, _observe(state, control, reach.whole)))
    state = replace(state, switched=before != "gradients" and state.period.mode == "gradients")
    stopped = state.stopped or _stop(state, control, program)
    return replace(state, stopped=stopped, drain=bool(stopped and delay and not state.drain))


def _says_all(state: Replicated, control: Control, program: Program) -> bool:
    """Whether this round is somebody's last, or everybody's: what messages left out so far is sent with it.

    Nothing can be where nobody took a step.
    """
    after = _close_epoch(_counted(state, control))
    closes = bool(control.flags & Flags.LAST) and state.open and not after.open
    last = closes or bool(control.flags & Flags.LEAVING) or bool(_stop(after, control, program))
    return last and control.weight > 0


def _counted(state: Replicated, control: Control) -> Replicated:
    """Totals and cursors with what this round brought."""
    pairs = list(zip(state.cursors, state.left_epoch, control.members, strict=True))
    return replace(
        state,
        round=state.round + 1,
        steps=state.steps + control.steps,
        samples=state.samples + control.samples,
        wire_bytes=state.wire_bytes + control.wire_bytes,
        elapsed_s=state.elapsed_s + control.clock_s,
        cursors=tuple(cursor + said.consumed for cursor, _, said in pairs),
        left_epoch=tuple(left or bool(said.flags & Flags.LEFT) for _, left, said in pairs),
        sick=control.sick,
    )


def _failure(control: Control, finite: bool) -> str:
    if not control.agreed:
        return "replicas differ: members came to a round with different committed states"
    if not finite or (any(control.sick) and control.weight == 0):
        return "diverged: no worker that took part in the round has a finite state"
    return ""


def _stop(state: Replicated, control: Control, program: Program) -> str:
    return _BY_THE_LOOP if control.flags & Flags.STOP else _limit(state, program)


def _limit(state: Replicated, program: Program) -> str:
    if program.max_steps is not None and state.steps >= program.max_steps:
        return f"{state.steps} steps taken"
    if program.max_s is not None and state.elapsed_s >= program.max_s:
        return f"{program.max_s:g} s of training are over"
    return ""


def extent(state: Replicated, control: Control, program: Program) -> Extent:
    """How far the averaging of the round that `control` belongs to reaches, after `state`."""
    blocks, everything = state.blocks or tuple(range(len(control.members))), _says_all(state, control, program)
    if not program.stages(state.period.mode):
        return Extent(True, (), blocks, everything)
    asked = not program.averaging.gossips and state.period.mode == "parameters"
    whole = asked or state.meet or program.whole or meets(control) or _ends(state, control, program)
    return Extent(whole, shares(control, state.owed_by_rank, program), blocks, everything)


def _ends(state: Replicated, control: Control, program: Program) -> bool:
    """Whether the epoch, training, or averaging parameters ends with this round: the model is needed after it."""
    after = _close_epoch(_counted(state, control))
    if (state.open and not after.open) or _stop(after, control, program):
        return True
    then = program.schedule.next(state.schedule, _observe(after, control, whole=True)).period.mode
    return then in ("gradients", "apart")


def _observe(state: Replicated, control: Control, whole: bool) -> Observation:
    """What the schedule sees of the round that is counted: the epoch is the one that the next round is in."""
    return Observation(
        round=state.round,
        loss=control.loss,
        round_samples=control.finite_samples,
        samples=state.samples,
        steps=state.steps,
        epoch=state.epoch,
        elapsed_s=state.elapsed_s,
        lr_decay=control.members[0].lr_decay,
        workers=len(control.members),
        lr=control.members[0].lr_settled,
        whole=whole,
        rounds_left=rounds_left(state.lengths, state.cursors, control) if state.open else 0,
        compared=compared(control),
    )


def _close_epoch(state: Replicated) -> Replicated:
    """The epoch ends for all at the same round: when all are idle and nothing is left for anyone to take."""
    if not state.open or not all(state.idle) or state.left_behind:
        return state
    return replace(state, open=False, epoch=state.epoch + 1, left_epoch=tuple(False for _ in state.left_epoch))


def evaluated(state: Replicated, metrics: dict[str, float], target: tuple[str, float] | None) -> Replicated:
    """The state after an evaluation of the averaged model; reaching `target` stops the run."""
    state = replace(state, evaluations=state.evaluations + 1, metrics=tuple(sorted(metrics.items())))
    return replace(state, stopped=_goal(metrics, target) or state.stopped)


def _goal(metrics: dict[str, float], target: tuple[str, float] | None) -> str:
    if target is None or target[0] not in metrics or math.isnan(metrics[target[0]]):
        return ""
    name, wanted = target
    reached = metrics[name] <= wanted if is_error(name) else metrics[name] >= wanted
    return f"{name} reached {wanted:g}" if reached else ""


def resumed(state: Replicated, program: Program) -> Replicated:
    """A checkpoint's state under the limits that hold now: training that is over by those of before goes on."""
    if state.diverged or state.stopped in ("", _BY_THE_LOOP):
        return state
    return replace(state, stopped=_limit(state, program) or _goal(dict(state.metrics), program.target))


def is_error(metric: str) -> bool:
    """Whether less of this metric is better.

    >>> is_error("loss"), is_error("top1_error"), is_error("accuracy")
    (True, True, False)
    """
    return any(word in metric.lower() for word in ("loss", "error", "perplexity"))
