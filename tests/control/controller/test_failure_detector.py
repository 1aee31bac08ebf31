"""Who is given up, and who is not: silence, hanging loops, latecomers."""

from __future__ import annotations

from controller_run import Run, started

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.heartbeats import Pulse
from raysgd_local.control.controller.settings import Timeouts
from raysgd_local.control.controller.transitions import Phase
from raysgd_local.control.messages import Beat, LoopPosition

TIMEOUTS = Timeouts()
HEARTBEAT, STRAGGLER, ARRIVAL = TIMEOUTS.heartbeat, TIMEOUTS.straggler, TIMEOUTS.arrival


def heartbeat(*signs, awake_s=1e6, hears_s=1e6):
    return c.Heartbeat(signs, awake_s, hears_s)


def sign(worker, age_s=0.1, round_s=0.1, view=1, **changes):
    return c.SignOfLife(worker, age_s, view=view, round_s=round_s, **changes)


def lost(commands):
    return [k.fields["worker"] for k in commands if isinstance(k, c.RecordEvent) and k.event == "worker_lost"]


def test_a_silent_member_is_killed_the_others_are_cut_at_once_and_a_replacement_is_asked_for():
    run = started(workers_max=3)
    commands = run.tell(heartbeat(sign("w0"), sign("w1", age_s=1.6), sign("w2")))
    assert lost(commands) == ["w1"]
    assert c.KillWorker("w1") in commands
    assert [k.to for k in commands if isinstance(k, c.CutView)] == [("w0", "w2")]
    assert c.RequestWorker("w3") in commands


def test_silence_is_borne_for_two_rounds_and_never_longer_than_the_ceiling():
    run = started()
    assert not run.tell(heartbeat(sign("w0", round_s=5.0), sign("w1", age_s=9.0, round_s=5.0)))
    assert lost(run.tell(heartbeat(sign("w0", round_s=5.0), sign("w1", age_s=10.1, round_s=5.0)))) == ["w1"]
    run = started()
    assert lost(run.tell(heartbeat(sign("w0", round_s=900.0), sign("w1", age_s=60.1, round_s=900.0)))) == ["w1"]


def test_a_member_that_has_not_committed_a_round_yet_may_be_silent_for_longer():
    run = started()
    assert not run.tell(heartbeat(sign("w0"), sign("w1", age_s=5.9, round_s=0.0)))
    assert lost(run.tell(heartbeat(sign("w0"), sign("w1", age_s=6.1, round_s=0.0)))) == ["w1"]


def test_before_anybody_has_committed_a_round_all_may_be_silent_for_the_whole_ceiling():
    run = started()
    assert not run.tell(heartbeat(sign("w0", round_s=0.0), sign("w1", age_s=59.0, round_s=0.0)))
    assert lost(run.tell(heartbeat(sign("w0", round_s=0.0), sign("w1", age_s=60.1, round_s=0.0)))) == ["w1"]


def test_who_is_no_member_yet_may_be_silent_for_the_whole_ceiling():
    run = started(spares=1)
    run.tell(c.WorkerUp("w2", "here", 3))
    assert not run.tell(heartbeat(sign("w0"), sign("w1"), sign("w2", age_s=59.0, round_s=0.0, view=0)))
    assert lost(run.tell(heartbeat(sign("w0"), sign("w1"), sign("w2", age_s=60.1, round_s=0.0, view=0)))) == ["w2"]


def test_nobody_is_blamed_while_nobody_is_heard_or_the_driver_did_not_run():
    run = started()
    silent = sign("w1", age_s=9.0)
    assert not run.tell(heartbeat(sign("w0"), silent, hears_s=1.0))
    assert not run.tell(heartbeat(sign("w0"), silent, awake_s=1.0, hears_s=1.0))
    assert lost(run.tell(heartbeat(sign("w0"), silent))) == ["w1"]


def test_if_all_are_silent_for_the_whole_ceiling_they_are_gone():
    run = started()
    assert lost(run.tell(heartbeat(sign("w0", age_s=61.0), sign("w1", age_s=61.0), hears_s=0.0))) == ["w0", "w1"]


def test_pauses_that_workers_make_anyway_are_borne():
    run = started()
    assert not run.tell(heartbeat(sign("w0", gap_s=1.0), sign("w1", age_s=2.9)))
    assert lost(run.tell(heartbeat(sign("w0", gap_s=1.0), sign("w1", age_s=3.1)))) == ["w1"]


def test_the_member_that_all_others_wait_for_is_given_up():
    run = started(workers_max=3)
    waiting = [sign("w0", waits_s=121.0), sign("w2", waits_s=50.0)]
    assert lost(run.tell(heartbeat(*waiting, sign("w1")))) == ["w1"]


