"""Benchmarks take minutes to hours, so tests don't run them; what they are made of has to be there all the same."""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from raysgd_local.algorithms.recipes import RECIPES

FOLDER = Path(__file__).parents[1] / "benchmarks"
FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.py") if path.name != "__init__.py")


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    for folder in (FOLDER, FOLDER / "papers"):
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_benchmark_finds_what_it_imports(file):
    importlib.import_module(f"lib.{file.stem}" if file.parent.name == "lib" else file.stem)


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "papers"], ids=lambda folder: folder.name)
def test_scripts_of_either_folder_find_the_shared_modules_beside_themselves(folder):
    found = PathFinder.find_spec("lib", [str(folder)])
    assert found is not None
    assert Path(found.origin).resolve() == FOLDER / "lib" / "__init__.py"


def test_every_recipe_has_its_trial():
    assert importlib.import_module("recipes").trials().keys() == RECIPES.keys()
