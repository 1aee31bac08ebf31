"""A run whose workers find no place says what they wait for; a local one listens on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ray.train import RunConfig, ScalingConfig

from raysgd_local import InputError, LocalSGDTrainer, Network, get_context
from raysgd_local.runtime.placement import PlacementWatch, Shortage, amounts
from raysgd_local.runtime.supervisor import listening_of
from raysgd_local.runtime.worker_group import Resources
from raysgd_local.tasks import Digits
from raysgd_local.transport.listening import Listening


def test_a_shortage_names_each_resource_and_its_holders():
    each = amounts(Resources(2.0, 1.0, {"disk": 3.0}))
    told = str(Shortage(1, 4, each, {"CPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}, holders=("the actor Searcher",)))
    assert "1 of 4 workers: each asks for 2 CPU and 1 GPU and 3 disk" in told
    assert (
        "1 of the cluster's 8 CPU are free; 0 of the cluster's 1 GPU are free; 0 of the cluster's 0 disk" in told
    )
    assert told.endswith("may be held by the actor Searcher")


def test_nothing_is_said_in_the_first_seconds_nor_where_no_worker_is_awaited():
    watch = PlacementWatch(Resources(), 4)
    assert [watch.look(awaited) for awaited in (False, True, True)] == ["", "", ""]


@pytest.mark.ray
def test_a_run_that_others_leave_no_cpus_for_says_so_and_who_may_hold_them(cluster, tmp_path):
    import ray

    searcher = ray.remote(num_cpus=7)(Searcher).remote()
    try:
        ray.get(searcher.ready.remote())
        run = LocalSGDTrainer(
            Digits(epochs=1),
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(name="run", storage_path=str(tmp_path)),
            start_timeout_s=7,
        )
        seen = []
        with pytest.raises(InputError, match=r"workers\.min: 2") as refused:
            run.fit(observe=seen.append)
    finally:
        ray.kill(searcher)
    for told in (str(refused.value), next(one.message for one in seen if one.message)):
        assert "waiting for Ray to place 1 of 2 workers: each asks for 1 CPU; 0 of the cluster's 8 CPU" in told
        assert "the actor Searcher" in told


class Searcher:
    """Holds CPUs."""

    def ready(self) -> bool:
        return True


def test_only_a_local_run_that_names_no_network_listens_on_the_loopback():
    assert listening_of(Network(), local=True) == Listening(subnet="127.0.0.0/8")
    assert listening_of(Network(), local=False) == Listening()
    assert listening_of(Network(interface="eth0"), local=True) == Listening(interface="eth0")
    assert listening_of(Network(subnet="10.0.0.0/8"), local=True) == Listening(subnet="10.0.0.0/8")


def listening_sockets() -> None:
    """A training loop that records the addresses at which its process, and the driver's, listen for TCP."""
    import psutil
    import torch

    ctx, process = get_context(), psutil.Process()
    before = addresses(process)
    model = ctx.prepare_model(torch.nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in ctx.epochs(1):
        for _ in range(20):
            model(torch.ones(1, 2)).sum().backward()
            ctx.step(1.0, samples=1)
        drivers = [other for other in process.parent().children() if "Driver" in other.name()]
        found = [addresses(other) for other in drivers]
        ctx.log(gloo=sorted(addresses(process) - before), driver=[sorted(one) for one in found])


def addresses(process) -> set[tuple[str, int]]:
    found = process.net_connections(kind="tcp")
    return {tuple(one.laddr) for one in found if one.status == "LISTEN"}


LOCAL = """
import sys
from ray.train import RunConfig, ScalingConfig
sys.path.insert(0, sys.argv[1])
from test_placement import listening_sockets
from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer
run = RunConfig(name="run", storage_path=sys.argv[2])
LocalSGDTrainer(train_loop_per_worker=listening_sockets, algorithm=Algorithm(FixedPeriod(2)),
    scaling_config=ScalingConfig(num_workers=2), run_config=run).fit()
"""


@pytest.mark.long
def test_gloo_and_the_store_of_a_local_run_listen_on_the_loopback_alone(tmp_path):
    command = [sys.executable, "-c", LOCAL, os.path.dirname(__file__), str(tmp_path)]
    subprocess.run(command, check=True, timeout=240, capture_output=True)
    events = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
    logged = [event for event in events if event["event"] == "log"]
    assert len(logged) == 2
    for event in logged:
        assert [host for host, _ in event["gloo"]] == ["127.0.0.1"]
        ((*driver,),) = event["driver"]
        assert [host for host, _ in driver if host != "::"] == ["127.0.0.1"]  # "::" is Ray's own server
