"""The names of the lines in `events.jsonl`, each in one place."""

from __future__ import annotations

from enum import UNIQUE, StrEnum, verify


@verify(UNIQUE)
class EventName(StrEnum):
    """The values of the key `event` in `events.jsonl`."""

    # Membership.
    WORKER_JOINED = "worker_joined"  # entered a view
    WORKER_LEFT = "worker_left"  # left at a boundary, as announced
    WORKER_LOST = "worker_lost"  # its process is gone, or was given up
    DRAIN_NOTICE = "drain_notice"  # will leave at the next boundary
    LET_GO = "let_go"  # will leave at this boundary: it is too slow
    PREPARING = "preparing"  # the processes run, and their loops have not come to the first epoch yet
    VIEW_FORMED = "view_formed"  # a view has committed its first round
    PAUSED = "paused"  # too few workers
    UNPAUSED = "unpaused"

    # Data.
    CHUNKS_MOVED = "chunks_moved"  # a worker received chunks' data from others
    CHUNKS_UNCOVERED = "chunks_uncovered"  # no live worker holds these chunks
    RESIDUAL_LOST = "residual_lost"  # compression errors of workers that are gone

    # The method.
    PERIOD_CHANGED = "period_changed"
    PROBED = "probed"  # a probe left the period as it was
    STEPS_SHARED = "steps_shared"  # straggler balancing changed the workers' shares

    # Checkpoints.
    CHECKPOINT_WRITTEN = "checkpoint_written"
    CHECKPOINT_FAILED = "checkpoint_failed"
    CHECKPOINT_DAMAGED = "checkpoint_damaged"
    CHECKPOINT_UNSCORED = "checkpoint_unscored"  # evaluations lack the metric by which the best are kept
    RESUMED = "resumed"  # members load a checkpoint

    # The run.
    USER_ERROR = "user_error"
    RANKS_DISAGREE = "ranks_disagree"  # members of a view wait for different things
    VIEW_BROKE = "view_broke"  # again, before its first round, though no worker was lost
    DRIVER_RESTARTED = "driver_restarted"
    STORAGE_FAILED = "storage_failed"
    STORAGE_RECOVERED = "storage_recovered"
    ROWS_MISSING = (
        "rows_missing"  # the tables lack rows of rounds or evaluations before the checkpoint of a resume
    )
    FILES_MISSING = "files_missing"  # the storage lost files that were written
    LOG = "log"  # `ctx.log` of the user's code
    TIMING_ONLY = "timing_only"  # the times are simulated and the losses assumed
    OBSERVER_FAILED = "observer_failed"  # an observer of the user's raised, and was dropped
    ENDED = "ended"

    # Faults that were asked for.
    CHAOS_FIRED = "chaos_fired"
    CHAOS_UNFIRED = "chaos_unfired"
