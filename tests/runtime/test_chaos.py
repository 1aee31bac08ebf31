"""Faults that are rehearsed: real signals to real processes, told in the events."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer
from raysgd_local.control.controller.events import (
    Arrived,
    Died,
    DrainNotice,
    Form,
    Progress,
    RunStarted,
    ShardWritten,
    StopRequested,
    WorkerUp,
)
from raysgd_local.control.messages import Order, View
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault, When, parse_real
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.run_files import journal
from raysgd_local.runtime.fault_effects import Sabotage
from raysgd_local.runtime.fault_injection import Injector
from raysgd_local.training.replica.replica import Prepared, Replica


def loop(config):
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = TensorDataset(torch.randn(600, 2), torch.randn(600, 1))
    for _ in ctx.epochs(config["epochs"]):
        for x, y in ctx.batches(data, batch_size=8):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)


def rehearse(tmp_path, chaos, workers=2, epochs=12, failures=0, schedule=None):
    return LocalSGDTrainer(
        train_loop_per_worker=loop,
        train_loop_config={"epochs": epochs},
        algorithm=Algorithm(schedule=schedule or FixedPeriod(2)),
        scaling_config=ScalingConfig(num_workers=(1, workers)),
        run_config=RunConfig(
            name="run", storage_path=str(tmp_path), failure_config=FailureConfig(max_failures=failures)
        ),
        chaos=chaos,
    )


def events(path, event) -> list[dict]:
    lines = (Path(path) / "events.jsonl").read_text().splitlines()
    return [e for line in lines if (e := json.loads(line))["event"] == event]


def assert_exact(result, epochs=12):
    assert result.metrics["samples"] == epochs * 600
    assert result.metrics["samples_lost"] == result.metrics["samples_repeated"] == 0


@pytest.mark.ray
def test_faults_that_a_worker_survives_cost_nobody(cluster, tmp_path):
    result = rehearse(tmp_path, "stop:0x0.5@round=20; slow:1x3@round=40; cut:0@round=60; nan:1@round=80").fit()
    assert [e["fault"].partition(":")[0] for e in events(result.path, "chaos_fired")] == [
        "stop",
        "slow",
        "cut",
        "nan",
    ]
    assert events(result.path, "worker_lost") == events(result.path, "chaos_unfired") == []
    assert_exact(result)
    elapsed_s = result.metrics_dataframe.set_index("round")["elapsed_s"]
    assert elapsed_s[21] - elapsed_s[20] > 0.45


@pytest.mark.ray
@pytest.mark.long
def test_the_journal_of_a_run_interrupted_amid_faults_gives_the_same_commands_again(cluster, tmp_path):
    faults = "kill:1@round=20; cut:0@round=60; nan:0@round=80; interrupt@round=100"
    trainer = rehearse(tmp_path, faults, workers=3)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    result = trainer.fit(resume="auto")
    steps = list(journal.replay(journal.read(result.path)))
    assert {type(step.event) for step in steps} >= {RunStarted, Arrived, Died, StopRequested, ShardWritten}
    assert [step for step in steps if not step.same] == []
    assert sum(e["fault"].startswith("interrupt") for e in events(result.path, "chaos_fired")) == 1
    assert_exact(result)


@pytest.mark.ray
@pytest.mark.long
def test_an_exception_in_user_code_is_rehearsed_and_survived(cluster, tmp_path):
    result = rehearse(tmp_path, "error:1@round=20", failures=1).fit()
    (error,) = events(result.path, "user_error")
    assert error["worker"] == events(result.path, "chaos_fired")[0]["worker"]
    assert_exact(result)


def test_a_spoiled_worker_steps_on_gradients_that_are_not_finite_once():
    weight = nn.Parameter(torch.zeros(3))
    replica = Replica(optimizers=[Prepared(torch.optim.SGD([weight], lr=0.1), None, [0.1])])
    sabotage = Sabotage(lambda number: None, lambda: None)
    sabotage.suffer(Fault("nan", When(round=1)))
    weight.grad = torch.ones(3)
    sabotage.before_step(replica)
    assert not torch.isfinite(weight.grad).any()
    weight.grad = torch.ones(3)
    sabotage.before_step(replica)
    assert torch.isfinite(weight.grad).all()


def test_a_slow_worker_takes_as_much_longer_as_it_is_told():
    sabotage = Sabotage(lambda number: None, lambda: None)
    sabotage.suffer(Fault("slow", When(round=1), amount=3.0))
    sabotage.after_step()
    began_s = time.monotonic()
    while time.monotonic() - began_s < 0.1:
        pass  # a step's work
    sabotage.before_step(Replica())
    assert time.monotonic() - began_s >= 0.3


def test_a_hanging_loop_stands_still_once_and_for_as_long_as_it_is_told():
    sabotage = Sabotage(lambda number: None, lambda: None)
    sabotage.suffer(Fault("hang", When(round=1), amount=0.2))
    began_s = time.monotonic()
    sabotage.before_step(Replica())
    hung_s = time.monotonic() - began_s
    sabotage.before_step(Replica())
    assert hung_s >= 0.2
    assert time.monotonic() - began_s - hung_s < 0.2


def test_a_watch_of_another_view_has_no_effect_and_a_late_one_fires_at_the_next_round():
    asked: list[int] = []

    def reached(number: int) -> Fault | None:
        asked.append(number)
        return None

    sabotage = Sabotage(reached, lambda: None)
    sabotage.watch((RoundWatch("w0", 2, 0, 5), RoundWatch("w0", 2, 1, 9)))
    sabotage.committed(1, 7)
    assert asked == []
    sabotage.committed(2, 7)
    sabotage.committed(2, 8)
    assert asked == [0]


class Recorder:
    """The driver's and the workers' side of an injector, written down."""

    def __init__(self) -> None:
        self.suffered: list[tuple[str, str]] = []
        self.watched: list[str] = []
        self.posted: list[Any] = []
        self.records: list[dict[str, Any]] = []

    def suffer(self, worker: str, fault: Fault) -> None:
        self.suffered.append((worker, fault.kind))

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None:
        self.watched.append(worker)

    def record(self, event: str, **fields: Any) -> None:
        self.records.append({"event": event, **fields})


def formed(*members: str) -> Form:
    program = Program(FixedPeriod(1))
    return Form(Order(View(1, members), 1, program, Replicated(schedule=program.schedule.init())), members)


def test_a_fault_is_written_down_before_it_happens_and_left_to_the_worker_that_asks():
    told = Recorder()
    injector = Injector(parse_real("kill:1@round=3; slow:0@round=9", 2), told, told.posted.append, told.record)
    injector.see(WorkerUp("w0", "n0", 10), ())
    injector.see(WorkerUp("w1", "n1", 11), (formed("w0", "w1"),))
    assert told.watched == ["w1", "w0"]
    assert str(injector.reached("w1", 0)) == "kill:1@round=3"
    assert told.suffered == []
    injector.close()
    fired = {"fault": "kill:1@round=3", "number": 0, "worker": "w1", "pid": 11, "node": "n1"}
    assert told.records[0] == {"event": "chaos_fired", **fired}
    assert [(e["event"], e["fault"]) for e in told.records[1:]] == [("chaos_unfired", "slow:0x2@round=9")]


def test_the_injector_keeps_time_by_itself():
    told = Recorder()
    happened = threading.Event()
    suffer = told.suffer
    told.suffer = lambda worker, fault: (suffer(worker, fault), happened.set())
    injector = Injector(parse_real("stop:0@0.05s", 1), told, told.posted.append, told.record)
    injector.see(WorkerUp("w0", "n0", 10), (formed("w0"),))
    injector.see(Progress("w0", 1, 1, 1), ())
    assert happened.wait(10)
    assert told.suffered == [("w0", "stop")]
    injector.close()


@pytest.mark.parametrize(("there", "event"), [(True, "chaos_fired"), (False, "chaos_unfired")])
def test_a_checkpoint_is_damaged_if_there_is_one_and_told_as_such(there, event):
    told = Recorder()
    schedule = parse_real("damage@round=2", 1)
    injector = Injector(schedule, told, told.posted.append, told.record, damage=lambda: there)
    injector.see(WorkerUp("w0", "n0", 10), (formed("w0"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n0"))
        assert injector.reached("w0", 0) is None
    injector.close()
    assert [(record["event"], record["fault"]) for record in told.records] == [(event, "damage@round=2")]


def test_a_notice_goes_to_the_controller():
    told = Recorder()
    injector = Injector(parse_real("drain:0x60@round=2", 1), told, told.posted.append, told.record)
    injector.see(WorkerUp("w0", "n0", 10), (formed("w0"),))
    assert injector.reached("w0", 0) is None
    assert told.posted == [DrainNotice("w0", "its machine goes in 60 s, says --chaos")]
    injector.close()


def test_a_wrong_schedule_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match=r"chaos: 'kil:1@5s'.*at character 12"):
        rehearse(tmp_path, "kill:0@3s; kil:1@5s")
    assert list(tmp_path.iterdir()) == []
