"""Probes: before a round's first step, try local or synchronous steps, measure the held-out loss, and undo them."""

from __future__ import annotations

from raysgd_local.algorithms.schedules.base import Probe
from raysgd_local.control.control_slots import Contribution, Control, HeldOut
from raysgd_local.control.marks import mark
from raysgd_local.control.member.events import (
    AverageProbe,
    Command,
    LocalStep,
    Look,
    Mark,
    Proceed,
    ShowMean,
    StepDue,
    StreamPosition,
    Undo,
    Want,
)
from raysgd_local.control.member.state import Member, ProbeProgress, Result, reads_again
from raysgd_local.records import replace_fields


def under_way(member: Member) -> bool:
    """Whether the loop's present steps belong to a probe, and will be undone."""
    return member.trial.stage in ("local", "looking")


def due(member: Member) -> bool:
    """Whether a probe comes before the open round's steps. Equal on all members until each has finished it."""
    state = member.known
    open_lists = state.open and not state.stopped and state.lengths is not None
    return state.period.probe is not None and open_lists and member.trial.stage != "done"


def step(member: Member, due: StepDue) -> Result:
    """Take a step of the loop in a probe locally, or only record its loss."""
    samples = due.samples
    trial = ended(member.trial, due.reached)
    taken = trial.taken + due.consumed
    if trial.stage == "local":
        after = replace_fields(trial, steps=trial.steps + 1, samples=trial.samples + samples, taken=taken)
        return replace_fields(member, want=Want.STEP, trial=after), (LocalStep(pending=trial.samples),)
    trial = replace_fields(trial, looked=trial.looked + 1, looked_at=trial.looked_at + samples, taken=taken)
    return replace_fields(member, want=Want.STEP, trial=trial), (Look(samples),)


def ended(trial: ProbeProgress, reached: StreamPosition | None) -> ProbeProgress:
    """Return the progress behind a batch, or where there is none: a reader of a stream may have come to the end."""
    return replace_fields(trial, last=True) if reached is not None and reached.last else trial


def go_on(member: Member, probe: Probe) -> Result:
    """Return the probe's next commands. The last is `Undo`; without a local stage to compare with there are none.

    Drop a step that a broken view left pending (a gradient that could not be averaged): its samples come first in this
    member's list, so the loop gets them again.
    """
    commands: tuple[Command, ...] = ()
    if not member.trial.stage:
        if not probe.steps and member.tried_in != _place(member):
            return replace_fields(member, trial=ProbeProgress("done")), ()
        commands = (Mark(local=probe.steps > 0),)
        mark("pending_step_before_probe", member.steps > 0)
        trial = ProbeProgress("local" if probe.steps else "looking")
        member = reads_again(member) if member.steps else member
        member = replace_fields(member, trial=trial, steps=0, samples=0, taken=0, further=0)
    trial = member.trial
    left = probe.steps - trial.steps if trial.stage == "local" else probe.held_out - trial.looked
    if left > 0 and _willing(member):
        return member, (*commands, Proceed())
    if trial.stage == "local":
        said = Contribution(weight=float(trial.samples), steps=trial.steps, samples=trial.samples)
        average = AverageProbe(member.in_force.view.number, member.known.round + 1, said)
        return member, (*commands, average)
    member, undo = _ended(member, probe, complete=left <= 0)
    return member, (*commands, *undo)


def averaged(member: Member, control: Control) -> Result:
    """Measure the loss at the mean of all members' local steps, if all took enough; otherwise end the probe."""
    probe = member.known.period.probe
    if probe is None:
        raise RuntimeError("no probe is due")  # a bug of a shell
    if all(said.steps >= probe.steps for said in control.members) and control.weight > 0:
        return replace_fields(member, trial=replace_fields(member.trial, stage="looking")), (ShowMean(control),)
    return _ended(member, probe, complete=False)


def _ended(member: Member, probe: Probe, complete: bool) -> Result:
    """End the probe's stage; keep its result if it is `complete`."""
    mark("probe_incomplete", not complete)
    trial = member.trial
    if probe.steps:
        tried_in, said = (_place(member) if complete else None), HeldOut()
    else:
        tried_in, said = None, HeldOut(trial.looked, trial.looked_at) if complete else HeldOut()
    member = reads_again(member)
    return replace_fields(member, trial=ProbeProgress("done"), tried_in=tried_in, held_out=said), (Undo(),)


def abandoned(member: Member) -> Result:
    """Undo the probe, because the view broke. The next view's members begin it again."""
    undo: tuple[Command, ...] = (Undo(),) if under_way(member) else ()
    mark("probe_abandoned", under_way(member))
    member = reads_again(member) if undo else member
    return replace_fields(member, trial=ProbeProgress(), held_out=HeldOut()), undo


def _willing(member: Member) -> bool:
    """Whether the loop will take another batch of the open epoch."""
    if member.want in (Want.CLOSE, Want.EVALUATE, Want.FINISH):
        return False
    used_up = member.trial.last or member.known.used_up(member.rank, member.trial.taken)
    return member.want is not Want.DATA or not used_up


def _place(member: Member) -> tuple[int, int]:
    """Return view and deal. While both stay the same, so do the next batches."""
    order = member.in_force
    return order.view.number, order.deal.number if order.deal is not None else 0