def test_a_collective_that_all_wait_in_is_tried_again_in_another_view():
    run = started()
    commands = run.tell(heartbeat(sign("w0", waits_s=121.0), sign("w1", waits_s=119.0)))
    assert lost(commands) == []
    assert [k.to for k in commands if isinstance(k, c.CutView)] == [("w0", "w1")]
    assert run.state.phase is Phase.RESOLVING


def test_waiting_in_a_view_that_has_passed_blames_nobody():
    run = started()
    assert not run.tell(heartbeat(sign("w0", waits_s=500.0, view=0), sign("w1")))


def test_a_member_that_never_comes_to_the_boundary_is_given_up():
    run = started()
    run.arrive("w0")
    run.now += 60.5
    assert lost(run.tell(heartbeat(sign("w0"), sign("w1")))) == ["w1"]
    assert run.order().view.members == ("w0",)


def test_a_loop_that_has_ended_waits_longer_for_loops_that_go_on():
    run = started(workers_max=3)
    run.arrive("w0", LoopPosition.FINISHED)
    run.now += STRAGGLER.ceiling_s - 1
    assert not run.tell(heartbeat(sign("w0"), sign("w1"), sign("w2")))
    run.arrive("w1", LoopPosition.OPENING)
    run.now += 59.0
    assert not run.tell(heartbeat(sign("w0"), sign("w1"), sign("w2")))
    run.now += 1.5
    assert lost(run.tell(heartbeat(sign("w0"), sign("w1"), sign("w2")))) == ["w2"]
    run = started()
    run.arrive("w0", LoopPosition.FINISHED)
    run.now += STRAGGLER.ceiling_s + 1
    assert lost(run.tell(heartbeat(sign("w0"), sign("w1")))) == ["w1"]


def test_a_worker_that_prepares_for_longer_than_a_run_may_pause_is_replaced():
    run = Run(workers_max=2)
    run.up("w0")
    run.tell(c.WorkerUp("w1", "node", 1))
    run.now += 3599
    assert not run.tell(heartbeat(sign("w1")))
    run.now += 2
    commands = run.tell(heartbeat(sign("w1")))
    assert lost(commands) == ["w1"]
    assert c.RequestWorker("w2") in commands


def test_signs_of_life_leave_no_trace_in_the_state():
    run = started()
    before = run.state
    run.tell(heartbeat(sign("w0"), sign("w1")))
    assert run.state == before


def test_an_evicted_worker_has_no_say_any_more():
    run = started()
    order = run.order()
    run.tell(heartbeat(sign("w0"), sign("w1", age_s=2.0)))
    run.arrive("w0", broken="cut")
    assert run.order().view.members == ("w0",)
    late = run.report("w1", LoopPosition.TRAINING, order)
    assert not run.tell(c.Arrived(late))


def test_a_pulse_knows_ages_and_waits_of_those_who_were_asked_for():
    pulse = Pulse(beat_s=0.25, now=0.0)
    pulse.expect("a")
    pulse.beat(Beat("a", view=1, round_s=0.5, waits_s=1.0), now=10.0)
    pulse.beat(Beat("stranger"), now=10.0)
    (found,) = pulse.heartbeat(10.5).signs
    assert (found.worker, found.age_s, found.waits_s) == ("a", 0.5, 1.5)
    pulse.forget("a")
    assert pulse.heartbeat(11.0).signs == ()


def test_a_pulse_remembers_the_longest_gap_for_a_while_once_rounds_are_measured():
    pulse = Pulse(beat_s=0.25, now=0.0)
    pulse.expect("a")
    for now, round_s in ((0.0, 0.0), (30.0, 1.0), (33.0, 1.0), (33.25, 1.0)):
        pulse.beat(Beat("a", round_s=round_s), now)
    assert 2.9 < pulse.heartbeat(33.25).signs[0].gap_s < 3.0
    pulse.beat(Beat("a", round_s=1.0), 153.25)
    assert pulse.heartbeat(153.25).signs[0].gap_s == 120.0


def test_a_pulse_begins_to_listen_anew_after_a_pause_of_its_own_or_of_all():
    pulse = Pulse(beat_s=0.25, now=0.0)
    for worker in ("a", "b"):
        pulse.expect(worker)
        pulse.beat(Beat(worker), 0.0)
    assert pulse.heartbeat(0.25).awake_s == 0.25
    late = pulse.heartbeat(5.0)
    assert (late.awake_s, late.hears_s) == (0.0, 0.0)
    pulse.beat(Beat("a"), 5.0)
    pulse.beat(Beat("b"), 5.0)
    for now in (5.25, 5.5, 5.75, 6.0, 6.25):
        deaf = pulse.heartbeat(now)
    assert (deaf.awake_s, deaf.hears_s) == (1.25, 0.0)
