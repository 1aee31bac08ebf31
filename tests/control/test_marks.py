"""Each rare branch that has a mark, reached once, in as little as it takes."""

import ast
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from controller_run import Run, row, started

import raysgd_local.control
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod
from raysgd_local.algorithms.schedules.base import Period, Probe
from raysgd_local.control import marks
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.data.deal import Deal, pack
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.member.state import Flight, ProbeProgress
from raysgd_local.control.messages import Continuation, Evaluating, LoopPosition, Order, Report, View
from raysgd_local.control.replicated import state as replicated
from raysgd_local.control.replicated.balancing import Pace, Pacing
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow

FOLDER = Path(raysgd_local.control.__path__[0])
ROUND = {"round": 1, "steps": 4, "samples": 4, "elapsed_s": 1.0, "cursors": (2, 2)}
DONE = {"round": 1, "steps": 4, "samples": 8, "open": False, "epoch": 1, "cursors": (4, 4)}
RARELY = CheckpointPolicy(every_epochs=None)
OFTEN = CheckpointPolicy(every_epochs=None, every_s=0.5)


# What holds of all marks.


def test_every_mark_that_is_declared_stands_at_exactly_one_place_and_no_other_does():
    found = Counter()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "mark":
                found[node.args[0].value] += 1
    assert found == Counter(marks.MARKS.keys())


def test_every_mark_has_exactly_one_small_test():
    asserted = re.findall(r'marks\.expected\("(\w+)"\)', Path(__file__).read_text())
    assert Counter(asserted) == Counter(marks.MARKS.keys())


def test_marks_that_the_search_cannot_reach_are_declared():
    assert marks.UNIT_TEST_ONLY.keys() <= marks.MARKS.keys()


def test_a_mark_outside_a_recording_leaves_no_trace():
    marks.mark("crash_loop")
    with marks.recording() as reached:
        assert not reached
        marks.mark("crash_loop", False)
        with marks.recording() as inner:
            marks.mark("crash_loop")
        assert inner["crash_loop"] == 1
    assert not reached


def test_an_expected_mark_that_is_not_reached_fails():
    name = "collective_stuck"
    with pytest.raises(AssertionError, match=name), marks.expected(name):
        marks.mark("crash_loop")


def test_a_mark_that_is_not_declared_is_refused():
    with marks.recording(), pytest.raises(KeyError, match="declared"):
        marks.mark("no such branch")


# The controller: pausing, stopping.


def test_too_few_with_steps_pending_finish_the_round():
    run = started(workers_min=2)
    run.tell(c.Died("w1", "killed"))
    with marks.expected("pause_put_off"):
        run.arrive("w0", steps=2, broken="cut")


def test_a_stop_before_the_first_view():
    run = Run()
    with marks.expected("stopped_before_a_view"):
        run.tell(c.StopRequested("interrupted"))


def test_a_stop_during_a_pause():
    run = started(workers_min=2)
    run.tell(c.Died("w1", "killed"))
    run.arrive("w0", broken="cut")
    with marks.expected("stopped_while_paused"):
        run.tell(c.StopRequested("interrupted"))


def test_a_stop_while_steps_are_pending():
    run = started()
    run.tell(c.StopRequested("interrupted"))
    run.arrive("w0", steps=1, broken="cut")
    with marks.expected("stop_waits_for_pending_steps"):
        run.arrive("w1", steps=1, broken="cut")


def test_a_stop_that_all_ask_for_between_two_epochs():
    run = started()
    run.arrive("w0", LoopPosition.OPENING, state=DONE, rounds=(row(1),), stops=True)
    with marks.expected("stopped_between_epochs"):
        run.arrive("w1", LoopPosition.OPENING, state=DONE, rounds=(row(1),), stops=True)


def test_processes_that_prepare_for_longer_than_they_had_to_be_placed():
    run = Run(workers_min=2)
    run.tell(*(c.WorkerUp(worker, "node", 1) for worker in ("w0", "w1")))
    with marks.expected("start_put_off_for_preparing"):
        run.tell(c.Timer(run.state.timers["start"]))


# The controller: loops that differ.


def heartbeat(*signs):
    return c.Heartbeat(signs, awake_s=1000.0, hears_s=1000.0)


def test_an_evaluation_that_one_rank_is_in_alone():
    run = started()
    run.arrive("w0", LoopPosition.OPENING, state=DONE, rounds=(row(1),))
    run.now += 5.0
    alone = c.SignOfLife("w1", 0.1, view=1, waits_s=4.0, evaluating=Evaluating(1, 0, since_s=4.0))
    with marks.expected("ranks_disagree"):
        run.tell(heartbeat(c.SignOfLife("w0", 0.1, view=1), alone))


