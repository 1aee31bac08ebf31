"""`raysgd-local plan`, from the command line to the table."""

from __future__ import annotations

import re

import pytest

from raysgd_local.cli import app

SCHEDULES = (
    "every step",
    "fixed, tau 4",
    "fixed, tau 64",
    "adacomm, tau0 16, every 0.25 s",
    "post-local, 16 from epoch 2",
)


def test_plan_prints_a_line_a_schedule_and_periods_to_try(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert app.run(["plan", "--workers", "8", "--bandwidth-mbps", "10", "--set", "task.epochs=4"]) == 0
    text = capsys.readouterr().out
    assert "digits, 4 epochs on 8 workers, links of 10 Mbit/s and 0.5 ms" in " ".join(text.split())
    for name in SCHEDULES:
        (line,) = [line for line in text.splitlines() if line.startswith(f" {name}  ")]
        shares = [int(share) for share in re.findall(r"(\d+)%", line)]
        assert sum(shares) == pytest.approx(100, abs=2)
    assert "tau, or tau0, to try in a sweep: " in text
    assert list(tmp_path.iterdir()) == []  # nothing is written


def test_a_clusters_file_takes_the_place_of_what_is_measured(capsys, tmp_path):
    (tmp_path / "cluster.yaml").write_text("steps: {kind: constant, mean_s: 0.25}\nround_ms: 50\n")
    assert app.run(["plan", "--cluster", str(tmp_path / "cluster.yaml"), "--set", "task.epochs=1"]) == 0
    assert "a step takes 250 ms" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bandwidth-mbps", "0"], "cluster.bandwidth_mbps: 0.0 is not allowed"),
        (["--latency-ms", "-1"], "cluster.latency_ms: -1.0 is not allowed"),
        (["--workers", "0"], "workers: 0 is not allowed"),
        (["--cluster", "absent.yaml"], "cluster: 'absent.yaml' is not allowed"),
        (["--set", "task.epoch=3"], "did you mean 'epochs'?"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_line(options, told, capsys):
    assert app.run(["plan", *options]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert len(shown.splitlines()) == 1
