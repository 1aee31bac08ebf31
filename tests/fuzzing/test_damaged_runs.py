"""Damaged run directories: every command that reads one tells it in one message, and a resume takes what is whole.

A failure names its seed: `RAYSGD_DAMAGE_SEED=123 pytest tests/fuzzing/test_damaged_runs.py` tries that one again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysgd_local import config
from raysgd_local.cli import run as command
from raysgd_local.config.cluster import load_cluster
from raysgd_local.control.controller.checkpoints import snapshot_of
from raysgd_local.control.controller.state import begin
from raysgd_local.errors import CheckpointError, InputError, RaySGDError
from raysgd_local.report import figures, timeline
from raysgd_local.run.best_checkpoints import best_checkpoints, unreported_score
from raysgd_local.run.request import Request, from_config
from raysgd_local.run.resume import to_resume
from raysgd_local.run.simulator import Conditions, simulate_run
from raysgd_local.run_files import reader
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.recording import Recording
from raysgd_local.run_files.storage import Storage
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Constant
from raysgd_local.tuning.results import is_finished

sys.path.insert(0, str(Path(__file__).parent))
from damage import damage

OLD_RUNS = sorted((Path(__file__).parents[1] / "compatibility/fixtures").glob("*/config.yaml"))
SLOW_S = 20.0
REPORTED = 60  # one case of so many has its page made, which takes a second


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, with several checkpoints."""
    place = tmp_path_factory.mktemp("runs")
    changes = ["task.epochs=5", "task.batch_size=64", "algorithm.schedule={kind: fixed, tau: 4}"]
    changes += ["workers.max=2", "workers.min=2", "checkpoints.every_epochs=1", "checkpoints.keep=null"]
    plan = config.load(None, settings=changes, storage=str(place), name="run")
    path = simulate_run(from_config(plan), Conditions(ClusterModel(steps=Constant(2.0))), report=False)
    assert len(finished(Storage.at(str(path)))) >= 4
    return path


def request_of(run: Path) -> Request | None:
    """The request of `train --resume RUN`; None if it is refused."""
    try:
        directory = reader.enclosing(str(run))
        plan = config.load(directory / reader.CONFIG, storage=str(directory.parent), name=directory.name)
        return from_config(plan)
    except InputError as error:
        one_message(error)
        return None


def resumed(run: Path, request: Request, resume: str) -> dict[str, Any] | None:
    """Do what `train --resume` does before and after workers load the checkpoint. Return the checkpoint's manifest."""
    storage, schedule = Storage.at(str(run)), request.settings.program.schedule
    found = to_resume(storage, resume, schedule)
    if found.manifest is None:
        return None
    older = [snapshot_of(manifest, schedule) for manifest in found.older]
    state = begin(request.settings, snapshot_of(found.manifest, schedule), 1, older)
    recording = Recording(storage, lambda: 0.0)
    recording.resumed(state.resume, state.incarnation, found.passed_over)
    recording.goes_on()
    assert state.resume is not None
    rounds = [row["round"] for row in recording.files.rounds]
    assert rounds == sorted(set(rounds))
    assert not rounds or rounds[-1] <= state.resume.replicated.round
    return found.manifest


def read_all(run: Path, page: bool) -> None:
    """Call every command that reads a run's directory. Only the package's own errors may come of it."""
    assert command(["replay", str(run)]) in (0, 1, 2)
    for reading in (load_cluster, is_finished, figures_of):
        try:
            reading(run)
        except InputError as error:
            one_message(error)
    if page:
        assert command(["report", str(run), "--output", str(run.parent / "page.html")]) in (0, 2)


def figures_of(run: Path) -> None:
    """The report without its charts."""
    found = reader.load(run)
    figures.headline([found, found])
    figures.differences([found, found])
    figures.events(found)
    timeline.timeline(found.events)


def one_message(error: RaySGDError) -> None:
    assert error.exit_status == 2
    assert "Traceback" not in str(error)
    assert str(error)