def test_a_loop_that_ends_before_the_others():
    run = started()
    run.arrive("w0", LoopPosition.FINISHED, state=DONE, rounds=(row(1),))
    with marks.expected("loop_ended_before_others"):
        run.arrive("w1", LoopPosition.OPENING, samples=8, state=DONE, rounds=(row(1),))


# The controller: losses.


def test_a_silent_worker():
    run = started()
    with marks.expected("silent_worker_given_up"):
        run.tell(heartbeat(c.SignOfLife("w0", 0.1), c.SignOfLife("w1", 100.0)))


def test_a_member_that_does_not_arrive():
    run = started()
    run.arrive("w0")
    run.now += 500.0
    with marks.expected("arrival_timed_out"):
        run.tell(heartbeat())


def test_a_member_that_others_wait_for():
    run = started()
    with marks.expected("straggler_given_up"):
        run.tell(heartbeat(c.SignOfLife("w0", 0.1, view=1, waits_s=700.0), c.SignOfLife("w1", 0.1, view=1)))


def test_a_collective_that_all_wait_in():
    run = started()
    with marks.expected("collective_stuck"):
        run.tell(heartbeat(*(c.SignOfLife(w, 0.1, view=1, waits_s=700.0) for w in ("w0", "w1"))))


def test_a_member_that_is_many_times_slower():
    run = started()
    pacing = Pacing(paces=(Pace(), replace(Pace(), hopeless=True)))
    run.arrive("w0", state={**ROUND, "pacing": pacing}, rounds=(row(1),))
    with marks.expected("straggler_let_go"):
        run.arrive("w1", state={**ROUND, "pacing": pacing}, rounds=(row(1),))


def test_a_view_that_breaks_while_it_forms():
    run = started()
    with marks.expected("view_broke_before_its_first_round"):
        run.tell(c.Died("w1", "killed"))


def test_a_second_loss_while_survivors_are_awaited():
    run = started(workers_max=3)
    run.tell(c.Died("w1", "killed"))
    with marks.expected("second_loss_in_view"):
        run.tell(c.Died("w2", "killed"))


def test_a_leaver_that_dies_before_the_boundary():
    run = started()
    run.tell(c.DrainNotice("w0", "preempted"))
    with marks.expected("leaver_died"):
        run.tell(c.Died("w0", "killed"))


def test_a_crash_loop_that_leads_nowhere():
    run = Run(workers_max=1)
    for number in range(9):
        run.tell(c.Died(f"w{number}", "killed"))
        run.tell(*(c.Timer(id) for name, id in run.state.timers.items() if name != "start"))
    with marks.expected("crash_loop_given_up"):
        run.tell(c.Died("w9", "killed"))


def test_a_view_that_breaks_again_and_again():
    run = started()
    with marks.expected("view_broke_for_ever"):
        break_again(run, 15)


def break_again(run, times):
    """All members report a break, so many times, before a round of any view is committed."""
    for _ in range(times):
        for worker in ("w0", "w1"):
            run.arrive(worker, broken="all-reduce failed: no route to host")
        if "again" in run.state.timers:
            run.tell(c.Timer(run.state.timers["again"]))


def test_workers_that_crash_one_after_the_other():
    run = Run(workers_max=1)
    run.tell(c.Died("w0", "killed"))
    with marks.expected("crash_loop"):
        run.tell(c.Died("w1", "killed"))


# The controller: what a boundary settles.


def one_behind():
    """A run in which w0 alone committed round 1; w1 has not arrived yet."""
    run = started()
    run.arrive("w0", state=ROUND, rounds=(row(1),), broken="cut")
    return run


def test_a_member_that_missed_the_round():
    run = one_behind()
    with marks.expected("member_behind"):
        run.arrive("w1", broken="cut")


def test_an_evaluation_between_two_rounds():
    run = started()
    evaluation = {"state": {"evaluations": 1}, "evaluations": (EvalRow(0, 0, 0, 0, 0.0, {}),)}
    run.arrive("w0", **evaluation)
    with marks.expected("evaluation_without_round"):
        run.arrive("w1", **evaluation)


def test_the_only_holder_of_a_resolved_round_that_dies_before_it_healed_the_others():
    run = one_behind()
    run.arrive("w1", broken="cut")
    run.tell(c.Died("w0", "killed"))
    with marks.expected("resolved_round_lost"):
        run.arrive("w1", state={"round": 0}, broken="cut")


