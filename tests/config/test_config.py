"""What a configuration file may say, and what it is told when it says something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from raysgd_local import config, tasks
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.placement import RedundantChunks
from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.algorithms.schedules import AdaComm, AtEpoch, EveryStep, FixedPeriod, Switch
from raysgd_local.config.build import Builder
from raysgd_local.errors import InputError
from raysgd_local.tasks import Digits, Optimizer

REPOSITORY = Path(__file__).parents[2]
SHIPPED = sorted((REPOSITORY / "configs").glob("*.yaml"))

SWITCH = """
task: {name: digits, epochs: 3}
algorithm:
  schedule:
    kind: switch
    first: {kind: every-step}
    then: {kind: adacomm, tau0: 8, interval_s: 1}
    when: {kind: epoch, epoch: 2}
  placement: {kind: redundant, copies: 3}
  optimizer_state: average
workers: {min: 1, max: 9, cpus: 0.5}
stop: {target: {metric: accuracy, value: 0.9}}
"""


def load(*settings: str) -> config.Config:
    return config.load(settings=settings)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load(path: Path) -> None:
    assert isinstance(config.load(path).algorithm.schedule, AdaComm)


def test_without_a_file_it_is_the_shipped_digits_run() -> None:
    assert config.load() == config.load(REPOSITORY / "configs" / "digits.yaml")


def test_nested_alternatives_become_the_classes_they_name() -> None:
    found = config.from_yaml(SWITCH)
    assert found.algorithm.schedule == Switch(EveryStep(), AdaComm(tau0=8, interval_s=1), when=AtEpoch(2))
    assert found.algorithm.placement == RedundantChunks(copies=3)
    assert found.task == Digits(epochs=3)
    assert found.stop.target == config.Target(metric="accuracy", value=0.9)


@pytest.mark.parametrize("text", [SWITCH, "task: {name: digits}", "task: {name: fashion-mnist, data_dir: /data}"])
def test_the_resolved_configuration_gives_itself_back(text: str) -> None:
    found = config.from_yaml(text)
    again = config.from_yaml(found.to_yaml())
    assert again == found
    assert again.to_yaml() == found.to_yaml()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_the_way_through_a_file(name: str) -> None:
    assert config.from_yaml(config.load(method=name).to_yaml()).algorithm == RECIPES[name].algorithm
    assert RECIPES[config.method_name(RECIPES[name].algorithm)].algorithm == RECIPES[name].algorithm


def test_what_is_left_out_keeps_the_tasks_own_default() -> None:
    assert load("task.optimizer.lr=0.2").task.optimizer == Optimizer(lr=0.2, momentum=0.9, weight_decay=1e-4)


def test_another_optimizer_starts_from_its_own_defaults() -> None:
    found = load("task.optimizer.lr=1e-3", "task.optimizer.name=adamw")
    assert found.task.optimizer == Optimizer(name="adamw", lr=1e-3)


def test_another_kind_forgets_the_old_kinds_settings() -> None:
    assert load("algorithm.schedule.tau=3", "algorithm.schedule.kind=fixed").algorithm.schedule == FixedPeriod(3)


def test_settings_apply_on_top_of_a_method() -> None:
    found = config.load(method="local-sgd", settings=["algorithm.placement.kind=redundant"])
    assert found.algorithm == Algorithm(FixedPeriod(16), placement=RedundantChunks(2))


def test_storage_and_name_given_by_themselves_win() -> None:
    found = config.load(settings=["name=a"], storage="elsewhere", name="b")
    assert (found.storage, found.name) == ("elsewhere", "b")


def test_ports_and_gpus_of_their_own_do_not_go_together() -> None:
    ports = ["network={first_port: 40000, last_port: 41000}"]
    assert load(*ports).network.last_port == 41000
    with pytest.raises(InputError, match="network.first_port: 40000 .* null with workers.use_gpu"):
        load(*ports, "workers.use_gpu=true")


def test_a_configuration_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        load().seed = 3  # type: ignore[misc]


def test_relative_data_directories_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load("task.name=fashion-mnist", "task.data_dir=data")
    assert found.to_yaml().count(f"data_dir: {tmp_path / 'data'}\n") == 1


def test_the_environment_says_where_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSGD_DATA", str(tmp_path))
    assert f"data_dir: {tmp_path}\n" in load("task.name=fashion-mnist").to_yaml()


BAD = [
    ("task.epoch=3", "task.epoch", "epoch", "did you mean 'epochs'?"),
    ("task.epochs=abc", "task.epochs", "abc", "an integer"),
    ("task.epochs=true", "task.epochs", True, "an integer"),
    ("task.epochs=0", "task.epochs", 0, "an integer of at least 1"),
    ("task.name=digit", "task.name", "digit", "did you mean 'digits'?"),
    ("task.name=no_such_module:Task", "task.name", "no_such_module:Task", "ModuleNotFoundError"),
    ("task.name=collections:Counter", "task.name", "collections:Counter", "a subclass of"),
    ("task.model=lenet", "task.model", "lenet", "one of mlp, cnn"),
    ("task=3", "task", 3, "a mapping with name"),
    ("task.optimizer.name=adam", "task.optimizer.lr", None, "it has no default"),
    ("task.optimizer.lr=0", "task.optimizer.lr", 0, "above 0"),
    ("task.optimizer.momentum=1", "task.optimizer.momentum", 1, "below 1"),
    (
        "task.optimizer={name: adam, lr: 0.1, momentum: 0.9}",
        "task.optimizer.momentum",
        0.9,
        "only sgd has momentum",
    ),
    ("task.learning_rate={kind: multistep, milestones: [x]}", "task.learning_rate.milestones.0", "x", "a number"),
    ("task.learning_rate.milestones=3", "task.learning_rate.milestones", 3, "a list"),
    ("task.clip_grad_norm=-1", "task.clip_grad_norm", -1, "above 0"),
    ("algorithm.schedule.tau0=0", "algorithm.schedule.tau0", 0, "an integer of at least 1"),
    ("algorithm.schedule.tua0=2", "algorithm.schedule.tua0", "tua0", "did you mean 'tau0'?"),
    ("algorithm.schedule.kind=adacom", "algorithm.schedule.kind", "adacom", "did you mean 'adacomm'?"),
    ("algorithm.schedule.kind=collections:Counter", "algorithm.schedule.kind", "collections:Counter", "dataclass"),
    ("algorithm.schedule=fixed", "algorithm.schedule", "fixed", "a mapping with kind"),
    ("algorithm.placement={kind: redundant, copies: 0}", "algorithm.placement.copies", 0, "at least 1"),
    ("algorithm.schedul.tau=2", "algorithm.schedul", "schedul", "did you mean 'schedule'?"),
    ("workers.min=8", "workers.max", 4, "at least workers.min, which is 8"),
    ("workers.mim=2", "workers.mim", "mim", "did you mean 'min'?"),
    ("workers.max=2.5", "workers.max", 2.5, "an integer of at least 1"),
    ('workers.max="5"', "workers.max", "5", "an integer of at least 1"),
    ("workers=3", "workers", 3, "a mapping with min, max"),
    ("stop.target={metric: accuracy, valeu: 1}", "stop.target.valeu", "valeu", "did you mean 'value'?"),
    ("stop.target.metric=accuracy", "stop.target.value", None, "it has no default"),
    ("stop.seconds=.inf", "stop.seconds", float("inf"), "a number above 0 or null"),
    ("stop.steps=0", "stop.steps", 0, "an integer of at least 1 or null"),
    ("checkpoints.local_state=al", "checkpoints.local_state", "al", "one of all, donor"),
    ("timeouts.heartbeat_s=-1", "timeouts.heartbeat_s", -1, "a number above 0 or null"),
    ("network.subnet=10.0.0.1/8", "network.subnet", "10.0.0.1/8", "has host bits set"),
    ("network.first_port=80", "network.first_port", 80, "an integer of at least 1024, at most 65535 or null"),
    ("network.first_port=40000", "network.last_port", None, "both or neither"),
    ("network={first_port: 40000, last_port: 40098}", "network.last_port", 40098, "at least 100 ports: 40099"),
    ("network.intreface=eth0", "network.intreface", "intreface", "did you mean 'interface'?"),
    ("name=a/b", "name", "a/b", "without /"),
    ("worker.max=3", "worker", "worker", "did you mean 'workers'?"),
    ("task.epochs", "--set", "task.epochs", "key=value"),
    ("a..b=1", "--set", "a..b=1", "key=value"),
    ("task.epochs.more=1", "--set", "task.epochs", "with nothing in it"),
    ("seed=[1", "--set", "seed=[1", "valid YAML"),
]


@pytest.mark.parametrize(("setting", "field", "value", "told"), BAD, ids=[bad[0] for bad in BAD])
def test_a_bad_value_is_told_with_its_path(setting: str, field: str, value: object, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load(setting)
    assert (caught.value.field, caught.value.value) == (field, value)
    assert told in str(caught.value)


def test_an_unknown_method_is_told_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"method: 'adacom'.*did you mean 'adacomm'"):
        config.load(method="adacom")


def test_a_task_of_ones_own_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_task_module.py").write_text(
        "from dataclasses import dataclass\nfrom raysgd_local.tasks import Task\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(Task):\n    width: int = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = config.from_yaml("task: {name: 'own_task_module:Mine', width: 5, epochs: 2}")
    assert (found.task.width, found.task.epochs) == (5, 2)  # type: ignore[attr-defined]
    assert config.from_yaml(found.to_yaml()) == found
    with pytest.raises(InputError, match=r"task\.name: .*did you mean 'Mine'"):
        config.from_yaml("task: {name: 'own_task_module:Mime'}")


def test_a_type_that_no_file_can_hold_is_a_fault_of_the_class() -> None:
    with pytest.raises(TypeError, match="a setting can't be of type"):
        Builder({}).build(Path.__class__.__call__, 3, "x")


def test_check_tells_a_missing_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYSGD_DATA", raising=False)
    with pytest.raises(InputError, match=r"task\.data_dir: ''.*RAYSGD_DATA"):
        load("task.name=fashion-mnist").check()
    with pytest.raises(InputError, match=r"task\.data_dir: .*does not exist"):
        load("task.name=fashion-mnist", f"task.data_dir={tmp_path}").check()
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    with pytest.raises(InputError, match=r"lacks train-images-idx3-ubyte, "):
        load("task.name=fashion-mnist", f"task.data_dir={tmp_path}").check()


def test_more_workers_by_option_are_checked_as_if_they_were_configured():
    algorithm = {"averaging": {"kind": "elastic", "alpha": 0.4}}
    few = config.from_mapping(
        {"task": {"name": "digits"}, "algorithm": algorithm, "workers": {"min": 2, "max": 2}}
    )
    with pytest.raises(InputError, match="alpha < 2"):
        few.with_workers(16)
    assert (few.with_workers(1).workers.min, few.with_workers(1).workers.max) == (1, 1)


@dataclass(frozen=True, kw_only=True)
class WithAType(tasks.Task):
    """A task with an option that no file can hold."""

    how: type[int] = int


def test_a_task_with_an_option_that_no_file_can_hold_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match=r"task\.how.*a value that a file can hold"):
        config.from_mapping({"task": WithAType()})
