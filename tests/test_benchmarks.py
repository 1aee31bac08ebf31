"""Benchmarks take minutes to hours, so tests don't run them; what they are made of has to be there all the same."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from raysgd_local.algorithms.recipes import RECIPES

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.py"))


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    for folder in (FOLDER, FOLDER / "papers"):
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_benchmark_finds_what_it_imports(script):
    importlib.import_module(script.stem)


def test_every_recipe_has_its_trial():
    assert importlib.import_module("recipes").trials().keys() == RECIPES.keys()
