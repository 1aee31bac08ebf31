"""The text of `docs/extending.md`, run as it stands."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest
from pages import blocks, run, run_command, run_script, write_files

PAGE = "docs/extending.md"
BLOCKS = blocks(PAGE)
SCRIPTS = [block for block in BLOCKS if block.language == "python" and not block.file]


@pytest.mark.parametrize("file", ["growing.py", "wines.py", "losses.py"])
def test_what_is_added_takes_under_30_lines(file):
    (block,) = [block for block in BLOCKS if block.file == file]
    assert len([line for line in block.text.splitlines()[1:] if line]) < 30


def test_the_schedule_does_with_known_observations_what_the_page_shows(workplace, capsys):
    write_files(PAGE, workplace)
    (shown,) = [block.text for block in BLOCKS if block.language == "text"]
    run(SCRIPTS[0], PAGE)
    assert capsys.readouterr().out == shown


def test_the_schedule_s_state_survives_a_checkpoint(workplace):
    write_files(PAGE, workplace)
    from growing import Growing

    from raysgd_local.serialization import to_plain

    state = Growing(first=4).init()
    assert Growing().restore(json.loads(json.dumps(to_plain(state)))) == state


@pytest.mark.long
def test_the_schedule_trains(tmp_path, cluster):
    write_files(PAGE, tmp_path)
    printed = run_script(SCRIPTS[1], tmp_path, cluster)
    assert "[1, 2, 4, 8]" in printed
    rounds = pd.read_csv(tmp_path / "runs" / "growing" / "rounds.csv")
    assert rounds.groupby("epoch")["tau"].last().to_dict() == {0: 1, 1: 2, 2: 4, 3: 8, 4: 8}
    lines = (tmp_path / "runs" / "growing" / "events.jsonl").read_text().splitlines()
    changes = [event for event in map(json.loads, lines) if event["event"] == "period_changed"]
    assert [(c["from"], c["to"]) for c in changes] == [(1, 2), (2, 4), (4, 8)]
    assert changes[0]["why"] == "epoch 1 has begun"


def test_the_task_is_trained_by_the_command_with_the_schedule(tmp_path, cluster):
    write_files(PAGE, tmp_path)
    (command,) = [block.text for block in BLOCKS if block.language == "console"]
    words = command.removeprefix("$ raysgd-local ").split()
    printed = run_command([sys.executable, "-m", "raysgd_local.cli", *words], tmp_path, cluster)
    assert printed.splitlines()[-1] == str(tmp_path / "runs" / "wines")
    result = json.loads((tmp_path / "runs" / "wines" / "result.json").read_text())
    assert result["eval"]["accuracy"] > 0.9
    assert (result["samples_lost"], result["samples_repeated"]) == (0, 0)
    assert pd.read_csv(tmp_path / "runs" / "wines" / "rounds.csv")["tau"].max() == 8


@pytest.mark.long
def test_the_observer_hears_of_every_round(tmp_path, cluster):
    write_files(PAGE, tmp_path)
    run_script(SCRIPTS[2], tmp_path, cluster)
    *lines, status = (tmp_path / "losses.txt").read_text().splitlines()
    rounds = pd.read_csv(tmp_path / "runs" / "listened" / "rounds.csv")
    assert lines == [f"{row.round} {row.loss:.4f}" for row in rounds.itertuples()]
    assert status == "finished"
