"""Measure the cost of a task on this machine, by training it with one worker for some seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.messages import Order, Report
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.errors import InputError, UserCodeError
from raysgd_local.tasks import task_name
from raysgd_local.tasks.base import Task
from raysgd_local.training.context import TrainContext
from raysgd_local.training.current import present, run_loop
from raysgd_local.training.ports import Released
from raysgd_local.training.shell import Shell
from raysgd_local.training.standalone import DirectLink
from raysgd_local.training.user_traceback import own_traceback
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.in_process import InProcessNetwork

_WARM_UP = 3  # steps during which caches fill and libraries are loaded


@dataclass(frozen=True)
class Workload:
    """The measured cost of a task on this machine."""

    samples: int  # size of the training set
    state_bytes: int  # size of the averaged vector, including buffers
    step_s: tuple[float, ...]  # times of optimizer steps, including data loading, after the warm-up
    round_s: float  # further time of a round: packing, checking, installing
    warmup_s: float  # extra time of the first step


def measure(task: Task, threads: int = 1, seconds: float = 5.0, steps: int = 300, seed: int = 0) -> Workload:
    """Train `task` with one worker in this process for `seconds` or `steps`, whichever ends first.

    It uses the task's own loop, model, loader and batch size, and averages (with no other member) after every step.
    Raises `InputError` for a task whose loop doesn't use `ctx.batches` or takes no step, and `UserCodeError` if the
    task's code raises.
    """
    program = Program(FixedPeriod(1), segment_s=1e9, max_steps=steps, max_s=seconds)
    link = _Link(Settings(program, 1, 1, seed=seed, checkpoints=CheckpointPolicy(every_epochs=None)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shell = Shell(WorkerSetup("w0", seed, device=device), InProcessNetwork(), link)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _train(task, _Context(shell))
    finally:
        torch.set_num_threads(before)
    return _workload(task, shell, [*link.rounds, *shell.member.rounds])


def _train(task: Task, ctx: TrainContext) -> None:
    try:
        with present(ctx):
            run_loop(task, None, ctx)
    except Released:
        pass
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserCodeError(own_traceback(error), (0,)) from error


def _workload(task: Task, shell: Shell, rounds: list[RoundRow]) -> Workload:
    rows = [row for row in rounds if row.steps]
    samples = shell.stepper.epoch_samples
    if not rows or samples == 1:  # 1 is the stepper's value while it doesn't know the data set's size
        raise InputError("task.name", task_name(task), "a task that takes steps on batches of ctx.batches")
    compute_s = np.array([row.compute_s for row in rows])
    elapsed_s = np.array([row.elapsed_s for row in rows])
    warm = compute_s[_WARM_UP:] if len(rows) > 2 * _WARM_UP else compute_s[-1:]
    beside_s = np.diff(elapsed_s) - compute_s[1:]
    state = shell.replica.averaged()
    return Workload(
        samples=samples,
        state_bytes=state.numel * state.dtype.itemsize,
        step_s=tuple(warm.tolist()),
        round_s=max(0.0, float(np.median(beside_s))) if len(beside_s) else 0.0,
        warmup_s=max(0.0, float(elapsed_s[0] - warm.mean())),
    )


class _Link(DirectLink):
    """A link to the controller that keeps the reported rounds."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.rounds: list[RoundRow] = []

    def arrive(self, report: Report) -> Order:
        self.rounds += report.rounds
        return super().arrive(report)


class _Context(TrainContext):
    """A context that ends the loop after the measurement, instead of evaluating."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self.stopping:
            raise Released("measured")
        return super().evaluate(*args, **kwargs)
