"""Runs that the code wrote before it moved, with real workers and interrupted: today's goes on with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from raysgd_local import config
from raysgd_local.control.controller.checkpoints import snapshot_of
from raysgd_local.report import write_report
from raysgd_local.run_files import journal, reader
from raysgd_local.run_files.checkpoint_survey import finished, survey
from raysgd_local.run_files.storage import Storage
from raysgd_local.training.replica.plain_values import from_bytes

FOLDER = Path(__file__).parent / "fixtures"
RUNS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


@pytest.fixture(params=RUNS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an old run's directory."""
    return Path(shutil.copytree(FOLDER / request.param, tmp_path / request.param))


def test_the_controller_decides_as_it_did_then(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert journal.report(old) == 0
    assert capsys.readouterr().out.endswith(" events, 0 of them with other commands than then\n")


def test_the_page_is_made(old: Path) -> None:
    page = Path(write_report([str(old)], None)).read_text()
    assert "digits" in page
    assert old.name in page


def test_its_newest_checkpoint_is_whole(old: Path) -> None:
    storage = Storage.at(str(old))
    found = survey(storage)
    manifest = found.manifest
    assert manifest is not None
    assert (manifest["name"], found.damaged) == (finished(storage)[-1], {})
    schedule = config.load(old / reader.CONFIG).algorithm.schedule
    snapshot = snapshot_of(manifest, schedule)
    assert snapshot.replicated.round == pd.read_csv(old / reader.ROUNDS)["round"].iloc[-1]
    parts = [from_bytes(storage.read(f"checkpoints/{shard['path']}")) for shard in manifest["shards"]]
    assert all({"local", "generators", "own"} <= part.keys() for part in parts)


@pytest.mark.ray
@pytest.mark.parametrize(
    "old", [pytest.param(name, marks=[pytest.mark.long] * (name != RUNS[0])) for name in RUNS], indirect=True
)
def test_training_goes_on_to_its_end(old: Path, cluster: str) -> None:
    before = pd.read_csv(old / reader.ROUNDS)
    command = [sys.executable, "-m", "raysgd_local.cli", "train", "--resume", str(old), "--address", cluster]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads((old / reader.RESULT).read_text())
    rounds = pd.read_csv(old / reader.ROUNDS)
    assert (result["status"], result["samples_lost"], result["samples_repeated"]) == ("finished", 0, 0)
    assert list(rounds["round"]) == list(range(1, len(rounds) + 1))
    assert rounds.iloc[: len(before)].equals(before)
    assert set(rounds["incarnation"]) == {1, 2}
    assert journal.report(old) == 0
