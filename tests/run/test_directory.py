"""Claiming a run's directory, and giving its name back."""

from __future__ import annotations

import json

import pytest
from ray.train import RunConfig, ScalingConfig

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.errors import InputError
from raysgd_local.run.arguments import Arguments, from_arguments
from raysgd_local.run.directory import check_new, claim, claimed
from raysgd_local.run_files import reader
from raysgd_local.run_files.storage import Storage


def loop(): ...


@pytest.fixture
def request_(tmp_path):
    run = RunConfig(name="run", storage_path=str(tmp_path))
    return from_arguments(Arguments(loop, None, Algorithm(), ScalingConfig(), run))


@pytest.fixture
def storage(tmp_path):
    return Storage.at(str(tmp_path / "run"))


def ended(storage: Storage, request, status: str, rounds: int) -> None:
    claim(storage, request)
    storage.write("result.json", json.dumps({"status": status, "rounds": rounds}).encode())
    storage.write("events.jsonl", b"{}\n")


def test_a_run_that_failed_before_its_first_round_gives_its_name_back(storage, request_, tmp_path):
    ended(storage, request_, "failed", 0)
    check_new(storage, request_)
    reader.refuse_existing(str(tmp_path), "run")
    claim(storage, request_)
    assert storage.names() == ["config.yaml"]  # nothing of the failed one is taken over


@pytest.mark.parametrize(("status", "rounds"), [("failed", 3), ("finished", 0), ("interrupted", 2)])
def test_any_other_run_keeps_its_name(storage, request_, tmp_path, status, rounds):
    ended(storage, request_, status, rounds)
    with pytest.raises(InputError, match="name"):
        check_new(storage, request_)
    with pytest.raises(InputError, match="name"):
        reader.refuse_existing(str(tmp_path), "run")


@pytest.mark.parametrize("result", [None, b"", b"{", b"[]", b'{"status": "failed"}', b"\xff"])
def test_a_run_whose_end_is_not_known_keeps_its_name(storage, request_, tmp_path, result):
    claim(storage, request_)
    if result is not None:
        storage.write("result.json", result)
    with pytest.raises(InputError, match="name"):
        check_new(storage, request_)
    with pytest.raises(InputError, match="name"):
        reader.refuse_existing(str(tmp_path), "run")


def test_a_failed_run_with_a_checkpoint_keeps_its_name(storage, request_, tmp_path):
    ended(storage, request_, "failed", 0)
    storage.write("checkpoints/000001/manifest.json", b"{}")
    with pytest.raises(InputError, match="name"):
        check_new(storage, request_)
    with pytest.raises(InputError, match="name"):
        reader.refuse_existing(str(tmp_path), "run")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_before_the_driver_wrote_anything_gives_the_name_back(storage, request_, error):
    with pytest.raises(error), claimed(storage, request_, new=True):
        raise error
    check_new(storage, request_)
    assert not storage.exists("")


def test_an_exception_later_or_in_a_resumed_run_leaves_what_there_is(storage, request_):
    with pytest.raises(NotADirectoryError), claimed(storage, request_, new=True):
        storage.write("rounds.csv", b"round\n") and storage.write("", b"")
    assert storage.names() == ["config.yaml", "rounds.csv"]
    storage.delete_file("rounds.csv")
    with pytest.raises(RuntimeError), claimed(storage, request_, new=False):
        raise RuntimeError
    assert storage.names() == ["config.yaml"]
