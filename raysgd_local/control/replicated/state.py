"""The replicated state: every commit advances it identically on all members, from reduced values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.control.control_slots import Control, Flags
from raysgd_local.control.marks import mark
from raysgd_local.control.replicated.balancing import EVEN, Pacing, paced
from raysgd_local.control.replicated.extent import Extent, meets, owed_after, shares
from raysgd_local.control.replicated.failures import at_odds, failure, told_odds
from raysgd_local.control.replicated.probe_result import compared, rounds_left
from raysgd_local.control.replicated.program import Program

BY_THE_LOOP = "stopped by the training loop"

ENDLESS = 1 << 60
"""The length of a list of a stream until its member has come to its end."""


@dataclass(frozen=True)
class Replicated:
    """The state that is equal on all members after each commit. A checkpoint describes the run by it and the ledger.

    Totals count the committed work of all workers since the run began. Tuples are indexed by rank of the present view.
    """

    schedule: Any  # the schedule's own state, with the present `period`
    round: int = 0  # committed rounds
    steps: int = 0  # total optimizer steps
    samples: int = 0  # total training samples
    wire_bytes: int = 0  # total bytes sent
    elapsed_s: float = 0.0  # training time
    epoch: int = 0  # the open epoch, or if none is open the next one
    open: bool = False  # whether an epoch is open
    cursors: tuple[int, ...] = ()  # positions consumed of each rank's list in the deal
    lengths: tuple[int, ...] | None = None  # of these lists; None if the loop doesn't use `ctx.batches`
    splits: tuple[int, ...] = ()  # for each rank, rows after its cursor of which its committed samples have a part
    left_epoch: tuple[bool, ...] = ()  # ranks whose loop left the open epoch early
    sick: tuple[bool, ...] = ()  # ranks whose state was not finite in the newest round
    residuals: tuple[float, ...] = ()  # norm of each rank's residual of compression, one round ago
    pacing: Pacing = EVEN  # straggler balancing
    switched: bool = False  # the newest round was the last before gradient mode: local state has to be aligned
    evaluations: int = 0  # evaluations of the averaged model
    metrics: tuple[tuple[str, float], ...] = ()  # of the newest round's evaluations, sorted by name
    evaluated: tuple[str, ...] = ()  # names of the newest evaluation's metrics
    evaluated_round: int = -1  # the newest round of which the model was evaluated
    stopped: str = ""  # reason why training is over; empty while it is not
    diverged: bool = False  # training failed
    # Only for methods with rounds in which not all members average with all:
    owed: tuple[float, ...] = ()  # samples of each rank that no global averaging has counted yet
    blocks: tuple[int, ...] = ()  # number of each rank's block
    meet: bool = False  # the next averaging must be global
    partial: bool = False  # the newest averaging was not global
    drain: bool = False  # training is over, but steps taken since the last averaging are averaged once more
    # Only where rounds go across epochs. `lengths` is then the end of the open epoch in each list:
    epochs: int = 0  # of the run, as its loops say; 0: a round ends where an epoch ends
    later: tuple[tuple[int, ...], ...] = ()  # lengths of the lists' later parts (see `deal.later_lengths`)
    loops: tuple[int, ...] = ()  # for each rank the epoch in which its loop is
    skips: tuple[int, ...] = ()  # for each rank the first epoch that it has not left early
    begun: int = -1  # once training is over: the newest epoch that a loop has begun; all loops go as far
    redeal: bool = False  # the next epoch has to be dealt anew: a rank left the last one early, or it was `unsure`
    unsure: bool = (
        False  # the later epochs were dealt while the lengths of some shards of the stream were not known
    )
    at_odds: tuple[tuple[int, str], ...] = ()  # ranks whose loops want different things, and what

    @property
    def period(self) -> Period:
        period: Period = self.schedule.period
        return period

    @property
    def settled(self) -> bool:
        """Whether the anchor is the model: no member has taken steps since the newest global averaging."""
        return not any(self.owed)

    @property
    def owed_by_rank(self) -> tuple[float, ...]:
        return self.owed or (0.0,) * len(self.left_epoch)

    @property
    def progress(self) -> tuple[int, int]:
        """A sort key for the states of one run: rounds first, then evaluations."""
        return self.round, self.evaluations

    def used_up(self, rank: int, taken: int = 0) -> bool:
        """Whether rank's list is used up, counting `taken` positions that are not committed yet."""
        ends = self.list_ends
        return ends is not None and self.cursors[rank] + taken >= ends[rank]

    @property
    def list_ends(self) -> tuple[int, ...] | None:
        """For each rank, the end of its list: of the open epoch's, or of the last epoch's where rounds go across."""
        if self.lengths is None or not self.later:
            return self.lengths
        parts = max(0, self.epochs - self.epoch - 1)
        further = max(0, parts - len(self.later))
        rows = self.later[:parts]
        return tuple(
            end + sum(row[rank] for row in rows) + further * self.later[-1][rank]
            for rank, end in enumerate(self.lengths)
        )

    @property
    def idle(self) -> tuple[bool, ...]:
        """For each rank, whether it has nothing more to do in the open epoch, nor in a later one before that closes."""
        if self.epochs:
            return tuple(skip >= self.epochs or self.used_up(rank) for rank, skip in enumerate(self.skips))
        return tuple(left or self.used_up(rank) for rank, left in enumerate(self.left_epoch))

    @property
    def through(self) -> tuple[bool, ...]:
        """For each rank, whether it is through with the open epoch."""
        if not self.epochs:
            return self.idle
        if self.lengths is None:
            own = [loop > self.epoch for loop in self.loops]
        else:
            own = [cursor >= length for cursor, length in zip(self.cursors, self.lengths, strict=True)]
        return tuple(left or done for left, done in zip(self.left_epoch, own, strict=True))

    def participants(self, fraction: float) -> frozenset[int]:
        """Return the ranks that take steps in the open round: a random `fraction` of those that are not idle."""
        able = [rank for rank, idle in enumerate(self.idle) if not idle]
        if fraction >= 1 or self.period.mode == "gradients":
            return frozenset(able)
        order = np.random.default_rng(self.round).permutation(len(able))
        return frozenset(able[i] for i in order[: math.ceil(fraction * len(able) - 1e-9)].tolist())

    def alignment(self, rank: int) -> tuple[int, bool] | None:
        """Return the rank whose local state others copy after the newest round, and whether `rank` copies it.

        None if no rank needs to. After a switch to gradient mode all copy it, otherwise only the sick ones.
        """
        source = next((r for r, sick in enumerate(self.sick) if not sick), None)
        if self.diverged or source is None or not (self.switched or any(self.sick)):
            return None
        return source, rank != source if self.switched else self.sick[rank]

    def local_steps(self, rank: int) -> int:
        """Return the number of steps that `rank` takes in the open round."""
        return self.pacing.steps(self.period.tau, rank)

    @property
    def needs_deal(self) -> bool:
        """Whether the rest of the open epoch must be dealt again, because a rank left data behind or shares changed."""
        dealt = self.open and self.lengths is not None
        return self.left_behind or (dealt and (self.pacing.changed or self.redeal))

    @property
    def left_behind(self) -> bool:
        """Whether a rank left the epoch with data remaining, while others are still in their loops and can take it."""
        if not self.open or self.lengths is None or all(self.left_epoch):
            return False
        return any(
            left and cursor < length
            for left, cursor, length in zip(self.left_epoch, self.cursors, self.lengths, strict=True)
        )


