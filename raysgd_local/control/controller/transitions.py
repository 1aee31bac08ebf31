"""The run's phases and a worker's standings, and every transition between them.

`Turn` (`state.py`) makes each change and asserts that it stands in these tables. The diagrams in
`docs/architecture.md` are drawn from them, by `diagram`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Phase(Enum):
    """The phase of a run."""

    STARTING = "starting"  # no view yet: workers are awaited
    RUNNING = "running"  # members train, or arrive at a boundary
    RESOLVING = "resolving"  # the view is broken: survivors are awaited
    RESTORING = "restoring"  # no member has the state: workers are awaited that will load a checkpoint
    PAUSED = "paused"  # too few workers
    FINISHING = "finishing"  # all is written: members end by themselves
    ENDED = "ended"  # no event has an effect any more


class Standing(Enum):
    """The standing of one worker."""

    REQUESTED = "requested"
    UP = "up"  # its process runs
    READY = "ready"  # it has built everything, has no state, and waits to enter
    MEMBER = "member"
    LEAVING = "leaving"  # a member until the next boundary
    GONE = "gone"  # the controller has no row of it any more


Transitions = Mapping[Enum, Mapping[Enum, str]]
"""From: to, and the cause."""

PHASES: Transitions = {
    Phase.STARTING: {
        Phase.RUNNING: "enough workers are ready",
        Phase.ENDED: "start time-out, stop, user error, too many losses",
    },
    Phase.RUNNING: {
        Phase.RUNNING: "all arrived: next order",
        Phase.RESOLVING: "view broke",
        Phase.PAUSED: "too few workers",
        Phase.RESTORING: "no member has the state",
        Phase.FINISHING: "training is over, and saved",
        Phase.ENDED: "user error, too many losses, no checkpoint to restore, last checkpoint's time-out",
    },
    Phase.RESOLVING: {
        Phase.RUNNING: "survivors arrived: next order",
        Phase.PAUSED: "too few workers",
        Phase.RESTORING: "no survivor has the state",
        Phase.FINISHING: "training is over, and saved",
        Phase.ENDED: "user error, too many losses, no checkpoint to restore, last checkpoint's time-out",
    },
    Phase.PAUSED: {
        Phase.RUNNING: "enough workers again, stop",
        Phase.ENDED: "pause time-out, user error, too many losses",
    },
    Phase.RESTORING: {
        Phase.RUNNING: "enough workers are ready",
        Phase.ENDED: "start time-out, stop, user error, too many losses",
    },
    Phase.FINISHING: {
        Phase.ENDED: "all members ended, exit time-out, user error",
    },
    Phase.ENDED: {},
}

STANDINGS: Transitions = {
    Standing.REQUESTED: {
        Standing.UP: "process runs",
        Standing.GONE: "lost",
    },
    Standing.UP: {
        Standing.READY: "arrived at its first epoch",
        Standing.GONE: "lost, drained",
    },
    Standing.READY: {
        Standing.MEMBER: "order",
        Standing.GONE: "lost, drained",
    },
    Standing.MEMBER: {
        Standing.READY: "view broke before it got state",
        Standing.LEAVING: "drained, let go",
        Standing.GONE: "lost, given up with the state",
    },
    Standing.LEAVING: {
        Standing.GONE: "order of a view without it, lost",
    },
    Standing.GONE: {},
}


def check(table: Transitions, before: Enum, after: Enum) -> None:
    """Raise `AssertionError`, a bug of the controller, unless `table` has this transition."""
    if after not in table[before]:
        raise AssertionError(f"no transition {before.name} -> {after.name} in the controller's table")


def diagram(table: Transitions) -> str:
    """The table as a Mermaid state diagram.

    >>> print(diagram({Phase.PAUSED: {Phase.ENDED: "pause time-out"}, Phase.ENDED: {}}))
    stateDiagram-v2
        [*] --> paused
        paused --> ended: pause time-out
        ended --> [*]
    """
    first, last = next(iter(table)), next(state for state, targets in table.items() if not targets)
    arrows = [
        f"{state.value} --> {to.value}: {cause}"
        for state, targets in table.items()
        for to, cause in targets.items()
    ]
    lines = [f"[*] --> {first.value}", *arrows, f"{last.value} --> [*]"]
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in lines)])
