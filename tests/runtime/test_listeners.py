"""Users' observers in the process of `fit()`: on threads of their own, dropped where they fail."""

from __future__ import annotations

import pickle
import threading

import pytest
import torch
from ray.train import RunConfig, ScalingConfig, UserCallback
from torch.utils.data import TensorDataset

from raysgd_local import Algorithm, FixedPeriod, InputError, LocalSGDTrainer, RunObserver, get_context
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.manifest import read_manifest
from raysgd_local.run_files.observer import RunEnd, RunStart
from raysgd_local.run_files.observers import Delivery, Heard, Notice
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.listeners import Failure, Listeners
from raysgd_local.runtime.run_plan import Restart
from raysgd_local.tasks import Digits

START = RunStart("run", "fixed", "digits", "/runs/run")
END = Notice("run_ended", (RunEnd("finished", "done"),))


class Notes(RunObserver):
    def __init__(self):
        self.told = []

    def run_started(self, start):
        self.told.append(start.name)

    def checkpoint_deleted(self, checkpoint):
        self.told.append(checkpoint)

    def run_ended(self, end):
        self.told.append(end.status)


class Slow(RunObserver):
    """Is busy until the test lets it go."""

    def __init__(self):
        self.let_go = threading.Event()

    def run_started(self, start):
        self.let_go.wait(60)


class Broken(RunObserver):
    def run_started(self, start):
        raise SystemExit(3)


class Confused(RunObserver):
    def run_started(self, start):
        raise ValueError("no")


def deleted(*names: str) -> tuple[Notice, ...]:
    return tuple(Notice("checkpoint_deleted", (name,)) for name in names)


def test_what_is_delivered_twice_is_told_once():
    notes = Notes()
    listeners = Listeners([notes], START)
    listeners.take(Delivery(0, deleted("a", "b")))
    listeners.take(Delivery(1, deleted("b", "c")))
    listeners.take(Delivery(0, (*deleted("a", "b", "c"), END)))
    listeners.close()
    assert notes.told == ["run", "a", "b", "c", "finished"]


def test_the_next_driver_numbers_its_notices_anew():
    notes = Notes()
    listeners = Listeners([notes], START)
    listeners.take(Delivery(0, deleted("a", "b")))
    listeners.driver_died()
    listeners.take(Delivery(0, (*deleted("c"), END)))
    listeners.close()
    assert notes.told == ["run", "a", "b", "c", "finished"]


def test_an_end_that_no_driver_told_is_told():
    notes = Notes()
    Listeners([notes], START).close("out of memory")
    assert notes.told == ["run", "lost"]


def test_a_slow_observer_keeps_nobody_waiting_and_is_left_when_the_limit_is_over(capsys):
    slow, notes = Slow(), Notes()
    listeners = Listeners([slow, notes], START)
    listeners.take(Delivery(0, (END,)))
    listeners.close(limit_s=0.2)
    slow.let_go.set()
    assert "observer Slow did not receive everything" in capsys.readouterr().err


def test_an_observer_that_fails_is_dropped_and_said_once():
    listeners = Listeners([Broken()], START)
    listeners.take(Delivery(0, (END,)))
    listeners._mailboxes[0].close(60)
    assert listeners.failures() == (Failure("Broken", "SystemExit: 3"),)
    assert listeners.failures() == ()


def test_callbacks_of_ray_train_that_are_observers_are_taken():
    class Both(RunObserver, UserCallback):
        pass

    observer = Both()
    trainer = LocalSGDTrainer(Digits(), run_config=RunConfig(callbacks=[observer]))
    assert trainer._request.observers == (observer,)


@pytest.mark.parametrize("field", ["observers", "run_config.callbacks"])
def test_what_is_no_observer_is_refused_with_the_field(field):
    given = {"observers": [print]} if field == "observers" else {}
    config = RunConfig(callbacks=[UserCallback()]) if not given else None
    with pytest.raises(InputError, match=r"allowed: instances of raysgd_local.RunObserver") as caught:
        LocalSGDTrainer(Digits(), run_config=config, **given)
    assert caught.value.field == field


def test_a_simulated_run_tells_as_a_real_one_does(tmp_path):
    rows = Rows()
    result = LocalSGDTrainer(
        Digits(epochs=1),
        algorithm=Algorithm(schedule=FixedPeriod(4)),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
        chaos="driver@round=6",
        observers=[rows, Confused()],
    ).simulate()
    assert (rows.told[0], rows.told[-1]) == ("run", "finished")
    assert rows.rewinds
    assert rows.events.count("observer_failed") == 1
    assert [row.round for row in rows.rows] == result.metrics_dataframe["round"].tolist()


class Rows(Notes):
    """Keeps the rows that hold, and the names of events."""

    def __init__(self):
        super().__init__()
        self.rows, self.events, self.rewinds = [], [], []

    def rounds_resolved(self, rounds):
        assert [row.round for row in rounds] == list(range(len(self.rows) + 1, len(self.rows) + 1 + len(rounds)))
        self.rows += rounds

    def rewound(self, round, evaluations, incarnation):
        self.rewinds.append(incarnation)
        del self.rows[round:]

    def event_recorded(self, event):
        self.events.append(event.name)


def loop():
    ctx = get_context()
    model = ctx.prepare_model(torch.nn.Linear(3, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
    for _ in ctx.epochs(2):
        for (x,) in ctx.batches(TensorDataset(torch.ones(48, 3)), batch_size=4):
            loss = model(x).square().mean()
            loss.backward()
            ctx.step(loss)


def test_each_round_is_told_once_though_a_driver_dies_before_all_was_fetched(train_in_threads, tmp_path):
    every = CheckpointPolicy(every_epochs=1)
    whole = train_in_threads(loop, heard=Heard(), policy=every)
    delivery = pickle.loads(pickle.dumps(whole.outcome.delivery))
    storage = Storage.at(str(tmp_path / "run"))
    manifest = read_manifest(storage.under("checkpoints").under(finished(storage)[0])).plain

    rows = Rows()
    listeners = Listeners([rows], START)
    cut = next(n for n, notice in enumerate(delivery.notices) if notice.method == "rounds_resolved")
    listeners.take(Delivery(0, delivery.notices[:cut]))  # then the driver died: no round was fetched
    listeners.driver_died()
    again = train_in_threads(
        loop, heard=listeners.heard, policy=every, resume=manifest, restart=Restart(1, "killed")
    )
    listeners.take(again.outcome.delivery)
    listeners.close(limit_s=60)
    assert listeners.failures() == ()
    assert rows.told[-1] == "finished"
    assert rows.rewinds[0] == 2
    assert [row.round for row in rows.rows] == [int(row["round"]) for row in again.rows()]
    assert "driver_restarted" in rows.events


@pytest.mark.ray
def test_rounds_are_told_once_though_the_driver_dies(tmp_path):
    rows = Rows()
    result = LocalSGDTrainer(
        Digits(epochs=3),
        algorithm=Algorithm(schedule=FixedPeriod(4)),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
        chaos="driver@round=20",
        observers=[rows],
    ).fit()
    assert rows.told[0] == "run"
    assert rows.told[-1] == "finished"
    assert rows.rewinds
    assert "driver_restarted" in rows.events
    assert "observer_failed" not in rows.events
    assert [row.round for row in rows.rows] == result.metrics_dataframe["round"].tolist()
    assert [row.loss for row in rows.rows] == pytest.approx(result.metrics_dataframe["loss"].tolist())
