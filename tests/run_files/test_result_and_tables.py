"""`result.json` and `evals.csv` with names and numbers that are a trap."""

from __future__ import annotations

import json
import math

import pytest

from raysgd_local.records import EvalRow
from raysgd_local.run_files import tables
from raysgd_local.run_files.result import skipped, strict_json
from raysgd_local.run_files.tables import EVAL_COLUMNS, eval_columns, eval_plain, eval_row

METRICS = [
    {"accuracy": 0.5},
    dict.fromkeys(EVAL_COLUMNS, 77.0),
    {"epoch": 1.0, "metric:epoch": 2.0, "metric:metric:epoch": 3.0, "metric:": 4.0},
    {"status": 5.0, "metrics": 6.0, "a,b": 7.0, 'a "quote"': 8.0, "two\nlines": 9.0, "": 10.0, "<b>$x$</b>": 11.0},
]


@pytest.mark.parametrize("metrics", METRICS, ids=range(len(METRICS)))
def test_no_name_of_a_metric_breaks_the_table_or_hides_a_column(metrics):
    row = EvalRow(3, 20, 160, 2, 1.5, metrics)
    columns = eval_columns([eval_plain(row)])
    (read,) = tables.parsed(tables.EVALS, tables.text(columns, [eval_plain(row)], header=True).encode())
    assert columns[: len(EVAL_COLUMNS)] == EVAL_COLUMNS
    assert [read[name] for name in EVAL_COLUMNS] == [3, 20, 160, 2, 1.5]
    assert eval_row(read) == row


def test_metrics_that_differ_between_evaluations_leave_cells_empty():
    rows = [eval_plain(EvalRow(i, 1, 1, 1, 1.0, {name: 1.0})) for i, name in enumerate(("epoch", "loss"))]
    read = tables.parsed(tables.EVALS, tables.text(eval_columns(rows), rows, header=True).encode())
    assert [eval_row(row).metrics for row in read] == [{"epoch": 1.0}, {"loss": 1.0}]


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def test_numbers_that_are_not_finite_are_null_in_result_json():
    content = {
        "train_loss": math.nan,
        "eval": {"a": math.inf, "b": -math.inf, "c": 0.5},
        "list": [math.nan, 1],
        "n": 3,
    }
    read = json.loads(strict_json(content), parse_constant=refuse)
    assert read == {"train_loss": None, "eval": {"a": None, "b": None, "c": 0.5}, "list": [None, 1], "n": 3}
    assert math.isnan(content["train_loss"])  # only the text is changed


def test_a_shard_that_several_workers_skip_counts_once():
    told = {"event": "log", "shard_skipped": "a", "rows": 3}
    others = [{"event": "log", "shard_skipped": "b", "rows": None}, {"event": "resumed"}]
    assert skipped([told, told, *others]) == {"shards_skipped": 2, "rows_skipped": 3}
