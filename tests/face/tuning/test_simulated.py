"""A sweep in virtual time: the command, twice."""

from __future__ import annotations

import pandas as pd
import yaml

from raysgd_local import cli, config, run_directory

SWEEP = {
    "base": {"task": {"name": "digits", "epochs": 2}, "workers": {"min": 2, "max": 2}},
    "space": {"algorithm.schedule.tau0": {"choice": [2, 64]}, "task.optimizer.lr": {"choice": [0.05]}},
    "metric": "loss",
    "searcher": {"kind": "grid"},
}


def test_every_point_is_simulated_once_and_the_best_can_be_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    (tmp_path / "cluster.yaml").write_text("steps: {kind: constant, mean_s: 0.01}\nbandwidth_mbps: 10")
    words = ["tune", "sweep.yaml", "--simulate", "--cluster", "cluster.yaml", "--name", "demo", "--resume", "auto"]
    assert cli.run(words) == 0
    directory = tmp_path / "runs" / "demo"
    assert capsys.readouterr().out.splitlines()[-1] == str(directory)
    table = pd.read_csv(directory / "trials.csv")
    assert list(table["status"]) == ["finished", "finished"]
    assert sorted(table["algorithm.schedule.tau0"]) == [2, 64]
    assert list(table["loss"]) == sorted(table["loss"])
    best = config.load(directory / "best.yaml").algorithm.schedule
    assert best.tau0 == table["algorithm.schedule.tau0"][0]
    runs = sorted((directory / "simulated").glob("trial_*/run"))
    elapsed = [run_directory.load(run).rounds["elapsed_s"].max() for run in runs]
    assert min(elapsed) > 2 * 1437 / 2 / 16 * 0.01  # steps take the time that the cluster's file says
    before = [(run / "rounds.csv").stat().st_mtime_ns for run in runs]
    assert cli.run(words) == 0
    assert [(run / "rounds.csv").stat().st_mtime_ns for run in runs] == before
