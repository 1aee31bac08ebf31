"""The table of faults: one row for each kind. The parser, its messages, the random search and `docs/faults.md` use it.

A new fault is a row here and its effects: on simulated processes in `simulation.engine.fault_effects`, and on real ones
in `runtime.fault_effects` if it is `real`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Targets = Literal["worker", "run"]
WORKER: Targets = "worker"
RUN: Targets = "run"


@dataclass(frozen=True)
class Seconds:
    """A kind whose number after the `x` is a duration."""

    default: float

    def __str__(self) -> str:
        return (
            "seconds; for good by default" if math.isinf(self.default) else f"seconds; {self.default:g} by default"
        )


@dataclass(frozen=True)
class Factor:
    """A kind whose number after the `x` is a factor."""

    default: float
    least: float = 1.0  # in real runs

    def __str__(self) -> str:
        return f"factor; {self.default:g} by default"


@dataclass(frozen=True)
class FaultKind:
    name: str
    targets: Targets
    odds: float = 0.0  # how often the random search draws it, relative to the others
    real: bool = True  # possible with real processes; every kind is possible with simulated ones
    amount: Seconds | Factor | None = None  # the number that it takes
    says: str = ""  # what happens, for the page


_FOR_GOOD = Seconds(math.inf)
_ROWS = (
    FaultKind("kill", WORKER, 6, says="SIGKILL: the process dies, and the driver notices at once"),
    FaultKind("vanish", WORKER, 1, real=False, says="the process dies with its machine, without a sign"),
    FaultKind("stop", WORKER, 2, amount=_FOR_GOOD, says="SIGSTOP: the process stands still; then SIGCONT"),
    FaultKind("hang", WORKER, 1, amount=_FOR_GOOD, says="the loop stands still in a process that lives"),
    FaultKind("zombie", WORKER, 2, False, Seconds(20.0), "the driver takes the process for dead, and it goes on"),
    FaultKind("slow", WORKER, 1, amount=Factor(2.0), says="every step takes that many times as long"),
    FaultKind(
        "drain",
        WORKER,
        2,
        amount=Seconds(30.0),
        says="the driver is told that the machine goes after that time; whatever is left of it then gets a SIGKILL",
    ),
    FaultKind("sigterm", WORKER, 1, says="SIGTERM"),
    FaultKind("nan", WORKER, 2, says="the gradients of the next step are not finite"),
    FaultKind("error", WORKER, 0.4, says="user code raises, in the next `ctx.step`"),
    FaultKind("cut", WORKER, 2, says="the connections to the other workers break"),
    FaultKind("unwritten", WORKER, 0.5, real=False, says="its next part of a checkpoint can't be written"),
    FaultKind("unpublished", RUN, 0.5, real=False, says="the next checkpoint's manifest can't be written"),
    FaultKind("damage", RUN, says="the newest checkpoint's first part loses its last byte"),
    FaultKind("interrupt", RUN, 0.3, says="as Ctrl-C does: the run ends with a checkpoint"),
    FaultKind("driver", RUN, 0.4, says="SIGKILL to the driver"),
)
KINDS = {row.name: row for row in _ROWS}
REAL = tuple(row.name for row in _ROWS if row.real)
