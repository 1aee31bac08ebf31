"""A run on record: in its files, and told to those who listen."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow
from raysgd_local.run_files import reader, tables
from raysgd_local.run_files.observer import RunObserver
from raysgd_local.run_files.observers import Heard, Notice, Outbox
from raysgd_local.run_files.recording import Recording
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage


class Notes(RunObserver):
    """Writes down what it is told."""

    def __init__(self):
        self.rounds, self.events, self.rewinds, self.ends = [], [], [], []

    def rounds_resolved(self, rounds):
        self.rounds += [row.round for row in rounds]

    def event_recorded(self, event):
        self.events.append(event.name)

    def rewound(self, round, evaluations, incarnation):
        self.rewinds.append((round, evaluations, incarnation))

    def run_ended(self, end):
        self.ends.append(end.status)


class Broken(RunObserver):
    def rounds_resolved(self, rounds):
        raise KeyError("no such metric")


def row(round: int, **changes) -> RoundRow:
    plain = RoundRow(round, 1, 1, 2, 4, "global", 8, 64, 0, 0.5 * round, 0.1, 0.1, 0.0, 100, 1.5, 0.1)
    return dataclasses.replace(plain, **changes)


def recorded(*rounds: int) -> c.RecordRounds:
    return c.RecordRounds(tuple(map(row, rounds)), ())


def checkpoint(round: int) -> CheckpointRecord:
    state = Replicated(schedule=None, round=round)
    return CheckpointRecord(f"c{round}", 1, 1, ("w0",), False, state, Ledger(), None, None)


@pytest.fixture
def storage(tmp_path):
    return Storage.at(str(tmp_path))


def table(storage: Storage) -> list[dict[str, str]]:
    return list(csv.DictReader(storage.read("rounds.csv").decode().splitlines()))


def test_files_and_observers_get_the_same_rounds(storage):
    notes = Notes()
    recording = Recording(storage, lambda: 0.0, (notes,))
    recording.record(recorded(1, 2))
    recording.record(recorded(3))
    recording.end(c.Finish("finished", "done"), None, Names("m", "t"), lambda _: None)
    assert notes.rounds == [1, 2, 3] == [int(line["round"]) for line in table(storage)]
    assert notes.ends == ["finished"]


def test_an_observer_that_raises_is_dropped_and_that_is_told_once(storage):
    notes = Notes()
    recording = Recording(storage, lambda: 0.0, (Broken(), notes))
    recording.record(recorded(1))
    recording.record(recorded(2))
    assert notes.rounds == [1, 2]
    assert notes.events == ["observer_failed"]
    (event,) = recording.files.events
    assert (event["observer"], event["reason"]) == ("Broken", "KeyError: 'no such metric'")


def test_a_restart_rewinds_at_once_and_not_again_when_the_controller_does(storage):
    notes = Notes()
    recording = Recording(storage, lambda: 0.0, (notes,))
    recording.record(recorded(1, 2, 3))
    recording.restarted(checkpoint(2), incarnation=2)
    recording.rewind(2, 0, 2)
    recording.record(recorded(3))
    assert notes.rewinds == [(2, 0, 2)]
    assert [line["round"] for line in recording.files.rounds] == [1, 2, 3]


def test_storage_in_trouble_is_told_to_observers_too(storage, tmp_path):
    notes = Notes()
    recording = Recording(storage, lambda: 0.0, (notes,))
    (tmp_path / "rounds.csv").mkdir()  # can't be appended to
    recording.record(recorded(1))
    assert notes.events == ["storage_failed"]


def test_rounds_that_observers_missed_by_the_drivers_death_are_told_by_the_next(storage):
    outbox = Outbox()
    first = Recording(storage, lambda: 0.0, outbox=outbox)
    first.record(recorded(1, 2))
    first.event("one")
    heard = Heard()
    for notice in outbox.fetch(0).notices:
        heard = heard.after(notice)
    first.record(c.RecordRounds((row(3), row(4)), (EvalRow(3, 8, 64, 0, 1.5, {"accuracy": 0.5}),)))
    first.event("two")

    outbox = Outbox()
    second = Recording(storage, lambda: 0.0, outbox=outbox)
    restored = checkpoint(3)
    state = dataclasses.replace(restored.replicated, evaluations=1)
    second.restarted(dataclasses.replace(restored, replicated=state), 2, heard)
    rewound, rounds, evaluations, event = outbox.fetch(0).notices
    assert rewound == Notice("rewound", (3, 1, 2))
    assert repr(rounds.arguments[0]) == repr((row(3),))  # columns may be NaN
    assert evaluations.arguments == ((EvalRow(3, 8, 64, 0, 1.5, {"accuracy": 0.5}),),)
    assert event.arguments[0].name == "two"


def test_what_was_heard_of_is_not_told_again(storage):
    recording = Recording(storage, lambda: 0.0)
    recording.record(recorded(1, 2, 3))
    outbox = Outbox()
    Recording(storage, lambda: 0.0, outbox=outbox).restarted(checkpoint(2), 2, Heard(round=3))
    assert [notice.method for notice in outbox.fetch(0).notices] == ["rewound"]


def test_notices_stay_until_their_receipt_is_acknowledged():
    outbox = Outbox()
    for number in range(3):
        outbox.put(Notice("checkpoint_deleted", (str(number),)))
    assert len(outbox.fetch(0).notices) == 3
    assert len(outbox.fetch(0).notices) == 3
    delivery = outbox.fetch(2)
    assert (delivery.first, [notice.arguments for notice in delivery.notices]) == (2, [("2",)])
    assert outbox.fetch(0) == delivery


# Tables of other versions.


@pytest.fixture
def newer(monkeypatch):
    """As if a version later had added the column `heat`."""
    monkeypatch.setattr(tables, "ROUND_COLUMNS", [*tables.ROUND_COLUMNS, "heat"])
    monkeypatch.setattr(tables, "ABSENT", {**tables.ABSENT, "heat": float("nan")})
    monkeypatch.setattr(reader, "ROUND_COLUMNS", tables.ROUND_COLUMNS)
    monkeypatch.setattr(reader, "ABSENT", tables.ABSENT)


OLD = (
    "round,view,incarnation,workers,tau,scope,steps,samples,epoch,"
    "elapsed_s,compute_s,sync_s,wait_s,wire_bytes,loss,lr\n"
)
OLD_ROW = "1,1,1,2,4,global,8,64,0,0.5,0.1,0.1,0.0,100,1.5,0.1\n"


def test_an_older_table_is_read_with_nan_for_what_it_lacks(tmp_path, newer):
    (tmp_path / "config.yaml").write_text("name: old\n")
    (tmp_path / "rounds.csv").write_text(OLD + OLD_ROW)
    rounds = reader.load(tmp_path).rounds
    assert list(rounds.columns) == tables.ROUND_COLUMNS
    assert rounds["heat"].isna().all()
    assert rounds["loss"].tolist() == [1.5]


def test_an_older_run_is_resumed_with_all_columns(storage, tmp_path, newer):
    (tmp_path / "rounds.csv").write_text(OLD + OLD_ROW)
    recording = Recording(storage, lambda: 0.0)
    recording.record(recorded(2))
    recording.record(recorded(3))
    assert [(line["round"], line["loss"]) for line in table(storage)] == [("1", "1.5"), ("2", "1.5"), ("3", "1.5")]
    assert list(table(storage)[0]) == tables.ROUND_COLUMNS


def test_a_newer_run_is_read_and_resumed_by_column_name(storage, tmp_path):
    (tmp_path / "config.yaml").write_text("name: new\n")
    (tmp_path / "rounds.csv").write_text("heat," + OLD + "37," + OLD_ROW)
    recording = Recording(storage, lambda: 0.0)
    recording.record(recorded(2))
    rounds = reader.load(tmp_path).rounds
    assert rounds["round"].tolist() == [1, 2]
    assert rounds["heat"].fillna(0).tolist() == [37, 0]
