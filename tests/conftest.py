"""What all tests share: one Ray cluster for those that need one, and the reason where a device is missing."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["run_directories"]

# How long something takes says nothing here: machines that run tests are shared, and slow at times.
settings.register_profile(
    "shared machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # there a failure must be the change's; elsewhere every run tries new examples
)
settings.load_profile("shared machine")


# Started in the background, processes are born deaf to Ctrl-C, and so are those that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the `cluster` has the mark `ray`; whoever has the mark uses the one cluster, and is run first."""
    for item in items:
        fixtures = getattr(item, "fixturenames", [])
        if "cluster" in fixtures:
            item.add_marker(pytest.mark.ray)
        elif item.get_closest_marker("ray"):
            fixtures.append("cluster")
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@cache
def on_ray(file: Path) -> frozenset[str]:
    """The tests of a file that use the cluster: the process that hands tests out knows their names alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    marked = any("mark.ray" in ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return frozenset(
        test.name
        for test in tests
        if marked
        or "cluster" in {argument.arg for argument in test.args.args}
        or any("mark.ray" in ast.unparse(decorator) for decorator in test.decorator_list)
    )


class OneCluster(LoadScopeScheduling):
    """One process runs all tests on Ray; of the others a file stays in one.

    pytest-xdist's own groups add to a test's id, which pytest 9.2 does not let them.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        return "ray" if test.partition("[")[0] in on_ray(self.config.rootpath / file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneCluster:
    return OneCluster(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and this machine has none")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of one local Ray cluster of 8 logical CPUs, started on the first use and shared by all."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")  # Ray's processes inherit it: the cores are few
        environment.delenv("RAY_ADDRESS", raising=False)
        context = ray.init(
            "local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        yield str(context.address_info["address"])
        ray.shutdown()
