"""A driver that died is started again, from the newest good checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from raysgd_local.errors import RunLostError
from raysgd_local.runtime.run_plan import Plan, Restart
from raysgd_local.training.replica import checkpoint_parts

DEATHS = (RayActorError, ActorUnschedulableError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
"""What Ray says when the driver's process is gone: killed for memory it is not called an actor's death.

Nor is it where the machine that it has to live on takes nobody any more."""

IN_A_ROW = 3
FIRST_WAIT_S = 1.0


@dataclass(frozen=True)
class Restarts:
    """How often it was started again: in all, and in a row without a checkpoint that the one before had not.

    Waits twice as long each time of a row, and gives up after `IN_A_ROW`.
    """

    count: int = 0
    in_a_row: int = 0

    @property
    def wait_s(self) -> float:
        return FIRST_WAIT_S * 2.0 ** (self.in_a_row - 1)

    def after(self, progressed: bool, reason: str) -> Restarts:
        """One death more. Raises `RunLostError` where it dies again and again."""
        in_a_row = 1 if progressed else self.in_a_row + 1
        if in_a_row > IN_A_ROW:
            raise RunLostError(f"the driver died {in_a_row} times without a checkpoint between: {reason}")
        return Restarts(self.count + 1, in_a_row)


def planned_again(plan: Plan, restarts: Restarts, reason: str) -> tuple[Plan, Restarts]:
    """The plan of the next driver, and the count with this death in it. Before the first checkpoint training begins
    anew; where there are some and none is good, that is not done unasked: raises `RunLostError`.
    """
    manifest, damaged = checkpoint_parts.newest_good(plan.storage)
    if manifest is None and damaged:
        raise RunLostError(f"the driver died ({reason}), and every checkpoint is damaged: {', '.join(damaged)}")
    before = plan.resume["name"] if plan.resume is not None else ""
    progressed = manifest is not None and manifest["name"] != before
    restarts = restarts.after(progressed, reason)
    restart = Restart(restarts.count, reason)
    return replace(plan, resume=manifest, damaged=damaged, restart=restart), restarts
