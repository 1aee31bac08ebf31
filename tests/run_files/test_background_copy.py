"""A run's tables on storage that is not this machine's: copied in the background, again and again where it is away."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from pyarrow import fs

from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.writer import EVENTS, RunFiles


@dataclass(frozen=True)
class Elsewhere(Storage):
    """A directory that is reached as an object store is; `trouble` holds why it can't be written, if so."""

    trouble: tuple[list[str], ...] = ([],)

    def write(self, name: str, content: bytes) -> str:
        for why in self.trouble[0]:
            raise OSError(why)
        return super().write(name, content)


@pytest.fixture
def storage(tmp_path):
    return Elsewhere(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run", ([],))


def told(storage: Storage) -> list[str]:
    return [json.loads(line)["event"] for line in storage.read(EVENTS).decode().splitlines()]


def copy_out(files: RunFiles, now: float) -> None:
    """Until the copies that this begins are done."""
    files.copy_out(now)
    while files._copies.busy:
        pass


def test_tables_are_copied_when_that_is_due(storage):
    files = RunFiles(storage, lambda: 0.0)
    files.event("one")
    assert not storage.exists(EVENTS)
    copy_out(files, 10.0)
    assert told(storage) == ["one"]
    files.event("two")
    copy_out(files, 20.0)
    assert told(storage) == ["one", "two"]


def test_what_could_not_be_copied_is_copied_later_and_the_outage_is_told_once(storage):
    files = RunFiles(storage, lambda: 0.0)
    storage.trouble[0].append("nobody there")
    files.event("one")
    for now in (10.0, 20.0, 30.0, 40.0):
        copy_out(files, now)
    storage.trouble[0].clear()
    for now in (80.0, 120.0, 160.0):
        copy_out(files, now)
    assert told(storage) == ["one", "storage_failed", "storage_recovered"]


def test_the_next_driver_finds_what_was_copied(storage):
    files = RunFiles(storage, lambda: 0.0)
    files.event("one")
    assert files.finish({"result.json": "{}"}, lambda _: None) == ""
    assert [event["event"] for event in RunFiles(storage, lambda: 0.0).events] == ["one"]


def test_an_end_that_can_not_be_written_is_told(storage):
    files = RunFiles(storage, lambda: 0.0)
    storage.trouble[0].append("nobody there")
    assert files.finish({"result.json": "{}"}, lambda _: None) == "nobody there"
