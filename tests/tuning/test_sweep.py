"""A sweep's file: what it means, and what is refused before anything starts."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local import tuning
from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.algorithms.schedules import AdaComm, FixedPeriod
from raysgd_local.cli import app
from raysgd_local.errors import InputError
from raysgd_local.tasks import Digits
from raysgd_local.tuning import domains, points
from raysgd_local.tuning.reported import check_metrics, declared_names

CONFIGS = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))
SWEEP: dict[str, Any] = {
    "settings": {"task.epochs": 50, "stop.target": {"metric": "accuracy", "value": 0.9}},
    "space": {
        "algorithm.schedule.tau0": {"choice": [2, 4, 8]},
        "algorithm.schedule.gamma": {"uniform": [0.3, 0.9]},
    },
    "metric": "time_to_target_s",
    "budget": {"trials": 4, "training_s": 5},
}


def write(directory: Path, **changes: Any) -> Path:
    place = directory / "sweep.yaml"
    place.write_text(yaml.safe_dump({**SWEEP, **changes}))
    return place


def test_a_trials_configuration_is_the_base_with_the_settings_the_point_and_the_budget(tmp_path):
    sweep = tuning.load(write(tmp_path))
    config = sweep.config({"algorithm.schedule.tau0": 8, "algorithm.schedule.gamma": 0.5}, storage="s", name="run")
    assert config.algorithm.schedule == AdaComm(tau0=8, interval_s=0.25, gamma=0.5)
    assert (config.task.epochs, config.stop.seconds, config.storage, config.name) == (50, 5.0, "s", "run")


def test_the_base_is_a_file_beside_the_sweep_or_a_mapping(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text("task: {name: digits}\nworkers: {min: 2, max: 2}")
    by_path = tuning.load(write(tmp_path / "sub", base="../base.yaml"))
    by_value = tuning.load(write(tmp_path, base={"task": {"name": "digits"}, "workers": {"min": 2, "max": 2}}))
    assert by_path == by_value
    assert by_path.first.workers.max == 2


def test_a_sweep_written_down_is_the_same_sweep(tmp_path):
    space = {
        **SWEEP["space"],
        "seed": {"randint": [0, 3]},
        "algorithm.schedule.interval_s": {"quniform": [1, 2, 0.5]},
    }
    sweep = tuning.load(write(tmp_path, space=space))
    (tmp_path / "again.yaml").write_text(sweep.to_yaml())
    again = tuning.load(tmp_path / "again.yaml")
    assert again == sweep
    assert again.points == sweep.points


def test_set_changes_the_sweep_or_what_it_trains(tmp_path):
    settings = ["budget.trials=2", "workers.max=6", "space.algorithm.schedule.tau0={choice: [3]}"]
    sweep = tuning.load(write(tmp_path), settings)
    assert (sweep.budget.trials, sweep.budget.training_s, sweep.first.workers.max) == (2, 5.0, 6)
    assert {point["algorithm.schedule.tau0"] for point in sweep.points or ()} == {3}


def test_a_method_and_whole_sections_can_be_searched(tmp_path):
    schedules = [{"kind": "fixed", "tau": 4}, {"kind": "every-step"}]
    sweep = tuning.load(write(tmp_path, space={"algorithm.schedule": {"choice": schedules}}))
    assert sweep.config({"algorithm.schedule": schedules[0]}).algorithm.schedule == FixedPeriod(4)
    sweep = tuning.load(write(tmp_path, space={"method": {"choice": ["k-avg", "diloco"]}}))
    for method in ("k-avg", "diloco"):
        assert sweep.config({"method": method}).algorithm == RECIPES[method].algorithm


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space.algorithm.schedule.tau": "{choice: [2]}"}, "space.algorithm.schedule.tau: .*did you mean 'tau0'"),
        ({"space.algorthm.lr_scaling": "{choice: [none]}"}, "space.algorthm: .*did you mean 'algorithm'"),
        ({"space.algorithm.schedule.tau0": "{choice: [2, x]}"}, "space.algorithm.schedule.tau0: 'x'.*an integer"),
        ({"space.algorithm.schedule.tau0": "{uniform: [2, 3]}"}, "space.algorithm.schedule.tau0: .*an integer"),
        ({"space.algorithm.schedule.gamma": "{uniform: [0.5, 2]}"}, "space.algorithm.schedule.gamma: 2.0 "),
        ({"space.algorithm.schedule.tau0": "{choise: [2]}"}, "did you mean 'choice'"),
        ({"space.algorithm.schedule.tau0": "{choice: []}"}, "a list of values"),
        ({"space.algorithm.schedule.tau0": "[2, 4]"}, "a mapping with one of choice"),
        ({"space.algorithm.schedule.gamma": "{uniform: [0.9, 0.3]}"}, "the lowest value first"),
        ({"space.algorithm.schedule.gamma": "{loguniform: [0, 1]}"}, "numbers above 0"),
        ({"space.algorithm.schedule.tau0": "{randint: [1.5, 3]}"}, "whole numbers"),
        ({"space.workers.max": "{choice: [2]}"}, "space.workers.max: 2 .*at least workers.min, which is 4"),
        ({"space.stop.seconds": "{choice: [2]}"}, "not where they are stored, nor what ends them"),
        ({"space.method": "{choice: [adacom]}"}, "space.method: 'adacom' .*did you mean 'adacomm'"),
        ({"space": "{}"}, "space: .*keys of the configuration"),
        ({"settings.algorithm.schedule.tau0": "3"}, "not in the space too"),
        ({"budget.trails": "3"}, "budget.trails: .*did you mean 'trials'"),
        ({"stop.target": "null"}, "stop.target: None .*time_to_target_s needs one"),
        ({"metric": "loss_at_budget", "budget.training_s": "null"}, "budget.training_s: None "),
        ({"scheduler.kind": "asha", "budget.training_s": "null"}, "the scheduler asha compares trials by it"),
        ({"scheduler.kind": "asha", "scheduler.grace_s": "5"}, "scheduler.grace_s: 5.0 .*below budget.training_s"),
        ({"scheduler.kind": "ahsa"}, "scheduler.kind: 'ahsa' .*none, asha, median"),
        ({"searcher.kind": "grid"}, "space.algorithm.schedule.gamma: .*with the searcher grid"),
        ({"base": "absent.yaml"}, "base: .*absent.yaml' .*an existing file"),
        ({"task.epochs": "0"}, "task.epochs: 0 is not allowed"),
        ({"metric": "acuracy"}, "metric: 'acuracy' .*did you mean 'accuracy'"),
        ({"stop.target": "{metric: top5, value: 1}"}, "stop.target.metric: 'top5' .*accuracy, loss"),
    ],
)
def test_what_cannot_work_is_refused_with_the_field_and_what_is_allowed(tmp_path, changes, told):
    settings = [f"{key}={value}" for key, value in changes.items()]
    with pytest.raises(InputError, match=told):
        check_metrics(tuning.load(write(tmp_path), settings))


def test_every_point_that_is_known_is_looked_at_and_not_just_the_corners(tmp_path):
    space = {"workers.min": {"grid_search": [1, 4]}, "workers.max": {"grid_search": [4, 2]}}
    with pytest.raises(InputError, match="workers.max: 2 .*at least workers.min"):
        tuning.load(write(tmp_path, space=space))


def test_a_wrong_space_is_one_message_and_status_2_without_torch_or_ray(tmp_path):
    file = write(tmp_path, space={"algorithm.schedule.tau": {"choice": [2]}})
    code = (
        "import sys; from raysgd_local import cli; status = cli.run(['tune', sys.argv[1]]); "
        "print(status, 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False", "False"]
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "sweep: None is not allowed"),
        (["sweep.yaml", "--top", "3"], "--simulate: None"),
        (["sweep.yaml", "--simulate", "--top", "0"], "--top: 0"),
        (["sweep.yaml", "--resume", "auto"], "name: None .*add --name"),
        (["--resume", "absent"], "it has no sweep.yaml"),
        (["sweep.yaml", "--storage", "s3://bucket"], "a path that all machines see"),
        (["sweep.yaml", "--storage", ".", "--name", "taken"], "name: 'taken' "),
        (["sweep.yaml", "--resume", "taken", "--set", "budget.trials=9"], "the sweep that was begun there"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "sweep.yaml").write_text(tuning.load(write(tmp_path)).to_yaml())
    assert app.run(["tune", *arguments]) == 2
    assert re.search(told, capsys.readouterr().err)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_sweeps_load_from_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = tuning.load(path)
    check_metrics(sweep)
    assert sweep.points


@dataclass(frozen=True, kw_only=True)
class Quiet(Digits):
    """Has metrics of its own and doesn't say which."""

    def metrics(self, model, batch):
        return {"hits": super().metrics(model, batch)["accuracy"]}


