"""A journal from somebody else can't run code: reading it imports no module that it names."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import pytest

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.cli import app
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError
from raysgd_local.run_files import journal
from raysgd_local.run_files.journal_classes import OWN, find_record

MODULE = """
from dataclasses import dataclass
from raysgd_local.algorithms.schedules import FixedPeriod
open("imported", "w").close()
@dataclass(frozen=True)
class Own(FixedPeriod): ...
"""


def written(folder, schedule) -> None:
    line = journal.begun(Settings(Program(FixedPeriod(4)), 1, 1), None)
    line["settings"]["program"]["schedule"] = schedule
    (folder / "journal.jsonl").write_text(json.dumps(line) + "\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "foreign_schedule.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("foreign_schedule", None)


def test_a_module_that_a_journal_names_is_not_imported_unless_the_user_says_so(folder, capsys):
    written(folder, {"class": "foreign_schedule:Own", "tau": 4})
    assert app.run(["replay", "."]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: journal: 'foreign_schedule:Own' is not allowed")
    assert "--import MODULE" in told
    assert not (folder / "imported").exists()
    assert "foreign_schedule" not in sys.modules
    assert app.run(["replay", ".", "--import", "foreign_schedule"]) == 0
    assert (folder / "imported").exists()


def test_a_module_that_can_not_be_imported_is_told(folder, capsys):
    assert app.run(["replay", ".", "--import", "no_such_module"]) == 2
    assert "import: 'no_such_module' is not allowed" in capsys.readouterr().err


@dataclass
class Harmful:
    command: str = ""

    def __post_init__(self) -> None:
        raise AssertionError("made from a journal")


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "subprocess:Popen",
        "raysgd_local.run_files.storage:Storage",
        "raysgd_local.cli.__main__:main",
        "antigravity:Any",
        f"{__name__}:Harmful",
        "raysgd_local.control.controller.settings:Settings.__class__",
        "",
        ":",
        "nonsense",
        None,
        3,
        ["a"],
    ],
)
def test_only_own_records_and_users_schedules_and_placements_are_made(path):
    with pytest.raises(InputError, match="^journal: "):
        find_record(path)


def test_every_own_record_is_found_by_its_path():
    assert all(find_record(path) is kind for path, kind in OWN.items())