def checkpointed(**settings):
    """A run with a checkpoint of round 1, whose name comes with it."""
    run = started(checkpoints=OFTEN, **settings)
    for worker in ("w0", "w1"):
        run.arrive(worker, state=ROUND, rounds=(row(1),))
    name = run.order().save.name
    run.tell(*(c.ShardWritten(name, f"w{rank}", rank, "path", "", 1) for rank in range(2)))
    run.tell(c.CheckpointPublished(name))
    return run, name


def everyone_dies(run):
    run.tell(*(c.Died(worker, "killed") for worker in run.state.members))


def test_all_die_after_a_round_was_committed():
    run, _ = checkpointed()
    with marks.expected("nobody_has_state"):
        everyone_dies(run)


def test_all_die_before_a_round_was_committed():
    run = started()
    with marks.expected("beginning_lost"):
        everyone_dies(run)


def test_all_die_without_a_checkpoint():
    run = started()
    for worker in ("w0", "w1"):
        run.arrive(worker, state=ROUND, rounds=(row(1),))
    with marks.expected("model_lost"):
        everyone_dies(run)


# The controller: joining and leaving.


def test_a_joiner_while_a_member_must_be_healed():
    run = started(workers_max=3)
    run.tell(c.Died("w2", "killed"))
    run.up("w3")
    run.arrive("w0", state={"round": 1}, rounds=(row(1),), broken="cut")
    with marks.expected("joiner_postponed"):
        run.arrive("w1", broken="cut")


def test_a_member_that_got_no_state_while_others_have_steps():
    run = started()
    order = run.order()
    run.arrive("w0", steps=2, broken="cut")
    with marks.expected("member_without_state_waits_again"):
        run.tell(c.Arrived(Report("w1", order.view.number, order.segment, LoopPosition.START, broken="cut")))


def test_a_joiner_whose_node_is_drained():
    run = Run()
    run.tell(c.WorkerUp("w0", "n", 1))
    with marks.expected("joiner_drained"):
        run.tell(c.NodesDraining(("n",)))


def test_a_newcomer_on_a_node_that_is_drained():
    run = Run()
    run.tell(c.NodesDraining(("n",)))
    with marks.expected("newcomer_on_draining_node"):
        run.tell(c.WorkerUp("w0", "n", 1))


def test_a_leaver_that_the_run_is_too_small_without():
    run = started(workers_min=2)
    run.tell(c.DrainNotice("w0", "preempted"))
    run.arrive("w0")
    with marks.expected("leaver_stays_for_size"):
        run.arrive("w1")


def test_a_leaver_that_alone_has_the_state():
    run = started(workers_max=1)
    run.tell(c.DrainNotice("w0", "preempted"))
    run.up("w1")
    with marks.expected("only_holder_of_state_leaves_later"):
        run.arrive("w0")


def test_a_leaver_that_alone_has_a_chunk():
    run = started(local_data=True)
    run.tell(c.DrainNotice("w0", "preempted"))
    run.arrive("w0", chunks=(0,))
    with marks.expected("only_holder_of_chunk_leaves_later"):
        run.arrive("w1", chunks=(1,))


def test_a_chunk_whose_holder_died():
    run = started()
    run.tell(c.Died("w1", "killed"))
    with marks.expected("chunk_nobody_has"):
        run.arrive("w0", broken="cut")


def test_a_dead_reader_of_a_stream():
    shards = Shards.of(["a", "b"], [None, None])
    run = Run(workers_max=2)
    run.up("w0", "w1")
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.OPENING, shards=shards)
    run.tell(c.Died("w1", "killed"))
    run.arrive("w0", state={"round": 1, "cursors": (0, 5)}, broken="cut", shards=shards)
    agent = machine.Member("w0", order=run.order(), replicated=run.order().replicated)
    with marks.expected("shards_measured"):
        machine.advance(agent, m.Ordered(replace(run.order(), segment=run.order().segment + 1)))


# The controller: checkpoints.


def closing():
    """A run whose training is over; the parts of the last checkpoint, whose name comes with it, are asked for."""
    run = started(checkpoints=RARELY)
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.FINISHED, state=DONE, rounds=(row(1),))
    return run, run.order().save.name


def test_a_checkpoint_that_cannot_be_written():
    run, name = closing()
    with marks.expected("checkpoint_not_written"):
        run.tell(c.CheckpointFailed(name, "disk full"))


