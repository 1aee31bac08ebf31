"""The names that users import: there, documented, and found without loading what is heavy."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import raysgd_local
import raysgd_local.tasks

PUBLIC = [name for name in raysgd_local.__all__ if name != "__version__"]
OF_A_PROTOCOL = (  # the protocols say what they do
    *("init", "next", "restore", "reached"),
    *("coupling", "step", "encode", "decode", "weight", "stretch", "order", "neighbours", "blocks"),
)
SAY_ALL = ("copies", "device", "world_size", "fine")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_of_its_own(name):
    found = getattr(raysgd_local, name)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}("), "this is what `dataclass` writes where nobody wrote anything"
    assert inspect.getdoc(found) == inspect.cleandoc(found.__doc__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_method_has_a_docstring(name):
    found = getattr(raysgd_local, name)
    if not inspect.isclass(found):
        return
    own = {method: value for method, value in vars(found).items() if not method.startswith("_")}
    described = {method for method, value in own.items() if value.__doc__ or not _callable(value)}
    assert set(own) - described <= {*OF_A_PROTOCOL, *SAY_ALL}


def _callable(value):
    return inspect.isfunction(value) or isinstance(value, property)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'AdaCom'"):
        raysgd_local.AdaCom  # noqa: B018


def test_dir_lists_the_public_names():
    assert set(raysgd_local.__all__) <= set(dir(raysgd_local))


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert raysgd_local.__version__ == version("raysgd-local")


def test_names_that_need_neither_torch_nor_ray_load_neither():
    light = [name for name in PUBLIC if name not in ("LocalSGDTrainer", "TrainContext", "get_context")]
    program = f"""
import sys
from raysgd_local import {", ".join(light)}
from raysgd_local.tasks import Digits, FashionMNIST, Optimizer
print(*sorted({{"torch", "ray", "torchvision"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
