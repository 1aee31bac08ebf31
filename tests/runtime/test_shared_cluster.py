"""The tests' own cluster: started once, and code defined in a test module reaches its workers."""

from __future__ import annotations

import os

import ray


def here() -> tuple[int, str]:
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_code_of_a_test_module_runs_in_the_shared_cluster(cluster):
    pid, threads = ray.get(ray.remote(here).remote(), timeout=60)
    assert pid != os.getpid()
    assert threads == "1"
    assert ray.cluster_resources()["CPU"] == 8
    assert cluster
