"""Loops that are not the same on all ranks, and losses or breaks that recur: said by name, and never for ever."""

from __future__ import annotations

import pytest
from controller_run import Run, row, started

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.heartbeats import Pulse
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.controller.transitions import Phase, Standing
from raysgd_local.control.messages import Beat, Evaluating, LoopPosition

DONE = {"round": 1, "steps": 4, "samples": 8, "open": False, "epoch": 1, "cursors": (4, 4)}
CLOSED = {"state": DONE, "rounds": (row(1),)}


def heartbeat(*signs):
    return c.Heartbeat(signs, awake_s=1e6, hears_s=1e6)


def evaluating(worker, round=1, evaluations=0, since_s=2.5, view=1):
    call = Evaluating(round, evaluations, since_s)
    return c.SignOfLife(worker, 0.1, view=view, round_s=0.1, waits_s=since_s, evaluating=call)


def idle(worker):
    return c.SignOfLife(worker, 0.1, view=1, round_s=0.1)


def finish(commands):
    return next((k for k in commands if isinstance(k, c.Finish)), None)


def events(run, name):
    return [k.fields for k in run.said if isinstance(k, c.RecordEvent) and k.event == name]


@pytest.mark.parametrize(
    ("place", "words"),
    [(LoopPosition.OPENING, "waits for its next epoch"), (LoopPosition.FINISHED, "has ended its loop")],
)
def test_an_evaluation_of_one_rank_alone_ends_the_run_within_seconds_and_names_the_ranks(place, words):
    run = started(max_failures=-1)
    run.arrive("w0", place, **CLOSED)
    assert not run.tell(heartbeat(idle("w0"), evaluating("w1", since_s=9.0)))  # w0 is there for a moment only
    run.now += 2.5
    end = finish(run.tell(heartbeat(idle("w0"), evaluating("w1", since_s=9.0))))
    assert (end.status, end.ranks) == ("failed", (0, 1))
    assert f"rank 0 {words}" in end.error
    assert "rank 1 evaluates (ctx.evaluate)" in end.error
    assert end.reason in end.error
    assert run.state.workers_lost == 0
    (told,) = events(run, "ranks_disagree")
    assert sorted(told["wants"]) == ["0", "1"]


def test_ranks_that_are_still_computing_are_not_named():
    run = started(workers_max=3)
    state = {**DONE, "cursors": (4, 4, 4)}
    run.arrive("w0", LoopPosition.OPENING, state=state, rounds=(row(1),))
    run.now += 2.5
    end = finish(run.tell(heartbeat(idle("w0"), evaluating("w2"), idle("w1"))))
    assert end.ranks == (0, 2)


@pytest.mark.parametrize(
    "sign",
    [
        evaluating("w1", round=0),  # it has not heard yet that the round is complete: a slow network
        evaluating("w1", evaluations=1),
        evaluating("w1", view=7),
        evaluating("w1", since_s=1.0),
        idle("w1"),
    ],
    ids=["a round behind", "another evaluation", "another view", "just begun", "computing"],
)
def test_what_may_come_right_by_itself_is_no_disagreement(sign):
    run = started()
    run.arrive("w0", LoopPosition.OPENING, **CLOSED)
    run.now += 2.5
    assert not run.tell(heartbeat(idle("w0"), sign))
    run.tell(c.Died("w0", "killed"))
    assert run.state.phase is Phase.RESOLVING
    assert not run.tell(heartbeat(evaluating("w1")))


def test_a_heartbeat_says_how_long_an_evaluation_takes_up_to_now():
    pulse = Pulse(beat_s=0.25, now=0.0)
    pulse.expect("a")
    pulse.beat(Beat("a", view=1, evaluating=Evaluating(3, 1, since_s=1.0)), now=10.0)
    (sign,) = pulse.heartbeat(10.5).signs
    assert sign.evaluating == Evaluating(3, 1, since_s=1.5)


def test_the_others_open_their_next_epoch_when_a_loop_has_ended():
    run = started()
    run.arrive("w0", LoopPosition.FINISHED, **CLOSED)
    run.arrive("w1", LoopPosition.OPENING, samples=8, **CLOSED)
    order = run.order()
    assert order.view.members == ("w0", "w1")
    assert (order.replicated.open, order.deal.samples, order.deal.epoch) == (True, 8, 1)


def test_when_all_loops_have_ended_the_run_has():
    run = started(checkpoints=CheckpointPolicy(last=False))
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.FINISHED, **CLOSED)
    assert (run.order().finish, run.state.phase) == ("finished", Phase.FINISHING)


def test_training_ends_without_another_round_when_all_asked_for_it_between_two_epochs():
    run = started()
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.OPENING, samples=8, stops=True, **CLOSED)
    state = run.order().replicated
    assert (state.stopped, state.open, state.round) == ("stopped by the training loop", False, 1)


def test_training_goes_on_for_a_round_when_only_some_asked_for_its_end():
    run = started()
    run.arrive("w0", LoopPosition.OPENING, samples=0, stops=True, **CLOSED)
    run.arrive("w1", LoopPosition.OPENING, samples=8, **CLOSED)
    state = run.order().replicated
    assert (state.stopped, state.open) == ("", True)
    assert run.order().deal.samples == 8


# Losses and breaks that recur.


def test_workers_that_die_again_and_again_before_a_new_round_end_the_run_with_the_last_reason():
    run = Run(workers_max=2)
    for number in range(10):
        run.tell(c.WorkerUp(f"w{number}", "node", 1))
        end = finish(run.tell(c.Died(f"w{number}", f"exit code 1 of w{number}")))
        assert (end is None) == (number < 9)
        run.tell(*(c.Timer(id) for name, id in run.state.timers.items() if name.startswith("respawn")))
    assert end.status == "lost"
    assert end.reason == (
        "10 workers in a row were lost, and no round after 0 was committed; the last one: exit code 1 of w9"
    )


