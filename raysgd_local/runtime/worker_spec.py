"""The inputs of every worker of a run."""

from __future__ import annotations

import io
import linecache
import types
from dataclasses import dataclass, field
from typing import Any

from ray import cloudpickle  # it knows the owners of Ray's objects that a loop may hold

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.run_files.storage import Storage
from raysgd_local.transport.listening import Listening


@dataclass(frozen=True)
class Loop:
    """The user's training loop, pickled.

    A worker sets `sys.path` before it unpickles the loop, because a task's module may be in the command's directory.
    """

    pickled: bytes
    sys_path: tuple[str, ...]  # of the process that started the run
    sources: tuple[tuple[str, str], ...] = ()  # by file name, of what is pickled by value: for tracebacks

    @staticmethod
    def of(loop: Any, config: dict[str, Any] | None, sys_path: tuple[str, ...]) -> Loop:
        """Pickle a loop: a function, called with `config` if it takes an argument, or an object with `train(ctx)`."""
        pickled = io.BytesIO()
        pickler = _Pickler(pickled)
        pickler.dump((loop, config))  # type: ignore[no-untyped-call]
        texts = ((name, "".join(linecache.getlines(name, module))) for name, module in pickler.files.items())
        return Loop(pickled.getvalue(), sys_path, tuple((name, text) for name, text in texts if text))

    def open(self) -> tuple[Any, dict[str, Any] | None]:
        """Return the loop and its argument. Tracebacks show its lines, though its file may not be on this machine."""
        for name, text in self.sources:
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        opened: tuple[Any, dict[str, Any] | None] = cloudpickle.loads(self.pickled)
        return opened


class _Pickler(cloudpickle.Pickler):
    """Notes the files of functions that are pickled by value: workers may not have them (a notebook, a script)."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)  # type: ignore[no-untyped-call]
        self.files: dict[str, dict[str, Any]] = {}  # by name, a module in which the functions are

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)  # type: ignore[no-untyped-call]
        if isinstance(obj, types.FunctionType) and reduced is not NotImplemented:
            self.files[obj.__code__.co_filename] = obj.__globals__
        return reduced


@dataclass(frozen=True)
class WorkerSpec:
    """The inputs of every worker of a run."""

    loop: Loop
    seed: int
    storage: Storage  # the run directory
    probe: str  # name of the driver's file, by which a worker checks that it sees the same storage
    algorithm: Algorithm
    use_gpu: bool
    backend: str  # "nccl" or "gloo"
    threads: int  # of torch
    prefix: str  # name of the run in the store
    formation_timeout_s: float  # for connecting the members of a view
    collective_timeout_s: float  # for one collective
    beat_s: float = 0.25  # time between heartbeats
    datasets: bytes = b""  # pickled, by name; empty if there are none
    restricted: bool = False  # a worker has the data of its own chunks only
    claim: str = (
        ""  # the file in the run directory that shows that the run is still this command's; empty: none is
    )
    chaos: bool = False  # faults will be made to happen
    echo: bool = False  # the driver shows what workers print
    listening: Listening = field(default_factory=Listening)  # address and ports
