"""The lower layers stand on their own: they import where Ray, or Ray and torch, can't be found."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

import raysgd_local

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
NEEDS_RAY = (
    "raysgd_local.runtime",
    "raysgd_local.trainer",
    "raysgd_local.cli.submission",
    "raysgd_local.tuning.search",
    "raysgd_local.tuning.terminal",
    "raysgd_local.tuning.trial",
)
FACE_WITHOUT_TORCH = (
    "cli.app",
    "cli.job",
    "cli.methods",
    "config",
    "report",
    "run.progress",
    "run.request",
    "tasks.base",
    "tasks.optimizer",
    "tuning.start",
    "tuning.sweep",
)
IMPORT_ALL = """
import importlib, json, sys

absent, modules = json.loads(sys.argv[1])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
failed = {}
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


def modules() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(raysgd_local.__path__, "raysgd_local.")]


def within(names: list[str], packages: Iterable[str]) -> list[str]:
    """Those of the modules that are, or lie in, one of `packages`."""
    return [name for name in names if any(name == one or name.startswith(f"{one}.") for one in packages)]


def without_torch() -> list[str]:
    """What the contract in `pyproject.toml` keeps free of torch, and the part of the face that comes before it."""
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if "torch" in one.get("forbidden_modules", ())]
    return [*contract["source_modules"], *(f"raysgd_local.{name}" for name in FACE_WITHOUT_TORCH)]


def failures(absent: tuple[str, ...], modules: list[str]) -> dict[str, str]:
    """Why each of the modules can't be imported in a new process without the packages `absent`."""
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps([absent, modules])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(done.stdout))


def test_all_below_the_runtime_and_the_face_around_it_import_without_ray():
    names = modules()
    chosen = sorted(set(names) - set(within(names, NEEDS_RAY)))
    assert {
        "raysgd_local.control.member.machine",
        "raysgd_local.transport.gloo.transport",
        "raysgd_local.cli.app",
    } <= set(chosen)
    assert failures(("ray",), chosen) == {}


def test_configuration_schedules_and_both_machines_import_without_torch_too():
    chosen = within(modules(), without_torch())
    assert {
        "raysgd_local.config",
        "raysgd_local.control.controller.machine",
        "raysgd_local.algorithms.schedules.adacomm",
        "raysgd_local.run.request",
    } <= set(chosen)
    assert failures(("ray", "torch", "torchvision"), chosen) == {}


def test_a_training_loop_gets_its_context_without_ray():
    assert failures(("ray",), ["raysgd_local.training.context", "raysgd_local.training.standalone"]) == {}


@pytest.mark.parametrize("absent", ["ray", "torch"])
def test_a_module_that_needs_what_is_absent_is_noticed(absent):
    assert failures((absent,), ["raysgd_local.trainer"])
