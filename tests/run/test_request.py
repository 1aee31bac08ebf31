"""Requests from Python: names, storage, and the `config.yaml` that repeats the run."""

from __future__ import annotations

import dataclasses
import os

import pytest
import yaml
from pyarrow import fs
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from raysgd_local import config
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.config import Data, Stop, Target
from raysgd_local.errors import InputError
from raysgd_local.run.arguments import Arguments, Limits, from_arguments
from raysgd_local.run.request import Request, from_config
from raysgd_local.tasks import Digits


def loop(): ...


def request_for(
    what=loop, scaling: ScalingConfig | None = None, run: RunConfig | None = None, stop: Stop | None = None, **more
) -> Request:
    limits = Limits(**{name: more.pop(name) for name in ("spares", "balance", "batch_scale") if name in more})
    scaling, run = scaling or ScalingConfig(), run or RunConfig(name="run", storage_path="runs")
    given = {"limits": limits, "stop": stop, "data": Data(access="local")} | more
    return from_arguments(Arguments(what, None, Algorithm(FixedPeriod(4)), scaling, run, **given))


BAD_NAMES = ["../up", "a/b", "/abs", ".", "..", " ", "a\nb", "a\0b", "\t", "n" * 201, "ü" * 101, "\ud800"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_directorys_is_refused_from_python_and_from_a_file(name):
    with pytest.raises(InputError) as refused:
        request_for(run=RunConfig(name=name, storage_path="runs"))
    assert refused.value.field == "run_config.name"
    assert len(str(refused.value)) < 600
    with pytest.raises(InputError, match="^name: "):
        config.load(name=name)


@pytest.mark.parametrize("name", ["run", "a b", ".hidden", "~", "läuft", "n" * 200, "a..b", "x=1,y=2"])
def test_any_other_name_is_taken(name):
    assert request_for(run=RunConfig(name=name, storage_path="runs")).name == name
    assert config.load(name=name).name == name


def test_an_empty_name_is_refused_in_a_file():
    with pytest.raises(InputError, match="^name: ''"):
        config.load(name="")


def test_a_leading_tilde_of_the_storage_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert request_for(run=RunConfig(name="run", storage_path="~/runs")).storage == "/home/me/runs"
    assert (
        config.load(storage="~/runs").storage
        == config.load(settings=["storage=~/runs"]).storage
        == "/home/me/runs"
    )
    assert from_config(config.load(storage="~")).storage == "/home/me"
    for same in ("runs", "a/~b", "s3://bucket/~", "/~"):
        assert config.load(storage=same).storage == same


def test_the_home_of_a_user_who_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"^storage: '~nobody-here/runs'.*no such user"):
        config.load(storage="~nobody-here/runs")
    with pytest.raises(InputError, match=r"^run_config\.storage_path: '~nobody-here/runs'"):
        request_for(run=RunConfig(name="run", storage_path="~nobody-here/runs"))


def test_a_path_on_the_users_own_file_system_is_left_as_it_is():
    run = RunConfig(name="run", storage_path="~x/bucket", storage_filesystem=fs.LocalFileSystem())
    request = request_for(run=run)
    assert request.storage == "~x/bucket"
    assert yaml.safe_load(request.config_yaml)["storage"] == "runs"


def rich(what=loop) -> Request:
    checkpoints = CheckpointConfig(
        num_to_keep=3, checkpoint_score_attribute="accuracy", checkpoint_score_order="min"
    )
    return request_for(
        what,
        ScalingConfig(num_workers=(1, 3), use_gpu=True, resources_per_worker={"CPU": 0.5, "GPU": 0.25, "disk": 2}),
        RunConfig(
            "mine", "/data/runs", checkpoint_config=checkpoints, failure_config=FailureConfig(max_failures=2)
        ),
        Stop(steps=100, seconds=60.0, target=Target(metric="accuracy", value=0.9)),
        spares=1,
        balance=False,
        batch_scale=(1.0, 2.0),
        seed=7,
    )


def test_config_yaml_of_a_task_repeats_the_run_under_a_new_name():
    request = rich(Digits(epochs=2))
    again = from_config(config.from_yaml(request.config_yaml))
    own = {"loop_config", "config_yaml", "name", "observers"}
    for field in dataclasses.fields(Request):
        if field.name not in own:
            assert getattr(again, field.name) == getattr(request, field.name), field.name
    assert again.name != "mine"


def test_config_yaml_of_a_function_has_all_but_the_task():
    task, function = (yaml.safe_load(rich(what).config_yaml) for what in (Digits(epochs=2), loop))
    assert task.pop("task")["name"] == "digits"
    assert function == task
    assert function["checkpoints"]["score_order"] == "min"
    assert function["workers"]["resources"] == {"GPU": 0.25, "disk": 2.0}


def test_the_order_of_a_score_follows_its_name_unless_it_is_said():
    def order(*settings: str) -> str:
        return from_config(config.load(settings=settings)).settings.checkpoints.score_order

    assert order("checkpoints.score=accuracy") == "max"
    assert order("checkpoints.score=test_loss") == "min"
    assert order("checkpoints.score=test_loss", "checkpoints.score_order=max") == "max"


@pytest.mark.parametrize(("key", "amount"), [("CPU", 1.0), ("memory", 1e9), ("disk", -1.0)])
def test_resources_of_a_file_that_have_another_place_or_no_meaning_are_refused(key, amount):
    with pytest.raises(InputError, match=r"^workers\.resources"):
        config.load(settings=[f"workers.resources={{{key}: {amount}}}"])


def test_numbers_that_python_gives_are_refused_with_a_message():
    with pytest.raises(InputError, match="batch_scale"):
        request_for(batch_scale=(1.0, -2.0), scaling=ScalingConfig(num_workers=2))


def test_paths_of_files_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("task: {name: digits, epochs: 9}")
    (tmp_path / "cluster.yaml").write_text("bandwidth_mbps: 7.0")
    assert config.load("~/run.yaml").task.epochs == 9
    assert config.load_cluster("~/cluster.yaml").bandwidth_mbps == 7.0
    assert not os.path.exists("~")
