"""Reading a run's directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raysgd_local.errors import InputError
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import load


def test_a_run_is_read_whole(run_writer: Callable[..., Path]) -> None:
    run = load(run_writer("demo", rounds=20, evals=2))
    assert run.name == "demo"
    assert list(run.rounds.columns) == reader.ROUND_COLUMNS
    assert run.rounds["round"].tolist() == list(range(1, 21))
    assert run.metrics == ["accuracy", "loss"]
    assert run.evals["accuracy"].iloc[-1] == pytest.approx(0.845)
    assert run.events[0]["event"] == "worker_joined"
    assert run.result["status"] == "finished"
    assert run.config["task"]["name"] == "digits"


def test_a_run_that_goes_on_is_read_as_far_as_it_is(run_writer: Callable[..., Path]) -> None:
    directory = run_writer("demo", rounds=3, evals=0, ended=False)
    with (directory / "events.jsonl").open("a") as file:
        file.write('{"time_s": 1, "event": "half wri')
    run = load(directory)
    assert run.result == {}
    assert run.metrics == []
    assert len(run.evals) == 0
    assert len(run.events) == 10


def test_an_empty_directory_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a run directory \(it has no config\.yaml\)"):
        load(tmp_path)


def test_a_misspelt_run_is_told_with_the_nearest(run_writer: Callable[..., Path]) -> None:
    directory = run_writer("adacomm")
    with pytest.raises(InputError, match="did you mean 'adacomm'"):
        load(directory.with_name("adacom"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rounds.csv", "round,loss\n1,2\n", "rounds.csv lacks the columns view"),
        ("events.jsonl", "no json\n", "JSONDecodeError"),
        ("result.json", "{", "JSONDecodeError"),
        ("result.json", '{"elapsed_s": NaN}', "elapsed_s is nan"),
        ("result.json", '{"samples": Infinity}', "samples is inf"),
        ("config.yaml", "a: [", "ParserError"),
    ],
)
def test_a_damaged_file_is_bad_input(run_writer: Callable[..., Path], name: str, content: str, told: str) -> None:
    directory = run_writer("demo")
    (directory / name).write_text(content)
    with pytest.raises(InputError, match="whose files can be read") as caught:
        load(directory)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_storage_is_judged_before_anything_is_made(tmp_path: Path) -> None:
    reader.check_storage(str(tmp_path / "new" / "deep"))
    reader.check_storage("s3://bucket/runs")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a directory that can be written"):
        reader.check_storage(str(tmp_path / "file"))
