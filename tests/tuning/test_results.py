"""What a sweep leaves: a table, the best configuration, a page; from run directories made by hand."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from ray import tune

from raysgd_local import config, tuning
from raysgd_local.errors import InputError
from raysgd_local.tuning import charts
from raysgd_local.tuning.domains import Choice, Span, parse, plain
from raysgd_local.tuning.page import render
from raysgd_local.tuning.result_files import write_results
from raysgd_local.tuning.results import Trial, medians, ranked, read_trial
from raysgd_local.tuning.search import from_tune, make_tuner, to_tune
from raysgd_local.tuning.simulated import best_points
from raysgd_local.tuning.trial import placement

SPACE = {
    "algorithm.schedule.tau0": {"choice": [4, 8, 16]},
    "algorithm.outer": {"choice": [None, {"kind": "slowmo", "beta": 0.5}]},
    "algorithm.schedule.interval_s": {"loguniform": [0.1, 10]},
}


@pytest.fixture
def sweep():
    settings = {"stop.target": {"metric": "accuracy", "value": 0.9}}
    budget = {"trials": 4, "training_s": 10}
    return tuning.from_mapping(
        {"settings": settings, "space": SPACE, "metric": "time_to_target_s", "budget": budget}
    )


@pytest.fixture
def trials(sweep, run_writer, tmp_path) -> list[Trial]:
    """Of four, one reached the target, one did not, one was stopped early, one never began to train."""
    run_writer("trial_0/run", evals=4)
    run_writer("trial_1/run", evals=1)
    run_writer("trial_2/run", evals=4, ended=False)
    homes = [tmp_path / f"trial_{number}" for number in range(4)]
    statuses = ["stopped early", "stopped early", "stopped early", "failed"]
    return [
        read_trial(home, point, sweep.objective, status, "boom" if status == "failed" else "")
        for home, point, status in zip(homes, sweep.points, statuses, strict=True)
    ]


def test_what_finished_is_told_from_what_was_stopped_by_the_run_itself(trials):
    assert [trial.status for trial in trials] == ["finished", "finished", "stopped early", "failed"]
    assert trials[3].run is None


def test_the_best_is_among_those_that_finished_with_a_figure(sweep, trials):
    assert [trial.name for trial in ranked(trials, sweep.objective)] == ["trial_0"]


def seeded(figures: dict[tuple[int, int], float], status: str = "finished") -> list[Trial]:
    """Trials by (τ₀, seed)."""
    return [
        Trial(f"{tau0}-{seed}", {"algorithm.schedule.tau0": tau0, "seed": seed}, status, None, {"loss": figure})
        for (tau0, seed), figure in figures.items()
    ]


def test_trials_that_differ_in_the_seed_alone_are_compared_by_their_median(tmp_path):
    space = {"algorithm.schedule.tau0": {"grid_search": [4, 8, 16]}, "seed": {"grid_search": [1, 2, 3]}}
    sweep = tuning.from_mapping({"space": space, "metric": "loss", "searcher": {"kind": "grid"}})
    found = seeded({(4, 1): 0.1, (4, 2): 0.9, (4, 3): 0.8, (8, 1): 0.5, (8, 2): 0.4, (8, 3): 0.6, (16, 1): 0.2})
    found += seeded({(16, 2): 0.0, (16, 3): 0.0}, "stopped early")
    names = [trial.name for trial in ranked(found, sweep.objective)]
    assert names == ["8-2", "8-1", "8-3", "4-1", "4-3", "4-2", "16-1"]
    assert best_points(sweep, found, 1) == [trial.point for trial in found[3:6]]
    best = write_results(tmp_path, sweep, found)
    assert best is not None
    assert config.load(tmp_path / "best.yaml").seed == config.load().seed
    table = pd.read_csv(tmp_path / "trials.csv").set_index("trial")["loss_median"]
    assert (table["8-1"], table["4-2"], table["16-3"]) == (0.5, 0.8, math.inf)


def test_a_point_that_a_searcher_tries_twice_is_two_trials():
    space = {"algorithm.schedule.tau0": {"choice": [4, 8]}}
    sweep = tuning.from_mapping({"space": space, "metric": "loss"})
    point = {"algorithm.schedule.tau0": 4}
    found = [Trial("a", point, "finished", None, {"loss": 0.1}), Trial("b", point, "stopped early")]
    assert medians(found, sweep.objective) == {"a": 0.1, "b": math.inf}
    assert [trial.name for trial in ranked(found, sweep.objective)] == ["a"]


def test_the_tables_have_a_row_a_trial_with_its_point_and_its_figures(sweep, trials, tmp_path):
    best = write_results(tmp_path, sweep, trials)
    assert best is not None
    for table in (pd.read_csv(tmp_path / "trials.csv"), pd.read_parquet(tmp_path / "trials.parquet")):
        assert list(table["trial"]) == ["trial_0", "trial_1", "trial_2", "trial_3"]
        assert list(table["algorithm.schedule.tau0"]) == [p["algorithm.schedule.tau0"] for p in sweep.points]
        assert table["time_to_target_s"][0] == pytest.approx(7.5)
        assert table["error"][3] == "boom"


def test_best_yaml_is_the_best_trials_configuration(sweep, trials, tmp_path):
    write_results(tmp_path, sweep, trials)
    found = config.load(tmp_path / "best.yaml")
    assert found.algorithm == sweep.config(trials[0].point).algorithm
    assert (found.stop.seconds, found.name, found.storage) == (10.0, None, "runs")


def test_the_page_needs_nothing_else_and_shows_every_trial(sweep, trials):
    page = render("demo", sweep, trials)
    assert not re.search(r'(src|href)="(?!#)|@import|url\((?!#)', page)
    assert page.count("<svg") == 3
    for trial in trials:
        assert trial.name in page
    assert "1 failed" in page
    assert "slowmo, beta 0.5" in page


def test_sections_that_begin_alike_are_told_apart_on_the_page(trials):
    periods = [{"schedule": {"kind": "fixed", "tau": tau}, "outer": {"kind": "slowmo"}} for tau in (4, 16)]
    space = {"algorithm": {"choice": periods}}
    sweep = tuning.from_mapping({"space": space, "metric": "loss", "budget": {"trials": 2}})
    found = [replace(trial, point=point) for trial, point in zip(trials, sweep.points, strict=False)]
    page = render("demo", sweep, found)
    for tau in (4, 16):
        assert page.count(f"fixed, tau {tau}; slowmo") >= 2  # on the axis and in the table


def test_the_best_trial_has_a_colour_of_its_own(sweep, trials):
    again = [replace(trials[0], name=name) for name in ("also good", "the last")]
    colours = [colour for _, colour in charts.shades([trials[0], *again, trials[3]], sweep.objective)]
    assert (colours[0], colours[3]) == (charts.BEST, charts.WORST)
    assert [to_hex(colour) for colour in colours[1:3]] == [charts.NEXT, charts.WORST]


def test_a_sweep_of_which_nothing_came_has_a_page_too(sweep):
    point = sweep.points[0]
    page = render("demo", sweep, [Trial("trial_0", point, "failed", error="boom")])
    assert "No trial" in page


def test_values_lie_on_their_axes_to_scale():
    assert [charts.height(Choice((8, 2, 4)), value) for value in (2, 4, 8)] == [0.0, 0.5, 1.0]
    assert charts.height(Span(1.0, 100.0, log=True), 10.0) == pytest.approx(0.5)
    assert charts.height(Span(0, 5, whole=True), 4) == 1.0


@pytest.mark.parametrize(
    "term",
    [
        {"choice": [1, "a"]},
        {"uniform": [0.5, 2]},
        {"quniform": [0, 1, 0.25]},
        {"loguniform": [0.5, 2]},
        {"randint": [1, 5]},
        {"lograndint": [1, 50]},
    ],
)
def test_a_domain_becomes_tunes_and_one_of_tunes_ours(term):
    domain = parse(term, "space.x")
    assert from_tune(to_tune(domain), "space.x") == domain
    assert plain(domain) == term


def test_what_has_no_bounds_is_refused():
    with pytest.raises(InputError, match="space.x"):
        from_tune(tune.randn(), "space.x")


def test_a_result_that_is_cut_off_is_no_finished_run(sweep, run_writer, tmp_path):
    run: Path = run_writer("trial_0/run")
    (run / "result.json").write_text('{"status": "fin')
    with pytest.raises(json.JSONDecodeError):
        json.loads((run / "result.json").read_text())
    assert read_trial(tmp_path / "trial_0", sweep.points[0], sweep.objective, "unfinished").status == "unfinished"


def test_a_trials_placement_group_has_a_bundle_a_worker_and_nothing_for_who_watches(sweep):
    point = sweep.points[0]
    settings = {**sweep.settings, "workers.min": 1, "workers.max": 3, "workers.cpus": 2.0}
    factory = placement(sweep.model_copy(update={"settings": settings}).config(point))
    assert factory.head_bundle_is_empty
    assert factory.bundles == [{"CPU": 2.0}] * 3


def test_tune_gets_our_points_or_optuna_and_compares_by_training_time(sweep, tmp_path):
    pytest.importorskip("optuna")
    asha = {"kind": "asha", "reduction_factor": 2.0}
    chosen = tuning.from_mapping({**sweep.model_dump(), "scheduler": asha, "searcher": {"kind": "optuna"}})
    found = make_tuner(chosen, tmp_path / "sweep")._local_tuner._tune_config
    assert type(found.search_alg).__name__ == "OptunaSearch"
    assert (found.scheduler._time_attr, found.scheduler.metric) == ("elapsed_s", "accuracy")
    drawn = make_tuner(sweep, tmp_path / "sweep")._local_tuner._tune_config
    assert drawn.num_samples == len(sweep.points) == 4


def test_from_python_tunes_own_domains_are_a_space_and_errors_come_before_anything_starts(tmp_path):
    space = {"algorithm.schedule.tau0": tune.randint(2, 9)}
    options = {"metric": "loss", "storage": tmp_path, "name": "sweep"}
    assert isinstance(tuning.tuner(None, space, **options), tune.Tuner)
    with pytest.raises(InputError, match="did you mean 'tau0'"):
        tuning.tuner(None, {"algorithm.schedule.tau": tune.randint(2, 9)}, **options)
    with pytest.raises(InputError, match="that other processes can import"):
        tuning.tuner({"task": {"name": "__main__:Mine"}}, space, **options)
