"""Users' observers in the process of `fit()`: on threads of their own, dropped where they fail."""

from __future__ import annotations

import threading

import pytest
from ray.train import RunConfig, ScalingConfig, UserCallback

from raysgd_local import InputError, LocalSGDTrainer, RunObserver
from raysgd_local.run_files.observer import RunEnd, RunStart
from raysgd_local.run_files.observers import Delivery, Notice
from raysgd_local.runtime.listeners import Failure, Listeners
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
    assert "observer Slow was not told everything" in capsys.readouterr().err


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
    notes = Notes()
    rounds = []
    notes.rounds_resolved = lambda rows: rounds.extend(row.round for row in rows)
    result = LocalSGDTrainer(
        Digits(epochs=1),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
        chaos="driver@round=6",
        observers=[notes, Confused()],
    ).simulate()
    assert sorted(set(rounds)) == list(range(1, result.metrics["rounds"] + 1))
    assert notes.told[0] == "run"
    assert notes.told[-1] == "finished"
