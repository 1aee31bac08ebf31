"""Evaluations on record, whatever their metrics are called and whichever evaluation has them."""

from __future__ import annotations

import json
import math

import pytest

from raysgd_local.control.controller import events as c
from raysgd_local.records import EvalRow
from raysgd_local.run_files import tables
from raysgd_local.run_files.recording import Recording
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage

NAMES = [
    "a,b",
    "$x$",
    "\\frac",
    'say "x"',
    "one\ntwo",
    "one\r\ntwo",
    "one\rtwo",
    "<b>&amp;",
    "π 🙂",
    " x ",
    "1",
    "",
]
OWN = ["epoch", "status", "round", "metric:x", "metrics"]


@pytest.fixture
def storage(tmp_path):
    return Storage.at(str(tmp_path))


def evaluation(number: int, /, **metrics: float) -> EvalRow:
    return EvalRow(number, number, 8 * number, 0, 0.5 * number, metrics)


def recorded(storage: Storage, *rows: EvalRow) -> Recording:
    recording = Recording(storage, lambda: 0.0)
    for row in rows:
        recording.record(c.RecordRounds((), (row,)))
    return recording


def read_again(storage: Storage) -> list[EvalRow]:
    return [tables.eval_row(row) for row in Recording(storage, lambda: 0.0).files.evaluations]


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_a_metric_of_any_name_is_read_as_it_was_written(storage, name):
    rows = [evaluation(1, **{name: 0.25, "loss": 1.0}), evaluation(2, **{name: 0.5, "loss": 0.5})]
    recorded(storage, *rows)
    assert read_again(storage) == rows


def test_two_evaluations_of_a_round_are_kept_and_the_newest_value_of_each_metric_counts(storage):
    rows = [evaluation(1, valid=1.0, both=1.0), evaluation(1, test=2.0, both=2.0), evaluation(2, valid=math.nan)]
    recording = recorded(storage, *rows[:2])
    assert read_again(storage) == rows[:2]
    recording.record(c.RecordRounds((), rows[2:]))
    _, content = recording.end(c.Finish("finished", "done"), None, Names("m", "t"), lambda _: None)
    assert content["eval"] == pytest.approx({"both": 2.0, "test": 2.0, "valid": math.nan}, nan_ok=True)


def test_the_result_is_strict_json(storage):
    recording = recorded(storage, evaluation(1, valid=math.nan, test=math.inf, x=0.5))
    recording.end(c.Finish("finished", "done"), None, Names("m", "t"), lambda _: None)

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(storage.read("result.json"), parse_constant=refuse)
    assert content["eval"] == {"test": None, "valid": None, "x": 0.5}


def test_an_event_s_fields_may_have_any_name_and_any_value(storage):
    recording = Recording(storage, lambda: 0.0)
    recording.event("log", self=1, event=2, odd={1, 2}, loss=1.5)
    recording.event("log", loss=2.5)
    recording.files._behind.add("events.jsonl")  # as after an outage: the file is written anew
    assert recording.files.retry(10.0) == ""
    lines = [json.loads(line) for line in storage.read("events.jsonl").decode().splitlines()]
    assert [(line["event"], line["loss"]) for line in lines[:2]] == [("log", 1.5), ("log", 2.5)]
    assert (lines[0]["self"], lines[0]["odd"]) == (1, "{1, 2}")
