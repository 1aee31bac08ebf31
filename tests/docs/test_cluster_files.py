"""The cluster files: valid by Ray's own schema, and as the pages say. (KubeRay's own schema is not on PyPI.)"""

from __future__ import annotations

import json
import re
from importlib.metadata import version

import pytest
import yaml
from pages import ROOT, blocks
from ray.autoscaler._private.util import prepare_config, validate_config

FILES = ["cluster.yaml", "cluster/gcp.yaml", "cluster/on-prem.yaml"]
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M).group(1)
HEALTH = {
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
    "health_check_initial_delay_ms": 0,
}


def read(file):
    return yaml.safe_load((ROOT / file).read_text())


def kuberay():
    return list(yaml.safe_load_all((ROOT / "cluster/kuberay.yaml").read_text()))


def clusters():
    """What KubeRay is asked for, by the kind that asks."""
    stays, job = kuberay()
    return [(stays["kind"], stays["spec"]), (job["kind"], job["spec"]["rayClusterSpec"])]


@pytest.mark.parametrize("file", FILES)
def test_ray_takes_the_file(file):
    validate_config(prepare_config(read(file)))


@pytest.mark.parametrize("file", FILES)
def test_every_node_asks_for_the_token_and_installs_the_pinned_versions(file):
    config = read(file)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        assert "RAY_AUTH_MODE=token ray start" in start
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("-c ~/raysgd-local/constraints.txt ~/raysgd-local" in line for line in config["setup_commands"])


@pytest.mark.parametrize("file", FILES)
def test_a_head_gives_a_silent_node_up_when_the_page_says(file):
    (start,) = [line for line in read(file)["head_start_ray_commands"] if "ray start" in line]
    assert json.loads(re.search(r"--system-config='(.*?)'", start).group(1)) == HEALTH
    most_s = HEALTH["health_check_failure_threshold"] * (
        HEALTH["health_check_period_ms"] + HEALTH["health_check_timeout_ms"]
    )
    assert f"after {most_s // 1000} s at the latest" in (ROOT / "docs/cluster.md").read_text()


@pytest.mark.parametrize("file", FILES[:2])
def test_in_a_cloud_the_head_stays_and_workers_come_and_go(file):
    config = read(file)
    types = config["available_node_types"]
    head, worker = types.pop(config["head_node_type"]), types.popitem()[1]
    spot = ("spot", "SPOT")
    assert not any(word in str(head["node_config"]) for word in spot)
    assert any(word in str(worker["node_config"]) for word in spot)
    assert (head["resources"]["CPU"], worker["min_workers"]) == (0, 0)
    assert 0 < worker["max_workers"] <= config["max_workers"]
    assert config["idle_timeout_minutes"] > 0


def test_the_files_differ_only_where_the_places_do():
    shared = ["setup_commands", "worker_start_ray_commands", "file_mounts", "rsync_exclude"]
    aws, gcp, own = map(read, FILES)
    for key in shared:
        assert aws[key] == gcp[key] == own[key]


@pytest.mark.parametrize(("kind", "spec"), clusters())
def test_kubernetes_is_asked_for_the_same(kind, spec):
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert (spec["rayVersion"], spec["authOptions"]) == (RAY, {"mode": "token"})
    assert spec["enableInTreeAutoscaling"] is True
    assert workers["minReplicas"] < workers["maxReplicas"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    (container,) = head["template"]["spec"]["containers"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        f"RAY_{name}": str(value) for name, value in HEALTH.items()
    }
    (worker,) = workers["template"]["spec"]["containers"]
    assert worker["image"] == container["image"]
    assert worker["image"].endswith(f":{version('raysgd-local')}")


def test_the_job_of_kubernetes_goes_on_by_itself():
    (job,) = [one for one in kuberay() if one["kind"] == "RayJob"]
    assert job["spec"]["backoffLimit"] > 0
    assert "--resume auto" in job["spec"]["entrypoint"]
    assert f"rayproject/ray:{RAY}-" in (ROOT / "cluster/Dockerfile").read_text()


def test_the_pages_commands_name_files_that_are_there():
    named = [
        name for block in blocks("docs/cluster.md") for name in re.findall(r"\S+\.yaml|\S+/Dockerfile", block.text)
    ]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