def test_a_writer_that_dies():
    run, _ = closing()
    with marks.expected("checkpoint_lost_a_writer"):
        run.tell(c.Died("w1", "killed"))


def test_a_part_of_a_checkpoint_that_was_given_up():
    run = started()
    with marks.expected("late_part_of_an_abandoned_checkpoint"):
        run.tell(c.ShardWritten("000009", "w0", 0, "path", "", 1))


def test_a_checkpoint_before_all_who_have_the_state_leave():
    run = started(workers_max=1, checkpoints=RARELY)
    run.tell(c.DrainNotice("w0", "preempted"))
    with marks.expected("urgent_checkpoint"):
        run.arrive("w0", state={**ROUND, "elapsed_s": 6.0, "cursors": (4,)}, rounds=(row(1),))


def test_a_checkpoint_that_cannot_be_loaded():
    run, name = checkpointed()
    everyone_dies(run)
    run.up("w2", "w3")
    view = run.order().view.number
    broken = {"broken": "damaged", "damaged": name}
    run.tell(c.Arrived(Report("w2", view, 1, LoopPosition.START, **broken)))
    with marks.expected("damaged_checkpoint"):
        run.tell(c.Arrived(Report("w3", view, 1, LoopPosition.START, **broken)))


def test_a_run_across_epochs_that_resumes_with_more_of_them():
    run, _ = checkpointed(across_epochs=True, epochs=3)
    everyone_dies(run)
    run.up("w2", epochs=5)
    with marks.expected("resumed_with_another_total"):
        run.up("w3", epochs=5)
    assert run.order().replicated.epochs == run.order().deal.epochs == 5


def test_a_run_that_resumes_with_one_worker_less():
    run, _ = checkpointed()
    everyone_dies(run)
    run.up("w2")
    with marks.expected("resumed_by_another_number"):
        run.tell(c.Timer(run.state.timers["gather"]))


def test_a_last_checkpoint_that_is_tried_again():
    run, name = closing()
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.FINISHED, copied=name)
    run.tell(c.CheckpointFailed(name, "disk full"))
    with marks.expected("last_checkpoint_retried"):
        run.tell(c.Timer(run.state.timers["save"]))


def test_a_last_checkpoint_that_takes_too_long():
    run, _ = closing()
    with marks.expected("last_checkpoint_given_up"):
        run.tell(c.Timer(run.state.timers["finish"]))


def test_all_die_before_the_last_checkpoint_stands():
    run, _ = checkpointed()
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.FINISHED, state={**DONE, "round": 2}, rounds=(row(2),))
    with marks.expected("state_lost_while_closing"):
        everyone_dies(run)


# The member.


def in_view(schedule=None, **state):
    """A member of view 1 in an open epoch over data of its own, and its order."""
    schedule = schedule or FixedPeriod(2)
    known = Replicated(schedule.init(), open=True, cursors=(0, 0), left_epoch=(False, False), **state)
    order = Order(View(1, ("a", "b")), 1, Program(schedule), known)
    return replace(machine.Member("a"), order=order, replicated=known), order


def said(**changes):
    return Contribution(**{"weight": 4.0, "steps": 1, "samples": 4, "loss_sum": 4.0, "clock_s": 1.0, **changes})


def being_healed(**changes):
    """A member that is one round behind, in the broadcast that heals it."""
    member, order = in_view(EveryStep())
    resolved = replicated.commit(member.known, Control((said(), said())), order.program)
    again = replace(order, view=View(2, ("a", "b")), replicated=resolved, start=Continuation(lead=1, heal=True))
    member, _ = machine.advance(replace(member, **changes), m.Ordered(again))
    member, _ = machine.advance(member, m.Done(2))
    return member


def test_a_request_for_a_boundary_before_its_order():
    member, _ = in_view()
    with marks.expected("yield_before_its_order"):
        machine.advance(member, m.YieldAsked(1, 2))


def test_a_cut_before_its_order():
    member, _ = in_view()
    with marks.expected("cut_before_its_order"):
        machine.advance(member, m.Cut(2, "somebody died"))


def test_an_outcome_of_a_view_that_has_passed():
    member, _ = in_view()
    with marks.expected("late_outcome"):
        machine.advance(member, m.Done(7))


def test_a_break_during_a_heal():
    member = being_healed()
    with marks.expected("break_while_being_healed"):
        machine.advance(member, m.Cut(2, "somebody died"))


