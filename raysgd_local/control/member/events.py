"""Events, which a shell feeds to a member, and commands, with which the member answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.data.streams.lengths import Lengths
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.messages import LoopPosition, Order, Report, Save
from raysgd_local.control.replicated.state import Replicated


class Want(Enum):
    """The training loop's request while it is inside a call to the context."""

    STATE = LoopPosition.START  # the model: the loop is at its first epoch
    STEP = LoopPosition.TRAINING  # an optimizer step
    DATA = "data"  # more samples, or the epoch's end: the list is used up
    CLOSE = "close"  # the epoch's end: the loop left its batches
    EPOCH = LoopPosition.OPENING  # the next epoch's deal
    EVALUATE = LoopPosition.EVALUATING  # the metrics of the averaged model
    FINISH = LoopPosition.FINISHED  # the run's end: the loop returned
    NOTHING = "nothing"  # it goes on, unless a boundary is due

    @property
    def place(self) -> LoopPosition:
        return self.value if isinstance(self.value, LoopPosition) else LoopPosition.TRAINING


@dataclass(frozen=True)
class StreamPosition:
    """How far a member's reader has come in its list of a stream."""

    split: int  # rows after the last consumed one of which samples before this position have a part
    last: bool  # the list ends here


# Events: requests of the training loop.


@dataclass(frozen=True)
class LoopStarted:
    """The loop has prepared everything and asks for its first epoch."""

    epochs: int  # total that the loop goes through


@dataclass(frozen=True)
class StepDue:
    """Gradients are ready for an optimizer step."""

    samples: int  # over which the gradients are the mean, if no step before counts these
    consumed: int  # positions of the deal
    further: int = 0  # the same, if a step before counts them
    stepping: int = 0  # bits of the optimizers that step; 0: all
    reached: StreamPosition | None = None  # behind the newest batch; None for a map-style set


@dataclass(frozen=True)
class StepsTaken:
    """The loop took local steps that `Proceed` allowed it to take without asking."""

    steps: int
    samples: int  # in all of these steps
    consumed: int  # positions of the deal in all of these steps
    further: int = 0  # samples in these steps that a step before counts
    stepping: int = 0  # bits of the optimizers of the newest step; 0: all
    reached: StreamPosition | None = None  # behind the newest batch; None for a map-style set


@dataclass(frozen=True)
class ListEnded:
    """The loop asks for a batch, but this member's list is used up."""

    consumed: int = 0  # rows of a stream at the list's end of which no sample was made
    reached: StreamPosition | None = None  # None for a map-style set


@dataclass(frozen=True)
class EpochLeft:
    """The loop left its batches, whether it consumed all of them or not."""


@dataclass(frozen=True)
class EpochWanted:
    """The loop begins an epoch."""

    samples: int  # size of the training set; 0: the loop loads data of its own, or a stream
    epochs: int = 0  # total that the loop goes through; 0: as it said before
    shards: Shards | None = None  # of the stream


@dataclass(frozen=True)
class EvaluationDue:
    """The loop evaluates. Every member's loop does."""


@dataclass(frozen=True)
class LoopFinished:
    """The loop returned."""


# Events: outcomes of commands, and messages from the controller.


@dataclass(frozen=True)
class Ordered:
    """The controller's order has come: the answer to `Arrive`."""

    order: Order


@dataclass(frozen=True)
class Done:
    """The last command that may fail succeeded, and has no result of its own."""

    view: int  # in which it ran


@dataclass(frozen=True)
class Failed:
    """The last command that may fail did fail. This member has left the view."""

    view: int  # in which it ran
    why: str
    damaged: str = ""  # the checkpoint that can't be loaded


@dataclass(frozen=True)
class Cut:
    """The controller broke the view. The member hears of it at the loop's next call."""

    view: int
    why: str


@dataclass(frozen=True)
class Exchanged:
    """The round's reduction is complete."""

    view: int  # in which it ran
    control: Control  # all members' slots
    exchange_s: float  # duration on this member
    finite: bool = True  # the reduced state has no NaN and no infinity


@dataclass(frozen=True)
class Averaged:
    """A probe's local steps are averaged."""

    view: int  # in which it ran
    control: Control  # all members' slots; they are not added to the run's totals


@dataclass(frozen=True)
class Evaluated:
    """The evaluation is complete."""

    view: int  # in which it ran
    metrics: dict[str, float]  # means over all samples, equal on all members


@dataclass(frozen=True)
class YieldAsked:
    """The controller asks for a boundary. The request may come before the segment's order."""

    view: int
    segment: int  # the one to end


@dataclass(frozen=True)
class LeaveAsked:
    """This worker's process will end soon: leave at the next boundary."""


@dataclass(frozen=True)
class StopAsked:
    """The loop asks to end training on all members."""


Ask = LoopStarted | ListEnded | EpochLeft | EpochWanted | EvaluationDue | LoopFinished
"""Requests of the loop that involve no step. The loop waits for `Proceed`."""

