"""A sweep in virtual time: the command, twice."""

from __future__ import annotations

import pandas as pd
import yaml

from raysgd_local import config
from raysgd_local.cli import app
from raysgd_local.run_files import reader
from raysgd_local.tuning import command
from raysgd_local.tuning.command import Tried
from raysgd_local.tuning.results import Trial

SWEEP = {
    "base": {"task": {"name": "digits", "epochs": 2}, "workers": {"min": 2, "max": 2}},
    "space": {"algorithm.schedule.tau0": {"choice": [2, 64]}, "task.optimizer.lr": {"choice": [0.05]}},
    "metric": "loss",
    "searcher": {"kind": "grid"},
}


def test_every_point_is_simulated_once_and_the_best_are_what_is_really_tried(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    (tmp_path / "cluster.yaml").write_text("steps: {kind: constant, mean_s: 0.01}\nbandwidth_mbps: 10")
    words = ["tune", "sweep.yaml", "--simulate", "--cluster", "cluster.yaml", "--name", "demo", "--resume", "auto"]
    assert app.run(words) == 0
    directory = tmp_path / "runs" / "demo"
    assert capsys.readouterr().out.splitlines()[-1] == str(directory)
    table = pd.read_csv(directory / "trials.csv")
    assert list(table["status"]) == ["finished", "finished"]
    assert sorted(table["algorithm.schedule.tau0"]) == [2, 64]
    assert list(table["loss"]) == sorted(table["loss"])
    best = config.load(directory / "best.yaml").algorithm.schedule
    assert best.tau0 == table["algorithm.schedule.tau0"][0]
    runs = sorted((directory / "simulated").glob("trial_*/run"))
    elapsed = [reader.load(run).rounds["elapsed_s"].max() for run in runs]
    assert min(elapsed) > 2 * 1437 / 2 / 16 * 0.01  # steps take the time that the cluster's file says
    before = [(run / "rounds.csv").stat().st_mtime_ns for run in runs]
    assert app.run(words) == 0
    assert [(run / "rounds.csv").stat().st_mtime_ns for run in runs] == before

    tried = []

    def run_trials(sweep, directory, address, points):
        tried.extend(points)
        return Tried([Trial("trial_0", points[0], "failed", error="no Ray here")])

    monkeypatch.setattr(command, "run_trials", run_trials)
    assert app.run([*words, "--top", "1"]) == 3
    assert "no Ray here" in capsys.readouterr().err
    assert [point["algorithm.schedule.tau0"] for point in tried] == [best.tau0]
    assert (directory / "simulated" / "best.yaml").is_file()
