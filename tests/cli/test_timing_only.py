"""`raysgd-local simulate --timing-only`: the times of a run, without the learning."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest

from raysgd_local.cli import app

RUN = ["--step-ms", "10", "--bandwidth-mbps", "50", "--workers", "3", "--set", "task.epochs=3"]
FIXED = ["--method", "k-avg", "--set", "algorithm.schedule.tau=4"]
EXACT = ["round", "view", "workers", "tau", "scope", "steps", "samples", "epoch", "wire_bytes"]


def simulate(place: Path, name: str, *options: str) -> Path:
    assert app.run(["simulate", "--storage", str(place), "--name", name, *options]) == 0
    return place / name


def test_it_writes_the_rounds_that_the_whole_simulation_writes_but_for_losses(tmp_path, capsys):
    whole = pd.read_csv(simulate(tmp_path, "whole", *RUN, *FIXED) / "rounds.csv")
    timed = pd.read_csv(simulate(tmp_path, "timed", *RUN, *FIXED, "--timing-only") / "rounds.csv")
    assert timed[EXACT].equals(whole[EXACT])
    assert timed["elapsed_s"].iloc[-1] == pytest.approx(whole["elapsed_s"].iloc[-1], rel=0.05)
    assert timed["compute_s"].to_numpy() == pytest.approx(whole["compute_s"].to_numpy())
    assert timed["loss"].isna().all()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "whole"), str(tmp_path / "timed")]


def test_its_directory_has_what_has_a_meaning_without_learning_and_can_be_reported(tmp_path):
    run = simulate(tmp_path, "timed", *RUN, "--timing-only", "--seed", "3")
    written = {"config.yaml", "rounds.csv", "events.jsonl", "result.json", "report.html"}
    assert {path.name for path in run.iterdir()} == written
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["train_loss"], result["eval"]) == ("finished", None, {})
    assert (result["samples"], result["views"]) == (3 * 1437, 1)
    told = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert told[0]["event"] == "timing_only"
    assert told[-1]["event"] == "ended"
    assert told[-1]["time_s"] >= result["elapsed_s"]
    whole = simulate(tmp_path, "whole", *RUN)
    assert app.run(["report", str(run), str(whole), "--output", str(tmp_path / "both.html")]) == 0
    page = (run / "report.html").read_text()
    assert [title for title in ("Loss against time", "Who was in", "Averaging period") if title in page] == [
        "Averaging period"
    ]
    assert "Loss against time" in (tmp_path / "both.html").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--chaos", "kill:1@round=2"], "chaos: 'kill:1@round=2' is not allowed; allowed: no faults"),
        (["--set", "stop.target={metric: accuracy, value: 0.9}"], "stop.target: 'accuracy' is not allowed"),
        (["--set", "algorithm.compression={kind: int8}"], "algorithm.compression: "),
        (["--set", "algorithm.placement={kind: redundant, copies: 2, expand_batch: true}"], "expand_batch: True"),
        (["--set", "workers.batch_scale=[1, 0.5]"], "workers.batch_scale: [1.0, 0.5] is not allowed"),
        (["--cluster", "uneven.yaml"], "workers.balance: True is not allowed; allowed: false with --timing-only"),
        (["--cluster", "failing.yaml"], "cluster.failures"),
        (["--cluster", "late.yaml"], "cluster.arrivals_s"),
    ],
)
def test_what_can_not_be_had_without_learning_is_refused(options, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("uneven.yaml").write_text("speeds: [1, 0.5]")
    Path("failing.yaml").write_text("failures: {deaths_per_hour: 1}")
    Path("late.yaml").write_text("arrivals_s: [60]")
    assert app.run(["simulate", "--timing-only", *options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_workers_of_unequal_speed_wait_for_the_slowest_where_nothing_is_balanced(tmp_path):
    (tmp_path / "uneven.yaml").write_text("speeds: [1, 0.5]")
    options = ["--cluster", str(tmp_path / "uneven.yaml"), "--set", "workers.balance=false", *RUN, *FIXED]
    rounds = pd.read_csv(simulate(tmp_path, "run", "--timing-only", *options) / "rounds.csv")
    assert rounds["wait_s"].iloc[0] == pytest.approx(2 * 0.04 / 3)  # two wait as long as they computed


@pytest.mark.long
def test_a_round_costs_a_worker_of_a_thousand_no_more_than_one_of_sixty_four(tmp_path):
    """The time of a processor, without what a run takes to begin and to be reported."""

    def seconds(workers: int, epochs: int) -> tuple[float, int]:
        options = ["--method", "k-avg", "--set", "algorithm.schedule.tau=1", "--set", f"task.epochs={epochs}"]
        options += ["--workers", str(workers), "--bandwidth-mbps", "100"]
        began_s = time.process_time()
        run = simulate(tmp_path, f"{workers}_{epochs}", "--timing-only", *options)
        return time.process_time() - began_s, len(pd.read_csv(run / "rounds.csv"))

    def seconds_a_round(workers: int) -> float:
        (short_s, few), (long_s, many) = seconds(workers, 5), seconds(workers, 50)
        return (long_s - short_s) / (many - few) / workers

    seconds(4, 1)  # what is imported once
    of_sixty_four = seconds_a_round(64)
    assert seconds_a_round(1024) < of_sixty_four  # measured: a tenth to a fifth
    assert seconds_a_round(256) < 2 * of_sixty_four
