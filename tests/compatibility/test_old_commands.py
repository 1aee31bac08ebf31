"""Ways to start something that were documented before `raysgd-local` had a command for it, and that go on working."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raysgd_local.run_files.journal_classes import find_record
from raysgd_local.run_files.old_class_paths import MOVED

IN_JOURNALS = (Path(__file__).parent / "class_paths.txt").read_text().split()  # as they were before the move


def said(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_search_is_a_module_too() -> None:
    assert said("raysgd_local.simulation.search", "--seeds", "5").startswith("5 seeds in ")


def test_the_command_is_a_module_too() -> None:
    assert said("raysgd_local.cli", "--version").startswith("raysgd-local ")


def test_the_journals_reader_is_a_module_too() -> None:
    assert "--show" in said("raysgd_local.files.journal", "--help")


@pytest.mark.parametrize("path", IN_JOURNALS)
def test_a_class_that_an_old_journal_names_is_found(path: str) -> None:
    assert find_record(path).__name__ == path.partition(":")[2]


def test_where_a_class_moved_to_it_has_not_moved_on() -> None:
    assert not MOVED.keys() & set(MOVED.values())
