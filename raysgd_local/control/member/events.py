"""What a member is told and what it tells its shell to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.messages import LoopPosition, Order, Report, Save
from raysgd_local.control.replicated.state import Replicated


class Want(Enum):
    """What the training loop waits for when it is inside a call to the context."""

    STATE = LoopPosition.START
    STEP = LoopPosition.TRAINING  # go on after a step
    DATA = "data"  # its list is used up: more of it, or the epoch's end
    CLOSE = "close"  # it left the epoch: the epoch's end
    EPOCH = LoopPosition.OPENING
    EVALUATE = LoopPosition.EVALUATING
    FINISH = LoopPosition.FINISHED

    @property
    def place(self) -> LoopPosition:
        return self.value if isinstance(self.value, LoopPosition) else LoopPosition.TRAINING


# Events: what the loop asks for.


@dataclass(frozen=True)
class LoopStarted:
    """The loop is at its first epoch, of `epochs`; it has built everything and wants state."""

    epochs: int


@dataclass(frozen=True)
class StepDue:
    """Gradients are ready for an optimizer step, over `samples` samples and `consumed` positions of the deal."""

    samples: int
    consumed: int


@dataclass(frozen=True)
class StepsTaken:
    """`steps` local steps that the loop was left to take by itself, over `samples` samples and `consumed` positions."""

    steps: int
    samples: int
    consumed: int


@dataclass(frozen=True)
class ListEnded:
    """The loop asks for a batch and its list is used up."""


@dataclass(frozen=True)
class EpochLeft:
    """The loop is past its batches, whether it consumed all of them or not."""


@dataclass(frozen=True)
class EpochWanted:
    """The loop begins an epoch over a training set of `samples` (0: it takes no data from us)."""

    samples: int


@dataclass(frozen=True)
class EvaluationDue:
    """The loop evaluates; all members do."""


@dataclass(frozen=True)
class LoopFinished:
    """The loop returned."""


# Events: what came of commands, and words from the controller.


@dataclass(frozen=True)
class Ordered:
    order: Order


@dataclass(frozen=True)
class Done:
    """The command on the network that was given last is done."""

    view: int


@dataclass(frozen=True)
class Failed:
    """The command that was given last did not complete; `damaged` is the checkpoint that can't be loaded."""

    view: int
    why: str
    damaged: str = ""


@dataclass(frozen=True)
class Cut:
    """The controller gave the view up. Inside the loop this is noticed at the loop's next call."""

    view: int
    why: str


@dataclass(frozen=True)
class Exchanged:
    """The reduction of `view` is complete: all contributions, how long it took here, whether it is finite."""

    view: int
    control: Control
    exchange_s: float
    finite: bool = True


@dataclass(frozen=True)
class Averaged:
    """A probe's local steps are averaged: all contributions, which count nowhere else."""

    view: int
    control: Control


@dataclass(frozen=True)
class Evaluated:
    view: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class YieldAsked:
    view: int
    segment: int


@dataclass(frozen=True)
class LeaveAsked:
    """This worker's machine is going away: leave at the next boundary."""


@dataclass(frozen=True)
class StopAsked:
    """The loop asks that all stop."""


Ask = LoopStarted | ListEnded | EpochLeft | EpochWanted | EvaluationDue | LoopFinished
"""Events after which the loop waits for `Proceed`, and which mean no step."""

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
    """Leave the view before, if any, and join this one."""

    view: int
    rank: int
    world_size: int


@dataclass(frozen=True)
class Heal:
    """All take part: rank `source` sends the reduced vector it kept; who is behind commits it, as `Commit` says."""

    source: int
    behind: bool
    mode: Mode
    then: Mode


@dataclass(frozen=True)
class Transfer:
    """All take part: rank `source` sends its state; who has none takes it."""

    source: int
    receive: bool


@dataclass(frozen=True)
class Align:
    """All take part: rank `source` sends its local state (optimizer, loss scale); `receive` says who takes it."""

    source: int
    receive: bool


@dataclass(frozen=True)
class Restore:
    """Load checkpoint `name`."""

    name: str


@dataclass(frozen=True)
class Fetch:
    """All take part: chunks' data goes to its new holders, as the order says."""


@dataclass(frozen=True)
class CopyState:
    """Copy the state for checkpoint `save`, and write it while the loop goes on."""

    save: Save
    replicated: Replicated


@dataclass(frozen=True)
class LocalStep:
    """Take the optimizer step alone; `pending` samples came before it in the open round."""

    pending: int = 0


@dataclass(frozen=True)
class Mark:
    """A probe begins: all that the loop changes from here on will be undone. With `local` what is looked at in it comes
    after local steps, otherwise after synchronous ones, on the same batches. Gradients that are there are dropped.
    """

    local: bool


@dataclass(frozen=True)
class Look:
    """The loop's loss over `samples` samples is what a probe asks for; no step is taken."""

    samples: int


@dataclass(frozen=True)
class ShowMean:
    """Go to the mean of a probe's local steps, to look at it from there."""

    control: Control


@dataclass(frozen=True)
class Undo:
    """Back to where the probe was marked; the loop is given the same batches again."""


@dataclass(frozen=True)
class Exchange:
    """Take part in the averaging of a round; the shell adds its measurements to `said`. Answered with `Exchanged`."""

    view: int
    round: int
    mode: Mode  # "partial": exchange control slots first; `replicated.extent` of them says who averages with whom
    said: Contribution = field(default_factory=Contribution)


@dataclass(frozen=True)
class AverageProbe:
    """Take part in averaging a probe's local steps, which count nowhere else. Answered with `Averaged`."""

    view: int
    round: int  # the round before whose first step the probe comes
    said: Contribution


@dataclass(frozen=True)
class Evaluate:
    """Take part in evaluating the averaged model. Answered with `Evaluated`."""

    view: int
    round: int


@dataclass(frozen=True)
class Launch:
    """Take part in this exchange as things are now, and go on meanwhile: `Collect` ends it."""

    exchange: Exchange


@dataclass(frozen=True)
class Collect:
    """Wait for what was launched; the answer is the exchange's."""


@dataclass(frozen=True)
class Commit:
    """Install the reduced vector of a round in `mode`, after which comes one in mode `then`: nothing after this can
    be taken back.
    """

    mode: Mode
    control: Control
    then: Mode


@dataclass(frozen=True)
class Arrive:
    """Tell the controller, leave the view if it is broken, and wait for the order."""

    report: Report


@dataclass(frozen=True)
class Proceed:
    """Give control back to the loop.

    It may take `free` local steps by itself, but not after something came from outside: see `Allowance`. The member is
    told of them with `StepsTaken`, before anything else.
    """

    free: int = 0


@dataclass(frozen=True)
class Exit:
    """End the worker: the order says why."""

    why: str


Awaited = Connect | Heal | Transfer | Align | Restore | Fetch | Exchange | Collect | AverageProbe | Evaluate
"""Commands that may fail: the member waits for their outcome. `Arrive` is answered as well, and does not fail."""

Command = (
    Awaited | CopyState | LocalStep | Mark | Look | ShowMean | Undo | Launch | Commit | Arrive | Proceed | Exit
)
