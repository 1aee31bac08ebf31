"""The end of training: the last checkpoint stands before the members may go, whatever happens meanwhile."""

import pytest
from controller_run import row, started

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.controller.transitions import Phase
from raysgd_local.control.messages import LoopPosition

DONE = {"round": 1, "steps": 4, "samples": 8, "elapsed_s": 1.0, "open": False, "epoch": 1}


def closing(workers=2, **settings):
    """A run whose training is over, with the last checkpoint's parts asked for."""
    run = started(workers_max=workers, checkpoints=CheckpointPolicy(every_epochs=None), **settings)
    members = run.order().view.members
    for worker in members:
        run.arrive(
            worker, LoopPosition.FINISHED, state={**DONE, "cursors": (8 // workers,) * workers}, rounds=(row(1),)
        )
    assert run.order().closing
    return run


def part(run, worker):
    order = run.order()
    return c.ShardWritten(order.save.name, worker, order.view.rank(worker), "path", "", 1)


def copied(run, *workers):
    for worker in workers:
        run.arrive(worker, LoopPosition.FINISHED, copied=run.order().save.name)


def events(run, name):
    return [k.fields for k in run.said if isinstance(k, c.RecordEvent) and k.event == name]


def finish(run):
    return next((k for k in run.said if isinstance(k, c.Finish)), None)


def test_members_stay_until_the_last_checkpoint_stands_and_the_run_ends_when_they_are_gone():
    run = closing()
    copied(run, "w0", "w1")
    run.tell(part(run, "w0"), part(run, "w1"))
    assert not run.order().finish
    run.tell(c.CheckpointPublished(run.order().save.name))
    assert run.order().finish == "finished"
    assert finish(run) is None
    run.tell(c.Died("w0", "its loop ended"), c.Died("w1", "its loop ended"))
    assert finish(run).status == "finished"
    assert run.state.workers_lost == 0


@pytest.mark.parametrize("early", [True, False])
def test_a_writer_that_dies_with_its_part_unwritten_has_the_others_write_anew(early):
    run = closing(workers=3)
    lost = run.order().save.name
    if not early:
        copied(run, "w0", "w1", "w2")
    run.tell(part(run, "w1"), c.Died("w0", "killed"))
    if early:
        run.arrive("w1", LoopPosition.FINISHED, copied=lost)
        run.arrive("w2", LoopPosition.FINISHED, broken="cut")
    order = run.order()
    assert order.closing
    assert order.view.members == ("w1", "w2")
    assert order.save.name > lost
    assert order.save.final
    assert c.DeleteCheckpoint(lost) in run.said
    assert events(run, "checkpoint_failed") == [{"checkpoint": lost, "reason": "w0 is gone"}]
    assert not [k for k in run.said if k == c.RequestWorker("w3")]  # nothing is left to train
    copied(run, "w1", "w2")
    run.tell(part(run, "w1"), part(run, "w2"), c.CheckpointPublished(order.save.name))
    run.tell(c.Died("w1", "its loop ended"), c.Died("w2", "its loop ended"))
    assert finish(run).status == "finished"
    assert run.state.saves.published[-1].name == order.save.name


def test_one_that_dies_with_its_part_written_costs_nothing():
    run = closing()
    copied(run, "w0", "w1")
    name = run.order().save.name
    run.tell(part(run, "w0"), part(run, "w1"), c.Died("w0", "killed"), c.CheckpointPublished(name))
    assert run.order().save is None
    assert run.order().finish == "finished"
    run.tell(c.Died("w1", "its loop ended"))
    assert finish(run).status == "finished"


def test_a_view_that_breaks_before_a_member_copied_its_part_has_it_tried_again():
    run = closing()
    lost = run.order().save.name
    run.arrive("w0", LoopPosition.FINISHED, broken="forming the view failed")
    run.arrive("w1", LoopPosition.FINISHED, broken="cut")
    assert run.order().save.name > lost
    assert run.order().closing


def test_if_all_die_before_it_stands_training_goes_on_from_the_checkpoint_before():
    run = started(checkpoints=CheckpointPolicy(every_epochs=None, every_s=0.5))
    for worker in ("w0", "w1"):
        run.arrive(worker, state={**DONE, "open": True, "epoch": 0, "cursors": (2, 2)}, rounds=(row(1),))
    first = run.order().save.name
    run.tell(part(run, "w0"), part(run, "w1"), c.CheckpointPublished(first))
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.FINISHED, state={**DONE, "round": 2, "cursors": (4, 4)}, rounds=(row(2),))
    assert run.order().closing
    run.tell(c.Died("w0", "killed"), c.Died("w1", "killed"))
    assert run.state.phase is Phase.RESTORING
    run.up("w2", "w3")
    assert run.order().restore == first
    assert not run.order().closing


def test_a_last_checkpoint_that_cannot_be_written_is_tried_later_and_later_and_then_the_run_fails():
    run = closing()
    waits, names = [], []
    for _ in range(3):
        names.append(run.order().save.name)
        copied(run, "w0", "w1")
        run.tell(c.CheckpointFailed(names[-1], "disk full"), c.CheckpointFailed(names[-1], "disk full"))
        timer = [k for k in run.said if isinstance(k, c.SetTimer)][-1]
        waits.append(timer.delay_s)
        run.tell(c.Timer(timer.id))
    assert waits == [0.5, 1.0, 2.0]
    assert len(set(names)) == 3
    assert [e["checkpoint"] for e in events(run, "checkpoint_failed")] == names
    run.tell(c.Timer(run.state.timers["finish"]))
    assert finish(run).status == "lost"
    assert "the last checkpoint was not written within 120 s" in finish(run).reason


def test_members_that_do_not_end_by_themselves_are_not_waited_for_long():
    run = closing()
    run.tell(part(run, "w0"), part(run, "w1"), c.CheckpointPublished(run.order().save.name))
    run.tell(c.Timer(run.state.timers["exit"]))
    assert finish(run).status == "finished"
