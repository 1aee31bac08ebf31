"""Start a driver that died again, from the newest good checkpoint."""

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
from raysgd_local.run_files.checkpoint_survey import FALLBACKS, survey
from raysgd_local.runtime.run_plan import Plan, Restart

DEATHS = (RayActorError, ActorUnschedulableError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
"""Ray's errors for a dead driver. It has errors of their own for a process killed for memory, and for a driver that
can't be placed because its machine takes no more actors."""

IN_A_ROW = 3
FIRST_WAIT_S = 1.0


@dataclass(frozen=True)
class Restarts:
    """The count of a driver's restarts. Each wait in a row is twice as long as the one before."""

    count: int = 0  # in all
    in_a_row: int = 0  # without a newer checkpoint between them

    @property
    def wait_s(self) -> float:
        """Delay before the next start."""
        return FIRST_WAIT_S * 2.0 ** (self.in_a_row - 1)

    def after(self, progressed: bool, reason: str) -> Restarts:
        """Count one more death. Raises `RunLostError` after more than `IN_A_ROW` in a row."""
        in_a_row = 1 if progressed else self.in_a_row + 1
        if in_a_row > IN_A_ROW:
            raise RunLostError(f"the driver died {in_a_row} times without a checkpoint between: {reason}")
        return Restarts(self.count + 1, in_a_row)


def planned_again(plan: Plan, restarts: Restarts, reason: str) -> tuple[Plan, Restarts]:
    """Return the next driver's plan, and the count with this death.

    Before the first checkpoint training begins anew. If there are checkpoints and none is good, it does not begin anew
    unasked: raises `RunLostError`.
    """
    most = FALLBACKS if plan.settings.checkpoints.keep is None else None
    found = survey(plan.storage, plan.settings.program.schedule, most=most)
    manifest = found.manifest
    if manifest is None and found.damaged:
        raise RunLostError(
            f"the driver died ({reason}), and every checkpoint is damaged: {', '.join(found.damaged)}"
        )
    before = plan.resume["name"] if plan.resume is not None else ""
    progressed = manifest is not None and manifest["name"] != before
    restarts = restarts.after(progressed, reason)
    restart = Restart(restarts.count, reason)
    return replace(plan, resume=manifest, older=found.older, damaged=found.passed_over, restart=restart), restarts
