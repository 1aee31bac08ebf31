"""Benchmarks take minutes to hours, so tests don't run them; what they are made of has to be there all the same."""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import torch

from raysgd_local.algorithms.recipes import RECIPES

FOLDER = Path(__file__).parents[1] / "benchmarks"
PICTURES = FOLDER.parent / "docs" / "images"
FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.py") if path.name != "__init__.py")


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    for folder in (FOLDER, FOLDER / "papers"):
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_benchmark_finds_what_it_imports(file):
    importlib.import_module(f"lib.{file.stem}" if file.parent.name == "lib" else file.stem)


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "papers", PICTURES], ids=lambda folder: folder.name)
def test_scripts_of_every_folder_find_the_shared_modules_beside_themselves(folder):
    found = PathFinder.find_spec("lib", [str(folder)])
    assert found is not None
    assert Path(found.origin).resolve() == FOLDER / "lib" / "__init__.py"


def test_every_recipe_has_its_trial():
    assert importlib.import_module("recipes").trials().keys() == RECIPES.keys()


def test_an_epoch_is_drawn_at_random_from_all_samples_and_the_first_ones_are_judged():
    train, judged = importlib.import_module("lib.drawn").drawn((torch.arange(10),), epoch=1000, judged=3)
    (drawn,) = train.__getitems__(range(len(train))).columns
    assert len(drawn) == 1000
    assert set(drawn.tolist()) == set(range(10))
    assert judged.tensors[0].tolist() == [0, 1, 2]


def test_a_run_that_did_not_end_is_cleared_away_and_a_kept_directory_stays(tmp_path):
    directories = importlib.import_module("lib.run_directories")
    with directories.kept_or_temporary(tmp_path / "kept", "test") as folder:
        (folder / "run").mkdir()
        assert directories.finished(folder / "run") is None
    assert folder == tmp_path / "kept"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "expected"), [([], {"n": 0}), ([3, 1, 1.00049], {"n": 3, "median": 1.0, "max": 3})]
)
def test_figures_of_faults_are_summarised_by_their_median_and_maximum(values, expected):
    assert importlib.import_module("lib.fault_runs").summary(values) == expected
