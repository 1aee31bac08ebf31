"""What all tests share: one Ray cluster for those that need one, and the reason where a device is missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

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
    """Whoever uses the `cluster` has the mark `ray`; whoever has the mark uses the one cluster."""
    for item in items:
        fixtures = getattr(item, "fixturenames", [])
        if "cluster" in fixtures:
            item.add_marker(pytest.mark.ray)
        elif item.get_closest_marker("ray"):
            fixtures.append("cluster")


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
