"""`train --resume` of a damaged run: one message, status 2, before Ray starts, and the run stays as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raysgd_local.cli import run as command

OLD = Path(__file__).parents[1] / "compatibility/fixtures/adacomm"


def spoil(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content) and None


def directory(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return make


def spoil_checkpoints(run: Path) -> None:
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")


@pytest.mark.parametrize(
    ("damage", "resume", "told"),
    [
        (spoil("rounds.csv", b"round\n1\n"), "", "rounds.csv lacks the columns view"),
        (spoil("evals.csv", b"\xff\n"), "", "evals.csv, line 1"),
        (spoil("events.jsonl", b"{}\n"), "", "events.jsonl, line 1"),
        (directory("rounds.csv"), "", "rounds.csv is not a file"),
        (directory("journal.jsonl"), "", "journal.jsonl is not a file"),
        (spoil_checkpoints, "", "no finished, undamaged checkpoint to go on from"),
        (spoil_checkpoints, "checkpoints/000002", "checkpoint schema None is not 1 or 2"),
        (spoil("checkpoints/000002/rank-0.pt", b""), "checkpoints/000002", "its SHA-256 is not the manifest's"),
        (spoil("checkpoints/000002/rank-0.pt", b""), "checkpoints/000002", "good ones before it: 000001"),
        (spoil("config.yaml", b"a: ["), "", "valid YAML"),
        (directory("config.yaml"), "", "it has no config.yaml"),
    ],
)
def test_a_damaged_run_is_refused_in_one_message_and_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], resume: str, told: str
) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert command(["train", "--resume", str(run / resume)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert told in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Path(shutil.copytree(OLD, tmp_path / "one"))
    Path(shutil.copytree(OLD, tmp_path / "two"))
    asked = ["train", "--resume", str(one / "checkpoints/000001"), "--storage", str(tmp_path), "--name", "two"]
    assert command(asked) == 2
    assert "a run goes on in its own directory" in capsys.readouterr().err
