"""The worker actor: one member in a process of its own. `worker_group` makes the plain class remote."""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
from dataclasses import replace
from typing import Any

import cloudpickle
import ray
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from raysgd_local.control.controller.events import (
    Arrived,
    CheckpointFailed,
    DrainNotice,
    Progress,
    ShardWritten,
    UserError,
    WorkerUp,
)
from raysgd_local.control.member.events import Cut, LeaveAsked, YieldAsked
from raysgd_local.control.messages import Order, Report
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.runtime import preemption
from raysgd_local.runtime.datasets import opened_datasets
from raysgd_local.runtime.fault_effects import Sabotage
from raysgd_local.runtime.worker_output import WorkerOutput
from raysgd_local.runtime.worker_spec import Loop, WorkerSpec
from raysgd_local.training.allocator import keep_freed_memory
from raysgd_local.training.context import TrainContext
from raysgd_local.training.current import present, run_loop
from raysgd_local.training.ports import Released
from raysgd_local.training.shell import Shell
from raysgd_local.training.user_traceback import own_traceback
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.listening import nccl_environment, own_address
from raysgd_local.transport.process_group import ProcessGroupNetwork

_LAST_LINES_S = 5.0


class RayLink:
    """A worker's connection to the driver actor: calls don't wait, and orders come back through a queue."""

    def __init__(self, worker: str, driver: Any) -> None:
        self._worker, self._driver = worker, driver
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def arrive(self, report: Report) -> Order:
        self._driver.post.remote(Arrived(report))
        order = self.orders.get()
        while order.number <= (report.view, report.segment):  # a past order: it does not answer this report
            order = self.orders.get()
        return order

    def formed(self, view: int, round: int, steps: int) -> None:
        self._driver.post.remote(Progress(self._worker, view, round, steps))

    def tell(self, event: ShardWritten | CheckpointFailed) -> None:
        """Wait until the driver has the event: it must not hear of this process's end before."""
        ray.get(self._driver.post.remote(event))

    def log(self, fields: dict[str, Any]) -> None:
        self._driver.log.remote(fields)


class TrainWorker:
    """Runs the user's loop in `run`. The other methods are called meanwhile, in a thread group of their own."""

    def __init__(self, name: str, driver: Any, store: tuple[str, int], spec: WorkerSpec, members: int) -> None:
        self._output = WorkerOutput(name, spec.storage, spec.echo)
        self._output.install()
        torch.set_num_threads(spec.threads)
        keep_freed_memory()
        self._name, self._driver, self._spec = name, driver, spec
        self._link = RayLink(name, driver)
        self._refused: InputError | None = None
        self._address = self._own_address()
        device = torch.device("cuda:0" if spec.use_gpu else "cpu")
        self._shell = Shell(
            WorkerSetup(
                name,
                spec.seed,
                spec.storage,
                device,
                spec.algorithm,
                members,
                spec.restricted,
                claim=spec.claim,
            ),
            self._network(store, device),
            self._link,
        )
        self._sabotage = Sabotage(self._reached, self._cut_off)
        if spec.chaos:
            self._shell.interference = self._sabotage
        preemption.on_termination(self._leave)

    def _own_address(self) -> str:
        """Return the address on which this worker listens. `run` raises the error, because it can report it."""
        try:
            return own_address(self._spec.listening, node_address())
        except InputError as error:
            self._refused = error
            return node_address()

    def _network(self, store: tuple[str, int], device: torch.device) -> ProcessGroupNetwork:
        host, port = store
        nccl = self._spec.backend == "nccl"
        if nccl:
            os.environ.update(nccl_environment(self._address, self._spec.listening))
        return ProcessGroupNetwork(
            TCPStore(host, port, is_master=False),
            self._address,
            self._spec.prefix,
            formation_timeout_s=self._spec.formation_timeout_s,
            collective_timeout_s=self._spec.collective_timeout_s,
            backend="nccl" if nccl else "gloo",
            device=device,
            ports=self._spec.listening.ports,
        )

    def _leave(self) -> None:
        """Announce that this process will end soon: to the driver now, to all members with the next averaging."""
        self._shell.post(LeaveAsked())
        self._driver.post.remote(DrainNotice(self._name, "SIGTERM"))

    def run(self) -> None:
        """Run the loop to its end, and report errors to the driver."""
        preemption.hear()  # the loop's own processes inherit it
        self._driver.post.remote(WorkerUp(self._name, _node(), os.getpid()))
        stopped = threading.Event()
        threading.Thread(target=self._beat, args=(stopped,), daemon=True, name="heartbeat").start()
        try:
            self._check_place()
            self._train()
        except Released:
            pass
        except InputError as error:
            self._tell_output(last=True)
            ray.get(self._driver.refuse.remote(error))
        except BaseException as error:  # `sys.exit` too: a replacement's loop would end like this one
            self._tell_output(last=True)
            ray.get(self._driver.post.remote(UserError(self._name, own_traceback(error, ray))))
        finally:
            stopped.set()
            self._tell_output(last=True)
            self._shell.close()

    def _train(self) -> None:
        loop, config = _open(self._spec.loop)
        self._shell.place = replace(self._shell.place, datasets=opened_datasets(self._spec.datasets))
        ctx = TrainContext(self._shell)
        # Exclude imported modules from garbage collection: a full collection of them stops all workers for 0.2 s.
        gc.collect()
        gc.freeze()
        torch.manual_seed(self._spec.seed)  # so that all workers build the same initial model
        with present(ctx):
            run_loop(loop, config, ctx)

    def _check_place(self) -> None:
        """Raise `InputError` if this worker can't see the driver's probe file, because it would write elsewhere."""
        if self._refused is not None:
            raise self._refused
        if not self._spec.storage.exists(self._spec.probe):
            raise InputError(
                "storage",
                self._spec.storage.root,
                "a path that the driver and all workers share",
                f"worker {self._name} on {_node()} does not see what the driver wrote there",
            )

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._spec.beat_s):
            self._driver.beat.remote(self._shell.beat(), self._shell.status())
            self._tell_output()

    def _tell_output(self, last: bool = False) -> None:
        """Tell the driver the new lines of output. At the end wait until it has them: this process may be killed."""
        told = [self._driver.output.remote(self._name, lines)] if (lines := self._output.take(last)) else []
        if last:
            self._output.copy()
            ray.wait(told, timeout=_LAST_LINES_S) if told else None

    # Messages of the controller, beside `run`.

    def order(self, pickled: bytes) -> None:
        self._link.orders.put(cloudpickle.loads(pickled))

    def yield_(self, view: int, segment: int) -> None:
        self._shell.post(YieldAsked(view, segment))

    def cut(self, view: int, why: str) -> None:
        self._shell.post(Cut(view, why))

    # Rehearsed faults.

    def suffer(self, fault: Fault) -> None:
        self._sabotage.suffer(fault)

    def watch(self, watches: tuple[RoundWatch, ...]) -> None:
        self._sabotage.watch(watches)

    def _reached(self, number: int) -> Fault | None:
        fault: Fault | None = ray.get(self._driver.reached.remote(self._name, number))
        return fault

    def _cut_off(self) -> None:
        order = self._shell.member.order
        if order is not None:
            self.cut(order.view.number, "cut by --chaos")


def node_address() -> str:
    """Return this machine's address in the cluster's network."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def _node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _open(loop: Loop) -> tuple[Any, dict[str, Any] | None]:
    for path in reversed(loop.sys_path):
        if path not in sys.path:
            sys.path.insert(0, path)
    return loop.open()