def test_losses_count_anew_when_a_round_is_committed_that_none_was_before():
    run = started(spares=1)

    def spare_dies():
        (spare,) = run.state.standing(Standing.REQUESTED)
        run.tell(c.Died(spare, "killed"))
        run.tell(*(c.Timer(id) for name, id in run.state.timers.items() if name.startswith("respawn")))

    for round in range(1, 30):
        spare_dies()
        run.tell(c.Progress("w0", 1, round, 1))
    assert (run.state.workers_lost, run.state.fruitless) == (29, 0)
    for _ in range(15):
        assert not finish(run.said)
        spare_dies()
        run.tell(c.Progress("w0", 1, 29, 1))
    assert finish(run.said).status == "lost"


def test_a_round_that_is_repeated_from_a_checkpoint_is_no_progress():
    run = started(checkpoints=CheckpointPolicy(every_epochs=None, every_s=0.5))
    state = {"round": 1, "steps": 4, "samples": 4, "elapsed_s": 1.0, "cursors": (2, 2)}
    for worker in ("w0", "w1"):
        run.arrive(worker, state=state, rounds=(row(1),))
    name = run.order().save.name
    run.tell(*(c.ShardWritten(name, f"w{rank}", rank, "path", "", 1) for rank in range(2)))
    run.tell(c.CheckpointPublished(name))
    workers, last = ["w0", "w1"], None
    while last is None:
        last = finish(run.tell(*(c.Died(worker, "killed") for worker in workers)))
        workers = list(run.state.standing(Standing.REQUESTED))
        run.up(*workers)
        run.tell(*(c.Progress(worker, run.order().view.number, 1, 1) for worker in workers))
        assert run.state.workers_lost < 20
    assert "10 workers in a row were lost, and no round after 1 was committed" in last.reason


def test_an_exception_that_every_replacement_raises_again_ends_the_run_whatever_is_allowed():
    run = Run(workers_max=2, max_failures=-1)
    run.up("w0")
    for number in range(1, 20):
        run.tell(c.WorkerUp(f"w{number}", "node", 1), c.UserError(f"w{number}", "SystemExit: 1"))
        end = finish(run.tell(c.Timer(run.state.timers["errors"])))
        run.tell(*(c.Timer(id) for name, id in run.state.timers.items() if name.startswith("respawn")))
        if end is not None:
            break
    assert (end.status, end.error) == ("failed", "SystemExit: 1")
    assert run.state.failures == 10


def break_view(run, why="all-reduce failed on rank 0: no route to host"):
    for worker in run.state.members:
        run.arrive(worker, broken=why)


def test_a_view_that_breaks_before_its_first_round_is_tried_again_ever_later_and_not_for_ever():
    run, waits = started(), []
    for _ in range(14):
        break_view(run)
        if "again" in run.state.timers:
            waits.append(next(k.delay_s for k in reversed(run.said) if isinstance(k, c.SetTimer)))
            before = run.order().view.number
            run.tell(c.Timer(run.state.timers["again"]))
            assert run.order().view.number == before + 1
    assert waits[:6] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert sum(waits) > 45
    assert not finish(run.said)
    break_view(run)
    end = finish(run.said)
    assert end.status == "lost"
    assert "15 views of the same workers broke before their first round" in end.reason
    assert "no route to host" in end.reason
    assert [told["times"] for told in events(run, "view_broke")] == list(range(2, 16))


@pytest.mark.parametrize("between", ["a round", "a loss"])
def test_breaks_count_anew_after_a_round_or_a_loss(between):
    run = started(workers_max=3)
    for _ in range(12):
        for _ in range(3):
            break_view(run)
        if between == "a round":
            run.tell(c.Progress(run.state.members[0], run.order().view.number, 1, 2))
        else:
            spare = run.state.standing(Standing.REQUESTED)
            run.up(*spare)
            run.tell(c.Died(run.state.members[-1], "killed"))
        break_view(run)
    assert not [told for told in events(run, "view_broke") if told["times"] > 4]


# Preparing.


def test_workers_whose_processes_run_are_not_said_to_be_missing_however_long_they_prepare():
    run = Run(workers_min=2)
    run.tell(*(c.WorkerUp(worker, "node", 1) for worker in ("w0", "w1")))
    assert run.state.phase_shown == "preparing"
    assert not finish(run.tell(c.Timer(run.state.timers["start"])))
    assert events(run, "preparing") == [{"workers": ["w0", "w1"], "after_s": 300.0}]
    run.up("w0", "w1")
    assert run.state.phase_shown == "running"
    assert run.order().view.members == ("w0", "w1")


def test_a_run_whose_workers_never_get_ready_ends_and_says_that_they_still_prepare():
    run = Run(workers_min=2)
    run.tell(*(c.WorkerUp(worker, "node", 1) for worker in ("w0", "w1")))
    for _ in range(2):
        end = finish(run.tell(c.Timer(run.state.timers["start"])))
    assert end.status == "lost"
    assert end.reason == "0 of 2 workers were ready within 3600 s (workers.pause_limit_s); w0, w1 still prepared"


def test_workers_that_the_cluster_has_no_place_for_end_the_run_at_the_start_timeout():
    run = Run(workers_min=2)
    run.up("w0")
    assert run.state.phase_shown == "starting"
    end = finish(run.tell(c.Timer(run.state.timers["start"])))
    assert (end.status, end.reason) == ("unplaced", "1 were placed within 300 s (workers.start_timeout_s)")
