"""Values that can't be sent to workers: named before the run begins."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import threading

import pytest
from ray.train import RunConfig

from raysgd_local import LocalSGDTrainer
from raysgd_local.errors import InputError
from raysgd_local.run.pickling import check_picklable


class Unfriendly:
    def __reduce__(self):
        raise RuntimeError("not with me")

    def __repr__(self):
        raise ValueError("no words")


class Bag:
    def __init__(self, **parts):
        self.__dict__.update(parts)


@dataclasses.dataclass
class Settings:
    rate: float
    out: object


def plain(config): ...


def refused(loop=plain, config=None) -> InputError:
    with pytest.raises(InputError) as caught:
        check_picklable(loop, config)
    assert len(str(caught.value)) < 400
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value


def test_what_can_be_pickled_passes():
    check_picklable(lambda: plain, {"lr": 0.1, "layers": [1, 2], "act": lambda x: x})
    check_picklable(plain, None)


def test_a_lock_is_named_by_its_key():
    error = refused(config={"lr": 0.1, "lock": threading.Lock()})
    assert error.field == "train_loop_config['lock']"
    assert "TypeError: cannot pickle '_thread.lock' object; make it in the loop" in error.hint


def test_an_open_file_is_named_wherever_it_lies(tmp_path):
    with (tmp_path / "log").open("w") as file:
        for config, field in (
            ({"a": {"files": [1, file]}}, "['a']['files'][1]"),
            ({"s": Settings(0.1, file)}, "['s'].out"),
            ({"b": Bag(inner=Bag(file=file))}, "['b'].inner.file"),
            ({3: file}, "[3]"),
            ({"f": functools.partial(plain, out=file)}, "['f'].keywords['out']"),
        ):
            assert refused(config=config).field == f"train_loop_config{field}"


def test_a_variable_of_the_loop_or_of_a_lambda_is_named():
    lock = threading.Lock()

    def loop():
        with lock:
            pass

    assert refused(loop).field == "train_loop_per_worker, variable lock"
    assert refused(config={"f": lambda: lock}).field == "train_loop_config['f'], variable lock"
    assert refused(Bag(lock=lock).__getattribute__).field.startswith("train_loop_per_worker")


def test_values_whose_own_methods_raise_are_named_all_the_same():
    assert refused(config={"x": Unfriendly()}).field == "train_loop_config['x']"
    assert "Unfriendly" in str(refused(config={"x": Unfriendly()}))


def test_what_contains_itself_is_searched_once():
    ring = [threading.Lock()]
    ring.insert(0, ring)
    assert refused(config={"ring": ring}).field == "train_loop_config['ring'][1]"


def test_the_trainer_refuses_before_it_claims_the_name_or_starts_ray(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    trainer = LocalSGDTrainer(
        train_loop_per_worker=plain,
        train_loop_config={"lock": threading.Lock()},
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
    )
    with pytest.raises(InputError, match=r"train_loop_config\['lock'\]"):
        trainer.fit()
    assert not list(tmp_path.iterdir())