def test_a_metric_that_a_class_does_not_name_is_found_by_evaluating(tmp_path, monkeypatch):
    assert (declared_names(Digits()), declared_names(Quiet())) == (("accuracy", "loss"), None)
    monkeypatch.setitem(sys.modules, "quiet_task", sys.modules[__name__])
    base = {"task": {"name": "quiet_task:Quiet"}}
    changes = {"base": base, "settings": {}, "metric": "hits"}
    check_metrics(tuning.load(write(tmp_path, **changes)))
    with pytest.raises(InputError, match="metric: 'accuracy' .*one of hits"):
        check_metrics(tuning.load(write(tmp_path, **{**changes, "metric": "accuracy"})))


TERMS = st.sampled_from(
    [
        {"choice": [3, 1, 2]},
        {"uniform": [-1.5, 2]},
        {"quniform": [0, 1, 0.25]},
        {"loguniform": [0.01, 10]},
        {"randint": [2, 5]},
        {"lograndint": [1, 100]},
    ]
)


@given(TERMS, st.integers(0, 1000))
def test_what_is_drawn_lies_within_and_the_same_seed_draws_the_same(term, seed):
    domain = domains.parse(term, "space.x")
    space = {"x": domain, "y": domains.parse({"grid_search": ["a", "b"]}, "space.y")}
    found = points.drawn(space, 3, seed)
    assert found == points.drawn(space, 3, seed)
    assert {point["y"] for point in found} == {"a", "b"}
    assert len({repr(point) for point in found}) == len(found)
    for point in found:
        assert min(domain.corners) <= point["x"] <= max(domain.corners)
    if "rand" in next(iter(term)):
        assert all(isinstance(point["x"], int) for point in found)


def test_a_small_space_has_no_more_points_than_there_are():
    space = {"x": domains.parse({"choice": [1, 2]}, "space.x")}
    assert sorted(point["x"] for point in points.drawn(space, 9, 0)) == [1, 2]
