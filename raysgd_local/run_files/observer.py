"""`RunObserver`: the one way to listen to a run, real or simulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.records import EvalRow


@dataclass(frozen=True)
class RunStart:
    """The beginning of a run."""

    name: str  # of the run
    method: str  # its name
    task: str  # its name
    directory: str  # the run directory: a path, or a URI's path on its file system
    config: dict[str, Any] = field(default_factory=dict)  # the content of config.yaml
    resumed_from: str = ""  # name of the checkpoint; empty for a new run
    round: int = 0  # rounds in the tables already
    evaluations: int = 0  # evaluations in the tables already


@dataclass(frozen=True)
class RunEvent:
    """A line of `events.jsonl`."""

    time_s: float  # Unix time; in a simulated run seconds of virtual time
    name: str  # of the event
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> dict[str, Any]:
        return {"time_s": self.time_s, "event": self.name} | {
            name: value for name, value in self.fields.items() if name not in ("time_s", "event")
        }


@dataclass(frozen=True)
class RunEnd:
    """The end of a run."""

    status: str  # finished, failed, interrupted, lost or unplaced
    reason: str
    result: dict[str, Any] = field(default_factory=dict)  # content of result.json; empty if the driver was lost


class RunObserver:
    """Listens to a run. Override the methods you need; each does nothing by itself.

    Give instances to `LocalSGDTrainer(observers=[…])`. Methods run in the process of `fit()`, on one thread for each
    observer, so a slow one delays no round. They get resolved rounds only, each once, even if the driver dies in
    between. An observer that raises is dropped: the run goes on, and records the event `observer_failed`.

    >>> class Losses(RunObserver):
    ...     def rounds_resolved(self, rounds):
    ...         print([row.loss for row in rounds])
    """

    def run_started(self, start: RunStart) -> None:
        """Called first, once a run."""

    def rounds_resolved(self, rounds: tuple[RoundRow, ...]) -> None:
        """Take the rounds of a segment, in order: rows of `rounds.csv`."""

    def evaluated(self, evaluations: tuple[EvalRow, ...]) -> None:
        """Take evaluations, in order: rows of `evals.csv`."""

    def event_recorded(self, event: RunEvent) -> None:
        """Take a line of `events.jsonl`."""

    def checkpoint_published(self, checkpoint: str, round: int) -> None:
        """Called when this checkpoint, taken after `round`, is complete, so that a run can resume from it."""

    def checkpoint_deleted(self, checkpoint: str) -> None:
        """Called when this checkpoint is deleted. It may never have been published."""

    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:
        """Forget all rounds after `round` and all but the first `evaluations` evaluations: the run restarts from there.

        Numbers repeat afterwards, in rows of this `incarnation`.
        """

    def run_ended(self, end: RunEnd) -> None:
        """Called last, once a run."""
