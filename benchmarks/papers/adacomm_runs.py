"""One run of `adacomm_error_runtime.py`: the problem, a job, its curve, and two ways to come to it."""

from __future__ import annotations

import functools
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch
from lib.drawn import drawn
from rows import Rows
from torch import nn

from raysgd_local import AdaComm, Algorithm, FixedPeriod
from raysgd_local.algorithms.schedules import Observation, Schedule
from raysgd_local.config import Checkpoints, Config, Stop, Workers
from raysgd_local.run.request import from_config
from raysgd_local.run.simulator import Conditions, simulate_run
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Constant
from raysgd_local.tasks import FashionMNIST, Optimizer
from raysgd_local.tasks.memory import InMemory
from raysgd_local.tasks.models import mlp

WORKERS, BATCH, COMPONENTS, HIDDEN, JUDGED = 16, 4, 64, 32, 8192
EPOCH_STEPS = 64  # an epoch is what lies between two evaluations
STEP_S = 0.01  # a unit of time
LAST = 5  # evaluations, of which the mean counts: single ones are noisy


@functools.cache
def principal_components() -> tuple[torch.Tensor, torch.Tensor]:
    """The training images by their largest components, each with variance 1: (60000, COMPONENTS), and classes."""
    images, classes = FashionMNIST().datasets()[0].tensors
    pixels = images.flatten(1) - images.flatten(1).mean(0)
    spread, directions = torch.linalg.eigh(pixels.T @ pixels / len(pixels))  # in ascending order
    return pixels @ directions[:, -COMPONENTS:] / spread[-COMPONENTS:].sqrt(), classes


@dataclass(frozen=True, kw_only=True)
class DrawnClothes(FashionMNIST):
    """Principal components drawn at random, and the training loss as the judge."""

    def make_model(self) -> nn.Module:
        return mlp(COMPONENTS, HIDDEN, 10)

    def datasets(self) -> tuple[InMemory, InMemory]:
        return drawn(principal_components(), WORKERS * BATCH * EPOCH_STEPS, JUDGED)


@dataclass(frozen=True, kw_only=True)
class WaitingClothes(DrawnClothes):
    """Each step waits `step_s` beside what it computes, as for an accelerator."""

    step_s: float = STEP_S

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        if model.training:
            time.sleep(self.step_s)
        return super().loss(model, batch)


@dataclass(frozen=True)
class Job:
    """One run: a fixed period, or with `interval` AdaComm from `tau`; at most `epochs`, and `units` of time."""

    tau: int
    ratio: int
    seed: int
    rate: float
    epochs: int
    interval: float = 0.0
    units: float = math.inf

    @property
    def name(self) -> str:
        kind = f"adacomm-{self.interval:g}" if self.interval else "fixed"
        return f"{kind}-tau{self.tau}-ratio{self.ratio}-rate{self.rate:g}-seed{self.seed}"

    def schedule(self, step_s: float) -> Schedule:
        return AdaComm(self.tau, self.interval * step_s) if self.interval else FixedPeriod(self.tau)


@dataclass(frozen=True)
class Curve:
    """Of each evaluation the time, in units, and the loss; of each round the time at its end and its period."""

    at: list[float]
    loss: list[float]
    rounds_at: list[float]
    tau: list[int]

    @property
    def smooth(self) -> list[float]:
        """At each evaluation the mean of the last few."""
        return [fmean(self.loss[max(0, k - LAST + 1) : k + 1]) for k in range(len(self.loss))]

    def reaches(self, goal: float) -> float:
        """When the loss is there; infinity if it never is."""
        found = (at for at, loss in zip(self.at[LAST - 1 :], self.smooth[LAST - 1 :], strict=True) if loss <= goal)
        return next(found, math.inf)

    def at_time(self, units: float) -> float:
        """The loss then, between evaluations on a line from one's logarithm to the other's; it begins at ln 10."""
        known = np.log([math.log(10), *self.loss])
        return float(np.exp(np.interp(units, [0.0, *self.at], known)))

    def at_ratio(self, ratio: int, old: int) -> Curve:
        """The same steps where an averaging takes another time: what a fixed period learns doesn't hang on time."""
        spent = np.arange(1, len(self.rounds_at) + 1) * float(old - ratio)
        moved = np.array(self.rounds_at) - spent
        number = np.searchsorted(self.rounds_at, np.array(self.at) - 1e-6)
        return Curve(moved[number].tolist(), self.loss, moved.tolist(), self.tau)