def commit(state: Replicated, control: Control, program: Program, finite: bool = True) -> Replicated:
    """Return the state after the round described by `control`; `finite`: whether the reduced vector is."""
    reach = extent(state, control, program)
    owed = () if reach.whole else owed_after(control, state.owed_by_rank, reach.blocks)
    residuals = tuple(0.0 if reach.everything else said.residual for said in control.members)
    state = _counted(state, control)
    state = replace(
        state, owed=owed, meet=state.meet and not reach.whole, partial=not reach.whole, residuals=residuals
    )
    failed = failure(control, finite, state.period.mode)
    if failed:
        return replace(state, diverged=True, stopped=failed)
    if odds := at_odds(control):
        return replace(state, at_odds=odds, stopped=told_odds(odds))
    before, delay = state.period.mode, state.period.delay
    if program.balance is not None:
        state = replace(state, pacing=paced(state.pacing, control, program.balance, before))
    state = replace(state, schedule=program.schedule.next(state.schedule, _observe(state, control, reach.whole)))
    state = replace(state, switched=before != "gradients" and state.period.mode == "gradients")
    stopped = state.stopped or _stop(state, control, program)
    begun = _begun(control) if stopped and state.epochs else -1
    return replace(state, stopped=stopped, begun=begun, drain=bool(stopped and delay and not state.drain))


def _begun(control: Control) -> int:
    """Return the newest epoch that a member's loop has begun."""
    outside = Flags.EVALUATES | Flags.BETWEEN
    return max(said.epoch - bool(said.flags & outside) for said in control.members)


def _says_all(state: Replicated, control: Control, program: Program) -> bool:
    """Whether residuals must be sent in full, because this round is the last of some member, or of all.

    Not in a round without steps: nothing is sent in it.
    """
    after = _counted(state, control)
    closes = bool(control.flags & Flags.LAST or state.epochs) and state.open and not after.open
    last = closes or bool(control.flags & Flags.LEAVING) or bool(_stop(after, control, program))
    return last and control.weight > 0