def test_steps_of_a_member_that_is_healed():
    member = being_healed(steps=1, samples=4)
    with marks.expected("steps_already_in_the_missed_round"):
        machine.advance(member, m.Done(2))


def test_an_evaluation_that_others_completed():
    member, order = in_view()
    resolved = replace(order, segment=2, replicated=replace(order.replicated, evaluations=1))
    with marks.expected("missed_evaluation"):
        machine.advance(replace(member, want=m.Want.EVALUATE), m.Ordered(resolved))


def test_a_break_while_an_averaging_travels():
    member, _ = in_view()
    with marks.expected("broke_in_flight"):
        machine.advance(replace(member, flight=Flight(2, 8, 8)), m.Failed(1, "somebody died"))


def test_a_break_during_a_probe():
    member, _ = in_view()
    with marks.expected("probe_abandoned"):
        machine.advance(replace(member, trial=ProbeProgress("local")), m.Failed(1, "somebody died"))


def probing(**changes):
    member, order = in_view()
    schedule = SimpleNamespace(period=Period(1, "gradients", probe=Probe(steps=2, held_out=2)))
    state = replace(member.known, schedule=schedule, lengths=(12, 12))
    return replace(member, replicated=state, **changes), replace(order, segment=2, replicated=state)


def test_a_probe_in_which_a_member_ran_out_of_batches():
    member, _ = probing(trial=ProbeProgress("local", steps=2))
    with marks.expected("probe_incomplete"):
        machine.advance(member, m.Averaged(1, Control((said(steps=2), said(steps=1)))))


def test_a_probe_after_a_broken_view_left_a_step_pending():
    member, order = probing(steps=1, samples=4, taken=4)
    with marks.expected("pending_step_before_probe"):
        machine.advance(member, m.Ordered(order))


def across(**state):
    """A member whose rounds go across three epochs of 4 and 4 samples for each rank."""
    member, order = in_view(lengths=(4, 4), later=((4, 4),), epochs=3, loops=(0, 0), skips=(0, 0), **state)
    deal = Deal(1, 0, 7, 8, 1, pack(np.zeros(8, bool)), ((0,),), (1.0, 1.0), ((), ()), epochs=3)
    return replace(member, order=replace(order, deal=deal)), replace(order, deal=deal)


def test_an_epoch_that_ends_within_a_round():
    member, order = across()
    with marks.expected("epoch_closed_in_a_round"):
        control = Control((said(consumed=6, epoch=1), said(consumed=4)))
        state = replicated.commit(member.known, control, order.program)
    assert (state.epoch, state.open, state.lengths, state.cursors) == (1, True, (8, 8), (6, 4))


def test_an_evaluation_in_the_midst_of_a_round():
    member, _ = across()
    waits = said(flags=Flags.EVALUATES, epoch=1)
    with marks.expected("evaluated_in_a_round"):
        _, commands = machine.advance(member, m.Exchanged(1, Control((waits, waits)), 0.1))
    assert commands == (m.Evaluate(1, 0, Control((waits, waits)), shows=True),)


def test_an_evaluation_that_another_loop_has_gone_past():
    member, order = across()
    control = Control((said(flags=Flags.EVALUATES, epoch=1), said(epoch=1)))
    with marks.expected("evaluation_passed_by"):
        state = replicated.commit(member.known, control, order.program)
    assert dict(state.at_odds) == {0: "evaluates (ctx.evaluate)", 1: "trains in epoch 1"}


def test_a_step_after_its_epoch_is_over():
    member, _ = in_view()
    member = replace(member, replicated=replace(member.known, open=False))
    with marks.expected("step_between_epochs"):
        assert machine.advance(member, m.StepDue(0, 0)) == (member, (m.Proceed(),))


def test_a_step_after_training_is_over():
    member, _ = in_view(stopped="5 s are over")
    with marks.expected("step_after_the_end"):
        machine.advance(member, m.StepDue(4, 4))


def test_members_with_different_states():
    member, order = in_view()
    with marks.expected("replicas_differ"):
        replicated.commit(member.known, Control((said(checksum=1), said(checksum=2))), order.program)


def test_members_whose_loops_step_different_optimizers_together():
    member, order = in_view(EveryStep())
    told = Control((said(steps=1, samples=4, stepping=1), said(steps=1, samples=4, stepping=2)))
    with marks.expected("optimizers_differ"):
        state = replicated.commit(member.known, told, order.program)
    assert "optimizer 0 on rank 0; optimizer 1 on rank 1" in state.stopped
