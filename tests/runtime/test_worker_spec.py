"""A loop that is sent to workers by value: its source goes with it, for tracebacks."""

from __future__ import annotations

import linecache
from typing import Any

import pytest

from raysgd_local.runtime.worker_spec import Loop
from raysgd_local.training.user_traceback import own_traceback

CELL = """
def helper():
    raise ValueError("mine")

def loop(config):
    helper()
"""


def in_a_notebook(name: str) -> dict[str, Any]:
    """Functions as a notebook's cell makes them: their file exists in this process' `linecache` only."""
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL, name, "exec"), module)
    return module


@pytest.mark.parametrize("name", ["<dynamic-code>", "<ipython-input-3>", "/not/on/the/worker.py"])
def test_a_traceback_shows_the_lines_of_a_file_that_the_worker_has_not(name) -> None:
    sent = Loop.of(in_a_notebook(name)["loop"], {}, ())
    del linecache.cache[name]
    loop, config = sent.open()
    with pytest.raises(ValueError, match="mine") as raised:
        loop(config)
    told = own_traceback(raised.value)
    assert f'File "{name}", line 6, in loop\n    helper()' in told
    assert f'File "{name}", line 3, in helper\n    raise ValueError("mine")' in told
    del linecache.cache[name]


def test_source_of_what_workers_import_themselves_is_not_sent() -> None:
    assert Loop.of(own_traceback, None, ()).sources == ()
