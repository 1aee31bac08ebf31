"""Pages are run in a directory of their own, in which the files that they name lie."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory from which modules can be imported; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
