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
from raysgd_local.config import Checkpoints, Data, Network, Stop, Target, Timeouts
from raysgd_local.errors import InputError
from raysgd_local.run.arguments import Arguments, Limits, from_arguments
from raysgd_local.run.request import Request, from_config
from raysgd_local.tasks import Digits
from raysgd_local.trainer import LocalSGDTrainer


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


OWN = {
    "stop": Stop(steps=9),
    "checkpoints": Checkpoints(every_epochs=3, every_s=5.0, local_state="donor"),
    "timeouts": Timeouts(heartbeat_s=2.0, arrival_s=3.0, formation_s=4.0, straggler_s=5.0),
    "network": Network(subnet="127.0.0.0/8", first_port=40_000, last_port=41_000),
    "seed": 5,
}
IN_A_FILE = """
task: {name: digits, epochs: 2}
algorithm: {schedule: {kind: fixed, tau: 4}}
workers: {min: 2, max: 2, start_timeout_s: 7, pause_limit_s: 8, max_losses: 3, spares: 1}
stop: {steps: 9}
checkpoints: {every_epochs: 3, every_s: 5.0, local_state: donor}
timeouts: {heartbeat_s: 2.0, arrival_s: 3.0, formation_s: 4.0, straggler_s: 5.0}
network: {subnet: 127.0.0.0/8, first_port: 40000, last_port: 41000}
name: run
storage: /data/runs
seed: 5
"""


def trained(**given) -> LocalSGDTrainer:
    return LocalSGDTrainer(
        algorithm=Algorithm(FixedPeriod(4)),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path="/data/runs"),
        start_timeout_s=7,
        pause_limit_s=8,
        max_losses=3,
        spares=1,
        **(OWN | given),
    )


def without(request: Request, *names: str) -> dict[str, object]:
    found = {field.name: getattr(request, field.name) for field in dataclasses.fields(Request)}
    return {name: value for name, value in found.items() if name not in names}


def test_what_a_file_can_set_python_can_and_both_are_the_same_run():
    python, file = trained(task=Digits(epochs=2))._request, from_config(config.from_yaml(IN_A_FILE))
    assert without(python, "config_yaml") == without(file, "config_yaml")
    assert (python.settings.checkpoints.every_epochs, python.settings.checkpoints.everyone) == (3, False)
    assert (python.settings.timeouts.start_s, python.settings.timeouts.pause_s, python.formation_s) == (7, 8, 4)
    assert python.settings.max_losses == 3


def test_a_loop_has_all_settings_of_a_task_and_its_file_repeats_it_with_the_loop(tmp_path):
    python = trained(train_loop_per_worker=loop, train_loop_config={"a": 1})._request
    assert python.settings == trained(task=Digits(epochs=2))._request.settings
    (tmp_path / "config.yaml").write_text(python.config_yaml)
    again = config.load(tmp_path / "config.yaml", task=loop, name="run")
    request = LocalSGDTrainer.from_config(again, train_loop_config={"a": 1})._request
    assert without(request, "config_yaml") == without(python, "config_yaml")
    assert config.load(tmp_path / "config.yaml", task=loop).to_yaml() == python.config_yaml


def test_a_checkpoint_setting_that_both_ways_give_is_refused():
    run = RunConfig(name="run", checkpoint_config=CheckpointConfig(num_to_keep=3))
    with pytest.raises(InputError, match=r"^checkpoints\.keep: 5 .*run_config\.checkpoint_config sets it to 3"):
        request_for(run=run, checkpoints=Checkpoints(keep=5))
    both = request_for(run=run, checkpoints=Checkpoints(every_s=9.0)).settings.checkpoints
    assert (both.keep, both.every_s) == (3, 9.0)
    assert request_for(checkpoints=Checkpoints(every_s=9.0)).settings.checkpoints.keep == 2
    assert request_for().settings.checkpoints.keep is None  # as Ray Train's default says


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"timeouts": 3}, "timeouts"),
        ({"checkpoints": {"keep": 2}}, "checkpoints"),
        ({"network": "eth0"}, "network"),
        ({"stop": 3}, "stop"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"train_loop_config": [1]}, "train_loop_config"),
        ({"train_loop_per_worker": lambda a, b: None}, "train_loop_per_worker"),
        ({"train_loop_per_worker": Digits}, "train_loop_per_worker"),
        ({"train_loop_per_worker": 3}, "train_loop_per_worker"),
        ({"chaos": 3}, "chaos"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(given, field):
    with pytest.raises(InputError, match=f"^{field}: "):
        trained(**({"train_loop_per_worker": loop} | given))


@pytest.mark.parametrize("workers", [0, 10**30, (1, 10**6), (0, 2), True])  # Ray refuses others itself
def test_numbers_of_workers_have_bounds(workers):
    with pytest.raises(InputError, match=r"^scaling_config\.num_workers: "):
        request_for(scaling=ScalingConfig(num_workers=workers))
