"""Values of every kind that a loop logs, in types of JSON."""

from __future__ import annotations

import datetime
import json
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from raysgd_local.errors import InputError
from raysgd_local.training.logged import logged


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (torch.tensor(1.5), 1.5),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor(2.0, requires_grad=True), 2.0),
        (torch.tensor([True, False]), [True, False]),
        (float("nan"), "nan"),
        (torch.tensor(float("-inf")), "-inf"),
        (np.array([1.0, np.inf]), [1.0, "inf"]),
        (complex(1, 2), "(1+2j)"),
        ({"a": (np.float64(1), {2}), 3: None}, {"a": [1.0, [2]], "3": None}),
        (Path("a/b"), str(Path("a/b"))),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Colour.RED, "red"),
        (b"raw", "b'raw'"),
    ],
)
def test_a_value_of_any_kind_is_logged(value, expected):
    plain = logged({"x": value})
    assert plain == {"x": expected}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_a_field_that_is_called_as_one_of_the_line_s_own_is_logged_under_a_name_of_its_own():
    fields = logged({"event": 1, "time_s": 2, "worker": 3, "round": 4, "rank": 5, "log_event": 6})
    assert fields == {
        "rank": 5,
        "log_event": 6,
        "log_log_event": 1,
        "log_time_s": 2,
        "log_worker": 3,
        "log_round": 4,
    }


@pytest.mark.parametrize(
    "value",
    [torch.zeros(1001), np.zeros(5000), list(range(2000)), "x" * 10_001, 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_too_large_for_a_line_is_refused_by_its_field(value):
    with pytest.raises(InputError, match=r"ctx\.log\(weights=…\)"):
        logged({"weights": value})


def test_a_list_that_holds_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(InputError, match="levels"):
        logged({"x": endless})
