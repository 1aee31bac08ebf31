"""Odd terminals, odd modules, odd values: one message, of bounded length, and the right status."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from raysgd_local import config
from raysgd_local.cli import app
from raysgd_local.errors import InputError

COMMAND = [sys.executable, "-m", "raysgd_local.cli"]


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 120} | options
    return subprocess.run([*COMMAND, *words], **given)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_a_terminal_without_our_letters_gets_them_as_escapes(encoding: str) -> None:
    options = {"encoding": encoding.partition(":")[0], "env": os.environ | {"PYTHONIOENCODING": encoding}}
    done = run("methods", "adacomm", **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u03c4" in done.stdout


@pytest.mark.parametrize("words", [["methods"], ["methods", "adacomm"], ["--version"], ["--help"]], ids=" ".join)
def test_a_full_disk_under_standard_output_is_told(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = run(*words, stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_finished_run_whose_path_can_not_be_printed_is_finished(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run("simulate", "--timing-only", "--storage", str(tmp_path), "--name", "n", stdout=full)
    assert done.returncode == 0
    assert str(tmp_path / "n") in done.stderr
    assert (tmp_path / "n" / "result.json").is_file()


def test_version_does_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--version", "simulate", "--timing-only", "--storage", str(tmp_path)]
    assert app.run(words) == 0
    assert capsys.readouterr().out.startswith("raysgd-local 0.")
    assert not list(tmp_path.iterdir())


BAD_MODULES = {
    "exits": "import sys; sys.exit(0)",
    "raises": "raise ZeroDivisionError('no')",
    "raises_own": "class Own(BaseException): ...\nraise Own",
    "says_much": "raise RuntimeError('x' * 100_000)",
}


@pytest.mark.parametrize("name", BAD_MODULES)
@pytest.mark.parametrize("key", ["task.name", "algorithm.schedule.kind"])
def test_a_module_that_can_not_be_imported_is_one_message(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"module_{name}.py").write_text(BAD_MODULES[name])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert app.run(["train", "--set", f"{key}=module_{name}:X"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {key}: ")
    assert told.count("\n") == 1
    assert len(told) < 2000


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--set", "name=" + "x" * 100_000],
        ["train", "--set", "x" * 100_000 + "=1"],
        ["train", "x" * 100_000],
        ["train", "--method", "x" * 100_000],
        ["train", "--no-such-" + "x" * 100_000],
        ["train", "--chaos", "x" * 100_000],
        ["simulate", "--workers", "9" * 5000],
        ["simulate", "--workers", str(10**30)],
        ["simulate", "--seed", "-1"],
        ["search", "--jobs", str(10**6)],
        ["report", "x" * 100_000],
        ["replay", "x" * 100_000],
        ["train", "--set", "seed=" + "9" * 5000],
        ["train", "--set", "seed=0x" + "f" * 5000],
        ["train", "--set", "workers.max=" + str(10**30)],
        ["train", "--set", "task.loader_workers=100000"],
        ["train", "--set", "stop.seconds=1e300"],
        ["train", "--set", "task=" + "[" * 1000],
        ["train", "--set", "a." * 1000 + "b=1"],
        ["train", "--storage", "a\0b"],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_values_of_any_size_are_one_short_message(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert len(told) < 3000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{1: 2}", "1"),
        ("{[a]: 2}", "a key has to be text"),
        ("{? {a: 1} : 2}", "a key has to be text"),
        ("{null: 2}", "None"),
        ("workers: {1: 2}", "workers.1"),
        ("{task: {name: digits}, workers: {resources: {1: 2}}}", "workers.resources"),
        ("task: {name: digits, 1: 2}", "task.1"),
        ("task: {name: digits, optimizer: {1.5: 2}}", "task.optimizer.1.5"),
        ('"\\ud800": 1', "config"),
        ("a: &a [*a]", "nested at most 50 deep"),
        ("a: " + "[" * 60 + "]" * 60, "nested at most 50 deep"),
        ("a: !!int x", "valid YAML"),
        ("a: !!timestamp x", "valid YAML"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [" + ", ".join([f"*{chr(97 + i)}"] * 10) + "]\n" for i in range(7)
        ), "at most 1,000,000 values"),
    ],
)  # fmt: skip
def test_odd_yaml_is_one_message(text: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        config.from_yaml(text)
    assert told in str(refused.value)


def test_a_file_is_not_suggested_in_its_own_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").touch()
    (tmp_path / "run-1").mkdir()
    assert app.run(["report", str(tmp_path / "page.html")]) == 2
    assert "it is a file" in capsys.readouterr().err
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    assert app.run(["train", str(tmp_path / "gone.yaml")]) == 2
    assert "did you mean 'gone.yaml'" not in capsys.readouterr().err


def test_a_page_that_can_not_be_written_leaves_nothing_behind(tmp_path: Path, run_writer, capsys) -> None:
    run_ = run_writer("a", rounds=3)
    assert app.run(["report", str(run_), "--output", str(tmp_path)]) == 2
    assert app.run(["report", str(run_), "--output", "/dev/null/x"]) == 2
    assert not list(tmp_path.glob(".*"))


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


@pytest.mark.long
@pytest.mark.parametrize("place", ["/dev/null/no", "/proc"])
def test_ray_that_can_not_start_for_want_of_a_directory_is_one_message(place: str, tmp_path: Path) -> None:
    words = ["train", "--set", "task.epochs=1", "--storage", str(tmp_path), "--name", "n"]
    _told_once(run(*words, env=os.environ | {"RAY_TMPDIR": place}), tmp_path)


@pytest.mark.long
def test_ray_that_can_not_start_for_want_of_files_is_one_message(tmp_path: Path) -> None:
    words = ["train", "--set", "task.epochs=1", "--storage", str(tmp_path), "--name", "n"]
    _told_once(run(*words, preexec_fn=few_files), tmp_path)


def _told_once(done: subprocess.CompletedProcess[str], storage: Path) -> None:
    assert done.returncode == 3, done.stderr
    assert "error: Ray can't be started on this machine: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(storage.iterdir())