Event = (
    Ask
    | StepDue
    | StepsTaken
    | Ordered
    | Done
    | Failed
    | Cut
    | Exchanged
    | Averaged
    | Evaluated
    | YieldAsked
    | LeaveAsked
    | StopAsked
)


# Commands.


@dataclass(frozen=True)
class Connect:
    """Leave the previous view, if any, and connect to the members of this one."""

    view: int
    rank: int  # of this member
    world_size: int


@dataclass(frozen=True)
class Heal:
    """Take part in healing: one rank sends the reduced vector that it kept; members that lack it commit it."""

    source: int  # rank that sends
    behind: bool  # this member missed the round, and commits it
    mode: Mode  # of the missed round
    then: Mode  # of the round after it


@dataclass(frozen=True)
class Transfer:
    """Take part in a transfer: one rank sends its state to members without state."""

    source: int  # rank that sends
    receive: bool  # this member takes the state


@dataclass(frozen=True)
class Align:
    """Take part in an alignment: one rank sends its local state (optimizer, loss scale)."""

    source: int  # rank that sends
    receive: bool  # this member takes the local state


@dataclass(frozen=True)
class Restore:
    """Load a checkpoint."""

    name: str  # of the checkpoint


@dataclass(frozen=True)
class Fetch:
    """Take part in moving chunks' data to their new holders, as the order's deal says."""


@dataclass(frozen=True)
class Measure:
    """Find out how long these shards are, by reading them: those that knew it are gone."""

    source: str  # names of the source (`Shards.names`)
    shards: Lengths  # (shard, rows): it suffices to know whether there are so many


@dataclass(frozen=True)
class CopyState:
    """Copy the state for a checkpoint, then write the copy while the loop goes on."""

    save: Save
    replicated: Replicated  # the state that the checkpoint holds


@dataclass(frozen=True)
class LocalStep:
    """Take an optimizer step without the other members."""

    pending: int = 0  # this member's uncommitted samples before this step
    stepping: int = 0  # bits of the optimizers that step; 0: all


@dataclass(frozen=True)
class Mark:
    """Begin a stage of a probe: keep the state to go back to, and drop gradients."""

    local: bool  # it is the stage of local steps: losses after it are compared with those after synchronous steps


@dataclass(frozen=True)
class Look:
    """Record the loop's loss for the probe. Take no step."""

    samples: int  # over which the loss is the mean


@dataclass(frozen=True)
class ShowMean:
    """Install the mean of a probe's local steps, to measure the loss there."""

    control: Control  # all members' slots of the probe


@dataclass(frozen=True)
class Undo:
    """Go back to the state of `Mark`. The loop gets the same batches again."""


@dataclass(frozen=True)
class Exchange:
    """Take part in the averaging of a round. Answered with `Exchanged`."""

    view: int
    round: int
    mode: Mode  # "partial": exchange control slots first; `replicated.extent` of them says who averages with whom
    said: Contribution = field(default_factory=Contribution)  # this member's slot; the shell adds measurements


@dataclass(frozen=True)
class AverageProbe:
    """Take part in averaging a probe's local steps. Answered with `Averaged`."""

    view: int
    round: int  # before whose first step the probe comes
    said: Contribution  # this member's slot


@dataclass(frozen=True)
class Evaluate:
    """Take part in evaluating the averaged model. Answered with `Evaluated`."""

    view: int
    round: int  # committed last
    control: Control | None = None  # slots of the exchange for which all came instead of a round, if there was one
    shows: bool = False  # evaluate the mean of that exchange; otherwise the model is the mean already


@dataclass(frozen=True)
class Launch:
    """Begin this exchange with a copy of the present state; the loop goes on meanwhile. `Collect` ends it."""

    exchange: Exchange


@dataclass(frozen=True)
class Collect:
    """Wait for the exchange that was launched. Answered with `Exchanged`."""


@dataclass(frozen=True)
class Commit:
    """Install the round's reduced vector. This can't be undone."""

    mode: Mode  # of the round
    control: Control  # all members' slots
    then: Mode  # of the next round


@dataclass(frozen=True)
class Arrive:
    """Leave the view if it is broken, send the report to the controller, and wait for its order."""

    report: Report


@dataclass(frozen=True)
class Proceed:
    """Give control back to the loop."""

    free: int = 0  # local steps that the loop may take without asking (see `Allowance`)


@dataclass(frozen=True)
class Exit:
    """End the worker."""

    why: str  # as the order says


Awaited = (
    Connect | Heal | Transfer | Align | Restore | Fetch | Measure | Exchange | Collect | AverageProbe | Evaluate
)
"""Commands that may fail; each is answered with an event. `Arrive` is answered too, but can't fail."""

Command = (
    Awaited | CopyState | LocalStep | Mark | Look | ShowMean | Undo | Launch | Commit | Arrive | Proceed | Exit
)