def configuration(job: Job, storage: str, task: FashionMNIST, step_s: float, name: str | None = None) -> Config:
    """The run on workers whose step, a unit of time, takes `step_s`."""
    optimizer = Optimizer(lr=job.rate, momentum=0.0)
    return Config(
        task=replace(task, epochs=job.epochs, batch_size=BATCH, optimizer=optimizer),
        algorithm=Algorithm(schedule=job.schedule(step_s)),
        workers=Workers(min=WORKERS, max=WORKERS, balance=False),
        stop=Stop(seconds=job.units * step_s if math.isfinite(job.units) else None),
        checkpoints=Checkpoints(every_epochs=None),
        storage=storage,
        name=name,
        seed=job.seed,
    )


def simulated(job: Job, storage: str) -> Curve:
    config = configuration(job, storage, DrawnClothes(), STEP_S)
    cluster = ClusterModel(Constant(STEP_S), latency_ms=0.0, round_ms=1000 * STEP_S * job.ratio)
    path = simulate_run(from_config(config), Conditions(cluster), report=False)
    rounds, evals = (pd.read_csv(path / name) for name in ("rounds.csv", "evals.csv"))
    ends = (rounds["steps"] / WORKERS + job.ratio).cumsum()
    at = ends[np.searchsorted(rounds["round"], evals["round"])]
    return Curve(at.tolist(), evals["loss"].tolist(), ends.tolist(), rounds["tau"].tolist())


def in_rows(job: Job) -> Curve:
    """The same without the fleet: all workers as rows of one tensor, and the clock by hand."""
    torch.manual_seed(job.seed)
    inputs, classes = principal_components()
    model = mlp(COMPONENTS, HIDDEN, 10)
    rows = Rows(model, (inputs, classes), WORKERS, BATCH, job.rate, job.seed)
    curve, schedule, steps, clock = Curve([], [], [], []), job.schedule(STEP_S), 0, 0.0
    state = schedule.init()
    while steps < job.epochs * EPOCH_STEPS and clock < job.units:
        taken = min(state.period.tau, EPOCH_STEPS - steps % EPOCH_STEPS)  # a round ends with its epoch
        loss = fmean(rows.step() for _ in range(taken))
        rows.average()
        steps, clock = steps + taken, clock + taken + job.ratio
        curve.rounds_at.append(clock)
        curve.tau.append(state.period.tau)
        state = schedule.next(state, observed(len(curve.tau), loss, taken, steps, clock))
        if steps % EPOCH_STEPS == 0:
            curve.at.append(clock)
            curve.loss.append(rows.loss(inputs[:JUDGED], classes[:JUDGED]))
    return curve


def observed(round: int, loss: float, taken: int, steps: int, clock: float) -> Observation:
    """What members would know after a round of so many steps."""
    samples = WORKERS * BATCH
    return Observation(
        round,
        loss=loss,
        round_samples=taken * samples,
        samples=steps * samples,
        steps=steps * WORKERS,
        epoch=steps // EPOCH_STEPS,
        elapsed_s=clock * STEP_S,
        lr_decay=1.0,
        workers=WORKERS,
    )


def run(folder: Path, fleet: bool, job: Job) -> Curve:
    """The job's curve, of the simulator's `fleet` or in rows; what is in `folder` is not run again."""
    path = folder / f"{'fleet' if fleet else 'rows'}-{job.name}.json"
    if not path.exists():
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as storage:
            path.write_text(json.dumps(asdict(simulated(job, storage) if fleet else in_rows(job))))
        print(f"{path.stem}: done", flush=True)
    return Curve(**json.loads(path.read_text()))
