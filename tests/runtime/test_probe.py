"""The driver's probe file, by which workers check that they see the same storage, does not stay behind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.supervisor import probed


def test_probes_of_this_command_and_of_killed_ones_are_removed_and_nothing_else(tmp_path):
    storage = Storage.at(str(tmp_path))
    plan = SimpleNamespace(storage=storage, spec=SimpleNamespace(probe=".run-0123abcd"))
    kept = ["rounds.csv", ".run-2", ".run-notes.txt", "run-0123abcd", ".other-0123abcd"]
    for name in (*kept, ".run-00000000", ".run-89abcdef"):
        storage.write(name, b"")
    with pytest.raises(KeyboardInterrupt):
        interrupted(plan)
    assert storage.names() == sorted(kept)


def interrupted(plan) -> None:
    with probed(plan):
        assert not [name for name in plan.storage.names() if name in (".run-00000000", ".run-89abcdef")]
        plan.storage.write(".run-0123abcd", b"seen")
        raise KeyboardInterrupt