def _counted(state: Replicated, control: Control) -> Replicated:
    """Add this round to totals and cursors, and close the epoch if it is over."""
    pairs = list(zip(state.cursors, state.left_epoch, control.members, strict=True))
    cursors = tuple(cursor + said.consumed for cursor, _, said in pairs)
    state = replace(
        state,
        round=state.round + 1,
        steps=state.steps + control.steps,
        samples=state.samples + control.samples,
        wire_bytes=state.wire_bytes + control.wire_bytes,
        elapsed_s=state.elapsed_s + control.clock_s,
        cursors=cursors,
        lengths=_lengths(state.lengths, cursors, control),
        splits=tuple(said.split for said in control.members) if state.splits else (),
        left_epoch=tuple(left or bool(said.flags & Flags.LEFT) for _, left, said in pairs),
        sick=control.sick,
    )
    if state.epochs:
        state = _placed(state, control)
    return state if control.flags & Flags.HOLDS else _close_epoch(state)


def _lengths(before: tuple[int, ...] | None, cursors: tuple[int, ...], control: Control) -> tuple[int, ...] | None:
    """Return the lengths of the lists, after members have come to the end of theirs."""
    if before is None or not control.flags & Flags.EXHAUSTED:
        return before
    ended = [bool(said.flags & Flags.EXHAUSTED) for said in control.members]
    return tuple(cursor if end else length for length, cursor, end in zip(before, cursors, ended, strict=True))


def _placed(state: Replicated, control: Control) -> Replicated:
    """Return the state with the loops' places after a round across epochs, and the epochs that they left early."""
    loops, skips = [], []
    for said, skip in zip(control.members, state.skips, strict=True):
        leaves, ended = bool(said.flags & Flags.LEFT), bool(said.flags & Flags.ENDED)
        loops.append(said.epoch + leaves)
        skips.append(state.epochs if ended else said.epoch + 1 if leaves else skip)
    left = tuple(skip > state.epoch for skip in skips)
    return replace(state, loops=tuple(loops), skips=tuple(skips), left_epoch=left)


def _stop(state: Replicated, control: Control, program: Program) -> str:
    return BY_THE_LOOP if control.flags & Flags.STOP else limit(state, program)


def limit(state: Replicated, program: Program) -> str:
    """Return the limit that training has reached; empty if it has reached none."""
    if program.max_steps is not None and state.steps >= program.max_steps:
        return f"{state.steps} steps taken"
    if program.max_s is not None and state.elapsed_s >= program.max_s:
        return f"{program.max_s:g} s of training are over"
    return ""


def extent(state: Replicated, control: Control, program: Program) -> Extent:
    """Return the extent of the averaging of the round described by `control`, which follows `state`."""
    blocks, everything = state.blocks or tuple(range(len(control.members))), _says_all(state, control, program)
    if not program.stages(state.period.mode):
        return Extent(True, (), blocks, everything)
    asked = not program.averaging.gossips and state.period.mode == "parameters"
    whole = asked or state.meet or state.drain or program.whole or meets(control) or _ends(state, control, program)
    return Extent(whole, shares(control, state.owed_by_rank, program), blocks, everything)


def _ends(state: Replicated, control: Control, program: Program) -> bool:
    """Whether the epoch, training, or the averaging of parameters ends with this round, so that the model is needed."""
    after = _counted(state, control)
    if (state.open and not after.open) or _stop(after, control, program):
        return True
    then = program.schedule.next(state.schedule, _observe(after, control, whole=True)).period.mode
    return then in ("gradients", "apart")


def _observe(state: Replicated, control: Control, whole: bool) -> Observation:
    """Return the schedule's observation of a round that `state` includes; its epoch is that of the next round."""
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
        rounds_left=max(0, rounds_left(state.lengths, state.cursors, control)) if state.open else 0,
        compared=compared(control),
    )


def _close_epoch(state: Replicated) -> Replicated:
    """Close the epoch, for all at the same round, when all ranks are through and no data are left behind.

    Where rounds go across epochs, several may close in a round, and training goes on.
    """
    while state.open and all(state.through) and not state.left_behind:
        going_on = state.epochs > state.epoch + 1
        state = _next_epoch(state) if going_on else replace(state, open=False, epoch=state.epoch + 1)
        left = [state.open and skip > state.epoch for skip in state.skips] or [False for _ in state.left_epoch]
        state = replace(state, left_epoch=tuple(left))
    return state


def _next_epoch(state: Replicated) -> Replicated:
    mark("epoch_closed_in_a_round")
    state = replace(state, epoch=state.epoch + 1)
    if state.lengths is None:
        return state
    skipped = any(cursor < length for cursor, length in zip(state.cursors, state.lengths, strict=True))
    first, *rest = state.later
    ends = tuple(map(sum, zip(state.lengths, first, strict=True)))
    return replace(
        state, lengths=ends, later=tuple(rest) or (first,), redeal=state.redeal or skipped or state.unsure
    )
