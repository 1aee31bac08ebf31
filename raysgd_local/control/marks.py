"""Marks: names of rare branches in the two machines, so that tests can assert that a branch was reached.

`mark("crash_loop")` does nothing unless a test or the random search records. Each mark is declared below, stands at
one place in `control/`, and has one small test of its own in `tests/control/test_marks.py`. The random search prints
the marks that its seeds never reach: those branches are tested by their one small test only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

MARKS = {
    # The controller: pausing, stopping.
    "pause_put_off": "fewer than workers_min are left, but they first finish the round that they have steps of",
    "stopped_before_a_view": "a stop was asked for before the first view: there is nothing to save",
    "stopped_while_paused": "a stop was asked for during a pause: the members are settled once more, to save",
    "stop_waits_for_pending_steps": "a stop was asked for while steps are uncommitted: members finish the round first",
    "stopped_between_epochs": "all loops asked to end training while no epoch was open: it ends without another round",
    "start_put_off_for_preparing": "the processes run, but prepare for longer than they had to be placed",
    # The controller: loops that differ.
    "evaluation_passed_by": "a rank evaluates, and another one's loop has gone past that evaluation: a user error",
    "ranks_disagree": "an evaluation waits for ranks that wait for their next epoch, or have ended: a user error",
    "loop_ended_before_others": "a member's loop has ended, and others open another epoch: they take its data",
    # The controller: losses.
    "silent_worker_given_up": "no heartbeat within the limit",
    "arrival_timed_out": "a member did not come to a boundary at which others wait",
    "straggler_given_up": "members waited too long in a collective for others: those others are given up",
    "collective_stuck": "all members wait in a collective that does not complete: the view is broken, nobody is blamed",
    "straggler_let_go": "a member is many times slower than the others: it leaves at this boundary",
    "view_broke_before_its_first_round": "a view broke while it was forming",
    "second_loss_in_view": "another member died while the survivors of a broken view were awaited",
    "leaver_died": "a member that was to leave at the next boundary died before it",
    "crash_loop_given_up": "so many workers were lost without a new round that the run ends",
    "view_broke_for_ever": "views of the same workers broke before their first round so often that the run ends",
    "crash_loop": "more workers crashed in a row than may train: the replacement is asked for later",
    # The controller: what a boundary settles.
    "member_behind": "a member missed the newest round: it is healed with the reduced vector that another kept",
    "evaluation_without_round": "an evaluation was resolved at a boundary, and no round with it",
    "resolved_round_lost": "all members that committed a resolved round died, and those left missed it: it is lost",
    "nobody_has_state": "committed rounds are lost with every worker: the run goes back to the newest checkpoint",
    "beginning_lost": "every worker with state died before the first commit: the run begins afresh",
    "model_lost": "no worker has state and no checkpoint can be loaded: the run is lost",
    # The controller: joining and leaving.
    "joiner_postponed": "a worker is ready to join, but members hold uncommitted steps or no epoch is open: it waits",
    "member_without_state_waits_again": "a view broke before a member got state, and others hold steps: it waits again",
    "joiner_drained": "a worker's node is drained before the worker is a member: it is replaced at once",
    "newcomer_on_draining_node": "a requested worker came up on a node that is being drained",
    "leaver_stays_for_size": "a member wants to leave, but without it there were fewer than workers_min: it stays",
    "only_holder_of_state_leaves_later": "a member wants to leave, but only it has the newest state: it stays a round",
    "only_holder_of_chunk_leaves_later": "a member wants to leave, but only it has a chunk's data: it stays a round",
    "chunk_nobody_has": "a chunk's last holder is gone",
    "shards_measured": "shards of a stream are read to learn how long they are: only dead workers knew it, or nobody",
    # The controller: checkpoints.
    "checkpoint_not_written": "a part or the manifest of a checkpoint could not be written",
    "checkpoint_lost_a_writer": "a worker died before it wrote its part of a checkpoint: the checkpoint is given up",
    "late_part_of_an_abandoned_checkpoint": "a part was written of a checkpoint that was given up: it is deleted",
    "urgent_checkpoint": "all who have the state will leave: a checkpoint is due before the policy asks for one",
    "damaged_checkpoint": "a checkpoint that was written can't be loaded: the one before has to do",
    "resumed_by_another_number": "the run resumes with another number of workers: what is left is dealt anew",
    "resumed_with_another_total": "a run with rounds across epochs resumes with another total of epochs",
    "last_checkpoint_retried": "training is over, and the last checkpoint failed: another one is begun",
    "last_checkpoint_given_up": "the last checkpoint was not written within finish_s: the run is lost",
    "state_lost_while_closing": "all workers died before the last checkpoint stood: the one before is restored",
    # The member: words that come early, late or twice.
    "yield_before_its_order": "a boundary was asked for in a segment whose order has not come yet: it is remembered",
    "cut_before_its_order": "a view was cut whose order has not come yet: only the transport remembers it",
    "late_outcome": "a collective of a view that has passed completed: it has no effect",
    # The member: breaks.
    "break_while_being_healed": "the view broke while this member was being healed, which may succeed yet",
    "steps_already_in_the_missed_round": "a healed member drops its steps: the round that it missed has them",
    "missed_evaluation": "a member missed an evaluation that others completed: its loop does not repeat it",
    "broke_in_flight": "the view broke while an averaging travelled: its steps are pending again",
    "probe_abandoned": "the view broke during a probe: it is undone",
    "probe_incomplete": "a probe's batches ran out before it had seen enough: it is undone and finds nothing",
    "pending_step_before_probe": "a probe begins with a step pending from a broken view: the step is dropped",
    # The member: the end.
    "epoch_closed_in_a_round": "all have passed an epoch's end in the middle of a round: training goes on",
    "evaluated_in_a_round": "the mean is evaluated while steps are uncommitted, which no round averages",
    "step_between_epochs": "the epoch has ended with the loop's last step, but the loop takes another one",
    "step_after_the_end": "training is over, but the loop asks for a step: it is not taken",
    "replicas_differ": "members came to a round with different committed states: the run fails",
    "optimizers_differ": "loops step different optimizers together, where gradients are averaged: the run fails",
}

UNIT_TEST_ONLY: dict[str, str] = {
    "resumed_with_another_total": "simulated loops keep their number of epochs",
    "replicas_differ": "only a bug or a broken machine makes replicas differ; the search would report a violation",
    "optimizers_differ": "simulated loops step all optimizers together",
    "start_put_off_for_preparing": "the search's runs may pause no longer than they wait for workers at the start",
    "view_broke_for_ever": "no fault of the search breaks so many views in a row",
    "step_between_epochs": "simulated loops take no steps without samples",
    "late_outcome": "a correct shell waits for its collective before it takes the next order",
}
"""Marks that the random search can't reach, each with the reason."""

_recorded: Counter[str] | None = None


def mark(name: str, reached: bool = True) -> None:
    """Count the branch as reached (if `reached`). Does nothing outside `recording`."""
    if _recorded is not None and reached:
        if name not in MARKS:
            raise KeyError(f"{name} is not declared in MARKS")
        _recorded[name] += 1


@contextmanager
def recording() -> Iterator[Counter[str]]:
    """Count how often each mark is reached within the `with` block."""
    global _recorded
    before, _recorded = _recorded, Counter()
    try:
        yield _recorded
    finally:
        _recorded = before


@contextmanager
def expected(name: str) -> Iterator[None]:
    """Assert that the mark `name` is reached within the `with` block."""
    with recording() as reached:
        yield
    if not reached[name]:
        raise AssertionError(f"mark {name!r} was not reached ({MARKS[name]}); reached were {sorted(reached)}")


def never_reached(counts: Counter[str]) -> tuple[str, ...]:
    """Return the marks that the random search should reach and that are not in `counts`."""
    return tuple(name for name in MARKS if not counts[name] and name not in UNIT_TEST_ONLY)
