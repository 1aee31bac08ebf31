"""When the driver's process dies, how often it is started again, and after which words of Ray's."""

from types import SimpleNamespace

import pytest
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import RunLostError
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime import supervisor
from raysgd_local.runtime.driver import Plan
from raysgd_local.runtime.restarts import Restarts


def test_it_waits_twice_as_long_each_time_and_gives_up_after_three_in_a_row():
    restarts, waits = Restarts(), []
    for _ in range(3):
        restarts = restarts.after(progressed=False, reason="killed")
        waits.append(restarts.wait_s)
    assert waits == [1.0, 2.0, 4.0]
    with pytest.raises(RunLostError, match="killed"):
        restarts.after(progressed=False, reason="killed")


def test_a_checkpoint_between_two_deaths_begins_the_count_anew():
    restarts = Restarts().after(False, "").after(False, "").after(True, "")
    assert (restarts.count, restarts.in_a_row, restarts.wait_s) == (3, 1, 1.0)


@pytest.mark.parametrize(
    "death", [RayActorError, ActorUnschedulableError, OutOfMemoryError, WorkerCrashedError, NodeDiedError]
)
def test_whatever_ray_calls_the_drivers_death_it_is_started_again(death, tmp_path, monkeypatch):
    lives = []

    def watch(plan, display, listeners, lease, stop):
        lives.append(plan.restart)
        if len(lives) == 1:
            raise death("the process is gone")
        return "the outcome"

    monkeypatch.setattr(supervisor, "_watch", watch)
    monkeypatch.setattr(supervisor.time, "sleep", lambda _: None)
    settings = Settings(Program(FixedPeriod(2)), 1, 1)
    plan = Plan(
        settings, SimpleNamespace(probe=".probe"), SimpleNamespace(), Storage.at(str(tmp_path)), SimpleNamespace()
    )
    assert supervisor.follow(plan, lambda _: None) == "the outcome"
    assert [restart and restart.count for restart in lives] == [None, 1]
