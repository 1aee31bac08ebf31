"""The lower layers stand on their own: they import where Ray, or Ray and torch, can't be found."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import raysgd_local

NEEDS_RAY = ("raysgd_local.runtime", "raysgd_local.trainer")
NEEDS_TORCH = (
    *NEEDS_RAY,
    "raysgd_local.flat",
    "raysgd_local.transport",
    "raysgd_local.simulation",
    *(f"raysgd_local.algorithms.{name}" for name in ("state", "batchnorm", "buffers", "gradients", "snapshot")),
    "raysgd_local.algorithms.optimizer_state",
    "raysgd_local.tasks.memory",
    "raysgd_local.tasks.models",
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


def modules_but(excluded: tuple[str, ...]) -> list[str]:
    found = pkgutil.walk_packages(raysgd_local.__path__, "raysgd_local.")
    names = (module.name for module in found)
    return [name for name in names if not any(name == one or name.startswith(f"{one}.") for one in excluded)]


def failures(absent: tuple[str, ...], modules: list[str]) -> dict[str, str]:
    """Why each of the modules can't be imported in a new process without the packages `absent`."""
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps([absent, modules])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(done.stdout))


def test_all_below_the_runtime_and_the_face_around_it_import_without_ray():
    modules = modules_but(NEEDS_RAY)
    assert {"raysgd_local.control.member", "raysgd_local.transport.gloo", "raysgd_local.cli"} <= set(modules)
    assert failures(("ray",), modules) == {}


def test_configuration_schedules_and_both_machines_import_without_torch_too():
    modules = modules_but(NEEDS_TORCH)
    assert {
        "raysgd_local.config",
        "raysgd_local.control.controller",
        "raysgd_local.algorithms.schedules.adacomm",
        "raysgd_local.request",
    } <= set(modules)
    assert failures(("ray", "torch", "torchvision"), modules) == {}


def test_a_training_loop_gets_its_context_without_ray():
    assert failures(("ray",), ["raysgd_local.runtime.context", "raysgd_local.runtime.alone"]) == {}


@pytest.mark.parametrize("absent", ["ray", "torch"])
def test_a_module_that_needs_what_is_absent_is_noticed(absent):
    assert failures((absent,), ["raysgd_local.trainer"])
