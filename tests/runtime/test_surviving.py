"""Real worker processes that stop, hang or are told to go, and what the others make of it."""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import Algorithm, Delayed, FixedPeriod, LocalSGDTrainer
from raysgd_local.control.controller import membership
from raysgd_local.control.controller.settings import Limit
from raysgd_local.run_files import journal
from raysgd_local.runtime.driver import actor_options

pytestmark = pytest.mark.ray


def patient_loop(config):
    """Trains until the file `enough` is there; steps take a while, as they do in earnest."""
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = TensorDataset(torch.randn(config["samples"], 2), torch.randn(config["samples"], 1))
    for _ in ctx.epochs(10_000):
        for x, y in ctx.batches(data, batch_size=8):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            time.sleep(config["step_s"])
            ctx.step(loss)
            hang = Path(config["folder"]) / f"hang-{os.getpid()}"
            while hang.exists():
                time.sleep(0.05)
            if (Path(config["folder"]) / "enough").exists():
                ctx.stop()


class Running:
    """A run in a thread, seen through its files."""

    def __init__(
        self,
        folder: Path,
        workers: int = 3,
        cpus: int = 1,
        timeouts: Any = None,
        chaos: str = "",
        schedule: Any = None,
        samples: int = 480,
    ) -> None:
        self.folder, self.path = folder, folder / "run"
        self._trainer = LocalSGDTrainer(
            train_loop_per_worker=patient_loop,
            train_loop_config={"folder": str(folder), "step_s": 0.01, "samples": samples},
            algorithm=Algorithm(schedule=schedule or FixedPeriod(4)),
            scaling_config=ScalingConfig(num_workers=(1, workers), resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(name="run", storage_path=str(folder)),
            chaos=chaos,
        )
        if timeouts:
            settings = self._trainer._request.settings
            changed = replace(settings, timeouts=replace(settings.timeouts, **timeouts))
            self._trainer._request = replace(self._trainer._request, settings=changed)
        self._result: Any = None
        self.thread = threading.Thread(target=self._fit, daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            self._result = self._trainer.fit()
        except BaseException as error:
            self._result = error

    def events(self, name: str = "") -> list[dict[str, Any]]:
        path = self.path / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if event["event"] == name] if name else found

    def wait(self, condition: Callable[[], Any], what: str, limit_s: float = 90) -> Any:
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen: {self.events()[-5:]}"
            assert self.thread.is_alive(), self._result
            time.sleep(0.01)
        return found

    def rounds(self) -> list[dict[str, str]]:
        import csv

        path = self.path / "rounds.csv"
        return list(csv.DictReader(path.open())) if path.exists() else []

    def pids(self) -> dict[str, int]:
        """Of everyone who ever joined."""
        return {event["worker"]: event["pid"] for event in self.events("worker_joined")}

    def members(self) -> dict[str, int]:
        """The pids of those who are in."""
        gone = {event["worker"] for name in ("worker_lost", "worker_left") for event in self.events(name)}
        return {worker: pid for worker, pid in self.pids().items() if worker not in gone}

    def steady(self, workers: int) -> dict[str, int]:
        """The members' pids in rank order, once all are in and rounds are resolved."""

        def all_in() -> bool:
            formed = self.events("view_formed")
            return bool(formed) and formed[-1]["workers"] == workers == len(self.members()) and bool(self.rounds())

        self.wait(all_in, "training")
        return self.members()

    def finish(self) -> dict[str, Any]:
        """The result's metrics, when training was told that it is enough."""
        (self.folder / "enough").touch()
        self.thread.join(60)
        assert not isinstance(self._result, BaseException), self._result
        return dict(self._result.metrics)


@pytest.fixture
def start(cluster, tmp_path):
    """Starts the test's run, and ends it whatever becomes of the test."""
    begun: list[Running] = []

    def begin(**options: Any) -> Running:
        begun.append(Running(tmp_path, **options))
        return begun[0]

    yield begin
    for hang in tmp_path.glob("hang-*"):
        hang.unlink()
    for run in begun:
        (run.folder / "enough").touch()
        run.thread.join(60)


def assert_exact(run: Running, result: dict[str, Any]) -> None:
    """No sample lost or repeated but those of the epoch that was open when the run was stopped."""
    numbers = [int(row["round"]) for row in run.rounds()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert result["samples_lost"] == result["samples_repeated"] == 0
    assert result["status"] == "finished"


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def enduring(cluster, tmp_path_factory):
    """One run of three workers to which several tests do something, one after another; it loses nothing by any."""
    run = Running(tmp_path_factory.mktemp("enduring"))
    yield run
    assert_exact(run, run.finish())


class Since:
    """What a run tells from now on."""

    def __init__(self, run: Running) -> None:
        self._run, self._told, self.time_s = run, len(run.events()), time.time()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self._run.events()[self._told :] if event["event"] == name]


def test_a_stopped_worker_is_left_out_within_two_seconds_and_when_it_continues_it_is_gone(enduring):
    pids = enduring.steady(3)
    (survivor, stopped, other), since = pids, Since(enduring)
    os.kill(pids[stopped], signal.SIGSTOP)
    formed = enduring.wait(lambda: since.events("view_formed"), "a view without it")
    (lost,) = since.events("worker_lost")
    assert lost["worker"] == stopped
    assert "no sign of life" in lost["reason"]
    assert formed[0]["time_s"] - since.time_s < 4, lost  # 2 s on a machine that is not shared
    os.kill(pids[stopped], signal.SIGCONT)
    enduring.wait(lambda: gone(pids[stopped]), "the zombie's end")
    again = enduring.steady(3)  # a replacement
    assert {name: again[name] for name in (survivor, other)} == {name: pids[name] for name in (survivor, other)}


def assert_nothing_broke(run: Running | Since) -> None:
    assert run.events("worker_lost") == []
    assert [event["stall_s"] for event in run.events("view_formed") if event["stall_s"]] == []


def test_a_worker_told_to_end_leaves_at_a_boundary_and_is_replaced_without_a_broken_round(enduring):
    pids = enduring.steady(3)
    leaving, since = next(iter(pids)), Since(enduring)
    os.kill(pids[leaving], signal.SIGTERM)
    enduring.wait(lambda: since.events("worker_left"), "its leaving")
    enduring.wait(lambda: gone(pids[leaving]), "its end")
    enduring.steady(3)  # a replacement
    assert_nothing_broke(since)
    assert [event["worker"] for event in since.events("drain_notice")] == [leaving]


def test_a_second_termination_ends_the_process_at_once(enduring):
    pids = enduring.steady(3)
    told, since = list(pids)[1], Since(enduring)
    (enduring.folder / f"hang-{pids[told]}").touch()  # so that it can't leave
    os.kill(pids[told], signal.SIGTERM)
    enduring.wait(lambda: since.events("drain_notice"), "the notice")
    os.kill(pids[told], signal.SIGTERM)
    enduring.wait(lambda: since.events("worker_lost"), "its death")
    assert [event["worker"] for event in since.events("worker_lost")] == [told]


def test_a_run_outlives_its_vanished_directory_and_its_tables_are_whole_in_the_end(enduring):
    enduring.steady(3)
    away = enduring.path.with_name("away")
    enduring.path.rename(away)
    enduring.path.touch()  # nothing can be written here
    time_s = time.monotonic()
    enduring.wait(lambda: time.monotonic() > time_s + 1.5, "some rounds without a disk")
    enduring.path.unlink()
    away.rename(enduring.path)
    enduring.wait(lambda: enduring.events("storage_recovered"), "the recovery")
    result = enduring.finish()
    assert_exact(enduring, result)
    assert result["workers_lost"] == 2
    assert result["storage_failures"] >= 1
    assert result["rounds"] == len(enduring.rounds())


def replayed(lines: list[dict[str, Any]]) -> list[bool]:
    """Of each of a journal's events, whether the controller does the same again."""
    return [step.same for step in journal.replay(lines)]


def lacking(lines: list[dict[str, Any]], kind: str) -> Iterator[list[dict[str, Any]]]:
    """The journal without one event of a kind, for each of which anything came."""
    found = [number for number, line in enumerate(lines) if line["kind"] == kind]
    for number in [number for number in found if lines[number]["commands"]] or found:
        yield [*lines[:number], *lines[number + 1 :]]


@pytest.fixture(scope="module")
def journalled(enduring):
    """The journal of the run that bore all that."""
    enduring.finish()
    return journal.read(enduring.path)


def test_the_journal_of_deaths_joins_and_a_leave_gives_the_same_commands_again(enduring, journalled):
    assert {"WorkerUp", "Arrived", "Died", "DrainNotice"} <= {line["kind"] for line in journalled}
    assert len(enduring.pids()) > 3  # some joined later
    assert len(enduring.events("worker_left")) >= 1
    assert len(enduring.events("worker_lost")) == 2
    assert all(replayed(journalled))
    assert sum(line.get("commands", "") != "" for line in journalled) > 20


@pytest.mark.parametrize("kind", ["WorkerUp", "DrainNotice", "Died", "Arrived"])
def test_a_journal_that_lacks_an_event_does_not_give_the_same_commands(journalled, kind):
    assert not all(all(replayed(lines)) for lines in lacking(journalled, kind))


def test_a_controller_that_decides_otherwise_does_not_give_the_same_commands(journalled, monkeypatch):
    monkeypatch.setattr(
        membership, "ask_yield", lambda turn: None
    )  # who joins or leaves waits for the segment's end
    assert not all(replayed(journalled))


@pytest.mark.long
def test_a_loop_that_hangs_in_a_living_process_is_ended_by_the_stragglers_budget(start):
    run = start(timeouts={"straggler": Limit(0, 2, 60)})
    pids = run.steady(3)
    hang = run.folder / f"hang-{pids['w2']}"
    hang.touch()
    (lost,) = run.wait(lambda: run.events("worker_lost"), "its eviction")
    assert lost["worker"] == "w2"
    assert "kept the others waiting" in lost["reason"]
    run.wait(lambda: gone(pids["w2"]), "its end")
    assert_exact(run, run.finish())


@pytest.fixture(scope="module")
def second_node(cluster):
    """The id of another node of the shared cluster, half as large as the first; its last test drains it."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    ports = {"node_manager_port": 0, "min_worker_port": 0, "max_worker_port": 0}
    shape = {"num_cpus": 4, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    node = Node(RayParams(gcs_address=cluster, **shape, **ports), head=False, spawn_reaper=False)
    yield node.node_id
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


class Somewhere:
    def node(self):
        return ray.get_runtime_context().get_node_id()


@pytest.mark.long
def test_the_driver_lives_on_the_machine_that_asked_for_it(second_node):
    actors = [ray.remote(**actor_options())(Somewhere).remote() for _ in range(8)]
    assert {ray.get(actor.node.remote()) for actor in actors} == {Somewhere().node()} != {second_node}


def drain(cluster: str, node: str) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline_ms = int((time.time() + 60) * 1000)
    preempted = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=cluster).drain_node(node, preempted, "a test's", deadline_ms)
    assert accepted, why


def test_workers_on_a_draining_node_leave_without_a_broken_round(start, cluster, second_node):
    run = start(cpus=4)
    run.steady(3)
    (away,) = [e["worker"] for e in run.events("worker_joined") if e["node"] == second_node]
    drain(cluster, second_node)
    (left,) = run.wait(lambda: run.events("worker_left"), "its leaving")
    assert left["worker"] == away
    result = run.finish()
    assert_exact(run, result)
    assert_nothing_broke(run)
    assert (result["workers_lost"], result["stall_s_max"]) == (0, 0.0)


def driver_of(run: Running) -> psutil.Process:
    """The process of this run's driver: Ray names actors' processes, and other clusters may run beside ours."""
    named = psutil.process_iter(["cmdline", "create_time"])
    drivers = [p for p in named if "ray::Driver" in " ".join(p.info["cmdline"] or ())]
    ours = [p for p in drivers if set(run.pids().values()) & peers(p)]
    return max(ours, key=lambda p: p.info["create_time"])


def peers(process: psutil.Process) -> set[int]:
    """Processes of the same Ray node."""
    parent = process.parent()
    return {child.pid for child in parent.children()} if parent is not None else set()


@pytest.mark.long
def test_a_killed_driver_is_started_again_from_the_newest_checkpoint(start):
    run = start(workers=2)
    run.steady(2)
    run.wait(lambda: run.events("checkpoint_written"), "a checkpoint")
    workers = run.pids()
    driver_of(run).kill()
    began_s = time.time()
    (again,) = run.wait(lambda: run.events("driver_restarted"), "another driver")
    assert again["checkpoint"]
    formed = run.wait(lambda: [e for e in run.events("view_formed") if e["time_s"] > began_s], "training again")
    print(f"driver killed: training again after {formed[0]['time_s'] - began_s:.1f} s")
    assert all(gone(pid) for pid in workers.values())
    result = run.finish()
    assert_exact(run, result)
    assert result["driver_restarts"] == 1
    assert {row["incarnation"] for row in run.rounds()} == {"1", "2"}


def seconds(rows: list[dict[str, str]]) -> float:
    """The typical round's."""
    return statistics.median(sum(float(row[name]) for name in ("compute_s", "wait_s", "sync_s")) for row in rows)


@pytest.mark.long
def test_a_worker_at_half_speed_takes_fewer_steps_and_rounds_take_no_longer(start):
    run = start(chaos="slow:2x2@round=24", schedule=FixedPeriod(16), samples=6144)
    shared = run.wait(lambda: run.events("steps_shared"), "unequal steps")[-1]
    run.wait(lambda: len(run.rounds()) > shared["round"] + 15, "rounds with them")
    result = run.finish()
    rows = [row for row in run.rounds() if int(row["samples"])]
    before = [row for row in rows if int(row["round"]) <= 23]
    slow = [row for row in rows if 26 <= int(row["round"]) < shared["round"]]
    after = [row for row in rows if int(row["round"]) > shared["round"] + 2]
    print(f"rounds: {seconds(before):.3f} s, slow {seconds(slow):.3f} s, shared {seconds(after):.3f} s, {shared}")
    assert min(shared["shares"].values()) < 0.75
    assert seconds(after) < 1.35 * seconds(before)  # 1.2 on a machine that is not shared
    assert seconds(after) < seconds(slow)
    assert_exact(run, result)


@pytest.mark.long
def test_where_averagings_travel_a_killed_worker_and_its_replacement_cost_no_sample(start):
    run = start(schedule=Delayed(FixedPeriod(4), 2))
    pids = run.steady(3)
    for victim in (0, 1):
        name = list(run.members())[victim]
        os.kill(run.members()[name], signal.SIGKILL)
        run.wait(lambda name=name: name not in run.members(), "its loss")
        again = run.steady(3)
        reached = len(run.rounds())
        run.wait(lambda reached=reached: len(run.rounds()) > reached + 20, "rounds with its replacement")
    result = run.finish()
    assert_exact(run, result)
    assert result["workers_lost"] == 2
    assert len(set(again.values()) & set(pids.values())) == 1  # the survivor keeps its process
