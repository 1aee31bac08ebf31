"""A run's outcome is its own: nothing that is printed or drawn about it can end it, or replace its outcome."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ray.train import RunConfig, ScalingConfig

from raysgd_local import LocalSGDTrainer, RunObserver, signals
from raysgd_local.run.ending import how_to_go_on
from raysgd_local.tasks import Digits

SIMULATE = [sys.executable, "-m", "raysgd_local", "simulate", "--workers", "2", "--set", "task.epochs=2"]


def closed_pipe() -> int:
    """The writing end of a pipe whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    return write


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(
    ("stream", "broken"),
    [
        ("stdout", closed_pipe),
        ("stderr", full),
        pytest.param("stdout", full, marks=pytest.mark.long),
        pytest.param("stderr", closed_pipe, marks=pytest.mark.long),
    ],
)
def test_a_reader_that_is_gone_and_a_full_log_change_nothing(tmp_path, broken, stream) -> None:
    end = broken()
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    streams: Any = {stream: end, other: subprocess.PIPE}
    done = subprocess.run([*SIMULATE, "--name", "run"], cwd=tmp_path, text=True, timeout=200, **streams)
    os.close(end)
    assert done.returncode == 0
    assert json.loads((tmp_path / "runs" / "run" / "result.json").read_text())["status"] == "finished"
    assert str(tmp_path / "runs" / "run") in (done.stdout or done.stderr)
    assert "Traceback" not in (done.stderr or "")


class InTheWay(RunObserver):
    """Puts a directory where the report is to be written."""

    def run_started(self, start):
        (Path(start.directory) / "report.html").mkdir(parents=True)


def trainer(place: Path, **options: Any) -> LocalSGDTrainer:
    run = RunConfig(name="run", storage_path=str(place))
    return LocalSGDTrainer(
        Digits(epochs=1), scaling_config=ScalingConfig(num_workers=2), run_config=run, **options
    )


def test_a_report_that_can_t_be_written_is_a_warning(tmp_path, capsys) -> None:
    result = trainer(tmp_path, observers=[InTheWay()]).simulate()
    assert result.metrics["status"] == "finished"
    assert "warning: report.html was not written: " in capsys.readouterr().err


def test_names_with_dollars_are_drawn(tmp_path, capsys) -> None:
    run = RunConfig(name="a$b$c_{", storage_path=str(tmp_path))
    LocalSGDTrainer(Digits(epochs=1), run_config=run).simulate()
    assert (tmp_path / "a$b$c_{" / "report.html").is_file()
    assert "warning" not in capsys.readouterr().err


def test_samples_that_were_lost_are_told(tmp_path, capsys) -> None:
    from raysgd_local.run.ending import conclude
    from raysgd_local.run_files.storage import Storage

    storage = Storage.at(str(tmp_path))
    conclude(storage, trainer(tmp_path)._request, {"rounds": 0, "samples_lost": 1437})
    assert "warning: 1,437 samples were not trained on" in capsys.readouterr().err
    conclude(storage, trainer(tmp_path)._request, {"rounds": 0, "samples_lost": 0})
    assert capsys.readouterr().err == ""


def loop() -> None: ...


def test_advice_is_given_only_where_it_works(tmp_path) -> None:
    from raysgd_local.run_files.storage import Storage

    task = trainer(tmp_path)._request
    storage = Storage.at(str(tmp_path / "my run"))
    assert how_to_go_on(storage, task) == "interrupted before the first checkpoint"
    storage.write("checkpoints/000001/shard", b"")  # not finished
    assert "go on" not in how_to_go_on(storage, task)
    storage.write("checkpoints/000001/manifest.json", b"{}")
    assert how_to_go_on(storage, task).endswith(f"raysgd-local train --resume '{tmp_path}/my run'")
    run = RunConfig(name="run", storage_path=str(tmp_path))
    own = LocalSGDTrainer(train_loop_per_worker=loop, run_config=run)._request
    assert "raysgd-local" not in how_to_go_on(storage, own)
    assert "fit(resume='auto')" in how_to_go_on(storage, own)


# Signals to a user's script.

SCRIPT = """
import signal, sys
from ray.train import RunConfig
from raysgd_local import LocalSGDTrainer
from raysgd_local.tasks import Digits

trainer = LocalSGDTrainer(Digits(epochs=100000), run_config=RunConfig(name="run", storage_path=sys.argv[1]))
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
try:
    trainer.simulate()
except BaseException as error:
    print(type(error).__name__, getattr(error, "code", ""))
    raise
finally:
    print(before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
"""


@pytest.mark.parametrize(
    ("number", "status", "raised"),
    [
        # Of a script that imports Ray, whose exception hook makes Python end with 1 after KeyboardInterrupt.
        (signal.SIGINT, {1, -signal.SIGINT}, "KeyboardInterrupt "),
        pytest.param(signal.SIGTERM, {128 + signal.SIGTERM}, "SystemExit 143", marks=pytest.mark.long),
    ],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_to_a_script_ends_its_run_with_a_checkpoint_and_unwinds(tmp_path, number, status, raised) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "rounds.csv").exists():
            assert time.monotonic() < deadline
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(number)
        out, err = running.communicate(timeout=120)
    assert running.returncode in status, err
    assert out.splitlines() == [raised, "True"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"
    assert list((tmp_path / "run").glob("checkpoints/*/manifest.json"))


def test_a_handler_of_the_user_s_own_is_left_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with signals.heeded() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert not stop.asked
            signal.raise_signal(signal.SIGINT)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
