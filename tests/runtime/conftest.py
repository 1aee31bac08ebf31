"""A whole run in this process: the real controller, members, shells and driver, with threads for worker actors."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.events import Arrived, Died, Event, Progress, UserError, WorkerUp
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings, Timeouts
from raysgd_local.control.member.events import Cut, YieldAsked
from raysgd_local.control.messages import Order, Report
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError
from raysgd_local.run_files.observers import Heard
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.driver import Driver
from raysgd_local.runtime.run_plan import Plan, Restart, RunOutcome
from raysgd_local.runtime.worker_group import Resources
from raysgd_local.runtime.worker_spec import Loop, WorkerSpec
from raysgd_local.training.context import TrainContext
from raysgd_local.training.current import present, run_loop
from raysgd_local.training.ports import Released
from raysgd_local.training.shell import Shell
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.in_process import InProcessNetwork

torch.set_num_threads(1)


class Killed(BaseException):
    """What a loop raises to die as a process does: nobody gets to clean up."""


class ThreadLink:
    """The driver is an object in this process."""

    def __init__(self, worker: str, post: Callable[[Event], None]) -> None:
        self._worker, self._post = worker, post
        self._orders: list[Order] = []
        self.logged: list[dict[str, Any]] = []
        self._given = threading.Condition()

    def give(self, order: Order) -> None:
        with self._given:
            self._orders.append(order)
            self._given.notify()

    def arrive(self, report: Report) -> Order:
        self._post(Arrived(report))
        with self._given:
            self._given.wait_for(lambda: self._orders)
            return self._orders.pop(0)

    def formed(self, view: int, round: int, steps: int) -> None:
        self._post(Progress(self._worker, view, round, steps))

    def tell(self, event: Any) -> None:
        self._post(event)

    def log(self, fields: dict[str, Any]) -> None:
        self.logged.append(fields)


@dataclass
class ThreadGroup:
    """Workers that are threads. `shells` stay for tests to look into."""

    plan: Plan
    post: Callable[[Event], None]
    loop: Any
    refuse: Callable[[InputError], None]
    network: InProcessNetwork = field(default_factory=InProcessNetwork)
    shells: dict[str, Shell] = field(default_factory=dict)
    links: dict[str, ThreadLink] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)

    def request(self, worker: str) -> None:
        self.links[worker] = ThreadLink(worker, self.post)
        spec = self.plan.spec
        place = WorkerSetup(
            worker,
            spec.seed,
            spec.storage,
            algorithm=spec.algorithm,
            members=self.plan.settings.workers_max,
            claim=spec.claim,
        )
        self.shells[worker] = Shell(place, self.network, self.links[worker])
        threading.Thread(target=self._live, args=(worker,), daemon=True).start()

    def _live(self, worker: str) -> None:
        ctx = TrainContext(self.shells[worker])
        self.post(WorkerUp(worker, "here", 0))
        try:
            with present(ctx):
                run_loop(self.loop, None, ctx)
        except Released:
            self.shells[worker].close()
            self.post(Died(worker, "its loop ended"))
        except Killed:
            self.shells[worker].close()
            self.post(Died(worker, "killed"))
        except InputError as error:
            self.shells[worker].close()
            self.refuse(error)
            self.post(Died(worker, "refused"))
        except BaseException:
            self.shells[worker].close()
            self.post(UserError(worker, traceback.format_exc()))

    def kill(self, worker: str) -> None:
        """A thread can't be killed; the real thing is tested with processes."""

    def order(self, to: tuple[str, ...], order: Order) -> None:
        self.orders.append(order)
        for worker in to:
            self.links[worker].give(order)

    def yield_(self, to: tuple[str, ...], view: int, segment: int) -> None:
        for worker in to:
            self.shells[worker].post(YieldAsked(view, segment))

    def cut(self, to: tuple[str, ...], view: int, why: str) -> None:
        for worker in to:
            self.shells[worker].post(Cut(view, why))

    def close(self) -> None:
        """Threads end by themselves."""


@dataclass
class Finished:
    """A run that is over."""

    outcome: RunOutcome
    group: ThreadGroup
    directory: Path

    @property
    def result(self) -> dict[str, Any]:
        return self.outcome.result

    def models(self) -> list[list[torch.Tensor]]:
        """Every worker's parameters and buffers, parameters first."""
        shells = [self.group.shells[name] for name in sorted(self.group.shells)]
        return [
            [t.detach().clone() for m in s.replica.models for t in (*m.parameters(), *m.buffers())] for s in shells
        ]

    def rows(self) -> list[dict[str, str]]:
        import csv

        with (self.directory / "rounds.csv").open() as stream:
            return list(csv.DictReader(stream))


@pytest.fixture
def killed() -> Killed:
    """Raised in a loop, it ends that worker as the death of its process would."""
    return Killed()


@pytest.fixture
def train_in_threads(tmp_path: Path) -> Callable[..., Finished]:
    """Train `loop` with `workers` threads; returns when the run is over."""

    def train(
        loop: Any,
        workers: int = 2,
        schedule: Any = None,
        name: str = "run",
        policy: CheckpointPolicy | None = None,
        resume: dict[str, Any] | None = None,
        program: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        storage: Storage | None = None,
        heard: Heard | None = None,
        restart: Restart | None = None,
        plan: dict[str, Any] | None = None,
    ) -> Finished:
        storage = storage or Storage.at(str(tmp_path / name))
        made = Plan(
            settings=replace(
                Settings(
                    Program(schedule or FixedPeriod(2), **(program or {})),
                    workers_min=workers,
                    workers_max=workers,
                    seed=3,
                    timeouts=Timeouts(errors_s=0.1),
                    checkpoints=policy or CheckpointPolicy(every_epochs=None),
                ),
                **(settings or {}),
            ),
            spec=replace(
                WorkerSpec(Loop(b"", ()), 3, storage, ".probe", Algorithm(), False, "gloo", 1, name, 10, 60),
                **(spec or {}),
            ),
            resources=Resources(),
            storage=storage,
            names=Names("test", "test"),
            resume=resume,
            heard=heard,
            restart=restart,
            **(plan or {}),
        )
        groups: list[ThreadGroup] = []

        def make_group(plan: Plan, post: Callable[[Event], None]) -> ThreadGroup:
            groups.append(ThreadGroup(plan, post, loop, driver.refuse))
            return groups[0]

        driver = Driver(made, make_group)
        outcome = driver.run()
        return Finished(outcome, groups[0], tmp_path / name)

    return train
