"""Start, call, watch and end the worker actors. It decides nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle
import ray
from ray.exceptions import RayActorError
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from raysgd_local.control.controller.events import Died, Event
from raysgd_local.control.messages import Order
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.runtime.preemption import DrainWatch
from raysgd_local.runtime.worker import TrainWorker, node_address
from raysgd_local.runtime.worker_spec import WorkerSpec
from raysgd_local.transport.listening import Listening, listener, own_address
from raysgd_local.transport.store_clients import forget_views_before

# Thread group for calls that must not wait for the training loop.
_CONTROL = "control"
_WATCH_EVERY_S = 0.2

# Smaller arguments are sent with each call, which is faster than the object store. Ray's own limit.
_INLINE_BYTES = 100_000


@dataclass(frozen=True)
class Resources:
    """The resources of one worker. An unplaced worker stays requested, so an autoscaler sees the demand."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    custom: dict[str, float] | None = None  # of the cluster's own kinds


class WorkerGroup:
    """All worker actors of one run. They die with the driver actor, which owns them."""

    def __init__(
        self, driver: Any, spec: WorkerSpec, resources: Resources, members: int, post: Callable[[Event], None]
    ) -> None:
        self._make = _remote(resources)
        self._store = _store(spec.listening)
        self._arguments = (driver, (self._store.host, self._store.port), spec, members)
        self._prefix, self._newest_view = spec.prefix, 0
        self._post = post
        self._actors: dict[str, Any] = {}
        self._running: dict[Any, str] = {}  # the ref of `run` → worker
        self._closed = threading.Event()
        self._draining = DrainWatch(post)
        threading.Thread(target=self._watch, daemon=True, name="watch-workers").start()

    def request(self, worker: str) -> None:
        actor = self._make.remote(worker, *self._arguments)
        self._actors[worker] = actor
        self._running[actor.run.remote()] = worker

    def kill(self, worker: str) -> None:
        """End a worker without waiting: Ray needs seconds to end a stopped process."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor)

    def order(self, to: tuple[str, ...], order: Order) -> None:
        content: Any = cloudpickle.dumps(order)
        if len(content) > _INLINE_BYTES:
            content = ray.put(content)
        self._each(to, lambda actor: _beside(actor.order).remote(content))
        if order.view.number > self._newest_view:  # members may still be leaving the previous view
            self._newest_view = order.view.number
            forget_views_before(self._store, self._prefix, order.view.number - 1)

    def yield_(self, to: tuple[str, ...], view: int, segment: int) -> None:
        self._each(to, lambda actor: _beside(actor.yield_).remote(view, segment))

    def cut(self, to: tuple[str, ...], view: int, why: str) -> None:
        self._each(to, lambda actor: _beside(actor.cut).remote(view, why))

    def suffer(self, worker: str, fault: Fault) -> None:
        self._each((worker,), lambda actor: _beside(actor.suffer).remote(fault))

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None:
        self._each((worker,), lambda actor: _beside(actor.watch).remote(watches))

    def _each(self, to: tuple[str, ...], call: Callable[[Any], object]) -> None:
        for worker in to:
            if worker in self._actors:
                call(self._actors[worker])

    def _watch(self) -> None:
        """Post each worker's end. Ray reports a death within milliseconds: `run` fails, or returns at a normal end."""
        while not self._closed.wait(0.0 if self._running else _WATCH_EVERY_S):
            refs = list(self._running)
            ended, _ = ray.wait(refs, num_returns=1, timeout=_WATCH_EVERY_S) if refs else ([], [])
            for ref in ended:
                self._post(Died(self._running.pop(ref), _cause(ref)))

    def close(self) -> None:
        self._closed.set()
        self._draining.stop()
        for worker in list(self._actors):
            self.kill(worker)


def _store(listening: Listening) -> TCPStore:
    """Start the run's store, in which each view has a prefix of its own.

    The store has no authentication, so it listens on one address of the node and nowhere else. Raises `InputError` if
    the node has no such address.
    """
    address = own_address(listening, node_address())
    server = listener(address, listening.ports)
    port = server.getsockname()[1]
    return TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach())


def _remote(resources: Resources) -> Any:
    options: Any = {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "resources": resources.custom,
        "max_restarts": 0,  # the controller asks for a new worker under another name
        "max_task_retries": 0,
        "concurrency_groups": {_CONTROL: 2},
    }
    return ray.remote(**options)(TrainWorker)


def _beside(method: Any) -> Any:
    """Return the method in the thread group that is free while `run` trains."""
    return method.options(concurrency_group=_CONTROL)


def _cause(ref: Any) -> str:
    try:
        ray.get(ref, timeout=1)
    except RayActorError as error:
        return str(error).splitlines()[0]
    except Exception as error:  # a bug in the worker's shell
        return f"{type(error).__name__}: {error}"
    return "its loop ended"
