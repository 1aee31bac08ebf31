"""The command line: what it prints, what it refuses, and what it ends with."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.cli import app
from raysgd_local.config import Config
from raysgd_local.errors import RunLostError, UserCodeError


@dataclass
class Started:
    """What reached the trainer, and what it is to do."""

    config: Config | None = None
    chaos: str = ""
    resume: str | None = None
    address: str | None = None
    outcome: BaseException | None = None


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """A trainer that only remembers how it was called, in an empty working directory."""
    seen = Started()

    class LocalSGDTrainer:
        @classmethod
        def from_config(cls, config: Config, chaos: str) -> LocalSGDTrainer:
            seen.config, seen.chaos = config, chaos
            return cls()

        def fit(self, resume: str | None, address: str | None) -> Any:
            seen.resume, seen.address = resume, address
            if seen.outcome:
                raise seen.outcome
            return types.SimpleNamespace(path=str(tmp_path / "runs" / "made"))

    module = types.ModuleType("raysgd_local.trainer")
    module.LocalSGDTrainer = LocalSGDTrainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raysgd_local.trainer", module)
    monkeypatch.chdir(tmp_path)
    return seen


def test_train_without_arguments_is_the_shipped_run(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train"]) == 0
    assert started.config is not None
    assert (started.config.workers.max, started.resume, started.address) == (4, None, None)
    last = capsys.readouterr().out.splitlines()[-1]
    assert Path(last).is_absolute()


def test_trains_options_reach_the_trainer(started: Started, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("task: {name: digits, epochs: 2}")
    options = ["--method", "k-avg", "--set", "workers.max=6", "--set", "seed=3", "--storage", "s", "--name", "n"]
    options += ["--chaos", "kill:1@round=3"]
    assert app.run(["train", "c.yaml", *options, "--address", "1.2.3.4:6379"]) == 0
    found = started.config
    assert found is not None
    assert (found.task.epochs, found.workers.max, found.seed, found.storage, found.name) == (2, 6, 3, "s", "n")
    assert found.algorithm == RECIPES["k-avg"].algorithm
    assert (started.address, started.chaos) == ("1.2.3.4:6379", "kill:1@round=3")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "absent.yaml"], "'absent.yaml' is not allowed; allowed: an existing file"),
        (["train", "--set", "algorithm.schedule.tau0=0"], "algorithm.schedule.tau0: 0 is not allowed"),
        (["train", "--method", "adacom"], "did you mean 'adacomm'?"),
        (["train", "--no-such-option"], "--no-such-option"),
        (["train", "a", "b"], "b"),
        (["trian"], "trian"),
        (["report"], "RUN"),
        (["report", "nowhere"], "run: 'nowhere' is not allowed; allowed: a run directory"),
        (["methods", "gossip"], "method: 'gossip' is not allowed"),
        (["train", "--resume", "nowhere"], "resume: 'nowhere' is not allowed"),
        (["train", "--resume", "auto"], "add --name"),
        (["train", "--storage", "file/below"], "storage: 'file/below' is not allowed"),
        (["train", "--chaos", "kil:1@5s"], "did you mean 'kill'"),
        (["train", "--chaos", "kill:4@5s"], "a rank below 4"),
        (["simulate", "--chaos", "kill:1"], "chaos: 'kill:1' is not allowed"),
        (["simulate", "--workers", "0"], "workers: 0 is not allowed"),
        (["simulate", "--bandwidth-mbps", "-1"], "cluster.bandwidth_mbps: -1.0 is not allowed"),
        (["simulate", "--cluster", "absent.yaml"], "cluster: 'absent.yaml' is not allowed"),
        (["simulate", "--storage", "file/below"], "storage: 'file/below' is not allowed"),
        (["train", "--set", "task.name=fashion-mnist", "--set", "task.data_dir=/nowhere"], "task.data_dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_with_status_2_and_one_message(
    arguments: list[str], told: str, started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert app.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert captured.out == ""
    assert started.config is None


def test_an_existing_run_directory_is_refused_unless_resumed(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    assert app.run(["train", "--name", "taken"]) == 2
    assert "--resume auto" in capsys.readouterr().err
    assert started.config is None
    assert app.run(["train", "--name", "taken", "--resume", "auto"]) == 0
    assert started.resume == "auto"


def test_resuming_a_path_takes_its_configuration_and_place(
    started: Started, tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    run = run_writer("before")
    (run / "checkpoints" / "round-7").mkdir(parents=True)
    (run / "config.yaml").write_text("task: {name: digits, epochs: 7}\nname: before\n")
    for path in (run, run / "checkpoints" / "round-7"):
        assert app.run(["train", "--resume", str(path), "--set", "seed=5"]) == 0
        found = started.config
        assert found is not None
        assert (found.task.epochs, found.seed, found.name, found.storage) == (7, 5, "before", str(tmp_path))
        assert started.resume == str(path)


def test_an_error_in_user_code_shows_its_traceback_once(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    started.outcome = UserCodeError("Traceback (most recent call last):\nZeroDivisionError: division", (0, 2))
    assert app.run(["train"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: user code failed on ranks 0, 2:\nTraceback")
    assert told.count("ZeroDivisionError") == 1


def test_a_lost_run_ends_with_status_3(started: Started) -> None:
    started.outcome = RunLostError("no workers left")
    assert app.run(["train"]) == 3


def test_an_interrupted_run_ends_with_status_130(started: Started) -> None:
    started.outcome = KeyboardInterrupt()
    assert app.run(["train"]) == 130


def test_methods_lists_every_recipe_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["methods"]) == 0
    listed = capsys.readouterr().out
    for recipe in RECIPES.values():
        assert recipe.name in listed
        assert recipe.summary in listed
        assert recipe.citation in " ".join(listed.split())


def test_a_methods_page_has_the_configuration_it_stands_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["methods", "adacomm"]) == 0
    told = capsys.readouterr().out
    assert RECIPES["adacomm"].traps in " ".join(told.split())
    assert "    kind: adacomm\n" in told


def test_report_prints_where_the_page_is(
    run_writer: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run_writer("a", rounds=5)), str(run_writer("b", rounds=5))]
    assert app.run(["report", *runs, "--output", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'both.html'}\n"
    assert (tmp_path / "both.html").is_file()


def test_version_and_help_end_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("raysgd-local 0.")
    assert app.run([]) == 0
    assert "train" in capsys.readouterr().out


BLOCKED = "import sys; sys.modules.update(dict.fromkeys({blocked!r})); from raysgd_local.cli import main; main()"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--set", "workers.min=0"],
        ["train", "--storage", "/dev/null/x"],
        ["methods", "x"],
        ["report", "x"],
    ],
    ids=" ".join,
)
def test_input_is_judged_without_torch_ray_or_pandas(arguments: list[str]) -> None:
    code = BLOCKED.format(blocked=["torch", "ray", "pandas", "matplotlib", "sklearn", "torchvision"])
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_simulate_needs_no_ray_and_leaves_the_directory_of_a_run(tmp_path: Path) -> None:
    options = ["--set", "task.epochs=1", "--workers", "3", "--bandwidth-mbps", "50", "--chaos", "kill:1@round=2"]
    program = "import sys; sys.modules['ray'] = None; from raysgd_local.cli import main; main()"
    command = [sys.executable, "-c", program, "simulate", *options, "--name", "n"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    assert run == tmp_path / "runs" / "n"
    written = {"config.yaml", "rounds.csv", "evals.csv", "events.jsonl", "result.json", "report.html", "model.pt"}
    assert written <= {path.name for path in run.iterdir()}
    assert app.run(["simulate", "--storage", str(run.parent), "--name", "n"]) == 2  # it exists