def contents(run: Path) -> dict[str, bytes]:
    """Each checkpoint's files in one, by name."""
    return {
        path.name: b"".join(file.name.encode() + file.read_bytes() for file in sorted(path.iterdir()))
        for path in (run / "checkpoints").iterdir()
        if path.is_dir() and all(file.is_file() for file in path.iterdir())
    }


def check_resume(run: Path, request: Request, whole: Path) -> None:
    """A resume takes a checkpoint as it was written, the newest whole one, or is refused for another file."""
    good = contents(whole)
    intact = [
        name
        for name, content in contents(run).items()
        if (run / "checkpoints").is_dir() and content == good.get(name)
    ]
    try:
        manifest = resumed(run, request, str(run))
    except InputError as error:
        one_message(error)
        return
    except CheckpointError as error:
        one_message(error)
        if intact:
            raise AssertionError(f"{intact} are whole") from error
        return
    assert manifest is not None
    written = json.loads((whole / "checkpoints" / manifest["name"] / "manifest.json").read_text())
    del written["sha256"]
    assert json.dumps(manifest) == json.dumps(written)
    assert manifest["name"] >= max(intact, default="")


@pytest.fixture
def not_for_ever() -> Iterator[None]:
    """Say where it stands still."""
    faulthandler.dump_traceback_later(10 * SLOW_S, exit=False)
    yield
    faulthandler.cancel_dump_traceback_later()


def try_seed(seed: int, source: Path, place: Path, sealed: bool) -> None:
    run = place / "run"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, run, symlinks=True)
    what = damage(run, seed)
    began_s = time.process_time()  # other processes of this machine don't count
    try:
        read_all(run, page=seed % REPORTED == 0)
        if (request := request_of(run)) is not None:
            if (run / "checkpoints").is_dir() and sealed:
                check_resume(run, request, source)
            else:
                refused_or_resumed(run, request)
            best_checkpoints(Storage.at(str(run)), finished(Storage.at(str(run))), request.settings)
            unreported_score(Storage.at(str(run)), request.settings.checkpoints)
    except Exception as error:
        raise AssertionError(f"seed {seed}, {source.name}: {what}: {type(error).__name__}: {error}") from error
    assert time.process_time() - began_s < SLOW_S, f"seed {seed}, {source.name}: {what}: slow"


def refused_or_resumed(run: Path, request: Request) -> None:
    for resume in ("auto", str(run), str(run / "checkpoints/000001")):
        try:
            resumed(run, request, resume)
        except (InputError, CheckpointError) as error:
            one_message(error)


def seeds(count: int) -> list[int]:
    one = os.environ.get("RAYSGD_DAMAGE_SEED")
    return [int(one)] if one is not None else list(range(count))


@pytest.mark.usefixtures("not_for_ever")
@pytest.mark.parametrize("block", range(10))
def test_a_damaged_run_is_told_or_resumed_from_what_is_whole_by_seed(
    whole: Path, tmp_path: Path, block: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in seeds(160)[block::10]:
        try_seed(seed, whole, tmp_path / "case", sealed=True)
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("old", OLD_RUNS, ids=lambda path: path.parent.name)
def test_a_damaged_run_of_an_older_version_is_told_or_resumed_by_seed(old: Path, tmp_path: Path) -> None:
    for seed in seeds(30):
        try_seed(seed, old.parent, tmp_path / "case", sealed=False)


@pytest.mark.long
@pytest.mark.study
@pytest.mark.timeout(3600)
def test_five_thousand_damaged_runs_by_seed(whole: Path, tmp_path: Path) -> None:
    for seed in range(160, 4160):
        try_seed(seed, whole, tmp_path / "case", sealed=True)
    for old in OLD_RUNS:
        for seed in range(30, 530):
            try_seed(seed, old.parent, tmp_path / "case", sealed=False)
